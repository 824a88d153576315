"""The same work on this machine, on EMR and on EMR Serverless: time, price, and which to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fruits_assets.spark import costs, sizing
from fruits_assets.spark.capacity import Where, capacity
from fruits_assets.spark.costs import Items
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits, Refusal
from fruits_assets.spark.work import Work, core_seconds

if TYPE_CHECKING:
    from fruits_assets.spark.account import Architecture, Release

WORTH_WAITING_MINUTES = 12 * 60
"""Assumed: what this machine does overnight is worth no money."""


@dataclass(frozen=True)
class Question:
    """Some work, and what it is to be priced by.

    Attributes:
        work: of a first run, with nothing in the lake.
        limits: of the settings.
        prices: of AWS.
        region: of AWS.
        release: of EMR.
        architecture: of its machines.
        serverless_vcpus: that the application of EMR Serverless may use at once.
        local_cores: of this machine.
    """

    work: Work
    limits: Limits
    prices: Prices
    region: str
    release: Release
    architecture: Architecture
    serverless_vcpus: int
    local_cores: int


@dataclass(frozen=True)
class Offer:
    """One place to run, with its price.

    Attributes:
        where: value of FRUITS_SPARK.
        minutes: from the start of a first run to its end, expected.
        run: what such a run costs, expected.
        most_eur: what it costs at most.
        standing: what is billed each month while nobody works.
        once: what is billed before the first run.
        refusals: settings that refuse it.
    """

    where: str
    minutes: float
    run: Items = field(default_factory=dict)
    most_eur: float = 0.0
    standing: Items = field(default_factory=dict)
    once: Items = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()

    @property
    def run_eur(self) -> float:
        """EUR of a run."""
        return sum(self.run.values())

    @property
    def standing_eur(self) -> float:
        """EUR of a month while nobody works."""
        return sum(self.standing.values())

    @property
    def once_eur(self) -> float:
        """EUR that are billed before the first run."""
        return sum(self.once.values())

    @property
    def month_eur(self) -> float:
        """EUR of a month with one run."""
        return self.run_eur + self.standing_eur


def local(asked: Question) -> Offer:
    """This machine, with photos and lake in folders: AWS bills nothing."""
    return Offer("local", core_seconds(asked.work) / asked.local_cores / 60)


def emr(asked: Question) -> Offer:
    """A cluster for the run. Raises SparkError where there can be none."""
    work, prices, region = asked.work, asked.prices, asked.region
    plan = sizing.plan(work, asked.limits, prices, region, asked.architecture)
    endpoints = 1 if asked.release.startswith("emr-spark-") else 0
    return Offer(
        "emr",
        plan.expected_minutes,
        run=plan.expected,
        most_eur=plan.most_eur,
        standing=costs.standing(prices, region, work, endpoints=endpoints),
        once=costs.upload(prices, region, work),
        refusals=plan.refusals,
    )


def serverless(asked: Question) -> Offer:
    """A job run for each stage. Raises SparkError where an executor has no room."""
    work, prices, region = asked.work, asked.prices, asked.region
    cpu = {"cpu": f"{asked.serverless_vcpus} vCPU"}
    found = capacity(work, asked.limits, cpu, Where(region, asked.architecture, prices))
    return Offer(
        "emr-serverless",
        found.minutes,
        run=found.expected,
        most_eur=found.expected_eur,
        standing=costs.standing(prices, region, work),
        once=costs.upload(prices, region, work),
        refusals=found.refusals,
    )


PLACES: tuple[Callable[[Question], Offer], ...] = (local, emr, serverless)


def offers(asked: Question) -> list[Offer]:
    """All places, this machine first. Raises SparkError for settings that leave no machine."""
    return [place(asked) for place in PLACES]


def advise(found: Sequence[Offer]) -> tuple[Offer, str]:
    """The place to take, and the reason as a sentence.

    This machine, where it is done overnight or before the others; else the place where a month with
    one run is cheapest, of those that the settings allow if they allow any.
    """
    here, *others = found
    soonest = min(others, key=lambda one: one.minutes)
    if here.minutes <= max(WORTH_WAITING_MINUTES, soonest.minutes):
        rest = f"the soonest of the others is done in {_hours(soonest.minutes)}"
        return here, f"this machine is done in {_hours(here.minutes)} and costs nothing; {rest}."
    best = min(others, key=lambda one: (bool(one.refusals), one.month_eur))
    second = min((one for one in others if one is not best), key=lambda one: one.month_eur)
    reason = (
        f"a month with one run costs {best.month_eur:,.2f} EUR, and {second.month_eur:,.2f} EUR "
        f"with {second.where}; this machine would take {_hours(here.minutes)}."
    )
    if best.refusals:
        reason += f" Raise what refuses it first: {' and '.join(map(str, best.refusals))}."
    return best, reason


def _hours(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
