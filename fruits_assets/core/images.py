"""From the bytes of a file to an accepted photo, and from a photo to what the network sees.

Formats are recognised by content, whatever the file is called.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import filetype
import numpy as np
import pillow_heif
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fruits_assets.core.isobmff import HEIF_BY, OTHER_BRANDS, check_holes, clean_aperture
from fruits_assets.core.jpeg import check_complete
from fruits_assets.core.metadata import GIF_IMAGE, gif_blocks, strip
from fruits_assets.core.raw import named_raw
from fruits_assets.core.rejection import (
    REASONS,
    Reason,
    RejectedImage,
    corrupt,
    truncated,
    unsupported,
)
from fruits_assets.core.stripped import exif_orientation
from fruits_assets.core.text_mode import once, transferred_as_text, was_text

__all__ = [
    "FORMATS",
    "REASONS",
    "OnSize",
    "Photo",
    "Reason",
    "RejectedImage",
    "as_rejection",
    "examine",
    "pixels",
    "upright_rgb",
]

_FILES: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "AVIF": AvifImageFile,
    "HEIF": pillow_heif.HeifImageFile,
}
FORMATS = frozenset(_FILES)
"""Formats that are read, as Pillow names them."""

_COMPRESSED = frozenset({"JPEG", "PNG", "GIF", "WEBP"})

OnSize = Callable[[int, int], object]
"""Called with the width and the height that a file declares, before they are decoded."""

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}
# What `filetype` does not know.
_OTHER_IMAGES = {
    b"%PDF": "a PDF document",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"icns": "ICNS",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"SIMPLE  =": "FITS",
    b"gimp xcf": "GIMP XCF",
    **{b"P%d\n" % digit: "a Netpbm picture" for digit in range(1, 8)},
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE = 255
# How decoders say that a file may be whole, and is of a kind that they cannot read.
_LACKING = re.compile(
    r"unsupported|not supported|unknown (pixel|raw) mode|don't understand|cannot handle"
    r"|not implemented|no decoding plugin|no codec available|cannot read this image",
    re.IGNORECASE,
)
_BY = "ImageMagick"
REDUCED_TO = 2
"""Sides that a reduced decoding keeps, in sides of the network's input: less blurs more."""
# sRGB profiles of different makers differ by rounding; Display P3 and Adobe RGB by tens.
_SAME_COLOUR = 4


@dataclass(frozen=True)
class Photo:
    """An image that decodes completely.

    Attributes:
        content: The file without metadata.
        format: As Pillow names it: JPEG, PNG, GIF, WEBP, BMP, TIFF, AVIF or HEIF.
        width: Pixels, upright.
        height: Pixels, upright.
        orientation: How to turn the pixels of `content` upright, EXIF 1 to 8.
    """

    content: bytes
    format: str
    width: int
    height: int
    orientation: int


def _ignore(*_: int) -> None: ...


def examine(data: bytes, *, max_pixels: int, on_size: OnSize = _ignore) -> Photo:
    """Accepts a file as a photo, or says why not.

    The metadata go first, so that nothing but the image is ever parsed; then the image is decoded
    to the end, once.

    Args:
        data: The whole file.
        max_pixels: Width times height that is still decoded; checked before decoding.
        on_size: Called before the pixels are decoded.

    Raises:
        RejectedImage: For whatever reason the file is not an acceptable photo. Nothing else is
            raised, and nothing is warned about, for any bytes at all.
    """
    if not data:
        raise RejectedImage("empty", "The file has no bytes; copy or download it again.")
    image_format = _format_of(data)
    if image_format is None:
        raise _not_a_photo(data)
    try:
        return _decode(data, image_format, max_pixels, on_size)
    except Exception as error:  # decoders raise whatever their parsers stumble over
        rejected = as_rejection(error, data)
        damaged = rejected.reason in {"corrupt", "truncated", "too_large"}
        if damaged and image_format in _COMPRESSED and was_text(data):
            raise transferred_as_text(image_format) from error
        if rejected is error:
            raise
        raise rejected from error


def as_rejection(error: Exception, data: bytes) -> RejectedImage:
    """What an exception that the decoding of a file raised says of the file.

    Args:
        error: Any; a `RejectedImage` stays what it is.
        data: The file, or as much of it as there is.
    """
    if isinstance(error, RejectedImage):
        return error
    return _decoder_failure(error, _format_of(data) or "image")


def pixels(
    photo_content: bytes,
    *,
    orientation: int,
    size: int,
    reduced: bool = False,
    on_size: OnSize = _ignore,
) -> np.ndarray:
    """What the network sees of a photo.

    Args:
        photo_content: `Photo.content`.
        orientation: `Photo.orientation`.
        size: Side of the square the photo is fitted to, ignoring its proportions.
        reduced: Decode a large JPEG at 1/2, 1/4 or 1/8 of its size, faster and less exactly.
        on_size: Called before the pixels are decoded.

    Returns:
        uint8 array (size, size, 3), RGB. For an 8-bit RGB JPEG in sRGB, not reduced, it equals
        `Image.open(...).convert("RGB").resize((size, size))` of Pillow.
    """
    at_least = REDUCED_TO * size if reduced else None
    rgb = upright_rgb(photo_content, orientation=orientation, at_least=at_least, on_size=on_size)
    return np.asarray(rgb.resize((size, size)))


def upright_rgb(
    photo_content: bytes,
    *,
    orientation: int,
    at_least: int | None = None,
    on_size: OnSize = _ignore,
) -> Image.Image:
    """A photo as people see it: upright, 8-bit sRGB, on white where it is transparent.

    Args:
        photo_content: `Photo.content`.
        orientation: `Photo.orientation`.
        at_least: Pixels that either side of a JPEG must keep, where it may be decoded smaller.
        on_size: Called before the pixels are decoded.

    Returns:
        An image of mode RGB.
    """
    with _open(photo_content) as image:
        on_size(*image.size)
        if at_least and image.format == "JPEG":
            image.draft(None, (at_least, at_least))
        shown = _as_decoded(image, photo_content)
        rgb = _to_srgb(_flattened(shown), image.info.get("icc_profile"))
    rgb.info.clear()  # the profile no longer describes the pixels
    return rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb


def _format_of(data: bytes) -> str | None:
    """The supported format a file begins like, as Pillow names it."""
    for signature, image_format in _SIGNATURES.items():
        if data.startswith(signature):
            return image_format
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4]), 256)
        brands = {data[8:12], *(data[start : start + 4] for start in range(16, length, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    return None


def _as_decoded(image: ImageFile, content: bytes) -> Image.Image:
    """The first picture as far as it is to be shown: libavif leaves the cut to its callers."""
    cut = clean_aperture(content) if image.format == "AVIF" else None
    return image.crop(cut) if cut else image


@cache
def _register_heif() -> None:
    """Done on first use, and never undone: Pillow knows formats by process."""
    pillow_heif.register_heif_opener()


def _open(content: bytes) -> ImageFile:
    image_format = _format_of(content)
    if image_format is None:
        raise _not_a_photo(content)
    _register_heif()
    try:
        return Image.open(io.BytesIO(content), formats=(image_format,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow's guard is the whole process's, and stays as it is: others rely on it. Here,
        # `max_pixels` is checked instead, which is the caller's own.
        return _FILES[image_format](io.BytesIO(content))
    except UnidentifiedImageError:  # which does not say why
        return _FILES[image_format](io.BytesIO(content))


def _decode(data: bytes, image_format: str, max_pixels: int, on_size: OnSize) -> Photo:
    size = _DECLARED[image_format](data) if image_format in _DECLARED else None
    if size:
        _check_size(size, max_pixels)
        on_size(*size)
    content, orientation = strip(data, image_format)
    with _open(content) as image:
        _check_size(image.size, max_pixels)
        width, height = image.size
        if not size:
            on_size(width, height)
        if image_format in {"HEIF", "AVIF"}:
            check_holes(content)
        if image_format != "JPEG" or not check_complete(content):
            image.load()
        if image_format == "HEIF":  # may know its size only after decoding
            width, height = image.size
        if image_format == "AVIF":  # Pillow reports the turn that the picture itself prescribes
            orientation = exif_orientation(image.info.get("exif", b""))
            width, height = _as_decoded(image, content).size
    if orientation >= 5:
        width, height = height, width
    return Photo(content, image_format, width, height, orientation)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise RejectedImage(
            "too_large",
            f"The image has {width} x {height} pixels and at most {max_pixels} are accepted; "
            "scale it down or raise the limit.",
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the first chunk of a WebP (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _gif_size(data: bytes) -> tuple[int, int]:
    """Width and height of a GIF with its first frame, which may exceed the declared screen."""
    width, height = struct.unpack_from("<HH", data, 6)
    for kind, start, _ in gif_blocks(data):
        if kind == GIF_IMAGE:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, start + 1)
            return max(width, left + frame_width), max(height, top + frame_height)
    return width, height


def _png_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a PNG."""
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


# Opening a WebP or a GIF takes memory for all of its pixels, and the data of a PNG are unpacked to
# count its rows: the size is looked at before.
_DECLARED: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "WEBP": _webp_size,
    "GIF": _gif_size,
    "PNG": _png_size,
}


def _decoder_failure(error: Exception, image_format: str) -> RejectedImage:
    if isinstance(error, MemoryError):
        return RejectedImage(
            "too_large", f"There is not enough memory to decode this {image_format}; scale it down."
        )
    if isinstance(error, UnidentifiedImageError):
        return corrupt(f"it begins like {image_format} but its header makes no sense")
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return RejectedImage(
            "too_large",
            "The image has more pixels than Pillow's guard allows in this process; scale it down.",
        )
    found = " ".join(str(error).split()) or type(error).__name__
    if _LACKING.search(found):
        return unsupported(f"a {image_format} that the decoder lacks ({found})", by=_BY)
    message = f"{image_format}: {found}"
    if isinstance(error, (EOFError, IndexError, struct.error)) or "truncated" in message.lower():
        return truncated(message)
    return corrupt(message)


def _not_a_photo(data: bytes) -> RejectedImage:
    if any(signature.startswith(data) for signature in _SIGNATURES):
        return truncated(f"it has {len(data)} bytes")
    head = data[:1024]
    return named_raw(head) or _changed(head) or _other_image(head) or _not_a_photo_but_text(head)


def _changed(head: bytes) -> RejectedImage | None:
    image_format = once(head, _SIGNATURES)
    return transferred_as_text(image_format) if image_format else None


def _other_image(head: bytes) -> RejectedImage | None:
    """A file of a known format that is not read."""
    if head[4:8] == b"ftyp" and head[8:12] in OTHER_BRANDS:
        return unsupported(f"a HEIF with {OTHER_BRANDS[head[8:12]]}", by=HEIF_BY)
    for signature, name in _OTHER_IMAGES.items():
        if head.startswith(signature):
            return unsupported(name)
    kind = filetype.guess(head)
    if kind is None:
        return None
    if kind.mime.startswith("image/"):
        return unsupported(f"{kind.mime.removeprefix('image/')} ({kind.extension})")
    return RejectedImage(
        "not_an_image", f"The file is {kind.mime}; keep only photos in the source."
    )


def _not_a_photo_but_text(head: bytes) -> RejectedImage:
    text = head.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n").lower()
    if text.startswith("version https://git-lfs"):
        return RejectedImage(
            "not_an_image",
            "This is a Git LFS pointer, not the photo itself: run `git lfs pull` in the source.",
        )
    if "<svg" in text:
        return unsupported("an SVG drawing")
    if text.startswith(("<!doctype html", "<html")):
        found = "an HTML page, such as a web server sends instead of a missing photo; download"
        return RejectedImage("not_an_image", f"The file is {found} the photo again.")
    if text.startswith("<?xml"):
        found = "an XML document, such as a storage service sends on errors; download"
        return RejectedImage("not_an_image", f"The file is {found} the photo again.")
    if b"\0" not in head and len(text) >= len(head.strip()) * 0.9:
        return RejectedImage("not_an_image", "The file is text; keep only photos in the source.")
    return RejectedImage(
        "not_an_image", "The file begins like no known image; replace it or remove it."
    )


def _flattened(image: Image.Image) -> Image.Image:
    """The first picture in 8 bits and without transparency: mode L, RGB, CMYK or LAB."""
    if image.mode in {"RGB", "L", "CMYK", "LAB"} and "transparency" not in image.info:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _in_8_bits(image)
    gray = image.mode in {"1", "L", "LA", "La"}
    if not image.has_transparency_data:
        return image.convert("L" if gray else "RGB")
    layered = image.convert("LA" if gray else "RGBA")
    flat = Image.new("L" if gray else "RGB", image.size, _WHITE if gray else (_WHITE,) * 3)
    flat.paste(layered, mask=layered.getchannel("A"))
    return flat


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Gray values of 16 or 32 bits, or floating point, scaled to 8 bits.

    16 bits lose their lower half, as in Pillow's own 16-bit colours. Wider types say nothing of
    their range: it is taken to be the smallest usual one (0 to 1 for floating point, 0 to 255,
    0 to 65535) that holds all values, else what the values span.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        transparent = image.info.get("transparency")  # one gray value, in PNG
        gray = np.where(values == transparent, _WHITE, values >> 8)
        return Image.fromarray(gray.astype(np.uint8))
    wide = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    usual = (255, 65535) if image.mode == "I" else (1, 255, 65535)
    ceiling = next((limit for limit in usual if low >= 0 and high <= limit), None)
    if ceiling is None:
        wide, ceiling = wide - low, high - low or 1
    return Image.fromarray(np.rint(wide * (_WHITE / ceiling)).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the colour profile of the photo, or plainly where it has none that fits."""
    conversion = _conversion(profile) if profile else None
    if conversion is None:
        return image.convert("RGB")
    mode, apply = conversion
    if image.mode == mode:
        return apply(image)
    if image.mode == "L" and mode == "RGB":
        return apply(image.convert("RGB"))
    return image.convert("RGB")


@lru_cache(maxsize=16)
def _conversion(profile: bytes) -> tuple[str, Callable[[Image.Image], Image.Image]] | None:
    """The mode a profile applies to and its conversion to sRGB; None if it changes nothing.

    A broken profile changes nothing either. One that is sRGB by any name must not: applying it
    would still move some colours by rounding.
    """
    try:
        source = ImageCms.core.profile_frombytes(profile)
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[source.xcolor_space]
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(source), srgb, mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return None
    if mode != "CMYK" and _is_identity(transform.apply, mode):
        return None
    return mode, transform.apply


def _is_identity(apply: Callable[[Image.Image], Image.Image], mode: str) -> bool:
    """Whether a conversion leaves a lattice of colours, or a ramp of grays, where they are."""
    if mode == "RGB":
        steps = np.linspace(0, 255, 17).astype(np.uint8)
        lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
        probe = Image.fromarray(lattice.reshape(17, 17 * 17, 3))
    else:
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    change = np.asarray(apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return bool(np.abs(change).max() <= _SAME_COLOUR)
