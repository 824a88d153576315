"""The reason says whether a file is damaged, or only of a kind that is not read."""

import io
import re
import struct
from collections.abc import Callable
from typing import Literal

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from fruits_assets.core.images import Photo, RejectedImage, examine, pixels
from fruits_assets_tests.core.pictures import saved


def _picture(mode: str = "RGB") -> Image.Image:
    shades = np.random.default_rng(5).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((48, 32)).convert(mode)


def _saved(image_format: str, *, mode: str = "RGB", **options: object) -> bytes:
    return saved(_picture(mode), image_format, **options)


def _examined(data: bytes) -> Photo:
    return examine(data, max_pixels=1_000_000)


def _rejected(data: bytes) -> RejectedImage:
    with pytest.raises(RejectedImage) as caught:
        _examined(data)
    return caught.value


def _tiff(
    samples: np.ndarray, *, order: Literal["<", ">"] = "<", planes: int = 1, **tags: int
) -> bytes:
    """An uncompressed TIFF of one strip per plane: rows, columns, samples."""
    height, width, count = samples.shape
    kind = {"f": 3, "u": 1, "i": 2}[samples.dtype.kind]
    stored = samples.astype(samples.dtype.newbyteorder(order))
    data = (stored.transpose(2, 0, 1) if planes == 2 else stored).tobytes()
    strips = count if planes == 2 else 1
    size = len(data) // strips
    bits = [8 * samples.dtype.itemsize] * count
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", bits),
        259: ("H", [1]),
        262: ("H", [tags.get("photometric", 2 if count >= 3 else 1)]),
        273: ("I", [8 + number * size for number in range(strips)]),
        277: ("H", [count]),
        278: ("I", [height]),
        279: ("I", [size] * strips),
        284: ("H", [planes]),
        339: ("H", [kind] * count),
    }
    if "extra" in tags:
        entries[338] = ("H", [tags["extra"]])
    start = 8 + len(data)
    after = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    for tag, (letter, numbers) in sorted(entries.items()):
        payload = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(payload) > 4:
            values, payload = values + payload, struct.pack(f"{order}I", after + len(values))
        directory += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[letter], len(numbers))
        directory += payload.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", start) + data + directory + bytes(4) + values


def _samples(kind: str, count: int) -> np.ndarray:
    """Left half of one colour, right half of another, the upper left corner the brightest."""
    samples = np.zeros((32, 48, count), dtype=kind)
    high = 1.0 if samples.dtype.kind == "f" else np.iinfo(samples.dtype).max
    samples[:, :24, 0] = high
    samples[:, 24:, count // 2] = high
    samples[:8, :8] = high
    return samples


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (_tiff(_samples("f4", 3)), "3 samples of 32 bits in floating point"),
        (_tiff(_samples("f8", 1)), "64 bits in floating point"),
        (_tiff(_samples("u4", 1)), "unsigned samples of 32 bits"),
        (_tiff(_samples("u4", 3)), "3 samples of 32 bits"),
        (_tiff(_samples("u2", 3), planes=2), "3 samples of 16 bits in planes"),
        (_tiff(_samples("u2", 4), planes=2, extra=2), "16 bits in planes"),
        (_tiff(_samples("u2", 3), order=">", planes=2), "16 bits in planes"),
        (_tiff(_samples("u1", 5), photometric=5, extra=2), "unknown pixel mode"),
    ],
)
def test_a_tiff_that_the_decoder_lacks_is_not_called_damaged(data: bytes, told: str) -> None:
    error = _rejected(data)
    assert error.reason == "unsupported_format"
    assert told in error.detail
    assert "ImageMagick" in error.detail


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("kind", "count", "planes"),
    [("u1", 3, 1), ("u1", 3, 2), ("u1", 4, 1), ("u1", 4, 2), ("u2", 3, 1), ("u2", 1, 1)],
)
def test_a_tiff_that_is_accepted_is_decoded_rightly(
    kind: str, count: int, planes: int, order: Literal["<", ">"]
) -> None:
    samples = _samples(kind, count)
    extra = {"extra": 2} if count == 4 else {}
    samples[..., 3:] = np.iinfo(samples.dtype).max
    photo = _examined(_tiff(samples, order=order, planes=planes, **extra))
    seen = pixels(photo.content, orientation=1, size=32)
    assert seen[20, 4, 0] > 250
    assert seen[2, 2].min() > 250
    assert seen[20, 28, 0] < 5 or count == 1


@pytest.mark.parametrize(("number", "name"), [(50001, "WebP"), (34712, "JPEG 2000"), (77, "77")])
def test_a_tiff_with_another_compression_says_which(number: int, name: str) -> None:
    error = _rejected(_without(_tiff(_samples("u1", 3)), 259, struct.pack("<I", number)))
    assert error.reason == "unsupported_format"
    assert name in error.detail


def _without(data: bytes, tag: int, value: bytes | None = None) -> bytes:
    """A TIFF whose tag becomes one that nobody knows, or has another value."""
    changed = bytearray(data)
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, at) == (tag,):
            if value is None:
                struct.pack_into("<H", changed, at, 65_100)
            else:
                changed[at + 8 : at + 12] = value
    return bytes(changed)


@pytest.mark.parametrize("size", [None, bytes(4), b"\7\0\0\0", b"\xff\xff\xff\x7f"])
def test_a_tiff_may_say_nothing_or_wrong_of_how_long_its_pixels_are(size: bytes | None) -> None:
    data = _tiff(_samples("u1", 3))
    assert _examined(_without(data, 279, size)).content == _examined(data).content


def test_a_compressed_strip_of_unknown_length_ends_where_something_else_begins() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[270] = "SECRET"
    _picture().save(stream, "TIFF", compression="tiff_lzw", exif=exif)
    photo = _examined(_without(stream.getvalue(), 279))
    with Image.open(io.BytesIO(photo.content)) as image:
        assert image.tobytes() == _picture().tobytes()
    assert b"SECRET" not in photo.content


def _raw_tiff(make: bytes, *, tag: int = 254, value: int = 1) -> bytes:
    exif = Image.Exif()
    exif[271] = make.decode()
    exif[tag] = value
    return _saved("TIFF", exif=exif)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (struct.pack(">I", 24) + b"ftypcrx " + bytes(12), "Canon CR3"),
        (b"II\x1a\0\0\0HEAPCCDR" + bytes(50), "Canon CRW"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(50), "Fujifilm RAF"),
        (b"IIRO\x08\0\0\0" + bytes(50), "Olympus ORF"),
        (b"IIRS\x08\0\0\0" + bytes(50), "Olympus ORF"),
        (b"MMOR\0\0\0\x08" + bytes(50), "Olympus ORF"),
        (b"IIU\0\x18\0\0\0" + bytes(50), "Panasonic RW2"),
        (b"FOVb\0\0\2\0" + bytes(50), "Sigma X3F"),
        (b"\0MRM\0\0\0\0" + bytes(50), "Minolta MRW"),
        (_raw_tiff(b"NIKON CORPORATION"), "Nikon NEF"),
        (_raw_tiff(b"SONY"), "Sony ARW"),
        (_raw_tiff(b"PENTAX"), "Pentax PEF"),
        (_raw_tiff(b"SAMSUNG"), "Samsung SRW"),
        (_raw_tiff(b"Hasselblad"), "Hasselblad 3FR"),
        (_raw_tiff(b"Leica Camera AG", tag=50706, value=1), "DNG"),
    ],
)
def test_a_camera_raw_file_is_named_by_its_maker(data: bytes, name: str) -> None:
    error = _rejected(data)
    assert error.reason == "unsupported_format"
    assert "camera raw" in error.detail
    assert name in error.detail
    assert "darktable" in error.detail


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        (b"avc1", "AVC"),
        (b"jpeg", "JPEG"),
        (b"vvc1", "VVC"),
        (b"j2k1", "JPEG 2000"),
        (b"unci", "uncompressed"),
        (b"xyz1", "xyz1"),
    ],
)
def test_a_heif_with_another_codec_says_which(codec: bytes, name: str) -> None:
    pillow_heif.register_heif_opener()
    data = _saved("HEIF")
    other = data.replace(b"\0\0hvc1", b"\0\0" + codec, 1)
    assert other != data
    error = _rejected(other)
    assert error.reason == "unsupported_format"
    assert "HEIF with" in error.detail
    assert name in error.detail


@pytest.mark.parametrize("brand", [b"avci", b"vvic", b"j2ki"])
def test_a_heif_by_brand_of_another_codec_is_an_image(brand: bytes) -> None:
    data = struct.pack(">I", 24) + b"ftyp" + brand + bytes(12)
    assert _rejected(data).reason == "unsupported_format"


def _bmp(compression: int) -> bytes:
    data = bytearray(_saved("BMP"))
    struct.pack_into("<I", data, 30, compression)
    return bytes(data)


@pytest.mark.parametrize("compression", [4, 5, 6, 11])
def test_a_bmp_that_the_decoder_lacks_is_not_called_damaged(compression: int) -> None:
    assert _rejected(_bmp(compression)).reason == "unsupported_format"


def test_a_bmp_whose_pixels_lie_far_beyond_its_end_takes_no_memory() -> None:
    data = bytearray(_saved("BMP"))
    struct.pack_into("<I", data, 10, 0xFF00003E)
    assert _rejected(bytes(data)).reason == "truncated"


def _jpeg_of(frame: int, **changes: bytes) -> bytes:
    data = _saved("JPEG")
    start = data.index(b"\xff\xc0")
    head = bytes((0xFF, frame)) + data[start + 2 : start + 4] + changes.get("depth", b"\x08")
    return data[:start] + head + data[start + 5 :]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (_jpeg_of(0xC1, depth=b"\x0c"), "12 bits"),
        (_jpeg_of(0xC5), "SOF5"),
        (_jpeg_of(0xF7), "JPEG-LS"),
    ],
)
def test_a_jpeg_of_another_process_is_not_called_damaged(data: bytes, told: str) -> None:
    error = _rejected(data)
    assert error.reason == "unsupported_format"
    assert told in error.detail


_TEXT: dict[str, Callable[[bytes], bytes]] = {
    "DOS to Unix": lambda data: data.replace(b"\r\n", b"\n"),
    "Unix to DOS": lambda data: data.replace(b"\n", b"\r\n"),
    "Unix to old Mac": lambda data: data.replace(b"\n", b"\r"),
    "Latin-1 to UTF-8": lambda data: data.decode("latin-1").encode(),
    "read as UTF-8": lambda data: data.decode("utf-8", "replace").encode(),
    "seven bits": lambda data: bytes(byte & 0x7F for byte in data),
}


@pytest.mark.parametrize("change", _TEXT.values(), ids=_TEXT)
def test_a_png_that_was_transferred_as_text_is_recognised(change: Callable[[bytes], bytes]) -> None:
    error = _rejected(change(_saved("PNG")))
    assert error.reason == "corrupt"
    assert "binary mode" in error.detail


@pytest.mark.parametrize("change", ["Unix to DOS", "Unix to old Mac", "read as UTF-8"])
@pytest.mark.parametrize("image_format", ["JPEG", "GIF"])
def test_so_are_others_where_chance_is_ruled_out(image_format: str, change: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, image_format)
    assert "binary mode" in _rejected(_TEXT[change](stream.getvalue())).detail


def test_damage_is_not_taken_for_a_transfer_as_text() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    data = stream.getvalue()
    assert "binary mode" not in _rejected(data[:9000] + bytes(900) + data[9900:]).detail


def test_nor_are_pixels_that_are_not_compressed() -> None:
    """In them, some bytes may well be missing."""
    plain = Image.fromarray(np.resize(np.arange(11, 200, dtype=np.uint8), (90, 90)))
    stream = io.BytesIO()
    plain.save(stream, "TIFF")
    for data in (stream.getvalue(), stream.getvalue().replace(b"\r", b"\x0e")):
        assert "binary mode" not in _rejected(_without(data, 257, b"\xff\0\0\0")).detail


def test_a_lossless_jpeg_is_accepted() -> None:
    """Written here (ITU-T T.81, annex H): one component, each value predicted from its left."""
    values = np.asarray(_picture("L")).astype(int)
    photo = _examined(_lossless(values))
    assert (photo.format, photo.width, photo.height) == ("JPEG", 48, 32)
    with Image.open(io.BytesIO(photo.content)) as image:
        assert np.array_equal(np.asarray(image), values)


def _lossless(values: np.ndarray) -> bytes:
    height, width = values.shape
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 128
    bits = ""
    for difference in (values - predicted).ravel().tolist():
        size = abs(difference).bit_length()
        extra = difference if difference > 0 else difference + (1 << size) - 1
        bits += f"{size:04b}" + (f"{extra:0{size}b}" if size else "")
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    frame = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0"
    table = struct.pack(">HB", 2 + 17 + 15, 0) + bytes((0, 0, 0, 15)) + bytes(12) + bytes(range(15))
    scan = struct.pack(">HB", 8, 1) + b"\1\0" + b"\1\0\0"
    segments = (b"\xff\xc3" + frame, b"\xff\xc4" + table, b"\xff\xda" + scan + data)
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xd9"


def test_a_png_with_a_large_profile_is_accepted() -> None:
    data = _saved("PNG", icc_profile=bytes(1_100_000))
    assert _examined(data).content == _saved("PNG")


def test_a_profile_that_explodes_is_refused() -> None:
    assert _rejected(_saved("PNG", icc_profile=bytes(20_000_000))).reason == "too_large"


def test_every_reason_says_what_to_do() -> None:
    for data in (_tiff(_samples("f4", 3)), b"FOVb" + bytes(40), _saved("PNG")[:-20]):
        assert re.search(r"(convert|copy or download|replace) ", _rejected(data).detail)
