"""From a folder or a bucket to the photos in it: the only way to get them."""

from __future__ import annotations

from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import S3, Folder


def photos_at(folder: Folder) -> PhotoStore:
    """The photos of a folder, or of a prefix of a bucket."""
    if folder.uri.startswith(S3):
        from fruits_assets.sources.bucket import BucketPhotos  # noqa: PLC0415 - AWS only

        return BucketPhotos(folder)
    return FolderPhotos(folder)
