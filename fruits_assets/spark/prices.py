"""Prices of AWS per hour, month or request: a table with sources, and overrides of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruits_assets.core.errors import SparkError

if TYPE_CHECKING:
    from fruits_assets.spark.account import Architecture

TABLE = Path(__file__).with_name("prices.json")
FAMILIES: Mapping[Architecture, tuple[str, ...]] = {
    "arm64": ("m6g", "m7g", "m8g"),
    "x86_64": ("m5", "m5a", "m6a", "m6i", "m7a", "m7i"),
}
"""All have 4 GiB per vCPU and no instance store: one setting of Spark fits them all."""
XLARGE_VCPUS = 4
SPOT = "SPOT"
ON_DEMAND = "ON_DEMAND"
HOURS_PER_MONTH = 730
"""As AWS counts a GB-month."""
SECTIONS = (
    "eur_per_usd",
    "spot_share",
    "on_demand_xlarge_hour",
    "emr_xlarge_hour",
    "ebs_gp3_gb_month",
    "s3_per_1000",
    "s3_gb_month",
    "kms",
    "interface_endpoint_hour",
    "nat_gateway_hour",
    "serverless_hour",
    "serverless_arm64_share",
)
NOTES = ("about", "date", "sources")
"""Of the table, for people: a copy of it with other figures is an override too."""


def vcpus(instance_type: str) -> int:
    """Of a type such as `m6g.2xlarge`: 8. Raises SparkError for a size that has no such rule."""
    found = re.fullmatch(r"[a-z0-9-]+\.(\d*)xlarge", instance_type)
    if not found:
        raise SparkError(f"{instance_type!r} is no instance type of size xlarge or a multiple.")
    return XLARGE_VCPUS * int(found[1] or 1)


@dataclass(frozen=True)
class Prices:
    """A price table; amounts in USD, without tax, converted where they are asked for.

    Attributes:
        eur_per_usd: exchange rate.
        spot_share: price on Spot over that on demand, assumed.
        on_demand_xlarge_hour: region -> family -> price of an xlarge; families that a region does
            not offer are absent.
        emr_xlarge_hour: family -> what EMR charges on top, on either market.
        ebs_gp3_gb_month: region -> price.
        s3_per_1000: region -> `put` and `get` -> price.
        s3_gb_month: region -> price.
        kms: `key_month` and `per_10000` requests -> price.
        interface_endpoint_hour: region -> price in one zone.
        nat_gateway_hour: region -> price.
        serverless_hour: region -> `vcpu`, `memory_gb` and `storage_gb` of EMR Serverless -> price
            on x86_64.
        serverless_arm64_share: price of vCPUs and memory on arm64 over that on x86_64.
        date: month in which the package's table was made, for people.
    """

    eur_per_usd: float
    spot_share: float
    on_demand_xlarge_hour: Mapping[str, Mapping[str, float]]
    emr_xlarge_hour: Mapping[str, float]
    ebs_gp3_gb_month: Mapping[str, float]
    s3_per_1000: Mapping[str, Mapping[str, float]]
    s3_gb_month: Mapping[str, float]
    kms: Mapping[str, float]
    interface_endpoint_hour: Mapping[str, float]
    nat_gateway_hour: Mapping[str, float]
    serverless_hour: Mapping[str, Mapping[str, float]]
    serverless_arm64_share: float
    date: str

    @classmethod
    def load(cls, override: Mapping[str, Any] | None = None) -> Prices:
        """The package's table, with what a user knows better merged in.

        Args:
            override: of the same shape, as deep as it goes; anything may be missing.

        Raises:
            SparkError: the override names something that the table does not have, or a price that
                is no positive number.
        """
        table = json.loads(TABLE.read_text())
        own = {name: table[name] for name in SECTIONS}
        given = {name: value for name, value in (override or {}).items() if name not in NOTES}
        problems = list(_problems(own, given))
        if problems:
            raise SparkError(
                f"the prices that you set are not usable: {'; '.join(problems)}. They are merged "
                f"into {TABLE.name} of the package, which has {', '.join(SECTIONS)}."
            )
        return cls(**_merged(own, given), date=table["date"])

    @classmethod
    def read(cls, path: str | None) -> Prices:
        """The package's table, with a user's JSON file merged in. Raises SparkError."""
        try:
            return cls.load(json.loads(Path(path).read_text()) if path else None)
        except (OSError, ValueError) as error:
            raise SparkError(
                f"the prices in {path} cannot be read ({error}). FRUITS_EMR_PRICES names a JSON "
                "file with some of the figures of fruits_assets/spark/prices.json (docs/costs.md)."
            ) from error

    def families(self, region: str, architecture: Architecture) -> tuple[str, ...]:
        """The families of an architecture that a region offers, the cheapest first.

        Raises:
            SparkError: no prices are known for the region.
        """
        offered = self._of(region, self.on_demand_xlarge_hour, "on_demand_xlarge_hour")
        found = [family for family in FAMILIES[architecture] if family in offered]
        return tuple(sorted(found, key=lambda family: (offered[family], family)))

    def instance_eur(self, region: str, instance_type: str, market: str = ON_DEMAND) -> float:
        """EUR per hour of a machine, without EMR's charge. Raises SparkError if not known."""
        offered = self._of(region, self.on_demand_xlarge_hour, "on_demand_xlarge_hour")
        share = self.spot_share if market == SPOT else 1.0
        return self._sized(offered, instance_type, region) * share

    def emr_eur(self, instance_type: str) -> float:
        """EUR per hour that EMR charges for a machine. Raises SparkError if not known."""
        return self._sized(self.emr_xlarge_hour, instance_type, "EMR")

    def ebs_eur(self, region: str, gigabytes: float, hours: float) -> float:
        """EUR of gp3 volumes. Raises SparkError for an unknown region."""
        month = self._of(region, self.ebs_gp3_gb_month, "ebs_gp3_gb_month")
        return month * gigabytes * hours / HOURS_PER_MONTH * self.eur_per_usd

    def s3_eur(self, region: str, *, puts: float, gets: float) -> float:
        """EUR of requests: those that write or list, and those that read. Raises SparkError."""
        price = self._of(region, self.s3_per_1000, "s3_per_1000")
        return (price["put"] * puts + price["get"] * gets) / 1000 * self.eur_per_usd

    def s3_month_eur(self, region: str, gigabytes: float) -> float:
        """EUR per month of what lies in S3. Raises SparkError for an unknown region."""
        return self._of(region, self.s3_gb_month, "s3_gb_month") * gigabytes * self.eur_per_usd

    def kms_eur(self, requests: float) -> float:
        """EUR of requests to KMS."""
        return self.kms["per_10000"] * requests / 10_000 * self.eur_per_usd

    def key_month_eur(self) -> float:
        """EUR per month of one key in KMS."""
        return self.kms["key_month"] * self.eur_per_usd

    def endpoint_month_eur(self, region: str) -> float:
        """EUR per month of an interface endpoint in one zone. Raises SparkError."""
        hour = self._of(region, self.interface_endpoint_hour, "interface_endpoint_hour")
        return hour * HOURS_PER_MONTH * self.eur_per_usd

    def nat_month_eur(self, region: str) -> float:
        """EUR per month of a NAT gateway, without what goes through it. Raises SparkError."""
        hour = self._of(region, self.nat_gateway_hour, "nat_gateway_hour")
        return hour * HOURS_PER_MONTH * self.eur_per_usd

    def serverless_eur(
        self,
        region: str,
        architecture: Architecture,
        *,
        vcpu_hours: float,
        memory_gb_hours: float,
        storage_gb_hours: float = 0.0,
    ) -> float:
        """EUR of what EMR Serverless bills for workers, the driver's among them.

        Args:
            region: of AWS.
            architecture: of the workers.
            vcpu_hours: vCPUs times hours.
            memory_gb_hours: GB of memory, with overhead, times hours.
            storage_gb_hours: GB of disk beyond the 20 GB of each worker that cost nothing, times
                hours.

        Raises:
            SparkError: no prices are known for the region.
        """
        hour = self._of(region, self.serverless_hour, "serverless_hour")
        share = self.serverless_arm64_share if architecture == "arm64" else 1.0
        compute = hour["vcpu"] * vcpu_hours + hour["memory_gb"] * memory_gb_hours
        return (compute * share + hour["storage_gb"] * storage_gb_hours) * self.eur_per_usd

    def knows(self, region: str, instance_type: str) -> bool:
        """Whether a machine has a price there."""
        family = instance_type.partition(".")[0]
        offered = self.on_demand_xlarge_hour.get(region, {})
        sized = re.fullmatch(r"\d*xlarge", instance_type.partition(".")[2])
        return bool(sized) and family in offered and family in self.emr_xlarge_hour

    def _sized(self, xlarge: Mapping[str, float], instance_type: str, where: str) -> float:
        family, times = instance_type.partition(".")[0], vcpus(instance_type) / XLARGE_VCPUS
        if family not in xlarge:
            raise SparkError(
                f"no price is known for {instance_type} ({where}), only for {', '.join(xlarge)}. "
                "Add it to the prices that you set, or use another type."
            )
        return xlarge[family] * times * self.eur_per_usd

    @staticmethod
    def _of(region: str, regions: Mapping[str, Any], section: str) -> Any:
        if region not in regions:
            raise SparkError(
                f"no prices are known for the region {region!r}, only for {', '.join(regions)}. "
                f"Use one of those, or add it to {section} of the prices that you set."
            )
        return regions[region]


def _merged(own: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(own)
    for name, value in override.items():
        nested = isinstance(value, Mapping) and isinstance(own.get(name), Mapping)
        merged[name] = _merged(own[name], value) if nested else value
    return merged


def _problems(own: Mapping[str, Any], override: Mapping[str, Any]) -> Iterator[str]:
    for name in override.keys() - set(SECTIONS):
        yield f"there is no {name!r}"
    for name in override.keys() & set(SECTIONS):
        yield from _misfits(name, own[name], override[name])


def _misfits(name: str, own: Any, value: Any) -> Iterator[str]:
    """Where a value has not the shape of the table's own: tables, and positive numbers in them."""
    if isinstance(own, Mapping):
        if not isinstance(value, Mapping):
            yield f"{name} is {value!r} and should be a table"
            return
        like = next(iter(own.values()))  # for regions and families that the table does not have
        for key, one in value.items():
            yield from _misfits(f"{name}.{key}", own.get(key, like), one)
    elif isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        yield f"{name} is {value!r} and should be a positive number"
