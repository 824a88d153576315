"""The lake: its layout, its versions, and how a version is published.

<base>/<asset>/<version>/...            immutable once published
<base>/<asset>/<version>/manifest.json  written last: a version without it is not finished
<base>/<asset>/current.json             the only file that ever changes
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fruits_assets.core.dataset import MANIFEST, Dataset, Manifest, Output, read, read_manifest
from fruits_assets.core.errors import DatasetError, LakeError
from fruits_assets.core.storage import Storage, join, storage_of

CURRENT = "current.json"
VERSION = re.compile("[0-9a-f]{16}")
ABANDONED_SECONDS = 24 * 3600
"""A version that is unfinished and untouched for so long is not being written any more."""


class Versioned(Protocol):
    """What a version can be made from."""

    @property
    def name(self) -> str:
        """What manifests call it."""
        ...

    @property
    def version(self) -> str:
        """Changes with its content."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What a version is made of; the same recipe has the same address.

    Attributes:
        transform: name of the function that makes it.
        code_version: of that function.
        params: its parameters, JSON values.
        inputs: version of each input, by name.
        salt: makes the address a new one, for a recomputation that is forced; else empty.
    """

    transform: str
    code_version: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    salt: str = ""

    @classmethod
    def of(
        cls,
        transform: str,
        code_version: str,
        inputs: Iterable[Versioned],
        *,
        params: Mapping[str, Any] | None = None,
        salt: str = "",
    ) -> Recipe:
        """The recipe of a function applied to inputs."""
        versions = {value.name: value.version for value in inputs}
        return cls(transform, code_version, dict(params or {}), versions, salt)

    @cached_property
    def version(self) -> str:
        """16 hexadecimal digits."""
        canonical = json.dumps(
            [self.transform, self.code_version, self.params, self.inputs, self.salt], sort_keys=True
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Lake:
    """A lake at a base folder.

    Attributes:
        base: absolute path.
        keep_versions: how many versions of an asset to keep.
    """

    base: str
    keep_versions: int = 3

    @classmethod
    def at(cls, place: str, *, keep_versions: int = 3) -> Lake:
        """The lake at a folder, which need not exist yet."""
        base = place if "://" in place else str(Path(place).expanduser().absolute())
        storage_of(base)
        return cls(base, keep_versions)

    @property
    def storage(self) -> Storage:
        """What the lake lies in."""
        return storage_of(self.base)

    def folder(self, asset: str, version: str) -> str:
        """URI of a version, finished or not."""
        return join(self.base, asset, version)

    def current(self, asset: str) -> Dataset:
        """The published version of an asset.

        Raises:
            DatasetError: there is none, or it is damaged.
        """
        version = self._current_version(asset)
        if version is None:
            raise DatasetError(
                f"the lake {self.base} has no {asset} yet. Materialise {asset} first."
            )
        return Dataset.open(self.folder(asset, version))

    def assets(self) -> list[str]:
        """Names of the assets that have a current version."""
        names = self.storage.children(self.base)
        pointers = self.storage.sizes([join(self.base, name, CURRENT) for name in names])
        return [name for name, size in zip(names, pointers, strict=True) if size is not None]

    def finished(self, asset: str, version: str) -> Dataset | None:
        """A version if it is finished and whole, else None: then it is to be made (again)."""
        try:
            return Dataset.open(self.folder(asset, version))
        except DatasetError:
            return None

    def draft(
        self, asset: str, recipe: Recipe, output: Output, *, run: str, seconds: float
    ) -> Dataset:
        """A version that is written but not published yet: nobody sees it."""
        manifest = Manifest(
            asset=asset,
            version=recipe.version,
            transform=recipe.transform,
            code_version=recipe.code_version,
            params=recipe.params,
            inputs=recipe.inputs,
            run_id=run,
            created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            seconds=round(seconds, 3),
            files=output.files,
            figures=output.figures,
            schema=output.schema,
        )
        return Dataset(self.folder(asset, recipe.version), manifest)

    def publish(self, dataset: Dataset) -> None:
        """Makes a version the current one, in one step, and drops versions that are too old.

        Raises:
            LakeError: the lake cannot be written; readers go on seeing the version before.
        """
        self.storage.write(join(dataset.uri, MANIFEST), dataset.manifest.to_json())
        pointer = json.dumps({"version": dataset.version}).encode()
        self.storage.write(join(self.base, dataset.manifest.asset, CURRENT), pointer)
        self._prune(dataset.manifest.asset)

    def _current_version(self, asset: str) -> str | None:
        uri = join(self.base, asset, CURRENT)
        try:
            return json.loads(read(uri))["version"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise LakeError(
                f"{uri} cannot be read ({error!r}). Delete that one file and materialise "
                f"{asset} again: finished versions are found and not computed twice."
            ) from error

    def _prune(self, asset: str) -> None:
        """Keeps the newest versions, those in use, and those that are being written."""
        in_use = self._in_use()
        finished: list[tuple[str, str]] = []
        for version in self.storage.children(join(self.base, asset)):
            folder = self.folder(asset, version)
            if not VERSION.fullmatch(version):  # the pointer, or what others put there
                continue
            try:
                finished.append((read_manifest(folder).created_at, version))
            except DatasetError:
                if time.time() - self.storage.modified_at(folder) > ABANDONED_SECONDS:
                    self.storage.delete(folder)
        for _, version in sorted(finished)[: -self.keep_versions]:
            if (asset, version) not in in_use:
                self.storage.delete(self.folder(asset, version))

    def _in_use(self) -> set[tuple[str, str]]:
        """Every (asset, version) that is current or that a current version was made from."""
        in_use: set[tuple[str, str]] = set()
        todo = [(asset, str(self._current_version(asset))) for asset in self.assets()]
        while todo:
            asset, version = todo.pop()
            if (asset, version) in in_use:
                continue
            in_use.add((asset, version))
            try:
                todo += read_manifest(self.folder(asset, version)).inputs.items()
            except DatasetError:  # an input from outside the lake, such as the source
                continue
        return in_use
