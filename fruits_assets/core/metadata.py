"""Removes everything from an image file that is not the image, without decoding a pixel.

EXIF (position, maker notes, embedded thumbnail), XMP, IPTC, comments, text and whatever follows
the image are removed from the container; compressed pixels, ICC profiles and what else a decoder
needs are copied as they are. The EXIF orientation is read before it goes.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap

from fruits_assets.core.bmp import strip_bmp
from fruits_assets.core.icc import clean_profile
from fruits_assets.core.isobmff import strip_isobmff
from fruits_assets.core.jpeg import strip_jpeg
from fruits_assets.core.png import strip_png
from fruits_assets.core.rejection import corrupt, truncated
from fruits_assets.core.stripped import Stripped, exif_orientation
from fruits_assets.core.tiff import strip_tiff

_WEBP_FRAME = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_WEBP_CHUNKS = _WEBP_FRAME | {b"VP8X", b"ANIM", b"ICCP"}
# What VP8 writes looks like chance: so many zeros are a block that the storage lost.
_WEBP_HOLE = bytes(64)
_WEBP_EXIF_AND_XMP_FLAGS, _WEBP_PROFILE_FLAG = 0x08 | 0x04, 0x20

GIF_IMAGE, _GIF_EXTENSION, _GIF_TRAILER = 0x2C, 0x21, 0x3B
_GIF_GRAPHIC_CONTROL, _GIF_APPLICATION = 0xF9, 0xFF


def strip(data: bytes, image_format: str) -> Stripped:
    """Removes the metadata from an image file.

    Args:
        data: The file.
        image_format: Its format, as Pillow names it.

    Returns:
        The file without metadata, and the orientation the metadata asked for.

    Raises:
        RejectedImage: The container is malformed or ends too early.
    """
    try:
        return _STRIPPERS[image_format](data)
    except (struct.error, IndexError) as error:
        raise truncated(f"a {image_format} header ends early") from error


def _strip_webp(data: bytes) -> Stripped:
    (length,) = struct.unpack_from("<I", data, 4)
    end = 8 + length
    if end > len(data):
        raise truncated(f"a WebP of {end} bytes has only {len(data)}")
    kept: list[bytes] = []
    seen: set[bytes] = set()
    orientation = None
    for kind, payload in _webp_chunks(data, 12, end):
        if kind == b"EXIF":  # the first counts
            orientation = orientation or exif_orientation(payload)
        elif kind == b"ANMF":
            inner = [
                one for one in _webp_chunks(payload, 16, len(payload)) if one[0] in _WEBP_FRAME
            ]
            kept.append(_webp_chunk(kind, payload[:16] + b"".join(starmap(_webp_chunk, inner))))
        elif kind in _WEBP_CHUNKS and kind not in seen:
            seen.add(kind)
            kept.append(_webp_chunk(kind, _webp_cleaned(kind, payload)))
    if b"ICCP" not in seen or _webp_chunk(b"ICCP", b"") in kept:
        kept = [_without_profile(chunk) for chunk in kept if chunk != _webp_chunk(b"ICCP", b"")]
    return Stripped(_webp_chunk(b"RIFF", b"".join((b"WEBP", *kept))), orientation or 1)


def _webp_cleaned(kind: bytes, payload: bytes) -> bytes:
    """A chunk without what is not of the picture."""
    if kind == b"ICCP":
        return clean_profile(payload)
    if kind == b"VP8X":
        flags = bytes(flag & ~_WEBP_EXIF_AND_XMP_FLAGS for flag in payload[:1])
        return flags + payload[1:10]
    if kind == b"VP8 " and _WEBP_HOLE in payload.rstrip(b"\0"):
        raise corrupt("a hole of zeros in its picture")
    return payload[:6] if kind == b"ANIM" else payload


def _without_profile(chunk: bytes) -> bytes:
    """The chunk that says what there is, once there is no profile."""
    if not chunk.startswith(b"VP8X"):
        return chunk
    return chunk[:8] + bytes((chunk[8] & ~_WEBP_PROFILE_FLAG,)) + chunk[9:]


def _webp_chunks(data: bytes, position: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Kind and payload of every chunk between two positions."""
    while position + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, position)
        position += 8
        if position + size > end:
            raise corrupt(f"WebP chunk {kind!r} is longer than the file says it is")
        yield kind, data[position : position + size]
        position += size + size % 2


def _webp_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(payload)) + payload + b"\0" * (len(payload) % 2)


def _strip_gif(data: bytes) -> Stripped:
    end = 13 + _gif_palette_bytes(data[10])
    kept = [data[:end]]
    for kind, start, after in gif_blocks(data):
        if kind == GIF_IMAGE or _gif_extension_is_kept(data[start:after]):
            kept.append(data[start:after])
            end = after
    # A frame cut short stays so: the decoder knows whether it misses what is gone.
    kept.append(b";" if end <= len(data) else b"")
    return Stripped(b"".join(kept), 1)


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of the frames and extensions of a GIF; the last may be cut short."""
    position = 13 + _gif_palette_bytes(data[10])
    while position < len(data) and data[position] != _GIF_TRAILER:
        start, kind = position, data[position]
        if kind == GIF_IMAGE:
            flags = data[start + 9] if start + 9 < len(data) else 0
            position = _after_gif_blocks(data, start + 10 + _gif_palette_bytes(flags) + 1)
        elif kind == _GIF_EXTENSION:
            position = _after_gif_blocks(data, start + 2)
        else:  # padding, which decoders skip
            position += 1
            continue
        yield kind, start, position


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_gif_blocks(data: bytes, position: int) -> int:
    """The position after a chain of blocks; beyond the end where it is cut short."""
    while position < len(data) and data[position]:
        position += data[position] + 1
    return position + 1


def _gif_extension_is_kept(extension: bytes) -> bool:
    """Timing and transparency of a frame, and how often an animation repeats."""
    label = extension[1] if len(extension) > 1 else None
    if label == _GIF_GRAPHIC_CONTROL:
        return len(extension) == 8 and (extension[2], extension[7]) == (4, 0)
    repeats = extension[2:16] == b"\x0bNETSCAPE2.0\3\1" and len(extension) == 19
    return label == _GIF_APPLICATION and repeats and extension[18] == 0


_STRIPPERS: dict[str, Callable[[bytes], Stripped]] = {
    "JPEG": strip_jpeg,
    "PNG": strip_png,
    "WEBP": _strip_webp,
    "GIF": _strip_gif,
    "BMP": strip_bmp,
    "TIFF": strip_tiff,
    "AVIF": partial(strip_isobmff, image_format="AVIF"),
    "HEIF": partial(strip_isobmff, image_format="HEIF"),
}
