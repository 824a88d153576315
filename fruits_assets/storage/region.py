"""The regions of AWS that lie in the European Union, which data never leave, and account ids."""

from __future__ import annotations

import re

from fruits_assets.core.errors import RegionError, S3Error

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


def check_owner(account: str | None) -> str | None:
    """The id of an AWS account itself, or None where none is known. Raises S3Error."""
    if account and not re.fullmatch("[0-9]{12}", account):
        raise S3Error(
            f"{account!r} is not the id of an AWS account. Set FRUITS_BUCKET_OWNER to the 12 "
            "digits of the account that owns the buckets, or leave it empty."
        )
    return account or None
