"""Gathers what is handed over: the deliverables under their names, and a page to open them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from fruits_assets.core.errors import DatasetError
from fruits_assets.deliverables.escaping import cells
from fruits_assets.deliverables.folder import Published, sha256_of
from fruits_assets.deliverables.page import FILES, Card, Fact, Link, Page
from fruits_assets.deliverables.texts import TEXTS, Language, month, number, percent
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import File, vectors_matrix
from fruits_assets.storage.snapshot import READS_IN_FLIGHT, Snapshot
from fruits_assets.transforms.pca import ALL

MOST_ROWS = 1_000_000
"""Rows of one CSV file: a worksheet ends at 1,048,576 (Microsoft, "Excel specifications")."""


@dataclass(frozen=True)
class Made:
    """The snapshots that the folder is made from."""

    notebook: Snapshot
    presentation: Snapshot
    gallery: Snapshot
    raw_images: Snapshot
    rejected_images: Snapshot
    pca_model: Snapshot
    pca_features: Snapshot
    recognition: Snapshot | None

    @property
    def snapshots(self) -> list[Snapshot]:
        """All there are."""
        return [snapshot for snapshot in vars(self).values() if snapshot]


@dataclass(frozen=True)
class Names:
    """Names of the deliverables' files, in the folder and in the tables that they come from."""

    notebook: str
    notebook_html: str
    images: str
    presentation: str

    def tables(self, rows: int) -> list[str]:
        """Names of the CSV files of the components: one, or several where one would be too long."""
        stem, _, extension = self.images.rpartition(".")
        count = -(-rows // MOST_ROWS)
        return [self.images, *(f"{stem}-{i}.{extension}" for i in range(2, count + 1))]


@dataclass(frozen=True)
class Presented:
    """By whom the deliverables are presented, when, where and in which language."""

    author: str
    day: date
    place: str
    language: Language
    attribution: str


@dataclass(frozen=True)
class Written:
    """A file of the folder.

    Attributes:
        bytes: its size.
        sha256: of its content, hexadecimal.
    """

    bytes: int
    sha256: str


def gather(
    published: Published, made: Made, *, recipe: str, names: Names, presented: Presented
) -> Published:
    """Fills the folder: copies, the components as CSV, the page, and the list of them all.

    Args:
        published: what lies in the folder, and is replaced.
        made: what it is made from.
        recipe: hash of all that it is made of.
        names: of the deliverables.
        presented: by whom.

    Raises:
        DatasetError: a deliverable has another name than expected, or is damaged.
        ConflictError: another run fills the folder at the same time.
        LakeError: the folder cannot be written.
    """
    wanted = {
        "notebook": [names.notebook, names.notebook_html],
        "presentation": [names.presentation],
        "gallery": made.gallery.names(),
    }
    for snapshot in (made.notebook, made.presentation):
        _check_names(snapshot, wanted[snapshot.name])
    copied = [name for some in wanted.values() for name in some]
    tables = names.tables(made.pca_features.rows)

    parts = [
        (snapshot, part)
        for snapshot in (made.notebook, made.presentation, made.gallery)
        for part in snapshot.files
    ]

    def write(folder: Folder) -> dict[str, str]:
        def copies(one: tuple[Snapshot, File]) -> dict[str, Written]:
            snapshot, part = one
            return _copies(folder, snapshot, part, wanted[snapshot.name])

        files: dict[str, Written] = {}
        with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
            for some in pool.map(copies, parts):
                files |= some
        for index, name in enumerate(tables):
            files[name] = _csv(folder, made.pca_features, name, first=index * MOST_ROWS)
        for name, content in _page(made, names, presented, files).files().items():
            files[name] = _write(folder, name, content)
        return {name: file.sha256 for name, file in files.items()}

    return published.replace(recipe, [*copied, *tables, *FILES], write)


def _check_names(snapshot: Snapshot, wanted: Collection[str]) -> None:
    there = snapshot.names()
    for name in wanted:
        if name not in there:
            raise DatasetError(
                f"{snapshot.name}, version {snapshot.version}, has no file {name}, but "
                f"{', '.join(there) or 'none'}: it was made for another author or month. "
                f"Materialise {snapshot.name} again, then deliverables."
            )


def _copies(
    folder: Folder, snapshot: Snapshot, part: File, wanted: Collection[str]
) -> dict[str, Written]:
    """Writes the files that are the rows of a part, which is compared with its digest."""
    rows = snapshot.table(part).select(["name", "content"]).to_pylist()
    return {
        row["name"]: _write(folder, row["name"], row["content"])
        for row in rows
        if row["name"] in wanted
    }


def _write(folder: Folder, name: str, content: bytes) -> Written:
    folder.write(name, content)
    return Written(len(content), hashlib.sha256(content).hexdigest())


def _csv(folder: Folder, projected: Snapshot, name: str, *, first: int) -> Written:
    """The components as a table for people, who will open it with a spreadsheet."""
    count = projected.figures["components"]
    with folder.storage.create(folder.at(name)) as sink:
        write_csv(sink, _rows(projected, first, first + MOST_ROWS), components=count)
    return Written(folder.sizes(prefix=name)[name], sha256_of(folder, name))


def _rows(projected: Snapshot, first: int, end: int) -> Iterator[pa.RecordBatch]:
    """The rows from `first` to `end`; parts without any of them are not opened."""
    position = 0
    for part in projected.files:
        following = position + part.rows
        if position < end and following > first:
            for batch in projected.batches(part, ["path", "label", "components"]):
                low, high = max(first - position, 0), min(end - position, batch.num_rows)
                if low < high:
                    yield batch.slice(low, high - low)
                position += batch.num_rows
        position = following


def write_csv(sink: BinaryIO, batches: Iterable[pa.RecordBatch], *, components: int) -> None:
    """Streams rows of `PCA_FEATURES_SCHEMA` into one CSV file: path, label, pc_1 ... pc_k.

    Args:
        sink: a file to write to.
        batches: of at least `path`, `label` and `components`.
        components: how many a row has, k.
    """
    schema = pa.schema(
        [("path", pa.string()), ("label", pa.string())]
        + [(f"pc_{i + 1}", pa.float32()) for i in range(components)]
    )
    with pacsv.CSVWriter(sink, schema) as writer:
        for batch in batches:
            matrix = vectors_matrix(batch, "components")
            named = [cells(batch.column("path")), cells(batch.column("label"))]
            columns = [*named, *map(pa.array, matrix.T)]
            writer.write(pa.RecordBatch.from_arrays(columns, schema=schema))


def _page(made: Made, names: Names, presented: Presented, files: Mapping[str, Written]) -> Page:
    language = presented.language
    texts = TEXTS[language]

    def card(name: str, *links: tuple[str, str]) -> Card:
        found = ((file, files[file], texts[text]) for file, text in links)
        return Card(name, [Link(file, it.bytes, it.sha256, text) for file, it, text in found])

    tables = names.tables(made.pca_features.rows)
    shown = made.gallery.figures
    counts = {"n": number(shown["photos"], language), "of": number(shown["of"], language)}
    return Page(
        language=language,
        author=presented.author,
        month=month(presented.day, language),
        place=presented.place,
        cards=[
            card("notebook", (names.notebook_html, "read_it"), (names.notebook, "run_it")),
            card("images", *((name, "open_table") for name in tables)),
            card("presentation", (names.presentation, "open_slides")),
        ],
        facts=facts(made, language),
        sampled=texts["sampled"].format(**counts) if shown["photos"] < shown["of"] else "",
        versions={snapshot.name: snapshot.version for snapshot in made.snapshots},
        attribution=presented.attribution,
    )


def facts(made: Made, language: Language) -> Sequence[Fact]:
    """The headline figures, as the lake has them; what is not known is left out."""
    texts = TEXTS[language]
    raw, model = made.raw_images.figures, made.pca_model.figures
    rejected = made.rejected_images.figures["rejected"]
    fitted_on = model["fitted_on"]
    split = texts["all_photos"] if fitted_on == ALL else fitted_on
    features = texts["of_features"].format(n=number(model["features"], language))

    def count(value: int) -> str:
        return number(value, language)

    return [
        Fact(count(raw["images"]), texts["photos"]),
        Fact(count(raw["labelled_classes"]), texts["classes"]),
        Fact(count(rejected), texts["rejected"]),
        Fact(count(model["components"]), texts["components"], features),
        Fact(
            percent(model["explained_variance"], language),
            texts["variance"],
            texts["variance_on"].format(split=split),
        ),
        *_accuracy(made.recognition, language),
        _place(made.raw_images, language),
    ]


def _accuracy(recognition: Snapshot | None, language: Language) -> list[Fact]:
    figures: dict[str, Any] = dict(recognition.figures) if recognition else {}
    if not figures.get("test"):
        return []
    texts = TEXTS[language]
    return [
        Fact(
            percent(figures["accuracy_components"], language),
            texts["accuracy"],
            texts["accuracy_on"].format(n=number(figures["test"], language)),
        )
    ]


def _place(snapshot: Snapshot, language: Language) -> Fact:
    texts = TEXTS[language]
    region = snapshot.folder.storage.described().get("region")
    if region is None:
        return Fact(texts["local"], texts["region"], texts["local_note"])
    return Fact(region, texts["region"], texts["eu"])
