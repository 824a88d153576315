"""A picture is accepted with all of its pixels, or not at all."""

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from fruits_assets.core.images import Photo, RejectedImage, examine, upright_rgb
from fruits_assets_tests.core.pictures import saved

_SIZE = 120


def _picture(mode: str = "RGB") -> Image.Image:
    """Something everywhere: soft shapes, and noise that every block has some bytes of."""
    shades = np.random.default_rng(3).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((_SIZE, _SIZE)).convert(mode)


def _saved(image_format: str, *, mode: str = "RGB", **options: object) -> bytes:
    return saved(_picture(mode), image_format, **options)


def _examined(data: bytes) -> Photo:
    return examine(data, max_pixels=1_000_000)


def _reason(data: bytes) -> str:
    with pytest.raises(RejectedImage) as caught:
        _examined(data)
    return caught.value.reason


# JPEG


_KINDS: dict[str, dict[str, object]] = {
    "baseline": {},
    "full colour": {"subsampling": 0},
    "gray": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive": {"progressive": True},
}


def _scan(data: bytes) -> int:
    """Where the data of the first scan begin."""
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4])


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_jpeg_whose_data_stop_is_rejected_though_its_end_marker_is_there(
    kind: str, share: float
) -> None:
    data = _saved("JPEG", **_KINDS[kind])  # type: ignore[arg-type]
    assert _examined(data).width == _SIZE
    start = _scan(data)
    cut = data[: start + int((len(data) - start) * share)].rstrip(b"\xff")
    assert _reason(cut + b"\xff\xd9") in {"truncated", "corrupt"}


@pytest.mark.parametrize("kind", ["baseline", "full colour", "gray", "cmyk"])
def test_a_jpeg_with_a_hole_of_zeros_is_rejected(kind: str) -> None:
    data = _saved("JPEG", quality=90, **_KINDS[kind])  # type: ignore[arg-type]
    start = _scan(data)
    for at in range(start, len(data) - 600, 401):
        assert _reason(data[:at] + bytes(512) + data[at + 512 :]) in {"truncated", "corrupt"}


def test_a_small_hole_is_found_where_the_decoder_finds_its_place_again() -> None:
    """On white, it is in step again before the end: the number of blocks is right, and no more."""
    picture = Image.new("RGB", (_SIZE, _SIZE), "white")
    picture.paste(_picture().resize((60, 60)), (30, 30))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    data = stream.getvalue()
    for at in range(_scan(data) + 60, len(data) - 500, 29):
        assert _reason(data[:at] + bytes(40) + data[at + 40 :]) in {"truncated", "corrupt"}


def test_data_of_blocks_that_the_picture_does_not_have_are_noticed() -> None:
    """A damaged scan that loses its place ends so; here 5 plain blocks, of 6 bits each."""
    picture = _picture("L").crop((0, 0, 40, 72))
    picture.paste(128, (0, 56, 40, 72))
    stream = io.BytesIO()
    picture.save(stream, "JPEG")
    data = stream.getvalue()
    frame = data.index(b"\xff\xc0")
    assert _reason(data[: frame + 5] + struct.pack(">H", 64) + data[frame + 7 :]) == "corrupt"


def _scans(data: bytes) -> list[int]:
    return [found.start() for found in re.finditer(rb"\xff\xda", data)]


def test_a_progressive_jpeg_with_scans_missing_is_truncated() -> None:
    data = _saved("JPEG", progressive=True)
    starts = _scans(data)
    for start in starts[1:]:
        end = data.rindex(b"\xff\xc4", 0, start)
        assert _reason(data[:end] + b"\xff\xd9") == "truncated"


def test_a_jpeg_of_one_scan_per_colour_needs_them_all() -> None:
    """Without its last scan, libjpeg draws it in false colours, and warns of nothing."""
    data = _in_scans(_saved("JPEG", mode="L"))
    assert _reason(data) == "truncated"


def _in_scans(gray: bytes) -> bytes:
    """A gray JPEG that declares two more components, whose scans do not follow."""
    frame = gray.index(b"\xff\xc0")
    declared = gray[frame + 2 : frame + 13]
    three = struct.pack(">H", 17) + declared[2:7] + b"\3" + b"\1\x11\0\2\x11\0\3\x11\0"
    return gray[: frame + 2] + three + gray[frame + 13 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-2] + bytes(300) + data[-2:],  # padding
        lambda data: data[:-2] + b"\x7f" + data[-2:],
        lambda data: data[:20] + b"\0\0\0" + data[20:],  # between segments
        lambda data: data.replace(b"JFIF\0\1\1", b"JFIF\0\7\7", 1),  # an unknown revision
        lambda data: data + b"\0\xff\xd8 and more",
        lambda data: data[: _scan(data) - 3] + b"\0\0\0" + data[_scan(data) :],
        lambda data: data[:-2] + b"\xff\xff\xff" + data[-2:],
    ],
)
def test_harmless_oddities_of_cameras_are_accepted(change: Callable[[bytes], bytes]) -> None:
    data = _saved("JPEG")
    odd = change(data)
    assert odd != data
    photo = _examined(odd)
    with Image.open(io.BytesIO(data)) as image:
        assert upright_rgb(photo.content, orientation=1).tobytes() == image.tobytes()


def test_rows_below_the_picture_are_harmless() -> None:
    """Scanners send on until they are told to stop; each row is an interval of its own."""
    data = _saved("JPEG", restart_marker_rows=1)
    frame = data.index(b"\xff\xc0")
    lower = data[: frame + 5] + struct.pack(">H", 64) + data[frame + 7 :]
    assert _examined(lower).height == 64


@pytest.mark.parametrize("options", _KINDS.values(), ids=_KINDS)
def test_content_of_ordinary_photos_is_what_it_was(options: dict[str, object]) -> None:
    data = _saved("JPEG", **options)  # type: ignore[arg-type]
    assert _examined(data).content == data


# PNG


def _chunk(kind: bytes, payload: bytes) -> bytes:
    body = kind + payload
    return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))


def _png(rows: bytes, *, colours: int = 0, depth: int = 8, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", 16, 16, depth, colours, 0, 0, interlaced)
    data = zlib.compress(rows)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


_ROWS = {
    "gray": (16 * 17, {}),
    "bits": (16 * 3, {"depth": 1}),
    "colour": (16 * 49, {"colours": 2}),
    "16 bits and alpha": (16 * 129, {"colours": 6, "depth": 16}),
    "interlaced": (2 * 3 + 2 * 3 + 2 * 5 + 4 * 5 + 4 * 9 + 8 * 9 + 8 * 17, {"interlaced": 1}),
}


@pytest.mark.parametrize("kind", _ROWS)
def test_a_png_has_every_byte_of_its_rows(kind: str) -> None:
    size, options = _ROWS[kind]
    assert _examined(_png(bytes(size), **options)).width == 16
    for missing in (1, size // 2, size):
        assert _reason(_png(bytes(size - missing), **options)) == "truncated"


def test_what_follows_the_rows_of_a_png_goes() -> None:
    size, _ = _ROWS["gray"]
    for hidden in (_png(bytes(size) + b"SECRET" * 9), _after_rows(_png(bytes(size)))):
        photo = _examined(hidden)
        start = photo.content.index(b"IDAT")
        length = int.from_bytes(photo.content[start - 4 : start])
        unpacker = zlib.decompressobj()
        rows = unpacker.decompress(photo.content[start + 4 : start + 4 + length])
        assert (rows, unpacker.unused_data) == (bytes(size), b"")


def _after_rows(data: bytes) -> bytes:
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start])
    payload = data[start + 4 : start + 4 + length] + b"SECRET"
    return data[: start - 4] + _chunk(b"IDAT", payload) + _chunk(b"IEND", b"")


def test_a_png_whose_rows_are_all_there_needs_no_end() -> None:
    data = _saved("PNG")
    for length in range(len(data) - 12, len(data)):
        photo = _examined(data[:length])
        assert photo.content == data


def test_damage_in_a_text_that_goes_anyway_is_harmless() -> None:
    data = _saved("PNG")
    text = bytearray(_chunk(b"tEXt", b"Comment\0hello"))
    text[-1] ^= 1
    assert _examined(data[:33] + bytes(text) + data[33:]).content == data


# Others


def test_a_gif_whose_rows_stop_is_truncated() -> None:
    whole = _saved("GIF", mode="P")
    assert _examined(whole).width == _SIZE
    gif = io.BytesIO()
    _picture("P").crop((0, 0, _SIZE, _SIZE // 2)).save(gif, "GIF")
    data = bytearray(gif.getvalue())
    frame = data.index(b"\x2c\0\0\0\0")
    for at in (8, frame + 7):  # the height of screen and frame
        data[at : at + 2] = struct.pack("<H", _SIZE)
    assert _reason(bytes(data)) == "truncated"


@pytest.mark.parametrize(
    "compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"]
)
def test_a_tiff_without_its_last_rows_is_rejected(compression: str) -> None:
    stream = io.BytesIO()
    _picture().save(stream, "TIFF", compression=compression, strip_size=_SIZE * 3 * 40)
    data = bytearray(stream.getvalue())
    assert _examined(bytes(data)).height == _SIZE
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, at) == (257,):
            struct.pack_into("<I", data, at + 8, 2 * _SIZE)
    assert _reason(bytes(data)) in {"truncated", "corrupt"}


def test_a_tiff_of_jpegs_is_as_whole_as_they_are() -> None:
    stream = io.BytesIO()
    _picture().save(stream, "TIFF", compression="jpeg")
    data = bytearray(stream.getvalue())
    start = data.rindex(b"\xff\xda")
    data[start + 200 : start + 800] = bytes(600)
    assert _reason(bytes(data)) in {"truncated", "corrupt"}


def test_a_bmp_without_its_last_rows_is_truncated() -> None:
    data = _saved("BMP")
    assert _reason(data[: len(data) // 2]) == "truncated"


def test_a_webp_without_its_last_data_is_rejected() -> None:
    for options in ({}, {"lossless": True}):
        data = _saved("WEBP", **options)  # type: ignore[arg-type]
        (size,) = struct.unpack_from("<I", data, 16)
        half = size // 2 & ~1
        short = data[:16] + struct.pack("<I", half) + data[20 : 20 + half]
        assert _reason(b"RIFF" + struct.pack("<I", len(short) - 8) + short[8:]) in {
            "truncated",
            "corrupt",
        }


@pytest.mark.parametrize(
    ("image_format", "start"), [("HEIF", b"mdat"), ("AVIF", b"mdat"), ("WEBP", b"VP8 ")]
)
def test_a_hole_of_zeros_is_found_where_chance_would_not_make_one(
    image_format: str, start: bytes
) -> None:
    """Their decoders draw something all the same, and warn of nothing."""
    pillow_heif.register_heif_opener()
    data = _saved(image_format, quality=90)
    assert _examined(data).width == _SIZE
    first = data.index(start) + 100
    assert first < len(data) - 1000
    for at in range(first, len(data) - 600, 211):
        assert _reason(data[:at] + bytes(512) + data[at + 512 :]) in {"truncated", "corrupt"}
