"""Nothing personal is left in any corner of a file, as another reader of metadata sees it."""

import io
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from benchmarks.fuzz import FORMATS, SECRET, samples
from fruits_assets.core.icc import clean_profile
from fruits_assets.core.images import Photo, RejectedImage, examine, upright_rgb
from fruits_assets_tests.core.pictures import saved

_SHARED = os.environ.get("FRUITS_SHARED_DATA")
_DATA = Path(_SHARED) if _SHARED else Path(__file__).parents[3] / "shared" / "data"
_EXIFTOOL = shutil.which("exiftool")
# What a file says of its own pixels, and of the disk that it lies on for this test.
_GROUPS = {"ExifTool", "System", "File", "Composite", "JFIF", "Adobe", "APP14", "GIF", "RIFF"}
_PNG = {
    *("ImageWidth", "ImageHeight", "BitDepth", "ColorType", "Compression", "Filter", "Interlace"),
    *("Palette", "Transparency", "Gamma", "SRGBRendering", "SignificantBits", "ProfileName"),
    *("AnimationFrames", "AnimationPlays", "BackgroundColor"),
}
_PERSONAL = re.compile(
    r"date|gps|serial|name$|artist|author|copyright|comment|description|make$|model|software|owner"
    r"|keyword|title|caption|creator|location|thumbnail|xmp|iptc|maker",
    re.IGNORECASE,
)
_NOTHING = re.compile(r"0000:00:00 00:00:00|0+|")
# Of the profiles that stay as their publishers made them.
_PUBLISHED = re.compile(
    r"sRGB IEC61966-2\.1|sRGB|Display P3|Adobe RGB \(1998\)|IEC .*|Hewlett-Packard|Little CMS"
    r"|Apple Computer Inc\.|Copyright .*(Hewlett-Packard|Apple|Adobe|Samsung).*|FB|c2"
    r"|(199|200|201|202)\d:\d\d:\d\d \d\d:\d\d:\d\d"
)


@pytest.fixture(scope="module", autouse=True)
def _heif_can_be_written() -> None:
    pillow_heif.register_heif_opener()


def _examined(data: bytes) -> Photo:
    return examine(data, max_pixels=20_000_000)


def _saved(image_format: str, **options: object) -> bytes:
    return saved(_picture(), image_format, **options)


def _picture() -> Image.Image:
    shades = np.random.default_rng(2).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((36, 24))


# Another reader


@pytest.mark.skipif(_EXIFTOOL is None, reason="there is no exiftool (libimage-exiftool-perl)")
def test_exiftool_finds_nothing_personal_in_what_is_accepted(tmp_path: Path) -> None:
    files = {f"{number}": data for number, data in enumerate(_everything())}
    accepted = 0
    for name, data in files.items():
        try:
            photo = examine(data, max_pixels=20_000_000)
        except RejectedImage:
            continue
        accepted += 1
        (tmp_path / f"{name}.{photo.format.lower()}").write_bytes(photo.content)
    assert accepted > 40
    arguments = ("-json", "-G1", "-a", "-u", "-ee", "-q", str(tmp_path))
    told = subprocess.run([str(_EXIFTOOL), *arguments], capture_output=True, check=False).stdout
    read = json.loads(told)
    assert len(read) == accepted
    found = [
        (Path(tags["SourceFile"]).suffix, key, value)
        for tags in read
        for key, value in tags.items()
        if _is_personal(key, value)
    ]
    assert not found


def _is_personal(key: str, value: object) -> bool:
    group, _, name = key.partition(":")
    if not name or group in {"System", "File", "ExifTool"} or _NOTHING.fullmatch(str(value)):
        return False
    if group == "PNG" and name in _PNG:
        return False
    if "GPS" in group or group.startswith(("XMP", "IPTC", "ExifIFD", "MakerNotes", "Photoshop")):
        return True
    if group.startswith("ICC") and _PUBLISHED.fullmatch(str(value)):
        return False
    if name == "HandlerDescription" and value == "libavif":
        return False
    return _PERSONAL.search(name) is not None or SECRET.decode() in str(value)


def _everything() -> list[bytes]:
    """Every kind of file with metadata, and the real ones where they are."""
    made = [data for image_format in FORMATS for data in samples(image_format).values()]
    made += [make() for make in _CORNERS.values()]
    real = [_DATA / "messy" / "photos", _DATA / "field"]
    paths = [path for folder in real if folder.is_dir() for path in sorted(folder.iterdir())]
    return made + [path.read_bytes() for path in paths if path.is_file()]


# Corners of every format


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = SECRET.decode()
    exif.get_ifd(0x8825)[0x001B] = SECRET
    return exif.tobytes()


def _personal_profile() -> bytes:
    """A profile of a display, with its owner's words, make and serial number."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    words = "Écran de SECRET-48.8584N-2.2945E".encode("utf-16-be")
    tags = {
        b"desc": b"mluc" + struct.pack(">4xIIHHII", 1, 12, 0x6672, 0x4652, len(words), 28) + words,
        b"mmod": b"mmod" + bytes(4) + b"APPL" + SECRET,
        b"vcgt": b"vcgt" + bytes(4) + SECRET,
    }
    (count,) = struct.unpack_from(">I", profile, 128)
    old = [struct.unpack_from(">4sII", profile, 132 + 12 * n) for n in range(count)]
    places = [place for place in old if place[0] not in tags]
    start = 132 + 12 * (len(places) + len(tags))
    body, table = b"", b""
    payloads = {name: profile[at : at + size] for name, at, size in places} | tags
    for name, payload in payloads.items():
        table += struct.pack(">4sII", name, start + len(body), len(payload))
        body += payload + b"SECRET"[: -len(payload) % 4]
    head = profile[:24] + struct.pack(">6H", 2024, 5, 17, 8, 30, 0) + profile[36:48]
    head += b"MART" + b"IN42" + profile[56:128]
    whole = head + struct.pack(">I", len(payloads)) + table + body + SECRET
    return struct.pack(">I", len(whole)) + whole[4:]


def _box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def _heif_with_property(image_format: str = "HEIF") -> bytes:
    """With texts and a time among the properties of the picture; everything after moves along."""
    data = _saved(image_format)
    start = data.index(b"ipco") - 4
    (size,) = struct.unpack_from(">I", data, start)
    more = _box(b"udes", bytes(4) + b"fr\0" + SECRET + b"\0tags\0")
    more += _box(b"altt", bytes(4) + SECRET + b"\0en\0") + _box(b"crtt", bytes(4) + SECRET[:8])
    return _grown(data, start + size, more, (b"ipco", b"iprp", b"meta"))


def _grown(data: bytes, at: int, more: bytes, boxes: tuple[bytes, ...]) -> bytes:
    """A file of boxes with more bytes in it: sizes and the place of its picture are moved."""
    changed = bytearray(data[:at] + more + data[at:])
    for kind in boxes:
        start = data.index(kind) - 4
        (size,) = struct.unpack_from(">I", data, start)
        struct.pack_into(">I", changed, start, size + len(more))
    media = struct.pack(">I", data.index(b"mdat") + 4)
    place = bytes(changed).find(media, changed.index(b"iloc"))
    struct.pack_into(">I", changed, place, data.index(b"mdat") + 4 + len(more))
    return bytes(changed)


def _sequence() -> bytes:
    """An AVIF of several pictures, with the times at which each track was made."""
    data = bytearray(_saved("AVIF", save_all=True, append_images=[_picture().rotate(90)]))
    for kind in (b"mvhd", b"tkhd", b"mdhd"):
        at = bytes(data).index(kind) + 4
        width = 8 if data[at] else 4
        data[at + 4 : at + 4 + 2 * width] = SECRET[: 2 * width]
    return bytes(data)


def _bmp_with_gaps(**options: object) -> bytes:
    data = bytearray(_saved("BMP", **options))
    (start,) = struct.unpack_from("<I", data, 10)
    struct.pack_into("<I", data, 10, start + len(SECRET))
    data[6:10] = SECRET[:4]
    return bytes(data[:start]) + SECRET + bytes(data[start:]) + SECRET


def _tiff_of_jpegs() -> bytes:
    """Its only strip is a JPEG with EXIF of its own, its tables have a comment."""
    exif = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(SECRET)) + b"Exif\0\0" + SECRET
    strip = _saved("JPEG")
    strip = strip[:2] + exif + strip[2:]
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(SECRET)) + SECRET
    tables = b"\xff\xd8" + comment + b"\xff\xd9"
    start = 8 + len(strip) + len(strip) % 2
    entries = [
        (256, 4, 1, struct.pack("<I", 36)),
        (257, 4, 1, struct.pack("<I", 24)),
        (258, 3, 3, struct.pack("<I", start + len(tables))),
        (259, 3, 1, struct.pack("<I", 7)),
        (262, 3, 1, struct.pack("<I", 6)),
        (273, 4, 1, struct.pack("<I", 8)),
        (277, 3, 1, struct.pack("<I", 3)),
        (278, 4, 1, struct.pack("<I", 24)),
        (279, 4, 1, struct.pack("<I", len(strip))),
        (347, 7, len(tables), struct.pack("<I", start)),
        (530, 3, 2, struct.pack("<HH", 2, 2)),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHI", *one[:3]) + one[3] for one in entries) + bytes(4)
    values = tables + struct.pack("<3H", 8, 8, 8)
    body = (strip + b"\0"[: len(strip) % 2] + values).ljust(start - 8 + len(values) + 1, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def _tiff_with_gaps(compression: str) -> bytes:
    """After the data of its strip, inside what it says is the strip, and before its directory."""
    stream = io.BytesIO()
    _picture().save(stream, "TIFF", compression=compression, strip_size=10_000)
    data = stream.getvalue()
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    changed = bytearray(data)
    places: dict[int, int] = {}
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        places[struct.unpack_from("<H", data, at)[0]] = at + 8
    start, size = (struct.unpack_from("<I", data, places[tag])[0] for tag in (273, 279))
    struct.pack_into("<I", changed, places[279], size + len(SECRET))
    struct.pack_into("<I", changed, places[273], len(changed) + len(SECRET))
    return bytes(changed) + SECRET + data[start : start + size] + SECRET


def _webp_with_chunks() -> bytes:
    data = _saved("WEBP", exif=_exif(), icc_profile=_personal_profile())
    more = b"MSFT" + struct.pack("<I", len(SECRET) + 1) + SECRET + b"\0\0"
    more = more[: 8 + len(SECRET) + 1 + (len(SECRET) + 1) % 2]
    second = data[data.index(b"VP8 ") :]  # libwebp shows the first picture only
    body = data[8:] + more + second
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif_with_blocks() -> bytes:
    data = _saved("GIF", comment=SECRET)
    at = data.index(b"!\xfe")
    block = bytes([len(SECRET)]) + SECRET + b"\0"
    more = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0" + block + b"!\xf9\x04\0\0\0\0" + block
    return data[:at] + b"!\xff\x0bICCRGBG1012" + block + more + data[at:] + SECRET


_CORNERS: dict[str, Callable[[], bytes]] = {
    "profile in JPEG": lambda: _saved("JPEG", icc_profile=_personal_profile()),
    "profile in PNG": lambda: _saved("PNG", icc_profile=_personal_profile()),
    "profile in WebP": lambda: _saved("WEBP", icc_profile=_personal_profile()),
    "profile in TIFF": lambda: _saved("TIFF", icc_profile=_personal_profile()),
    "profile in HEIF": lambda: _saved("HEIF", icc_profile=_personal_profile()),
    "profile in AVIF": lambda: _saved("AVIF", icc_profile=_personal_profile()),
    "properties in HEIF": _heif_with_property,
    "properties in AVIF": lambda: _heif_with_property("AVIF"),
    "times in a sequence": _sequence,
    "gaps in BMP": _bmp_with_gaps,
    "JPEGs in TIFF": _tiff_of_jpegs,
    "gaps in TIFF": lambda: _tiff_with_gaps("raw"),
    "gaps in deflated TIFF": lambda: _tiff_with_gaps("tiff_adobe_deflate"),
    "chunks in WebP": _webp_with_chunks,
    "blocks in GIF": _gif_with_blocks,
}


_NOT_OPENED = {"gaps in BMP", "chunks in WebP"}
"""By Pillow, as they are."""


@pytest.mark.parametrize("corner", _CORNERS)
def test_no_corner_keeps_anything(corner: str) -> None:
    data = _CORNERS[corner]()
    content = _examined(data).content
    for secret in (SECRET, SECRET[:8], SECRET.decode().encode("utf-16-be")):
        assert secret not in content
    for tag in (b"mmod", b"vcgt", b"udes", b"altt", b"crtt", b"MARTIN42"):
        assert tag not in content
    assert _examined(content).content == content


@pytest.mark.parametrize("corner", [one for one in _CORNERS if one not in _NOT_OPENED])
def test_the_pixels_of_corners_are_untouched(corner: str) -> None:
    data = _CORNERS[corner]()
    with (
        Image.open(io.BytesIO(data)) as before,
        Image.open(io.BytesIO(_examined(data).content)) as after,
    ):
        assert after.tobytes() == before.tobytes()


def _converted(profile: bytes) -> bytes:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    lab = ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(source, lab, "RGB", "LAB").apply(_picture()).tobytes()


def test_colours_are_those_of_the_profile_before() -> None:
    profile = _personal_profile()
    cleaned = clean_profile(profile)
    assert len(cleaned) == len(profile)
    assert not any(cleaned[24:36])  # when it was measured
    assert _converted(cleaned) == _converted(profile)
    assert clean_profile(cleaned) == cleaned


def test_a_profile_that_many_photos_share_stays_as_it_is() -> None:
    """Their texts are their publishers'."""
    profile = clean_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for text, kept in ((b"sRGB IEC61966-2.1", True), (b"Martin's sRGB", False)):
        public = _described(profile, text)
        assert (clean_profile(public) == public) is kept


def _described(profile: bytes, text: bytes) -> bytes:
    """The profile with a description of version 2, and a date of its publication."""
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * n) for n in range(count)]
    end = 132 + 12 * (count + 1)
    table, body = b"", b""
    described = b"desc" + struct.pack(">4xI", len(text) + 1) + text + b"\0" + bytes(78)
    tags = {name: profile[at : at + size] for name, at, size in entries} | {b"desc": described}
    for name, payload in tags.items():
        table += struct.pack(">4sII", name, end + len(body), len(payload))
        body += payload + bytes(-len(payload) % 4)
    whole = profile[:128] + struct.pack(">I", count + 1) + table + body
    return (
        struct.pack(">I", len(whole))
        + whole[4:24]
        + struct.pack(">6H", 1998, 2, 9, 6, 49, 0)
        + whole[36:]
    )


# Orientation


def _with_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _app1(exif: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif


@pytest.mark.parametrize(("first", "second"), [(1, 6), (6, 1), (3, 8)])
def test_the_first_exif_of_a_jpeg_counts(first: int, second: int) -> None:
    data = _saved("JPEG")
    exif = _app1(_with_orientation(first)) + _app1(_with_orientation(second))
    assert _examined(data[:2] + exif + data[2:]).orientation == first


@pytest.mark.parametrize(("own", "text"), [(1, 6), (6, 3)])
def test_the_exif_of_a_png_counts_before_that_in_its_texts(own: int, text: int) -> None:
    from PIL.PngImagePlugin import PngInfo

    raw = _with_orientation(text)
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(raw)}\n{raw.hex()}\n")
    for exif in (b"", _with_orientation(own)):
        photo = _examined(_saved("PNG", pnginfo=texts, exif=exif))
        assert photo.orientation == (own if exif else text)


def _cut(data: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIF of which only a part around the middle is to be shown."""
    start = data.index(b"ipco") - 4
    (size,) = struct.unpack_from(">I", data, start)
    clap = _box(b"clap", struct.pack(">IIIIiIiI", width, 1, height, 1, 0, 1, 0, 1))
    grown = _grown(data, start + size, clap, (b"ipco", b"iprp", b"meta"))
    number = 0
    at = grown.index(b"ipco") + 4
    while at < grown.index(b"ipma") - 4:
        at += int.from_bytes(grown[at : at + 4])
        number += 1
    at = grown.index(b"ipma")
    count = at + 4 + 4 + 4 + 2
    more = grown[:count] + bytes((grown[count] + 1,)) + grown[count + 1 :]
    return _grown(
        more, count + 1 + grown[count], bytes((0x80 | number,)), (b"ipma", b"iprp", b"meta")
    )


@pytest.mark.parametrize("image_format", ["AVIF", "HEIF"])
def test_what_is_cut_off_is_not_seen(image_format: str) -> None:
    data = _saved(image_format, quality=100)
    photo = _examined(_cut(data, 20, 12))
    assert (photo.width, photo.height) == (20, 12)
    seen = upright_rgb(photo.content, orientation=photo.orientation)
    whole = upright_rgb(_examined(data).content, orientation=1)
    assert seen.size == (20, 12)
    difference = np.asarray(seen).astype(int) - np.asarray(whole.crop((8, 6, 28, 18)))
    assert np.abs(difference).max() <= 12
