"""Prices in `make emr-check`: those of clusters, and what is billed without one."""

from __future__ import annotations

from dataclasses import dataclass

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import sizing
from fruits_assets.spark.account import Architecture
from fruits_assets.spark.prices import XLARGE_VCPUS, Prices
from fruits_assets.spark.sizing import Limits, Plan
from fruits_assets.spark.work import Work


@dataclass(frozen=True)
class Pricing:
    """Limits and price table, which the price of a cluster is made of.

    Attributes:
        limits: of the settings.
        prices: of AWS.
        region: of AWS.
        architecture: of the machines.
    """

    limits: Limits
    prices: Prices
    region: str
    architecture: Architecture

    def largest(self) -> Plan:
        """The largest cluster that the limits allow. Raises SparkError where they allow none."""
        return self._plan(Work(0, 0.0, ()), self.limits.max_cores // XLARGE_VCPUS * XLARGE_VCPUS)

    @property
    def most_vcpus(self) -> int:
        """Number of vCPUs of all its machines, if its fleets round up."""
        return self.largest().most_cores + XLARGE_VCPUS

    def of_clusters(self) -> str:
        """Says what the smallest run and the largest cluster cost.

        Raises:
            SparkError: the limits refuse even one photo.
        """
        one, largest = self._plan(Work(1, 0.1)), self.largest()
        if one.refusals:
            raise SparkError(
                f"even a run of one photo is refused by {' and '.join(map(str, one.refusals))}. "
                "Raise it (docs/costs.md)."
            )
        limit = self.limits.max_cost_eur
        refused = (
            "no run is refused for its price: set FRUITS_EMR_MAX_COST_EUR"
            if limit is None
            else f"a run that may cost more than {limit:g} EUR is refused"
        )
        return (
            f"{refused}. A run of one photo costs {one.expected_eur:.2f} EUR, "
            f"{one.most_eur:.2f} at most; an hour of the largest cluster ({largest.cores} cores) "
            f"{largest.eur_per_hour:.2f} EUR, {largest.most_eur_per_hour:.2f} at most"
        )

    def of_nothing(self, *, keys: int, zones: int, nats: int) -> str:
        """Says what a month costs while nobody works: some keys, endpoints and NAT gateways.

        Args:
            keys: in KMS.
            zones: with an interface endpoint, each counted as often as it has one.
            nats: NAT gateways.
        """
        prices, region = self.prices, self.region
        items = {
            "key": keys * prices.key_month_eur(),
            "interface endpoints": zones * prices.endpoint_month_eur(region),
            "NAT gateways": nats * prices.nat_month_eur(region),
        }
        listed = ", ".join(f"{name} {eur:.2f}" for name, eur in items.items() if eur)
        return (
            f"{sum(items.values()):.2f} EUR a month ({listed or 'nothing stands'}), and "
            f"{prices.s3_month_eur(region, 100):.2f} EUR for each 100 GB of photos and lake"
        )

    def endpoint(self) -> str:
        """Says what an interface endpoint costs."""
        return f"{self.prices.endpoint_month_eur(self.region):.2f} EUR a month and zone"

    def _plan(self, work: Work, cores: int | None = None) -> Plan:
        where = (self.region, self.architecture)
        return sizing.plan(work, self.limits, self.prices, *where, cores=cores)
