"""What the benchmark concludes from what it measured."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks import cluster, photos, rates, report
from benchmarks.core_seconds import CoreSeconds
from benchmarks.delay import Proxy, delaying
from benchmarks.report import Result, Target
from fruits_assets.spark.prices import Prices


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
    prices = Prices.load()
    (own,) = results(project=200)
    cost = report.Cost.of(own, cores=2)
    assert cost.images_per_core_second == 100
    assert cost.core_hours_per_million == pytest.approx(10_000 / 3600)
    hours = 10_000 / 3600 / 4
    instance = prices.instance_eur(report.REGION, report.INSTANCE)
    charge = prices.emr_eur(report.INSTANCE)
    assert cost.eur_on_demand == pytest.approx(hours * (instance + charge))
    assert cost.eur_spot == pytest.approx(hours * (instance * prices.spot_share + charge))


def test_rates_are_the_plane_through_small_and_large_photos():
    small = rates.Slope(0.01, {"ingest": 0.002, "fit_pca": 0.001})
    large = rates.Slope(5.01, {"ingest": 0.102, "fit_pca": 0.006})
    found = rates.rates(small, large)
    assert found["ingest"] == {"seconds_per_image": 0.0018, "seconds_per_megabyte": 0.02}
    # Features are as long for every photo: what looks like more is noise.
    assert found["fit_pca"] == {"seconds_per_image": 0.001, "seconds_per_megabyte": 0.0}


def grown(driver: int, jvm: int, worker: int) -> Result:
    """The pipeline over 50,000 photos, with these peaks of memory."""
    peaks = {"driver": driver, "jvm": jvm, "worker": worker}
    return Result("pipeline", 50_000, [100.0], peaks)


@pytest.mark.parametrize(
    ("many", "expected"),
    [
        (grown(115, 200, 300), ["pass", "pass", "pass"]),
        (grown(116, 200, 300), ["FAIL", "pass", "pass"]),
        (grown(100, 231, 300), ["pass", "FAIL", "pass"]),
        (grown(100, 200, 346), ["pass", "pass", "FAIL"]),
    ],
)
def test_memory_of_each_kind_of_process_may_hardly_grow(many: Result, expected: list[str]):
    few = Result("pipeline", 5_000, [10.0], {"driver": 100, "jvm": 200, "worker": 300})
    assert verdicts([few, many]) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(30.0, "pass"), (30.1, "FAIL")])
def test_the_cold_job_has_a_bound(seconds: float, expected: str):
    assert verdicts([Result("cold_job", 2_430, [seconds], {})]) == [expected]


@pytest.mark.parametrize(("peak", "expected"), [(1.5e9, "pass"), (1.6e9, "FAIL")])
def test_large_photos_have_a_bound(peak: float, expected: str):
    assert verdicts([Result("large", 500, [60.0], {"worker": int(peak)})]) == [expected]


def test_executors_do_not_compete_with_a_local_session():
    local = results(project=260, intern=50)
    apart = Result("project", 14_000, [1000.0], {}, executors=1)
    assert verdicts([*local, apart]) == verdicts(local)
    assert apart.title.endswith("1 executor")


def test_plots_are_drawn_of_what_was_measured(tmp_path: Path):
    several = [
        Result("project", size, [size / 100 / executors], {}, executors=executors)
        for executors in (1, 2)
        for size in (1_000, 5_000)
    ]
    report.plot_growth(several, tmp_path / "growth.png")
    report.plot_rates(several, tmp_path / "rates.png")
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.width > 600
    assert not (tmp_path / "rates.png").exists()


def test_large_photos_have_12_megapixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    width, height = photos.PHOTO_12_MEGAPIXELS
    assert round(width * height / 1e6) == 12
    monkeypatch.setattr(photos, "PHOTO_12_MEGAPIXELS", (width // 8, height // 8))
    source = tmp_path / "source" / "Apple"
    source.mkdir(parents=True)
    Image.effect_noise((20, 20), 90).convert("RGB").save(source / "1.jpg")
    folder = photos.large(source.parent, tmp_path / "large", count=2)
    made = sorted(folder.rglob("*.jpg"))
    assert len(made) == 2
    for path in made:
        with Image.open(path) as photo:
            assert photo.size == (width // 8, height // 8)


def test_standalone_executors_are_processes_of_their_own(tmp_path: Path):
    with cluster.standalone(2, tmp_path) as running:
        assert running.master.startswith("spark://127.0.0.1:")
        assert len(set(running.pids)) == 2
        assert all(psutil.pid_exists(pid) for pid in running.pids)
    assert not any(psutil.pid_exists(pid) for pid in running.pids)


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


def from_objects(*, size: int = 5_000, bucket: float, folder: float, reader: float) -> list[Result]:
    """Seconds of the ingests of so many photos, and images/s of Spark's own reader over fewer."""
    return [
        Result("ingest_folder", size, [folder], {}),
        Result("ingest_bucket", size, [bucket], {}),
        Result("binary_file", 500, [500 / reader], {}),
    ]


@pytest.mark.parametrize(
    ("bucket", "reader", "expected"),
    [
        (2.5, 250, ["pass", "pass"]),
        (2.5, 251, ["FAIL", "pass"]),
        (2.51, 100, ["pass", "FAIL"]),
    ],
)
def test_ingest_of_objects_is_held_to_rates_and_to_a_folder(
    bucket: float, reader: float, expected: list[str]
):
    assert verdicts(from_objects(bucket=bucket, folder=2.0, reader=reader)) == expected


def test_few_objects_make_no_promise():
    few = from_objects(size=1_000, bucket=9.0, folder=2.0, reader=1_000)
    assert verdicts(few) == ["----", "----"]


def test_cpu_time_is_told_per_image_and_apart_from_the_store():
    spent = [{"driver": 0.1, "worker": 0.4, "store": 0.2, "proxy": 0.05, "jvm": 0.5}] * 3
    found = [Result("ingest_bucket", 1_000, [1.0] * 3, {}, spent=spent)]
    row = report.cpu_table(found).splitlines()[1]
    assert row.split()[-4:] == ["1000", "1.000", "0.200", "0.050"]
    assert not report.cpu_table(results(project=260))


def test_core_seconds_are_told_by_kind_of_process():
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as busy:
        with CoreSeconds(os.getpid(), {"store": busy.pid}) as cpu:
            while psutil.Process(busy.pid).cpu_times().user < 0.2:
                pass
        busy.kill()
    assert cpu.spent["store"] > 0.1
    assert cpu.spent["driver"] > 0


def test_requests_are_delayed_side_by_side():
    """A proxy that let them wait for each other would take a second and a half."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        delaying(server.getsockname()[1], 0.1) as proxy,
        ThreadPoolExecutor(32) as pool,
    ):
        started = time.monotonic()
        echoes = [pool.submit(_echoed, proxy, b"%d" % number) for number in range(15)]
        for _ in echoes:
            pool.submit(_echo_once, server.accept()[0])
        assert [echo.result() for echo in echoes] == [b"%d" % number for number in range(15)]
        assert 0.1 <= time.monotonic() - started < 1.2


def _echoed(proxy: Proxy, sent: bytes) -> bytes:
    host, port = urlsplit(proxy.endpoint).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(sent)
        return connection.recv(1024)


def _echo_once(connection: socket.socket) -> None:
    with connection:
        connection.sendall(connection.recv(1024))
