"""Where bytes lie: one abstract class, one subclass per kind of place."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from fruits_assets.core.errors import LakeError


def join(uri: str, *names: str) -> str:
    """`uri/name/...`, for folders and object stores alike."""
    return "/".join([uri.rstrip("/"), *names])


class Storage(ABC):
    """The few things that the lake asks of the place it lies in."""

    @abstractmethod
    def open(self, uri: str) -> pa.NativeFile:
        """A file to read at random positions. Raises OSError."""

    @abstractmethod
    def create(self, uri: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A new file that appears in one step when the block ends without an exception.

        Readers see all of it or nothing, even after a crash. Replaces an older file.

        Raises:
            LakeError: it cannot be written (disk full, no permission, ...).
        """

    @abstractmethod
    def sizes(self, uris: Sequence[str]) -> list[int | None]:
        """Sizes in bytes, None for a file that does not exist."""

    @abstractmethod
    def children(self, uri: str) -> list[str]:
        """Names directly in a folder, sorted; none where the folder does not exist."""

    @abstractmethod
    def modified_at(self, uri: str) -> float:
        """When anything directly in a folder last changed, seconds since 1970."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Removes a folder and all that is in it."""

    def read(self, uri: str) -> bytes:
        """The whole content of a file. Raises OSError."""
        with self.open(uri) as file:
            return file.read()

    def write(self, uri: str, content: bytes | memoryview) -> None:
        """Creates a file at once. Raises LakeError."""
        with self.create(uri) as file:
            file.write(content)


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

    def sizes(self, uris: Sequence[str]) -> list[int | None]:  # noqa: D102 - see Storage
        paths = [Path(uri) for uri in uris]
        return [path.stat().st_size if path.is_file() else None for path in paths]

    def children(self, uri: str) -> list[str]:  # noqa: D102 - see Storage
        return sorted(path.name for path in Path(uri).iterdir()) if Path(uri).is_dir() else []

    def modified_at(self, uri: str) -> float:  # noqa: D102 - see Storage
        return Path(uri).stat().st_mtime

    def delete(self, uri: str) -> None:  # noqa: D102 - see Storage
        shutil.rmtree(uri, ignore_errors=True)


def storage_of(uri: str) -> Storage:
    """The storage that a URI lies in. Raises LakeError for a kind that is not known."""
    if "://" in uri:
        raise LakeError(f"{uri} is not a folder of this machine, the only kind of place known.")
    return LocalStorage()
