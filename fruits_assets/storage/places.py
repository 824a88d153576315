"""From a URI to the storage that it lies in: the only way to get one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fruits_assets.core.errors import LakeError
from fruits_assets.storage.base import S3, Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.region import check_owner, check_region


def folder_at(
    place: str,
    *,
    region: str | None = None,
    kms_key: str | None = None,
    bucket_owner: str | None = None,
    follow_links: bool = False,
    requester_pays: bool = False,
) -> Folder:
    """The folder at a place, after a bucket has been seen to lie in the EU.

    Args:
        place: a path, or `s3://bucket/prefix`.
        region: where the bucket must lie.
        kms_key: id or ARN of the key that encrypts what is written; S3's own key without.
        bucket_owner: AWS account that owns the bucket: requests are refused where another one does.
        requester_pays: whether this account pays for requests to the bucket, not its owner.
        follow_links: whether photos in a folder may lie behind links that lead out of it.

    Raises:
        RegionError: the region is not in the EU, or the bucket lies in another one.
        S3Error: the bucket cannot be asked, or belongs to another account.
        LakeError: the place is of an unknown kind.
    """
    if place.startswith(S3):
        from fruits_assets.storage import s3  # noqa: PLC0415 - folders need nothing of AWS

        name, _ = s3.split(place)
        bucket = s3.verified(
            name,
            region=check_region(region),
            kms_key=kms_key,
            owner=check_owner(bucket_owner),
            requester_pays=requester_pays,
        )
        return Folder(s3.S3Storage(bucket), place.rstrip("/"))
    if "://" in place:
        raise LakeError(
            f"{place} is of an unknown kind. Expected a folder of this machine, or "
            "s3://bucket/prefix."
        )
    return Folder(LocalStorage(follow_links), str(Path(place).expanduser().absolute()))


def folder_from(fields: Mapping[str, Any]) -> Folder:
    """The folder that `Folder.to_dict` describes, checked as `folder_at` checks it."""
    return folder_at(fields["uri"], **fields["storage"])
