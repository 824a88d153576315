"""Where bytes lie: one abstract class, one subclass per kind of place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa

from fruits_assets.core.errors import ConflictError, LakeError, S3Error
from fruits_assets.core.region import check_region

Task = TypeVar("Task")
Result = TypeVar("Result")
S3 = "s3://"


def join(uri: str, *names: str) -> str:
    """`uri/name/...`, for folders and object stores alike."""
    return "/".join([uri.rstrip("/"), *names])


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
    """`bucket/prefix/`; slashes before and after the prefix mean nothing, as in `s3.split`."""
    bucket, _, prefix = uri.removeprefix(S3).partition("/")
    return f"{bucket}/{prefix.strip('/')}/".replace("//", "/")


def _holds(outer: Path, inner: Path) -> bool:
    return any(
        folder == outer or (folder.exists() and outer.exists() and folder.samefile(outer))
        for folder in (inner, *inner.parents)
    )


class Storage(ABC):
    """The few things that the lake asks of the place it lies in."""

    @abstractmethod
    def open(self, uri: str) -> pa.NativeFile:
        """A file to read at random positions. Raises OSError, or S3Error."""

    @abstractmethod
    def create(self, uri: str) -> contextlib.AbstractContextManager[BinaryIO]:
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
    def sizes(self, folder: str) -> dict[str, int]:
        """Name -> size in bytes of every file directly in a folder; none without the folder."""

    @abstractmethod
    def children(self, folder: str) -> list[str]:
        """Names directly in a folder, sorted; none where the folder does not exist."""

    @abstractmethod
    def modified_at(self, folder: str) -> float:
        """When anything directly in a folder last changed, seconds since 1970; now without any."""

    @abstractmethod
    def delete(self, folder: str, *, keep: Collection[str] = ()) -> None:
        """Removes a folder and all that is in it, as readers see it.

        Args:
            folder: of files only.
            keep: URIs of files in it that stay.
        """

    @abstractmethod
    def purge(self, uri: str, *, keep: Collection[str] = ()) -> int:
        """Removes files for good: older versions that the place may keep of them, too.

        Args:
            uri: a file, or a folder with all that is in it.
            keep: URIs of files in the folder that stay, as they are now.

        Returns:
            How many files, or versions of files, were removed.
        """

    def read(self, uri: str) -> bytes:
        """The whole content of a file. Raises OSError, or S3Error."""
        with self.open(uri) as file:
            return file.read()

    def write(self, uri: str, content: bytes | memoryview) -> None:
        """Creates a file at once. Raises LakeError, or S3Error."""
        with self.create(uri) as file:
            file.write(content)

    def described(self) -> dict[str, str]:
        """What people should know of the place, by name."""
        return {}

    def spark_path(self, uri: str) -> str:
        """The same file, as Spark's JVM names it."""
        return uri

    def spark_config(self) -> dict[str, str]:
        """What Spark's JVM needs to be told to read and write here."""
        return {}


class LocalStorage(Storage):
    """Folders of this machine, or mounted on it; URIs are absolute paths."""

    def open(self, uri: str) -> pa.NativeFile:  # noqa: D102 - see Storage
        return pa.OSFile(uri)

    @contextlib.contextmanager
    def create(self, uri: str) -> Iterator[BinaryIO]:  # noqa: D102 - see Storage
        path = Path(uri)
        partial = path.with_name(f".{path.name[:80]}.{uuid.uuid4().hex[:8]}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise LakeError(
                f"{uri} cannot be written: {error.strerror or error}. Free space or grant the "
                "permission to write there, or point FRUITS_LAKE at another place; then run again: "
                "what is finished is kept."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def swap(self, uri: str, content: bytes, *, expected: bytes | None) -> None:  # noqa: D102
        path = Path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            found = path.read_bytes() if path.is_file() else None
            if found == content:
                return
            if found != expected:
                raise ConflictError(f"{uri} has been replaced meanwhile.")
            self.write(uri, content)

    def sizes(self, folder: str) -> dict[str, int]:  # noqa: D102 - see Storage
        sizes = {}
        for name in self.children(folder):
            file = Path(folder, name)
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile: another run is at work
                if file.is_file():
                    sizes[name] = file.stat().st_size
        return sizes

    def children(self, folder: str) -> list[str]:  # noqa: D102 - see Storage
        try:
            return sorted(child.name for child in Path(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def modified_at(self, folder: str) -> float:  # noqa: D102 - see Storage
        try:
            return Path(folder).stat().st_mtime
        except FileNotFoundError:
            return time.time()

    def delete(self, folder: str, *, keep: Collection[str] = ()) -> None:  # noqa: D102
        with contextlib.suppress(OSError):  # what cannot go now goes another time, or is kept
            self.purge(folder, keep=keep)
            Path(folder).rmdir()

    def purge(self, uri: str, *, keep: Collection[str] = ()) -> int:  # noqa: D102 - see Storage
        path = Path(uri)
        files = [path] if path.is_file() else [*path.rglob("*")]
        gone = [file for file in files if not file.is_dir() and str(file) not in keep]
        for file in gone:
            file.unlink(missing_ok=True)
        for folder in sorted((file for file in files if file.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # what is kept is still in it
                folder.rmdir()
        return len(gone)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; a process that dies lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Bucket:
    """A bucket that has been seen to lie in the EU, and how to reach it.

    Attributes:
        name: of the bucket.
        region: that it lies in.
        kms_key: id or ARN of the key that everything written is encrypted with; None for S3's own.
        endpoint: URL of a store other than AWS's that speaks S3's protocol; None for AWS.
    """

    name: str
    region: str
    kms_key: str | None = None
    endpoint: str | None = None


_connected: dict[str, Bucket] = {}
"""The buckets that this process may use. No other one is ever asked for anything."""


def connect(uri: str, *, region: str | None, kms_key: str | None = None) -> None:
    """Sees to it that the bucket of an `s3://` URI lies in the EU, before a byte moves.

    Any other place needs no such thing.

    Args:
        uri: of a lake, a source or a file.
        region: where the bucket must lie.
        kms_key: encrypts what is written; S3's own key without.

    Raises:
        RegionError: the region is not in the EU, or the bucket lies in another one.
        S3Error: the bucket cannot be asked.
    """
    if not uri.startswith(S3):
        return
    from fruits_assets.core import s3  # noqa: PLC0415 - folders need nothing of AWS

    name, _ = s3.split(uri)
    known = _connected.get(name)
    if known is None or (known.region, known.kms_key) != (check_region(region), kms_key):
        _connected[name] = s3.verified(name, region=check_region(region), kms_key=kms_key)


def connected() -> tuple[Bucket, ...]:
    """The buckets that this process may use."""
    return tuple(_connected.values())


def on_workers(work: Callable[[Task], Result]) -> Callable[[Task], Result]:
    """The same function for Spark's workers: they may use the buckets that the driver may use."""
    buckets = dict(_connected)

    def run(task: Task) -> Result:
        adopt(buckets)
        return work(task)

    return run


def adopt(buckets: Mapping[str, Bucket]) -> None:
    """Lets this process use what another one has connected to."""
    _connected.update(buckets)


def storage_of(uri: str) -> Storage:
    """The storage that a URI lies in.

    Raises:
        LakeError: for a kind of place that is not known.
        S3Error: for a bucket that has not been connected to.
    """
    if uri.startswith(S3):
        from fruits_assets.core import s3  # noqa: PLC0415 - folders need nothing of AWS

        name, _ = s3.split(uri)
        if name not in _connected:
            raise S3Error(
                f"the bucket {name} has not been connected to. Open the lake with "
                "Lake.at(uri, region=...), which checks that the bucket lies in the EU."
            )
        return s3.S3Storage(_connected[name])
    if "://" in uri:
        raise LakeError(
            f"{uri} is of an unknown kind. Expected a folder of this machine, or s3://bucket/prefix."
        )
    return LocalStorage()
