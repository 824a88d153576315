"""The folder that is handed over: the deliverables under their names, and a page to open them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fruits_assets.core.errors import DatasetError
from fruits_assets.deliverables.page import INDEX, Card, Fact, Link, Page
from fruits_assets.deliverables.texts import TEXTS, Language, month, number, percent
from fruits_assets.storage.base import storage_of
from fruits_assets.storage.parquet import FILES_SCHEMA, File, address_of, write_files
from fruits_assets.storage.snapshot import READS_IN_FLIGHT, Output, Snapshot
from fruits_assets.transforms.pca import ALL, write_csv

CHECKSUMS = "SHA256SUMS"
FORMULA = r"^[=+\-@\t\r]"
"""How a cell begins that a spreadsheet would calculate (OWASP, "CSV Injection")."""


@dataclass(frozen=True)
class Made:
    """What the folder is made from."""

    notebook: Snapshot
    presentation: Snapshot
    gallery: Snapshot
    raw_images: Snapshot
    rejected_images: Snapshot
    pca_model: Snapshot
    pca_features: Snapshot
    recognition: Snapshot | None

    @property
    def datasets(self) -> list[Snapshot]:
        """All there are."""
        return [dataset for dataset in vars(self).values() if dataset]


@dataclass(frozen=True)
class Names:
    """What the files of the deliverables are called, in the folder and in what they come from."""

    notebook: str
    notebook_html: str
    images: str
    presentation: str


@dataclass(frozen=True)
class Presented:
    """By whom the deliverables are presented, when, where and in which language."""

    author: str
    day: date
    place: str
    language: Language
    attribution: str


def gather(folder: str, made: Made, *, names: Names, presented: Presented) -> Output:
    """Writes the folder: copies, the table as CSV, the page, and the checksums of them all.

    Args:
        folder: URI of the version to write.
        made: what it is made from.
        names: of the deliverables.
        presented: by whom.

    Raises:
        DatasetError: a deliverable has another name than expected, or is damaged.
    """
    wanted = [
        *((made.notebook, name) for name in (names.notebook, names.notebook_html)),
        (made.presentation, names.presentation),
        *((made.gallery, file.name) for file in made.gallery.manifest.files),
    ]
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        copies = list(pool.map(lambda one: _copy(folder, *one), wanted))
    files = {file.name: file for file in (*copies, _csv(folder, made.pca_features, names.images))}
    page = _page(made, names, presented, files)
    written = [write_file(folder, name, content) for name, content in page.files().items()]
    files |= {file.name: file for file in written}
    sums = "".join(f"{file.sha256}  {name}\n" for name, file in sorted(files.items()))
    checksums = write_file(folder, CHECKSUMS, sums.encode())
    named = {name: files[file].bytes for name, file in vars(names).items()}
    return Output((*files.values(), checksums), {"index": INDEX, "bytes_of": named})


def _copy(folder: str, source: Snapshot, name: str) -> File:
    """A file of another dataset, compared with its checksum on the way."""
    there = [file.name for file in source.manifest.files]
    if name not in there:
        raise DatasetError(
            f"{source.name}, version {source.version}, has no file {name}, but "
            f"{', '.join(there) or 'none'}: it was made for another author or month. Materialise "
            f"{source.name} again, then deliverables."
        )
    return write_file(folder, name, source.read(name))


def _csv(folder: str, projected: Snapshot, name: str) -> File:
    """The components as a table for people, who will open it with a spreadsheet."""

    def batches() -> Iterator[pa.RecordBatch]:
        for part in projected.files:
            yield from projected.batches(part.name, ["path", "label", "components"])

    count = projected.figures["components"]
    return write_csv(folder, name, batches(), components=count, text=harmless)


def harmless(column: pa.Array) -> pa.Array:
    """Strings, an apostrophe before those that a spreadsheet would take for a formula."""
    quoted = pc.binary_join_element_wise("'", column, "")  # type: ignore[attr-defined]
    return pc.if_else(pc.match_substring_regex(column, FORMULA), quoted, column)  # type: ignore[attr-defined]


def _page(made: Made, names: Names, presented: Presented, files: dict[str, File]) -> Page:
    language = presented.language
    texts = TEXTS[language]

    def card(name: str, *links: tuple[str, str]) -> Card:
        found = ((files[file], texts[text]) for file, text in links)
        return Card(name, [Link(one.name, one.bytes, one.sha256, text) for one, text in found])

    shown = made.gallery.figures
    counts = {"n": number(shown["photos"], language), "of": number(shown["of"], language)}
    return Page(
        language=language,
        author=presented.author,
        month=month(presented.day, language),
        place=presented.place,
        cards=[
            card("notebook", (names.notebook_html, "read_it"), (names.notebook, "run_it")),
            card("images", (names.images, "open_table")),
            card("presentation", (names.presentation, "open_slides")),
        ],
        facts=facts(made, language),
        sampled=texts["sampled"].format(**counts) if shown["photos"] < shown["of"] else "",
        versions={dataset.name: dataset.version for dataset in made.datasets},
        attribution=presented.attribution,
    )


def facts(made: Made, language: Language) -> Sequence[Fact]:
    """The headline figures, as the manifests have them; what is not known is left out."""
    texts = TEXTS[language]
    raw, model = made.raw_images.figures, made.pca_model.figures
    rejected = made.rejected_images.figures["rejected"]
    classes = len({label for label, *_ in raw["classes"] if label is not None})
    fitted_on = model["fitted_on"]
    split = texts["all_photos"] if fitted_on == ALL else fitted_on
    features = texts["of_features"].format(n=number(model["features"], language))

    def count(value: int) -> str:
        return number(value, language)

    return [
        Fact(count(raw["images"]), texts["photos"]),
        Fact(count(classes), texts["classes"]),
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


def _place(dataset: Snapshot, language: Language) -> Fact:
    texts = TEXTS[language]
    region = storage_of(dataset.uri).described().get("region")
    if region is None:
        return Fact(texts["local"], texts["region"], texts["local_note"])
    return Fact(region, texts["region"], texts["eu"])
