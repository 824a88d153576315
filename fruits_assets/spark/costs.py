"""Items that AWS bills for a run and while nobody works, in EUR without tax.

NAT gateways, CloudWatch and traffic between zones are no items: the stack has no gateway and no
alarm, EMR's own metrics cost nothing, and a cluster lies in one zone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from fruits_assets.spark.prices import ON_DEMAND, SPOT, Prices
from fruits_assets.spark.work import Work

Items = Mapping[str, float]
"""Name of `LABELS` -> EUR."""
LABELS = {
    "instances": "machines",
    "emr": "EMR's charge for them",
    "ebs": "their volumes",
    "serverless": "vCPUs and memory of EMR Serverless",
    "s3": "requests to S3",
    "kms": "requests to KMS",
    "upload": "upload of the photos to S3",
    "key": "key in KMS",
    "endpoint": "interface endpoint of EMR",
    "storage": "photos and lake in S3",
    "logs": "access logs in S3",
}
"""Every item that is priced -> what it is, for people."""
MACHINES = ("instances", "emr", "ebs")
"""Items that are paid by the hour, as long as a cluster is there."""
ROOT_GB = 15
"""Root volume of each machine (GB), by EMR's default (release 6.15 and later)."""
VOLUME_GB = 32
"""For logs and what little is shuffled (150 bytes a photo, 13 MB a core): data never stay here."""
KMS_PER_S3 = 0.01
"""Requests to KMS per request to S3: AWS says that the stack's Bucket Key saves up to 99 %."""
KMS_PER_MACHINE = 6
"""Assumed: a data key, a grant and a decryption for each of its two encrypted volumes."""
ZONES = 2
"""Zones of the stack's network, in each of which an interface endpoint is paid."""
LAKE_BYTES = 7_000
"""Bytes of each photo in the lake, beside the photo itself: 1280 features (5,120 bytes), up to 300
components, and what is known of it."""
LOG_BYTES = 500
"""Bytes of a request in the access log, about; it is kept for LogDays of the stack."""


@dataclass(frozen=True)
class Case:
    """Which machines a cluster turns out to have, of those that it may have.

    Attributes:
        fixed: picks the price of primary and core node from those of the families, the cheapest
            family first.
        tasks: the same for the price of task nodes.
        market: of task nodes.
    """

    fixed: Callable[[Sequence[float]], float]
    tasks: Callable[[Sequence[float]], float]
    market: str


EXPECTED = Case(itemgetter(0), statistics.mean, SPOT)
"""On demand, EMR starts the cheapest family; on Spot, capacity decides."""
WORST = Case(max, max, ON_DEMAND)
"""The dearest family everywhere, and nothing to be had on Spot: fleets then go on demand."""


def cluster(
    prices: Prices, region: str, families: Sequence[str], tasks: int, case: Case
) -> dict[str, float]:
    """EUR per hour of a cluster: primary node, core node and task nodes, counted as xlarges.

    Args:
        prices: of AWS.
        region: of AWS.
        families: of machines, the cheapest first.
        tasks: task nodes; a larger machine counts as several, and has fewer volumes than they.
        case: which of the machines it has.
    """
    kinds = [f"{family}.xlarge" for family in families]
    on_demand = [prices.instance_eur(region, kind) for kind in kinds]
    market = [prices.instance_eur(region, kind, case.market) for kind in kinds]
    charges = [prices.emr_eur(kind) for kind in kinds]
    return {
        "instances": 2 * case.fixed(on_demand) + tasks * case.tasks(market),
        "emr": 2 * case.fixed(charges) + tasks * case.tasks(charges),
        "ebs": prices.ebs_eur(region, (2 + tasks) * (ROOT_GB + VOLUME_GB), 1),
    }


def requests(prices: Prices, region: str, work: Work, *, machines: int = 0) -> dict[str, float]:
    """EUR of the requests that a run makes, its machines' to KMS for their volumes among them."""
    kms = (work.puts + work.gets) * KMS_PER_S3 + machines * KMS_PER_MACHINE
    return {
        "s3": prices.s3_eur(region, puts=work.puts, gets=work.gets),
        "kms": prices.kms_eur(kms),
    }


def upload(prices: Prices, region: str, work: Work) -> dict[str, float]:
    """EUR, once, of putting the photos into the bucket: a request for each."""
    puts = prices.s3_eur(region, puts=work.images, gets=0)
    return {"upload": puts + prices.kms_eur(work.images * KMS_PER_S3)}


def standing(prices: Prices, region: str, work: Work, *, endpoints: int = 0) -> dict[str, float]:
    """EUR per month while nobody works, with the photos and the lake in S3.

    Args:
        prices: of AWS.
        region: of AWS.
        work: that the lake holds the results of.
        endpoints: interface endpoints, each in `ZONES`.
    """
    lake = 2 * work.megabytes / 1e3 + work.images * LAKE_BYTES / 1e9
    logged = (work.images + work.puts + work.gets) * LOG_BYTES / 1e9
    return {
        "key": prices.key_month_eur(),
        "endpoint": endpoints * ZONES * prices.endpoint_month_eur(region),
        "storage": prices.s3_month_eur(region, lake),
        "logs": prices.s3_month_eur(region, logged),
    }
