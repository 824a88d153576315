"""The folder that is handed over: plain files that people open, and a list of them.

It is the one folder of the lake that is not a table. Its list, `SHA256SUMS`, is what `sha256sum -c`
reads; comments in it say which recipe the files were made of, and which files a run has begun to
write. So every file that the pipeline ever put there can be found again and removed, whenever a run
was interrupted, and files of others stay.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

from fruits_assets.core.errors import ConflictError, DatasetError, LakeError
from fruits_assets.deliverables.page import INDEX
from fruits_assets.storage.base import Folder, is_name
from fruits_assets.storage.snapshot import READS_IN_FLIGHT

FOLDER = "deliverables"
"""Name of the folder in the lake, and of the asset that fills it."""
CHECKSUMS = "SHA256SUMS"
CHUNK_BYTES = 4 * 2**20
LINE = re.compile(
    r"# recipe (?P<recipe>[0-9a-f]{16})"
    r"|# writing (?P<begun>.+)"
    r"|(?P<sha256>[0-9a-f]{64})  (?P<name>.+)"
)
"""A line of the list; lines of any other form say nothing."""
NAMED = re.compile(r".+_[123]_(notebook|images|presentation)_\d{6}(-\d+)?\.\w+")
"""Files that are named as the brief asks; the others are the page and what it shows."""


@dataclass(frozen=True)
class Published:
    """The deliverables as they lie in the lake, according to their list.

    Attributes:
        folder: that they lie in.
        recipe: hash of the recipe that they were made of; empty where there are none.
        sums: SHA-256 of each file, hexadecimal, by name.
        begun: names of files that a run has begun to write, and has not listed yet.
        content: of the list; None where there is none.
    """

    folder: Folder
    recipe: str = ""
    sums: Mapping[str, str] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()
    content: bytes | None = None

    @classmethod
    def read(cls, lake: Folder) -> Self:
        """Reads the list; the files themselves may be gone or changed.

        Args:
            lake: the folder of the lake.

        Raises:
            LakeError: the folder of the deliverables is a symbolic link.
        """
        return cls._in(lake.child(FOLDER))

    @classmethod
    def _in(cls, folder: Folder) -> Self:
        if folder.storage.is_link(folder.uri):
            raise LakeError(
                f"{folder.uri} is a symbolic link: the deliverables would lie outside the lake, "
                "where no erasure looks for them. Remove the link, and run again."
            )
        if CHECKSUMS not in folder.sizes(prefix=CHECKSUMS):
            return cls(folder)
        return cls._of(folder, folder.read(CHECKSUMS))

    @classmethod
    def _of(cls, folder: Folder, content: bytes) -> Self:
        lines = content.decode(errors="replace").splitlines()
        found = [match for line in lines if (match := LINE.fullmatch(line))]
        sums = {it["name"]: it["sha256"] for it in found if _is_ours(it["name"])}
        begun = frozenset(it["begun"] for it in found if _is_ours(it["begun"]))
        recipe = next((it["recipe"] for it in found if it["recipe"]), "")
        return cls(folder, recipe, sums, begun, content)

    @property
    def names(self) -> set[str]:
        """Names of all files that the pipeline has put there."""
        return {*self.sums, *self.begun}

    @property
    def bytes(self) -> int:
        """Size of the files that are there, in bytes."""
        return sum(size for name, size in self.folder.sizes().items() if name in self.sums)

    @property
    def headline(self) -> str:
        """A line for people on what there is."""
        named = sum(NAMED.fullmatch(name) is not None for name in self.sums)
        unfinished = "; a run that replaces them has not ended" if self.begun else ""
        files = "1 file under its name" if named == 1 else f"{named} files under their names"
        return f"{files}, and a page{unfinished}"

    def answers(self, recipe: str) -> bool:
        """Whether they are whole, and were made of a recipe."""
        return self.recipe == recipe and self.is_whole()

    def is_whole(self) -> bool:
        """Whether all files are there and are what was written: reads them to the end."""
        if not self.sums or self.begun or self.sums.keys() - self.folder.sizes().keys():
            return False
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            return all(pool.map(self._is_intact, self.sums))

    def _is_intact(self, name: str) -> bool:
        try:
            return sha256_of(self.folder, name) == self.sums[name]
        except OSError:
            return False

    def replace(
        self,
        recipe: str,
        names: Collection[str],
        write: Callable[[Folder], Mapping[str, str]],
    ) -> Self:
        """Writes other files in place of these, and removes those of these that are no more.

        Args:
            recipe: hash of the recipe of the new files.
            names: of all files that `write` may write.
            write: writes the new files into the folder, and returns the SHA-256 of each, by name.

        Raises:
            ConflictError: another run replaces them at the same time.
            LakeError: the folder cannot be written.
        """
        # A run that ends before its list does leaves no file that nobody knows of.
        claimed = self.relisted(self.recipe, self.sums, self.names | {*names})
        sums = write(self.folder)
        try:
            published = claimed.relisted(recipe, sums, set())
        except ConflictError:
            self.folder.remove({*names} - self._in(self.folder).names)
            raise
        self.folder.remove(claimed.names - published.names)
        return published

    def relisted(self, recipe: str, sums: Mapping[str, str], begun: Collection[str]) -> Self:
        """The same files with another list, where the list still is this one.

        Raises:
            ConflictError: another run has replaced the list.
            LakeError: it cannot be written.
        """
        lines = [
            *([f"# recipe {recipe}"] if recipe else []),
            *(f"# writing {name}" for name in sorted(begun)),
            *(f"{sha256}  {name}" for name, sha256 in sorted(sums.items())),
        ]
        content = "".join(f"{line}\n" for line in lines).encode()
        uri = self.folder.at(CHECKSUMS)
        try:
            self.folder.storage.swap(uri, content, expected=self.content)
        except ConflictError as error:
            raise ConflictError(
                f"another run has replaced the deliverables meanwhile ({uri}). Wait for its end, "
                "then materialise deliverables again."
            ) from error
        return self._of(self.folder, content)

    def remove(self) -> int:
        """Removes all files that are listed, and the list, for good.

        Returns:
            How many files went, or versions of files.
        """
        count = self.folder.remove(sorted(self.names))
        return count + self.folder.remove([CHECKSUMS])


def index_uri(lake: Folder) -> str:
    """Where the page lies that people open first.

    Args:
        lake: the folder of the lake.

    Raises:
        DatasetError: there are no deliverables yet.
        LakeError: their folder is a symbolic link.
    """
    published = Published.read(lake)
    if INDEX not in published.sums:
        raise DatasetError(
            f"the lake {lake.uri} has no deliverables yet. Materialise them first "
            "(make deliverables)."
        )
    return published.folder.at(INDEX)


def sha256_of(folder: Folder, name: str) -> str:
    """SHA-256 of a file, hexadecimal, read in pieces. Raises OSError, or S3Error."""
    digest = hashlib.sha256()
    with folder.open(name) as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _is_ours(name: str | None) -> bool:
    """Whether a name in the list is that of a file beside it."""
    return name is not None and is_name(name) and name != CHECKSUMS
