"""The regions of AWS that lie in the European Union: data never leave them."""

from __future__ import annotations

from fruits_assets.core.errors import RegionError

EU_REGIONS = (
    "eu-central-1",
    "eu-west-1",
    "eu-west-3",
    "eu-north-1",
    "eu-south-1",
    "eu-south-2",
)
"""Frankfurt, Ireland, Paris, Stockholm, Milan and Spain. London (eu-west-2) and Zurich
(eu-central-2) begin with `eu-` too, and are not in the EU."""


def check_region(region: str | None) -> str:
    """The region itself, where it lies in the EU.

    Raises:
        RegionError: it does not, or none was given.
    """
    allowed = ", ".join(EU_REGIONS)
    if not region:
        raise RegionError(f"no region is set. Set FRUITS_REGION to one of {allowed}.")
    if region not in EU_REGIONS:
        raise RegionError(
            f"the region {region!r} is not in the European Union. Use one of {allowed}."
        )
    return region
