"""Figures -> a table, targets with pass or fail, costs and plots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PRICES = Path(__file__).with_name("prices.json")
SECONDS_PER_HOUR = 3600
MILLION = 1_000_000

TITLES = {
    "intern": "(a) intern's notebook",
    "predict_batch": "(b) predict_batch_udf",
    "project": "(c) this project",
    "ceiling": "(d) ceiling: bare processes",
    "spark_ml_pca": "(e) Spark ML PCA",
    "project_pca": "(e) this project's PCA",
    "scikit_learn_pca": "(e) scikit-learn, in memory",
}

FEATURE_TARGETS = (
    ("intern", 5.0, 2_000),
    ("predict_batch", 2.5, 10_000),
    ("ceiling", 0.85, 10_000),
)
"""Rival, how many times its images/s this project reaches, and from how many photos on."""
PCA_PROMISED_FROM = 100_000


@dataclass(frozen=True)
class Result:
    """What one contender did at one size.

    Attributes:
        contender: a key of `TITLES`.
        size: images or rows.
        seconds: of each repetition, wall clock.
        peaks: kind of process -> largest resident set of one such process, bytes.
    """

    contender: str
    size: int
    seconds: Sequence[float]
    peaks: Mapping[str, int]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Images or rows per second."""
        return self.size / self.median


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
            f"{TITLES[one.contender]:<30} {one.size:>7} {one.median:>9.2f} {one.rate:>8.0f} "
            f"{len(one.seconds):>5}   {megabytes[0]:>9.0f} {megabytes[1]:>7.0f} "
            f"{megabytes[2]:>9.0f}"
        )
    return "\n".join(lines)


def targets(results: Sequence[Result]) -> list[Target]:
    """The promises that these results can be held to."""
    found = {(one.contender, one.size): one for one in results}
    sizes = sorted({one.size for one in results if one.contender == "project"})
    promises = []
    for size in sizes:
        own = found["project", size]
        for rival, bound, promised_from in FEATURE_TARGETS:
            if (rival, size) in found:
                ratio = own.rate / found[rival, size].rate
                text = f"features, {size} photos: times {rival}"
                promises.append(Target(text, ratio, bound, promised=size >= promised_from))
    for one in results:
        if one.contender != "project_pca":
            continue
        text, promised = f"PCA fit, {one.size} rows", one.size >= PCA_PROMISED_FROM
        rival, library = found["spark_ml_pca", one.size], found["scikit_learn_pca", one.size]
        faster, share = rival.median / one.median, one.median / library.median
        promises += [
            Target(f"{text}: times Spark ML", faster, 6.0, promised=promised),
            Target(f"{text}: scikit-learn's time", share, 1.3, at_least=False, promised=promised),
        ]
    return promises


def cost(result: Result, *, cores: int) -> dict[str, float]:
    """What a million images cost at this rate, from core-seconds and the price table.

    Returns:
        Images per core-second, core-hours per million images, EUR per million on demand and on
        Spot (the EMR surcharge is not reduced there).
    """
    prices = json.loads(PRICES.read_text())
    per_core_second = result.rate / cores
    core_hours = MILLION / per_core_second / SECONDS_PER_HOUR
    hours = core_hours / prices["vcpus"]
    instance, surcharge = prices["instance_eur_per_hour"], prices["emr_surcharge_eur_per_hour"]
    spot = instance * (1 - prices["spot_discount"])
    return {
        "images_per_core_second": per_core_second,
        "core_hours_per_million": core_hours,
        "eur_per_million_on_demand": hours * (instance + surcharge),
        "eur_per_million_spot": hours * (spot + surcharge),
    }


def plot_rates(results: Sequence[Result], path: Path) -> None:
    """Images per second of the contenders at the largest size that all of them did."""
    stages = [
        one for one in results if one.contender in {"intern", "predict_batch", "project", "ceiling"}
    ]
    largest = max(one.size for one in stages if one.contender == "intern")
    bars = [one for one in stages if one.size == largest]
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.add_subplot()
    colours = ["#a3a9b2", "#a3a9b2", "#0072b2", "#dfe3e8"]
    drawn = axes.barh(
        [TITLES[one.contender] for one in bars], [one.rate for one in bars], color=colours
    )
    axes.bar_label(drawn, fmt="%.0f", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("images per second")
    axes.set_title(f"Features of {largest:,} photos", loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def as_json(results: Sequence[Result], promises: Sequence[Target], **more: Any) -> str:
    """Everything, for machines."""
    return json.dumps(
        {
            "results": [
                {**vars(one), "seconds": list(one.seconds), "median": one.median} for one in results
            ],
            "targets": [{**vars(one), "passed": one.passed} for one in promises],
            **more,
        },
        indent=2,
    )
