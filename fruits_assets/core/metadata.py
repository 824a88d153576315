"""Removes everything from an image file that is not the image, without decoding a pixel.

EXIF (position, maker notes, embedded thumbnail), XMP, IPTC, comments, text and whatever follows
the image are removed from the container; compressed pixels, ICC profiles and what else a decoder
needs are copied as they are. The EXIF orientation is read before it goes.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import starmap

from fruits_assets.core.isobmff import strip_isobmff
from fruits_assets.core.rejection import RejectedImage, corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped, exif_orientation
from fruits_assets.core.tiff import strip_tiff

MAX_JPEG_SCANS = 100
"""Passes over the picture in a JPEG, at most. Progressive encoders make some 10, and the ones that
search for the best script some 20; each costs time for all pixels, and next to no bytes."""

# A marker that is neither a stuffed 0xFF, nor a fill byte, nor a restart inside the scan.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_JPEG_SOI, _JPEG_EOI, _JPEG_SCAN, _JPEG_COMMENT = 0xD8, 0xD9, 0xDA, 0xFE
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Application segments that decoding needs: the shape of the pixels, their colours, their transform.
_JPEG_APPLICATIONS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}

_PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PNG_COLOUR = frozenset(
    {b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI"}
)
# The limit of Pillow and libpng: a text that expands further is there to exhaust memory.
_PNG_TEXT_LIMIT = 1 << 20

_WEBP_FRAME = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_WEBP_CHUNKS = _WEBP_FRAME | {b"ANIM", b"ICCP"}
_WEBP_EXIF_AND_XMP_FLAGS = 0x08 | 0x04

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


def _strip_jpeg(data: bytes) -> Stripped:
    kept: list[bytes] = []
    orientation = 1
    copied = 0  # everything before is in `kept` or dropped
    scans = 0
    end, previous = 2, _JPEG_SOI
    for code, start, payload, after in _jpeg_segments(data):
        if start > end and previous != _JPEG_SCAN:  # decoders skip what is between segments
            kept.append(data[copied:end])
            copied = start
        end, previous = after, code
        scans += code == _JPEG_SCAN
        if scans > MAX_JPEG_SCANS:
            raise RejectedImage(
                "too_large",
                f"The JPEG goes over the whole picture more than {MAX_JPEG_SCANS} times (scans), "
                "which takes long for no use; save it again with another program.",
            )
        if code in _JPEG_FRAMES and payload[:1] != b"\x08":
            raise unsupported("a JPEG with other than 8 bits per colour")
        if code == 0xE1 and payload.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(payload)
        replacement = _jpeg_replacement(code, payload)
        if replacement is not None:
            kept += (data[copied:start], replacement)
            copied = end
    return Stripped(b"".join((*kept, data[copied:end])), orientation)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Marker code, start, payload and end of every segment, to the end marker."""
    position = 2
    while (marker := _JPEG_MARKER.search(data, position)) is not None:
        position, code = marker.end(), data[marker.end() - 1]
        if code == _JPEG_EOI:
            yield code, marker.start(), b"", position
            return
        if code == _JPEG_SOI:
            raise corrupt("a second JPEG begins inside the first")
        end = position + int.from_bytes(data[position : position + 2])
        if max(end, position + 2) > len(data):
            break
        if end < position + 2:
            raise corrupt(f"JPEG segment {code:#x} has an impossible length")
        yield code, marker.start(), data[position + 2 : end], end
        position = end
    raise truncated("a JPEG without its end marker")


def _jpeg_replacement(code: int, payload: bytes) -> bytes | None:
    """What to write instead of a segment; None to copy it."""
    if code != _JPEG_COMMENT and not 0xE0 <= code <= 0xEF:
        return None
    prefix = _JPEG_APPLICATIONS.get(code)
    if prefix is None or not payload.startswith(prefix):
        return b""
    if code == 0xE0 and len(payload) > 14:  # JFIF may hold a thumbnail
        return b"\xff\xe0\x00\x10" + payload[:12] + b"\0\0"
    if code == 0xEE and len(payload) > 12:
        return b"\xff\xee\x00\x0e" + payload[:12]
    return None


def _strip_png(data: bytes) -> Stripped:
    kept = [data[:8]]
    orientation = 1
    for kind, payload, chunk in _png_chunks(data):
        if kind in _PNG_CRITICAL or kind in _PNG_COLOUR:
            kept.append(chunk)
        elif kind[:1].isupper():  # Pillow would skip it, though the standard forbids to
            raise RejectedImage(
                "unsupported_format",
                f"The PNG cannot be decoded without its chunk {kind.decode()}, which is not of the "
                "standard; save it anew with another program.",
            )
        elif kind == b"eXIf":
            orientation = exif_orientation(payload)
        elif kind in {b"zTXt", b"iTXt", b"tEXt"}:
            orientation = _png_text_orientation(kind, payload) or orientation
    return Stripped(b"".join(kept), orientation)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, payload and whole bytes of every chunk up to IEND, their checksums verified."""
    position, kind = 8, b""
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        chunk = data[position : position + 12 + length]
        if len(kind) == 4 and not kind.isalpha():
            raise corrupt("a PNG chunk has no valid name")
        if len(chunk) < 12 + length:
            raise truncated("a PNG without its end")
        # Decoders may stop before the checksum of the last pixels: it is verified here.
        if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
            raise corrupt(f"the checksum of PNG chunk {kind.decode()} is wrong")
        yield kind, chunk[8:-4], chunk
        position += len(chunk)


def _png_text_orientation(kind: bytes, payload: bytes) -> int | None:
    """The orientation in a text chunk in which ImageMagick keeps EXIF; bombs are refused."""
    keyword, _, rest = payload.partition(b"\0")
    packed = kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1")
    if kind == b"iTXt":
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif kind == b"zTXt":
        rest = rest[1:]
    if packed:
        unpacker = zlib.decompressobj()
        try:
            rest = unpacker.decompress(rest, _PNG_TEXT_LIMIT)
        except zlib.error:
            return None
        if unpacker.unconsumed_tail:
            raise RejectedImage(
                "too_large",
                "A text inside the PNG expands to more than 1 MB, as decompression bombs do; "
                "save the picture again without it.",
            )
    if keyword != b"Raw profile type exif":
        return None
    try:
        return exif_orientation(bytes.fromhex(b"".join(rest.split(b"\n")[3:]).decode("ascii")))
    except ValueError:
        return None


def _strip_webp(data: bytes) -> Stripped:
    (length,) = struct.unpack_from("<I", data, 4)
    end = 8 + length
    if end > len(data):
        raise truncated(f"a WebP of {end} bytes has only {len(data)}")
    kept: list[bytes] = []
    orientation = None
    for kind, payload in _webp_chunks(data, 12, end):
        if kind == b"EXIF":  # the first counts
            orientation = orientation or exif_orientation(payload)
        elif kind == b"VP8X":
            flags = bytes(flag & ~_WEBP_EXIF_AND_XMP_FLAGS for flag in payload[:1])
            kept.append(_webp_chunk(kind, flags + payload[1:]))
        elif kind == b"ANMF":
            inner = [
                one for one in _webp_chunks(payload, 16, len(payload)) if one[0] in _WEBP_FRAME
            ]
            kept.append(_webp_chunk(kind, payload[:16] + b"".join(starmap(_webp_chunk, inner))))
        elif kind in _WEBP_CHUNKS:
            kept.append(_webp_chunk(kind, payload))
    return Stripped(_webp_chunk(b"RIFF", b"".join((b"WEBP", *kept))), orientation or 1)


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
        return len(extension) == 8
    repeats = extension[3:14] == b"NETSCAPE2.0" and len(extension) == 19
    return label == _GIF_APPLICATION and repeats


def _strip_bmp(data: bytes) -> Stripped:
    offset, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = size = 0
    else:
        width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
    if compression in {0, 3}:  # uncompressed, with or without colour masks
        size = (width * bits + 31) // 32 * 4 * abs(height)
    end = offset + size
    if size <= 0 or end >= len(data):
        return Stripped(data, 1)
    return Stripped(data[:2] + struct.pack("<I", end) + data[6:end], 1)


_STRIPPERS: dict[str, Callable[[bytes], Stripped]] = {
    "JPEG": _strip_jpeg,
    "PNG": _strip_png,
    "WEBP": _strip_webp,
    "GIF": _strip_gif,
    "BMP": _strip_bmp,
    "TIFF": strip_tiff,
    "AVIF": strip_isobmff,
    "HEIF": strip_isobmff,
}
