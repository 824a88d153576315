"""The lake: its layout, its versions, and how a version is published.

<base>/<asset>/<version>/...            immutable once published; later versions may list its files
<base>/<asset>/<version>/manifest.json  written last: a version without it is not finished
<base>/<asset>/current.json             the only file that ever changes
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fruits_assets.core.dataset import (
    MANIFEST,
    READS_IN_FLIGHT,
    Dataset,
    Manifest,
    Output,
    Pointer,
    read,
    read_manifest,
)
from fruits_assets.core.errors import ConflictError, DatasetError, LakeError
from fruits_assets.core.storage import Storage, connect, join, storage_of

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
class Damage:
    """A file of the lake that is not what was written.

    Attributes:
        asset: that it belongs to.
        uri: of the file.
        what: is wrong with it.
    """

    asset: str
    uri: str
    what: str


@dataclass(frozen=True)
class Lake:
    """A lake at a base folder.

    Attributes:
        base: absolute path, or `s3://bucket/prefix`.
        keep_versions: how many versions of an asset to keep.
    """

    base: str
    keep_versions: int = 3

    @classmethod
    def at(
        cls,
        place: str,
        *,
        region: str | None = None,
        kms_key: str | None = None,
        keep_versions: int = 3,
    ) -> Lake:
        """The lake at a folder or in a bucket, empty or not.

        Args:
            place: a folder, or `s3://bucket/prefix`.
            region: of the bucket, one in the EU.
            kms_key: encrypts what is written to the bucket; S3's own key without.
            keep_versions: how many versions of an asset to keep.

        Raises:
            RegionError: the bucket does not lie in that region, or that not in the EU.
            S3Error: the bucket cannot be used.
            LakeError: the place is of an unknown kind.
        """
        base = place if "://" in place else str(Path(place).expanduser().absolute())
        connect(base, region=region, kms_key=kms_key)
        storage_of(base)
        return cls(base.rstrip("/") if "://" in base else base, keep_versions)

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
        version = self._version(asset, self.pointer(asset))
        if version is None:
            raise DatasetError(
                f"the lake {self.base} has no {asset} yet. Materialise {asset} first."
            )
        return Dataset.open(self.folder(asset, version))

    def assets(self) -> list[str]:
        """Names of the assets that have a current version."""
        storage = self.storage
        names = storage.children(self.base)
        return [name for name in names if CURRENT in storage.sizes(join(self.base, name))]

    def finished(self, asset: str, version: str) -> Dataset | None:
        """A version if it is finished and whole, else None: then it is to be made (again)."""
        try:
            return Dataset.open(self.folder(asset, version))
        except DatasetError:
            return None

    def answers(self, recipe: Recipe, assets: Sequence[str]) -> tuple[Dataset, ...] | None:
        """The finished version of a recipe, a dataset per asset it makes, or None.

        Where that one is provisional, it is the newest that was made by trying again.
        """
        found = self._whole(assets, recipe.version)
        if found is None or not any(dataset.manifest.provisional for dataset in found):
            return found
        again = (self._whole(assets, one.version) for one in self._made_by(recipe, assets[0]))
        return next((datasets for datasets in again if datasets), found)

    def _whole(self, assets: Sequence[str], version: str) -> tuple[Dataset, ...] | None:
        found = [self.finished(asset, version) for asset in assets]
        return tuple(dataset for dataset in found if dataset) if all(found) else None

    def _made_by(self, recipe: Recipe, asset: str, *, grown: str = "") -> Iterator[Manifest]:
        """Of finished versions that answer the same question, the newest first.

        Args:
            recipe: the question.
            asset: that the recipe makes.
            grown: name of an input that may differ, if any.
        """
        same = replace(recipe, inputs={**recipe.inputs, grown: ""}, salt="")
        for manifest in reversed(self._manifests(asset)):
            inputs = {**manifest.inputs, grown: ""}
            if same == Recipe(manifest.transform, manifest.code_version, manifest.params, inputs):
                yield manifest

    def earlier(
        self, recipe: Recipe, assets: Sequence[str], *, grown: str
    ) -> dict[str, str] | None:
        """The newest version that answers the same question for another state of one input.

        Most of what it holds can be taken over: a recipe that is forced to be made anew has none.

        Args:
            recipe: of the version that is to be made.
            assets: that the recipe makes, all of them needed.
            grown: name of the input that may differ.

        Returns:
            URI of the version by asset, or None.
        """
        if recipe.salt:
            return None
        for manifest in self._made_by(recipe, assets[0], grown=grown):
            folders = {asset: self.folder(asset, manifest.version) for asset in assets}
            if all(_has_manifest(folder) for folder in folders.values()):
                return folders
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
            provisional=output.provisional,
        )
        return Dataset(self.folder(asset, recipe.version), manifest)

    def pointer(self, asset: str) -> Pointer:
        """What is current now, for `publish` to notice that it has changed. Raises LakeError."""
        uri = join(self.base, asset, CURRENT)
        try:
            return Pointer(read(uri))
        except (FileNotFoundError, NotADirectoryError):
            return Pointer(None)
        except OSError as error:
            raise self._unreadable(asset, error) from error

    def publish(self, dataset: Dataset) -> None:
        """Makes a version the current one, in one step, and drops versions that are too old.

        Raises:
            DatasetError: a file of it is gone.
            ConflictError: another run published since this version was asked for; the version
                stays, and the other one is current.
            LakeError: the lake cannot be written; readers go on seeing the version before.
        """
        asset = dataset.manifest.asset
        self.storage.write(join(dataset.uri, MANIFEST), dataset.manifest.to_json())
        Dataset.open(dataset.uri)
        follows = dataset.follows or self.pointer(asset)
        content = json.dumps({"version": dataset.version}).encode()
        try:
            self.storage.swap(join(self.base, asset, CURRENT), content, expected=follows.content)
        except ConflictError as error:
            raise ConflictError(
                f"another run published {asset} while this one was at work. What it published is "
                f"current; this run's version {dataset.version} is whole and stays in the lake. "
                f"Materialise {asset} again to make it current: nothing is computed twice."
            ) from error
        self._prune(asset)

    def damaged(self) -> Iterator[Damage]:
        """Reads everything that is current, and all that it was made from, to the end."""
        for asset in self.storage.children(self.base):
            if CURRENT in self.storage.sizes(join(self.base, asset)):
                try:
                    self._version(asset, self.pointer(asset))
                except LakeError:
                    yield Damage(asset, join(self.base, asset, CURRENT), "it is not a pointer")
        for asset, version in sorted(self._in_use()):
            yield from self._damaged(asset, version)

    def _damaged(self, asset: str, version: str) -> Iterator[Damage]:
        folder = self.folder(asset, version)
        if not self.storage.sizes(folder):  # an input from outside the lake, such as the source
            return
        try:
            dataset = Dataset(folder, read_manifest(folder))
        except DatasetError as error:
            yield Damage(asset, join(folder, MANIFEST), str(error))
            return
        files = dataset.manifest.files
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            for file, what in zip(files, pool.map(dataset.damage, files), strict=True):
                if what:
                    yield Damage(asset, dataset.uri_of(file), what)

    def files(self, dataset: Dataset) -> set[str]:
        """URIs of everything that a published version consists of, the pointer included."""
        own = {join(self.base, dataset.name, CURRENT), join(dataset.uri, MANIFEST)}
        return own | {dataset.uri_of(file) for file in dataset.manifest.files}

    def all_files(self, asset: str) -> set[str]:
        """URIs of everything of all versions of an asset, the pointer included."""
        folder = join(self.base, asset)
        folders = [folder, *(join(folder, name) for name in self.storage.children(folder))]
        return {join(one, name) for one in folders for name in self.storage.sizes(one)}

    def _version(self, asset: str, pointer: Pointer) -> str | None:
        if pointer.content is None:
            return None
        try:
            version = json.loads(pointer.content)["version"]
            if not VERSION.fullmatch(version):
                raise ValueError(f"{version!r} is no version")  # noqa: TRY301 - told below
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable(asset, error) from error
        return version

    def _unreadable(self, asset: str, error: Exception) -> LakeError:
        return LakeError(
            f"{join(self.base, asset, CURRENT)} cannot be read ({error!r}). Delete that one file "
            f"and materialise {asset} again: finished versions are found and not computed twice."
        )

    def _prune(self, asset: str) -> None:
        """Keeps the newest versions, those in use, those being written, and their files."""
        in_use = self._in_use()
        manifests = self._manifests(asset)
        kept = [one for one in manifests[: -self.keep_versions] if (asset, one.version) in in_use]
        kept += manifests[-self.keep_versions :]
        needed: set[str] = set()
        for manifest in kept:
            needed |= self.files(Dataset(self.folder(asset, manifest.version), manifest))
        versions, finished = ({one.version for one in some} for some in (kept, manifests))
        for version in self.storage.children(join(self.base, asset)):
            folder = self.folder(asset, version)
            if not VERSION.fullmatch(version):  # the pointer, or what others put there
                continue
            if version in versions or (version not in finished and self._touched(folder)):
                continue
            self.storage.delete(folder, keep=needed)

    def _touched(self, folder: str) -> bool:
        """Whether somebody may still be writing an unfinished version."""
        return time.time() - self.storage.modified_at(folder) <= ABANDONED_SECONDS

    def _manifests(self, asset: str) -> list[Manifest]:
        """Of all finished versions, the newest last."""
        found = []
        for version in self.storage.children(join(self.base, asset)):
            if VERSION.fullmatch(version):
                with contextlib.suppress(DatasetError):
                    found.append(read_manifest(self.folder(asset, version)))
        return sorted(found, key=lambda manifest: manifest.created_at)

    def _in_use(self) -> set[tuple[str, str]]:
        """Every (asset, version) that is current or that a current version was made from."""
        in_use: set[tuple[str, str]] = set()
        todo = [(asset, str(self._version(asset, self.pointer(asset)))) for asset in self.assets()]
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


def _has_manifest(folder: str) -> bool:
    try:
        read_manifest(folder)
    except DatasetError:
        return False
    return True
