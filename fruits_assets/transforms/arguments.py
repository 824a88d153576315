"""The arguments of a transform as JSON, for a process on another machine.

A snapshot and a folder say which bucket they lie in; the process that reads them sees for itself
that it lies in the EU before it touches it. Neither holds credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fruits_assets.storage.base import Folder
from fruits_assets.storage.places import folder_from
from fruits_assets.storage.snapshot import Snapshot

FOLDER, SNAPSHOT = "$folder", "$snapshot"
"""Keys that no parameter has: what they hold is not a plain value."""


def to_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON can hold them."""
    return {name: _encoded(value) for name, value in arguments.items()}


def from_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `to_json`. Raises RegionError or S3Error for a bucket that may not be used."""
    return {name: _decoded(value) for name, value in arguments.items()}


def regions(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Name -> region of every bucket that arguments lie in."""
    folders = [
        value.folder if isinstance(value, Snapshot) else value
        for value in arguments.values()
        if isinstance(value, Snapshot | Folder)
    ]
    buckets = {getattr(folder.storage, "bucket", None) for folder in folders}
    return {bucket.name: bucket.region for bucket in buckets if bucket}


def _encoded(value: Any) -> Any:
    if isinstance(value, Folder):
        return {FOLDER: value.to_dict()}
    if isinstance(value, Snapshot):
        return {SNAPSHOT: value.to_dict()}
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, dict) and FOLDER in value:
        return folder_from(value[FOLDER])
    if isinstance(value, dict) and SNAPSHOT in value:
        fields = value[SNAPSHOT]
        return Snapshot.from_dict(fields, folder_from(fields["folder"]))
    return value
