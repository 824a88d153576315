"""The places outside the lake that assets start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from fruits_assets.core.errors import SourceError
from fruits_assets.lake.resource import Place, told
from fruits_assets.sample.drawing import write_sample
from fruits_assets.settings import SAMPLE
from fruits_assets.sources.layout import Labels
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.places import photos_at
from fruits_assets.sources.store import PhotoStore
from fruits_assets.storage.base import S3, Folder, overlap
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from fruits_assets.sources.inventory import InventoriedPhotos

SAMPLE_FOLDER = "sample_photos"


class Source(Place):
    """Where the photos come from."""

    place: str = Field(
        default=SAMPLE,
        description="A folder of photos, s3://bucket/prefix, an archive (.zip, .tar, .tar.gz) or a "
        "table (.csv, .jsonl) of photos, or `sample`: the embedded sample, "
        f"drawn on first use into `{SAMPLE_FOLDER}` in the working directory.",
    )

    lake: str = Field(
        default="",
        description="Base of the lake. Neither may lie in the other: an erasure would delete "
        "photos, and a run would ingest its own results.",
    )

    follow_links: bool = Field(
        default=False,
        description="Whether symbolic links in a folder of photos may lead out of it. Links that "
        "may not are listed in `rejected_images`.",
    )

    requester_pays: bool = Field(
        default=False,
        description="Whether this account pays for requests to the bucket, not its owner.",
    )

    inventory: str = Field(
        default="",
        description="S3 Inventory to take the listing of a bucket from: s3:// URI of its "
        "manifest.json, or of the folder of its configuration. Without, the bucket is listed.",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses a source that overlaps the lake, before any asset starts. Raises dg.Failure."""
        with told():
            self.check_place()
        super().setup_for_execution(context)

    def check_place(self) -> None:
        """Raises SourceError where source and lake overlap."""
        place = SAMPLE_FOLDER if self.place == SAMPLE else self.place
        if self.lake and overlap(place, self.lake):
            raise SourceError(
                f"the source {place} and the lake {self.lake} overlap: one is, or lies in, the "
                "other. An erasure would delete photos, and a run would ingest its own results. "
                "Nothing was written. Set FRUITS_LAKE (or FRUITS_SOURCE) to a place outside."
            )

    def folder(self, uri: str) -> Folder:
        """See Place; with what is said of a source only."""
        return folder_at(
            uri,
            region=self.region,
            kms_key=self.kms_key,
            bucket_owner=self.bucket_owner,
            follow_links=self.follow_links,
            requester_pays=self.requester_pays,
        )

    def photos(self) -> PhotoStore:
        """The photos themselves. Raises RegionError or S3Error for a bucket."""
        if self.place == SAMPLE:
            write_sample(Path(SAMPLE_FOLDER))
            return photos_at(folder_at(SAMPLE_FOLDER))
        return photos_at(self.folder(self.place))

    def list(self, *, recursive: bool, labels: Labels) -> Listing:
        """The files of the source, from its inventory where there is one.

        Args:
            recursive: look into sub-folders, to any depth.
            labels: which folder is the label, by `layout.Layout`.

        Raises:
            SourceError: the source or the inventory is missing, not readable, or holds no file;
                or RegionError or S3Error for a bucket.
        """
        return (self._inventoried() or self.photos()).list(recursive=recursive, labels=labels)

    def is_as_listed(self, listing: Snapshot, *, recursive: bool, labels: Labels) -> bool:
        """Whether the newest inventory is the one that a listing was taken from, by these rules.

        Args:
            listing: a version of `_listing`.
            recursive: see `list`.
            labels: see `list`.

        Raises:
            SourceError: as `list` does, for the inventory.
        """
        photos = self._inventoried()
        asked = {"recursive": recursive, "labels": labels}
        return photos is not None and asked | {"inventory": photos.inventory.uri} == {
            name: listing.figures.get(name) for name in (*asked, "inventory")
        }

    def _inventoried(self) -> InventoriedPhotos | None:
        if not self.inventory:
            return None
        from fruits_assets.sources.inventory import InventoriedPhotos  # noqa: PLC0415 - AWS only

        photos = self.photos()
        if not photos.root.startswith(S3):
            raise SourceError(
                f"FRUITS_INVENTORY is {self.inventory}, and the source {photos.root} is not in "
                "a bucket. Empty FRUITS_INVENTORY, or set FRUITS_SOURCE to s3://bucket/prefix."
            )
        return InventoriedPhotos(photos.folder, self.folder(self.inventory))

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.place


class WeightsOrigin(Place):
    """Which weights the features are computed with."""

    place: str = Field(
        default=SAMPLE,
        description="`imagenet` (downloaded and cached by Keras), `sample` (embedded), or the path "
        "or s3:// URI of a Keras weights file of MobileNetV2 without its top.",
    )

    @property
    def uri(self) -> str:  # noqa: D102 - see Place
        return self.place

    def bucket(self) -> Folder | None:
        """The prefix of the bucket that they lie in; None where they lie somewhere else."""
        return self.folder(self.place) if self.place.startswith(S3) else None
