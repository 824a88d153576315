"""Blanks the metadata inside HEIF and AVIF files, in place.

These files (ISO/IEC 14496-12 boxes, 23008-12 items) address their pixels by position in the file,
so that nothing may move: the payload of a metadata item is overwritten with zeros, its type becomes
one that readers ignore, and the reference that ties it to the picture goes.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from fruits_assets.core.icc import clean_profile
from fruits_assets.core.rejection import RejectedImage, corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped

OTHER_BRANDS = {
    **dict.fromkeys((b"avci", b"avcs"), "AVC (H.264)"),
    **dict.fromkeys((b"jpeg", b"jpgs"), "JPEG"),
    **dict.fromkeys((b"vvic", b"vvis"), "VVC (H.266)"),
    **dict.fromkeys((b"evbi", b"evmi", b"evbs", b"evms"), "EVC"),
    **dict.fromkeys((b"j2ki", b"j2is"), "JPEG 2000"),
}
"""Codecs in HEIF that no decoder here reads, by brand."""
HEIF_BY = "heif-convert of libheif or ImageMagick"
_OTHER_CODECS = {
    b"avc1": "AVC (H.264)",
    b"jpeg": "JPEG",
    b"vvc1": "VVC (H.266)",
    b"evc1": "EVC",
    b"j2k1": "JPEG 2000",
    b"unci": "uncompressed pixels",
    b"av01": "AV1",
}
_CODED = {"HEIF": frozenset({b"hvc1", b"hev1", b"lhv1"}), "AVIF": frozenset({b"av01"})}
_DERIVED = frozenset({b"grid", b"iovl", b"iden", b"tmap"})

_TOP_LEVEL_BOXES = frozenset({b"ftyp", b"meta", b"mdat", b"moov"})
# What says where the pictures are, what shape they have and how they belong together.
_ITEM_BOXES = frozenset(
    {b"hdlr", b"pitm", b"iinf", b"iloc", b"iref", b"iprp", b"idat", b"dinf", b"grpl", b"ipro"}
)
# What decoding and showing a picture needs to know of it.
_PROPERTIES = frozenset(
    {b"ispe", b"pixi", b"colr", b"hvcC", b"av1C", b"lhvC", b"irot", b"imir", b"clap", b"pasp"}
    | {b"auxC", b"clli", b"mdcv", b"cclv", b"amve", b"lsel", b"a1op", b"a1lx", b"rloc", b"oinf"}
    | {b"tols", b"layr", b"iscl"}
)
# Of an image sequence: box -> the boxes in it that are kept. All others are blanked.
_MOVIE = {
    b"moov": frozenset({b"mvhd", b"trak", b"meta"}),
    b"trak": frozenset({b"tkhd", b"edts", b"tref", b"mdia", b"meta"}),
    b"edts": frozenset({b"elst"}),
    b"mdia": frozenset({b"mdhd", b"hdlr", b"minf"}),
    b"minf": frozenset({b"vmhd", b"nmhd", b"dinf", b"stbl"}),
    b"dinf": frozenset({b"dref"}),
    b"stbl": frozenset({b"stsd", b"stts", b"stss", b"stsc", b"stsz", b"stz2", b"stco", b"co64"})
    | {b"ctts", b"sgpd", b"sbgp", b"cslg", b"sdtp"},
}
_TIMED = frozenset({b"mvhd", b"tkhd", b"mdhd"})
_HANDLERS = frozenset({b"pict", b"vide", b"auxv"})
_SAMPLE_ENTRY_BYTES, _COMPRESSOR = 78, slice(42, 74)
_SAMPLE_PROPERTIES = _PROPERTIES | {b"ccst", b"auxi", b"btrt"}
# What writers call themselves; any other name may be that of a person or a device.
_WRITERS = frozenset(
    {b"", b"libavif", b"pict", b"PictureHandler", b"Picture Handler", b"ImageHandler"}
)
_COMPRESSORS = frozenset({b"\x0aAOM Coding", b"\x0bHEVC Coding", b""})
_ITEM_NAMES = frozenset({b"", b"Color", b"Alpha", b"HEVC Image", b"Derived image"})
_UNIT_LENGTH = 4
# HEVC writes 0, 0, 3 for two zeros in front of another, so that three are in no unit (ITU-T H.265,
# 7.4.2). What AV1 writes looks like chance.
_HEVC_HOLE, _AV1_HOLE = bytes(3), bytes(64)
_FREE = b"free"
_IN_FILE, _IN_ITEM_DATA = 0, 1


class _Box(NamedTuple):
    kind: bytes
    start: int
    payload: int
    end: int


def strip_isobmff(data: bytes, image_format: str) -> Stripped:
    """A HEIF or AVIF file with its EXIF, XMP and other metadata blanked.

    Args:
        data: The file.
        image_format: HEIF or AVIF.

    Returns:
        A file in which every remaining byte keeps its place. The orientation is 1: it is a
        property of the picture in these formats, and what EXIF says is to be ignored.

    Raises:
        RejectedImage: The boxes are malformed or end too early, or its codec is not decoded.
    """
    blanked = bytearray(data)
    end = 0
    boxes = list(_boxes(data, 0, len(data)))
    sequence = any(box.kind == b"moov" for box in boxes)
    for box in boxes:
        if box.kind == b"meta":
            kept = _blank_items(blanked, box, _CODED[image_format])
            if not sequence and kept is not None:
                media = [(one.payload, one.end) for one in boxes if one.kind == b"mdat"]
                _zero_between(blanked, media, kept)
        elif box.kind == b"moov":
            _blank_movie(blanked, box)
        elif box.kind not in _TOP_LEVEL_BOXES:
            _blank_box(blanked, box)
        end = box.end
    del blanked[end:]
    return Stripped(bytes(blanked), 1)


def clean_aperture(content: bytes) -> tuple[int, int, int, int] | None:
    """The rectangle of the primary picture that is shown (`clap`), before it is turned.

    Args:
        content: A HEIF or AVIF file.

    Returns:
        Left, upper, right and lower edge in pixels; None for all of it, or where it makes no sense.
    """
    meta = next((box for box in _boxes(content, 0, len(content)) if box.kind == b"meta"), None)
    if meta is None:
        return None
    items = {box.kind: box for box in _boxes(content, meta.payload + 4, meta.end)}
    if b"pitm" not in items or b"iprp" not in items:
        return None
    properties = {
        box.kind: box for box in _boxes(content, items[b"iprp"].payload, items[b"iprp"].end)
    }
    if b"ipco" not in properties or b"ipma" not in properties:
        return None
    every = list(_boxes(content, properties[b"ipco"].payload, properties[b"ipco"].end))
    number = _primary(content, items[b"pitm"])
    own = [
        every[at - 1]
        for at in _associated(content, properties[b"ipma"], number)
        if 0 < at <= len(every)
    ]
    shapes = {box.kind: content[box.payload : box.end] for box in own}
    if len(shapes.get(b"clap", b"")) < 32 or len(shapes.get(b"ispe", b"")) < 12:
        return None
    width, height = struct.unpack_from(">II", shapes[b"ispe"], 4)
    numbers = struct.unpack_from(">IIIIiIiI", shapes[b"clap"])
    if not all(numbers[1::2]):
        return None
    across, down, right, below = (
        Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)
    )
    left = round((width - 1) / Fraction(2) + right - (across - 1) / 2)
    upper = round((height - 1) / Fraction(2) + below - (down - 1) / 2)
    cut = (left, upper, left + round(across), upper + round(down))
    inside = 0 <= cut[0] < cut[2] <= width and 0 <= cut[1] < cut[3] <= height
    return cut if inside and cut != (0, 0, width, height) else None


def check_holes(content: bytes) -> None:
    """Finds where a block of the storage was lost: their decoders draw something all the same.

    Args:
        content: A HEIF or AVIF file without metadata.

    Raises:
        RejectedImage: Coded pictures have zeros inside that no encoder writes.
    """
    meta = next((box for box in _boxes(content, 0, len(content)) if box.kind == b"meta"), None)
    if meta is None:
        return
    boxes = {box.kind: box for box in _boxes(content, meta.payload + 4, meta.end)}
    if b"iinf" not in boxes or b"iloc" not in boxes:
        return
    data = bytearray(content)
    types = _item_types(data, boxes[b"iinf"])
    thumbnails = _thumbnails(content, boxes[b"iref"]) if b"iref" in boxes else set()
    coded = {one for one, kind in types.items() if kind in _CODED["HEIF"] | _CODED["AVIF"]}
    coded -= thumbnails  # which nobody is shown
    pictures: dict[int, bytes] = {}
    for item, start, size in _extents(data, boxes[b"iloc"], boxes.get(b"idat"), coded):
        pictures[item] = pictures.get(item, b"") + content[start : start + size]
    for item, picture in pictures.items():
        units = (picture,) if types[item] in _CODED["AVIF"] else _units(picture)
        hole = _AV1_HOLE if types[item] in _CODED["AVIF"] else _HEVC_HOLE
        if any(hole in unit.rstrip(b"\0") for unit in units):
            raise corrupt("a hole of zeros in its picture")


def _thumbnails(content: bytes, references: _Box) -> set[int]:
    """Numbers of the items that only show another in small."""
    number_format = ">H" if content[references.payload] == 0 else ">I"
    found = _boxes(content, references.payload + 4, references.end)
    small = (box for box in found if box.kind == b"thmb")
    return {struct.unpack_from(number_format, content, box.payload)[0] for box in small}


def _units(picture: bytes) -> Iterator[bytes]:
    """The NAL units of a picture of HEVC, each after its length."""
    position = 0
    while position + _UNIT_LENGTH < len(picture):
        start = position + _UNIT_LENGTH
        position = start + int.from_bytes(picture[position:start])
        if position > len(picture):
            raise corrupt("the units of its picture are longer than it is")
        yield picture[start:position]


def _primary(data: bytes | bytearray, box: _Box) -> int:
    (number,) = struct.unpack_from(">I" if data[box.payload] else ">H", data, box.payload + 4)
    return number


def _associated(data: bytes, box: _Box, item: int) -> list[int]:
    """Numbers of the properties of an item (box `ipma`), from 1."""
    cursor = _Cursor(data, box.payload, box.end)
    flags = cursor.integer(4)
    number_width, property_width = (2 if flags >> 24 == 0 else 4), 2 if flags & 1 else 1
    mask = (1 << 8 * property_width - 1) - 1
    for _ in range(cursor.integer(4)):
        number, count = cursor.integer(number_width), cursor.integer(1)
        found = [cursor.integer(property_width) & mask for _ in range(count)]
        if number == item:
            return found
    return []


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


def _blank_movie(data: bytearray, box: _Box) -> None:
    """Image sequences have times in their tracks, and metadata beside them."""
    for inner in _boxes(data, box.payload, box.end):
        if inner.kind not in _MOVIE[box.kind]:
            _blank_box(data, inner)
        elif inner.kind in _MOVIE:
            _blank_movie(data, inner)
        elif inner.kind in _TIMED:
            _blank_times(data, inner)
        elif inner.kind in _IN_MOVIE:
            _IN_MOVIE[inner.kind](data, inner)


def _blank_times(data: bytearray, box: _Box) -> None:
    """When it was made and changed."""
    width = 8 if data[box.payload] else 4
    start, end = box.payload + 4, box.payload + 4 + 2 * width
    data[start : min(end, box.end)] = bytes(max(0, min(end, box.end) - start))


def _blank_track_handler(data: bytearray, box: _Box) -> None:
    if bytes(data[box.payload + 8 : box.payload + 12]) not in _HANDLERS:
        raise unsupported("an image sequence with sound or text", by=HEIF_BY)
    _blank_handler(data, box)


def _blank_samples(data: bytearray, box: _Box) -> None:
    for entry in _boxes(data, box.payload + 8, box.end):
        _blank_sample_entry(data, entry)


def _blank_references(data: bytearray, box: _Box) -> None:
    """Data of a track may be elsewhere, by a path; here they are in the file."""
    for entry in _boxes(data, box.payload + 8, box.end):
        data[entry.payload + 4 : entry.end] = bytes(max(0, entry.end - entry.payload - 4))


def _blank_movie_items(data: bytearray, box: _Box) -> None:
    _blank_items(data, box, frozenset())


_IN_MOVIE: dict[bytes, Callable[[bytearray, _Box], None]] = {
    b"meta": _blank_movie_items,
    b"hdlr": _blank_track_handler,
    b"stsd": _blank_samples,
    b"dref": _blank_references,
}


def _blank_handler(data: bytearray, box: _Box) -> None:
    start = box.payload + 24
    if bytes(data[start : box.end]).rstrip(b"\0") not in _WRITERS:
        data[start : box.end] = bytes(box.end - start)


def _blank_sample_entry(data: bytearray, entry: _Box) -> None:
    start, end = entry.payload + _COMPRESSOR.start, entry.payload + _COMPRESSOR.stop
    if end > entry.end:
        raise truncated("a track ends early")
    if bytes(data[start:end]).rstrip(b"\0") not in _COMPRESSORS:
        data[start:end] = bytes(end - start)
    for box in _boxes(data, entry.payload + _SAMPLE_ENTRY_BYTES, entry.end):
        _blank_property(data, box, _SAMPLE_PROPERTIES)


def _blank_property(data: bytearray, box: _Box, kept: frozenset[bytes]) -> None:
    if box.kind not in kept:
        _blank_box(data, box)
    elif box.kind == b"colr" and bytes(data[box.payload : box.payload + 4]) in {b"prof", b"rICC"}:
        profile = bytes(data[box.payload + 4 : box.end])
        cleaned = clean_profile(profile)
        if cleaned:
            data[box.payload + 4 : box.end] = cleaned
        else:
            _blank_box(data, box)


def _blank_items(
    data: bytearray, meta: _Box, coded: frozenset[bytes]
) -> list[tuple[int, int]] | None:
    """Blanks what is not a picture; where the pictures are, unless that is not said of all."""
    boxes = _item_boxes(data, meta)
    if b"hdlr" in boxes:
        _blank_handler(data, boxes[b"hdlr"])
    if b"iprp" in boxes:
        _blank_properties(data, boxes[b"iprp"])
    if b"iinf" not in boxes:
        return None
    types = _item_types(data, boxes[b"iinf"])
    if b"pitm" in boxes and coded:
        _refuse_other_codecs(types, _primary(data, boxes[b"pitm"]), coded)
    hidden = _hide_items(data, boxes[b"iinf"])
    if hidden and b"iref" in boxes:
        _unlink_items(data, boxes[b"iref"], hidden)
    if b"iloc" not in boxes:
        return None
    item_data = boxes.get(b"idat")
    if hidden:
        _zero_items(data, boxes[b"iloc"], item_data, hidden)
    kept = _kept_extents(data, boxes[b"iloc"], item_data, types.keys() - hidden)
    if kept is not None and item_data is not None:
        _zero_between(data, [(item_data.payload, item_data.end)], kept)
    return kept


def _item_boxes(data: bytearray, meta: _Box) -> dict[bytes, _Box]:
    """The boxes that are kept; all others are blanked."""
    boxes: dict[bytes, _Box] = {}
    for box in _boxes(data, meta.payload + 4, meta.end):
        if box.kind not in _ITEM_BOXES:
            _blank_box(data, box)
        elif box.kind in boxes:  # readers would differ in which of the two they go by
            raise corrupt(f"box {box.kind.decode()} is there twice")
        else:
            boxes[box.kind] = box
    return boxes


def _blank_properties(data: bytearray, properties: _Box) -> None:
    for group in _boxes(data, properties.payload, properties.end):
        if group.kind == b"ipco":
            for box in _boxes(data, group.payload, group.end):
                _blank_property(data, box, _PROPERTIES)
        elif group.kind != b"ipma":
            _blank_box(data, group)


def _item_types(data: bytearray, info: _Box) -> dict[int, bytes]:
    """Number -> type of every item."""
    return {number: bytes(data[kind : kind + 4]) for number, kind, _ in _entries(data, info)}


def _entries(data: bytearray, info: _Box) -> Iterator[tuple[int, int, int]]:
    """Number, position of the type, and end of every entry of the table of items."""
    first = info.payload + 4 + (2 if data[info.payload] == 0 else 4)
    for entry in _boxes(data, first, info.end):
        version = data[entry.payload]
        if entry.kind != b"infe" or version < 2:
            continue
        number_format = ">H" if version == 2 else ">I"
        (number,) = struct.unpack_from(number_format, data, entry.payload + 4)
        # After the number comes whether it is encrypted.
        yield number, entry.payload + 4 + struct.calcsize(number_format) + 2, entry.end


def _refuse_other_codecs(types: dict[int, bytes], primary: int, coded: frozenset[bytes]) -> None:
    kind = types.get(primary, b"")
    if kind in coded or (kind in _DERIVED and coded & set(types.values())):
        return
    codec = _OTHER_CODECS.get(kind) or next(
        (name for other, name in _OTHER_CODECS.items() if other in types.values()), None
    )
    if codec:
        raise unsupported(f"a HEIF with {codec}", by=HEIF_BY)
    if kind and kind not in _DERIVED:
        name = kind.decode("ascii", "replace")
        raise unsupported(f"a HEIF with a codec that the decoder lacks ({name})", by=HEIF_BY)


def _hide_items(data: bytearray, info: _Box) -> set[int]:
    """Retypes what is not a picture; the numbers of these. Names of the others go."""
    shown = _CODED["HEIF"] | _CODED["AVIF"] | _DERIVED | {b"mski"}
    hidden = set()
    for number, kind, end in _entries(data, info):
        if bytes(data[kind : kind + 4]) not in shown:
            data[kind : kind + 4] = _FREE
            hidden.add(number)
        # After the type come a name and, for XMP, a media type.
        name = bytes(data[kind + 4 : end]).rstrip(b"\0")
        if number in hidden or name not in _ITEM_NAMES:
            data[kind + 4 : end] = bytes(max(0, end - kind - 4))
    return hidden


def _unlink_items(data: bytearray, references: _Box, hidden: set[int]) -> None:
    number_format = ">H" if data[references.payload] == 0 else ">I"
    for reference in _boxes(data, references.payload + 4, references.end):
        (number,) = struct.unpack_from(number_format, data, reference.payload)
        if number in hidden:
            data[reference.start + 4 : reference.start + 8] = _FREE


def _zero_items(data: bytearray, locations: _Box, item_data: _Box | None, hidden: set[int]) -> None:
    zeroed = 0
    for _, start, size in list(_extents(data, locations, item_data, hidden)):
        if start + size > len(data):
            raise truncated("its metadata lie outside the file")
        zeroed += size
        if zeroed > len(data):  # extents that overlap could keep us busy without end
            raise corrupt("its metadata claim more bytes than the file has")
        data[start : start + size] = bytes(size)


def _extents(
    data: bytearray, locations: _Box, item_data: _Box | None, hidden: set[int]
) -> Iterator[tuple[int, int, int]]:
    """Number of the item, position and size of every stretch (box `iloc`, versions 0 to 2)."""
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
            yield number, base + offset, cursor.integer(length_width)


def _kept_extents(
    data: bytearray, locations: _Box, item_data: _Box | None, shown: Iterable[int]
) -> list[tuple[int, int]] | None:
    """Position and size of every stretch of the pictures; None where one has no size of its own."""
    try:
        found = _extents(data, locations, item_data, set(shown))
        kept = [(start, size) for _, start, size in found]
    except RejectedImage:  # which is for the decoder to say of a picture
        return None
    return kept if all(size for _, size in kept) else None


def _zero_between(
    data: bytearray, spaces: Iterable[tuple[int, int]], kept: list[tuple[int, int]]
) -> None:
    """Zeros what lies in these spaces, each from a position to another, and in no picture."""
    for start, end in spaces:
        position = start
        for at, size in sorted(kept):
            if at > position:
                gap = min(at, end)
                data[position:gap] = bytes(max(0, gap - position))
            position = max(position, min(at + size, end))
        data[position:end] = bytes(max(0, end - position))


class _Cursor:
    """Reads big-endian integers of any width, within a box."""

    def __init__(self, data: bytes | bytearray, position: int, end: int) -> None:
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
