"""Folders of this machine, or mounted on it; URIs are absolute paths."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from fruits_assets.core.errors import ConflictError, LakeError
from fruits_assets.storage.base import Found, Storage, Stored
from fruits_assets.storage.opening import Tree, read_at_most

PARTIAL = ".partial"
"""Ends the name of a file that is being written; it begins with a dot, so that readers skip it."""


@dataclass(frozen=True)
class LocalStorage(Storage):
    """The file system of this machine.

    Attributes:
        follow_links: whether photos may lie behind symbolic links that lead out of their source.
    """

    follow_links: bool = False

    def open(self, uri: str) -> pa.NativeFile:  # noqa: D102 - see Storage
        return pa.OSFile(uri)

    @contextlib.contextmanager
    def create(self, uri: str) -> Iterator[BinaryIO]:  # noqa: D102 - see Storage
        path = Path(uri)
        partial = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise _unwritable(uri, error) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def swap(self, uri: str, content: bytes, *, expected: bytes | None) -> None:  # noqa: D102
        path = Path(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent):
                found = path.read_bytes() if path.is_file() else None
                if found == content:
                    return
                if found != expected:
                    raise ConflictError(f"{uri} has been replaced meanwhile.")
                self.write(uri, content)
        except OSError as error:
            raise _unwritable(uri, error) from error

    def files(self, folder: str, *, prefix: str = "") -> dict[str, Found]:  # noqa: D102
        found = {}
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as all_:
            for entry in all_:
                if entry.name.startswith(prefix):
                    with contextlib.suppress(FileNotFoundError):  # another run is at work
                        if entry.is_file():
                            status = entry.stat()
                            found[entry.name] = Found(status.st_size, status.st_mtime)
        return found

    def children(self, folder: str) -> list[str]:  # noqa: D102 - see Storage
        try:
            return sorted(child.name for child in Path(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, uris: Iterable[str]) -> int:  # noqa: D102 - see Storage
        count = 0
        for uri in uris:
            try:
                Path(uri).unlink()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue
            except OSError as error:
                raise LakeError(
                    f"{uri} cannot be removed: {error.strerror or error}. Grant the permission to "
                    "change its folder, and run this again."
                ) from error
            count += 1
        return count

    def everything(self, folder: str) -> Iterator[Stored]:  # noqa: D102 - see Storage
        for place, folders, files in os.walk(folder, onerror=_raise_unless_gone):
            links = [name for name in folders if Path(place, name).is_symlink()]
            for name in (*files, *links):
                path = Path(place, name)
                with contextlib.suppress(FileNotFoundError):
                    status = path.lstat()
                    is_link = stat.S_ISLNK(status.st_mode)
                    yield Stored(str(path), status.st_size, is_link=is_link)

    def read_stored(self, stored: Stored) -> bytes:
        """The content of what `everything` yielded, which need not be a file of ours.

        Raises:
            OSError: it is not a regular file, or cannot be read.
        """
        path = Path(stored.uri)
        with Tree(str(path.parent)) as tree, tree.opened((path.name,)) as descriptor:
            return read_at_most(descriptor, os.fstat(descriptor).st_size)

    def is_link(self, uri: str) -> bool:  # noqa: D102 - see Storage
        return Path(uri).is_symlink()

    def sync(self, uri: str) -> None:  # noqa: D102 - see Storage
        handle = os.open(uri, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def to_dict(self) -> dict[str, Any]:  # noqa: D102 - see Storage
        return {"follow_links": True} if self.follow_links else {}


def _unwritable(uri: str, error: OSError) -> LakeError:
    return LakeError(
        f"{uri} cannot be written: {error.strerror or error}. Free space or grant the permission "
        "to write there, or point FRUITS_LAKE at another place; then run again: what is finished "
        "is kept."
    )


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; a process that dies lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
