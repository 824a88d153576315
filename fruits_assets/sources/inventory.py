"""S3 Inventory: the listing of a large bucket, which S3 itself writes once a day or a week.

Listing 10^8 objects takes S3 10^5 requests, one after the other for each folder; an inventory of
them is some hundred files. It says what was there when it was made: files that have come since are
found with the next one.

Source: "Amazon S3 Inventory" and "Inventory list" in the Amazon S3 User Guide.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Self
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv
import pyarrow.orc
import pyarrow.parquet

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.bucket import BucketPhotos
from fruits_assets.sources.layout import Labels
from fruits_assets.sources.leftovers import first_hidden
from fruits_assets.sources.listing import Listing, Row
from fruits_assets.storage.base import Folder, Storage, join
from fruits_assets.storage.endpoints import split

MANIFEST = "manifest.json"
DATED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}Z")
"""Name of the folder of one inventory, below that of its configuration."""
FIELDS = {
    "Key": "key",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
}
"""Fields that an inventory must have: name in a CSV file -> column of Parquet and ORC."""
OPTIONAL = {
    "StorageClass": "storage_class",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
}
BATCH_ROWS = 8192


@dataclass(frozen=True)
class Inventory:
    """One inventory of a bucket.

    Attributes:
        uri: of its manifest.
        storage: that it lies in.
        files: key, MD5 and size of each of its files, as the manifest says them.
        kind: `CSV`, `Parquet` or `ORC`.
        fields: of a CSV file, in order.
        bucket: that it lists.
    """

    uri: str
    storage: Storage
    files: Sequence[Mapping[str, Any]]
    kind: str
    fields: Sequence[str]
    bucket: str

    @classmethod
    def at(cls, place: Folder) -> Self:
        """Reads a manifest, or the newest one below the folder of a configuration.

        Raises:
            SourceError: there is none, or it is not one.
        """
        uri = place.uri if place.uri.endswith(f"/{MANIFEST}") else _newest(place)
        try:
            found = json.loads(place.storage.read(uri))
            return cls(
                uri=uri,
                storage=place.storage,
                files=found["files"],
                kind=found["fileFormat"],
                fields=[name.strip() for name in found["fileSchema"].split(",")],
                bucket=found["sourceBucket"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{uri} is not the manifest of an S3 Inventory ({error!r}). Point FRUITS_INVENTORY "
                f"at a file {MANIFEST}, or at the folder of the inventory's configuration."
            ) from error

    def objects(self) -> Iterator[Mapping[str, Any]]:
        """The objects that it lists, with the keys of `FIELDS` and `OPTIONAL`.

        Raises:
            SourceError: a file of it is missing or damaged, or lacks a field.
        """
        for file in self.files:
            for batch in self._batches(file):
                missing = [it for it in FIELDS if it not in batch.schema.names]
                if missing:
                    raise SourceError(
                        f"the inventory {self.uri} has no field {', '.join(missing)}. Add it to "
                        "the inventory's configuration, and wait for the next one."
                    )
                yield from batch.to_pylist()

    def _batches(self, file: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
        try:
            content = self.storage.read(join(f"s3://{split(self.uri)[0]}", file["key"]))
            _check(content, file["MD5checksum"])
            if self.kind == "CSV":
                yield from self._csv(content)
                return
            names = {column: field for field, column in {**FIELDS, **OPTIONAL}.items()}
            for batch in _columnar(self.kind, content, list(names)):
                yield batch.rename_columns([names[it] for it in batch.schema.names])
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise SourceError(
                f"{file.get('key')} of the inventory {self.uri} cannot be read ({error}). Take "
                "another inventory, or list the bucket itself: empty FRUITS_INVENTORY."
            ) from error

    def _csv(self, content: bytes) -> Iterator[pa.RecordBatch]:
        asked = [it for it in self.fields if it in {**FIELDS, **OPTIONAL}]
        reader = pyarrow.csv.open_csv(
            io.BytesIO(gzip.decompress(content)),
            pyarrow.csv.ReadOptions(column_names=list(self.fields), use_threads=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=asked,
                column_types={
                    **dict.fromkeys(asked, pa.string()),
                    "Size": pa.int64(),
                    "LastModifiedDate": pa.timestamp("us", tz="UTC"),
                },
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        for batch in reader:
            keys = [unquote_plus(key) for key in batch.column("Key").to_pylist()]
            place = batch.schema.get_field_index("Key")
            yield batch.set_column(place, "Key", pa.array(keys, pa.string()))


def _check(content: bytes, md5: str) -> None:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError("its MD5 is not the one of the manifest")


def _columnar(kind: str, content: bytes, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet or ORC file, those that it has."""
    source = pa.BufferReader(content)
    if kind == "Parquet":
        parquet = pyarrow.parquet.ParquetFile(source)
        asked = [name for name in columns if name in parquet.schema_arrow.names]
        yield from parquet.iter_batches(BATCH_ROWS, columns=asked, use_threads=False)
        return
    if kind != "ORC":
        raise ValueError(f"its format is {kind}, not CSV, Parquet or ORC")
    orc = pyarrow.orc.ORCFile(source)
    asked = [name for name in columns if name in orc.schema.names]
    for stripe in range(orc.nstripes):
        yield orc.read_stripe(stripe, columns=asked)


def _newest(place: Folder) -> str:
    dated = sorted(filter(DATED.fullmatch, place.storage.children(place.uri)), reverse=True)
    for name in dated:
        folder = join(place.uri, name)
        if MANIFEST in place.storage.children(folder):  # the last file that S3 writes
            return join(folder, MANIFEST)
    raise SourceError(
        f"there is no S3 Inventory at {place.uri}: no folder named like 2026-11-30T01-00Z holds a "
        f"{MANIFEST}. S3 writes the first one up to 48 hours after it is switched on."
    )


class InventoriedPhotos(BucketPhotos):
    """The objects below a prefix of a bucket, as an inventory lists them."""

    def __init__(self, folder: Folder, place: Folder) -> None:
        super().__init__(folder)
        self._place = place

    @cached_property
    def inventory(self) -> Inventory:
        """The one that is taken. Raises SourceError, or S3Error."""
        return Inventory.at(self._place)

    def list(  # noqa: D102 - see PhotoStore
        self, *, recursive: bool, allow_empty: bool = False, labels: Labels = "parent"
    ) -> Listing:
        found = super().list(recursive=recursive, allow_empty=allow_empty, labels=labels)
        return replace(found, inventory=self.inventory.uri)

    def _files(self, hidden: Counter[str], *, recursive: bool) -> Iterator[Row]:
        inventory = self.inventory
        if inventory.bucket != self._storage.bucket.name:
            raise SourceError(
                f"the inventory {inventory.uri} is of the bucket {inventory.bucket}, and the "
                f"source is {self.root}. Point FRUITS_INVENTORY at the inventory of that bucket."
            )
        passed_over: set[str] = set()
        for found in inventory.objects():
            path = found["Key"].removeprefix(self._prefix)
            if not (found["Key"].startswith(self._prefix) and path and _is_current(found)):
                continue
            over = first_hidden(path)
            if not recursive and "/" in (over[0] if over else path).rstrip("/"):
                continue
            if over:
                hidden[over[1]] += over[0] not in passed_over
                passed_over.add(over[0])
            elif not path.endswith("/"):  # the marker of a folder
                yield self._row(_as_listed(found))


def _as_listed(found: Mapping[str, Any]) -> dict[str, Any]:
    """An object of an inventory as a listing would show it."""
    time: datetime = found["LastModifiedDate"]
    return {
        "Key": found["Key"],
        "Size": found["Size"],
        "LastModified": time if time.tzinfo else time.replace(tzinfo=UTC),
        "ETag": f'"{found["ETag"]}"',
        "StorageClass": found.get("StorageClass"),
    }


def _is_current(found: Mapping[str, Any]) -> bool:
    """Whether it is the newest version of its object; the flags are texts in CSV files."""
    latest, deleted = (str(found.get(it)).lower() for it in ("IsLatest", "IsDeleteMarker"))
    return latest != "false" and deleted != "true"
