"""Spark on EMR Serverless: what is asked of it, refused, waited for and paid."""

from __future__ import annotations

import pytest

from fruits_assets.spark.prices import Prices
from fruits_assets.storage.region import EU_REGIONS

PRICES = Prices.load()


def test_the_price_is_that_of_vcpus_memory_and_disks():
    used = {"vcpu_hours": 10.0, "memory_gb_hours": 40.0, "storage_gb_hours": 100.0}
    usd = 10 * 0.052624 + 40 * 0.0057785 + 100 * 0.000122
    assert PRICES.serverless_eur("eu-west-1", "x86_64", **used) == pytest.approx(usd * 0.86)


def test_arm64_is_cheaper_but_its_disks_are_not():
    work = {"vcpu_hours": 10.0, "memory_gb_hours": 40.0}
    disks = {"vcpu_hours": 0.0, "memory_gb_hours": 0.0, "storage_gb_hours": 100.0}
    x86, arm = (
        [PRICES.serverless_eur("eu-west-3", machine, **used) for used in (work, disks)]
        for machine in ("x86_64", "arm64")
    )
    assert arm == pytest.approx([0.8 * x86[0], x86[1]])


@pytest.mark.parametrize("region", EU_REGIONS)
def test_every_region_of_the_eu_has_a_price(region: str):
    assert PRICES.serverless_eur(region, "arm64", vcpu_hours=1, memory_gb_hours=1) > 0
