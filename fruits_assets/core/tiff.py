"""Rewrites a TIFF as its first picture and nothing else, without decoding it.

A TIFF is a directory of tags that point anywhere into the file (Adobe, TIFF 6.0; BigTIFF widens
the pointers). The tags that decoding needs are copied with their compressed strips or tiles into a
new file; all other tags, directories and bytes are left behind.
"""

import struct
from typing import NamedTuple

from fruits_assets.core.rejection import corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped, valid_orientation

_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_LONG, _LONG8 = 4, 16
_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES = 274, 277
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
_UNCOMPRESSED, _OLD_JPEG, _YCBCR = 1, 6, 6
# Fill order, rows per strip, planes, fax options, predictor, tile size, ink set, sample positions.
_SINGLE_VALUES = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SAMPLES}
    | {266, 278, 284, 292, 293, 317, 322, 323, 332, 531}
)
# Bits, white point, primaries, colour map, extra samples, sample format, JPEG tables, YCbCr, ICC.
_LISTS = frozenset({_BITS, 318, 319, 320, 338, 339, 347, 529, 530, 532, 34675})
_SEGMENTS = frozenset({_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES})
_COPIED = _SINGLE_VALUES | _LISTS | _SEGMENTS
_EXAMINED = frozenset({_ORIENTATION, _SUBFILE_TYPE, _DNG_VERSION})


class _Value(NamedTuple):
    kind: int
    length: int  # in values
    payload: bytes

    def integers(self, order: str) -> tuple[int, ...]:
        if self.kind not in _INTEGER_FORMATS:
            raise corrupt("a TIFF tag that counts something does not hold integers")
        return struct.unpack(f"{order}{self.length}{_INTEGER_FORMATS[self.kind]}", self.payload)


def strip_tiff(data: bytes) -> Stripped:
    """The first picture of a TIFF or BigTIFF as a TIFF of its own, without metadata.

    Args:
        data: The file.

    Returns:
        A classic TIFF in the byte order of the file, and the orientation its tag asked for.

    Raises:
        RejectedImage: The directory is malformed, points outside the file, or belongs to a camera
            raw file, whose first picture is only a preview.
    """
    order = "<" if data[:2] == b"II" else ">"
    tags = _read_directory(data, order)
    _refuse_other_kinds(data, tags, order)
    segments = _read_segments(data, tags, order)
    _check_length(tags, segments, order)
    orientation = tags.get(_ORIENTATION)
    upright = orientation.integers(order)[0] if orientation else 1
    return Stripped(_write(tags, segments, order), valid_orientation(upright))


def _read_directory(data: bytes, order: str) -> dict[int, _Value]:
    """The tags of the first directory that matter here."""
    big = struct.unpack_from(f"{order}H", data, 2) == (43,)
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    entry_format, inline = (f"{order}HHQ8s", 8) if big else (f"{order}HHI4s", 4)
    entry_bytes = struct.calcsize(entry_format)
    first = start + (8 if big else 2)
    if first + entries * entry_bytes > len(data):
        raise truncated("a TIFF directory ends early")
    tags: dict[int, _Value] = {}
    for entry in range(first, first + entries * entry_bytes, entry_bytes):
        tag, kind, count, field = struct.unpack_from(entry_format, data, entry)
        if tag in tags or kind not in _VALUE_BYTES or not count:
            continue
        if tag not in _COPIED and tag not in _EXAMINED:
            continue
        if _VALUE_BYTES[kind] * count > inline:
            (offset,) = struct.unpack(order + ("Q" if big else "I"), field)
        else:
            offset = entry + entry_bytes - inline
        if tag not in _LISTS and tag not in _SEGMENTS:
            count = 1  # what Pillow reads of it too, but with a warning
        payload = data[offset : offset + _VALUE_BYTES[kind] * count]
        if len(payload) < _VALUE_BYTES[kind] * count:
            raise truncated(f"TIFF tag {tag} lies outside the file")
        tags[tag] = _Value(kind, count, payload)
    return tags


def _refuse_other_kinds(data: bytes, tags: dict[int, _Value], order: str) -> None:
    """Camera raw files are TIFFs too, and begin with a small preview of the photo."""
    preview = _SUBFILE_TYPE in tags and tags[_SUBFILE_TYPE].integers(order)[0] & 1
    if preview or _DNG_VERSION in tags or data[8:10] == b"CR":
        raise unsupported("a camera raw file, of which only a preview could be read")
    if _COMPRESSION in tags and tags[_COMPRESSION].integers(order)[0] == _OLD_JPEG:
        raise unsupported("a TIFF with the obsolete JPEG compression (6)")


def _read_segments(data: bytes, tags: dict[int, _Value], order: str) -> list[bytes]:
    """The compressed strips or tiles, in order."""
    offsets_tag = _STRIP_OFFSETS if _STRIP_OFFSETS in tags else _TILE_OFFSETS
    bytes_tag = _STRIP_BYTES if _STRIP_BYTES in tags else _TILE_BYTES
    if offsets_tag not in tags or bytes_tag not in tags:
        raise corrupt("a TIFF does not say where its pixels are")
    offsets = tags[offsets_tag].integers(order)
    sizes = tags[bytes_tag].integers(order)
    if len(offsets) != len(sizes):
        raise corrupt("a TIFF has more strips or tiles than sizes for them, or fewer")
    if sum(sizes) > len(data):  # overlapping segments could be copied without end
        raise truncated("the pixels of a TIFF are longer than the file")
    segments = [data[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    if any(len(segment) < size for segment, size in zip(segments, sizes, strict=True)):
        raise truncated("the pixels of a TIFF lie outside the file")
    return segments


def _check_length(tags: dict[int, _Value], segments: list[bytes], order: str) -> None:
    """Uncompressed pixels must all be there: Pillow would read on into whatever follows."""

    def first(tag: int, default: int) -> int:
        return tags[tag].integers(order)[0] if tag in tags else default

    if first(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED:
        return
    if first(_PHOTOMETRIC, 0) == _YCBCR:  # subsampled, hence shorter
        return
    row_bits = first(_WIDTH, 0) * first(_SAMPLES, 1) * first(_BITS, 1)
    if sum(map(len, segments)) < (row_bits + 7) // 8 * first(_HEIGHT, 0):
        raise truncated("a TIFF holds fewer pixels than its size says")


def _write(tags: dict[int, _Value], segments: list[bytes], order: str) -> bytes:
    """A classic TIFF: header, directory, values too long for the directory, strips or tiles."""
    copied = {tag: tags[tag] for tag in sorted(_COPIED & tags.keys())}
    for tag, value in copied.items():
        if value.kind == _LONG8 or tag in _SEGMENTS:  # classic TIFF counts in 32 bits
            narrow = struct.pack(f"{order}{value.length}I", *value.integers(order))
            copied[tag] = _Value(_LONG, value.length, narrow)
    offsets_tag = _STRIP_OFFSETS if _STRIP_OFFSETS in copied else _TILE_OFFSETS
    start = 8 + 2 + 12 * len(copied) + 4
    after = start + sum(_padded(value.payload) for value in copied.values())
    offsets = []
    for segment in segments:
        offsets.append(after)
        after += len(segment) + len(segment) % 2
    copied[offsets_tag] = _Value(
        _LONG, len(offsets), struct.pack(f"{order}{len(offsets)}I", *offsets)
    )

    directory = [struct.pack(f"{order}H", len(copied))]
    values: list[bytes] = []
    for tag, value in copied.items():
        payload = value.payload.ljust(4, b"\0")
        if len(payload) > 4:
            values.append(payload + b"\0" * (len(payload) % 2))
            payload = struct.pack(f"{order}I", start)
            start += _padded(value.payload)
        directory.append(struct.pack(f"{order}HHI", tag, value.kind, value.length) + payload)
    pixels = (segment + b"\0" * (len(segment) % 2) for segment in segments)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    header = magic + struct.pack(f"{order}I", 8)
    return b"".join((header, *directory, bytes(4), *values, *pixels))


def _padded(payload: bytes) -> int:
    """Bytes that a value takes outside the directory, on an even address."""
    return len(payload) + len(payload) % 2 if len(payload) > 4 else 0
