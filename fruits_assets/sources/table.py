"""Photos that a table lists: a CSV or JSON Lines file of paths and labels, beside the photos."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fruits_assets.core.errors import LakeError, SourceError
from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.sources.layout import Labels, Place, normal, split_named
from fruits_assets.sources.listing import Listing, Row, found_files, listing_of
from fruits_assets.sources.store import PhotoStore
from fruits_assets.sources.walk import leads_out, plain, printable, unseen
from fruits_assets.storage.base import Folder
from fruits_assets.storage.opening import open_regular

COLUMNS = ("path", "label", "split")
"""Columns of a table; `split` may be missing."""
DELIMITERS = ",;\t"
LEAVES = (
    "its path leaves the folder of the table: put the photo below that folder, and name it by a "
    "path relative to it"
)


@dataclass(frozen=True)
class Entry:
    """One photo of a table.

    Attributes:
        lines: of the file that say it: the first, and the one after the last, from 0.
        path: relative to the folder of the table, with `/` between names.
        place: split and label.
    """

    lines: tuple[int, int]
    path: str
    place: Place


class TablePhotos(PhotoStore):
    """The photos that a table names. Other files beside it are not looked at."""

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self._photos = FolderPhotos(Folder(folder.storage, str(Path(folder.uri).parent)))

    def list(  # noqa: D102 - see PhotoStore
        self, *, recursive: bool, allow_empty: bool = False, labels: Labels = "parent"
    ) -> Listing:
        seen: list[Row] = []

        def work() -> Listing:
            given = self._given()
            inside = [path for path in given if not leads_out(path)]
            seen.extend(unseen(path, LEAVES) for path in given if leads_out(path))
            seen.extend(self._photos.named(inside))
            return listing_of(
                self.root,
                found_files(seen),
                recursive=recursive,
                hidden={},
                allow_empty=allow_empty,
                labels=labels,
                given=given,
            )

        return self._watched(work, progress=lambda: len(seen))

    def fetch(  # noqa: D102 - see PhotoStore
        self, rows: Sequence[Mapping[str, Any]]
    ) -> Iterator[Callable[[], bytes]]:
        return self._photos.fetch(rows)

    def erase(self, paths: Sequence[str]) -> int:
        """Removes photos as from a folder, and then the lines of the table that name them.

        Raises:
            SourceError: see PhotoStore; or the table cannot be replaced.
        """
        erased = self._photos.erase([path for path in paths if not leads_out(path)])
        gone = set(paths)
        lines = self._lines()
        doomed = {
            number
            for entry in self._entries(lines)
            if entry.path in gone
            for number in range(*entry.lines)
        }
        if doomed:
            kept = "".join(line for number, line in enumerate(lines) if number not in doomed)
            real = os.path.realpath(self.root)
            try:
                self.folder.storage.write(real, kept.encode())
            except LakeError as error:
                raise SourceError(
                    f"the photos were erased, but not the lines that name them: {error} Then "
                    "repeat the erasure: it goes on from here."
                ) from error
        return erased

    def _given(self) -> dict[str, Place]:
        """Path -> split and label. Raises SourceError."""
        given: dict[str, Place] = {}
        for entry in self._entries(self._lines()):
            if given.setdefault(entry.path, entry.place) != entry.place:
                raise self._wrong(
                    entry.lines[0], "names a photo again, with another label or split"
                )
        return given

    def _lines(self) -> list[str]:
        """The lines of the table, with their ends. Raises SourceError."""
        try:
            with open_regular(self.root) as file:
                text = file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(
                f"the table {self.root} is not written in UTF-8 ({error}). Save it as UTF-8."
            ) from error
        except OSError as error:
            raise SourceError(
                f"the table {self.root} cannot be read ({error.strerror}). Point FRUITS_SOURCE at "
                "a CSV or JSON Lines file that this user may read."
            ) from error
        return list(io.StringIO(text, newline=""))

    def _entry(self, lines: tuple[int, int], values: Mapping[str, Any]) -> Entry:
        """The entry of one line. Raises SourceError."""
        found = {name: values.get(name) for name in COLUMNS}
        texts = {name: "" if value is None else value for name, value in found.items()}
        if not all(isinstance(value, str) for value in texts.values()):
            raise self._wrong(lines[0], "holds a value that is not a text")
        if not texts["path"].strip():
            raise self._wrong(lines[0], "names no path")
        if any(printable(text) != text for text in texts.values()):
            raise self._wrong(lines[0], "holds letters that UTF-8 has not")
        split = split_named(texts["split"])
        if texts["split"].strip() and split is None:
            raise self._wrong(
                lines[0],
                f"names the split {texts['split'][:40]!r}, not Training, Test or Validation",
            )
        place = split, normal(texts["label"]) or None
        return Entry(lines, self._path(texts["path"]), place)

    def _path(self, text: str) -> str:
        """A path as the disk has it: one that was written on Windows has backslashes."""
        path = text if leads_out(text) else plain(text)
        with contextlib.suppress(OSError, ValueError):
            if "\\" in path and not leads_out(path) and not Path(self._photos.root, path).exists():
                return path.replace("\\", "/")
        return path

    def _wrong(self, line: int, what: str) -> SourceError:
        return SourceError(
            f"line {line + 1} of the table {self.root} {what}. Expected are the columns path, "
            "label and, if you like, split, with a path relative to the folder of the table."
        )

    @abstractmethod
    def _entries(self, lines: Sequence[str]) -> Iterator[Entry]:
        """The entries of all lines. Raises SourceError."""


class CsvPhotos(TablePhotos):
    """A CSV file with a line of column names; commas, semicolons or tabs stand between cells."""

    def _entries(self, lines: Sequence[str]) -> Iterator[Entry]:
        head = lines[0].removeprefix("\ufeff") if lines else ""
        delimiter = max(DELIMITERS, key=head.count)
        reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
        try:
            names = [name.strip().lower().removeprefix("\ufeff") for name in next(reader, [])]
            if not {"path", "label"} <= set(names):
                raise self._wrong(0, "does not name the columns")
            before = reader.line_num
            for cells in reader:
                lines_of_it, before = (before, reader.line_num), reader.line_num
                if any(cells):
                    yield self._entry(lines_of_it, dict(zip(names, cells, strict=False)))
        except csv.Error as error:
            raise self._wrong(reader.line_num - 1, f"is not CSV ({error})") from error


class JsonLinesPhotos(TablePhotos):
    """A JSON object in each line."""

    def _entries(self, lines: Sequence[str]) -> Iterator[Entry]:
        for number, line in enumerate(lines):
            if not line.strip("\ufeff \r\n\t"):
                continue
            try:
                values = json.loads(line.removeprefix("\ufeff"))
            except (ValueError, RecursionError) as error:
                raise self._wrong(number, f"is not JSON ({error})") from error
            if not isinstance(values, dict):
                raise self._wrong(number, "is not a JSON object")
            yield self._entry((number, number + 1), values)


KINDS: Mapping[str, type[TablePhotos]] = {
    ".csv": CsvPhotos,
    ".tsv": CsvPhotos,
    ".jsonl": JsonLinesPhotos,
    ".ndjson": JsonLinesPhotos,
}
"""Ending of a name, in lower case -> what reads such a table."""


def kind_of(name: str) -> type[TablePhotos] | None:
    """The class that reads a table of this name; None if the name is not that of a table."""
    return next((kind for ending, kind in KINDS.items() if name.lower().endswith(ending)), None)
