"""Blanks the metadata inside HEIF and AVIF files, in place.

These files (ISO/IEC 14496-12 boxes, 23008-12 items) address their pixels by position in the file,
so that nothing may move: the payload of a metadata item is overwritten with zeros, its type becomes
one that readers ignore, and the reference that ties it to the picture goes.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from fruits_assets.core.rejection import corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped

_METADATA_ITEMS = frozenset({b"Exif", b"mime", b"uri "})
_TOP_LEVEL_BOXES = frozenset({b"ftyp", b"meta", b"mdat", b"moov"})
# What says where the pictures are, what shape they have and how they belong together.
_ITEM_BOXES = frozenset(
    {b"hdlr", b"pitm", b"iinf", b"iloc", b"iref", b"iprp", b"idat", b"dinf", b"grpl", b"ipro"}
)
_FREE = b"free"
_IN_FILE, _IN_ITEM_DATA = 0, 1


class _Box(NamedTuple):
    kind: bytes
    start: int
    payload: int
    end: int


def strip_isobmff(data: bytes) -> Stripped:
    """A HEIF or AVIF file with its EXIF, XMP and other metadata blanked.

    Args:
        data: The file.

    Returns:
        A file in which every remaining byte keeps its place. The orientation is 1: it is a
        property of the picture in these formats, and what EXIF says is to be ignored.

    Raises:
        RejectedImage: The boxes are malformed or end too early.
    """
    blanked = bytearray(data)
    end = 0
    for box in _boxes(data, 0, len(data)):
        if box.kind == b"meta":
            _blank_items(blanked, box)
        elif box.kind == b"moov":
            _blank_movie(blanked, box)
        elif box.kind not in _TOP_LEVEL_BOXES:
            _blank_box(blanked, box)
        end = box.end
    del blanked[end:]
    return Stripped(bytes(blanked), 1)


def _boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[_Box]:
    """The boxes between two positions, up to a byte that cannot begin one."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        payload = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, payload)
            payload += 8
        elif size == 0:
            size = end - start
        if not kind.isascii() or size < payload - start:
            break  # what follows the file proper is not a box
        if start + size > end:
            raise truncated(f"box {kind.decode()} is longer than the file")
        yield _Box(kind, start, payload, start + size)
        start += size


def _blank_box(data: bytearray, box: _Box) -> None:
    data[box.start + 4 : box.start + 8] = _FREE
    data[box.payload : box.end] = bytes(box.end - box.payload)


def _blank_movie(data: bytearray, movie: _Box) -> None:
    """Image sequences keep their metadata beside their tracks."""
    for box in _boxes(data, movie.payload, movie.end):
        if box.kind == b"trak":
            _blank_movie(data, box)
        elif box.kind == b"meta":
            _blank_items(data, box)
        elif box.kind in {b"udta", b"uuid", b"free", b"skip"}:
            _blank_box(data, box)


def _blank_items(data: bytearray, meta: _Box) -> None:
    boxes: dict[bytes, _Box] = {}
    for box in _boxes(data, meta.payload + 4, meta.end):
        if box.kind not in _ITEM_BOXES:
            _blank_box(data, box)
        elif box.kind in boxes:  # readers would differ in which of the two they go by
            raise corrupt(f"box {box.kind.decode()} is there twice")
        else:
            boxes[box.kind] = box
    if b"iinf" not in boxes:
        return
    hidden = _hide_items(data, boxes[b"iinf"])
    if hidden and b"iref" in boxes:
        _unlink_items(data, boxes[b"iref"], hidden)
    if hidden and b"iloc" in boxes:
        _zero_items(data, boxes[b"iloc"], boxes.get(b"idat"), hidden)


def _hide_items(data: bytearray, info: _Box) -> set[int]:
    """Retypes the metadata items; their numbers."""
    hidden = set()
    first = info.payload + 4 + (2 if data[info.payload] == 0 else 4)
    for entry in _boxes(data, first, info.end):
        version = data[entry.payload]
        if entry.kind != b"infe" or version < 2:
            continue
        number_format = ">H" if version == 2 else ">I"
        (number,) = struct.unpack_from(number_format, data, entry.payload + 4)
        kind = entry.payload + 4 + struct.calcsize(number_format) + 2
        if bytes(data[kind : kind + 4]) in _METADATA_ITEMS:
            # After the type come a name and, for XMP, a media type.
            data[kind : entry.end] = _FREE + bytes(entry.end - kind - 4)
            hidden.add(number)
    return hidden


def _unlink_items(data: bytearray, references: _Box, hidden: set[int]) -> None:
    number_format = ">H" if data[references.payload] == 0 else ">I"
    for reference in _boxes(data, references.payload + 4, references.end):
        (number,) = struct.unpack_from(number_format, data, reference.payload)
        if number in hidden:
            data[reference.start + 4 : reference.start + 8] = _FREE


def _zero_items(data: bytearray, locations: _Box, item_data: _Box | None, hidden: set[int]) -> None:
    zeroed = 0
    for start, size in list(_extents(data, locations, item_data, hidden)):
        if start + size > len(data):
            raise truncated("its metadata lie outside the file")
        zeroed += size
        if zeroed > len(data):  # extents that overlap could keep us busy without end
            raise corrupt("its metadata claim more bytes than the file has")
        data[start : start + size] = bytes(size)


def _extents(
    data: bytearray, locations: _Box, item_data: _Box | None, hidden: set[int]
) -> Iterator[tuple[int, int]]:
    """Position and size of every stretch of the hidden items (box `iloc`, versions 0 to 2)."""
    cursor = _Cursor(data, locations.payload, locations.end)
    version = cursor.integer(4) >> 24
    widths = cursor.integer(2)
    offset_width, length_width, base_width = widths >> 12, widths >> 8 & 15, widths >> 4 & 15
    index_width = widths & 15 if version else 0
    number_width = 2 if version < 2 else 4
    for _ in range(cursor.integer(number_width)):
        number = cursor.integer(number_width)
        method = cursor.integer(2) & 15 if version else _IN_FILE
        elsewhere = cursor.integer(2)
        base = cursor.integer(base_width)
        count = cursor.integer(2)
        if number not in hidden:
            cursor.skip(count * (index_width + offset_width + length_width))
            continue
        if elsewhere or method not in {_IN_FILE, _IN_ITEM_DATA}:
            raise unsupported("a HEIF or AVIF whose metadata cannot be removed")
        if not length_width:  # then a table of a few bytes could describe extents without end
            raise corrupt("metadata without a size")
        if method == _IN_ITEM_DATA:
            if item_data is None:
                raise corrupt("metadata without data")
            base += item_data.payload
        for _ in range(count):
            cursor.skip(index_width)
            offset = cursor.integer(offset_width)
            yield base + offset, cursor.integer(length_width)


class _Cursor:
    """Reads big-endian integers of any width, within a box."""

    def __init__(self, data: bytearray, position: int, end: int) -> None:
        self._data = data
        self._position = position
        self._end = end

    def integer(self, width: int) -> int:
        start = self._position
        self.skip(width)
        return int.from_bytes(self._data[start : self._position])

    def skip(self, width: int) -> None:
        self._position += width
        if self._position > self._end:
            raise truncated("the table of its items ends early")
