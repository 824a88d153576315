"""Removes the metadata from a JPEG, and sees whether all of its picture is there.

A JPEG has neither checksums nor a length: decoders paint what is missing gray, and warn. Pillow
does not pass these warnings on; TurboJPEG does (`simplejpeg`). Its decoder also says how many bytes
it had no use for: a damaged scan loses count of its blocks, and so ends before its data, or after.
"""

import re
import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import simplejpeg

from fruits_assets.core.icc import clean_profile
from fruits_assets.core.rejection import RejectedImage, corrupt, truncated, unsupported
from fruits_assets.core.stripped import Stripped, exif_orientation

MAX_JPEG_SCANS = 100
"""Passes over the picture in a JPEG, at most. Progressive encoders make some 10, and the ones that
search for the best script some 20; each costs time for all pixels, and next to no bytes."""

# A marker that is neither a stuffed 0xFF, nor a fill byte, nor a restart inside the scan.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SOI, _EOI, _SCAN, _COMMENT, _TEM = b"\xff\xd8", 0xD9, 0xDA, 0xFE, 0x01
_HUFFMAN_TABLES, _RESTART_INTERVAL, _LINES = 0xC4, 0xDD, 0xDC
_TABLES = frozenset({_HUFFMAN_TABLES, 0xCC, 0xDB, _RESTART_INTERVAL})
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_LOSSLESS, _ARITHMETIC = 0xC3, frozenset({0xC9, 0xCA})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_READ_FRAMES = _SEQUENTIAL | _PROGRESSIVE | {_LOSSLESS}
_JPEG_LS = 0xF7
# Application segments that decoding needs: the shape of the pixels, their colours, their transform.
_JFIF, _PROFILE, _ADOBE = (0xE0, b"JFIF\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe")
_EXIF = (0xE1, b"Exif\0\0")
_PROFILE_BYTES = 0xFFFF - 2 - len(_PROFILE[1]) - 2

_LARGEST_SIDE, _LONGEST_INTERVAL = 65_500, 65_535
_PADDING = b"\x55" * 16
"""More than the decoder reads ahead of what it decodes."""
_STRAY_BYTES, _STRAY_BYTES_IN_INTERVALS = 3, 16
"""Bytes after the data of a scan that cameras are known to leave there. Webcams leave more, before
every restart marker."""
_HOLE = bytes(24)


class Segment(NamedTuple):
    """A marker with what belongs to it; the data of a scan follow its segment.

    Attributes:
        code: Of the marker.
        start: Position of the marker.
        payload: Without marker and length.
        end: Position after the payload.
    """

    code: int
    start: int
    payload: bytes
    end: int


def strip_jpeg(data: bytes) -> Stripped:
    """The first picture of a JPEG, without metadata.

    Args:
        data: The file.

    Returns:
        The file with the segments that decoding needs, and the orientation of the first EXIF.

    Raises:
        RejectedImage: It is malformed or ends too early, or has a kind that is not decoded.
    """
    segments = list(_segments(data))
    _refuse_other_kinds(segments)
    profile = _cleaned_profile(segments)
    kept: list[bytes] = []
    orientation: int | None = None
    copied = 0  # everything before is in `kept` or dropped
    for before, segment in pairwise((Segment(0xD8, 0, b"", 2), *segments)):
        if segment.start > before.end and before.code != _SCAN:  # decoders skip what is between
            kept.append(data[copied : before.end])
            copied = segment.start
        if orientation is None and _is(segment, _EXIF):
            orientation = exif_orientation(segment.payload)
        replacement = _replacement(segment, profile)
        if replacement is not None:
            kept += (data[copied : segment.start], replacement)
            copied = segment.end
            if _is(segment, _PROFILE):
                profile = b"" if profile is not None else None
    return Stripped(b"".join((*kept, data[copied : segments[-1].end])), orientation or 1)


def strip_tables(data: bytes) -> bytes:
    """The tables that the JPEG strips of a TIFF share (`JPEGTables`), and nothing else."""
    kept = (data[one.start : one.end] for one in _segments(data) if one.code in _TABLES)
    return b"".join((_SOI, *kept, bytes((0xFF, _EOI))))


def check_complete(content: bytes, *, tables: bytes = b"") -> bool:
    """Sees that the data of a JPEG are there, from the first block to the last.

    Args:
        content: A JPEG without metadata.
        tables: Of a TIFF, another JPEG, which has the tables that this one lacks.

    Returns:
        Whether this could be seen; if not (odd sampling, lossless), it has to be decoded.

    Raises:
        RejectedImage: Data are missing, or decode to more or fewer blocks than the picture has.
    """
    segments = list(_segments(content))
    frame = next((one for one in segments if one.code in _FRAMES), None)
    if frame is None or not any(one.code == _SCAN for one in segments):
        raise corrupt("a JPEG without a picture")
    if frame.code not in _SEQUENTIAL | _PROGRESSIVE:
        return False
    _check_scans(frame, segments)
    if tables:
        shared = [one for one in _segments(tables) if one.code in _TABLES]
        content = b"".join((_SOI, *(tables[one.start : one.end] for one in shared), content[2:]))
        segments = list(_segments(content))
        frame = next(one for one in segments if one.code in _FRAMES)
    _check_holes(content, frame, segments)
    return _check_data(content, frame, segments)


def _segments(data: bytes) -> Iterator[Segment]:
    """Every segment, to the end marker."""
    position = 2
    while (marker := _MARKER.search(data, position)) is not None:
        position, code = marker.end(), data[marker.end() - 1]
        if code in {_EOI, _TEM}:
            yield Segment(code, marker.start(), b"", position)
            if code == _EOI:
                return
            continue
        if code == 0xD8:
            raise corrupt("a second JPEG begins inside the first")
        end = position + int.from_bytes(data[position : position + 2])
        if max(end, position + 2) > len(data):
            break
        if end < position + 2:
            raise corrupt(f"JPEG segment {code:#x} has an impossible length")
        yield Segment(code, marker.start(), data[position + 2 : end], end)
        position = end
    raise truncated("a JPEG without its end marker")


def _refuse_other_kinds(segments: list[Segment]) -> None:
    for code, _, payload, _ in segments:
        if code == _JPEG_LS:
            raise unsupported("JPEG-LS")
        if code not in _FRAMES:
            continue
        if code not in _READ_FRAMES:
            raise unsupported(f"a JPEG of a process (SOF{code - 0xC0}) that hardly anything reads")
        if payload[:1] != b"\x08":
            raise unsupported(f"a JPEG with {payload[0]} bits per colour")
        if payload[1:3] == b"\0\0" and any(one.code == _LINES for one in segments):
            raise unsupported("a JPEG that says its height after its pixels (DNL)")
    if sum(one.code == _SCAN for one in segments) > MAX_JPEG_SCANS:
        raise RejectedImage(
            "too_large",
            f"The JPEG goes over the whole picture more than {MAX_JPEG_SCANS} times (scans), "
            "which takes long for no use; save it again with another program.",
        )


def _is(segment: Segment, application: tuple[int, bytes]) -> bool:
    return segment.code == application[0] and segment.payload.startswith(application[1])


def _cleaned_profile(segments: list[Segment]) -> bytes | None:
    """The colour profile, cleaned, as segments; None where all of it may stay as it is."""
    parts = [one.payload[len(_PROFILE[1]) :] for one in segments if _is(one, _PROFILE)]
    if not parts:
        return None
    numbers = [part[:1] for part in parts]
    counts = {part[1:2] for part in parts}
    if numbers != [bytes((n + 1,)) for n in range(len(parts))] or counts != {bytes((len(parts),))}:
        # Readers put the parts in order, and give up where one is missing or there twice.
        ordered = {part[0]: part[2:] for part in reversed(parts) if len(part) > 2}
        total = parts[0][1] if len(parts[0]) > 1 else 0
        if sorted(ordered) != [*range(1, total + 1)]:
            return b""
        profile = b"".join(ordered[number] for number in sorted(ordered))
        return _profile_segments(clean_profile(profile))
    profile = b"".join(part[2:] for part in parts)
    cleaned = clean_profile(profile)
    return None if cleaned == profile else _profile_segments(cleaned)


def _profile_segments(profile: bytes) -> bytes:
    code, name = _PROFILE
    starts = range(0, len(profile), _PROFILE_BYTES)
    return b"".join(
        bytes((0xFF, code))
        + struct.pack(">H", 2 + len(name) + 2 + len(part))
        + name
        + bytes((number, len(starts)))
        + part
        for number, start in enumerate(starts, start=1)
        for part in (profile[start : start + _PROFILE_BYTES],)
    )


def _replacement(segment: Segment, profile: bytes | None) -> bytes | None:
    """Bytes to write instead of a segment; None to copy it."""
    code, _, payload, _ = segment
    if code in _FRAMES or code in _TABLES or code in {_SCAN, _EOI}:
        return None
    if _is(segment, _JFIF):  # which may hold a thumbnail
        return b"\xff\xe0\x00\x10" + payload[:12] + b"\0\0" if len(payload) > 14 else None
    if _is(segment, _ADOBE):
        return b"\xff\xee\x00\x0e" + payload[:12] if len(payload) > 12 else None
    if _is(segment, _PROFILE):
        return profile
    if code == _COMMENT or 0xE0 <= code <= 0xEF or code in {_LINES, _TEM}:
        return b""
    raise corrupt(f"a JPEG with a segment that does not exist ({code:#x})")


# Is all of the picture there?


def _components(frame: Segment) -> dict[int, tuple[int, int]]:
    """Number -> horizontal and vertical sampling of every component."""
    each = range(6, 6 + 3 * frame.payload[5], 3)
    if len(frame.payload) != each.stop:
        raise corrupt("a JPEG whose frame has an impossible length")
    return {frame.payload[at]: divmod(frame.payload[at + 1], 16) for at in each}


def _check_scans(frame: Segment, segments: list[Segment]) -> None:
    """All scans must be there: decoders draw what none of them holds gray, without a warning."""
    progressive = frame.code in _PROGRESSIVE
    # Of each coefficient of each component, how many of its lowest bits no scan has brought yet.
    missing = {number: [16] * (64 if progressive else 1) for number in _components(frame)}
    for scan in (one for one in segments if one.code == _SCAN):
        count = scan.payload[0] if scan.payload else 0
        if len(scan.payload) != 1 + 2 * count + 3:
            raise corrupt("a JPEG scan has an impossible length")
        first, last, bits = scan.payload[-3:]
        for number in scan.payload[1 : 1 + 2 * count : 2]:
            if number not in missing:
                raise corrupt("a JPEG scan is of a component that the picture does not have")
            left = missing[number]
            for coefficient in range(first, min(last, 63) + 1) if progressive else (0,):
                left[coefficient] = min(left[coefficient], bits & 15 if progressive else 0)
    if any(any(left) for left in missing.values()):
        raise truncated("scans of its JPEG are missing")


def _check_holes(content: bytes, frame: Segment, segments: list[Segment]) -> None:
    """Zeros where storage lost a block would be coefficients of -1 without end, and noise."""
    if frame.code not in _SEQUENTIAL - _ARITHMETIC:
        return
    for scan, following in pairwise(segments):
        if scan.code != _SCAN:
            continue
        at = content.find(_HOLE, scan.end, _data_end(content, scan, following))
        if at >= 0 and not _zeros_end_blocks(scan, segments):
            raise corrupt(f"a hole of zeros at byte {at} of its JPEG")


def _data_end(content: bytes, scan: Segment, following: Segment) -> int:
    """Where the data of a scan end, and padding begins."""
    data = content[scan.end : following.start]
    return scan.end + len(data.rstrip(b"\0\xff"))


def _zeros_end_blocks(scan: Segment, segments: list[Segment]) -> bool:
    """Whether zeros may be plain blocks: by the table, the shortest code adds no coefficient."""
    wanted = 0x10 | scan.payload[2] & 15
    for segment in segments:
        if segment.code != _HUFFMAN_TABLES or segment.start > scan.start:
            continue
        position = 0
        while position + 17 < len(segment.payload):
            lengths = segment.payload[position + 1 : position + 17]
            if segment.payload[position] == wanted:
                return segment.payload[position + 17] & 15 == 0
            position += 17 + sum(lengths)
    return wanted == 0x11  # of the tables of the standard, that of colours


def _check_data(content: bytes, frame: Segment, segments: list[Segment]) -> bool:
    scans = [one for one in segments if one.code == _SCAN]
    interval = 0
    for segment in segments:
        if segment.code == _RESTART_INTERVAL:
            interval = int.from_bytes(segment.payload[:2])
    blocks, taller = _size_in_blocks(frame)
    tail = b""
    if len(scans) == 1 and interval:
        content = _without_more_intervals(content, scans[0], -(-blocks // interval))
    counted = (
        len(scans) == 1
        and not interval
        and frame.code in _SEQUENTIAL - _ARITHMETIC
        and blocks <= _LONGEST_INTERVAL
        and taller <= _LARGEST_SIDE
    )
    if counted:
        # The decoder counts the bytes that it has not used where a restart is due: here, after
        # the last block, for which there is one more row of them.
        tail = _PADDING
    bare = _bare(content, taller=taller if counted else 0, interval=blocks, tail=tail)
    complaint = _complaint(bare)
    unused = _unused(complaint)
    if unused is None:
        return (not counted and not complaint) or _judge(complaint)
    stray = unused - len(tail)
    if stray < 0:
        raise truncated("the data of its JPEG end before its last block")
    end = segments[-1].start
    most = _STRAY_BYTES_IN_INTERVALS if interval else _STRAY_BYTES
    _check_stray(stray, content[end - stray : end], most=most)
    return True


def _size_in_blocks(frame: Segment) -> tuple[int, int]:
    """Units (MCU) of the picture in one scan, and its height with one more row of them."""
    height, width = struct.unpack_from(">HH", frame.payload, 1)
    sampling = list(_components(frame).values())
    if not height or not width or any(not all(one) for one in sampling):
        raise corrupt("a JPEG without width or height")
    across, down = (1, 1) if len(sampling) == 1 else map(max, zip(*sampling, strict=True))
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    return columns * rows, 8 * down * (rows + 1)


def _without_more_intervals(content: bytes, scan: Segment, intervals: int) -> bytes:
    """Scanners go on below the picture: what follows the interval that ends it is not looked at."""
    end = _MARKER.search(content, scan.end)
    stop = end.start() if end else len(content)
    restarts = [one.start() for one in _RESTART.finditer(content, scan.end, stop)]
    if len(restarts) < intervals - 1:
        raise truncated("the data of its JPEG end before its last block")
    if len(restarts) >= intervals:
        return content[: restarts[intervals - 1]] + content[stop:]
    return content


def _bare(content: bytes, *, taller: int, interval: int, tail: bytes) -> bytes:
    """The picture without whatever else a decoder might warn of first: it tells its first warning.

    Args:
        content: The JPEG.
        taller: Height to declare; 0 for its own.
        interval: Units before a restart is due, where `taller` is given.
        tail: Bytes to add to the data.
    """
    parts = [_SOI]
    frame_code = 0
    segments = list(_segments(content))
    for segment, following in zip(segments, (*segments[1:], segments[-1]), strict=True):
        if 0xE0 <= segment.code <= 0xEF:
            continue
        whole = content[segment.start : segment.end]
        if segment.code in _FRAMES:
            frame_code = segment.code
            if taller:
                whole = whole[:5] + struct.pack(">H", taller) + whole[7:]
        if segment.code == _SCAN:
            if taller:
                parts.append(b"\xff\xdd\0\4" + struct.pack(">H", interval))
            if frame_code in _SEQUENTIAL:  # which have no use for these numbers
                whole = whole[:-3] + b"\0\x3f\0"
            data = content[segment.end : following.start].rstrip(b"\xff")  # before a marker
            if frame_code in _SEQUENTIAL - _ARITHMETIC and not _zeros_end_blocks(segment, segments):
                data = _unpadded(data)
            whole += data + tail
        parts.append(whole)
    return b"".join(parts)


def _unpadded(data: bytes) -> bytes:
    """The data of a scan with few of the zeros at their end, which may be those of a lost block."""
    bare = data.rstrip(b"\0")
    return bare + bytes(min(len(data) - len(bare), _STRAY_BYTES))


def _complaint(jpeg: bytes) -> str:
    """The first warning or error of decoding a JPEG to an eighth of its size; empty if none."""
    try:
        simplejpeg.decode_jpeg(jpeg, "GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _unused(complaint: str) -> int | None:
    found = re.search(r"(\d+) extraneous bytes", complaint)
    return int(found[1]) if found else None


def _check_stray(count: int, found: bytes, *, most: int) -> None:
    """Cameras pad their data; a scan that ends with more to come has lost its place before."""
    if count > most and len(set(found)) > 1:
        raise corrupt(f"its JPEG has {count} bytes more than its blocks")


def _judge(complaint: str) -> bool:
    """Whether the data were seen to be whole although the decoder complains."""
    if "remature end" in complaint:
        raise truncated("the data of its JPEG end before its last block")
    if "Corrupt JPEG data" in complaint:
        raise corrupt(f"JPEG: {complaint.removeprefix('Corrupt JPEG data: ')}")
    return False
