"""Photos to look at: thumbnails, where they lie on two components, and which are most alike."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyspark.sql import DataFrame, SparkSession

from fruits_assets.core.decoder import SECONDS, shared
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.images import RejectedImage
from fruits_assets.core.neighbours import nearest
from fruits_assets.core.pca import PcaModel
from fruits_assets.sources.layout import TRAINING
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    File,
    address_of,
    vectors_matrix,
    write_files,
)
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets.transforms.featurize import BATCH_ROWS
from fruits_assets.transforms.ingest import fitted
from fruits_assets.transforms.pca import MODEL
from fruits_assets.transforms.spread import Done, Log, for_each, light_rows, run_logged
from fruits_assets.transforms.transform import transform

if TYPE_CHECKING:
    import pandas as pd

DATA = "gallery.js"
CONSTANT = "GALLERY"
"""What `DATA` defines: a script needs no server to be read, as a JSON file would."""
TILE = 64
"""Side of a thumbnail, pixels: whole blocks of JPEG."""
COLUMNS, ROWS = 16, 20
"""Thumbnails in a sheet, at most: the photos of a part of the images."""
JPEG = {"quality": 75, "subsampling": 0, "optimize": True}
"""Colours at full resolution: else those of neighbours run into each other at the edges."""
NEIGHBOURS = 8
MAX_PHOTOS = 14_000
MOST_PHOTOS = 50_000
"""Photos have 16 bits for a number, and every one is compared with every other."""
NONE = 2**16 - 1
"""No label, no split, no neighbour."""


@transform(code_version="2", outputs={"gallery": FILES_SCHEMA})
def draw_gallery(
    spark: SparkSession,
    *,
    images: Snapshot,
    pca_features: Snapshot,
    model: Snapshot,
    gallery: Folder,
    max_photos: int,
    max_seconds: float = SECONDS,
    question: str,
    log: Log,
) -> dict[str, Output]:
    """Draws sheets of thumbnails on the workers, and writes what a page says of the photos.

    A photo whose decoder dies of it keeps its place, with a blank thumbnail.

    Args:
        spark: where to run.
        images: a version of `raw_images`.
        pca_features: a version of `pca_features`.
        model: the version of `pca_model` that it was made with.
        gallery: folder to write to.
        max_photos: of more, a sample is shown, in proportion to classes and splits.
        max_seconds: that the decoding of one photo may take.
        question: see `Transform`.
        log: told the progress.

    Raises:
        DatasetError: no photo has components.
    """
    source, projected = images.alone(), pca_features.alone()
    fitted_model = PcaModel.from_npz(model.read(MODEL))
    photos, total = _known(spark, source, projected, min(max_photos, MOST_PHOTOS), log=log)
    sheets = list(_sheets(photos, source, gallery, max_seconds, question))
    doing, run = "gallery: thumbnails", methodcaller("run")
    done = for_each(spark, sheets, run, doing=doing, total=len(photos), log=log)
    blank = [path for one in done for path in one["blank"]]
    files = [File(**file) for one in done for file in one["files"]]
    data = {
        "of": total,
        "tile": TILE,
        "columns": COLUMNS,
        "sheets": [name for one in done for name in one["sheets"]],
        **_identities(photos),
        **_tiles(done),
        **_likeness(_components(spark, projected, photos, log), photos, log),
        **_spectrum(fitted_model, model),
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    script = f"const {CONSTANT} = {text};\n".encode()
    figures = {
        "photos": len(photos),
        "of": total,
        "classes": len(data["labels"]),
        "sheets": len(data["sheets"]),
        "neighbours": NEIGHBOURS,
        "without_thumbnail": len(blank),
    }
    data_file = write_files(gallery, address_of(question, DATA), {DATA: script})
    return {"gallery": Output((data_file, *files), figures)}


def _known(
    spark: SparkSession, source: Snapshot, projected: Snapshot, most: int, *, log: Log
) -> tuple[pd.DataFrame, int]:
    """What is known of photos that have components and that lie in the images still.

    Returns:
        At most `most` photos, in the order of the images: `path`, `split`, `label`, `sha256`;
        `pictures` and `vectors`, the numbers of the parts that hold them, and `picture` and
        `vector`, their rows in these parts. And how many photos there are in all.

    Raises:
        DatasetError: there is none.
    """
    columns = ["path", "split", "label", "sha256"]
    pictures = light_rows(spark, source, ["path", "sha256"]).selectExpr(
        "path", "sha256", "part AS pictures", "position AS picture"
    )
    vectors = light_rows(spark, projected, columns).selectExpr(
        *columns, "part AS vectors", "position AS vector"
    )
    photos = pictures.join(vectors, ["path", "sha256"])

    def found() -> tuple[pd.DataFrame, int]:
        total = photos.count()
        return (photos if total <= most else sampled(photos, most)).toPandas(), total

    frame, total = run_logged(spark, found, log=log, progress=lambda: "gallery: choosing photos")
    if not total:
        raise DatasetError(
            f"no photo of raw_images, version {source.version}, has components in pca_features, "
            f"version {projected.version}. Materialise features and pca_features again."
        )
    for column, snapshot in (("pictures", source), ("vectors", projected)):
        numbers = {file.name: number for number, file in enumerate(snapshot.files)}
        frame[column] = [numbers[name] for name in frame[column]]
    return frame.sort_values(["pictures", "picture"], ignore_index=True), total


def sampled(photos: DataFrame, count: int) -> DataFrame:
    """At most so many photos, of every class and split in proportion, and one of each at least.

    Which they are depends on their content only: most of them stay as the photos grow in number.

    Args:
        photos: columns `label`, `split` and `sha256`; `pictures` and `picture`, which decide
            between photos of the same content.
        count: how many, at most.

    Returns:
        Some of the rows, in no particular order.
    """
    order = "sha256, pictures, picture"
    group = "OVER (PARTITION BY label, split"
    share = f"(row_number() {group} ORDER BY {order}) - 1) / count(*) {group}) AS share"
    ranked = photos.selectExpr("*", share).orderBy("share", *order.split(", "))
    return ranked.limit(count).drop("share")


def _sheets(
    photos: pd.DataFrame, source: Snapshot, folder: Folder, max_seconds: float, question: str
) -> Iterator[_Sheets]:
    """Tasks of a sheet or a few each, so that every part of the images is read by one of them."""
    number, group, rows = 0, [], 0
    parts, starts = np.unique(photos["pictures"].to_numpy(), return_index=True)
    for part, positions in zip(
        parts, np.split(photos["picture"].to_numpy(), starts[1:]), strict=True
    ):
        group.append((source.files[part], positions))
        rows += len(positions)
        if rows >= COLUMNS * ROWS or part == parts[-1]:
            yield _Sheets(source, folder, max_seconds, number, tuple(group), question)
            number += -(-rows // (COLUMNS * ROWS))
            group, rows = [], 0


@dataclass(frozen=True)
class _Sheets:
    """Sheets of the photos of some parts of the images.

    Attributes:
        images: they lie in.
        folder: of the table to write to.
        max_seconds: that the decoding of one photo may take.
        first: number of the first sheet.
        parts: each, and the positions of its photos that are shown.
        question: see `Transform`.
    """

    images: Snapshot
    folder: Folder
    max_seconds: float
    first: int
    parts: tuple[tuple[File, np.ndarray], ...]
    question: str

    def run(self) -> Done:
        photos, blank, counts = self._photos(), [], []
        sheets: dict[str, bytes] = {}
        while some := list(islice(photos, COLUMNS * ROWS)):
            sheet = Image.new("RGB", (COLUMNS * TILE, -(-len(some) // COLUMNS) * TILE), "white")
            for place, photo in enumerate(some):
                row, column = divmod(place, COLUMNS)
                if not self._draw(photo, sheet, (column * TILE, row * TILE)):
                    blank.append(photo["path"])
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", **JPEG)
            sheets[f"sheet-{self.first + len(sheets):03d}.jpg"] = buffer.getvalue()
            counts.append(len(some))
        made_from = address_of(self.question, self.first)
        file = vars(write_files(self.folder, made_from, sheets))
        names = list(sheets)
        found = {"files": [file], "sheets": names, "photos": counts, "blank": blank}
        return Done(sum(counts), found)

    def _photos(self) -> Iterator[dict[str, Any]]:
        columns = ["path", "content", "orientation", "width", "height"]
        for part, positions in self.parts:
            row = 0
            for batch in self.images.batches(part, columns, rows=BATCH_ROWS):
                here = positions[(positions >= row) & (positions < row + batch.num_rows)] - row
                row += batch.num_rows
                if len(here):
                    yield from batch.take(pa.array(here)).to_pylist()

    def _draw(self, photo: Mapping[str, Any], sheet: Image.Image, at: tuple[int, int]) -> bool:
        """Puts a thumbnail into the middle of its tile; False if the photo does not let itself."""
        content, orientation = photo["content"], photo["orientation"]
        try:
            square = shared(seconds=self.max_seconds).pixels(
                content, orientation=orientation, size=TILE, reduced=True
            )
        except RejectedImage:
            return False
        width, height = fitted((photo["width"], photo["height"]), TILE)
        thumbnail = Image.fromarray(square).resize((width, height))
        sheet.paste(thumbnail, (at[0] + (TILE - width) // 2, at[1] + (TILE - height) // 2))
        return True


def _identities(photos: pd.DataFrame) -> dict[str, Any]:
    """Paths as they are, labels and splits by their number in a list."""
    found: dict[str, Any] = {"paths": photos["path"].to_list()}
    for one, several in (("label", "labels"), ("split", "splits")):
        names = sorted(photos[one].dropna().unique())
        numbers = {name: number for number, name in enumerate(names)}
        found[several] = names
        found[one] = _packed([numbers.get(name, NONE) for name in photos[one]], "<u2")
    return found


def _tiles(done: list[dict[str, Any]]) -> dict[str, str]:
    """In which sheet each photo is, and where in it."""
    counts = [count for one in done for count in one["photos"]]
    return {
        "sheet": _packed(np.repeat(np.arange(len(counts)), counts), "<u2"),
        "place": _packed(np.concatenate([np.arange(count) for count in counts]), "<u2"),
    }


def _components(
    spark: SparkSession, projected: Snapshot, photos: pd.DataFrame, log: Log
) -> np.ndarray:
    """(n, k) float32: the components of the photos, in their order."""
    numbers, positions = photos["vectors"].to_numpy(), photos["vector"].to_numpy()
    order = np.argsort(numbers, kind="stable")
    parts, starts = np.unique(numbers[order], return_index=True)
    groups = np.split(order, starts[1:])
    tasks = [
        (projected.files[part], positions[rows]) for part, rows in zip(parts, groups, strict=True)
    ]
    handle = projected.only(())

    def work(task: tuple[File, np.ndarray]) -> Done:
        file, chosen = task
        matrices = [
            vectors_matrix(batch, "components") for batch in handle.batches(file, ["components"])
        ]
        return Done(len(chosen), _packed(np.concatenate(matrices)[chosen], "<f4"))

    doing = "gallery: components"
    done = for_each(spark, tasks, work, doing=doing, total=len(photos), log=log)
    found = np.zeros((len(photos), projected.figures["components"]), np.float32)
    for rows, packed in zip(groups, done, strict=True):
        found[rows] = np.frombuffer(base64.b64decode(packed), "<f4").reshape(len(rows), -1)
    return found


def _likeness(rows: np.ndarray, photos: pd.DataFrame, log: Log) -> dict[str, Any]:
    """First two components, and nearest neighbours on all of them: of all photos, of Training."""
    log(f"gallery: neighbours of {len(rows)} photos on {rows.shape[1]} components")
    training = (photos["split"] == TRAINING).to_numpy()
    neighbours, distances = nearest(rows, NEIGHBOURS)
    teacher, away = nearest(rows, 1, among=training)
    return {
        "x": _packed(rows[:, 0], "<f4"),
        "y": _packed(rows[:, 1] if rows.shape[1] > 1 else np.zeros(len(rows)), "<f4"),
        "neighbours": _packed(np.where(neighbours < 0, NONE, neighbours), "<u2"),
        "distances": _packed(distances, "<f4"),
        "training": _packed(np.where(teacher < 0, NONE, teacher), "<u2"),
        "trainingDistance": _packed(away, "<f4"),
    }


def _spectrum(model: PcaModel, dataset: Snapshot) -> dict[str, Any]:
    """Shares of the variance of all components, how many were kept, and what was asked for."""
    asked = dataset.figures["n_components"]
    return {
        "spectrum": [round(float(share), 8) for share in model.spectrum],
        "components": len(model.components),
        "target": asked if asked < 1 else None,
    }


def _packed(values: Any, kind: str) -> str:
    """Numbers as base64 of a little-endian array."""
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()
