"""A corpus of real files that break photo pipelines, each with the outcome it must have."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from fruits_assets.core.images import RejectedImage, examine, pixels, upright_rgb

_SHARED = os.environ.get("FRUITS_SHARED_DATA")
_DATA = Path(_SHARED) if _SHARED else Path(__file__).parents[3] / "shared" / "data"
_CORPUS = _DATA / "messy"
_MAX_PIXELS = 100_000_000

pytestmark = pytest.mark.skipif(
    not _CORPUS.is_dir(), reason=f"no corpus of messy photos at {_CORPUS} (FRUITS_SHARED_DATA)"
)


def _expected() -> list[dict[str, str]]:
    if not _CORPUS.is_dir():
        return []
    with (_CORPUS / "expected.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def _files(outcome: str) -> list[str]:
    return [row["file"] for row in _expected() if row["outcome"] == outcome]


def test_the_corpus_and_its_table_name_the_same_files() -> None:
    assert {row["file"] for row in _expected()} == {
        path.name for path in (_CORPUS / "photos").iterdir()
    }


@pytest.mark.parametrize("row", _expected(), ids=lambda row: row["file"])
def test_every_file_has_its_expected_outcome(row: dict[str, str]) -> None:
    data = (_CORPUS / "photos" / row["file"]).read_bytes()
    try:
        photo = examine(data, max_pixels=_MAX_PIXELS)
    except RejectedImage as error:
        found = ("reject", error.reason, "", "")
    else:
        found = ("accept", photo.format, str(photo.width), str(photo.height))
    assert found[0] == row["outcome"]
    assert found[1] in row["format_or_reason"].split("|")
    assert found[2:] == (row["width"], row["height"])


@pytest.mark.parametrize("name", _files("accept"))
def test_accepted_files_keep_their_pixels_and_lose_their_metadata(name: str) -> None:
    path = _CORPUS / "photos" / name
    photo = examine(path.read_bytes(), max_pixels=_MAX_PIXELS)
    with Image.open(path) as before, Image.open(io.BytesIO(photo.content)) as after:
        assert after.mode == before.mode
        assert after.tobytes() == before.tobytes()
        if photo.format != "TIFF":  # whose pixels are described by tags that Pillow calls EXIF
            assert not dict(after.getexif())
        left = {key for key, value in after.info.items() if value}
        assert not left & {"exif", "xmp", "comment", "photoshop", "metadata"}
    assert pixels(photo.content, orientation=photo.orientation, size=32).shape == (32, 32, 3)


@pytest.mark.parametrize("name", [n for n in _files("accept") if n.startswith(("exif", "phone"))])
def test_oriented_photos_are_turned_as_pillow_turns_them(name: str) -> None:
    path = _CORPUS / "photos" / name
    photo = examine(path.read_bytes(), max_pixels=_MAX_PIXELS)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    upright = upright_rgb(photo.content, orientation=photo.orientation)
    assert upright.size == (photo.width, photo.height)
    assert np.array_equal(np.asarray(upright), np.asarray(expected))
