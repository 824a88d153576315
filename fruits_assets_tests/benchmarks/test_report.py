"""What the benchmark concludes from what it measured."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import photos, report
from benchmarks.report import Result, Target


def results(**rates: float) -> list[Result]:
    """Contender -> images/s, at 14,000 photos."""
    return [Result(name, 14_000, [14_000 / rate] * 3, {}) for name, rate in rates.items()]


def verdicts(found: list[Result]) -> list[str]:
    return [target.line().split()[0] for target in report.targets(found)]


def test_targets_compare_rates_at_the_same_size():
    found = results(intern=50, predict_batch=100, project=260, ceiling=280)
    assert verdicts(found) == ["pass", "pass", "pass"]
    assert [round(target.figure, 2) for target in report.targets(found)] == [5.2, 2.6, 0.93]


@pytest.mark.parametrize(
    ("rival", "rate", "place"), [("intern", 53, 0), ("predict_batch", 105, 1), ("ceiling", 310, 2)]
)
def test_each_target_can_be_missed(rival: str, rate: float, place: int):
    rates = {"intern": 50, "predict_batch": 100, "project": 260, "ceiling": 280, rival: rate}
    assert verdicts(results(**rates))[place] == "FAIL"


def test_small_sizes_make_no_promise():
    small = [Result(name, 240, [1.0], {}) for name in ("intern", "project")]
    assert verdicts(small) == ["----"]


def test_time_targets_are_bounds_from_above():
    assert Target("x", 1.3, 1.3, at_least=False).passed
    assert not Target("x", 1.31, 1.3, at_least=False).passed


def test_the_median_counts():
    assert Result("project", 100, [1.0, 50.0, 2.0], {}).rate == 50


def test_cost_follows_from_core_seconds_and_the_price_table():
    prices = json.loads(report.PRICES.read_text())
    (own,) = results(project=200)
    cost = report.cost(own, cores=2)
    assert cost["images_per_core_second"] == 100
    assert cost["core_hours_per_million"] == pytest.approx(10_000 / 3600)
    hours = 10_000 / 3600 / prices["vcpus"]
    both = prices["instance_eur_per_hour"] + prices["emr_surcharge_eur_per_hour"]
    assert cost["eur_per_million_on_demand"] == pytest.approx(hours * both)
    assert cost["eur_per_million_spot"] < cost["eur_per_million_on_demand"]


def test_multiplied_photos_differ_in_bytes_and_not_in_pixels(tmp_path: Path):
    source = tmp_path / "source" / "Apple"
    source.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        Image.effect_noise((20, 20), 90).convert("RGB").save(source / name)
    folder = photos.multiplied(source.parent, tmp_path / "many", count=7)
    many = sorted(folder.rglob("*.jpg"))
    assert len(many) == 7
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in many}) == 7
    for number, path in enumerate(many):
        np.testing.assert_array_equal(
            np.asarray(Image.open(path)), np.asarray(Image.open(source / f"{number % 2 + 1}.jpg"))
        )
