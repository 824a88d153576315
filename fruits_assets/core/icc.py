"""Removes from a colour profile what is not colour (ICC.1:2022): texts, dates, serial numbers.

Profiles of displays, cameras and scanners carry their owner's words (`desc`, `cprt`), the make and
serial number of the device (`mmod`, `dmnd`) and the time at which they were measured. Every byte of
colour keeps its place, so that a cleaned profile fits wherever the profile was.
"""

import re
import struct

_HEADER_BYTES, _ENTRY_BYTES = 128, 12
_SIGNATURE = b"acsp"
# What conversions between a device and others are computed from.
_COLOUR_TAGS = frozenset(
    {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"kTRC", b"wtpt", b"bkpt", b"chad"}
    | {b"A2B0", b"A2B1", b"A2B2", b"B2A0", b"B2A1", b"B2A2", b"gamt", b"lumi", b"chrm", b"cicp"}
    | {b"D2B0", b"D2B1", b"D2B2", b"D2B3", b"B2D0", b"B2D1", b"B2D2", b"B2D3", b"meas", b"view"}
    | {b"tech"}
)
_FROM_DEVICE = frozenset({b"A2B0", b"A2B1", b"A2B2", b"wtpt", b"chad", b"kTRC"})
# Types of fixed size; what follows in a tag is not read.
_SIZES = {b"XYZ ": 20, b"meas": 36, b"view": 36, b"sig ": 12, b"cicp": 12}
_PARAMETERS = (1, 3, 4, 5, 7)
# Profiles that many photos share say what they are and who published them, and nothing of a photo.
# They stay as they are.
_PUBLIC_TAGS = frozenset({b"desc", b"cprt", b"dmnd", b"dmdd", b"vued", b"dscm"})
_PUBLIC_TEXT = re.compile(
    r"s?RGB IEC ?61966-?2[.-]?1( black scaled)?|sRGB|sRGB2014|Display P3|DCI-P3|Adobe RGB \(1998\)"
    r"|ProPhoto RGB|ColorMatch RGB|Apple RGB|Generic (RGB|Gray|CMYK)( Gamma 2\.2)? Profile"
    r"|Dot Gain \d\d%|Gray Gamma \d\.\d|Camera RGB Profile|c2|uRGB"
    r"|U\.S\. (Web|Sheetfed) (Unc|C)oated( \(SWOP\))? v2|(Unc|C)oated FOGRA\d\d( \(ISO [\d:-]+\))?"
    r"|Copyright \(c\) 1998 Hewlett-Packard Company|Copyright Apple Inc\., \d{4}"
    r"|Copyright( \d{4})? Apple (Computer|Inc)[., Inc\d-]*( all rights reserved\.)?"
    r"|Copyright( \(c\))? \d{4} Adobe Systems,? Inc(orporated|\.)|Google Inc\. \d{4}"
    r"|Copyright International Color Consortium(, \d{4})?|Public Domain|CC0|FB"
    r"|DCI-P3 D65 Gamut with sRGB Transfer|Copyright \(c\) \d{4} Samsung Electronics Co\., Ltd\."
    r"|IEC http://www\.iec\.ch|IEC 61966-2\.1 Default RGB colou?r space - sRGB"
    r"|Reference Viewing Condition in IEC ?61966-2\.1|"
)


def clean_profile(profile: bytes) -> bytes:
    """A colour profile without what is not colour.

    Args:
        profile: As it is embedded in a photo.

    Returns:
        The profile itself if all that it says is public; else one of the same size, whose colours
        are the same bytes at the same place; empty for what is not a profile, which readers ignore.
    """
    tags = _tags(profile)
    if tags is None:
        return b""
    if _is_public(profile, tags):
        return profile
    return _only(profile, {name: place for name, place in tags.items() if name in _COLOUR_TAGS})


def colours_of(profile: bytes) -> bytes:
    """A cleaned profile, cut after what conversions from its device need."""
    tags = _tags(profile)
    if tags is None:
        return b""
    if b"A2B0" in tags:
        tags = {name: place for name, place in tags.items() if name in _FROM_DEVICE}
    else:
        tags = {name: place for name, place in tags.items() if name in _COLOUR_TAGS}
    smaller = _only(profile, tags)
    end = max((start + size for start, size in tags.values()), default=_HEADER_BYTES + 4)
    return struct.pack(">I", end) + smaller[4:end]


def _tags(profile: bytes) -> dict[bytes, tuple[int, int]] | None:
    """Name -> position and size of every tag; None for what is not a profile."""
    if profile[36:40] != _SIGNATURE or len(profile) < _HEADER_BYTES + 4:
        return None
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    first = _HEADER_BYTES + 4
    end = first + _ENTRY_BYTES * count
    if end > len(profile):
        return None
    tags: dict[bytes, tuple[int, int]] = {}
    for entry in range(first, end, _ENTRY_BYTES):
        name, start, size = struct.unpack_from(">4sII", profile, entry)
        if start < end or size < 8 or start + size > len(profile):
            if name in _COLOUR_TAGS:
                return None
            continue
        tags.setdefault(name, (start, size))
    return tags


def _is_public(profile: bytes, tags: dict[bytes, tuple[int, int]]) -> bool:
    (size,), (count,) = (struct.unpack_from(">I", profile, at) for at in (0, _HEADER_BYTES))
    if len(tags) != count or size != len(profile) or any(profile[100:_HEADER_BYTES]):
        return False
    for name, place in tags.items():
        if name in _PUBLIC_TAGS:
            texts = _texts(profile[place[0] : sum(place)])
            if texts is None or not all(_PUBLIC_TEXT.fullmatch(text) for text in texts):
                return False
        elif name not in _COLOUR_TAGS:
            return False
    rest = bytearray(profile)
    end = _HEADER_BYTES + 4 + _ENTRY_BYTES * count
    rest[:end] = bytes(end)
    for name, (start, length) in tags.items():
        used = length if name in _PUBLIC_TAGS else _used(profile[start : start + length])
        rest[start : start + used] = bytes(used)
    return rest.count(0) == len(rest)


def _texts(tag: bytes) -> list[str] | None:
    """All that a tag of text says; None where it holds more than that."""
    kind = tag[:4]
    if kind == b"text":
        return [tag[8:].rstrip(b"\0").decode("latin-1")]
    if kind == b"mluc":
        return _localised(tag)
    if kind != b"desc" or len(tag) < 12:
        return None
    (length,) = struct.unpack_from(">I", tag, 8)
    text, rest = tag[12 : 12 + length], tag[12 + length :]
    found = [text.rstrip(b"\0").decode("latin-1")]
    if len(rest) < 8:
        return None if any(rest) else found
    (units,) = struct.unpack_from(">I", rest, 4)
    script = rest[8 + 2 * units :]
    found.append(rest[8 : 8 + 2 * units].decode("utf-16-be", "replace").rstrip("\0"))
    found.append(script[3:].rstrip(b"\0").decode("latin-1"))
    return found


def _localised(tag: bytes) -> list[str] | None:
    count, size = struct.unpack_from(">II", tag, 8) if len(tag) >= 16 else (0, 0)
    end = 16 + 12 * count
    if size != 12 or end > len(tag):
        return None
    found, last = [], end
    for record in range(16, end, 12):
        length, start = struct.unpack_from(">II", tag, record + 4)
        if start < end or start > last:
            return None
        last = max(last, start + length)
        found.append(tag[start : start + length].decode("utf-16-be", "replace").rstrip("\0"))
    return None if any(tag[last:]) else found


def _used(tag: bytes) -> int:
    """Bytes of a tag of colour that are read; all of those whose type says no size."""
    kind, size = tag[:4], len(tag)
    if kind == b"curv" and size >= 12:
        size = 12 + 2 * struct.unpack_from(">I", tag, 8)[0]
    elif kind == b"para" and size >= 12:
        function = struct.unpack_from(">H", tag, 8)[0]
        size = 12 + 4 * _PARAMETERS[function] if function < len(_PARAMETERS) else size
    elif kind == b"sf32":
        size = 8 + 36
    else:
        size = _SIZES.get(kind, size)
    return min(size, len(tag))


def _only(profile: bytes, tags: dict[bytes, tuple[int, int]]) -> bytes:
    """A profile of the same size with these tags at the same place, and zeros everywhere else."""
    cleaned = bytearray(len(profile))
    cleaned[:4] = struct.pack(">I", len(profile))
    # Version, class, spaces; signature, platform, flags; attributes, intent, illuminant. Not the
    # maker of profile and device, nor the time.
    for start, end in ((8, 24), (36, 48), (56, 80)):
        cleaned[start:end] = profile[start:end]
    struct.pack_into(">I", cleaned, _HEADER_BYTES, len(tags))
    for entry, (name, (start, size)) in enumerate(tags.items()):
        at = _HEADER_BYTES + 4 + _ENTRY_BYTES * entry
        struct.pack_into(">4sII", cleaned, at, name, start, size)
        used = _used(profile[start : start + size])
        cleaned[start : start + used] = profile[start : start + used]
    return bytes(cleaned)
