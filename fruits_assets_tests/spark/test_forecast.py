"""The same work here, on EMR and on EMR Serverless, and which of them is advised."""

from dataclasses import replace
from typing import Any

import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import sizing
from fruits_assets.spark.capacity import Where, capacity
from fruits_assets.spark.forecast import Offer, Question, advise, offers
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits, Refusal
from fruits_assets.spark.work import Work, core_seconds

PRICES = Prices.load()
ASKED = Question(
    work=Work(1_000_000, 100_000),
    limits=Limits(),
    prices=PRICES,
    region="eu-west-3",
    release="emr-spark-8.0.0",
    architecture="arm64",
    serverless_vcpus=16,
    local_cores=2,
)
REFUSED = (Refusal("FRUITS_EMR_STEP_MINUTES of 120", "the longest step may take 698 on 64 cores"),)


def asked(images: int = 1_000_000, **changed: Any) -> Question:
    return replace(ASKED, work=Work(images, images * 0.1), **changed)


def test_this_machine_costs_nothing_and_takes_what_its_cores_take():
    here, *_ = offers(asked())
    assert (here.where, here.run_eur, here.most_eur, here.standing_eur) == ("local", 0, 0, 0)
    assert here.minutes == pytest.approx(core_seconds(ASKED.work) / 2 / 60)
    assert offers(asked(local_cores=4))[0].minutes == pytest.approx(here.minutes / 2)


def test_emr_is_priced_as_the_plan_of_a_run_is():
    plan = sizing.plan(ASKED.work, Limits(), PRICES, "eu-west-3", "arm64")
    emr = offers(asked())[1]
    assert (emr.where, emr.run, emr.minutes) == ("emr", plan.expected, plan.expected_minutes)
    assert (emr.run_eur, emr.most_eur) == (plan.expected_eur, plan.most_eur)


def test_serverless_has_workers_requests_and_no_endpoint():
    _, emr, serverless = offers(asked())
    most = capacity(ASKED.work, Limits(), {"cpu": "16 vCPU"}, Where("eu-west-3", "arm64", PRICES))
    assert (serverless.where, serverless.run) == ("emr-serverless", most.expected)
    assert (serverless.run_eur, serverless.minutes) == (most.expected_eur, most.minutes)
    assert serverless.run.keys() == {"serverless", "s3", "kms"}
    assert serverless.run["s3"] == emr.run["s3"]
    assert serverless.run["serverless"] == pytest.approx(most.minutes * most.eur_per_minute)
    assert emr.standing_eur - serverless.standing_eur == pytest.approx(
        2 * PRICES.endpoint_month_eur("eu-west-3")
    )
    assert emr.once == serverless.once


def test_an_application_with_more_vcpus_is_done_sooner():
    few, many = (offers(asked(serverless_vcpus=it))[2] for it in (16, 64))
    assert many.minutes < few.minutes / 1.9
    with pytest.raises(SparkError, match="the vCPUs of the application leaves no room"):
        offers(asked(serverless_vcpus=4))


def test_only_releases_with_an_endpoint_pay_for_one():
    _, emr, _ = offers(asked(release="emr-7.13.0"))
    assert emr.standing["endpoint"] == 0


def test_what_refuses_a_run_refuses_both_and_never_this_machine():
    found = offers(asked(100_000_000, limits=Limits(max_cost_eur=1.0)))
    names = [[refusal.setting for refusal in one.refusals] for one in found]
    both = ["FRUITS_EMR_MAX_COST_EUR of 1", "FRUITS_EMR_STEP_MINUTES of 120"]
    assert names == [[], both, both]


def test_fewer_cores_than_a_machine_has_are_refused_in_a_sentence():
    with pytest.raises(SparkError, match="at most 3 cores"):
        offers(asked(limits=Limits(max_cores=3)))


def test_more_photos_never_cost_or_take_less():
    found = [offers(asked(images)) for images in (1_000, 10_000, 1_000_000, 100_000_000)]
    for place in zip(*found, strict=True):
        for name in ("minutes", "run_eur", "most_eur", "standing_eur", "once_eur"):
            values = [getattr(one, name) for one in place]
            assert values == sorted(values), name


HERE = Offer("local", minutes=1_000.0)
EMR = Offer("emr", 60.0, run={"instances": 1.0}, standing={"endpoint": 14.0})
SERVERLESS = Offer("emr-serverless", 60.0, run={"serverless": 2.0}, standing={"key": 1.0})


@pytest.mark.parametrize(
    ("found", "best", "said"),
    [
        ((replace(HERE, minutes=30), EMR, SERVERLESS), "local", "30 min and costs nothing"),
        ((replace(HERE, minutes=720), EMR, SERVERLESS), "local", "12.0 h and costs nothing"),
        ((HERE, replace(EMR, minutes=2_000), replace(SERVERLESS, minutes=1_000)), "local", "16.7"),
        ((HERE, EMR, SERVERLESS), "emr-serverless", "costs 3.00 EUR, and 15.00 EUR with emr"),
        ((HERE, replace(EMR, standing={}), SERVERLESS), "emr", "costs 1.00 EUR, and 3.00 EUR"),
        ((HERE, EMR, replace(SERVERLESS, refusals=REFUSED)), "emr", "15.00 EUR, and 3.00 EUR"),
        (
            (HERE, replace(EMR, refusals=REFUSED), replace(SERVERLESS, refusals=REFUSED)),
            "emr-serverless",
            "Raise what refuses it first: FRUITS_EMR_STEP_MINUTES of 120 (the longest",
        ),
    ],
    ids=["sooner", "overnight", "not later", "standing", "run", "refused", "all refused"],
)
def test_the_advice(found: tuple[Offer, ...], best: str, said: str):
    taken, reason = advise(found)
    assert taken.where == best
    assert said in reason
    assert ("Raise what" in reason) == bool(taken.refusals)
