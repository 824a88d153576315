"""Figures -> a table, targets with pass or fail, costs and plots."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fruits_assets.spark.prices import ON_DEMAND, SPOT, Prices, vcpus

REGION, INSTANCE = "eu-central-1", "m6g.xlarge"
"""What costs are told for."""
SECONDS_PER_HOUR = 3600
MILLION = 1_000_000

TITLES = {
    "intern": "(a) intern's notebook",
    "predict_batch": "(b) predict_batch_udf",
    "project": "(c) this project",
    "ceiling": "(d) ceiling: bare processes",
    "pipeline": "pipeline, photos to PCA",
    "cold_job": "job, process start to exit",
    "large": "pipeline, 12 megapixels each",
    "spark_ml_pca": "(e) Spark ML PCA",
    "project_pca": "(e) this project's PCA",
    "scikit_learn_pca": "(e) scikit-learn, in memory",
    "ingest_folder": "(f) ingest of a folder",
    "ingest_bucket": "(f) ingest of a bucket",
    "binary_file": "(f) binaryFile over s3a",
    "get_boto3": "(g) reading by boto3",
    "get_obstore": "(g) reading by obstore",
    "get_pyarrow": "(g) reading by pyarrow",
}

COSTED = ("intern", "project")
RATED = ("intern", "predict_batch", "project", "ceiling")
FEATURE_TARGETS = (
    ("intern", 5.0, 2_000),
    ("predict_batch", 2.5, 10_000),
    ("ceiling", 0.85, 10_000),
)
"""Rival, how many times its images/s this project reaches, and from how many photos on."""
PCA_PROMISED_FROM = 100_000
COLD_SECONDS = 30.0
COLD_PROMISED_FROM = 2_000
MEMORY_GROWTH = 1.15
"""Largest peak of a kind of process over its peak at the smaller size."""
MEMORY_SIZES = (5_000, 50_000)
LARGE_WORKER_BYTES = 1.5e9
LARGE_PROMISED_FROM = 500
BINARY_FILE_RATIO = 8.0
"""Images/s of ingest from a bucket over those of Spark's own reader."""
FOLDER_RATIO = 1.25
"""Time of ingest from a bucket over that from a folder."""
OBJECTS_PROMISED_FROM = 5_000
OUTSIDE = ("store", "proxy")
"""What S3 does on cores of its own, and here does on those of the contenders."""


@dataclass(frozen=True)
class Result:
    """What one contender did at one size.

    Attributes:
        contender: a key of `TITLES`.
        size: images or rows.
        seconds: of each repetition, wall clock.
        peaks: kind of process -> largest resident set of one such process, bytes.
        executors: processes of a cluster that it ran on; 0 for a local session.
        spent: of each repetition: kind of process -> its CPU time, seconds.
    """

    contender: str
    size: int
    seconds: Sequence[float]
    peaks: Mapping[str, int]
    executors: int = 0
    spent: Sequence[Mapping[str, float]] = ()

    @property
    def title(self) -> str:
        """What the table calls it."""
        if not self.executors:
            return TITLES[self.contender]
        return f"{TITLES[self.contender]}, {self.executors} executor{'s'[: self.executors - 1]}"

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Images or rows per second."""
        return self.size / self.median

    def core_seconds(self, *kinds: str) -> float:
        """Median CPU time of some kinds of processes together; of its own ones if none is named."""
        return statistics.median(
            sum(
                seconds
                for kind, seconds in spent.items()
                if (kind in kinds if kinds else kind not in OUTSIDE)
            )
            for spent in self.spent
        )


@dataclass(frozen=True)
class Target:
    """A promise about figures of one run.

    Attributes:
        text: what is promised.
        figure: what was measured.
        bound: what it must reach, or stay under.
        at_least: which of the two.
        promised: whether the size is one that the promise is made for; smaller ones are for a
            quick look, where the fixed costs of a stage weigh more.
    """

    text: str
    figure: float
    bound: float
    at_least: bool = True
    promised: bool = True

    @property
    def passed(self) -> bool:
        """Whether the promise is kept."""
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    def line(self) -> str:
        """One row of the report."""
        sign = ">=" if self.at_least else "<="
        verdict = "pass" if self.passed else "FAIL" if self.promised else "----"
        return f"{verdict}  {self.text}: {self.figure:.2f} (target {sign} {self.bound:g})"


def table(results: Sequence[Result]) -> str:
    """Plain text, a line per result."""
    lines = [
        f"{'contender':<30} {'size':>7} {'median s':>9} {'per s':>8} {'runs':>5}   "
        f"{'driver MB':>9} {'JVM MB':>7} {'worker MB':>9}"
    ]
    for one in results:
        megabytes = [one.peaks.get(kind, 0) / 1e6 for kind in ("driver", "jvm", "worker")]
        lines.append(
            f"{one.title:<30} {one.size:>7} {one.median:>9.2f} {one.rate:>8.0f} "
            f"{len(one.seconds):>5}   {megabytes[0]:>9.0f} {megabytes[1]:>7.0f} "
            f"{megabytes[2]:>9.0f}"
        )
    return "\n".join(lines)


def cpu_table(results: Sequence[Result]) -> str:
    """CPU time per image of those who read from a store, which runs on the same cores."""
    beside = [one for one in results if any("store" in spent for spent in one.spent)]
    if not beside:
        return ""
    lines = [f"{'CPU time per image, ms':<30} {'size':>7} {'own':>9} {'store':>8} {'proxy':>8}"]
    for one in beside:
        own, store, proxy = (
            one.core_seconds(*kinds) / one.size * 1000 for kinds in ((), ("store",), ("proxy",))
        )
        lines.append(f"{one.title:<30} {one.size:>7} {own:>9.3f} {store:>8.3f} {proxy:>8.3f}")
    return "\n".join(lines)


def targets(results: Sequence[Result]) -> list[Target]:
    """The promises that these results can be held to."""
    found = {(one.contender, one.size): one for one in results if not one.executors}
    return [
        *(target for one in found.values() for target in _feature_targets(one, found)),
        *(target for one in found.values() for target in _pca_targets(one, found)),
        *(target for one in found.values() for target in _whole_targets(one)),
        *(target for one in found.values() for target in _bucket_targets(one, found)),
        *_memory_targets(found),
    ]


_Found = Mapping[tuple[str, int], Result]


def _feature_targets(own: Result, found: _Found) -> Iterator[Target]:
    for rival, bound, promised_from in FEATURE_TARGETS:
        if own.contender == "project" and (rival, own.size) in found:
            ratio = own.rate / found[rival, own.size].rate
            text = f"features, {own.size} photos: times {rival}"
            yield Target(text, ratio, bound, promised=own.size >= promised_from)


def _pca_targets(own: Result, found: _Found) -> Iterator[Target]:
    if own.contender != "project_pca":
        return
    text, promised = f"PCA fit, {own.size} rows", own.size >= PCA_PROMISED_FROM
    rival, library = found["spark_ml_pca", own.size], found["scikit_learn_pca", own.size]
    faster, share = rival.median / own.median, own.median / library.median
    yield Target(f"{text}: times Spark ML", faster, 6.0, promised=promised)
    yield Target(f"{text}: scikit-learn's time", share, 1.3, at_least=False, promised=promised)


def _whole_targets(own: Result) -> Iterator[Target]:
    if own.contender == "cold_job":
        promised = own.size >= COLD_PROMISED_FROM
        text = f"job from process start to exit, {own.size} photos: seconds"
        yield Target(text, own.median, COLD_SECONDS, at_least=False, promised=promised)
    if own.contender == "large":
        promised = own.size >= LARGE_PROMISED_FROM
        text = f"{own.size} photos of 12 megapixels: GB of a worker"
        bound = LARGE_WORKER_BYTES / 1e9
        yield Target(text, own.peaks["worker"] / 1e9, bound, at_least=False, promised=promised)


def _bucket_targets(own: Result, found: _Found) -> Iterator[Target]:
    if own.contender != "ingest_bucket":
        return
    text, promised = f"ingest of {own.size} objects", own.size >= OBJECTS_PROMISED_FROM
    (reader,) = (one for one in found.values() if one.contender == "binary_file")
    faster = own.rate / reader.rate
    yield Target(f"{text}: times binaryFile", faster, BINARY_FILE_RATIO, promised=promised)
    slower = own.median / found["ingest_folder", own.size].median
    text = f"{text}: a folder's time"
    yield Target(text, slower, FOLDER_RATIO, at_least=False, promised=promised)


def _memory_targets(found: _Found) -> Iterator[Target]:
    few, many = (found.get(("pipeline", size)) for size in MEMORY_SIZES)
    if few and many:
        for kind, peak in few.peaks.items():
            text = f"memory of {kind}, {many.size} photos: times that at {few.size}"
            yield Target(text, many.peaks[kind] / peak, MEMORY_GROWTH, at_least=False)


@dataclass(frozen=True)
class Cost:
    """What a million images cost, from core-seconds and the price table of clusters.

    A vCPU of the machine is taken to be as fast as a core of this one.

    Attributes:
        images_per_core_second: measured.
        core_hours_per_million: of images.
        eur_on_demand: per million images.
        eur_spot: the same on Spot, where the EMR surcharge is not reduced.
    """

    images_per_core_second: float
    core_hours_per_million: float
    eur_on_demand: float
    eur_spot: float

    @classmethod
    def of(cls, result: Result, *, cores: int) -> Cost:
        """At the rate that was measured on so many cores."""
        prices = Prices.load()
        per_core_second = result.rate / cores
        core_hours = MILLION / per_core_second / SECONDS_PER_HOUR
        hours, charge = core_hours / vcpus(INSTANCE), prices.emr_eur(INSTANCE)
        return cls(
            per_core_second,
            core_hours,
            *(
                hours * (prices.instance_eur(REGION, INSTANCE, market) + charge)
                for market in (ON_DEMAND, SPOT)
            ),
        )

    def __str__(self) -> str:
        return (
            f"{self.images_per_core_second:.0f} images/core-second, "
            f"{self.core_hours_per_million:.1f} core-hours per million; EUR per million "
            f"{self.eur_on_demand:.2f} on demand, {self.eur_spot:.2f} on Spot"
        )


def costs(results: Sequence[Result], *, cores: int) -> dict[str, Cost]:
    """Of the notebook and of this project, at the largest size that both did."""
    compared = [one for one in results if one.contender in COSTED and not one.executors]
    largest = max((one.size for one in compared if one.contender == "intern"), default=None)
    return {one.title: Cost.of(one, cores=cores) for one in compared if one.size == largest}


def plot_rates(results: Sequence[Result], path: Path) -> None:
    """Images per second of the contenders at the largest size that all of them did."""
    stages = [one for one in results if one.contender in RATED and not one.executors]
    largest = max((one.size for one in stages if one.contender == "intern"), default=None)
    if largest is None:
        return
    bars = [one for one in stages if one.size == largest]
    figure, axes = _axes((8, 2.8), f"Features of {largest:,} photos")
    colours = ["#a3a9b2", "#a3a9b2", "#0072b2", "#dfe3e8"]
    drawn = axes.barh([one.title for one in bars], [one.rate for one in bars], color=colours)
    axes.bar_label(drawn, fmt="%.0f", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("images per second")
    figure.savefig(path, dpi=120)


def plot_growth(results: Sequence[Result], path: Path) -> None:
    """Seconds against number of photos: the stage per number of executors, and the pipeline."""
    lines: dict[str, list[Result]] = defaultdict(list)
    for one in results:
        if one.executors or one.contender == "pipeline":
            lines[one.title].append(one)
    if not lines:
        return
    figure, axes = _axes((8, 4), "Time against number of photos")
    for (title, points), marker in zip(lines.items(), itertools.cycle("osD^v")):
        sizes, seconds = [one.size for one in points], [one.median for one in points]
        axes.loglog(sizes, seconds, marker=marker, label=title)
        axes.annotate(
            f"{seconds[-1]:.0f} s", (sizes[-1], seconds[-1]), (6, -4), textcoords="offset points"
        )
    axes.set_xticks(sorted({one.size for points in lines.values() for one in points}))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_xlabel("photos")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _axes(size: tuple[float, float], title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def as_json(
    results: Sequence[Result], promises: Sequence[Target], costs: Mapping[str, Cost]
) -> str:
    """Everything, for machines."""
    return json.dumps(
        {
            "results": [{**vars(one), "median": one.median} for one in results],
            "targets": [{**vars(one), "passed": one.passed} for one in promises],
            "cost": {title: vars(cost) for title, cost in costs.items()},
        },
        indent=2,
    )
