"""How large a cluster the work asks for, what it will cost, and what it has cost.

Everything here is arithmetic on a price table (`prices.json`) and on measured rates (`rates.json`).
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import costs, doors, workers
from fruits_assets.spark.costs import EXPECTED, ROOT_GB, VOLUME_GB, WORST, Items
from fruits_assets.spark.prices import FAMILIES, ON_DEMAND, SPOT, XLARGE_VCPUS, Prices, vcpus
from fruits_assets.spark.work import Work, core_seconds, vcpu_seconds

if TYPE_CHECKING:
    from fruits_assets.spark.account import Architecture

SIZES = ("xlarge", "2xlarge", "4xlarge", "8xlarge")
STEP_MINUTES = 0.5
"""Assumed: from a step's submission until its executors work, and its end until it is seen."""
SPOT_TIMEOUT_MINUTES = 5
"""EMR's minimum: what Spot cannot give by then is started on demand."""
BILLED_SECONDS = 60
"""Machines and EMR's charge are billed per second, and for a minute at least."""


@dataclass(frozen=True)
class Limits:
    """What a user asks for.

    Attributes:
        target_minutes: the cluster is sized to compute for so long.
        max_cores: vCPUs for executors, at most.
        max_cost_eur: a plan that may cost more is refused.
        step_minutes: one whose longest step is expected to take longer is refused.
        executor_cores: cores of each machine of four that compute; the others only bring memory.
        startup_minutes: from RunJobFlow until the first step begins. Assumed: AWS names no figure;
            clusters are commonly said to take 5 to 10 minutes.
    """

    target_minutes: float = 20.0
    max_cores: int = 64
    max_cost_eur: float | None = None
    step_minutes: float = 120.0
    executor_cores: int = XLARGE_VCPUS
    startup_minutes: float = 6.0


@dataclass(frozen=True)
class Plan:
    """A cluster for some work.

    Attributes:
        work: what for.
        limits: within which.
        region: of AWS.
        architecture: of the machines.
        families: of machines that the region offers.
        cores: vCPUs for executors: 4 on the core node, all others on task nodes.
        core_seconds: of the work, on a core of this machine's kind.
        expected_minutes: from asking for the cluster until its end.
        most_minutes: the same, where Spot gives nothing and that takes its time to be seen.
        step_minutes: of the longest step.
        expected: what it costs, by items: primary and core node on demand, task nodes on Spot.
        worst: what it costs with the dearest machines that its fleets may start, all on demand
            once Spot has given nothing, and as many cores as the fleets may round up to.
        local_cores: that the host of Dagster has.
    """

    work: Work
    limits: Limits
    region: str
    architecture: Architecture
    families: tuple[str, ...]
    cores: int
    core_seconds: float
    expected_minutes: float
    most_minutes: float
    step_minutes: float
    expected: Items
    worst: Items
    local_cores: int = field(default_factory=lambda: os.cpu_count() or 1)

    @property
    def task_cores(self) -> int:
        """Those on Spot: all but the core node's."""
        return self.cores - XLARGE_VCPUS

    @property
    def most_cores(self) -> int:
        """With the last machine of the Spot fleet as large as it may be."""
        return self.cores + _rounded_up(self.task_cores)

    @property
    def expected_eur(self) -> float:
        """All of it, without tax."""
        return sum(self.expected.values())

    @property
    def most_eur(self) -> float:
        """All of it in the worst case."""
        return sum(self.worst.values())

    @property
    def local_minutes(self) -> float:
        """What the work would take on the host of Dagster."""
        return self.core_seconds / self.local_cores / 60

    @property
    def worthwhile(self) -> bool:
        """Whether the cluster is done sooner than this machine would be."""
        return self.expected_minutes < self.local_minutes

    @property
    def eur_per_hour(self) -> float:
        """Expected, as long as the cluster is there; without requests and tax."""
        return sum(self.expected[name] for name in costs.MACHINES) * 60 / self.expected_minutes

    @property
    def most_eur_per_hour(self) -> float:
        """The same in the worst case."""
        return sum(self.worst[name] for name in costs.MACHINES) * 60 / self.most_minutes

    def told(self) -> dict[str, float | int | str]:
        """For the log and for Dagster's metadata."""
        return {
            "images": self.work.images,
            "photos_megabytes": round(self.work.megabytes, 1),
            "stages": ", ".join(self.work.stages),
            "region": self.region,
            "architecture": self.architecture,
            "cores": self.cores,
            "spot_cores": self.task_cores,
            "expected_minutes": round(self.expected_minutes, 1),
            "expected_eur": round(self.expected_eur, 4),
            **{f"expected_eur_{name}": round(eur, 4) for name, eur in self.expected.items()},
            "most_eur": round(self.most_eur, 4),
            "local_minutes": round(self.local_minutes, 1),
        }

    def sentence(self) -> str:
        """What it means for whoever pays."""
        cluster = (
            f"a cluster of {self.cores} cores ({self.task_cores} of them on Spot) costs "
            f"{self.expected_eur:.2f} EUR and takes {_duration(self.expected_minutes)}, "
            f"{_duration(self.limits.startup_minutes)} of them to start"
        )
        if self.worthwhile:
            return (
                f"{self.work.images} images: {cluster} (expected). This machine alone would take "
                f"{_duration(self.local_minutes)}."
            )
        return (
            f"{self.work.images} images take {_duration(self.local_minutes)} on this machine: "
            f"{cluster} (expected). FRUITS_SPARK=local is done sooner, and for nothing."
        )

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Settings that refuse it."""
        return refusals(self.limits, self.most_eur, self.step_minutes, self.cores)

    def check(self) -> None:
        """Raises SparkError where it may cost more, or a step take longer, than is allowed."""
        if not self.refusals:
            return
        raise SparkError(
            f"{self.work.images} images are expected to cost {self.expected_eur:.2f} EUR on "
            f"{self.cores} cores in {self.region}, and {self.most_eur:.2f} EUR at most, where Spot "
            f"has nothing and fleets bring {self.most_cores}. That is refused by "
            f"{' and '.join(map(str, self.refusals))}. Nothing was started. Raise what refuses "
            "it; or, as most of a small cluster's time is its start, let fewer runs do more; or "
            f"set FRUITS_SPARK=local ({_duration(self.local_minutes)} on this machine)."
        )


@dataclass(frozen=True)
class Refusal:
    """A setting that refuses a run.

    Attributes:
        setting: with its value.
        reason: what the run would take instead.
    """

    setting: str
    reason: str

    def __str__(self) -> str:
        return f"{self.setting} ({self.reason})"


def refusals(
    limits: Limits, most_eur: float, step_minutes: float, cores: int
) -> tuple[Refusal, ...]:
    """Settings that refuse a run of this price whose longest step takes so long on its cores."""
    found: list[Refusal] = []
    if limits.max_cost_eur is not None and most_eur > limits.max_cost_eur:
        cost = f"it may cost {most_eur:.2f}"
        found.append(Refusal(f"FRUITS_EMR_MAX_COST_EUR of {limits.max_cost_eur:g}", cost))
    if step_minutes > limits.step_minutes:
        longest = f"the longest step may take {step_minutes:.0f} on {cores} cores"
        found.append(Refusal(f"FRUITS_EMR_STEP_MINUTES of {limits.step_minutes:g}", longest))
    return tuple(found)


def plan(
    work: Work,
    limits: Limits,
    prices: Prices,
    region: str,
    architecture: Architecture,
    *,
    cores: int | None = None,
) -> Plan:
    """The smallest cluster that computes within the target, and what it is expected to cost.

    On-demand machines are of the cheapest family, as their allocation strategy makes them; Spot
    machines are priced at the mean of the families, for capacity decides which they are. All are
    billed from the cluster's beginning to its end, which is later than the truth for task nodes.

    Args:
        work: to do.
        limits: to stay within.
        prices: of AWS.
        region: of AWS.
        architecture: of the machines.
        cores: that the cluster is to have, whatever the work: a multiple of 4.

    Raises:
        SparkError: the limits leave no room for a core node or for the cores that are asked for, or
            nothing is known of the region.
    """
    if cores is not None and cores not in range(XLARGE_VCPUS, limits.max_cores + 1, XLARGE_VCPUS):
        raise SparkError(
            f"a cluster cannot have {cores} cores: ask for a multiple of {XLARGE_VCPUS}, from "
            f"{XLARGE_VCPUS} to {limits.max_cores} (FRUITS_EMR_MAX_CORES)."
        )
    if limits.max_cores < XLARGE_VCPUS:
        raise SparkError(
            f"at most {limits.max_cores} cores are allowed, but the smallest cluster has "
            f"{XLARGE_VCPUS}. Raise FRUITS_EMR_MAX_CORES."
        )
    families = prices.families(region, architecture)
    if not families:
        raise SparkError(
            f"{region} offers no {architecture} machines of {', '.join(FAMILIES[architecture])}. "
            "Use the other architecture."
        )
    machines = executors(work, limits, architecture) if cores is None else cores // XLARGE_VCPUS
    started = limits.startup_minutes + STEP_MINUTES * len(work.stages)
    minutes = started + computing_minutes(work, limits, architecture, machines)
    tasks = machines - 1
    most = tasks + _rounded_up(tasks * XLARGE_VCPUS) // XLARGE_VCPUS
    most_minutes = minutes + (SPOT_TIMEOUT_MINUTES if tasks else 0)
    items = partial(_items, work, prices, region, families)
    longest = computing_minutes(work.longest_stage(), limits, architecture, machines)
    return Plan(
        work=work,
        limits=limits,
        region=region,
        architecture=architecture,
        families=families,
        cores=machines * XLARGE_VCPUS,
        core_seconds=core_seconds(work),
        expected_minutes=minutes,
        most_minutes=most_minutes,
        step_minutes=STEP_MINUTES + longest,
        expected=items(tasks=tasks, minutes=minutes, case=EXPECTED),
        worst=items(tasks=most, minutes=most_minutes, case=WORST),
    )


def executors(work: Work, limits: Limits, architecture: Architecture) -> int:
    """The fewest executors, of four vCPUs each, that compute within the target and the maximum."""
    cores = vcpu_seconds(work, architecture) / (limits.target_minutes * 60)
    wanted = math.ceil(cores / limits.executor_cores)
    return min(max(1, wanted), limits.max_cores // XLARGE_VCPUS)


def computing_minutes(
    work: Work, limits: Limits, architecture: Architecture, executors: int
) -> float:
    """How long so many executors compute."""
    return vcpu_seconds(work, architecture) / 60 / (executors * limits.executor_cores)


def _items(
    work: Work,
    prices: Prices,
    region: str,
    families: Sequence[str],
    *,
    tasks: int,
    minutes: float,
    case: costs.Case,
) -> Items:
    hourly = costs.cluster(prices, region, families, tasks, case)
    machines = {name: eur * minutes / 60 for name, eur in hourly.items()}
    return {**machines, **costs.requests(prices, region, work, machines=2 + tasks)}


def _duration(minutes: float) -> str:
    return f"{minutes * 60:.0f} s" if minutes < 2 else f"{minutes:.0f} min"


def types(architecture: Architecture) -> tuple[str, ...]:
    """All instance types that fleets of an architecture may have, in any region."""
    return tuple(f"{family}.{size}" for size in SIZES for family in FAMILIES[architecture])


def fleets(plan: Plan) -> list[dict[str, Any]]:
    """The `InstanceFleets` of RunJobFlow: primary and core node on demand, the others on Spot.

    Spot rounds up to whole machines. None is larger than half of what is asked for, so that a fleet
    never brings many more cores than planned (`most_cores`).
    """
    small = [_type(family, "xlarge") for family in plan.families]
    on_demand = {
        "LaunchSpecifications": {"OnDemandSpecification": {"AllocationStrategy": "lowest-price"}}
    }
    made = [
        {
            "Name": name,
            "InstanceFleetType": name,
            "TargetOnDemandCapacity": 1,
            "InstanceTypeConfigs": [{**one, "WeightedCapacity": 1} for one in small],
            **on_demand,
        }
        for name in ("MASTER", "CORE")
    ]
    if plan.task_cores:
        made.append(
            {
                "Name": "TASK",
                "InstanceFleetType": "TASK",
                "TargetSpotCapacity": plan.task_cores,
                "InstanceTypeConfigs": list(_task_types(plan)),
                "LaunchSpecifications": {
                    "SpotSpecification": {
                        "TimeoutDurationMinutes": SPOT_TIMEOUT_MINUTES,
                        "TimeoutAction": "SWITCH_TO_ON_DEMAND",
                        "AllocationStrategy": "price-capacity-optimized",
                    },
                    **on_demand["LaunchSpecifications"],
                },
            }
        )
    return made


def _task_types(plan: Plan) -> Iterator[dict[str, Any]]:
    for size in _task_sizes(plan.task_cores):
        for family in plan.families:
            yield {**_type(family, size), "WeightedCapacity": vcpus(f"m.{size}")}


def _rounded_up(cores: int) -> int:
    """Cores that the last machine of a Spot fleet may bring beyond so many."""
    return vcpus(f"m.{_task_sizes(cores)[-1]}") - XLARGE_VCPUS if cores else 0


def _task_sizes(cores: int) -> list[str]:
    return [size for size in SIZES if vcpus(f"m.{size}") <= max(XLARGE_VCPUS, cores // 2)]


def _type(family: str, size: str) -> dict[str, Any]:
    volume = {"VolumeType": "gp3", "SizeInGB": VOLUME_GB}
    return {
        "InstanceType": f"{family}.{size}",
        "EbsConfiguration": {
            "EbsBlockDeviceConfigs": [{"VolumeSpecification": volume, "VolumesPerInstance": 1}]
        },
    }


EXECUTOR_HEAP_MB, EXECUTOR_OVERHEAD_MB = 2048, 8192
DRIVER_HEAP_MB, DRIVER_OVERHEAD_MB = 1024, 1024
XLARGE_YARN_MB = 12_288
"""What EMR gives YARN on an m5.xlarge, as on all xlarge machines with 16 GiB (EMR Release Guide,
"Task configuration": `yarn.nodemanager.resource.memory-mb`)."""


def configurations(plan: Plan) -> list[dict[str, Any]]:
    """The `Configurations` of RunJobFlow.

    One executor of four cores fills an xlarge: the JVM needs little, for images and features never
    pass through it, and four Python workers share the rest (2 GB each; 0.4 GB measured at 12
    megapixels). Beside it, the core node has room for one driver: steps run one after the other.

    YARN's default calculator looks at memory alone. All families have 4 GiB per vCPU, so that it
    never leaves cores idle; of larger machines EMR keeps a smaller share for itself, and YARN may
    fit an executor more than there are cores for. Their processes then share the cores.
    """
    executors, cores = plan.cores // XLARGE_VCPUS, plan.limits.executor_cores
    spark = {
        "spark.executor.instances": str(executors),
        # Known before any executor is there: a session that begins sees 2 cores otherwise.
        "spark.default.parallelism": str(executors * cores),
        "spark.executor.cores": str(cores),
        "spark.executor.memory": f"{EXECUTOR_HEAP_MB}m",
        "spark.executor.memoryOverhead": f"{EXECUTOR_OVERHEAD_MB}m",
        "spark.driver.memory": f"{DRIVER_HEAP_MB}m",
        "spark.driver.memoryOverhead": f"{DRIVER_OVERHEAD_MB}m",
        # A second attempt would begin while nobody listens: a step reports once.
        "spark.yarn.maxAppAttempts": "1",
        "spark.yarn.appMasterEnv.PYTHONPATH": workers.ENVIRONMENT,
        # EMR would make executors of other sizes where they seem to fit better.
        "spark.yarn.heterogeneousExecutors.enabled": "false",
        # What a lost executor had shuffled is kept by its machine.
        "spark.shuffle.service.enabled": "true",
    }
    yarn = {
        # An application dies with its driver: drivers stay off Spot. EMR labels core nodes CORE,
        # which since release 6 has to be asked for; executors go everywhere all the same.
        "yarn.node-labels.enabled": "true",
        "yarn.node-labels.am.default-node-label-expression": "CORE",
        # A machine that is gone is given up after a minute, and not after ten.
        "yarn.resourcemanager.nm.liveness-monitor.expiry-interval-ms": "60000",
        "yarn.nm.liveness-monitor.expiry-interval-ms": "60000",
        # The shuffle service reads YARN's settings, not Spark's, and has to speak as executors do.
        **doors.PROTECTED,
    }
    # Drivers may take a tenth of a node by default, which is less than one needs.
    scheduler = {"yarn.scheduler.capacity.maximum-am-resource-percent": "0.2"}
    return [
        {"Classification": "spark-defaults", "Properties": spark},
        {"Classification": "yarn-site", "Properties": yarn},
        {"Classification": "capacity-scheduler", "Properties": scheduler},
    ]


@dataclass(frozen=True)
class Bill:
    """What the machines of a cluster have taken, and cost so far.

    Attributes:
        instances: market -> how many machines.
        instance_hours: of all machines, as billed.
        eur: market -> cost of machines of it, EMR's charge included, without tax.
        emr_eur: EMR's charge in it.
        ebs_eur: volumes, as fleets of this package have them.
        unpriced: types without a price here: in the hours, but not in the costs.
    """

    instances: Mapping[str, int]
    instance_hours: float
    eur: Mapping[str, float]
    emr_eur: float
    ebs_eur: float
    unpriced: tuple[str, ...] = ()

    @property
    def total_eur(self) -> float:
        """All of it; requests to S3 are not known here."""
        return sum(self.eur.values()) + self.ebs_eur

    def told(self) -> dict[str, float | int | str]:
        """For the log, and for the tags of a run."""
        told: dict[str, float | int | str] = {
            "cost_eur": round(self.total_eur, 4),
            "instance_hours": round(self.instance_hours, 3),
        }
        for market in (ON_DEMAND, SPOT):
            told[f"{market.lower()}_instances"] = self.instances.get(market, 0)
            told[f"{market.lower()}_eur"] = round(self.eur.get(market, 0.0), 4)
        told |= {"emr_eur": round(self.emr_eur, 4), "ebs_eur": round(self.ebs_eur, 4)}
        return told | ({"unpriced": ", ".join(self.unpriced)} if self.unpriced else {})


def bill(
    instances: Iterable[Mapping[str, Any]], prices: Prices, region: str, now: datetime
) -> Bill:
    """What machines have cost, from the first to the last.

    Args:
        instances: as EMR's ListInstances gives them, those that have ended too.
        prices: of AWS; Spot at its assumed share.
        region: of AWS.
        now: until when running machines are counted, with a time zone.

    Raises:
        SparkError: nothing is known of the region.
    """
    count: Counter[str] = Counter()
    eur: defaultdict[str, float] = defaultdict(float)
    hours = emr_eur = ebs_eur = 0.0
    unpriced: set[str] = set()
    for instance in instances:
        kind, market = instance.get("InstanceType", ""), instance.get("Market", ON_DEMAND)
        billed = _billed_hours(instance, now)
        count[market] += 1
        hours += billed
        ebs_eur += prices.ebs_eur(region, ROOT_GB + VOLUME_GB, billed)
        if not prices.knows(region, kind):
            unpriced.add(kind)
            continue
        charge = prices.emr_eur(kind) * billed
        emr_eur += charge
        eur[market] += prices.instance_eur(region, kind, market) * billed + charge
    return Bill(dict(count), hours, dict(eur), emr_eur, ebs_eur, tuple(sorted(unpriced)))


def rate(instances: Iterable[Mapping[str, Any]], prices: Prices, region: str) -> float:
    """EUR per hour of the machines that have not ended; types without a price count nothing."""
    return sum(
        prices.instance_eur(region, one["InstanceType"], one.get("Market", ON_DEMAND))
        + prices.emr_eur(one["InstanceType"])
        for one in _not_ended(instances)
        if prices.knows(region, one.get("InstanceType", ""))
    )


def running(instances: Iterable[Mapping[str, Any]]) -> int:
    """How many machines have not ended."""
    return sum(1 for _ in _not_ended(instances))


def _not_ended(instances: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (one for one in instances if "EndDateTime" not in one["Status"]["Timeline"])


def _billed_hours(instance: Mapping[str, Any], now: datetime) -> float:
    """From when a machine was asked for until it ended, or until now.

    EC2 bills from when it runs, which ListInstances does not tell: a little later than this.
    """
    timeline = instance["Status"]["Timeline"]
    started = timeline.get("CreationDateTime") or timeline.get("ReadyDateTime")
    if started is None:
        return 0.0
    seconds = (timeline.get("EndDateTime", now) - started).total_seconds()
    return max(BILLED_SECONDS, seconds) / 3600
