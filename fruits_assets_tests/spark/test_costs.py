"""Everything that AWS bills has an item, and the worst case is the dearest cluster there can be."""

import itertools
from dataclasses import replace

import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import costs, sizing
from fruits_assets.spark.costs import LABELS
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits, Plan
from fruits_assets.spark.work import STAGES, Work, core_seconds, vcpu_seconds
from fruits_assets.storage.region import EU_REGIONS

PRICES = Prices.load()
USD = PRICES.eur_per_usd
REGION = "eu-west-3"
MILLION = Work(1_000_000, 100_000)
PARTS = 1493 * len(STAGES)


def planned(work: Work = MILLION, limits: Limits | None = None, region: str = REGION) -> Plan:
    return sizing.plan(work, limits or Limits(), PRICES, region, "arm64")


def test_requests_are_those_of_photos_parts_and_listings():
    s3 = (0.0053 * (2 * PARTS + 1000) + 0.00042 * (4 * PARTS + 1_000_000)) / 1000
    kms = 0.03 * (0.01 * (6 * PARTS + 1_001_000) + 6 * 5) / 10_000
    priced = costs.requests(PRICES, REGION, MILLION, machines=5)
    assert priced == pytest.approx({"s3": s3 * USD, "kms": kms * USD})


def test_only_ingest_asks_for_every_photo():
    rest = replace(MILLION, stages=STAGES[1:])
    assert MILLION.gets - rest.gets == 1_000_000 + 4 * 1493
    assert MILLION.puts - rest.puts == 1_000 + 2 * 1493


def test_the_upload_is_a_request_for_each_photo():
    usd = 1_000_000 * 0.0053 / 1000 + 10_000 * 0.03 / 10_000
    assert costs.upload(PRICES, REGION, MILLION) == pytest.approx({"upload": usd * USD})


def test_what_stands_is_the_key_the_endpoint_and_what_lies_in_s3():
    """The photos twice, in the source and in the lake; what is known of them; access logs."""
    logged = 500 * (1_000_000 + 1_001_000 + 6 * PARTS) / 1e9
    expected = {
        "key": 1.0,
        "endpoint": 2 * 0.011 * 730,
        "storage": 0.024 * (2 * 100 + 7),
        "logs": 0.024 * logged,
    }
    standing = costs.standing(PRICES, REGION, MILLION, endpoints=1)
    assert standing == pytest.approx({name: usd * USD for name, usd in expected.items()})
    assert costs.standing(PRICES, REGION, MILLION)["endpoint"] == 0


def test_an_endpoint_is_paid_in_both_zones_of_the_stack():
    one = PRICES.endpoint_month_eur(REGION)
    assert one == pytest.approx(0.011 * 730 * USD)
    assert costs.standing(PRICES, REGION, MILLION, endpoints=1)["endpoint"] == costs.ZONES * one


def test_every_item_has_a_name_for_people():
    plan = planned()
    standing = costs.standing(PRICES, REGION, MILLION, endpoints=1)
    upload = costs.upload(PRICES, REGION, MILLION)
    priced = {*plan.expected, *plan.worst, *standing, *upload, "serverless"}
    assert priced == set(LABELS)


@pytest.mark.parametrize("region", EU_REGIONS)
def test_every_region_has_all_prices(region: str):
    standing = costs.standing(PRICES, region, MILLION, endpoints=1)
    assert all(eur > 0 for eur in standing.values())
    assert PRICES.nat_month_eur(region) > 4 * PRICES.endpoint_month_eur(region)


def test_a_region_without_a_price_is_named():
    for price in (PRICES.endpoint_month_eur, PRICES.nat_month_eur):
        with pytest.raises(SparkError, match="no prices are known for the region 'us-east-1'"):
            price("us-east-1")
    with pytest.raises(SparkError, match="s3_gb_month"):
        PRICES.s3_month_eur("us-east-1", 1)


def test_the_worst_cluster_is_the_dearest_that_its_fleets_may_start():
    """Whatever machines EMR picks, in the fleets as they are asked for, none costs more."""
    plan = planned()
    assert plan.task_cores
    hours = (plan.expected_minutes + sizing.SPOT_TIMEOUT_MINUTES) / 60
    primary, core, task = (
        [one["InstanceType"] for one in fleet["InstanceTypeConfigs"]]
        for fleet in sizing.fleets(plan)
    )

    def hourly(kind: str) -> float:
        return PRICES.instance_eur(REGION, kind) + PRICES.emr_eur(kind)

    dearest = 0.0
    for kind in task:
        size = sizing.vcpus(kind)
        machines = -(-plan.task_cores // size)  # the last one may bring more than is missing
        dearest = max(dearest, machines * hourly(kind))
    dearest += max(map(hourly, primary)) + max(map(hourly, core))
    machines = sum(plan.worst[name] for name in ("instances", "emr"))
    assert machines == pytest.approx(dearest * hours)


def test_spot_that_has_nothing_is_priced_on_demand():
    plan = planned()
    most = (plan.most_cores - 4) // 4
    kinds = [f"{family}.xlarge" for family in plan.families]
    on_demand = max(PRICES.instance_eur(REGION, kind) for kind in kinds)
    hours = (plan.expected_minutes + 5) / 60
    assert plan.worst["instances"] == pytest.approx((2 + most) * on_demand * hours)
    full = Prices.load({"spot_share": 1.0})
    same = sizing.plan(MILLION, Limits(), full, REGION, "arm64")
    assert same.worst == plan.worst, "the share on Spot changes nothing of it"


def test_the_worst_case_has_volumes_and_requests_of_all_its_machines():
    plan = planned()
    most = plan.most_cores // 4 + 1
    hours = (plan.expected_minutes + 5) / 60
    assert plan.worst["ebs"] == pytest.approx(PRICES.ebs_eur(REGION, most * 47, hours))
    assert plan.worst["kms"] > plan.expected["kms"]
    assert plan.worst["s3"] == plan.expected["s3"]


@pytest.mark.parametrize("item", ["instances", "emr", "ebs", "s3", "kms"])
def test_each_item_counts_against_the_limit(item: str):
    plan = planned()
    limited = replace(plan, limits=Limits(max_cost_eur=plan.most_eur - plan.worst[item] / 2))
    (refusal,) = limited.refusals
    assert refusal.setting.startswith("FRUITS_EMR_MAX_COST_EUR of ")
    cheaper = replace(limited, worst={**plan.worst, item: 0.0})
    assert not cheaper.refusals


def test_a_run_whose_longest_step_would_be_cancelled_is_refused():
    huge = Work(100_000_000, 10_000_000)
    plan = planned(huge)
    featurize = vcpu_seconds(replace(huge, stages=("featurize",)), "arm64")
    assert plan.step_minutes == pytest.approx(sizing.STEP_MINUTES + featurize / 60 / plan.cores)
    with pytest.raises(SparkError, match=r"STEP_MINUTES of 120 .* may take 698 on 64 cores"):
        plan.check()
    planned(huge, Limits(step_minutes=700)).check()
    planned(huge, Limits(max_cores=512)).check()


def test_the_longest_stage_is_the_one_that_takes_the_most_time():
    for works in itertools.product((10, 10_000_000), (1.0, 1e6)):
        work = Work(*works)
        each = {stage: core_seconds(replace(work, stages=(stage,))) for stage in STAGES}
        assert work.longest_stage().stages == (max(each, key=each.__getitem__),)
    assert Work(0, 0.0, ()).longest_stage() == Work(0, 0.0, ())
