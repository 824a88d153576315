"""The one way to open a file below a folder that strangers may write to.

A path is opened name by name, each in the descriptor of the folder before it, and no name may be a
symbolic link: whatever is swapped for whatever meanwhile, what is opened lies below the folder that
was opened first. Nothing here waits for a pipe or a device: only a regular file is opened, and its
descriptor is looked at again. A path may also be longer than the system's limit of 4,096 bytes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Self

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A folder on the way need not be readable, where the system can open one without reading it.
_ON_THE_WAY = _FOLDER | getattr(os, "O_PATH", os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KEPT = 64
"""Descriptors of folders that are kept open: a tree may be deeper than a process may open files."""

NOT_REGULAR = "it is not a regular file (a pipe, a socket or a device)"
CHANGED = "it changed after it had been listed"

Names = tuple[str, ...]
"""A path below a folder, name by name; empty for the folder itself."""
Identity = tuple[int, int]
"""Device and inode: the same for all names of a file or a folder."""


def identity(status: os.stat_result) -> Identity:
    """The identity of what a status describes."""
    return status.st_dev, status.st_ino


class LinkError(OSError):
    """A name on the way is a symbolic link."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ELOOP, os.strerror(errno.ELOOP), name)


class Tree:
    """A folder and everything below it; a context that holds a few descriptors.

    The folder itself may be a symbolic link. Not safe to share between threads.

    Args:
        root: path of the folder.

    Raises:
        OSError: it cannot be opened, or is not a folder.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._root = os.open(root, _ON_THE_WAY & ~os.O_NOFOLLOW)
        self._names: Names = ()  # of the folder that was asked for last
        self._open: list[int] = []  # descriptors of it and of the folders before it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close(len(self._open))
        os.close(self._root)

    def folder(self, names: Names) -> int:
        """Descriptor of a folder, valid until this is called again.

        Raises:
            LinkError: a name is a symbolic link.
            OSError: a name is not there, is not a folder, or may not be entered.
        """
        common = _shared(self._names, names)
        self._close(min(len(self._names) - common, len(self._open)))
        # Without any, what both paths share is too far up to have been kept open.
        self._names = names[:common] if self._open else ()
        for name in names[len(self._names) :]:
            self._open.append(_folder_in(self._last, name))
            self._names = names[: len(self._names) + 1]
            if len(self._open) > _KEPT:
                os.close(self._open.pop(0))
        return self._last

    @property
    def _last(self) -> int:
        return self._open[-1] if self._open else self._root

    def status(self, names: Names) -> os.stat_result:
        """The status of a file or folder, or of a symbolic link itself. Raises OSError."""
        if not names:
            return os.fstat(self._root)
        folder = self.folder(names[:-1])
        return os.stat(_checked(names[-1]), dir_fd=folder, follow_symlinks=False)

    @contextlib.contextmanager
    def scanned(self, names: Names) -> Iterator[tuple[int, Iterator[os.DirEntry[str]]]]:
        """A folder's descriptor and entries, whose status can be asked for within the context.

        Raises:
            OSError: see `folder`; or it may not be read.
        """
        descriptor = os.open(".", _FOLDER | os.O_RDONLY, dir_fd=self.folder(names))
        try:
            with os.scandir(descriptor) as entries:
                yield descriptor, entries
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def opened(self, names: Names) -> Iterator[int]:
        """A regular file's descriptor, to read.

        Raises:
            OSError: see `folder`; or it is not a regular file, or may not be read.
        """
        before = self.status(names)
        if stat.S_ISLNK(before.st_mode):
            raise LinkError(names[-1])
        if not stat.S_ISREG(before.st_mode):  # opening a device may have effects of its own
            raise OSError(errno.EINVAL, NOT_REGULAR)
        descriptor = os.open(names[-1], _FILE, dir_fd=self.folder(names[:-1]))
        try:
            after = os.fstat(descriptor)
            if identity(after) != identity(before) or not stat.S_ISREG(after.st_mode):
                raise OSError(errno.EAGAIN, CHANGED)
            yield descriptor
        finally:
            os.close(descriptor)

    def _close(self, count: int) -> None:
        for _ in range(count):
            os.close(self._open.pop())


def open_regular(path: str) -> BinaryIO:
    """A regular file that the user has named, to read; nothing waits for a pipe or a device.

    Raises:
        OSError: it is not there, may not be read, or is something else.
    """
    descriptor = os.open(path, _FILE & ~os.O_NOFOLLOW)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise OSError(errno.EINVAL, NOT_REGULAR)
    return file


def read_at_most(descriptor: int, size: int) -> bytes:
    """The content of a file from its beginning, but never more than `size` bytes.

    Raises:
        OSError: it cannot be read, or reading would have to wait.
    """
    chunks: list[bytes] = []
    while size > 0:
        chunk = os.read(descriptor, min(size, 2**30))
        if not chunk:
            break
        chunks.append(chunk)
        size -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _shared(one: Names, other: Names) -> int:
    """How many names two paths have in common at their beginnings."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:  # one lies in the other, most of the time
        return shorter
    return next(i for i in range(shorter) if one[i] != other[i])


def _checked(name: str) -> str:
    """A name that leads nowhere else."""
    if name in {"", os.curdir, os.pardir} or {"/", "\0"} & set(name):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return name


def _folder_in(parent: int, name: str) -> int:
    try:
        return os.open(_checked(name), _ON_THE_WAY, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP} and _is_link(parent, name):
            raise LinkError(name) from None
        raise


def _is_link(parent: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:  # it has gone
        return False
