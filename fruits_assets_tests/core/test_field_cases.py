"""Files after public bug reports, each with the outcome that it must have."""

import csv
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fruits_assets.core.images import Photo, RejectedImage, examine, upright_rgb

_SHARED = os.environ.get("FRUITS_SHARED_DATA")
_DATA = Path(_SHARED) if _SHARED else Path(__file__).parents[3] / "shared" / "data"
_CASES = _DATA / "field"

pytestmark = pytest.mark.skipif(
    not _CASES.is_dir(), reason=f"no cases from the field at {_CASES} (FRUITS_SHARED_DATA)"
)


def _rows() -> list[dict[str, str]]:
    if not _CASES.is_dir():
        return []
    with (_CASES / "expected.csv").open(newline="") as table:
        rows = csv.DictReader(table)
        return [row for row in rows if not row["file"].startswith("trees/")]


def _outcome(name: str) -> Photo | RejectedImage:
    try:
        return examine((_CASES / name).read_bytes(), max_pixels=1_000_000)
    except RejectedImage as error:
        return error


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row["file"])
def test_every_file_is_accepted_or_rejected_as_it_must_be(row: dict[str, str]) -> None:
    found, told = _outcome(row["file"]), row["expected_detail"]
    if row["expected_outcome"] == "debatable":  # all pixels are there: docs/data.md
        assert isinstance(found, Photo)
        assert found.orientation == 1
        return
    if isinstance(found, RejectedImage):
        assert "reject" in row["expected_outcome"]
        assert found.reason in told
        assert "damaged" not in found.detail or "truncated|corrupt" in told
        for wanted in ("camera raw", "binary mode"):
            assert wanted not in told or wanted in found.detail
        return
    assert "accept" in row["expected_outcome"]
    size = re.search(r"(\d+)x(\d+)", told)
    assert size is None or (found.width, found.height) == (int(size[1]), int(size[2]))
    assert "orientation 1" not in told or found.orientation == 1
    for word in re.findall(r"'(\w+)'", told):
        assert not any(text in found.content for text in (word.encode(), word.encode("utf-16-be")))
    assert b"mmod" not in found.content


@pytest.mark.parametrize(
    "name", ["jpg_lossless8.jpg", "icc_personal.jpg", "tiff_no_bytecounts.tif", "png_big_icc.png"]
)
def test_their_pixels_are_those_that_pillow_sees(name: str) -> None:
    found = _outcome(name)
    assert isinstance(found, Photo)
    seen = upright_rgb(found.content, orientation=1)
    assert np.asarray(seen).std() > 5
    if name != "png_big_icc.png":  # which Pillow does not open
        with Image.open(_CASES / name) as before, Image.open(io.BytesIO(found.content)) as after:
            assert after.tobytes() == before.tobytes()
