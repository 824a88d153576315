"""Writes a BMP again with its header, colours and rows, and nothing between or after them."""

import struct

from fruits_assets.core.rejection import corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped

_FILE_HEADER, _CORE_HEADER, _INFO_HEADER = 14, 12, 40
_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_PLAIN, _RLE8, _RLE4, _MASKS, _JPEG, _PNG, _ALPHA_MASKS = range(7)
_NAMES = {_JPEG: "a JPEG in it", _PNG: "a PNG in it", _ALPHA_MASKS: "masks that include alpha"}
_MASK_BYTES = {_MASKS: 12, _ALPHA_MASKS: 16}
# Of a header of version 5: the colours, and where a profile lies, or the path of one.
_COLOURS, _PROFILE, _SRGB = slice(56, 60), slice(112, 120), b"BGRs"
_PROFILES = frozenset({b"DEBM", b"KNIL"})


def strip_bmp(data: bytes) -> Stripped:
    """A BMP without whatever lies between and after header, palette and pixels.

    Args:
        data: The file.

    Returns:
        The file; its rows as they were.

    Raises:
        RejectedImage: It is malformed, ends too early, or is compressed in a way that is not read.
    """
    offset, size = struct.unpack_from("<II", data, 10)
    if size not in _HEADERS:
        raise corrupt(f"a BMP header of {size} bytes")
    header = bytearray(data[_FILE_HEADER : _FILE_HEADER + size])
    if len(header) < size:
        raise truncated("a BMP header ends early")
    compression = colours = 0
    if size == _CORE_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", header, 4)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", header, 4)
        if size >= _INFO_HEADER:
            compression, colours = header[16], struct.unpack_from("<I", header, 32)[0]
    if compression in _NAMES:
        raise unsupported(f"a BMP with {_NAMES[compression]}", by="ImageMagick")
    if size == 124 and bytes(header[_COLOURS]) in _PROFILES:
        header[_COLOURS], header[_PROFILE] = _SRGB, bytes(8)
    masks = _MASK_BYTES.get(compression, 0) if size == _INFO_HEADER else 0
    palette = _palette(bits, colours) * (3 if size == _CORE_HEADER else 4)
    start = _FILE_HEADER + size
    end = min(start + masks + palette, offset)
    if offset < start + masks:
        raise corrupt("the pixels of a BMP lie in its header")
    if offset > len(data):
        raise truncated("the pixels of a BMP lie outside the file")
    length = _pixel_bytes(data, offset, compression, (width, height, bits))
    gap = bytes(offset - end)
    head = data[:2] + struct.pack("<IIII", offset + length, 0, offset, size)
    return Stripped(
        b"".join((head, header[4:], data[start:end], gap, data[offset : offset + length])), 1
    )


def _palette(bits: int, colours: int) -> int:
    most = 1 << bits if bits <= 8 else 0
    return min(colours or most, max(most, 256))


def _pixel_bytes(data: bytes, offset: int, compression: int, shape: tuple[int, int, int]) -> int:
    width, height, bits = shape
    if compression in {_RLE8, _RLE4}:
        return _run_length_bytes(data, offset, compression) - offset
    needed = (width * bits + 31) // 32 * 4 * abs(height)
    if needed <= 0 or needed > len(data) - offset:  # which the decoder says
        return max(0, len(data) - offset)
    return needed


def _run_length_bytes(data: bytes, position: int, compression: int) -> int:
    """Where the runs end: with an escape that says so, which is the end of the picture."""
    end = len(data)
    while position + 1 < end:
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            continue
        if value == 1:
            return position
        if value == 2:
            position += 2
        elif value > 2:
            literal = value if compression == _RLE8 else (value + 1) // 2
            position += literal + literal % 2
    raise truncated("the runs of a BMP have no end")
