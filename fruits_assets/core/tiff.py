"""Rewrites a TIFF as its first picture and nothing else, without decoding it.

A TIFF is a directory of tags that point anywhere into the file (Adobe, TIFF 6.0; BigTIFF widens
the pointers). The tags that decoding needs are copied with their compressed strips or tiles into a
new file; all other tags, directories and bytes are left behind.
"""

import struct
import zlib
from itertools import pairwise
from typing import NamedTuple

from fruits_assets.core.icc import clean_profile
from fruits_assets.core.jpeg import check_complete, strip_jpeg, strip_tables
from fruits_assets.core.raw import camera_raw
from fruits_assets.core.rejection import corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped, valid_orientation

_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
_LONG, _LONG8 = 4, 16
_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_MAKE, _ORIENTATION, _SAMPLES, _ROWS, _PLANES = 271, 274, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _SAMPLE_FORMAT, _JPEG_TABLES, _PROFILE = 322, 323, 339, 347, 34675
_EXTRA_SAMPLES = 338
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
# None, fax, LZW, JPEG, Deflate, PackBits, ThunderScan, SGI's, LZMA, Zstandard.
_COMPRESSIONS = frozenset(
    {1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34676, 34677, 34925, 50000}
)
_OTHER_COMPRESSIONS = {
    34661: "JBIG",
    34712: "JPEG 2000",
    34887: "LERC",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_DEFLATED = frozenset({8, 32946})
_UNCOMPRESSED, _OLD_JPEG, _JPEG, _YCBCR = 1, 6, 7, 6
# How pixels of a sensor are stored, and compressed by Nikon, Sony, Pentax, Samsung and Kodak.
_RAW_PHOTOMETRIC = frozenset({32803, 34892})
_RAW_COMPRESSIONS = frozenset({32767, 32769, 32770, 34713, 65000, 65535})
# Fill order, fax options, predictor, ink set, sample positions.
_SINGLE_VALUES = frozenset(
    {_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANES}
    | {_TILE_WIDTH, _TILE_HEIGHT, 266, 292, 293, 317, 332, 531}
)
# White point, primaries, colour map, extra samples, YCbCr coefficients, subsampling, black and
# white: the most values that each has, where that does not follow from others.
_LISTS = {
    **dict.fromkeys((_BITS, _SAMPLE_FORMAT, _JPEG_TABLES, _PROFILE, _EXTRA_SAMPLES, 532), 0),
    318: 2,
    319: 6,
    320: 3 << 16,
    529: 3,
    530: 2,
}
_PER_SAMPLE = {_BITS: 1, _SAMPLE_FORMAT: 1, _EXTRA_SAMPLES: 1, 532: 2}
_SEGMENTS = frozenset({_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES})
_COPIED = _SINGLE_VALUES | _LISTS.keys() | _SEGMENTS
_EXAMINED = frozenset({_MAKE, _ORIENTATION, _SUBFILE_TYPE, _DNG_VERSION})
_DIRECTORIES = frozenset({330, 34665, 34853, 40965, 50740})
_UNSIGNED, _FLOAT = 1, 3
_BY = "ImageMagick"
_PIECE = 1 << 16


class _Value(NamedTuple):
    kind: int
    length: int  # in values
    payload: bytes

    def integers(self, order: str) -> tuple[int, ...]:
        if self.kind not in _INTEGER_FORMATS:
            raise corrupt("a TIFF tag that counts something does not hold integers")
        return struct.unpack(f"{order}{self.length}{_INTEGER_FORMATS[self.kind]}", self.payload)


class _Directory(NamedTuple):
    """The first directory of a file.

    Attributes:
        tags: Those that matter here.
        order: Of bytes, as `struct` writes it.
        starts: Where structures begin that it knows of: nothing else reaches beyond the next one.
    """

    tags: dict[int, _Value]
    order: str
    starts: tuple[int, ...]

    def first(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return self.tags[tag].integers(self.order)[0] if tag in self.tags else default


class _Layout(NamedTuple):
    """How the pixels are cut into segments (strips or tiles) of this shape.

    Attributes:
        across: Pixels of a row of a segment.
        down: Rows of a segment.
        left: Rows of the last strip, which is not padded as tiles are.
        segments: Of all planes.
        per_plane: Segments of each plane.
        bits: Of a pixel, in a plane.
    """

    across: int
    down: int
    left: int
    segments: int
    per_plane: int
    bits: int

    def needed(self, segment: int) -> int:
        """Bytes of a segment that is not compressed."""
        last = segment % self.per_plane == self.per_plane - 1
        return (self.across * self.bits + 7) // 8 * (self.left if last else self.down)


def strip_tiff(data: bytes) -> Stripped:
    """The first picture of a TIFF or BigTIFF as a TIFF of its own, without metadata.

    Args:
        data: The file.

    Returns:
        A classic TIFF in the byte order of the file, and the orientation its tag asked for.

    Raises:
        RejectedImage: The directory is malformed, points outside the file, describes pixels that
            the decoder lacks or scrambles, or belongs to a camera raw file, whose first picture is
            only a preview.
    """
    directory = _read_directory(data, "<" if data[:2] == b"II" else ">")
    _refuse_other_kinds(data, directory)
    segments = _read_segments(data, directory)
    tags = _cleaned(directory)
    compression = directory.first(_COMPRESSION, _UNCOMPRESSED)
    if compression == _JPEG:
        segments = _clean_jpegs(segments, tags)
    elif compression in _DEFLATED:
        segments = [_only_deflated(segment) for segment in segments]
    upright = directory.first(_ORIENTATION, 1)
    content = _write(tags, segments, directory.order)
    return Stripped(content, valid_orientation(upright))


def _read_directory(data: bytes, order: str) -> _Directory:
    big = struct.unpack_from(f"{order}H", data, 2) == (43,)
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    entry_format, inline = (f"{order}HHQ8s", 8) if big else (f"{order}HHI4s", 4)
    entry_bytes = struct.calcsize(entry_format)
    first = start + (8 if big else 2)
    if first + entries * entry_bytes > len(data):
        raise truncated("a TIFF directory ends early")
    tags: dict[int, _Value] = {}
    starts = {start}
    for entry in range(first, first + entries * entry_bytes, entry_bytes):
        tag, kind, count, field = struct.unpack_from(entry_format, data, entry)
        if kind not in _VALUE_BYTES or not count:
            continue
        (offset,) = struct.unpack(order + ("Q" if big else "I"), field)
        if _VALUE_BYTES[kind] * count > inline or tag in _DIRECTORIES:
            starts.add(offset)
        if tag in tags or (tag not in _COPIED and tag not in _EXAMINED):
            continue
        if _VALUE_BYTES[kind] * count <= inline:
            offset = entry + entry_bytes - inline
        if tag not in _LISTS and tag not in _SEGMENTS and tag != _MAKE:
            count = 1  # what Pillow reads of it too, but with a warning
        payload = data[offset : offset + _VALUE_BYTES[kind] * count]
        if len(payload) < _VALUE_BYTES[kind] * count:
            raise truncated(f"TIFF tag {tag} lies outside the file")
        tags[tag] = _Value(kind, count, payload)
    return _Directory(tags, order, tuple(starts))


def _refuse_other_kinds(data: bytes, directory: _Directory) -> None:
    compression = directory.first(_COMPRESSION, _UNCOMPRESSED)
    # Camera raw files are TIFFs too, and begin with a small preview of the photo.
    raw = (
        directory.first(_SUBFILE_TYPE, 0) & 1
        or _DNG_VERSION in directory.tags
        or data[8:10] == b"CR"
        or directory.first(_PHOTOMETRIC, 0) in _RAW_PHOTOMETRIC
        or compression in _RAW_COMPRESSIONS
    )
    if raw:
        make = directory.tags.get(_MAKE)
        raise camera_raw(make.payload if make else b"", dng=_DNG_VERSION in directory.tags)
    if compression == _OLD_JPEG:
        raise unsupported("a TIFF with the obsolete JPEG compression (6)", by=_BY)
    if compression not in _COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, f"of number {compression}")
        raise unsupported(f"a TIFF with a compression that the decoder lacks ({name})", by=_BY)
    if not directory.first(_WIDTH, 0) or not directory.first(_HEIGHT, 0):
        raise corrupt("a TIFF without width or height")
    lacking = _lacking(directory, compressed=compression != _UNCOMPRESSED)
    if lacking:
        raise unsupported(f"a TIFF {lacking}", by=_BY)


def _lacking(directory: _Directory, *, compressed: bool) -> str:
    """The kind of its pixels, if Pillow cannot decode it or decodes it as noise; else empty.

    Tried with every width, type, order of bytes, compression and arrangement that tifffile writes.
    """
    bits, samples = directory.first(_BITS, 1), directory.first(_SAMPLES, 1)
    sample_format = directory.first(_SAMPLE_FORMAT, _UNSIGNED)
    alpha = directory.first(_EXTRA_SAMPLES, 0)
    plural = f"of {samples} samples of " if samples > 1 else "with samples of "
    planar = directory.first(_PLANES, 1) == 2 and samples > 1
    if sample_format == _FLOAT and (bits != 32 or samples > 1):
        return f"{plural}{bits} bits in floating point"
    if bits not in {1, 2, 4, 8, 12, 16, 32} or (samples > 1 and bits not in {8, 16}):
        return f"{plural}{bits} bits"
    if bits == 32 and sample_format == _UNSIGNED:
        return "with unsigned samples of 32 bits"
    if bits == 32 and compressed and directory.order == ">":
        return "with compressed samples of 32 bits, the highest byte first"
    if planar and ((bits == 16 and not compressed) or (samples == 2 and alpha)):
        return f"{plural}{bits} bits in planes"
    return ""


def _layout(directory: _Directory) -> _Layout:
    width, height = directory.first(_WIDTH, 0), directory.first(_HEIGHT, 0)
    samples = directory.first(_SAMPLES, 1)
    planes = samples if directory.first(_PLANES, 1) == 2 else 1
    bits = directory.first(_BITS, 1) * (samples if planes == 1 else 1)
    if _STRIP_OFFSETS in directory.tags:
        across, down = width, min(directory.first(_ROWS, height) or height, height)
        per_plane = -(-height // down)
        left = height - down * (per_plane - 1)
    else:
        across, down = directory.first(_TILE_WIDTH, 0), directory.first(_TILE_HEIGHT, 0)
        if not across or not down:
            raise corrupt("a TIFF does not say how large its tiles are")
        per_plane, left = -(-width // across) * -(-height // down), down
    return _Layout(across, down, left, per_plane * planes, per_plane, bits)


def _read_segments(data: bytes, directory: _Directory) -> list[bytes]:
    """The strips or tiles, in order, without what follows each."""
    tags, order = directory.tags, directory.order
    offsets_tag = _STRIP_OFFSETS if _STRIP_OFFSETS in tags else _TILE_OFFSETS
    bytes_tag = _STRIP_BYTES if _STRIP_OFFSETS in tags else _TILE_BYTES
    if offsets_tag not in tags:
        raise corrupt("a TIFF does not say where its pixels are")
    layout = _layout(directory)
    offsets = tags[offsets_tag].integers(order)[: layout.segments]
    if len(offsets) < layout.segments:
        raise truncated(f"a TIFF has {len(offsets)} strips or tiles instead of {layout.segments}")
    sizes = tags[bytes_tag].integers(order) if bytes_tag in tags else ()
    plain = directory.first(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    if plain and directory.first(_PHOTOMETRIC, 0) != _YCBCR:  # subsampled, hence shorter
        # Their size follows from that of the picture, whatever the file says.
        lengths = [layout.needed(number) for number in range(layout.segments)]
    else:
        lengths = _lengths(offsets, sizes, directory, len(data))
    if sum(lengths) > len(data):  # overlapping segments could be copied without end
        raise truncated("the pixels of a TIFF are longer than the file")
    segments = [data[start : start + size] for start, size in zip(offsets, lengths, strict=True)]
    if any(len(segment) < size for segment, size in zip(segments, lengths, strict=True)):
        raise truncated("the pixels of a TIFF lie outside the file")
    return segments


def _lengths(
    offsets: tuple[int, ...], sizes: tuple[int, ...], directory: _Directory, end: int
) -> list[int]:
    """Bytes of each segment; up to the next structure where the file does not say."""
    if sizes and len(sizes) < len(offsets):
        raise corrupt("a TIFF has more strips or tiles than sizes for them")
    starts = sorted({*offsets, *directory.starts, end})
    following = dict(pairwise(starts))
    return [
        (sizes[number] if sizes else 0) or following.get(offset, offset) - offset
        for number, offset in enumerate(offsets)
    ]


def _cleaned(directory: _Directory) -> dict[int, _Value]:
    """The tags that are copied, each with as many values as are read."""
    tags = {tag: value for tag, value in directory.tags.items() if tag in _COPIED}
    samples = directory.first(_SAMPLES, 1)
    for tag in tags.keys() & _LISTS.keys():
        kind, length, payload = tags[tag]
        if tag == _PROFILE:
            payload = clean_profile(payload)
        elif tag == _JPEG_TABLES:
            payload = strip_tables(payload)
        else:
            most = _PER_SAMPLE[tag] * samples if tag in _PER_SAMPLE else _LISTS[tag]
            payload = payload[: _VALUE_BYTES[kind] * most]
        length = len(payload) // _VALUE_BYTES[kind]
        tags[tag] = _Value(kind, length, payload)
        if not payload:
            del tags[tag]
    if directory.first(_COMPRESSION, _UNCOMPRESSED) != _JPEG:
        tags.pop(_JPEG_TABLES, None)
    return tags


def _only_deflated(segment: bytes) -> bytes:
    """A strip or tile up to the end of its data (RFC 1950)."""
    unpacker, position, view = zlib.decompressobj(), 0, memoryview(segment)
    try:
        while position < len(segment) and not unpacker.eof:
            piece: bytes | memoryview = view[position : position + _PIECE]
            position += len(piece)
            while piece and not unpacker.eof:
                unpacker.decompress(piece, _PIECE)
                piece = unpacker.unconsumed_tail
    except zlib.error:
        return segment  # which the decoder says
    return segment[: position - len(unpacker.unused_data)]


def _clean_jpegs(segments: list[bytes], tags: dict[int, _Value]) -> list[bytes]:
    """Each is a JPEG of its own, which may have metadata of its own."""
    tables = tags[_JPEG_TABLES].payload if _JPEG_TABLES in tags else b""
    cleaned = [strip_jpeg(segment).content for segment in segments]
    for segment in cleaned:
        check_complete(segment, tables=tables)
    return cleaned


def _write(tags: dict[int, _Value], segments: list[bytes], order: str) -> bytes:
    """A classic TIFF: header, directory, values too long for the directory, strips or tiles."""
    copied = {tag: tags[tag] for tag in sorted(_COPIED & tags.keys())}
    for tag, value in copied.items():
        if value.kind == _LONG8 or tag in _SEGMENTS:  # classic TIFF counts in 32 bits
            narrow = struct.pack(f"{order}{value.length}I", *value.integers(order))
            copied[tag] = _Value(_LONG, value.length, narrow)
    strips = _STRIP_OFFSETS in copied
    offsets_tag = _STRIP_OFFSETS if strips else _TILE_OFFSETS
    sizes = [len(segment) for segment in segments]
    for tag in _SEGMENTS:
        copied.pop(tag, None)
    for tag in (offsets_tag, _STRIP_BYTES if strips else _TILE_BYTES):
        copied[tag] = _Value(_LONG, len(sizes), struct.pack(f"{order}{len(sizes)}I", *sizes))
    copied = dict(sorted(copied.items()))
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
