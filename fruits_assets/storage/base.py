"""The interface of every place that bytes can lie in, and a folder of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from fruits_assets.core.errors import LakeError

S3 = "s3://"


def join(uri: str, *names: str) -> str:
    """Return `uri/name/...`, for folders and object stores alike."""
    return "/".join([uri.rstrip("/"), *names])


def is_name(text: str) -> bool:
    """Whether a text names something directly in a folder, and leads nowhere else."""
    return not {"/", "\\", "\0"} & set(text) and text not in {"", ".", ".."}


def overlap(one: str, other: str) -> bool:
    """Whether two places are the same, or one of them lies in the other.

    Symbolic links are followed, and folders are compared by what they are, not by their names: a
    file system may ignore case, or show a folder in two places. Prefixes of a bucket are folders.
    """
    if one.startswith(S3) != other.startswith(S3):
        return False
    if one.startswith(S3):
        first, second = (_folder_of_bucket(place) for place in (one, other))
        return first.startswith(second) or second.startswith(first)
    first, second = (Path(place).expanduser().resolve() for place in (one, other))
    return _holds(first, second) or _holds(second, first)


def _folder_of_bucket(uri: str) -> str:
    """`bucket/prefix/`; slashes before and after the prefix mean nothing (`endpoints.split`)."""
    bucket, _, prefix = uri.removeprefix(S3).partition("/")
    return f"{bucket}/{prefix.strip('/')}/".replace("//", "/")


def _holds(outer: Path, inner: Path) -> bool:
    return any(
        folder == outer or (folder.exists() and outer.exists() and folder.samefile(outer))
        for folder in (inner, *inner.parents)
    )


@dataclass(frozen=True)
class Found:
    """A file directly in a folder.

    Attributes:
        size: in bytes.
        modified_at: seconds since 1970.
    """

    size: int
    modified_at: float


@dataclass(frozen=True)
class Stored:
    """A file anywhere below a folder, or an older version of one that the place keeps.

    Attributes:
        uri: of the file.
        size: in bytes.
        version: id of the version, where the place has versions; else None.
        is_link: whether it is a symbolic link, which is not followed.
    """

    uri: str
    size: int
    version: str | None = None
    is_link: bool = False


class Storage(ABC):
    """The few operations that the lake needs of the place it lies in.

    A storage is a value: it can be compared, pickled and sent to Spark's workers, and it holds
    everything that is needed to reach the place (for a bucket: region, key and endpoint).
    """

    @abstractmethod
    def open(self, uri: str) -> pa.NativeFile:
        """A file to read at random positions. Raises OSError, or S3Error."""

    @abstractmethod
    def create(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """A new file that appears in one step when the block ends without an exception.

        Readers see all of it or nothing, even after a crash. Replaces an older file.

        Raises:
            LakeError: it cannot be written (disk full, no permission, ...), or S3Error.
        """

    @abstractmethod
    def swap(self, uri: str, content: bytes, *, expected: bytes | None) -> None:
        """Replaces a small file in one step, if it still is what the writer believes it to be.

        Where it already is what the writer wants, nothing happens.

        Args:
            uri: the file.
            content: of the file afterwards.
            expected: its content before; None where there is no file.

        Raises:
            ConflictError: it is something else by now.
            LakeError: it cannot be written, or S3Error.
        """

    @abstractmethod
    def files(self, folder: str, *, prefix: str = "") -> dict[str, Found]:
        """Files directly in a folder, by name; none where the folder does not exist.

        Args:
            folder: URI.
            prefix: only names that begin with it.
        """

    @abstractmethod
    def children(self, folder: str) -> list[str]:
        """Names directly in a folder, sorted; none where the folder does not exist."""

    @abstractmethod
    def remove(self, uris: Iterable[str]) -> int:
        """Removes files for good: older versions that the place may keep of them, too.

        A folder is never removed, and a symbolic link is removed itself, not what it points to.

        Args:
            uris: of files; those that are not there are passed over.

        Returns:
            How many files, or versions of files, were removed.

        Raises:
            LakeError: one cannot be removed, or S3Error.
        """

    @abstractmethod
    def everything(self, folder: str) -> Iterator[Stored]:
        """Every file below a folder, at any depth, with every older version that is kept of it.

        Symbolic links are yielded and not followed.

        Raises:
            OSError: a folder cannot be looked into, or S3Error.
        """

    @abstractmethod
    def read_stored(self, stored: Stored) -> bytes:
        """The content of what `everything` yielded. Raises OSError, or S3Error."""

    @abstractmethod
    def is_link(self, uri: str) -> bool:
        """Whether a folder is a symbolic link, and its files lie somewhere else."""

    @abstractmethod
    def sync(self, uri: str) -> None:
        """Makes a file or a folder survive a power cut, where that takes more than writing it."""

    def read(self, uri: str) -> bytes:
        """The whole content of a file. Raises OSError, or S3Error."""
        with self.open(uri) as file:
            return file.read()

    def write(self, uri: str, content: bytes | memoryview) -> None:
        """Creates a file at once. Raises LakeError, or S3Error."""
        with self.create(uri) as file:
            file.write(content)

    def write_once(self, uri: str, content: bytes | memoryview) -> None:
        """Creates a file that is named after its content, and which may be there already.

        One that is there and holds something else is damaged, and replaced.

        Raises:
            LakeError: it cannot be written, or S3Error.
        """
        self.write(uri, content)

    def sizes(self, folder: str, *, prefix: str = "") -> dict[str, int]:
        """Name -> size in bytes of every file directly in a folder."""
        return {name: found.size for name, found in self.files(folder, prefix=prefix).items()}

    def described(self) -> dict[str, str]:
        """What people should know of the place, by name."""
        return {}

    def delta_options(self) -> dict[str, str]:
        """What delta-rs is told to reach the place: all of it, so that it looks nowhere else."""
        return {}

    def spark_path(self, uri: str) -> str:
        """The same file, as Spark's JVM names it."""
        return uri

    def spark_config(self) -> dict[str, str]:
        """What Spark's JVM needs to be told to read and write here."""
        return {}

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What another process needs to reach the same place, as JSON can hold it: no secrets."""


@dataclass(frozen=True)
class Folder:
    """A folder, and the storage that it lies in.

    Attributes:
        storage: that holds it.
        uri: absolute path, or `s3://bucket/prefix`.
    """

    storage: Storage
    uri: str

    def child(self, name: str) -> Folder:
        """A folder in it. Raises LakeError where the name leads somewhere else."""
        return Folder(self.storage, self.at(name))

    def at(self, name: str) -> str:
        """URI of something directly in it. Raises LakeError where the name leads elsewhere."""
        if not is_name(name):
            raise LakeError(f"{name!r} is not the name of a file in {self.uri}.")
        return join(self.uri, name)

    def open(self, name: str) -> pa.NativeFile:
        """A file in it; see `Storage.open`."""
        return self.storage.open(self.at(name))

    def read(self, name: str) -> bytes:
        """The content of a file in it; see `Storage.read`."""
        return self.storage.read(self.at(name))

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Creates a file in it; see `Storage.write`."""
        self.storage.write(self.at(name), content)

    def write_once(self, name: str, content: bytes | memoryview) -> None:
        """Creates a file in it that is named after its content; see `Storage.write_once`."""
        self.storage.write_once(self.at(name), content)

    def files(self, *, prefix: str = "") -> Mapping[str, Found]:
        """Its files; see `Storage.files`."""
        return self.storage.files(self.uri, prefix=prefix)

    def sizes(self, *, prefix: str = "") -> Mapping[str, int]:
        """Name -> size in bytes of its files."""
        return self.storage.sizes(self.uri, prefix=prefix)

    def remove(self, names: Iterable[str]) -> int:
        """Removes files in it for good; see `Storage.remove`."""
        return self.storage.remove([self.at(name) for name in names])

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"uri": self.uri, "storage": self.storage.to_dict()}
