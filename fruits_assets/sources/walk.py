"""Every file of a folder, each once, however its folders and links are laid out.

The files that lie in the folder come first, without following a link. Then the links, in order of
their paths, and what lies behind them; then the links that were found there, and so on. No folder
is looked into twice, so that neither a circle nor links that fan out have more rows than files.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from fruits_assets.core.errors import SourceError
from fruits_assets.sources.leftovers import hidden_kind, is_hidden
from fruits_assets.sources.listing import Row
from fruits_assets.storage.opening import (
    NOT_REGULAR,
    Identity,
    LinkError,
    Names,
    Tree,
    identity,
)

LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""File systems hold modification times that no calendar does; they are clamped to [1970, 9999]."""
LEADS_OUT = (
    "it is a link that leads out of the source: copy what it points to into the source, or set "
    "FRUITS_FOLLOW_LINKS=true if the places that its links lead to belong to it"
)


NO_UTF8 = "the file's name is not valid UTF-8: rename it"


def printable(name: str) -> str:
    """A name as a listing has it, even one that is not valid UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def modified_at(status: os.stat_result) -> datetime:
    """Modification time, as a listing has it."""
    return moment(status.st_mtime)


def moment(seconds: float) -> datetime:
    """A time, in seconds since 1970, as a listing has it."""
    return datetime.fromtimestamp(min(max(seconds, 0), LATEST), UTC)


def reason(error: OSError) -> str:
    """Why something cannot be opened, in few words."""
    return error.strerror or repr(error)


@dataclass(frozen=True)
class Target:
    """Where a path leads once its links are followed: no name of it is a link.

    Attributes:
        inside: whether it lies in the source.
        names: below the source; where it lies elsewhere, below the root of the file system.
    """

    inside: bool
    names: Names

    @classmethod
    def of(cls, path: str, *, source: str) -> Target:
        """Raises OSError where it leads nowhere.

        Args:
            path: absolute.
            source: absolute path of the source without links.
        """
        Path(path).stat()  # the system gives up after 40 links
        real = os.path.realpath(path, strict=True)
        if os.path.commonpath([source, real]) == source:
            return cls(inside=True, names=names_of(os.path.relpath(real, source)))
        return cls(inside=False, names=names_of(real.lstrip("/")))


def leads_out(name: str) -> bool:
    """Whether a path is absolute, on any system, or holds `..`."""
    slashed = name.replace("\\", "/")
    return (
        slashed.startswith("/")
        or ".." in slashed.split("/")
        or bool(re.match("[A-Za-z]:", slashed))
    )


def plain(path: str) -> str:
    """A relative path without empty names and `.`: `./a//b` is `a/b`."""
    return "/".join(name for name in path.split("/") if name not in {"", "."})


def names_of(path: str) -> Names:
    """A relative path, name by name."""
    return tuple(path.split("/")) if path not in {"", "."} else ()


@dataclass(frozen=True)
class _Branch:
    """A folder to look into: where it lies, and the path that it is listed by."""

    tree: Tree
    real: Names
    names: Names

    def at(self, *names: str) -> _Branch:
        return _Branch(self.tree, (*self.real, *names), (*self.names, *names))


@dataclass
class Walk:
    """One walk through a source.

    Attributes:
        root: its absolute path.
        recursive: whether sub-folders are looked into, to any depth.
        follow_links: whether links may lead out of the source.
        hidden: kinds of files and folders passed over for their names -> how many.
        repeated: path and identity of every other name of a file or folder that is listed by
            another path.
        looked_at: entries of folders so far.
    """

    root: str
    recursive: bool
    follow_links: bool
    hidden: Counter[str] = field(default_factory=Counter, init=False)
    repeated: list[tuple[str, Identity]] = field(default_factory=list, init=False)
    looked_at: int = field(default=0, init=False)
    _folders: set[Identity] = field(default_factory=set, init=False)
    _links: list[_Branch] = field(default_factory=list, init=False)
    _listed: set[Identity] = field(default_factory=set, init=False)
    _chosen: dict[Identity, Row] = field(default_factory=dict, init=False)

    def files(self) -> Iterator[Row]:
        """Every file, in no particular order.

        A file with several names is listed by the one that the fewest links lead to; of these, by
        the first in the order of its folders' names.

        Raises:
            SourceError: the source, or a folder in it, cannot be looked into.
        """
        with ExitStack() as stack:
            tree = stack.enter_context(self._opened())
            elsewhere = stack.enter_context(Tree("/"))
            yield from self._below(_Branch(tree, (), ()))
            yield from self._chosen_ones()
            while self._links:
                links, self._links = sorted(self._links, key=lambda link: link.names), []
                for link in links:
                    yield from self._link(link, tree, elsewhere)
                yield from self._chosen_ones()

    @cached_property
    def _source(self) -> str:
        return os.path.realpath(self.root)

    def _opened(self) -> Tree:
        try:
            return Tree(self.root)
        except OSError as error:
            if isinstance(error, NotADirectoryError) and Path(self.root).exists():
                raise SourceError(
                    f"the source {self.root} is a file, not a folder. Point FRUITS_SOURCE at the "
                    "folder that holds the photos, at an archive of them (.zip, .tar, .tar.gz), or "
                    "at a table of their paths and labels (.csv, .jsonl)."
                ) from None
            if isinstance(error, NotADirectoryError | FileNotFoundError):
                raise SourceError(
                    f"the source {self.root} does not exist. "
                    "Point FRUITS_SOURCE at a folder of photos."
                ) from None
            raise self._unreadable((), error) from error

    def _below(self, top: _Branch, *, linked: bool = False) -> Iterator[Row]:
        """The files of a folder and of all folders below it."""
        pending = [top]
        while pending:
            branch = pending.pop()
            folders: list[str] = []
            yield from self._in_folder(branch, folders, linked=linked)
            # In order, so that of a folder that is mounted in two places the first path is listed.
            pending += [branch.at(name) for name in sorted(folders, reverse=True)]

    def _in_folder(self, branch: _Branch, folders: list[str], *, linked: bool) -> Iterator[Row]:
        try:
            with branch.tree.scanned(branch.real) as (descriptor, entries):
                itself = identity(os.fstat(descriptor))
                if itself in self._folders:
                    self._repeat(branch.names, itself)
                    return
                self._folders.add(itself)
                above = "".join(f"{name}/" for name in branch.names)
                for entry in entries:
                    self.looked_at += 1
                    if kind := hidden_kind(entry.name):
                        self.hidden[kind] += 1
                    elif _is_link(entry):
                        self._links.append(branch.at(entry.name))
                    elif not _is_folder(entry):
                        yield from self._file(descriptor, above, entry, linked=linked)
                    elif self.recursive:
                        folders.append(entry.name)
        except (FileNotFoundError, NotADirectoryError, LinkError):
            return  # since its own folder was looked into, it has gone, or become something else
        except OSError as error:
            raise self._unreadable(branch.names, error) from error

    def _file(
        self, folder: int, above: str, entry: os.DirEntry[str], *, linked: bool
    ) -> Iterator[Row]:
        path = above + entry.name
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # it has gone
        except OSError as error:
            yield unseen(path, reason(error))
            return
        row = row_of(path, status, folder)
        if linked or status.st_nlink > 1:
            self._choose(row, identity(status))
        else:
            yield row

    def _link(self, link: _Branch, tree: Tree, elsewhere: Tree) -> Iterator[Row]:
        """Rows that a link adds to the files that are listed without it."""
        path, place = "/".join(link.names), Path(link.tree.root, *link.real)
        try:
            target = Target.of(str(place), source=self._source)
            if not (target.inside or self.follow_links):
                yield unseen(path, LEADS_OUT)
                return
            where = tree if target.inside else elsewhere
            status = where.status(target.names)
            if stat.S_ISDIR(status.st_mode):
                if self.recursive:
                    yield from self._below(_Branch(where, target.names, link.names), linked=True)
                return
            row = row_of(path, status, where.folder(target.names[:-1]), target.names[-1])
        except OSError as error:
            if place.is_symlink():  # else it has gone
                yield unseen(path, reason(error))
            return
        if target.inside and self._lists(target.names):
            self._repeat(link.names, identity(status))
        else:
            self._choose(row, identity(status))

    def _lists(self, names: Names) -> bool:
        """Whether a file of the source is listed without a link that leads to it."""
        return (self.recursive or len(names) == 1) and not any(map(is_hidden, names))

    def _choose(self, row: Row, which: Identity) -> None:
        """Keeps, of all rows of a file, the one that is to be listed."""
        best, worse = self._chosen.get(which), row
        if which not in self._listed:
            if best is None or _order(row) < _order(best):
                best, worse = row, best
            self._chosen[which] = best
        if worse is not None:
            self.repeated.append((worse[0], which))

    def _chosen_ones(self) -> Iterator[Row]:
        chosen, self._chosen = self._chosen, {}
        self._listed |= chosen.keys()
        yield from chosen.values()

    def _repeat(self, names: Names, which: Identity) -> None:
        self.repeated.append((printable("/".join(names)), which))

    def _unreadable(self, names: Names, error: OSError) -> SourceError:
        folder = printable(str(Path(self.root, *names)))
        return SourceError(
            f"the folder {folder} cannot be read ({reason(error)}), so the photos in it would be "
            "lost. Grant this user the permission to read it (chmod u+rx) where that is what is "
            "missing, or move it out of the source."
        )


def row_of(path: str, status: os.stat_result, folder: int, name: str | None = None) -> Row:
    """A row of a file of an open folder; its name there is the last one of its path, or given."""
    shown = printable(path)
    problem = None
    if shown != path:
        problem = NO_UTF8
    elif not stat.S_ISREG(status.st_mode):
        problem = NOT_REGULAR
    elif not os.access(name or path.rpartition("/")[2], os.R_OK, dir_fd=folder):
        problem = "this user may not read it (chmod u+r)"
    return shown, status.st_size, modified_at(status), None, problem


def unseen(path: str, problem: str) -> Row:
    """A row of what cannot, or may not, be looked at."""
    return printable(path), 0, datetime.fromtimestamp(0, UTC), None, problem


def _order(row: Row) -> tuple[bool, list[str]]:
    """The first of several names is listed, but a name that can be read before one that cannot."""
    return row[4] is not None, row[0].split("/")


def _is_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink()
    except OSError:  # its status, which says more, is asked for next
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
