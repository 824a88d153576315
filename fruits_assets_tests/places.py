"""The places that the pipeline reads and writes, as tests look at them: not with its own eyes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruits_assets.storage.base import Folder as Opened
from fruits_assets.storage.places import folder_at
from fruits_assets_tests import s3
from fruits_assets_tests.s3 import Server


@dataclass(frozen=True)
class Place(ABC):
    """An empty place.

    Attributes:
        base: absolute path, or `s3://bucket/prefix`.
    """

    base: str

    def uri(self, name: str) -> str:
        """Of a file below the base."""
        return f"{self.base}/{name}"

    @property
    def opened(self) -> Opened:
        """The place as the pipeline opens it."""
        return folder_at(self.base, region=s3.REGION)

    @abstractmethod
    def names(self, folder: str = "") -> set[str]:
        """Of all files below a folder, relative to the base."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Makes or replaces a file."""

    @abstractmethod
    def get(self, name: str) -> bytes:
        """The content of a file."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Deletes a file."""


class Folder(Place):
    """A folder of this machine."""

    def names(self, folder: str = "") -> set[str]:
        files = Path(self.base, folder).rglob("*")
        return {str(file.relative_to(self.base)) for file in files if file.is_file()}

    def put(self, name: str, content: bytes) -> None:
        Path(self.base, name).parent.mkdir(parents=True, exist_ok=True)
        Path(self.base, name).write_bytes(content)

    def get(self, name: str) -> bytes:
        return Path(self.base, name).read_bytes()

    def remove(self, name: str) -> None:
        Path(self.base, name).unlink()


@dataclass(frozen=True)
class Bucket(Place):
    """A prefix of a bucket whose objects are versioned.

    Attributes:
        server: that holds it.
    """

    server: Server

    @property
    def name(self) -> str:
        """Of the bucket."""
        return self.base.split("/")[2]

    def names(self, folder: str = "") -> set[str]:
        return {self._name(found) for found in self._pages("list_objects_v2", folder, "Contents")}

    def versions(self, folder: str = "") -> list[str]:
        """The names of all versions of objects and all delete markers below a folder."""
        kinds = ("Versions", "DeleteMarkers")
        return sorted(map(self._name, self._pages("list_object_versions", folder, *kinds)))

    def put(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=self._key(name), Body=content)

    def get(self, name: str) -> bytes:
        return self._client.get_object(Bucket=self.name, Key=self._key(name))["Body"].read()

    def remove(self, name: str) -> None:
        gone = {"Bucket": self.name, "Key": self._key(name)}
        self._client.delete_object(**gone)
        if self.server.minds_markers:
            marker = self._client.list_object_versions(Bucket=self.name, Prefix=gone["Key"])
            for found in (*marker["Versions"], *marker["DeleteMarkers"]):
                self._client.delete_object(**gone, VersionId=found["VersionId"])

    def _pages(self, operation: str, folder: str, *kinds: str) -> Iterator[dict[str, Any]]:
        prefix = self._key(f"{folder}/" if folder else "")
        pages = self._client.get_paginator(operation)
        for page in pages.paginate(Bucket=self.name, Prefix=prefix):
            for kind in kinds:
                yield from page.get(kind, ())

    def _name(self, found: dict[str, Any]) -> str:
        return found["Key"].removeprefix(self._key(""))

    def _key(self, name: str) -> str:
        prefix = "/".join(self.base.split("/")[3:])
        return f"{prefix}/{name}" if prefix else name

    @property
    def _client(self) -> Any:
        return self.server.client
