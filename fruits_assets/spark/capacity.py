"""How many workers of EMR Serverless a job asks for, and what they are expected to cost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import costs
from fruits_assets.spark.costs import Items
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import STEP_MINUTES, Limits, Refusal, refusals
from fruits_assets.spark.work import Work, vcpu_seconds

if TYPE_CHECKING:
    from fruits_assets.spark.account import Architecture

MEMORY_GB: Mapping[int, int] = {1: 8, 2: 10, 4: 10}
"""vCPUs of an executor -> its memory. EMR Serverless gives 1 vCPU 2 to 8 GB, 2 of them 4 to 16 and
4 of them 8 to 30 ("Supported worker configurations" of its guide)."""
HEAP_GB = 2
"""Heap of an executor (GB): images and features pass through Python, never through the JVM."""
DRIVER_CORES, DRIVER_GB, DRIVER_HEAP_GB = 1, 2, 1
STARTUP_MINUTES = 1.5
"""Assumed: until the workers of an application that is stopped are there. AWS names no figure."""


@dataclass(frozen=True)
class Where:
    """Region, architecture and price table, which decide the prices of workers.

    Attributes:
        region: of AWS.
        architecture: of the workers.
        prices: of AWS.
    """

    region: str
    architecture: Architecture
    prices: Prices


@dataclass(frozen=True)
class Capacity:
    """The workers of a job, the same from its beginning to its end.

    Attributes:
        work: what they are for: that of this job, and of the stages after it.
        limits: within which.
        where: they are.
        executors: how many.
        minutes: that all of the work is expected to take.
    """

    work: Work
    limits: Limits
    where: Where
    executors: int
    minutes: float

    @property
    def cores(self) -> int:
        """Cores of all executors: so many tasks run at once."""
        return self.executors * self.limits.executor_cores

    @property
    def vcpus(self) -> int:
        """Number of vCPUs of all workers, the driver's among them."""
        return self.cores + DRIVER_CORES

    @property
    def memory_gb(self) -> int:
        """Memory of all workers in GB, the driver's among them."""
        return self.executors * MEMORY_GB[self.limits.executor_cores] + DRIVER_GB

    @property
    def eur_per_minute(self) -> float:
        """As long as the workers are there."""
        return self.where.prices.serverless_eur(
            self.where.region,
            self.where.architecture,
            vcpu_hours=self.vcpus / 60,
            memory_gb_hours=self.memory_gb / 60,
        )

    @property
    def expected(self) -> Items:
        """Expected EUR of all the work, by items, from the submission of each job."""
        workers = {"serverless": self.minutes * self.eur_per_minute}
        return workers | costs.requests(self.where.prices, self.where.region, self.work)

    @property
    def expected_eur(self) -> float:
        """All of it, without tax. It is the most, too: no capacity is rounded up."""
        return sum(self.expected.values())

    @property
    def step_minutes(self) -> float:
        """Expected minutes of the longest job."""
        seconds = vcpu_seconds(self.work.longest_stage(), self.where.architecture)
        return STARTUP_MINUTES + STEP_MINUTES + seconds / 60 / self.cores

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Settings that refuse it."""
        return refusals(self.limits, self.expected_eur, self.step_minutes, self.cores)

    def timeout_minutes(self, minutes: float) -> int:
        """After which AWS ends the job: so many minutes, or what the limit in EUR pays for."""
        if self.limits.max_cost_eur is not None:
            minutes = min(minutes, self.limits.max_cost_eur / self.eur_per_minute)
        return max(1, math.floor(minutes))

    def told(self) -> dict[str, float | int | str]:
        """For the log and for Dagster's metadata."""
        return {
            "images": self.work.images,
            "stages": ", ".join(self.work.stages),
            "cores": self.cores,
            "expected_minutes": round(self.minutes, 1),
            "expected_eur": round(self.expected_eur, 4),
            **{f"expected_eur_{name}": round(eur, 4) for name, eur in self.expected.items()},
        }

    def sentence(self) -> str:
        """What it means for whoever pays."""
        return (
            f"{self.work.images} images: {self.executors} executors of EMR Serverless with "
            f"{self.limits.executor_cores} cores each cost {self.expected_eur:.2f} EUR and take "
            f"{self.minutes:.0f} min with the stages that follow (expected)."
        )

    def check(self) -> None:
        """Raises SparkError where it may cost more, or a job take longer, than is allowed."""
        if self.refusals:
            raise SparkError(
                f"{self.work.images} images are expected to cost {self.expected_eur:.2f} EUR on "
                f"EMR Serverless ({self.cores} cores in {self.where.region}). That is refused by "
                f"{' and '.join(map(str, self.refusals))}. Nothing was started. Raise what refuses "
                "it, or set FRUITS_SPARK=local."
            )

    def settings(self) -> dict[str, str]:
        """Settings of Spark. Sizes are whole GB, as those of workers are."""
        cores = self.limits.executor_cores
        return {
            "spark.executor.instances": str(self.executors),
            # Known before any executor is there: a session that begins sees 2 cores otherwise.
            "spark.default.parallelism": str(self.cores),
            "spark.executor.cores": str(cores),
            "spark.executor.memory": f"{HEAP_GB}g",
            "spark.executor.memoryOverhead": f"{MEMORY_GB[cores] - HEAP_GB}g",
            "spark.driver.cores": str(DRIVER_CORES),
            "spark.driver.memory": f"{DRIVER_HEAP_GB}g",
            "spark.driver.memoryOverhead": f"{DRIVER_GB - DRIVER_HEAP_GB}g",
        }


def capacity(work: Work, limits: Limits, most: Mapping[str, Any], where: Where) -> Capacity:
    """The fewest executors that compute within the target, and that the application has room for.

    Args:
        work: to do.
        limits: to stay within.
        most: the application's `maximumCapacity`, as `GetApplication` gives it; empty for none.
        where: the workers are.

    Raises:
        SparkError: there is no room for one executor beside the driver.
    """
    cores = limits.executor_cores
    room = {
        "the limit FRUITS_EMR_MAX_CORES": limits.max_cores // cores,
        "the vCPUs of the application": (_number(most, "cpu") - DRIVER_CORES) // cores,
        "the memory of the application": (_number(most, "memory") - DRIVER_GB) // MEMORY_GB[cores],
    }
    scarce = min(room, key=room.__getitem__)
    if room[scarce] < 1:
        raise SparkError(
            f"{scarce} leaves no room for an executor of {cores} cores and {MEMORY_GB[cores]} GB "
            f"beside a driver of {DRIVER_CORES} and {DRIVER_GB} GB. Raise it (`make deploy` with "
            "ServerlessVcpus, for an application of the stack)."
        )
    seconds = vcpu_seconds(work, where.architecture)
    wanted = math.ceil(seconds / (limits.target_minutes * 60) / cores)
    executors = int(min(max(1, wanted), room[scarce]))
    started = (STARTUP_MINUTES + STEP_MINUTES) * len(work.stages)
    minutes = started + seconds / 60 / (executors * cores)
    return Capacity(work, limits, where, executors, minutes)


def _number(most: Mapping[str, Any], name: str) -> float:
    """`16 vCPU` -> 16; without a limit, infinite."""
    found = re.match(r"\d+", str(most.get(name, "")))
    return int(found[0]) if found else math.inf
