"""The deck: readable, complete and true, whatever is in the lake."""

import io
import json
import re
import statistics
import string
import tempfile
import textwrap
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageColor, ImageFont
from pptx import Presentation
from pptx.opc.oxml import serialize_part_xml
from pptx.util import Pt

from fruits_assets.core import pca
from fruits_assets.core.errors import DatasetError
from fruits_assets.core.pca import Moments
from fruits_assets.deliverables.deck import measure, texts_en, texts_fr
from fruits_assets.deliverables.deck.benchmark import Benchmark
from fruits_assets.deliverables.deck.canvas import Box
from fruits_assets.deliverables.deck.chain import REASONS
from fruits_assets.deliverables.deck.facts import Facts, Pipeline, Place, Recognition, _median
from fruits_assets.deliverables.deck.language import Language
from fruits_assets.deliverables.deck.presentation import SLIDES, Deck, build
from fruits_assets.deliverables.deck.slide import SECTIONS, Show, mosaic
from fruits_assets.deliverables.figures import THEME
from fruits_assets.storage.base import Folder
from fruits_assets.storage.parquet import (
    FILES_SCHEMA,
    Origin,
    address_of,
    write_files,
    write_part,
)
from fruits_assets.storage.places import folder_at
from fruits_assets.storage.snapshot import DRAFT, Commit, Snapshot
from fruits_assets.transforms.featurize import FEATURES_SCHEMA
from fruits_assets.transforms.ingest import (
    CLASSES,
    CLASSES_SCHEMA,
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    THUMBNAIL_SCHEMA,
    THUMBNAILS,
)
from fruits_assets.transforms.pca import MAP, MAP_SCHEMA, PCA_FEATURES_SCHEMA
from fruits_assets_tests.conftest import made_once
from fruits_assets_tests.leaks import contents, leaks

HOSTILE = [
    "x" * 200,
    "W" * 200,
    "a very long name of a fruit of a late harvest " * 4,
    "\N{RED APPLE} \N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}",
    "{images:n} {0} {",
    "<b>&amp;</b>",
    "a\nb\r\nc\x00\x0b",
    "z" + "\N{COMBINING ACUTE ACCENT}" * 50,
    "\N{CJK UNIFIED IDEOGRAPH-82F9}\N{RIGHT-TO-LEFT OVERRIDE}evil",
    "",
    "=cmd|' /C calc'!A0",
    "http://example.org/",
]
BENCHMARK = Benchmark(
    "0123456789abcdef",
    14_000,
    {"intern": 118.4, "predict_batch": 123.4, "project": 490.5, "ceiling": 517.4},
    {"intern": 2_839_000_000, "predict_batch": 1_562_000_000, "project": 211_000_000, "ceiling": 0},
)
MISSING = {"recognition", "benchmark", "bill"}


@dataclass(frozen=True)
class Made:
    """A small lake of one's own making: tables as the transforms write them."""

    folder: Path

    def at(self, name: str) -> Folder:
        return folder_at(str(self.folder / name))

    def snapshot(
        self,
        name: str,
        table: pa.Table,
        *,
        figures: Mapping[str, Any] | None = None,
        inputs: Sequence[Snapshot] = (),
        siblings: Mapping[str, pa.Table] | None = None,
    ) -> Snapshot:
        files = ()
        if table.num_rows:
            files = (write_part(self.at(name), Origin(address_of(name), 0, 1), table),)
        commit = Commit(
            recipe=f"{name:0<16}"[:16],
            transform=name,
            code_version="1",
            params={},
            inputs={one.name: one.version for one in inputs},
            run_id="run",
            created_at="2026-11-01T00:00:00+00:00",
            seconds=12.5,
            figures=figures or {},
        )
        beside = {it: self.snapshot(it, rows) for it, rows in (siblings or {}).items()}
        return Snapshot(self.at(name), name, table.schema, DRAFT, commit, files, beside)

    def holding(
        self,
        name: str,
        file: str,
        content: bytes,
        figures: Mapping[str, Any],
        inputs: Sequence[Snapshot] = (),
    ) -> Snapshot:
        """A table of files with one file."""
        made = self.snapshot(name, FILES_SCHEMA.empty_table(), figures=figures, inputs=inputs)
        return replace(made, files=(write_files(made.folder, address_of(name), {file: content}),))

    def raw(
        self,
        labels: Sequence[str | None],
        splits: Sequence[str | None],
        *,
        each: int,
        more: int,
        name: str,
    ) -> Snapshot:
        rows = [
            {
                "path": f"{split}/{number}/{name.format(index)}",
                "split": split,
                "label": label,
                "sha256": f"{number:032x}{index:032x}",
                "content": b"",
                "content_sha256": "",
                "format": "JPEG",
                "width": 640,
                "height": 480 + index,
                "orientation": 1,
                "bytes": 50_000,
                "modified_at": 0,
            }
            for number, label in enumerate(labels)
            for split in splits
            for index in range(each + number % 2 * more)
        ]
        thumbnails = [
            {"path": row["path"], "label": row["label"], "jpeg": _jpeg(number)}
            for number, row in enumerate(rows[:60])
        ]
        classes = [
            {"label": label, "split": split, "images": each + number % 2 * more}
            for number, label in enumerate(labels)
            for split in splits
        ]
        return self.snapshot(
            "raw_images",
            pa.Table.from_pylist(rows, RAW_SCHEMA),
            figures={"images": len(rows), "files_found": len(rows)},
            siblings={
                THUMBNAILS: pa.Table.from_pylist(thumbnails, THUMBNAIL_SCHEMA),
                CLASSES: pa.Table.from_pylist(classes, CLASSES_SCHEMA),
            },
        )

    def rejected(self, reasons: Mapping[str, int]) -> Snapshot:
        rows = [
            {
                "path": HOSTILE[0] + f"/{index}",
                "bytes": 1,
                "sha256": None,
                "reason": reason,
                "detail": "",
            }
            for reason, count in reasons.items()
            for index in range(count)
        ]
        table = pa.Table.from_pylist(rows, REJECTED_SCHEMA)
        figures = {"rejected": len(rows), "reasons": dict(reasons)}
        return self.snapshot("rejected_images", table, figures=figures)

    def model(self) -> Snapshot:
        figures = {"alpha": 1.0, "image_size": 224, "relative_error": 4.1e-6}
        return self.holding("model_weights", "model.tflite", b"x" * 8_900_000, figures)

    def pca(self, features: Snapshot) -> Snapshot:
        rows = np.random.default_rng(0).normal(size=(60, 32)) / np.arange(1, 33)
        fitted = pca.fit(Moments.of(rows, rows[0]), rows[0], n_components=0.95, standardize=False)
        figures = {
            "components": len(fitted.components),
            "features": 32,
            "explained_variance": float(fitted.explained_variance_ratio.sum()),
            "images": 60,
            "n_components": 0.95,
            "fitted_on": "Training",
        }
        return self.holding("pca_model", "pca.npz", fitted.to_npz(), figures, [features])

    def projected(self, inputs: Sequence[Snapshot], labels: Sequence[str | None]) -> Snapshot:
        rng = np.random.default_rng(1)
        rows = [
            {"path": str(index), "label": label, "pc_1": x, "pc_2": y, "part": "part"}
            for label in labels
            for index, (x, y) in enumerate(rng.normal(rng.normal(size=2) * 5, size=(12, 2)))
        ]
        return self.snapshot(
            "pca_features",
            PCA_FEATURES_SCHEMA.empty_table(),
            inputs=inputs,
            siblings={MAP: pa.Table.from_pylist(rows, MAP_SCHEMA)},
        )

    def pipeline(
        self,
        labels: Sequence[str | None],
        *,
        splits: Sequence[str | None] = ("Training", "Test"),
        each: int = 3,
        more: int = 0,
        name: str = "{}.jpg",
        reasons: Mapping[str, int] | None = None,
    ) -> Pipeline:
        raw, model = self.raw(labels, splits, each=each, more=more, name=name), self.model()
        figures = {"features_per_image": 1280, "inferences": 1_234_567, "images_per_second": 421.7}
        empty = FEATURES_SCHEMA.empty_table()
        features = self.snapshot("features", empty, figures=figures, inputs=(raw, model))
        fitted = self.pca(features)
        projected = self.projected((features, fitted), labels)
        return Pipeline(raw, self.rejected(reasons or {}), model, features, fitted, projected)


def _jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 60 + seed % 36), f"hsl({seed * 37 % 360}, 70%, 50%)").save(buffer, "JPEG")
    return buffer.getvalue()


def _with(snapshot: Snapshot, **fields: Any) -> Snapshot:
    """The same with another commit."""
    return replace(snapshot, commit=replace(snapshot.commit, **fields))


def _fitted_on_all(pipeline: Pipeline) -> Pipeline:
    """With a number of components that was asked for, rather than a share."""
    figures = {**pipeline.pca_model.figures, "n_components": 5.0, "fitted_on": "all"}
    return replace(pipeline, pca_model=_with(pipeline.pca_model, figures=figures))


def names(count: int) -> list[str | None]:
    return [f"Fruit {index:03d}" for index in range(count)]


def show_of(pipeline: Pipeline, **fields: Any) -> Show:
    facts = {"recognition": None, "benchmark": None, "bill_eur": None} | fields
    return Show(Facts(pipeline, **facts), "Prénom Nom", "Paris", date(2026, 11, 1))


@pytest.fixture(scope="module")
def shows(tmp_path_factory: pytest.TempPathFactory, finished) -> dict[str, tuple[Show, str]]:
    """The facts that decks are made of, with a language each."""
    lake = finished[0].lake

    def made(labels: Sequence[str | None], **fields: Any) -> Pipeline:
        return Made(tmp_path_factory.mktemp("lake")).pipeline(labels, **fields)

    own = Pipeline(*(lake.current(name) for name in ASSETS))
    recognition = Recognition.of(lake.current("recognition"), (own.features, own.pca_features))
    real = show_of(own, recognition=recognition)
    everything = made(names(8), reasons={"empty": 2, "corrupt": 1})
    many = dict.fromkeys(REASONS, 321)
    hostile = replace(
        show_of(made(HOSTILE, reasons={"unsupported_format": 1})),
        author="\x00W" * 300,
        place="<place>\n" + "W" * 300,
    )
    measured = Recognition(5000, 20_000, 0.95123, 0.9634, "0" * 16)
    in_bucket = show_of(everything, recognition=measured, benchmark=BENCHMARK, bill_eur=1.2345)
    vars(in_bucket.facts)["place"] = Place(in_bucket=True, region="eu-south-1")
    return {
        "real, fr": (real, "fr"),
        "real, en": (real, "en"),
        "everything, fr": (in_bucket, "fr"),
        "everything, en": (
            show_of(
                everything,
                recognition=measured,
                benchmark=replace(BENCHMARK, size=120),
                bill_eur=0.1,
            ),
            "en",
        ),
        "fruits 360": (show_of(made(names(9), name="r2_{}_100.jpg"), recognition=measured), "fr"),
        "3 classes": (show_of(made(names(3))), "fr"),
        "131 classes": (
            show_of(made(names(131), splits=("Training", "Test", "Validation"), more=1)),
            "fr",
        ),
        "all fitted": (show_of(_fitted_on_all(made(names(4)))), "en"),
        "many rejected": (show_of(made(names(20), reasons=many)), "en"),
        "hostile": (hostile, "fr"),
        "hostile, en": (hostile, "en"),
        "no label": (show_of(made([None], splits=(None,), each=4)), "fr"),
        "some without": (show_of(made([*names(2), None], splits=(None, "Test"))), "en"),
    }


ASSETS = (
    "raw_images",
    "rejected_images",
    "model_weights",
    "features",
    "pca_model",
    "pca_features",
)
DECKS = (
    "real, fr",
    "real, en",
    "everything, fr",
    "everything, en",
    "fruits 360",
    "3 classes",
    "131 classes",
    "all fitted",
    "many rejected",
    "hostile",
    "hostile, en",
    "no label",
    "some without",
)
TABLES = {"fr": texts_fr.TEXTS, "en": texts_en.TEXTS}


class Asked(dict[str, str]):
    """A table of texts that remembers which of them were asked for."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        super().__init__(texts)
        self.keys_asked: set[str] = set()

    def __getitem__(self, key: str) -> str:
        self.keys_asked.add(key)
        return super().__getitem__(key)


@pytest.fixture(scope="module")
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> tuple[dict[str, Deck], set[str]]:
    """All decks, and the keys of the texts in them; built once for all workers."""

    def make(folder: Path) -> None:
        asked = {code: Asked(texts) for code, texts in TABLES.items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts_fr, "TEXTS", asked["fr"])
            patch.setattr(texts_en, "TEXTS", asked["en"])
            for name, (show, code) in request.getfixturevalue("shows").items():
                deck = build(show, code)
                (folder / f"{name}.pptx").write_bytes(deck.content)
                (folder / f"{name}.json").write_text(json.dumps(deck.titles))
        keys = asked["fr"].keys_asked | asked["en"].keys_asked
        (folder / "keys.json").write_text(json.dumps(sorted(keys)))

    folder = made_once(tmp_path_factory, worker_id, "decks", make)

    def read(name: str) -> Deck:
        titles = json.loads((folder / f"{name}.json").read_text())
        return Deck(
            (folder / f"{name}.pptx").read_bytes(),
            tuple((title, minutes) for title, minutes in titles),
        )

    keys = set(json.loads((folder / "keys.json").read_text()))
    return {name: read(name) for name in DECKS}, keys


class Opened(dict[str, Any]):
    """Decks as python-pptx opens them, each when it is first looked at."""

    def __init__(self, decks: Mapping[str, Deck]) -> None:
        super().__init__()
        self._decks = decks

    def __missing__(self, name: str) -> Any:
        self[name] = Presentation(io.BytesIO(self._decks[name].content))
        return self[name]


@pytest.fixture(scope="module")
def built(made: tuple[dict[str, Deck], set[str]]) -> Opened:
    """All decks, opened."""
    return Opened(made[0])


@pytest.fixture(params=DECKS)
def deck(request: pytest.FixtureRequest, built: Opened) -> Any:
    return built[request.param]


def words(slide: Any) -> str:
    """All that a slide says, in its shapes, tables and charts."""
    found = [shape.text_frame.text for shape in slide.shapes if shape.has_text_frame]
    for shape in slide.shapes:
        if shape.has_table:
            found += [cell.text for row in shape.table.rows for cell in row.cells]
        if shape.has_chart:
            found += re.findall(r"<(?:a:t|c:v)>([^<]*)", shape.chart.part.blob.decode())
    return "\n".join(found).replace("\N{NO-BREAK SPACE}", " ")


def notes(slide: Any) -> str:
    return slide.notes_slide.notes_text_frame.text.replace("\N{NO-BREAK SPACE}", " ")


def test_every_deck_is_tried(shows):
    assert tuple(shows) == DECKS


class TestWhole:
    """Promises that every deck keeps."""

    def test_slides_titles_and_notes(self, deck):
        assert 12 <= len(deck.slides) <= 16
        titles = [slide.shapes.title.text_frame.text for slide in deck.slides]
        assert all(titles)
        assert len(set(titles)) == len(titles)
        assert all(len(notes(slide)) > 150 for slide in deck.slides)

    def test_every_slide_is_numbered_but_the_cover(self, deck):
        numbered = ["slidenum" in _xml(slide) for slide in deck.slides]
        assert numbered == [False] + [True] * (len(numbered) - 1)

    def test_nothing_is_outside_the_slide(self, deck):
        for slide, shape in _shapes(deck):
            assert shape.left >= 0, (words(slide), shape.name)
            assert shape.top >= 0, (words(slide), shape.name)
            assert shape.left + shape.width <= deck.slide_width + 1, (words(slide), shape.name)
            assert shape.top + shape.height <= deck.slide_height + 1, (words(slide), shape.name)

    def test_no_placeholder_is_empty(self, deck):
        for slide in deck.slides:
            for placeholder in slide.placeholders:
                assert placeholder.text_frame.text.strip(), (words(slide), placeholder.name)

    def test_text_fits_its_box(self, deck):
        for _, shape in _shapes(deck):
            for frame, width, height in _frames(shape):
                needed = _height(frame, width)
                assert needed <= height + Pt(1), (frame.text, needed / 12700, height / 12700)

    def test_no_text_is_smaller_than_12_points(self, deck):
        for slide, shape in _shapes(deck):
            for frame, _, _ in _frames(shape):
                sizes = [run.font.size for paragraph in frame.paragraphs for run in paragraph.runs]
                if not shape.is_placeholder:
                    assert all(size is not None for size in sizes), frame.text
                assert all(size >= Pt(12) for size in sizes if size), frame.text
            if shape.has_chart:
                sizes = re.findall(r'sz="(\d+)"', shape.chart.part.blob.decode())
                assert sizes
                assert min(map(int, sizes)) >= 1200, words(slide)
        for layout in deck.slide_layouts:
            assert min(map(int, re.findall(r'sz="(\d+)"', _xml(layout)))) >= 1200

    def test_what_has_text_overlaps_nothing(self, deck):
        for slide in deck.slides:
            solid = [
                shape
                for shape in slide.shapes
                if (shape.has_text_frame and shape.text_frame.text.strip())
                or shape.has_chart
                or shape.has_table
                or shape.shape_type == 13
            ]
            boxes = [(shape.left, shape.top, shape.width, shape.height) for shape in solid]
            for (one, box), (other, its) in combinations(zip(solid, boxes, strict=True), 2):
                assert not _overlap(box, its), (one.name, other.name, words(slide))

    def test_contrast_is_fine(self, deck):
        for _, shape in _shapes(deck):
            for frame, _, _ in _frames(shape):
                ground = _fill(shape) or THEME.paper
                for paragraph in frame.paragraphs:
                    for run in paragraph.runs:
                        colour = run.font.color
                        if colour is not None and colour.type is not None and not shape.has_table:
                            assert _contrast(f"#{colour.rgb}", ground) >= 4.5, run.text

    def test_pictures_and_charts_have_alternative_text(self, deck):
        described = 0
        for _, shape in _shapes(deck):
            if shape.has_chart or shape.shape_type == 13:
                alt = shape._element._nvXxPr.cNvPr.get("descr")
                assert len(alt) > 15
                described += 1
        assert described >= 5

    def test_ids_are_unique_and_connectors_attached(self, deck):
        connectors = 0
        for slide in deck.slides:
            ids = [shape.shape_id for shape in slide.shapes]
            assert len(set(ids)) == len(ids)
            for shape in slide.shapes:
                if shape.shape_type is None or "cxnSp" not in shape._element.tag:
                    continue
                connectors += 1
                ends = re.findall(r'(?:st|end)Cxn id="(\d+)"', _xml(shape))
                assert len(ends) == 2
                assert {int(end) for end in ends} <= set(ids)
        assert connectors >= 20

    def test_properties(self, deck):
        properties = deck.core_properties
        assert properties.title
        assert properties.author
        assert properties.created.date() == date(2026, 11, 1)
        assert not properties.comments
        assert properties.language in {"fr-FR", "en-GB"}
        tags = set(re.findall(r'lang="([^"]+)"', "".join(map(_xml, deck.slides))))
        assert tags == {properties.language}


def test_minutes_are_those_of_the_defence(built):
    assert sum(SECTIONS.values()) == 20
    for section, minutes in SECTIONS.items():
        assert sum(one.minutes for one in SLIDES if one.section == section) == minutes
    spoken = [notes(slide).splitlines()[0] for slide in built["real, fr"].slides]
    assert spoken[0] == "Durée : 30 s, de 0 min à 30 s"
    assert spoken[2] == "Durée : 1 min 30, de 1 min 30 à 3 min"
    assert spoken[-1].endswith("à 20 min")
    for before, after in pairwise(spoken):
        assert before.rpartition(" à ")[2] == after.partition(", de ")[2].partition(" à ")[0]


def test_the_same_show_is_the_same_file(shows, made):
    (show, code), once = shows["everything, fr"], made[0]["everything, fr"]
    again = build(show, code)
    assert once.content == again.content
    with zipfile.ZipFile(io.BytesIO(once.content)) as package:
        assert {one.date_time[0] for one in package.infolist()} == {1980}
        books = [name for name in package.namelist() if name.endswith(".xlsx")]
        for name in books:
            with zipfile.ZipFile(io.BytesIO(package.read(name))) as book:
                assert {one.date_time[0] for one in book.infolist()} == {1980}
                assert b">2026-11-01T00:00:00Z</dcterms:created>" in book.read("docProps/core.xml")
    assert len(books) >= 5
    assert once.titles == again.titles
    english = made[0]["everything, en"]
    assert [title for title, _ in once.titles] != [title for title, _ in english.titles]


def test_no_deck_says_where_it_was_made(made, finished):
    pipeline, _ = finished
    content = made[0]["real, fr"].content
    packed = dict(contents("deck", content))
    assert any(name.endswith("sheet1.xml") for name in packed), "workbooks are looked into"
    places = (pipeline.lake.base, str(pipeline.source), tempfile.gettempdir())
    assert not leaks({"deck": content}, *places)


def test_every_text_is_used(made):
    elsewhere = {key for key in texts_fr.TEXTS if key.startswith("month.")}
    assert texts_fr.TEXTS.keys() - made[1] == elsewhere - {"month.11"}


def _fields(text: str) -> set[tuple[str | None, str | None]]:
    return {(name, spec) for _, name, spec, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same_of_the_same():
    assert texts_fr.TEXTS.keys() == texts_en.TEXTS.keys()
    for key, text in texts_fr.TEXTS.items():
        assert _fields(text) == _fields(texts_en.TEXTS[key]), key


def test_figures_are_those_of_the_lake(built, shows, finished):
    lake = finished[0].lake
    figures = {name: lake.current(name).figures for name in (*ASSETS, "recognition")}
    shown = shows["real, fr"][0].facts.shown()
    assert shown["images"] == figures["raw_images"]["images"] == 90
    assert shown["classes"] == 15
    assert shown["rejected"] == figures["rejected_images"]["rejected"] == 0
    assert shown["components"] == figures["pca_model"]["components"]
    assert shown["explained_variance"] == figures["pca_model"]["explained_variance"]
    assert shown["accuracy_components"] == figures["recognition"]["accuracy_components"]
    assert shown["images_per_second"] == figures["features"]["images_per_second"]
    english = Language.of("en")
    text = "\n".join(map(words, built["real, en"].slides))
    for expected in (
        "90 photos, 15 classes, drawn by the project",
        f"{english.number(figures['pca_model']['components'])} of 1,280 components keep "
        f"{english.share(figures['pca_model']['explained_variance'], 1)}",
        f"{english.share(figures['recognition']['accuracy_components'], 1)} of 30 test photos",
        f"90 inferences at {english.number(figures['features']['images_per_second'])} images/s",
        f"in {english.number(lake.current('features').commit.seconds, 1)} s",
    ):
        assert expected in text
    assert lake.current("pca_model").version in notes(built["real, en"].slides[10])


def test_what_is_missing_is_said_in_words(built, shows):
    assert set(shows["3 classes"][0].facts.missing) == MISSING
    text = "\n".join(map(words, built["3 classes"].slides))
    for sentence in (
        "Facturé : non mesuré",
        "Non mesuré : lancer « make bench »",
        "Il faut des photos étiquetées",
    ):
        assert sentence in text
    assert shows["everything, fr"][0].facts.missing == ()
    text = "\n".join(map(words, built["everything, fr"].slides))
    assert "on mesuré" not in text
    for sentence in (
        "1,23 €",
        "4,1 fois le notebook",
        "95,1 % des 5 000 photos",
        "14 000 photos, même",
    ):
        assert sentence in text
    assert "only 120 photos" in "\n".join(map(words, built["everything, en"].slides))


def test_many_classes_are_summed_up(built):
    text = words(built["131 classes"].slides[2])
    assert "Autres classes : 119, avec 1 230 photos, de 9 à 12 par classe." in text
    assert "Fruit 023 (12)" in text
    assert "Fruit 025" not in text
    assert "Autres classes : 3, avec 18 photos, 6 par classe." in words(built["real, fr"].slides[2])
    assert "Autres classes" not in words(built["3 classes"].slides[2])
    assert "7 classes éloignées" in words(built["131 classes"].slides[10])


def test_rejected_files_are_counted_by_reason(built):
    text = words(built["many rejected"].slides[8])
    assert "2,247 of 120 set aside" in text
    assert "truncated" in text
    assert "aucun rejeté" in words(built["3 classes"].slides[8])


def test_labels_are_never_taken_for_anything_else(built):
    text = "\n".join(map(words, built["hostile"].slides))
    assert "{images:n} {0} {" in text
    assert "<b>&amp;amp;</b>".replace("&amp;amp;", "&amp;") in text.replace("&lt;", "<").replace(
        "&gt;", ">"
    ).replace("&amp;amp;", "&amp;")
    assert "(vide)" in text
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text


def test_limits_are_those_of_the_data(built):
    drawn = words(built["real, fr"].slides[-1])
    assert "Photos dessinées, pas réelles" in drawn
    assert "Contenus identiques dans deux jeux : 0" in drawn
    own = words(built["no label"].slides[-1])
    assert "Pas de jeu de test séparé" in own
    assert "Arrière-plans variés" in own
    assert "Contenus identiques dans deux jeux : 9" in words(built["3 classes"].slides[-1])


def test_films_of_fruits_360_are_known_by_their_names(built):
    slides = built["fruits 360"].slides
    assert "mêmes fruits, filmés en rotation" in words(slides[-1])
    assert "CC BY-SA 4.0" in words(slides[-1])
    assert "de la base Fruits-360" in words(slides[2])
    assert "Fruits-360" not in "\n".join(map(words, built["3 classes"].slides))


def test_a_share_that_was_not_asked_for_has_no_line(built):
    text = words(built["all fitted"].slides[10])
    assert "target" not in text
    assert "(all)" in text
    assert "target: 95%" in words(built["real, en"].slides[10])


def test_workbooks_of_charts_hold_no_formula_and_no_link(built):
    books = 0
    for _, shape in _shapes(built["hostile"]):
        if shape.has_chart:
            with zipfile.ZipFile(
                io.BytesIO(shape.chart.part.chart_workbook.xlsx_part.blob)
            ) as book:
                sheet = book.read("xl/worksheets/sheet1.xml").decode()
            assert not re.search("<f[ >]|<hyperlink", sheet)
            books += 1
    assert books >= 4


class TestFacts:
    """Facts that are read of snapshots."""

    def test_snapshots_of_different_runs_are_refused(self, tmp_path: Path):
        pipeline = Made(tmp_path).pipeline(names(2))
        pipeline.check()
        older = _with(pipeline.raw, recipe="0" * 16)
        with pytest.raises(DatasetError, match="features was made from version raw_images"):
            replace(pipeline, raw=older).check()

    def test_recognition_of_other_versions_is_none(self, finished):
        lake = finished[0].lake
        recognition = lake.current("recognition")
        both = lake.current("features"), lake.current("pca_features")
        assert Recognition.of(recognition, both) is not None
        assert Recognition.of(recognition, (both[0], lake.current("raw_images"))) is None
        assert Recognition.of(None, both) is None
        nothing = _with(recognition, figures={**recognition.figures, "test": 0})
        assert Recognition.of(nothing, both) is None

    def test_sizes_and_backgrounds(self, finished, tmp_path: Path):
        lake = finished[0].lake
        drawn = show_of(Pipeline(*(lake.current(name) for name in ASSETS))).facts
        assert drawn.size == (100, 100, True)
        assert drawn.on_white > 0.8
        own = show_of(Made(tmp_path).pipeline(names(2))).facts
        assert own.size == (640, 481, False)
        assert own.on_white == 0
        assert own.megabytes == pytest.approx(0.6)

    @pytest.mark.parametrize("count", [1, 2, 7, 100])
    def test_a_median_is_that_of_all_photos(self, count: int):
        widths = np.random.default_rng(count).integers(100, 120, count).tolist()
        assert _median(Counter(widths)) == statistics.median_low(widths)

    def test_thumbnails_show_as_many_classes_as_may_be(self, tmp_path: Path):
        facts = show_of(Made(tmp_path).pipeline(names(5), each=2)).facts
        assert [label for _, label in facts.thumbnails[:5]] == names(5)

    def test_plans_are_for_the_photos_at_hand_and_more(self, tmp_path: Path):
        plans = show_of(Made(tmp_path).pipeline(names(2))).facts.plans
        assert [one.work.images for one in plans] == [12, 100_000, 1_000_000]
        assert plans[0].work.megabytes == pytest.approx(0.6)
        assert plans[0].expected_eur < plans[2].expected_eur


class TestBenchmark:
    """Measurements that are read of the benchmark's file."""

    @staticmethod
    def _result(contender: str, size: int, median: float, executors: int = 0) -> dict[str, Any]:
        return {
            "contender": contender,
            "size": size,
            "median": median,
            "executors": executors,
            "peaks": {"worker": 100},
        }

    def test_the_largest_size_that_both_did_counts(self, tmp_path: Path):
        file = tmp_path / "benchmark.json"
        results = [
            self._result("intern", 100, 10),
            self._result("project", 100, 5),
            self._result("intern", 200, 10),
            self._result("project", 200, 2),
            self._result("project", 200, 1000, executors=2),
            self._result("ceiling", 200, 1),
            self._result("project", 5000, 3),
            self._result("project_pca", 5000, 3),
        ]
        file.write_text(json.dumps({"results": results}))
        found = Benchmark.read(file)
        assert found is not None
        assert (found.size, found.times, found.is_quick) == (200, 5.0, True)
        assert found.rates == {"intern": 20.0, "project": 100.0, "ceiling": 200.0}
        assert list(found.rates) == ["intern", "project", "ceiling"]

    def test_it_is_what_the_benchmark_writes(self, tmp_path: Path):
        report = pytest.importorskip("benchmarks.report")
        result = report.Result("intern", 10, [2.0, 4.0, 3.0], {"driver": 1, "worker": 7})
        own = report.Result("project", 10, [1.0], {"worker": 5})
        (tmp_path / "b.json").write_text(report.as_json([result, own], [], {}))
        found = Benchmark.read(tmp_path / "b.json")
        assert found is not None
        assert found.times == pytest.approx(3)
        assert found.worker_bytes == {"intern": 7, "project": 5}

    def test_nothing_to_compare_is_none(self, tmp_path: Path):
        assert Benchmark.read(tmp_path / "none.json") is None
        (tmp_path / "own.json").write_text(json.dumps({"results": [self._result("project", 1, 1)]}))
        assert Benchmark.read(tmp_path / "own.json") is None

    @pytest.mark.parametrize(
        "content",
        ["", "[]", "{}", '{"results": 1}', '{"results": [{}]}', "\x00", '{"results": ["intern"]}'],
    )
    def test_anything_else_is_refused(self, tmp_path: Path, content: str):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(DatasetError, match="is not what `make bench` writes"):
            Benchmark.read(tmp_path / "b.json")

    def test_a_folder_is_refused(self, tmp_path: Path):
        with pytest.raises(DatasetError, match="is not what `make bench` writes"):
            Benchmark.read(tmp_path)


class TestLanguage:
    """Numbers and typography."""

    def test_numbers(self):
        french, english = Language.of("fr"), Language.of("en")
        space = "\N{NO-BREAK SPACE}"
        assert french.number(1234567.891, 2) == f"1{space}234{space}567,89"
        assert english.number(1234567.891, 2) == "1,234,567.89"
        assert french.share(0.9506, 1) == f"95,1{space}%"
        assert english.share(1) == "100%"
        assert [french.duration(one).replace(space, " ") for one in (0, 0.5, 1, 1.5, 20)] == [
            "0 min",
            "30 s",
            "1 min",
            "1 min 30",
            "20 min",
        ]

    def test_values_are_not_typeset(self):
        text = Language.of("fr")("title.notes", author="it's {author:s} : a\nb")
        assert "it's {author:s} : a b" in text
        assert "l\N{RIGHT SINGLE QUOTATION MARK}architecture" in text

    def test_a_text_or_a_value_that_lacks_is_an_error(self):
        with pytest.raises(KeyError):
            Language.of("fr")("no such text")
        with pytest.raises(KeyError):
            Language.of("fr")("assets.photos")


class TestMeasure:
    """Room that text takes."""

    def test_lines(self):
        one = measure.width("one two", size=10)
        assert measure.line_count("one two", room=one + 1, size=10) == 1
        assert measure.line_count("one two", room=one - 1, size=10) == 2
        assert measure.line_count("one\ntwo", room=one, size=10) == 2
        assert measure.line_count("", room=one, size=10) == 1
        assert measure.line_count("W" * 100, room=100, size=10) >= 10

    @pytest.mark.parametrize("text", ["W" * 500, "short", "", "a b " * 300])
    def test_elided_text_fits(self, text: str):
        short = measure.elided(text, room=80, size=12)
        assert measure.width(short, size=12) <= 80
        assert short == text or "…" in short

    def test_plain_text_can_be_written_as_xml(self):
        for text in [*HOSTILE, "\udcff", "\ufffe", "\ue000"]:
            found = measure.plain(text)
            assert "\n" not in found
            found.encode()
            assert not re.search("[\x00-\x1f\ufffe\uffff]", found)


def test_boxes_are_cut_without_a_rest():
    box = Box(1, 2, 10, 4)
    left, right = box.columns(1, 3, gap=0.4)
    assert (left.left, right.right) == (1, pytest.approx(11))
    assert right.left - left.right == pytest.approx(0.4)
    assert right.width == pytest.approx(3 * left.width)
    upper, lower = box.rows(1, 1, gap=0.4)
    assert lower.bottom == pytest.approx(box.bottom)
    assert upper.width == lower.width == 10


def test_a_mosaic_keeps_proportions_and_leaves_tiles_empty():
    wide = np.zeros((10, 40, 3), np.uint8)
    sheet = np.asarray(Image.open(io.BytesIO(mosaic([wide], columns=2, rows=1, gap=8))))
    assert sheet.shape == (160, 328, 3)
    dark: np.ndarray = sheet.max(axis=2) < 60
    assert dark[80, 5:155].all()
    assert not dark[:50].any()
    assert not dark[:, 168:].any()


def _xml(part: Any) -> str:
    return serialize_part_xml(part._element).decode()


def _shapes(deck: Any) -> Iterator[tuple[Any, Any]]:
    for slide in deck.slides:
        for shape in slide.shapes:
            yield slide, shape


def _frames(shape: Any) -> Iterator[tuple[Any, int, int]]:
    """Text frames of a shape, with the room inside their margins, in EMU."""
    if shape.has_text_frame and shape.text_frame.text.strip():
        frame = shape.text_frame
        margins = (0, 0, 0, 0)
        if not shape.is_placeholder:
            margins = frame.margin_left, frame.margin_right, frame.margin_top, frame.margin_bottom
        yield frame, shape.width - margins[0] - margins[1], shape.height - margins[2] - margins[3]
    if shape.has_table:
        for row in shape.table.rows:
            for index, cell in enumerate(row.cells):
                width = shape.table.columns[index].width - cell.margin_left - cell.margin_right
                yield cell.text_frame, width, row.height - cell.margin_top - cell.margin_bottom


def _font(*, bold: bool) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), 64)


FONTS = {bold: _font(bold=bold) for bold in (False, True)}


def _height(frame: Any, width: int) -> float:
    """EMU that a text needs in a wide font: wrapped by the letters of its lines, not by words."""
    total = 0.0
    for paragraph in frame.paragraphs:
        size = max((run.font.size or Pt(12) for run in paragraph.runs), default=Pt(12))
        font = FONTS[any(bool(run.font.bold) for run in paragraph.runs)]
        indent = int(paragraph._p.get_or_add_pPr().get("marL", 0))
        lines = _wrapped(paragraph.text, font, (width - indent) / size * 64)
        total += lines * size * 1.17 + (paragraph.space_before or 0)
    return total


def _wrapped(text: str, font: ImageFont.FreeTypeFont, room: float) -> int:
    """Lines that a paragraph takes, word by word."""
    lines, line = 1, ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= room:
            line = longer
            continue
        if line:
            lines += 1
        pieces = [word]
        if font.getlength(word) > room:
            letters = max(1, int(len(word) * room / font.getlength(word)))
            pieces = textwrap.wrap(word, letters)
        lines += len(pieces) - 1
        line = pieces[-1]
    return lines


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two boxes (left, top, width, height) share more than a point, in EMU."""
    slack = 12700
    return all(
        one[axis] + one[axis + 2] > other[axis] + slack
        and other[axis] + other[axis + 2] > one[axis] + slack
        for axis in (0, 1)
    )


def _fill(shape: Any) -> str | None:
    fill = getattr(shape, "fill", None)
    return f"#{fill.fore_color.rgb}" if fill is not None and fill.type == 1 else None


def _contrast(one: str, other: str) -> float:
    """WCAG 2: ratio of relative luminances."""
    lights = []
    for colour in (one, other):
        channels = [value / 255 for value in ImageColor.getrgb(colour)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)
