"""How large a cluster is, what it is expected to cost, and what it has cost."""

import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import numpy as np
import pytest
from botocore.validate import ParamValidator

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import doors, sizing
from fruits_assets.spark import prices as price_table
from fruits_assets.spark.account import Architecture
from fruits_assets.spark.prices import FAMILIES, XLARGE_VCPUS, Prices, vcpus
from fruits_assets.spark.sizing import Limits, Plan
from fruits_assets.spark.submitted import SETTINGS
from fruits_assets.spark.work import STAGES, Work, core_seconds, stages_from
from fruits_assets.storage.region import EU_REGIONS

PRICES = Prices.load()
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HUGE = Work(10_000_000, 50_000)
EVERYWHERE: list[tuple[str, Architecture]] = [
    (region, architecture) for region in EU_REGIONS for architecture in FAMILIES
]
everywhere = pytest.mark.parametrize(("region", "architecture"), EVERYWHERE)


def planned(
    work: Work,
    limits: Limits | None = None,
    region: str = "eu-central-1",
    architecture: Architecture = "arm64",
) -> Plan:
    return sizing.plan(work, limits or Limits(), PRICES, region, architecture)


def machine(
    kind: str = "m6g.xlarge", market: str = "ON_DEMAND", *, started: float, ended: float | None
) -> dict[str, Any]:
    """As ListInstances gives it; minutes before `NOW`."""
    timeline = {"CreationDateTime": NOW - timedelta(minutes=started)}
    if ended is not None:
        timeline["EndDateTime"] = NOW - timedelta(minutes=ended)
    return {"InstanceType": kind, "Market": market, "Status": {"Timeline": timeline}}


def problems(shape: str, value: Any) -> str:
    """What the service model of EMR has against a value."""
    model = botocore.session.get_session().get_service_model("emr")
    return ParamValidator().validate(value, model.shape_for(shape)).generate_report()


def enumerated(shape: str) -> list[str]:
    return botocore.session.get_session().get_service_model("emr").shape_for(shape).enum


def test_more_photos_take_longer():
    seconds = [core_seconds(Work(n, n * 0.005)) for n in (0, 10, 1_000, 100_000)]
    assert seconds[0] == 0
    assert seconds == sorted(set(seconds))


def test_larger_photos_take_longer():
    small, large = Work(1_000, 5), Work(1_000, 5_000)
    assert core_seconds(large) > 10 * core_seconds(small)


def test_stages_add_up():
    each = [core_seconds(Work(500, 90, (stage,))) for stage in STAGES]
    assert sum(each) == pytest.approx(core_seconds(Work(500, 90)))
    assert all(seconds > 0 for seconds in each)


@pytest.mark.parametrize(
    ("transform", "first", "count"),
    [
        ("ingest", "ingest", 5),
        ("featurize", "featurize", 4),
        ("fit_pca", "fit_pca", 3),
        ("apply_pca", "apply_pca", 2),
        ("inspect_images", "featurize", 4),
        ("inspect_features", "measures", 1),
        ("recognize", "measures", 1),
        ("draw_gallery", "measures", 1),
        ("erase_images", "ingest", 5),
    ],
)
def test_what_a_run_may_still_go_through(transform: str, first: str, count: int):
    stages = stages_from(transform)
    assert (stages[0], len(stages)) == (first, count)


def test_cores_grow_with_the_photos_in_steps_of_a_machine():
    plans = [planned(Work(n, n * 0.005)) for n in np.geomspace(1, 1e8, 60).astype(int)]
    cores = [plan.cores for plan in plans]
    assert cores == sorted(cores)
    assert cores[0] == 4
    assert cores[-1] == 64
    assert all(plan.cores % 4 == 0 for plan in plans)


def test_costs_grow_with_the_photos():
    costs = [planned(Work(n, n * 0.005)).expected_eur for n in range(1_000, 3_000_000, 50_000)]
    assert costs == sorted(costs)


def test_the_target_is_met_and_no_machine_is_idle():
    for images, target in itertools.product((100_000, 400_000), (15.0, 20.0, 60.0)):
        plan = planned(Work(images, images * 0.005), Limits(target, max_cores=1_000))
        computing = plan.expected_minutes - 6.0 - sizing.STEP_MINUTES * 5
        assert computing <= target
        if plan.task_cores:
            assert computing * plan.cores / plan.task_cores > target


@pytest.mark.parametrize(("allowed", "cores"), [(4, 4), (7, 4), (8, 8), (63, 60), (400, 400)])
def test_no_more_cores_than_allowed(allowed: int, cores: int):
    assert planned(HUGE, Limits(target_minutes=1, max_cores=allowed)).cores == cores


def test_less_than_a_core_node_is_refused():
    with pytest.raises(SparkError, match=r"at most 3 cores are allowed.*has 4"):
        planned(HUGE, Limits(max_cores=3))


@everywhere
def test_every_region_has_a_plan_with_every_cost_in_it(region: str, architecture: Architecture):
    plan = planned(HUGE, None, region, architecture)
    assert plan.expected.keys() == {"instances", "emr", "ebs", "s3", "kms"}
    assert all(eur > 0 for eur in plan.expected.values())
    assert plan.expected_eur == pytest.approx(sum(plan.expected.values()))
    told = plan.told()
    assert told["expected_eur"] == pytest.approx(plan.expected_eur, abs=1e-4)
    assert (told["cores"], told["spot_cores"]) == (64, 60)
    json.dumps(told)


def test_what_a_small_cluster_costs():
    """Two m6g.xlarge: primary and core node."""
    plan = planned(Work(1, 0.005), Limits(startup_minutes=60.0))
    hours = plan.expected_minutes / 60
    usd = PRICES.eur_per_usd
    assert plan.expected["instances"] == pytest.approx(2 * 0.184 * hours * usd)
    assert plan.expected["emr"] == pytest.approx(2 * 0.0385 * hours * usd)
    assert plan.expected["ebs"] == pytest.approx(2 * 47 * 0.0952 * hours / 730 * usd)


def test_spot_is_cheaper_and_its_charge_is_not():
    dear = Prices.load({"spot_share": 1.0})
    spot, full = planned(HUGE), sizing.plan(HUGE, Limits(), dear, "eu-central-1", "arm64")
    assert spot.expected["instances"] < full.expected["instances"]
    assert spot.expected["emr"] == full.expected["emr"]


def test_ingest_reads_every_photo():
    rest = replace(HUGE, stages=STAGES[1:])
    price = PRICES.s3_eur("eu-central-1", puts=0, gets=HUGE.images)
    assert planned(HUGE).expected["s3"] - planned(rest).expected["s3"] > price


def test_an_expensive_plan_is_refused_with_what_to_do():
    plan = planned(HUGE, Limits(max_cost_eur=0.5))
    expected = f"expected to cost {plan.expected_eur:.2f} EUR"
    with pytest.raises(SparkError, match=expected) as refusal:
        plan.check()
    for text in (f"{plan.most_eur:.2f} EUR at most", "Nothing was started", "MAX_COST_EUR of 0.5"):
        assert text in str(refusal.value)


@pytest.mark.parametrize("allowed", [None, 1_000.0])
def test_an_affordable_plan_is_not(allowed: float | None):
    planned(HUGE, Limits(max_cost_eur=allowed)).check()


def test_few_photos_are_done_before_a_cluster_has_started():
    plan = replace(planned(Work(160, 1.0)), local_cores=2)
    assert not plan.worthwhile
    assert plan.local_minutes == plan.core_seconds / 120
    assert plan.sentence().startswith("160 images take ")
    assert " s on this machine: a cluster of 4 cores" in plan.sentence()
    assert "FRUITS_SPARK=local is done sooner" in plan.sentence()


def test_many_photos_are_worth_a_cluster():
    plan = replace(planned(HUGE), local_cores=2)
    assert plan.worthwhile
    assert plan.sentence().startswith("10000000 images: a cluster of 64 cores (60 of them on S")
    assert not replace(plan, local_cores=10_000).worthwhile


@everywhere
@pytest.mark.parametrize("images", [1, 400_000, 5_000_000])
def test_emr_takes_them(region: str, architecture: Architecture, images: int):
    plan = planned(Work(images, images * 0.005), None, region, architecture)
    fleets = sizing.fleets(plan)
    assert not problems("InstanceFleetConfigList", fleets)
    kinds = [fleet["InstanceFleetType"] for fleet in fleets]
    assert kinds == ["MASTER", "CORE", "TASK"][: 3 if plan.task_cores else 2]
    assert set(kinds) <= set(enumerated("InstanceFleetType"))
    for fleet in fleets:
        types = [one["InstanceType"] for one in fleet["InstanceTypeConfigs"]]
        assert len(types) == len(set(types))
        assert set(types) <= set(sizing.types(architecture))
        assert all(PRICES.knows(region, one) for one in types)


def test_primary_and_core_node_are_one_small_machine_each_on_demand():
    for fleet in sizing.fleets(planned(HUGE))[:2]:
        assert fleet["TargetOnDemandCapacity"] == 1
        assert "TargetSpotCapacity" not in fleet
        for one in fleet["InstanceTypeConfigs"]:
            assert one["InstanceType"].endswith(".xlarge")
            assert one["WeightedCapacity"] == 1
        how = fleet["LaunchSpecifications"]["OnDemandSpecification"]["AllocationStrategy"]
        assert how == "lowest-price"


def test_task_nodes_are_on_spot_and_counted_in_vcpus():
    fleet = sizing.fleets(planned(HUGE))[2]
    assert fleet["TargetSpotCapacity"] == 60
    assert "TargetOnDemandCapacity" not in fleet
    for one in fleet["InstanceTypeConfigs"]:
        assert one["WeightedCapacity"] == vcpus(one["InstanceType"])
    spot = fleet["LaunchSpecifications"]["SpotSpecification"]
    assert spot == {
        "TimeoutDurationMinutes": 5,
        "TimeoutAction": "SWITCH_TO_ON_DEMAND",
        "AllocationStrategy": "price-capacity-optimized",
    }
    assert spot["TimeoutAction"] in enumerated("SpotProvisioningTimeoutAction")
    assert spot["AllocationStrategy"] in enumerated("SpotProvisioningAllocationStrategy")


@everywhere
def test_spot_chooses_among_many_types(region: str, architecture: Architecture):
    plan = planned(HUGE, Limits(max_cores=64), region, architecture)
    configs = sizing.fleets(plan)[2]["InstanceTypeConfigs"]
    # AWS asks for 10 types or more (EMR best practices: Spot usage); regions offer 1 to 4 families.
    least = min(10, 3 * len(plan.families))
    assert least <= len(configs) <= 30  # EMR's maximum


@pytest.mark.parametrize("cores", [8, 12, 16, 20, 24, 36, 64])
def test_no_choice_of_machines_brings_more_cores_than_is_said(cores: int):
    plan = planned(HUGE, Limits(max_cores=cores))
    assert plan.cores == cores
    weights = {one["WeightedCapacity"] for one in sizing.fleets(plan)[2]["InstanceTypeConfigs"]}
    # The last machine that the fleet takes is the largest, and one core is missing before it.
    assert plan.most_cores == cores - XLARGE_VCPUS + max(weights)
    assert plan.most_cores < 1.5 * cores


def test_a_run_is_refused_for_what_it_may_cost_and_not_only_for_what_is_expected():
    plan = planned(HUGE)
    assert plan.expected_eur < plan.most_eur
    between = (plan.expected_eur + plan.most_eur) / 2
    with pytest.raises(SparkError, match="FRUITS_EMR_MAX_COST_EUR"):
        planned(HUGE, Limits(max_cost_eur=between)).check()
    planned(HUGE, Limits(max_cost_eur=plan.most_eur + 0.01)).check()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_architecture_has_enough_types(architecture: Architecture):
    assert len(set(sizing.types(architecture))) >= 10


def configured(cores: int = 8, executor_cores: int = 4) -> Mapping[str, Mapping[str, str]]:
    limits = Limits(max_cores=cores, executor_cores=executor_cores)
    found = sizing.configurations(planned(HUGE, limits))
    assert not problems("ConfigurationList", found)
    return {one["Classification"]: one["Properties"] for one in found}


def test_an_executor_and_a_driver_fit_the_smallest_machine():
    of = configured()
    spark = of["spark-defaults"]

    def megabytes(*names: str) -> int:
        return sum(int(spark[name].removesuffix("m")) for name in names)

    executor = megabytes("spark.executor.memory", "spark.executor.memoryOverhead")
    driver = megabytes("spark.driver.memory", "spark.driver.memoryOverhead")
    assert executor + driver <= sizing.XLARGE_YARN_MB < 2 * executor
    share = float(of["capacity-scheduler"]["yarn.scheduler.capacity.maximum-am-resource-percent"])
    assert driver <= share * sizing.XLARGE_YARN_MB


@pytest.mark.parametrize("cores", [4, 8, 124])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_executors_are_as_many_as_the_plan_has_machines_for(cores: int, at_once: int):
    spark = configured(cores, at_once)["spark-defaults"]
    assert spark["spark.executor.instances"] == str(cores // 4)
    assert spark["spark.executor.cores"] == str(at_once)
    assert spark["spark.default.parallelism"] == str(cores // 4 * at_once)


def test_fewer_photos_at_once_take_more_machines_or_longer():
    full, half = (planned(HUGE, Limits(executor_cores=cores)) for cores in (4, 2))
    assert full.cores == half.cores == Limits().max_cores
    assert half.expected_minutes > 1.8 * full.expected_minutes
    small = Work(300_000, 1_500)
    full, half = (planned(small, Limits(max_cores=1000, executor_cores=cores)) for cores in (4, 2))
    assert half.cores >= 2 * full.cores - 4


def test_drivers_stay_on_core_nodes():
    of = configured()
    assert of["yarn-site"]["yarn.node-labels.enabled"] == "true"
    assert of["yarn-site"]["yarn.node-labels.am.default-node-label-expression"] == "CORE"


def test_machines_talk_in_private_and_all_in_the_same_way():
    yarn = configured()["yarn-site"]  # for the shuffle service
    for name, value in doors.PROTECTED.items():
        assert yarn[name] == value
        assert SETTINGS[name] == value


@everywhere
def test_every_region_offers_something(region: str, architecture: Architecture):
    families = PRICES.families(region, architecture)
    assert set(families) <= set(FAMILIES[architecture])
    costs = [PRICES.instance_eur(region, f"{family}.xlarge") for family in families]
    assert costs
    assert costs == sorted(costs)
    assert all(0.1 < cost < 0.3 for cost in costs)


def test_size_and_market():
    xlarge = PRICES.instance_eur("eu-west-1", "m7g.xlarge")
    assert xlarge == pytest.approx(0.1819 * PRICES.eur_per_usd)
    assert PRICES.instance_eur("eu-west-1", "m7g.4xlarge") == pytest.approx(4 * xlarge)
    spot = PRICES.instance_eur("eu-west-1", "m7g.xlarge", "SPOT")
    assert spot == pytest.approx(PRICES.spot_share * xlarge)
    assert PRICES.emr_eur("m7g.2xlarge") == pytest.approx(2 * 0.0408 * PRICES.eur_per_usd)


def test_an_override_is_merged_in():
    own = Prices.load(
        {
            "about": "a copy",
            "spot_share": 0.4,
            "on_demand_xlarge_hour": {"eu-west-3": {"m6g": 1.0}, "eu-new-1": {"m6g": 2.0}},
        }
    )
    assert own.spot_share == 0.4
    assert own.on_demand_xlarge_hour["eu-west-3"]["m6g"] == 1.0
    assert own.on_demand_xlarge_hour["eu-west-3"]["m7g"] == 0.1904
    assert own.on_demand_xlarge_hour["eu-new-1"] == {"m6g": 2.0}
    assert Prices.load(json.loads(price_table.TABLE.read_text())) == Prices.load()
    assert Prices.load() == PRICES


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ({"spot": 0.4}, "there is no 'spot'"),
        ({"spot_share": "half"}, "spot_share is 'half' and should be a positive number"),
        ({"eur_per_usd": 0}, "eur_per_usd is 0 and"),
        ({"eur_per_usd": True}, "eur_per_usd is True and"),
        ({"emr_xlarge_hour": 0.1}, "emr_xlarge_hour is 0.1 and should be a table"),
        (
            {"on_demand_xlarge_hour": {"eu-west-1": {"m6g": -1}}},
            "on_demand_xlarge_hour.eu-west-1.m6g is -1 and",
        ),
        ({"s3_per_1000": {"eu-new-1": 3}}, "s3_per_1000.eu-new-1 is 3 and should be a table"),
    ],
)
def test_an_override_that_fits_nothing_is_refused(override: Mapping[str, Any], told: str):
    with pytest.raises(SparkError, match=told):
        Prices.load(override)


def test_what_is_not_known_is_named():
    with pytest.raises(SparkError, match=r"no price is known for c5.xlarge \(eu-west-1\)"):
        PRICES.instance_eur("eu-west-1", "c5.xlarge")
    with pytest.raises(SparkError, match=r"m7a.xlarge \(eu-west-3\), only for m6g"):
        PRICES.instance_eur("eu-west-3", "m7a.xlarge")
    with pytest.raises(SparkError, match=r"no price is known for c5.xlarge"):
        PRICES.emr_eur("c5.xlarge")
    with pytest.raises(SparkError, match="no prices are known for the region 'us-east-1'"):
        PRICES.families("us-east-1", "arm64")
    with pytest.raises(SparkError, match=r"'m6g.large' is no instance type"):
        PRICES.emr_eur("m6g.large")


def test_every_group_of_figures_has_its_source():
    table = json.loads(price_table.TABLE.read_text())
    assert set(table) - set(price_table.NOTES) == set(table["sources"])
    assert table["date"] == PRICES.date


def test_running_and_ended_machines():
    instances = [
        machine(started=60, ended=None),
        machine(started=90, ended=30),
        machine("m7g.2xlarge", "SPOT", started=30, ended=0),
    ]
    bill = sizing.bill(instances, PRICES, "eu-central-1", NOW)
    usd = PRICES.eur_per_usd
    assert bill.instances == {"ON_DEMAND": 2, "SPOT": 1}
    assert bill.instance_hours == pytest.approx(2.5)
    assert bill.eur["ON_DEMAND"] == pytest.approx(2 * (0.184 + 0.0385) * usd)
    assert bill.eur["SPOT"] == pytest.approx((0.1955 * PRICES.spot_share + 0.0408) * usd)
    assert bill.emr_eur == pytest.approx((2 * 0.0385 + 0.0408) * usd)
    assert bill.ebs_eur == pytest.approx(PRICES.ebs_eur("eu-central-1", 47, 2.5))
    assert bill.total_eur == pytest.approx(sum(bill.eur.values()) + bill.ebs_eur)
    assert bill.told() == {
        "cost_eur": round(bill.total_eur, 4),
        "instance_hours": 2.5,
        "on_demand_instances": 2,
        "on_demand_eur": round(bill.eur["ON_DEMAND"], 4),
        "spot_instances": 1,
        "spot_eur": round(bill.eur["SPOT"], 4),
        "emr_eur": round(bill.emr_eur, 4),
        "ebs_eur": round(bill.ebs_eur, 4),
    }


def test_a_minute_is_the_least_and_then_seconds_count():
    def hours(minutes: float) -> float:
        one = machine(started=minutes, ended=0)
        return sizing.bill([one], PRICES, "eu-west-1", NOW).instance_hours

    assert hours(0.1) == hours(1) == pytest.approx(1 / 60)
    assert hours(61 / 60) == pytest.approx(61 / 3600)


def test_nothing_costs_nothing():
    bill = sizing.bill([], PRICES, "eu-west-1", NOW)
    assert (bill.total_eur, bill.instance_hours) == (0, 0)
    never = {"InstanceType": "m6g.xlarge", "Status": {"Timeline": {}}}
    assert sizing.bill([never], PRICES, "eu-west-1", NOW).total_eur == 0


def test_a_type_without_a_price_is_told_and_never_fails():
    instances = [machine("c5.large", started=60, ended=None), machine(started=60, ended=None)]
    bill = sizing.bill(instances, PRICES, "eu-west-1", NOW)
    assert bill.unpriced == ("c5.large",)
    assert bill.told()["unpriced"] == "c5.large"
    assert bill.instance_hours == pytest.approx(2)
    assert sizing.rate(instances, PRICES, "eu-west-1") == pytest.approx(bill.eur["ON_DEMAND"])


def test_the_rate_is_that_of_what_still_runs():
    instances = [
        machine(started=60, ended=None),
        machine(started=60, ended=10),
        machine("m6g.2xlarge", "SPOT", started=5, ended=None),
    ]
    usd = PRICES.eur_per_usd
    expected = (0.184 + 0.0385 + 2 * (0.184 * PRICES.spot_share + 0.0385)) * usd
    assert sizing.rate(instances, PRICES, "eu-central-1") == pytest.approx(expected)
    assert sizing.running(instances) == 2


def test_a_bill_is_the_rate_times_the_hours():
    """Of any machines that ran for the same time."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        kinds = rng.choice(sizing.types("x86_64"), size=5)
        markets = rng.choice(["SPOT", "ON_DEMAND"], size=5)
        minutes = float(rng.uniform(1, 500))
        instances = [
            machine(str(kind), str(market), started=minutes, ended=None)
            for kind, market in zip(kinds, markets, strict=True)
        ]
        bill = sizing.bill(instances, PRICES, "eu-central-1", NOW)
        rate = sizing.rate(instances, PRICES, "eu-central-1")
        assert sum(bill.eur.values()) == pytest.approx(rate * minutes / 60)


def test_what_was_planned_is_what_a_cluster_of_that_size_is_billed():
    """With task nodes of the mean price, and without requests."""
    plan = planned(Work(100, 1.0))
    assert plan.cores == 4
    instances = [machine(started=plan.expected_minutes, ended=0) for _ in range(2)]
    bill = sizing.bill(instances, PRICES, plan.region, NOW)
    requests = plan.expected["s3"] + plan.expected["kms"]
    assert bill.total_eur == pytest.approx(plan.expected_eur - requests)


def test_arithmetic_needs_neither_dagster_nor_boto3():
    program = (
        "import sys, fruits_assets.spark.sizing; "
        "print({'dagster', 'boto3', 'pyspark'} & {name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
