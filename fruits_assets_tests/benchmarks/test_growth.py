"""The growth benchmark: which bounds it holds, and that its photos are distinct."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.growth import Size, Stage, drawn, verdict

RUNS = ("all", "more", "nothing", "erasure")


def sizes() -> tuple[Size, Size]:
    """What was measured of 10,000 and of 100,000 photos, within all bounds."""
    found = []
    for photos in (10_000, 100_000):
        stages = [
            Stage(run, "run", seconds=photos / 1000, driver=10**9 + 100 * photos, read=1000)
            for run in RUNS
        ]
        found.append(Size(photos, stages, closure=5000, opened=dict.fromkeys(RUNS, 10)))
    return found[0], found[1]


def test_growth_within_its_bounds_passes(capsys: pytest.CaptureFixture[str]):
    assert verdict(sizes()) == 0
    printed = capsys.readouterr().out
    assert "all: 10.0 times the time, exponent 1.00" in printed
    assert "driver bytes per photo, runs: 100 (at most 200)" in printed


def test_the_sample_of_recognition_is_bounded_otherwise():
    small, large = sizes()
    large.stages.append(Stage("more", "pca_features_recognition", 1.0, read=300_000_000))
    assert verdict((small, large)) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda it: setattr(it.stages[0], "driver", 10**9 + 300 * it.photos),
        lambda it: setattr(it.whole("erasure"), "driver", 10**9 + 300 * it.photos),
        lambda it: setattr(it, "closure", 200_000),
        lambda it: it.stages.append(Stage("more", "features", 1.0, read=300_000_000)),
        lambda it: it.opened.update(more=51),
    ],
    ids=["driver", "erasure", "closure", "read", "opened"],
)
def test_each_bound_can_be_missed(change: Callable[[Size], None]):
    small, large = sizes()
    change(large)
    assert verdict((small, large)) == 1


def test_every_drawn_photo_has_another_content(tmp_path: Path):
    drawn(tmp_path, range(300))
    contents = [path.read_bytes() for path in tmp_path.rglob("*.png")]
    assert len(set(contents)) == len(contents) == 300
