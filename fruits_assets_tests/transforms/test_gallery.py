"""The gallery shows the photos, where they are, and what they are most like."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession
from sklearn.neighbors import NearestNeighbors

from fruits_assets.core.images import pixels
from fruits_assets.core.pca import PcaModel
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.parquet import FILES_SCHEMA
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.gallery import (
    CONSTANT,
    DATA,
    NEIGHBOURS,
    NONE,
    TILE,
    draw_gallery,
    sampled,
)
from fruits_assets.transforms.pca import MODEL
from fruits_assets.transforms.spread import rows_of
from fruits_assets_tests.conftest import REPOSITORY, Pipeline, failure
from fruits_assets_tests.stand_ins import hand_over

SHOWN = ("raw_images", "rejected_images", "features", "pca_model", "pca_features")
"""The assets that a gallery is drawn of."""


@dataclass(frozen=True)
class Gallery:
    """A gallery as a page reads it.

    Attributes:
        snapshot: that holds its files.
    """

    snapshot: Snapshot

    @property
    def script(self) -> str:
        return self.snapshot.read(DATA).decode()

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.script.removeprefix(f"const {CONSTANT} = ").removesuffix(";\n"))

    def numbers(self, name: str, kind: str) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.data[name]), kind)

    def sheet(self, name: str) -> Image.Image:
        return Image.open(io.BytesIO(self.snapshot.read(name)))

    def tile(self, photo: int) -> np.ndarray:
        """(TILE, TILE, 3): the thumbnail of a photo."""
        data = self.data
        sheet = self.sheet(data["sheets"][self.numbers("sheet", "<u2")[photo]])
        row, column = divmod(int(self.numbers("place", "<u2")[photo]), data["columns"])
        corner = (column * TILE, row * TILE)
        return np.asarray(sheet.crop((*corner, corner[0] + TILE, corner[1] + TILE)))


def draw(session: SparkSession, lake: Lake, folder: Path, *, max_photos: int = 1000) -> Gallery:
    names = {"images": "raw_images", "pca_features": "pca_features", "model": "pca_model"}
    inputs = {name: lake.current(table) for name, table in names.items()}
    to = folder_at(str(folder))
    output = draw_gallery.function(
        session,
        **inputs,
        gallery=to,
        max_photos=max_photos,
        question="0" * 16,
        log=lambda _: None,
    )["gallery"]
    drawn = Snapshot.unpublished(to, "gallery", FILES_SCHEMA, output.files)
    return Gallery(replace(drawn, commit=replace(drawn.commit, figures=output.figures)))


@pytest.fixture(scope="module")
def drawn(
    finished, session: SparkSession, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Lake, Gallery]:
    lake = finished[0].lake
    return lake, draw(session, lake, tmp_path_factory.mktemp("gallery"))


def _rows(snapshot: Snapshot, paths: list[str], column: str) -> np.ndarray:
    table = snapshot.arrow(["path", column]).to_pydict()
    found = dict(zip(table["path"], table[column], strict=True))
    return np.array([found[path] for path in paths])


def test_every_photo_is_in_it_as_it_is(drawn: tuple[Lake, Gallery]):
    lake, gallery = drawn
    data = gallery.data
    for name, several in (("label", "labels"), ("split", "splits")):
        expected = _rows(lake.current("pca_features"), data["paths"], name)
        found = np.array(data[several])[gallery.numbers(name, "<u2")]
        assert found.tolist() == expected.tolist()
    assert len(set(data["paths"])) == data["of"] == 90
    assert gallery.snapshot.figures == {
        "photos": 90,
        "of": 90,
        "classes": 15,
        "sheets": len(data["sheets"]),
        "neighbours": NEIGHBOURS,
        "without_thumbnail": 0,
    }
    assert sorted(gallery.snapshot.names()) == sorted([DATA, *data["sheets"]])
    there = {path.name for path in Path(gallery.snapshot.uri).iterdir()}
    assert there == {file.name for file in gallery.snapshot.files}


def test_places_are_the_first_two_components(drawn: tuple[Lake, Gallery]):
    lake, gallery = drawn
    rows = _rows(lake.current("pca_features"), gallery.data["paths"], "components")
    np.testing.assert_array_equal(gallery.numbers("x", "<f4"), rows[:, 0].astype("<f4"))
    np.testing.assert_array_equal(gallery.numbers("y", "<f4"), rows[:, 1].astype("<f4"))


def test_neighbours_are_those_of_scikit_learn_on_all_components(drawn: tuple[Lake, Gallery]):
    lake, gallery = drawn
    paths = gallery.data["paths"]
    rows = _rows(lake.current("pca_features"), paths, "components").astype(np.float32)
    away, found = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(rows).kneighbors()
    neighbours = gallery.numbers("neighbours", "<u2").reshape(90, NEIGHBOURS)
    np.testing.assert_array_equal(neighbours, found)
    distances = gallery.numbers("distances", "<f4").reshape(90, NEIGHBOURS)
    np.testing.assert_allclose(distances, away, rtol=1e-5)

    training = np.array([path.startswith("Training/") for path in paths])
    every = np.linalg.norm(rows[:, np.newaxis] - rows, axis=2)
    np.fill_diagonal(every, np.inf)
    every[:, ~training] = np.inf
    np.testing.assert_array_equal(gallery.numbers("training", "<u2"), every.argmin(axis=1))
    np.testing.assert_allclose(
        gallery.numbers("trainingDistance", "<f4"), every.min(axis=1), rtol=1e-5
    )


def test_every_tile_shows_its_photo(drawn: tuple[Lake, Gallery]):
    lake, gallery = drawn
    paths = gallery.data["paths"]
    contents = lake.current("raw_images").arrow(["path", "content"]).to_pydict()
    content = dict(zip(contents["path"], contents["content"], strict=True))
    tiles = np.stack([gallery.tile(photo) for photo in range(90)]).astype(int)
    for photo, path in enumerate(paths):
        expected = pixels(content[path], orientation=1, size=TILE).astype(int)
        differences = np.abs(tiles - expected).mean(axis=(1, 2, 3))
        assert differences[photo] < 5
        assert differences.argmin() == photo


def test_sheets_are_plain_jpegs(drawn: tuple[Lake, Gallery]):
    _, gallery = drawn
    for name in gallery.data["sheets"]:
        with gallery.sheet(name) as sheet:
            assert (sheet.format, sheet.mode) == ("JPEG", "RGB")
            assert not {"exif", "icc_profile", "xmp", "comment"} & sheet.info.keys()


def test_the_variance_is_that_of_the_model(drawn: tuple[Lake, Gallery]):
    lake, gallery = drawn
    data, model = gallery.data, PcaModel.from_npz(lake.current("pca_model").read(MODEL))
    np.testing.assert_allclose(data["spectrum"], model.spectrum, atol=1e-8)
    assert (data["components"], data["target"]) == (len(model.components), 0.95)


def test_a_sample_of_many_photos_is_shown(finished, session: SparkSession, tmp_path: Path):
    gallery = draw(session, finished[0].lake, tmp_path, max_photos=45)
    data = gallery.data
    assert (len(data["paths"]), data["of"]) == (45, 90)
    assert Counter(gallery.numbers("label", "<u2").tolist()) == dict.fromkeys(range(15), 3)
    counts = Counter(path.partition("/")[0] for path in data["paths"])
    assert counts == {"Training": 30, "Test": 15}
    assert gallery.numbers("neighbours", "<u2").max() < 45


def test_a_sample_has_all_classes_and_splits_in_proportion(session: SparkSession):
    sizes = {("a", "Training"): 600, ("a", "Test"): 300, ("b", "Training"): 96, (None, None): 4}
    keys = [key for key, size in sizes.items() for _ in range(size)]
    hashes = [f"{digit:064x}" for digit in np.random.default_rng(0).permutation(len(keys))]
    rows = [(*key, sha256, "part", 0) for key, sha256 in zip(keys, hashes, strict=True)]
    schema = "label string, split string, sha256 string, pictures string, picture int"
    photos = rows_of(session, rows, schema)
    chosen = sampled(photos, 100).collect()
    counts = Counter((row.label, row.split) for row in chosen)
    for key, size in sizes.items():
        assert abs(counts[key] - size / 10) <= 1
        assert counts[key] >= 1
    assert counts.total() == 100
    fewer = {row.sha256 for row in sampled(photos, 50).collect()}
    assert fewer < {row.sha256 for row in chosen}


@pytest.fixture(scope="module")
def of_two(
    session: SparkSession, tmp_path_factory: pytest.TempPathFactory, _model_lake: Path
) -> Gallery:
    """Two photos, one wide and one tall, in no folder and therefore without label and split."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "photos").mkdir()
    for name, size, colour in (("wide", (200, 50), "navy"), ("tall", (50, 200), "maroon")):
        Image.new("RGB", size, colour).save(folder / "photos" / f"{name}.png")
    base = shutil.copytree(_model_lake, folder / "lake")
    own = Pipeline(Lake.at(str(base)), folder / "photos")
    assert own.run(*SHOWN).success
    return draw(session, own.lake, folder / "gallery")


def test_photos_that_are_not_square_keep_their_proportions(of_two: Gallery):
    for photo, path in enumerate(of_two.data["paths"]):
        dark = of_two.tile(photo).mean(axis=2) < 128
        high, wide = dark.any(axis=1).sum(), dark.any(axis=0).sum()
        assert (wide, high) == ((64, 16) if path.startswith("wide") else (16, 64))
        middle = TILE // 2
        assert dark[middle, middle]


LABELS = [
    "</script><script>alert(1)</script>".replace("/", "\N{FRACTION SLASH}"),
    "<img src=x onerror=alert(1)>",
    "\"double\" 'single' `back`",  # a backslash separates folders
    "two\nlines\r\ttabs",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "one\N{LINE SEPARATOR}two\N{PARAGRAPH SEPARATOR}three",
    "=1+1",
    "\N{RED APPLE} {{ 7 * 7 }} ${7} {n}",
]


def test_labels_and_paths_of_any_kind_come_through(
    pipeline: Pipeline, session: SparkSession, tmp_path: Path
):
    source = tmp_path / "photos"
    for i, label in enumerate(LABELS):
        (source / label).mkdir(parents=True)
        Image.new("RGB", (40, 30), f"#{i * 30:02x}8040").save(source / label / f"{i}<b>.png")
    own = Pipeline(pipeline.lake, source)
    assert own.run(*SHOWN).success
    gallery = draw(session, own.lake, tmp_path / "gallery")
    assert gallery.data["labels"] == sorted(LABELS)
    expected = sorted(f"{label}/{i}<b>.png" for i, label in enumerate(LABELS))
    assert sorted(gallery.data["paths"]) == expected
    assert "<" not in gallery.script
    assert gallery.script.isascii()
    assert len(gallery.script.splitlines()) == 1


def test_photos_without_label_or_split_and_a_single_component(of_two: Gallery):
    for name in ("label", "split", "training"):
        assert of_two.numbers(name, "<u2").tolist() == [NONE, NONE]
    neighbours = of_two.numbers("neighbours", "<u2").reshape(2, NEIGHBOURS)
    assert neighbours[:, 0].tolist() == [1, 0]
    assert (neighbours[:, 1:] == NONE).all()
    assert of_two.numbers("y", "<f4").tolist() == [0, 0]


SITE = textwrap.dedent("""
    # Imported by every Python process that starts with this folder on its path: a library that
    # fails on pictures of some sizes, once they become thumbnails.
    import os, signal, sys, time

    if "fruits_assets.core.decoder" in sys.orig_argv:
        from PIL import Image

        resize = Image.Image.resize

        def resized(self, size, *args, **kwargs):
            if self.size == (97, 63):
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.size == (98, 63):
                time.sleep(1000)
            if self.size == (99, 63):
                raise OSError("broken")
            return resize(self, size, *args, **kwargs)

        Image.Image.resize = resized
""")


@pytest.mark.slow
def test_poisonous_photos_keep_their_place(pipeline: Pipeline, tmp_path: Path):
    source = tmp_path / "photos"
    source.mkdir()
    for width in (97, 98, 99, 100):
        Image.new("RGB", (width, 63), (width, 2 * width - 100, 0)).save(source / f"{width}.png")
    own = Pipeline(pipeline.lake, source)
    assert own.run().success
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    script = textwrap.dedent(f"""
        from pathlib import Path
        from fruits_assets.lake.lake import Lake
        from fruits_assets_tests.conftest import Pipeline
        from fruits_assets_tests.stand_ins import hand_over
        pipeline = Pipeline(Lake.at({own.lake.base!r}), Path({str(source)!r}))
        assert hand_over(pipeline, "gallery", config={{"gallery": {{"max_seconds": 2.0}}}}).success
    """)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}:{REPOSITORY}"}
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    gallery = Gallery(own.lake.current("gallery"))
    figures = gallery.snapshot.figures
    assert (figures["photos"], figures["without_thumbnail"]) == (4, 3)
    blank = {
        path for photo, path in enumerate(gallery.data["paths"]) if gallery.tile(photo).min() > 250
    }
    assert blank == {"97.png", "98.png", "99.png"}


def test_a_gallery_is_drawn_once(own: Pipeline):
    assert hand_over(own, "gallery").success
    before = own.lake.current("gallery")
    assert hand_over(own, "gallery").success
    assert own.lake.current("gallery") == before
    assert hand_over(own, "gallery", config={"gallery": {"max_photos": 3}}).success
    after = own.lake.current("gallery")
    assert after.version != before.version
    assert after.figures["photos"] == 3


def test_photos_without_components_yet_fail_with_what_to_do(own: Pipeline, tmp_path: Path):
    source = tmp_path / "others"
    (source / "Apple").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(source / "Apple" / "1.png")
    others = Pipeline(own.lake, source)
    assert others.run("raw_images", "rejected_images").success
    text = failure(hand_over(others, "gallery"))
    assert "no photo of raw_images" in text
    assert "Materialise features and pca_features again" in text
