"""What is a photo, what is not, and what the network sees of it."""

import io
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from fruits_assets.core.images import (
    FORMATS,
    REASONS,
    Photo,
    RejectedImage,
    examine,
    pixels,
    upright_rgb,
)
from fruits_assets_tests.core.pictures import saved

_MAX_PIXELS = 1_000_000
_WHITE_POINT = struct.pack(">4s4x3i", b"XYZ ", 63190, 65536, 54061)


def _profile(curve: list[int]) -> bytes:
    """A minimal ICC profile (ICC.1:2001): the primaries of sRGB and a curve; [] is linear."""
    columns = {b"r": (28580, 14574, 912), b"g": (25233, 46995, 6362), b"b": (9374, 3962, 46795)}
    tone = struct.pack(f">4s4xI{len(curve)}H", b"curv", len(curve), *curve)
    tone += bytes(len(tone) % 4)
    tags = [(name + b"XYZ", struct.pack(">4s4x3i", b"XYZ ", *xyz)) for name, xyz in columns.items()]
    tags += [(name + b"TRC", tone) for name in columns]
    tags += [(b"wtpt", _WHITE_POINT)]
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, value in tags:
        table += struct.pack(">4sII", name, start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head = (head + bytes(12) + b"acsp").ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def _noise(width: int = 40, height: int = 24) -> Image.Image:
    shades = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((width, height))


def _examined(data: bytes) -> Photo:
    return examine(data, max_pixels=_MAX_PIXELS)


def _seen(data: bytes, size: int = 8) -> np.ndarray:
    photo = _examined(data)
    return pixels(photo.content, orientation=photo.orientation, size=size)


def _rejected(data: bytes, max_pixels: int = _MAX_PIXELS) -> RejectedImage:
    with pytest.raises(RejectedImage) as caught:
        examine(data, max_pixels=max_pixels)
    assert caught.value.reason in REASONS
    assert caught.value.detail.endswith(".")
    return caught.value


@pytest.fixture(scope="module", autouse=True)
def _heif_can_be_written() -> None:
    pillow_heif.register_heif_opener()


# What the network sees


@pytest.mark.parametrize("size", [(100, 100), (40, 24), (23, 61)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_an_rgb_jpeg_is_seen_exactly_as_pillow_resizes_it(
    size: tuple[int, int], options: dict[str, object]
) -> None:
    data = saved(_noise().resize(size), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB").resize((224, 224)))
    seen = _seen(data, 224)
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, expected)


def test_a_reduced_decoding_keeps_twice_the_size_of_the_network() -> None:
    gradient = Image.linear_gradient("L").resize((1000, 800)).convert("RGB")
    data = saved(gradient, "JPEG", quality=95)
    sizes = [(upright_rgb(data, orientation=1, at_least=side).size) for side in (1000, 400, 16)]
    assert sizes == [(1000, 800), (500, 400), (125, 100)]
    exact, rough = (
        pixels(data, orientation=1, size=96, reduced=reduced).astype(int)
        for reduced in (False, True)
    )
    assert rough.shape == (96, 96, 3)
    assert 0 < np.abs(exact - rough).max() <= 4


def test_only_large_jpegs_are_decoded_reduced() -> None:
    picture = _noise(400, 320)
    for data, size in ((saved(picture, "PNG"), 32), (saved(picture, "JPEG"), 160)):
        exact, reduced = (
            pixels(data, orientation=1, size=size, reduced=reduced) for reduced in (False, True)
        )
        assert np.array_equal(exact, reduced)


def test_an_srgb_profile_changes_no_pixel() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = (saved(_noise(), "JPEG", **o) for o in ({}, {"icc_profile": profile}))
    assert b"ICC_PROFILE" in _examined(tagged).content
    assert np.array_equal(_seen(tagged), _seen(plain))


def test_an_approximate_srgb_profile_changes_no_pixel() -> None:
    """Makers round the curve of sRGB differently; here it is a table of 40 steps."""
    steps = np.linspace(0, 1, 40)
    curve = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    profile = _profile([int(value) for value in np.rint(curve * 65535)])
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(_noise(), source, ImageCms.createProfile("sRGB"))
    assert converted is not None
    assert converted.tobytes() != _noise().tobytes()
    data = saved(_noise(), "PNG", icc_profile=profile)
    assert np.array_equal(_seen(data), _seen(saved(_noise(), "PNG")))


@pytest.mark.parametrize(("mode", "expected"), [("RGB", 188), ("L", 188), ("RGBA", 188)])
def test_another_profile_is_converted(mode: str, expected: int) -> None:
    """Half the light is gray 188 in sRGB (IEC 61966-2-1)."""
    image = Image.new("RGB", (8, 8), (128, 128, 128)).convert(mode)
    seen = _seen(saved(image, "PNG", icc_profile=_profile([])))
    assert np.abs(seen.astype(int) - expected).max() <= 1


def test_a_converted_picture_does_not_carry_its_old_profile() -> None:
    photo = _examined(saved(_noise(), "JPEG", icc_profile=_profile([])))
    assert not upright_rgb(photo.content, orientation=1).info


@pytest.mark.parametrize("profile", [b"no profile at all", _profile([])[:150]])
def test_a_broken_profile_is_ignored(profile: bytes) -> None:
    plain = saved(_noise(), "JPEG")
    assert np.array_equal(_seen(saved(_noise(), "JPEG", icc_profile=profile)), _seen(plain))


def test_a_profile_of_other_colours_is_ignored() -> None:
    data = saved(_noise().convert("CMYK"), "JPEG", icc_profile=_profile([]))
    assert np.array_equal(_seen(data), _seen(saved(_noise().convert("CMYK"), "JPEG")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    """The corners of EXIF 2.32, figure 5: where row 0 and column 0 are in the upright picture."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.new("L", (48, 32))
    stored.paste(255, (0, 0, 24, 16))  # bright where row 0 meets column 0
    photo = _examined(saved(stored, "JPEG", exif=exif))
    upright = np.asarray(upright_rgb(photo.content, orientation=photo.orientation))[..., 0]
    assert upright.shape == (photo.height, photo.width)
    assert (photo.width, photo.height) == ((48, 32) if orientation < 5 else (32, 48))
    halves = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    row = 4 if halves[0] == "t" else -4
    column = 4 if halves[1] == "l" else -4
    assert upright[row, column] > 250
    assert upright[-row, -column] < 5


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        *(("RGBA", image_format) for image_format in ("PNG", "WEBP", "AVIF", "HEIF", "TIFF")),
        ("LA", "PNG"),
        ("LA", "TIFF"),
        ("PA", "TIFF"),
    ],
)
def test_transparency_lies_on_white(mode: str, image_format: str) -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (8, 0, 16, 16))
    if mode == "PA":
        palette = Image.new("P", image.size)
        image = Image.merge("PA", (palette.getchannel(0), image.getchannel("A")))
        image.putpalette([0, 0, 0])
    seen = _seen(saved(image.convert(mode), image_format), 16)
    assert seen[:, :4].min() >= 250
    assert seen[:, 12:].max() <= 5


def _transparent(mode: str, value: object, image_format: str = "PNG") -> bytes:
    image = Image.new(mode, (4, 4))
    if mode == "P":
        image.putpalette([0, 0, 0, 90, 90, 90])
    return saved(image, image_format, transparency=value)


@pytest.mark.parametrize(
    "data",
    [
        _transparent("P", 0),
        _transparent("P", 0, "GIF"),
        _transparent("P", b"\0\xff"),
        _transparent("L", 0),
        _transparent("1", 0),
        _transparent("RGB", (0, 0, 0)),
        _transparent("I;16", 0),
    ],
)
def test_a_transparent_colour_is_white(data: bytes) -> None:
    assert (_seen(data) == 255).all()


def test_half_transparency_is_half_white() -> None:
    seen = _seen(saved(Image.new("RGBA", (4, 4), (0, 100, 200, 128)), "PNG"))
    assert np.abs(seen[0, 0].astype(int) - [127, 177, 227]).max() <= 1


def _ramp(mode: str, high: float, kind: str) -> bytes:
    ramp = np.linspace(0, high, 256).reshape(1, 256)
    image = Image.fromarray(ramp.astype(kind))
    assert image.mode == mode
    return saved(image, "TIFF")


@pytest.mark.parametrize(
    ("mode", "kind", "high", "white"),
    [
        ("L", "uint8", 255, 255),
        ("I;16", "uint16", 65535, 65535),
        ("I;16", "uint16", 30000, 65535),
        ("I", "int32", 100, 255),
        ("I", "int32", 30000, 65535),
        ("I", "int32", 10_000_000, 10_000_000),
        ("F", "float32", 0.5, 1.0),
        ("F", "float32", 200.0, 255),
        ("F", "float32", 30000.0, 65535),
        ("F", "float32", 3e30, 3e30),
    ],
)
def test_gray_of_any_width_is_scaled_not_clipped(
    mode: str, kind: str, high: float, white: float
) -> None:
    photo = _examined(_ramp(mode, high, kind))
    gray = np.asarray(upright_rgb(photo.content, orientation=1))[0, :, 0]
    assert np.abs(gray - np.linspace(0, high, 256) * 255 / white).max() <= 2


def test_gray_without_numbers_or_contrast_is_seen() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 1.0]], dtype=np.float32)
    assert _seen(saved(Image.fromarray(values), "TIFF")).max() == 255
    assert _seen(saved(Image.new("F", (4, 4), -7), "TIFF")).max() == 0


def test_cmyk_and_lab_are_seen_in_colour() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 20))
    lab = Image.new("LAB", (16, 16), (110, 190, 180))  # L* 43, a* 62, b* 52
    for data in (saved(red.convert("CMYK"), "JPEG"), saved(lab, "TIFF")):
        assert np.abs(_seen(data)[0, 0].astype(int) - [200, 30, 20]).max() <= 12


def test_only_the_first_frame_is_seen() -> None:
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 250, 0))
    for image_format in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        data = saved(first, image_format, save_all=True, append_images=[second])
        red, green, _ = _seen(data)[0, 0].astype(int)
        assert (red > 240, green < 10) == (True, True), image_format


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        *((mode, "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        *((mode, "TIFF") for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16")),
        *((mode, "TIFF") for mode in ("I", "F", "LAB", "YCbCr")),
        *((mode, "JPEG") for mode in ("L", "RGB", "CMYK")),
        *((mode, "WEBP") for mode in ("RGB", "RGBA")),
        *((mode, "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
        *((mode, "GIF") for mode in ("1", "L", "P", "RGB")),
        *((mode, "AVIF") for mode in ("L", "RGB", "RGBA")),
        *((mode, "HEIF") for mode in ("L", "LA", "RGB", "RGBA")),
    ],
)
def test_every_mode_of_every_format_is_accepted(mode: str, image_format: str) -> None:
    image = _noise().convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        image = (image if mode == "PA" else _noise()).convert(mode)
    photo = _examined(saved(image, image_format))
    assert (photo.format, photo.width, photo.height) == (image_format, 40, 24)
    seen = pixels(photo.content, orientation=photo.orientation, size=16)
    assert (seen.shape, seen.dtype) == ((16, 16, 3), np.dtype("uint8"))
    assert seen.std() > 5


# What is rejected


@pytest.mark.parametrize(
    ("data", "reason", "told"),
    [
        (b"", "empty", "no bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not_an_image", "lfs pull"),
        (b"\xef\xbb\xbf <!DOCTYPE html><html></html>", "not_an_image", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "not_an_image", "XML"),
        (b"Thumbs for the orchard, 2024", "not_an_image", "text"),
        (b"\0\1\2\3 nothing in particular", "not_an_image", "no known image"),
        (b"PK\3\4" + bytes(60), "not_an_image", "zip"),
        (b"<?xml version='1.0'?><svg xmlns='svg'/>", "unsupported_format", "SVG"),
        (b"%PDF-1.7\n", "unsupported_format", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_format", "PostScript"),
        (b"8BPS\0\1" + bytes(20), "unsupported_format", "photoshop"),
        (b"\0\0\1\0\1\0" + bytes(20), "unsupported_format", "ico"),
        (saved(_noise(), "JPEG2000"), "unsupported_format", "jp"),
        (saved(_noise(), "PPM"), "unsupported_format", "Netpbm"),
    ],
)  # fmt: skip
def test_what_is_no_photo_is_named(data: bytes, reason: str, told: str) -> None:
    error = _rejected(data)
    assert error.reason == reason
    assert told in error.detail


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_file_cut_anywhere_is_rejected(image_format: str) -> None:
    data = saved(_noise(), image_format)
    whole = len(data) - 12 if image_format == "PNG" else len(data)  # its last chunk is empty
    assert {_rejected(data[:length]).reason for length in range(1, whole)} == {"truncated"}


@pytest.mark.parametrize("image_format", ["WEBP", "BMP", "TIFF", "AVIF", "HEIF", "GIF"])
def test_a_file_cut_in_its_pixels_is_rejected(image_format: str) -> None:
    data = saved(_noise(), image_format)
    for length in range(len(data) * 2 // 3, len(data) - 24, 3):
        assert _rejected(data[:length]).reason == "truncated"


def test_damage_is_told_from_truncation() -> None:
    data = bytearray(saved(_noise(), "PNG"))
    data[16:20] = bytes(4)  # a width of 0, with a checksum that no longer fits
    assert _rejected(bytes(data)).reason == "corrupt"
    assert _rejected(b"\xff\xd8\xff\xd9").reason == "corrupt"


@pytest.mark.parametrize(
    "image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"]
)
def test_the_pixel_limit_is_exact(image_format: str) -> None:
    data = saved(_noise(), image_format)
    assert examine(data, max_pixels=40 * 24).width == 40
    error = _rejected(data, max_pixels=40 * 24 - 1)
    assert error.reason == "too_large"
    assert "40 x 24" in error.detail


def test_size_is_checked_before_pixels_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A WebP of 16383 x 16383 or a GIF of 65535 x 65535 would take gigabytes when opened."""
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (b"\xfe\x3f\0" * 2)
    webp = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    frame = b"!\xf9\4\x08\0\0\0\0" + b"," + struct.pack("<HHHHBB", 0, 0, 65535, 65535, 0, 2)
    gif = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + frame + b"\2\0\0\0;"
    loads: list[Image.Image] = []
    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile._open", loads.append)
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile._open", loads.append)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", loads.append)
    png = saved(Image.new("1", (2000, 2000)), "PNG")
    for data in (webp, gif, png):
        assert _rejected(data).reason == "too_large"
    assert not loads


@pytest.mark.parametrize("image_format", sorted(FORMATS))
def test_the_size_is_said_before_pixels_are_decoded(
    image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(_noise(), image_format)
    content = examine(data, max_pixels=10_000).content
    said: list[tuple[int, int]] = []

    def load(_: Image.Image) -> None:
        assert said
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *_, **__: load(Image.Image()))
    monkeypatch.setattr(pillow_heif.HeifImageFile, "load", load)
    monkeypatch.setattr("PIL.GifImagePlugin.GifImageFile.load_prepare", load)
    with pytest.raises(RejectedImage):
        examine(data, max_pixels=10_000, on_size=lambda *size: said.append(size))
    assert said.pop() == (40, 24)
    with pytest.raises(MemoryError):
        pixels(content, orientation=1, size=8, on_size=lambda *size: said.append(size))
    assert said == [(40, 24)]


def test_running_out_of_memory_is_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert _rejected(saved(_noise(), "PNG")).reason == "too_large"


def _mutated(data: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(damaged))
        damage: list[Callable[[], object]] = [
            lambda at=at: damaged.__setitem__(at, chance.randrange(256)),
            lambda at=at: damaged.__setitem__(slice(at, at + 4), b"\xff\xff\xff\xff"),
            lambda at=at: damaged.__setitem__(slice(at, at + chance.randint(1, 9)), b""),
            lambda at=at: damaged.__setitem__(slice(at, at), damaged[at : at + 16]),
        ]
        chance.choice(damage)()
        if len(damaged) < 2:
            break
    return bytes(damaged)


@pytest.mark.parametrize(
    "image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF"]
)
def test_damaged_bytes_are_a_photo_or_a_rejection_and_nothing_else(image_format: str) -> None:
    """Whatever is accepted can also be seen; warnings are errors throughout these tests."""
    chance = random.Random(image_format)  # noqa: S311 - reproducible, nothing to guess
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if image_format in {"BMP", "GIF"} else {"exif": exif.tobytes()}
    data = saved(_noise(), image_format, **options)
    accepted = 0
    for _ in range(300):
        damaged = _mutated(data, chance)
        try:
            photo = examine(damaged, max_pixels=20_000)
        except RejectedImage:
            continue
        accepted += 1
        pixels(photo.content, orientation=photo.orientation, size=8)
    assert accepted < 300


def test_the_guard_of_pillow_stays_as_others_set_it() -> None:
    """Photos that are larger are still read, for `max_pixels` is the limit here."""
    program = """
from PIL import AvifImagePlugin, Image
from benchmarks.fuzz import FORMATS, samples
from fruits_assets.core.images import examine, pixels

photos = [photo for one in FORMATS for photo in samples(one).values()]
before = AvifImagePlugin.DEFAULT_MAX_THREADS, Image.MAX_IMAGE_PIXELS
assert before[1] > 1e6
for photo in photos:
    accepted = examine(photo, max_pixels=10**9)
    pixels(accepted.content, orientation=accepted.orientation, size=8)
assert (AvifImagePlugin.DEFAULT_MAX_THREADS, Image.MAX_IMAGE_PIXELS) == before
for guard in (900, 400):  # above which Pillow warns, and above twice of which it raises
    Image.MAX_IMAGE_PIXELS = guard
    assert examine(samples("PNG")["PNG"], max_pixels=10**9).height == 40
    assert Image.MAX_IMAGE_PIXELS == guard
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=root)


def test_the_core_needs_neither_spark_nor_dagster_and_imports_quietly() -> None:
    program = (
        "import sys, PIL.Image; limit = PIL.Image.MAX_IMAGE_PIXELS\n"
        "import fruits_assets.core.images\n"
        "assert PIL.Image.MAX_IMAGE_PIXELS == limit and 'HEIF' not in PIL.Image.OPEN\n"
        "assert not {'pyspark', 'dagster', 'tensorflow'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=root)
