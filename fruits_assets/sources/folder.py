"""Photos in a folder that strangers may write to."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.layout import Labels
from fruits_assets.sources.listing import Listing, Row, found_files, listing_of
from fruits_assets.sources.reading import read_ahead
from fruits_assets.sources.store import PhotoStore
from fruits_assets.sources.walk import (
    LEADS_OUT,
    Target,
    Walk,
    modified_at,
    names_of,
    printable,
    reason,
    row_of,
    unseen,
)
from fruits_assets.storage.base import Folder
from fruits_assets.storage.folder import LocalStorage
from fruits_assets.storage.opening import (
    CHANGED,
    Identity,
    LinkError,
    Names,
    Tree,
    identity,
    read_at_most,
)


class FolderPhotos(PhotoStore):
    """A folder of this machine, or mounted on it, that strangers may write to.

    Symbolic links that lead out of it are refused, unless its storage follows them.
    """

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        assert isinstance(folder.storage, LocalStorage)  # noqa: S101 - what a path is
        self._follow_links = folder.storage.follow_links

    def list(  # noqa: D102
        self, *, recursive: bool, allow_empty: bool = False, labels: Labels = "parent"
    ) -> Listing:
        walk = self._walk(recursive=recursive)

        def work() -> Listing:
            files = found_files(walk.files())
            return listing_of(
                self.root,
                files,
                recursive=recursive,
                hidden=walk.hidden,
                repeated=len(walk.repeated),
                allow_empty=allow_empty,
                labels=labels,
            )

        return self._watched(work, progress=lambda: walk.looked_at)

    def fetch(  # noqa: D102 - see PhotoStore
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Callable[[], bytes]]:
        return read_ahead(self._read, rows, root=self.root)

    def named(self, paths: Iterable[str]) -> Iterator[Row]:
        """Rows of files that somebody names, in place of a walk. Raises SourceError.

        Nothing outside of the folder is looked at, unless its storage follows links.
        """
        try:
            with Tree(self.root) as tree, Tree("/") as elsewhere:
                for path in paths:
                    try:
                        yield self._named(path, tree, elsewhere)
                    except OSError as error:
                        yield unseen(path, reason(error))
        except OSError as error:
            raise SourceError(
                f"the folder {self.root} cannot be read ({reason(error)})."
            ) from error

    def _named(self, path: str, tree: Tree, elsewhere: Tree) -> Row:
        names = names_of(path)
        with contextlib.suppress(LinkError):
            status = tree.status(names)
            if not stat.S_ISLNK(status.st_mode):
                return row_of(path, status, tree.folder(names[:-1]), names[-1])
        target = self._target(str(Path(self.root, path)))
        if target is None:
            return unseen(path, LEADS_OUT)
        where = tree if target.inside else elsewhere
        status = where.status(target.names)
        return row_of(path, status, where.folder(target.names[:-1]), target.names[-1])

    def erase(self, paths: Sequence[str]) -> int:
        """Removes files with their other names, and the links that lead to them.

        Raises:
            SourceError: see PhotoStore.
        """
        walk = self._walk(recursive=True)
        return self._watched(
            lambda: self._erase(paths, walk), progress=lambda: walk.looked_at, doing="erasing from"
        )

    def _walk(self, *, recursive: bool) -> Walk:
        return Walk(self.root, recursive=recursive, follow_links=self._follow_links)

    def _read(self, row: Mapping[str, Any]) -> bytes:
        try:
            return self._content(row)
        except PermissionError as error:
            raise SourceError(
                f"{Path(self.root, row['path'])} could be read when it was listed, and cannot be "
                "any more: permission denied. Grant this user the permission to read the source "
                "again, and run again: what is finished is kept."
            ) from error

    def _content(self, row: Mapping[str, Any]) -> bytes:
        """The very bytes that were listed."""
        with Tree(self.root) as tree:
            try:
                return _content_of(tree, names_of(row["path"]), row)
            except LinkError:
                target = self._target(str(Path(self.root, row["path"])))
            if target is None:
                raise OSError(errno.EXDEV, LEADS_OUT)
            if target.inside:
                return _content_of(tree, target.names, row)
        with Tree("/") as tree:
            return _content_of(tree, target.names, row)

    def _target(self, path: str) -> Target | None:
        """Where a path with links leads; None where it may not be followed. Raises OSError."""
        target = Target.of(path, source=os.path.realpath(self.root))
        return target if target.inside or self._follow_links else None

    def _erase(self, paths: Sequence[str], walk: Walk) -> int:
        erased, refusals = 0, []
        for _ in walk.files():
            pass
        with Tree(self.root) as tree, Tree("/") as elsewhere:
            find = partial(self._find, tree=tree, elsewhere=elsewhere)
            doomed: set[Identity] = set()
            for path in paths:
                with contextlib.suppress(OSError):  # it is found again below
                    doomed |= {found.identity for found in find(path)}
            names = [path for path, which in walk.repeated if which in doomed]
            for path in dict.fromkeys([*paths, *names]):
                try:
                    for found in find(path):
                        found.unlink()
                        erased += 1
                except OSError as error:
                    refusals.append(reason(error))
        if refusals:
            raise SourceError(
                f"{len(refusals)} of {len(paths)} files could not be deleted from the source "
                f"({refusals[0]}), and are still there. Grant this user the permission to delete "
                "them, and repeat the erasure: it goes on from here."
            )
        return erased

    def _find(self, path: str, *, tree: Tree, elsewhere: Tree) -> list[_Found]:
        """The file, or the link, of a listed path, whose name on the disk need not be valid UTF-8.

        Empty where there is none, or where only a link leads to it that may not be followed.
        """
        found = _Found(tree, ())
        try:
            for name in path.split("/"):
                try:
                    found = found.child(name)
                except LinkError:
                    target = self._target(str(Path(found.tree.root, *found.names)))
                    if target is None:
                        return []
                    where = tree if target.inside else elsewhere
                    found = _Found(where, target.names).child(name)
            return [] if stat.S_ISDIR(found.status().st_mode) else [found]
        except (FileNotFoundError, NotADirectoryError, LinkError):
            return []


@dataclass(frozen=True)
class _Found:
    """A file, folder or link that is there.

    Attributes:
        tree: that it lies in.
        names: its path there, as it is on the disk.
    """

    tree: Tree
    names: Names

    def child(self, shown: str) -> _Found:
        """Something in this folder, by its name in a listing. Raises OSError."""
        child = _Found(self.tree, (*self.names, shown))
        try:
            child.status()
        except FileNotFoundError:
            with self.tree.scanned(self.names) as (_, entries):
                for entry in entries:
                    if printable(entry.name) == shown:
                        return _Found(self.tree, (*self.names, entry.name))
            raise
        return child

    def status(self) -> os.stat_result:
        """Status of the link itself, where it is one. Raises OSError."""
        return self.tree.status(self.names)

    @property
    def identity(self) -> Identity:
        """Identity of the file, or of the one that a link leads to. Raises OSError."""
        folder = self.tree.folder(self.names[:-1])
        return identity(os.stat(self.names[-1], dir_fd=folder))

    def unlink(self) -> None:
        """Removes the file, or the link itself. Raises OSError."""
        os.unlink(self.names[-1], dir_fd=self.tree.folder(self.names[:-1]))


def _content_of(tree: Tree, names: Names, row: Mapping[str, Any]) -> bytes:
    """The content of a file that is still what a row says of it, else OSError."""
    listed = row["bytes"], row["modified_at"]
    with tree.opened(names) as descriptor:
        if _state(descriptor) == listed:  # nothing is read of a file that has become a huge one
            content = read_at_most(descriptor, row["bytes"] + 1)
            if len(content) == row["bytes"] and _state(descriptor) == listed:
                return content
    raise OSError(errno.EAGAIN, CHANGED)


def _state(descriptor: int) -> tuple[int, datetime]:
    status = os.fstat(descriptor)
    return status.st_size, modified_at(status)
