"""From a place to the photos in it: the only way to get them."""

from __future__ import annotations

from pathlib import Path

from fruits_assets.sources import archive, table
from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import S3, Folder


def photos_at(folder: Folder) -> PhotoStore:
    """The photos of a folder, of a prefix of a bucket, or of a file that holds or lists photos."""
    if folder.uri.startswith(S3):
        from fruits_assets.sources.bucket import BucketPhotos  # noqa: PLC0415 - AWS only

        return BucketPhotos(folder)
    kind = archive.kind_of(folder.uri) or table.kind_of(folder.uri)
    if kind and not Path(folder.uri).is_dir():
        return kind(folder)
    return FolderPhotos(folder)
