"""Metadata go, pixels stay: every container, with every kind of metadata it can hold."""

import io
import re
import struct
import zlib
from collections.abc import Callable

import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from fruits_assets.core.icc import clean_profile
from fruits_assets.core.images import Photo, RejectedImage, examine
from fruits_assets.core.jpeg import MAX_JPEG_SCANS
from fruits_assets.core.metadata import strip
from fruits_assets_tests.core.pictures import saved

_TOKEN = b"SECRET-TOKEN-48.8584N-2.2945E"
_XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + _TOKEN + b"</x:xmpmeta>"
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module", autouse=True)
def _heif_can_be_written() -> None:
    pillow_heif.register_heif_opener()


def _picture(mode: str = "RGB") -> Image.Image:
    picture = Image.merge(
        "RGB", [Image.linear_gradient("L").rotate(90 * turn).resize((48, 32)) for turn in range(3)]
    )
    return picture if mode == "RGB" else picture.convert(mode)


def _exif(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = _TOKEN.decode()  # ImageDescription
    exif.get_ifd(0x8769)[0x927C] = b"maker note " + _TOKEN
    exif.get_ifd(0x8825)[0x0001] = "N"
    exif.get_ifd(0x8825)[0x001B] = _TOKEN  # GPSProcessingMethod
    return exif.tobytes()


def _segment(code: int, payload: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(payload) + 2) + payload


def _jpeg() -> bytes:
    data = saved(_picture(), "JPEG", exif=_exif(), icc_profile=_PROFILE, comment=_TOKEN, xmp=_XMP)
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(_TOKEN)) + _TOKEN
    thumbnail = b"JFIF\0\1\1\0\0\1\0\1\x0a\1" + _TOKEN + b"!"  # 10 x 1 pixels
    extra = _segment(0xED, iptc) + _segment(0xE2, b"FPXR\0" + _TOKEN) + _segment(0xEB, _TOKEN)
    data = data[:2] + _segment(0xE0, thumbnail) + extra + data[20:]
    return data + saved(_picture(), "JPEG", exif=_exif())  # as an MPO's second picture


def _mpo() -> bytes:
    second = _picture()
    second.info["exif"] = _exif()
    return saved(_picture(), "MPO", save_all=True, append_images=[second], exif=_exif())


def _progressive_jpeg() -> bytes:
    data = saved(_picture(), "JPEG", progressive=True, exif=_exif())
    second_scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    return data[:second_scan] + _segment(0xFE, _TOKEN) + data[second_scan:]


def _jpeg_of_scans(count: int, *, size: int = 48) -> bytes:
    """A progressive JPEG that goes over the picture again and again."""
    data = saved(_picture().resize((size, size)), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    again = data[starts[1] : starts[2]]  # with the tables of the next one
    more = max(0, count - len(starts))
    return data[: starts[1]] + again * more + data[starts[1] :]


def _cmyk_jpeg() -> bytes:
    return saved(_picture("CMYK"), "JPEG", exif=_exif())


def _png() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", _TOKEN.decode())
    text.add_text("Zipped", _TOKEN.decode(), zip=True)
    text.add_itxt("XML:com.adobe.xmp", _XMP.decode())
    text.add(b"prVt", _TOKEN)
    return saved(_picture(), "PNG", pnginfo=text, exif=_exif(), icc_profile=_PROFILE) + _TOKEN


def _animated_png() -> bytes:
    frames = [_picture("L")]
    return saved(_picture(), "PNG", save_all=True, append_images=frames, exif=_exif())


def _webp(**options: object) -> bytes:
    metadata = {"exif": _exif(), "xmp": _XMP, "icc_profile": _PROFILE}
    return saved(_picture(), "WEBP", **metadata, **options) + _TOKEN


def _gif() -> bytes:
    timing = {"save_all": True, "append_images": [_picture("L").rotate(9)], "duration": 70}
    data = saved(_picture("P"), "GIF", comment=_TOKEN, loop=5, **timing)
    blocks = bytes([len(_TOKEN)]) + _TOKEN + b"\0"
    xmp = b"!\xff\x0bXMP DataXMP" + blocks
    plain_text = b"!\x01\x0c" + bytes(12) + blocks
    start = data.index(b"!\xfe")
    return data[:start] + xmp + plain_text + data[start:] + _TOKEN


def _bmp() -> bytes:
    return saved(_picture(), "BMP") + _TOKEN


def _tiff(mode: str = "RGB", **options: object) -> bytes:
    exif = Image.Exif()
    if "compression" not in options:  # libtiff writes no nested directories
        exif.load(_exif())
    exif.update({270: _TOKEN.decode(), 274: 6, 700: _XMP, 33723: _TOKEN, 34377: _TOKEN})
    second = [_picture("1" if mode == "1" else "L")]
    return saved(
        _picture(mode),
        "TIFF",
        exif=exif,
        icc_profile=_PROFILE,
        save_all=True,
        append_images=second,
        **options,
    )


def _isobmff(image_format: str) -> bytes:
    data = saved(_picture(), image_format, exif=_exif(), xmp=_XMP, icc_profile=_PROFILE)
    return data + struct.pack(">I4s", 8 + len(_TOKEN), b"uuid") + _TOKEN


_FILES: dict[str, Callable[[], bytes]] = {
    "jpeg": _jpeg,
    "mpo": _mpo,
    "progressive jpeg": _progressive_jpeg,
    "cmyk jpeg": _cmyk_jpeg,
    "png": _png,
    "animated png": _animated_png,
    "webp": _webp,
    "lossless webp": lambda: _webp(lossless=True),
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "tiff lzw": lambda: _tiff(compression="tiff_lzw"),
    "tiff jpeg": lambda: _tiff(compression="jpeg"),
    "tiff fax": lambda: _tiff("1", compression="group4"),
    "tiff palette": lambda: _tiff("P"),
    "tiff float": lambda: _tiff("F"),
    "big tiff": lambda: _tiff(big_tiff=True),
    "heif": lambda: _isobmff("HEIF"),
    "avif": lambda: _isobmff("AVIF"),
}


def _examined(data: bytes) -> Photo:
    return examine(data, max_pixels=1_000_000)


@pytest.mark.parametrize("kind", _FILES)
def test_nothing_personal_is_left(kind: str) -> None:
    data = _FILES[kind]()
    assert _TOKEN in data or kind == "animated png"
    photo = _examined(data)
    assert _TOKEN not in photo.content
    assert b"xmpmeta" not in photo.content
    assert b"Exif\0\0" not in photo.content
    with Image.open(io.BytesIO(photo.content)) as image:
        image.load()
        left = {key for key, value in image.info.items() if value}
        turned = photo.format == "AVIF"  # Pillow words the turn of the picture as EXIF
        assert not left & {"xmp", "comment", "photoshop", "mp", "metadata", "Comment", "Zipped"}
        assert turned or not image.info.get("exif")
        assert not set(image.getexif()) - ({0x0112} if turned else _structural_tags(photo))


def _structural_tags(photo: Photo) -> set[int]:
    """Pillow presents the tags of a TIFF that describe its pixels as EXIF too."""
    return (
        {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 338, 339, 530}
        | {34675, 347, 532}
        if photo.format == "TIFF"
        else set()
    )


@pytest.mark.parametrize("kind", _FILES)
def test_pixels_are_untouched(kind: str) -> None:
    data = _FILES[kind]()
    photo = _examined(data)
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(photo.content)) as after:
        before.load()
        if before.format == "TIFF":  # Pillow turned it by the tag that `after` no longer has
            assert photo.orientation == 6
            after = after.transpose(Image.Transpose.ROTATE_270)  # noqa: PLW2901
        assert after.mode == before.mode
        assert after.tobytes() == before.tobytes()
        assert after.getpalette() == before.getpalette()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "heif", "avif"])
def test_the_colour_profile_is_kept(kind: str) -> None:
    with Image.open(io.BytesIO(_examined(_FILES[kind]()).content)) as image:
        kept = image.info["icc_profile"]
    assert kept == clean_profile(_PROFILE)
    assert _converted(kept) == _converted(_PROFILE)


def _converted(profile: bytes) -> bytes:
    """The colours that a profile gives to a picture, in LAB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(source, target, "RGB", "LAB").apply(_picture()).tobytes()


@pytest.mark.parametrize("kind", sorted(_FILES.keys() - {"gif", "bmp", "heif"}))
def test_the_orientation_is_read_before_it_goes(kind: str) -> None:
    photo = _examined(_FILES[kind]())
    assert (photo.orientation, photo.width, photo.height) == (6, 32, 48)


def test_an_animation_keeps_its_frames_and_timing() -> None:
    with Image.open(io.BytesIO(_examined(_gif()).content)) as image:
        assert (image.info["loop"], image.info["duration"]) == (5, 70)
        image.seek(1)


def test_a_webp_no_longer_announces_metadata() -> None:
    content = _examined(_webp()).content
    assert content[12:16] == b"VP8X"
    assert content[20] == 0x20  # an ICC profile, and nothing else


def test_heif_is_upright_by_itself() -> None:
    photo = _examined(_FILES["heif"]())
    assert (photo.orientation, photo.width, photo.height) == (1, 32, 48)


@pytest.mark.parametrize("kind", _FILES)
def test_stripping_twice_changes_nothing_more(kind: str) -> None:
    once = _examined(_FILES[kind]()).content
    assert _examined(once).content == once


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_is_none(orientation: int) -> None:
    assert _examined(saved(_picture(), "JPEG", exif=_exif(orientation))).orientation == 1


def test_imagemagick_keeps_exif_in_png_text() -> None:
    exif = _exif()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif)}\n{exif.hex()}\n", zip=True)
    photo = _examined(saved(_picture(), "PNG", pnginfo=text))
    assert photo.orientation == 6


def test_a_png_text_that_explodes_is_refused() -> None:
    bomb = b"key\0\0" + zlib.compress(bytes(2_000_000))
    text = PngImagePlugin.PngInfo()
    text.add(b"zTXt", bomb)
    with pytest.raises(RejectedImage) as caught:
        _examined(saved(_picture(), "PNG", pnginfo=text))
    assert caught.value.reason == "too_large"


def test_a_png_with_a_wrong_checksum_is_corrupt() -> None:
    data = bytearray(saved(_picture(), "PNG"))
    data[-13] ^= 1  # the last byte of the checksum of IDAT
    with pytest.raises(RejectedImage) as caught:
        _examined(bytes(data))
    assert caught.value.reason == "corrupt"


def _box(kind: bytes, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


def _heif_with_items(locations: bytes, item_data: bytes, media: bytes) -> bytes:
    """A file of boxes with picture 1, EXIF 2 and XMP 3, located as told; nothing to decode."""
    infos = [
        _box(b"infe", b"\2\0\0\0", struct.pack(">HH4s", number, 0, kind), b"name\0")
        for number, kind in enumerate((b"hvc1", b"Exif", b"mime"), start=1)
    ]
    links = [_box(b"cdsc", struct.pack(">HHH", number, 1, 1)) for number in (2, 3)]
    boxes = (
        _box(b"iinf", bytes(4), struct.pack(">H", 3), *infos),
        _box(b"iref", bytes(4), *links),
        _box(b"iloc", locations),
        _box(b"idat", item_data),
    )
    file_type = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return file_type + _box(b"meta", bytes(4), *boxes) + _box(b"mdat", media)


def test_heif_metadata_are_found_wherever_the_table_of_items_points() -> None:
    """In item data, counted from their box, and in the file, in two stretches after a base."""
    file_start, stretches = 400, ((4, 8), (20, 6))

    def table() -> bytes:
        picture = struct.pack(">HHHIHII", 1, 0, 0, 0, 1, file_start + 40, 20)
        exif = struct.pack(">HHHIHII", 2, 1, 0, 0, 1, 3, len(_TOKEN))
        xmp = struct.pack(">HHHIH", 3, 0, 0, file_start, 2)
        xmp += b"".join(struct.pack(">II", *stretch) for stretch in stretches)
        return b"\1\0\0\0\x44\x40" + struct.pack(">H", 3) + picture + exif + xmp

    def build(media: bytes) -> bytes:
        return _heif_with_items(table(), b"abc" + _TOKEN + b"def", media)

    media = bytearray(b"." * 400)
    shift = file_start - build(bytes(media)).index(b"." * 400)
    for offset, size in stretches:
        media[shift + offset : shift + offset + size] = b"x" * size
    media[shift + 40 : shift + 60] = b"p" * 20
    before = build(bytes(media))
    after = strip(before, "HEIF").content
    assert len(after) == len(before)
    assert _TOKEN not in after
    assert not any(byte in after for byte in (b"abc", b"def"))  # which no picture has
    assert after[-400:] == bytes(shift + 40) + b"p" * 20 + bytes(400 - shift - 60)
    assert not [kind for kind in (b"Exif", b"mime", b"cdsc", b"xxx") if kind in after]


@pytest.mark.parametrize(
    ("method", "offset", "size", "reason"),
    [
        (2, 0, 4, "unsupported_format"),  # within another item
        (0, 1 << 31, 4, "truncated"),
        (0, 0, (1 << 32) - 1, "truncated"),
    ],
)
def test_heif_metadata_that_cannot_be_blanked_are_not_ignored(
    method: int, offset: int, size: int, reason: str
) -> None:
    table = b"\1\0\0\0\x44\x40" + struct.pack(">H", 1)
    table += struct.pack(">HHHIHII", 2, method, 0, 0, 1, offset, size)
    with pytest.raises(RejectedImage) as caught:
        strip(_heif_with_items(table, b"", b""), "HEIF")
    assert caught.value.reason == reason


@pytest.mark.parametrize("widths", [b"\x00\x00", b"\x44\x40"])
def test_a_small_table_cannot_ask_for_endless_blanking(widths: bytes) -> None:
    """65535 times the same stretch, or as many stretches of no width at all, for one item."""
    stretches = b"" if widths == b"\x00\x00" else struct.pack(">II", 0, 500) * 65535
    base = b"" if widths == b"\x00\x00" else bytes(4)
    item = struct.pack(">HHH", 2, 0, 0) + base + struct.pack(">H", 65535) + stretches
    table = b"\1\0\0\0" + widths + struct.pack(">H", 1) + item
    with pytest.raises(RejectedImage) as caught:
        strip(_heif_with_items(table, b"", b""), "HEIF")
    assert caught.value.reason == "corrupt"


def _tiff_of(tags: list[tuple[int, int, list[int]]], pixels: bytes, *, big: bool = False) -> bytes:
    """A TIFF of (tag, type, values) whose pixels begin at byte 1000; long values go before."""
    inline, count = (8, "Q") if big else (4, "I")
    directory, values = b"", b""
    for tag, kind, numbers in tags:
        payload = struct.pack(f"<{len(numbers)}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", *numbers)
        if len(payload) > inline:
            values, payload = values + payload, struct.pack(f"<{count}", 600 + len(values))
        directory += struct.pack(f"<HH{count}", tag, kind, len(numbers)) + payload.ljust(
            inline, b"\0"
        )
    if big:
        header = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags))
    else:
        header = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return (header + directory).ljust(600, b"\0") + values.ljust(400, b"\0") + pixels


_GRAY = [(258, 3, [8]), (259, 3, [1]), (262, 3, [1])]


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_in_tiles_keeps_its_pixels(big: bool) -> None:
    integers = 16 if big else 4
    size = [(256, integers, [32]), (257, integers, [32])]
    tile = [(322, 3, [16]), (323, 3, [16])]
    places = [(324, integers, [1768, 1256, 1512, 1000]), (325, integers, [256] * 4)]
    stored = b"".join(bytes([shade]) * 256 for shade in (240, 80, 160, 10))
    photo = _examined(_tiff_of([*size, *_GRAY, *tile, *places], stored, big=big))
    with Image.open(io.BytesIO(photo.content)) as image:
        corners = [image.getpixel(at) for at in ((0, 0), (31, 0), (0, 31), (31, 31))]
    assert corners == [10, 80, 160, 240]
    assert photo.content[:4] == b"II*\0"
    assert struct.pack("<HHII", 256, 4, 1, 32) in photo.content  # classic TIFF has no 64 bits


def test_a_tiff_tag_with_too_many_values_counts_once() -> None:
    """Pillow would warn about it."""
    size = [(256, 3, [4, 9]), (257, 3, [4])]
    photo = _examined(_tiff_of([*size, *_GRAY, (273, 4, [1000]), (279, 4, [16])], bytes(16)))
    assert (photo.width, photo.height) == (4, 4)


@pytest.mark.parametrize(
    ("offsets", "sizes", "reason"),
    [
        ([1000, 1009], [8, 7], "truncated"),  # fewer pixels than the size asks for
        ([1000, 1012], [8, 8], "truncated"),  # beyond the end
        ([1000], [16], "truncated"),  # rows without a strip
    ],
)
def test_tiff_strips_must_hold_the_picture(
    offsets: list[int], sizes: list[int], reason: str
) -> None:
    size = [(256, 3, [4]), (257, 3, [4]), (278, 3, [2])]
    data = _tiff_of([*size, *_GRAY, (273, 4, offsets), (279, 4, sizes)], bytes(16))
    with pytest.raises(RejectedImage) as caught:
        strip(data, "TIFF")
    assert caught.value.reason == reason


def test_compressed_tiff_strips_must_be_whole() -> None:
    lzw = [(258, 3, [8]), (259, 3, [5]), (262, 3, [1])]
    size = [(256, 3, [4]), (257, 3, [4]), (278, 3, [4])]
    with pytest.raises(RejectedImage) as caught:
        strip(_tiff_of([*size, *lzw, (273, 4, [1000]), (279, 4, [17])], bytes(16)), "TIFF")
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("tag", [254, 50706])
def test_a_camera_raw_file_is_not_its_preview(tag: int) -> None:
    exif = Image.Exif()
    exif[tag] = 1
    with pytest.raises(RejectedImage) as caught:
        _examined(saved(_picture(), "TIFF", exif=exif))
    assert caught.value.reason == "unsupported_format"


def test_a_jpeg_of_very_many_scans_is_rejected_before_it_is_decoded() -> None:
    """Each costs the time of all pixels, and a few bytes."""
    assert examine(_jpeg_of_scans(MAX_JPEG_SCANS), max_pixels=10_000).format == "JPEG"
    for count in (MAX_JPEG_SCANS + 1, 3_000):
        with pytest.raises(RejectedImage) as caught:
            strip(_jpeg_of_scans(count), "JPEG")
        assert caught.value.reason == "too_large"
        assert "more than 100 times (scans)" in caught.value.detail


def test_progressive_jpegs_have_few_scans() -> None:
    assert 4 * _jpeg_of_scans(0).count(b"\xff\xda") < MAX_JPEG_SCANS
