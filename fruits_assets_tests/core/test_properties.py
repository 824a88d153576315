"""What holds of any bytes, any damage, any metadata and any names: properties, and what broke them.

Warnings are errors throughout these tests.
"""

import contextlib
import hashlib
import io
import os
import re
import struct
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.fuzz import (
    FORMATS,
    PEAK_BYTES,
    SECRET,
    Case,
    Report,
    damaged,
    mutated,
    run,
    samples,
)
from fruits_assets.core.decoder import Decoder
from fruits_assets.core.errors import SourceError
from fruits_assets.core.images import REASONS, Photo, RejectedImage, examine, pixels
from fruits_assets.core.metadata import strip
from fruits_assets.sources.folder import FolderPhotos
from fruits_assets.sources.layout import SPLITS, normal, places, split_named
from fruits_assets.storage.places import folder_at
from fruits_assets.transforms.ingest import (
    RAW_SCHEMA,
    REJECTED_SCHEMA,
    _ingested,
    _Limits,
)

_MAX_PIXELS = 20_000
_reproducible = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def _few(examples: int) -> settings:
    return settings(_reproducible, max_examples=examples)


_EXAMPLES = pytest.mark.parametrize("examples", [30, pytest.param(100, marks=pytest.mark.slow)])
"""Few after every change, as there are some for every format; many in the slow tier."""


def _outcome(data: bytes) -> Photo | RejectedImage:
    """What the examination finds, and nothing else may come of it."""
    try:
        photo = examine(data, max_pixels=_MAX_PIXELS)
    except RejectedImage as rejected:
        error = rejected
    else:
        _check_photo(photo)
        return photo
    assert error.reason in REASONS
    assert error.detail.endswith(".")
    return error


def _check_photo(photo: Photo) -> None:
    """It is whole, small enough, stripped for good, and can be seen."""
    assert photo.format in FORMATS
    assert 0 < photo.width * photo.height <= _MAX_PIXELS
    assert photo.orientation in range(1, 9)
    again = examine(photo.content, max_pixels=_MAX_PIXELS)
    assert again.content == photo.content
    seen = pixels(photo.content, orientation=photo.orientation, size=8)
    assert (seen.shape, seen.dtype) == ((8, 8, 3), np.uint8)


# Any bytes

_BEGINNINGS = [
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"),
    *(b"II+\0", b"MM\0+", b"RIFF\x40\0\0\0WEBPVP8 ", b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0"),
    *(b"\0\0\0\x14ftypavif\0\0\0\0avif", b"\0\0\0\x14ftypheic\0\0\0\0heic", b"%PDF", b"<svg", b""),
]


@_few(400)
@given(st.sampled_from(_BEGINNINGS), st.binary(max_size=400))
def test_any_bytes_are_a_photo_or_a_rejection(beginning: bytes, rest: bytes) -> None:
    _outcome(beginning + rest)


# Any damage


def _samples(image_format: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from(list(samples(image_format).values()))


@st.composite
def _damaged(draw: st.DrawFn, image_format: str) -> bytes:
    data, other = draw(_samples(image_format)), draw(_samples(draw(st.sampled_from(FORMATS))))
    return mutated(data, other, chance=draw(st.randoms(use_true_random=False)))


@_EXAMPLES
@pytest.mark.parametrize("image_format", FORMATS)
def test_damaged_images_are_a_photo_or_a_rejection(image_format: str, examples: int) -> None:
    outcomes = []

    @_few(3 * examples)
    @given(_damaged(image_format))
    def check(data: bytes) -> None:
        outcomes.append(_outcome(data))

    check()
    accepted = sum(isinstance(outcome, Photo) for outcome in outcomes)
    assert 0 < accepted < len(outcomes)


@_EXAMPLES
@pytest.mark.parametrize("image_format", FORMATS)
def test_images_cut_short_are_a_photo_or_a_rejection(image_format: str, examples: int) -> None:
    @_few(examples)
    @given(_samples(image_format), st.floats(0, 1, exclude_max=True))
    def check(data: bytes, share: float) -> None:
        _outcome(data[: int(share * len(data))])

    check()


# Any metadata


def _segment(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(payload) + 2) + payload


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + zlib.crc32(kind + payload).to_bytes(4)


def _riff(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)


def _box(kind: bytes, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def _kinds(*excluded: bytes) -> st.SearchStrategy[bytes]:
    letters = st.text(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=4, max_size=4
    )
    return letters.map(str.encode).filter(lambda kind: kind not in excluded)


_SECRETS = st.builds(
    lambda before, after: before + SECRET + after, st.binary(max_size=9), st.binary(max_size=9)
)


@st.composite
def _jpeg(draw: st.DrawFn) -> tuple[bytes, bytes]:
    clean, dirty = samples("JPEG")["JPEG plain"], bytearray()
    position = 2
    while clean[position + 1] != 0xDA:
        if draw(st.booleans()):
            prefixes = (b"", b"Exif\0\0", b"Photoshop 3.0\0", b"MPF\0", b"JFIF\0\1\1\0\0\1\0\1\1\1")
            prefix, code = draw(st.sampled_from(prefixes)), draw(st.integers(0xE0, 0xEF))
            dirty += _segment(draw(st.sampled_from((code, 0xFE))), prefix + draw(_SECRETS))
        end = position + 2 + int.from_bytes(clean[position + 2 : position + 4])
        dirty += clean[position:end]
        if draw(st.booleans()):  # what is in no segment
            dirty += draw(_SECRETS).replace(b"\xff", b"\xff\0")
        position = end
    return clean, clean[:2] + dirty + clean[position:] + draw(_SECRETS)


@st.composite
def _png(draw: st.DrawFn) -> tuple[bytes, bytes]:
    clean = samples("PNG")["PNG 16 bits"]
    colours = (b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI")
    kinds = _kinds(*colours).map(lambda kind: kind[:1].lower() + kind[1:])
    kind = st.one_of(kinds, st.sampled_from((b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME")))
    extra = [b"".join(_chunk(draw(kind), draw(_SECRETS)) for _ in range(2)) for _ in range(2)]
    return clean, clean[:33] + extra[0] + clean[33:-12] + extra[1] + clean[-12:] + draw(_SECRETS)


@st.composite
def _gif(draw: st.DrawFn) -> tuple[bytes, bytes]:
    clean = samples("GIF")["GIF gray"]
    start = 13 + (3 << (clean[10] & 7) + 1)
    extra = b""
    for _ in range(draw(st.integers(1, 3))):
        secret = draw(_SECRETS)
        name = draw(st.sampled_from((b"", b"\x0bNETSCAPE2.0", b"\x0bXMP DataXMP")))
        label = draw(st.integers(0, 255))
        extra += bytes([0x21, label]) + name + bytes([len(secret)]) + secret + b"\0"
    return clean, clean[:start] + extra + clean[start:-1] + extra + clean[-1:] + draw(_SECRETS)


@st.composite
def _webp(draw: st.DrawFn) -> tuple[bytes, bytes]:
    kinds = st.one_of(
        _kinds(b"ALPH", b"ANIM", b"ANMF", b"ICCP"), st.sampled_from((b"EXIF", b"XMP "))
    )
    secrets = [_riff(draw(kinds), draw(_SECRETS)) for _ in range(2)]
    clean = samples("WEBP")[draw(st.sampled_from(("WEBP alpha", "WEBP animated")))]
    body = clean[12:]
    if (frame := body.find(b"ANMF")) >= 0:
        size = int.from_bytes(body[frame + 4 : frame + 8], "little")
        inside = body[frame + 8 : frame + 8 + size] + secrets[0]
        body = body[:frame] + _riff(b"ANMF", inside) + body[frame + 8 + size :]
    return clean, _riff(b"RIFF", b"WEBP" + body + secrets[1]) + draw(_SECRETS)


@st.composite
def _boxed(draw: st.DrawFn, image_format: str) -> tuple[bytes, bytes]:
    kinds = st.one_of(
        _kinds(b"ftyp", b"meta", b"mdat", b"moov"), st.sampled_from((b"free", b"skip", b"uuid"))
    )
    clean = draw(_samples(image_format))
    boxes = [_box(draw(kinds), draw(_SECRETS)) for _ in range(draw(st.integers(1, 3)))]
    return clean, clean + b"".join(boxes) + b"\0\0\0\2" + SECRET


@st.composite
def _tiff(draw: st.DrawFn) -> tuple[bytes, bytes]:
    clean = samples("TIFF")["TIFF L raw"]
    own = st.integers(0xC800, 0xFFFF)  # of nobody in particular
    usual = st.sampled_from((269, 270, 271, 272, 305, 306, 315, 316, 700, 33432, 33723, 34377))
    exif = Image.Exif()
    exif.update(draw(st.dictionaries(st.one_of(own, usual), _SECRETS, min_size=1)))
    stream = io.BytesIO()
    with Image.open(io.BytesIO(clean)) as image:
        image.save(stream, "TIFF", exif=exif)
    return clean, stream.getvalue() + draw(_SECRETS)


_WITH_METADATA = {
    "JPEG": _jpeg(),
    "PNG": _png(),
    "GIF": _gif(),
    "WEBP": _webp(),
    "BMP": st.tuples(_samples("BMP"), _SECRETS).map(lambda pair: (pair[0], b"".join(pair))),
    "TIFF": _tiff(),
    "AVIF": _boxed("AVIF"),
    "HEIF": _boxed("HEIF"),
}


@_EXAMPLES
@pytest.mark.parametrize("image_format", FORMATS)
def test_metadata_of_any_kind_go_and_the_pixels_stay(image_format: str, examples: int) -> None:
    @_few(examples)
    @given(_WITH_METADATA[image_format])
    def check(pair: tuple[bytes, bytes]) -> None:
        assert SECRET in pair[1]
        same, photo = (examine(data, max_pixels=_MAX_PIXELS) for data in pair)
        assert SECRET not in photo.content
        seen, expected = (
            pixels(one.content, orientation=one.orientation, size=16) for one in (photo, same)
        )
        assert np.array_equal(seen, expected)

    check()


def test_a_png_that_cannot_be_decoded_without_an_unknown_chunk_is_rejected() -> None:
    data = samples("PNG")["PNG"]
    with pytest.raises(RejectedImage, match="chunk SECr") as caught:
        examine(data[:33] + _chunk(b"SECr", SECRET) + data[33:], max_pixels=_MAX_PIXELS)
    assert caught.value.reason == "unsupported_format"


@pytest.mark.parametrize("kind", [b"free", b"uuid", b"xml ", b"abcd"])
def test_boxes_beside_the_tables_of_items_are_blanked_however_many(kind: bytes) -> None:
    boxes = [_box(kind, SECRET), _box(b"hdlr", b"kept"), _box(kind, SECRET)]
    data = _box(b"ftyp", b"heic", bytes(4)) + _box(b"meta", bytes(4), *boxes)
    content = strip(data, "HEIF").content
    assert SECRET not in content
    assert len(content) == len(data)
    assert _box(b"hdlr", b"kept") in content


@pytest.mark.parametrize("kind", [b"iinf", b"iloc", b"iref", b"idat"])
def test_of_two_tables_of_items_one_could_hide_what_the_other_names(kind: bytes) -> None:
    meta = _box(b"meta", bytes(4), _box(kind, bytes(8)), _box(kind, bytes(8)))
    with pytest.raises(RejectedImage, match="twice") as caught:
        strip(_box(b"ftyp", b"heic", bytes(4)) + meta, "HEIF")
    assert caught.value.reason == "corrupt"


def test_unused_space_in_a_movie_is_blanked() -> None:
    movie = _box(b"moov", _box(b"free", SECRET), _box(b"trak", _box(b"skip", SECRET)))
    assert SECRET not in strip(_box(b"ftyp", b"avis", bytes(4)) + movie, "AVIF").content


def test_of_two_exif_chunks_of_a_webp_the_first_counts() -> None:
    data = samples("WEBP")["WEBP alpha"]
    body = data[12:] + _riff(b"EXIF", b"MM\0*" + SECRET)
    for first, orientation in ((body, 6), (body.replace(b"EXIF", b"NONE", 1), 1)):
        photo = examine(_riff(b"RIFF", b"WEBP" + first), max_pixels=_MAX_PIXELS)
        assert photo.orientation == orientation


def test_a_gif_cut_in_a_comment_is_stripped_for_good() -> None:
    """Once the cut comment was gone, the file was found whole, and grew by an end mark."""
    data = samples("GIF")["GIF gray"][:-1] + b"!\xfe\x17" + SECRET[:9]
    once = examine(data, max_pixels=_MAX_PIXELS).content
    assert once == samples("GIF")["GIF gray"]
    assert examine(once, max_pixels=_MAX_PIXELS).content == once


# Any path

_NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1),
    st.sampled_from([*SPLITS, *SPLITS.values(), "TEST", "Apple Red 1", "..."]),
).filter(lambda name: name not in {".", ".."})


@_few(300)
@given(st.lists(_NAMES, max_size=5), _NAMES)
def test_split_and_label_are_those_of_the_folders(folders: list[str], name: str) -> None:
    """The first folder that is named like a split is the split; the last other one is the label."""
    splits = [split for folder in folders if (split := split_named(folder))]
    first = next((i + 1 for i, folder in enumerate(folders) if split_named(folder)), 0)
    labels = [normal(folder) for folder in folders[first:] if not split_named(folder)]
    expected = (splits[0] if splits else None, next(filter(None, reversed(labels)), None))
    assert places(["/".join((*folders, name))]) == [expected]


# Any folder

_FILE_NAMES = st.one_of(
    st.binary(min_size=1, max_size=30).filter(lambda name: not {0, ord("/")} & {*name}),
    _NAMES.filter(lambda name: len(name) <= 20).map(os.fsencode),
    st.sampled_from([b"Test", b"photo.jpg", b".hidden", b"Thumbs.db"]),
).filter(lambda name: name not in {b".", b".."})
_PATHS = st.lists(_FILE_NAMES, min_size=1, max_size=4).map(tuple)
_CONTENTS = st.one_of(
    st.sampled_from(FORMATS).flatmap(_samples),
    st.sampled_from(FORMATS).flatmap(_damaged),
    st.binary(max_size=50),
    st.sampled_from(["a link to nowhere", "a pipe", "a file that goes away", "a large file"]),
)
_MAX_BYTES = 20_000


def _make(root: Path, parts: tuple[bytes, ...], content: bytes | str) -> None:
    """Puts a file there, unless something is in its way."""
    file = Path(root, *map(os.fsdecode, parts))
    with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if content == "a link to nowhere":
            file.symlink_to("nowhere")
        elif content == "a pipe":
            os.mkfifo(file)
        else:
            size = _MAX_BYTES + (content == "a large file")
            file.write_bytes(content if isinstance(content, bytes) else bytes(size))


@_few(60)
@given(st.dictionaries(_PATHS, _CONTENTS, min_size=1, max_size=12))
def test_every_file_ends_in_exactly_one_table(files: dict[tuple[bytes, ...], bytes | str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photos = FolderPhotos(folder_at(folder))
        for parts, content in files.items():
            _make(Path(folder), parts, content)
        try:
            rows = photos.list(recursive=True).files.to_pylist()
        except SourceError:  # all are hidden
            return
        for parts, content in files.items():
            if content == "a file that goes away":
                with contextlib.suppress(OSError):
                    Path(folder, *map(os.fsdecode, parts)).unlink()
        limits = _Limits(max_pixels=_MAX_PIXELS, max_bytes=_MAX_BYTES)
        ((accepted, rejected),) = _ingested(rows, photos, limits)
        _check(accepted, RAW_SCHEMA)
        _check(rejected, REJECTED_SCHEMA)
        found = accepted["path"].to_pylist() + rejected["path"].to_pylist()
        assert sorted(found) == sorted(row["path"] for row in rows)
        for row in accepted.to_pylist():
            data = Path(folder, row["path"]).read_bytes()
            assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
            assert examine(data, max_pixels=_MAX_PIXELS).content == row["content"]
            assert row["content_sha256"] == hashlib.sha256(row["content"]).hexdigest()
        for row in rejected.to_pylist():
            assert row["reason"] in REASONS
            assert row["detail"]


def _check(table: pa.Table, schema: pa.Schema) -> None:
    table.validate(full=True)
    assert table.schema == schema
    required = [field.name for field in schema if not field.nullable]
    assert not any(table[name].null_count for name in required)


# The fuzzer itself


def test_the_fuzzer_accounts_for_every_case() -> None:
    with Decoder() as decoder:
        cases = [run(number, seed=3, decoder=decoder) for number in range(80)]
    report = Report.of(cases, 80, seconds=1.0)
    assert report.faults == []
    assert set(report.outcomes) == set(FORMATS)
    assert sum(sum(counts.values()) for counts in report.outcomes.values()) == 80
    assert 10 * 2**20 < report.peak_bytes < PEAK_BYTES
    assert damaged(7, seed=3) == damaged(7, seed=3) != damaged(7, seed=4)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"outcome": "KeyError"}, r"anything but a rejection: \[0\]"),
        ({"unseen": "corrupt: it is"}, r"cannot be seen: \[0\]"),
        ({"peak_bytes": PEAK_BYTES + 1}, "took more than"),
    ],
)
def test_the_fuzzer_tells_what_should_not_be(change: dict[str, Any], fault: str) -> None:
    case = Case(0, "PNG", "accepted", detail="", unseen="", died=False, seconds=0.0, peak_bytes=1)
    assert Report.of([case], 1, seconds=1.0).faults == []
    report = Report.of([replace(case, **change)], 1, seconds=1.0)
    assert [re.search(fault, line) is not None for line in report.faults] == [True]
    assert f"FAULT: {report.faults[0]}" in str(report)
    assert Report.of([case], 2, seconds=1.0).faults == ["1 cases are unaccounted for"]


def test_the_fuzzer_counts_what_ends_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice in a row, so that the second finds no child."""
    kill = "import os, PIL.Image\nPIL.Image.open = lambda *_, **__: os.kill(os.getpid(), 9)\n"
    (tmp_path / "sitecustomize.py").write_text(kill)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Decoder() as decoder:
        cases = [run(number, seed=0, decoder=decoder) for number in (4, 12)]
    assert [case.outcome for case in cases] == ["unreadable"] * 2
    assert Report.of(cases, 2, seconds=1.0).deaths == [4, 12]
