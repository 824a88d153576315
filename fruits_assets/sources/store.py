"""The interface of every place that photos come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fruits_assets.sources import reading
from fruits_assets.sources.layout import Labels
from fruits_assets.sources.listing import Listing
from fruits_assets.sources.reading import Result, watched
from fruits_assets.storage.base import Folder


class PhotoStore(ABC):
    """Where photos are listed, read, and, when the law asks for it, erased.

    Attributes:
        folder: that holds them.
        root: its absolute path or URI.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.root = folder.uri

    @abstractmethod
    def list(
        self, *, recursive: bool, allow_empty: bool = False, labels: Labels = "parent"
    ) -> Listing:
        """Every file there is.

        Names that are hidden (`.git`, `.DS_Store`, `Thumbs.db`, ...) are passed over and counted,
        and so are other names of files that are listed already.

        Args:
            recursive: look into sub-folders, to any depth.
            allow_empty: a source without a file is a listing without a row, not an error.
            labels: which folder is the label, by `layout.Layout`.

        Raises:
            SourceError: it is missing, not readable, or holds no file.
        """

    @abstractmethod
    def fetch(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[], bytes]]:
        """For each row of a listing, in order, a function that returns the bytes of its file.

        Files are read ahead. Never is more read of one than was listed, and none is waited for
        without end.

        Raises:
            OSError: by the function: the file is something else by now, gone, or not readable.
            SourceError: by the function: the place does not answer, or forbids to read.
        """

    def read(self, row: Mapping[str, Any]) -> bytes:
        """The bytes of the file of one row of a listing; see `fetch`."""
        (read_it,) = self.fetch([row])
        return read_it()

    def check(self, rows: Sequence[Mapping[str, Any]]) -> None:  # noqa: B027 - most have no need
        """Tries, before a run, whether any of these files can be read.

        One that cannot costs itself; where none can, it is the place.

        Raises:
            S3Error: it refuses all of them.
        """

    def _watched(
        self, work: Callable[[], Result], *, progress: Callable[[], int], doing: str = "listing"
    ) -> Result:
        """Does some work on the source, as long as it makes progress. Raises SourceError."""
        return watched(
            work,
            progress=progress,
            seconds=reading.LISTING_SECONDS,
            doing=f"{doing} the source {self.root}",
        )

    @property
    def not_erasable(self) -> str | None:
        """Why nothing can be erased from it, as a sentence; None where it can."""
        return None

    @abstractmethod
    def erase(self, paths: Sequence[str]) -> int:
        """Removes files for good, with every older version; returns how many there were.

        Raises:
            SourceError: some are left; its text says how many.
            S3Error: the bucket refuses.
        """
