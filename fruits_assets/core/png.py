"""Removes the metadata from a PNG, and sees whether all of its rows are there.

Decoders leave rows that are missing black, and say nothing: the data are unpacked here once more,
and counted. PNG: W3C Recommendation, third edition.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from fruits_assets.core.icc import clean_profile, colours_of
from fruits_assets.core.rejection import RejectedImage, corrupt, truncated
from fruits_assets.core.stripped import Stripped, exif_orientation

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
# Colours and transparency, with the bytes that each has at most: nothing else has room there.
_COLOUR = {
    b"tRNS": 256,
    b"cHRM": 32,
    b"gAMA": 4,
    b"iCCP": 1 << 31,
    b"sBIT": 4,
    b"sRGB": 1,
    b"cICP": 4,
    b"mDCV": 24,
    b"cLLI": 8,
}
_TEXTS = frozenset({b"zTXt", b"iTXt", b"tEXt"})
# The limit of Pillow and libpng: a text that expands further is there to exhaust memory.
_TEXT_LIMIT = 1 << 20
# A profile beyond the limit of Pillow is made smaller; one beyond this is a bomb.
_PROFILE_LIMIT = 1 << 24
# As programs name profiles; whatever else a profile is called may be somebody's name.
_PROFILE_NAMES = frozenset(
    {b"icc", b"ICC", b"ICC Profile", b"ICC profile", b"icc profile", b"Photoshop ICC profile"}
    | {b"sRGB", b"sRGB IEC61966-2.1", b"Display P3", b"Adobe RGB (1998)", b"Skia", b"1"}
    | {b"kCGColorSpaceSRGB", b"kCGColorSpaceDisplayP3", b"kCGColorSpaceGenericRGB"}
    | {b"Embedded Profile", b"embedded", b"profile", b"unknown", b"ICCProfile", b"_"}
)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first column and row of each pass, and the steps to the next.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_PIECE = 1 << 16
# Of zlib (RFC 1950), around the compressed data.
_HEADER_BYTES, _CHECKSUM_BYTES = 2, 4


class _Chunk(NamedTuple):
    kind: bytes
    payload: bytes
    whole: bytes


def strip_png(data: bytes) -> Stripped:
    """The first picture of a PNG, without metadata.

    Args:
        data: The file.

    Returns:
        The file with the chunks that decoding needs, and the orientation of the first EXIF: that of
        its own chunk before that in a text.

    Raises:
        RejectedImage: It is malformed, ends too early, or has fewer rows than it says.
    """
    kept: list[_Chunk] = []
    exif: int | None = None
    text: int | None = None
    for chunk in _chunks(data):
        kind, payload, _ = chunk
        if kind in _CRITICAL:
            kept.append(chunk)
        elif kind in _COLOUR:
            if len(payload) <= _COLOUR[kind]:
                kept += _cleaned(chunk)
        elif kind[:1].isupper():  # Pillow would skip it, though the standard forbids to
            raise RejectedImage(
                "unsupported_format",
                f"The PNG cannot be decoded without its chunk {kind.decode()}, which is not of the "
                "standard; save it again with another program.",
            )
        elif kind == b"eXIf" and exif is None:
            exif = exif_orientation(payload)
        elif kind in _TEXTS:
            text = text or _text_orientation(kind, payload)
    content = b"".join((_SIGNATURE, *(chunk.whole for chunk in _checked(kept)), _END))
    return Stripped(content, exif or text or 1)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Every chunk up to IEND; the checksums of those that are kept are verified."""
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        whole = data[position : position + 12 + length]
        if len(kind) == 4 and not kind.isalpha():
            raise corrupt("a PNG chunk has no valid name")
        if len(whole) < 12 + length:
            if not length and b"IEND".startswith(kind) and position > len(_SIGNATURE):
                return  # only the end is missing: whether the picture is whole, its data say
            raise truncated("a PNG without its end")
        position += len(whole)
        # Decoders may stop before the checksum of the last pixels: it is verified here.
        if zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:]):
            if kind not in _CRITICAL and kind not in _COLOUR:
                continue  # damage in what is removed anyway
            raise corrupt(f"the checksum of PNG chunk {kind.decode()} is wrong")
        yield _Chunk(kind, whole[8:-4], whole)


def _sealed(kind: bytes, payload: bytes) -> _Chunk:
    body = kind + payload
    whole = struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))
    return _Chunk(kind, payload, whole)


def _cleaned(chunk: _Chunk) -> list[_Chunk]:
    """A chunk of colours without what is not colour; none if nothing is left."""
    if chunk.kind != b"iCCP":
        return [chunk]
    name, _, packed = chunk.payload.partition(b"\0")
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], _PROFILE_LIMIT)
    except zlib.error:
        return []  # readers ignore it
    if unpacker.unconsumed_tail:
        raise _bomb("colour profile", "16 MB")
    whole = unpacker.eof and not unpacker.unused_data
    cleaned = clean_profile(profile)
    if len(cleaned) > _TEXT_LIMIT:  # which Pillow would refuse to read
        cleaned = colours_of(cleaned)
    if len(cleaned) > _TEXT_LIMIT:
        return []
    if cleaned == profile and whole and name in _PROFILE_NAMES:
        return [chunk]
    return [_sealed(b"iCCP", b"icc\0\0" + zlib.compress(cleaned))] if cleaned else []


def _bomb(what: str, limit: str) -> RejectedImage:
    return RejectedImage(
        "too_large",
        f"A {what} inside the PNG expands to more than {limit}, as decompression bombs do; "
        "save the picture again without it.",
    )


def _text_orientation(kind: bytes, payload: bytes) -> int | None:
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
            rest = unpacker.decompress(rest, _TEXT_LIMIT)
        except zlib.error:
            return None
        if unpacker.unconsumed_tail:
            raise _bomb("text", "1 MB")
    if keyword != b"Raw profile type exif":
        return None
    try:
        return exif_orientation(bytes.fromhex(b"".join(rest.split(b"\n")[3:]).decode("ascii")))
    except ValueError:
        return None


def _checked(chunks: list[_Chunk]) -> Iterator[_Chunk]:
    """The chunks before the end, once all rows have been found in them."""
    first = chunks[0] if chunks else None
    if first is None or first.kind != b"IHDR" or len(first.payload) != 13:
        raise corrupt("a PNG does not begin with its header")
    if any(chunk.kind == b"PLTE" and len(chunk.payload) > 768 for chunk in chunks):
        raise corrupt("a PNG palette has more than 256 colours")
    expected = _data_bytes(*struct.unpack(">IIBBxxB", first.payload))
    data = b"".join(chunk.payload for chunk in chunks if chunk.kind == b"IDAT")
    rows = _only_rows(data, expected) if expected else data
    for chunk in chunks:
        if chunk.kind == b"IDAT" and rows != data:
            if rows:
                yield _sealed(b"IDAT", rows)
            rows = b""
        elif chunk.kind != b"IEND":
            yield chunk


def _data_bytes(width: int, height: int, depth: int, colours: int, interlaced: int) -> int:
    """Bytes of all rows, each with its filter; 0 for a header that decoders refuse."""
    if colours not in _CHANNELS or depth not in {1, 2, 4, 8, 16} or interlaced > 1:
        return 0
    bits = depth * _CHANNELS[colours]
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for column, row, across, down in passes:
        columns, rows = -(-(width - column) // across), -(-(height - row) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _only_rows(data: bytes, expected: int) -> bytes:
    """The compressed rows without what follows them; raises where there are fewer than `expected`.

    The checksum at their end is not looked at: those of the chunks have been.
    """
    unpacker, found, position = zlib.decompressobj(-zlib.MAX_WBITS), 0, _HEADER_BYTES
    view = memoryview(data)
    try:
        while position < len(data) and not unpacker.eof and found <= expected:
            piece: bytes | memoryview = view[position : position + _PIECE]
            position += len(piece)
            while piece and not unpacker.eof and found <= expected:
                found += len(unpacker.decompress(piece, _PIECE))
                piece = unpacker.unconsumed_tail
    except zlib.error as error:
        raise corrupt(f"PNG: {error}") from error
    if found < expected:
        raise truncated(f"a PNG has {found} bytes of pixels instead of {expected}")
    if found > expected:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        return zlib.compress(unpacker.decompress(view[_HEADER_BYTES:], expected))
    return data[: position - len(unpacker.unused_data) + _CHECKSUM_BYTES]
