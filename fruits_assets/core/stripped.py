"""What is left of an image file when its metadata are gone, and the one thing kept of them."""

import struct
from typing import NamedTuple

_ORIENTATION_TAG = 0x0112
_INTEGER_FORMATS = {1: "B", 3: "H", 4: "I"}  # EXIF types BYTE, SHORT and LONG


class Stripped(NamedTuple):
    """An image file without metadata.

    Attributes:
        content: The file.
        orientation: How to turn its pixels upright, EXIF 1 to 8; 1 where nothing valid was said.
    """

    content: bytes
    orientation: int


def exif_orientation(exif: bytes) -> int:
    """Orientation (1 to 8) in a block of EXIF, with or without its `Exif` prefix; 1 if none.

    Read by hand because Pillow warns about any oddity of any other tag.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, entry)
            if tag == _ORIENTATION_TAG and count == 1 and kind in _INTEGER_FORMATS:
                (value,) = struct.unpack_from(order + _INTEGER_FORMATS[kind], exif, entry + 8)
                return valid_orientation(value)
    except struct.error:
        pass
    return 1


def valid_orientation(value: int) -> int:
    """The orientation itself where EXIF defines it, else 1."""
    return value if 1 <= value <= 8 else 1
