"""`python -m benchmarks.fuzz`: damaged images by the thousand, each to end accepted or rejected.

Every case is a small valid image with some random damage, made from the seed and the number of the
case alone. It is examined, and seen where it is accepted, in the process of a `Decoder`: what
crashes, hangs or eats memory is counted and named, and does not end the run.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, PngImagePlugin

from fruits_assets.core.decoder import Decoder
from fruits_assets.core.rejection import REASONS, RejectedImage

T = TypeVar("T")

SECRET = b"SECRET-48.8584N-2.2945E"
"""In the metadata of every sample that can hold any."""
MAX_PIXELS = 1_000_000
IMAGE_SIZE = 32
SECONDS = 5.0
MEMORY_BYTES = 2**30
PEAK_BYTES = 256 * 2**20
"""Resident memory beyond which no image of `MAX_PIXELS` may take a child."""
ACCEPTED = "accepted"
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def main() -> None:
    """Runs the cases, prints a table and writes it as JSON; exits with 1 where there are faults."""
    arguments = _arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.case is not None:
        _show(arguments.case, seed=arguments.seed, folder=arguments.output)
        return
    started = time.monotonic()
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        cases = [
            run(number, seed=arguments.seed, decoder=decoder) for number in range(arguments.cases)
        ]
    report = Report.of(cases, arguments.cases, seconds=time.monotonic() - started)
    print(report)
    content = {"seed": arguments.seed, **asdict(report), "faults": report.faults}
    (arguments.output / "fuzz.json").write_text(json.dumps(content, indent=2) + "\n")
    sys.exit(1 if report.faults else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one, told in full, and its image kept")
    parser.add_argument("--output", type=Path, default=Path("artifacts/fuzz"))
    return parser.parse_args()


def _show(number: int, *, seed: int, folder: Path) -> None:
    _, data = damaged(number, seed=seed)
    path = folder / f"seed-{seed}-case-{number}"
    path.write_bytes(data)
    with Decoder(seconds=SECONDS, memory_bytes=MEMORY_BYTES) as decoder:
        case = run(number, seed=seed, decoder=decoder)
    print(f"{path}: {len(data)} bytes")
    print(*(f"{name}: {value}" for name, value in asdict(case).items()), sep="\n")


# What is run, and what comes of it


@dataclass(frozen=True)
class Case:
    """What became of one damaged image.

    Attributes:
        number: Of the case: with the seed, it makes the image again.
        sample: The valid image that was damaged; its first word is the format.
        outcome: `accepted`, one of `REASONS`, or the name of an exception that should not be.
        detail: Of the rejection or exception.
        unseen: Why an accepted image could not be seen.
        died: Whether it ended a child.
        seconds: That it took.
        peak_bytes: Resident memory that the child had taken by then, at most.
    """

    number: int
    sample: str
    outcome: str
    detail: str
    unseen: str
    died: bool
    seconds: float
    peak_bytes: int

    @property
    def timed_out(self) -> bool:
        """Whether it was given up for the time it took."""
        return "was not decoded within" in self.detail + self.unseen


def run(number: int, *, seed: int, decoder: Decoder) -> Case:
    """Examines the image of a case, and sees it where it is accepted."""
    sample, data = damaged(number, seed=seed)
    started, before = time.perf_counter(), decoder.pid
    photo, outcome, detail = _outcome(partial(decoder.examine, data, max_pixels=MAX_PIXELS))
    unseen = ""
    if photo:
        see = partial(decoder.pixels, photo.content, orientation=photo.orientation)
        seen, failure, why = _outcome(partial(see, size=IMAGE_SIZE))
        unseen = f"{failure}: {why}" if seen is None else ""
    return Case(
        number,
        sample,
        outcome,
        detail=detail,
        unseen=unseen,
        died=decoder.pid is None or before not in {None, decoder.pid},
        seconds=time.perf_counter() - started,
        peak_bytes=_peak_bytes(decoder.pid),
    )


def _outcome(work: Callable[[], T]) -> tuple[T | None, str, str]:
    """What it returns, if it does; the outcome; and the detail."""
    try:
        return work(), ACCEPTED, ""
    except RejectedImage as error:
        return None, str(error.reason), error.detail
    except Exception as error:
        return None, type(error).__name__, str(error)


def _peak_bytes(pid: int | None) -> int:
    """Resident memory that a process has had at most; 0 without one."""
    if pid is None:
        return 0
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@dataclass(frozen=True)
class Report:
    """What became of all cases; lists hold the numbers of cases.

    Attributes:
        expected: How many there should be.
        outcomes: Format -> outcome -> how many.
        deaths: Those that ended a child.
        timeouts: Of these, those that were given up for the time they took.
        exceptions: Those that raised anything but a rejection.
        unseen: Those that were accepted, and could not be seen.
        peak_bytes: Resident memory of a child, at most.
        slowest: The one that took longest.
        slowest_seconds: How long that was.
        seconds: Of the whole run.
    """

    expected: int
    outcomes: dict[str, dict[str, int]]
    deaths: list[int]
    timeouts: list[int]
    exceptions: list[int]
    unseen: list[int]
    peak_bytes: int
    slowest: int
    slowest_seconds: float
    seconds: float

    @classmethod
    def of(cls, cases: Sequence[Case], expected: int, *, seconds: float) -> Report:
        """Counts."""
        outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        for case in cases:
            outcomes[case.sample.split()[0]][case.outcome] += 1
        slowest = max(cases, key=attrgetter("seconds"))

        def numbers(chosen: Callable[[Case], object]) -> list[int]:
            return [case.number for case in cases if chosen(case)]

        return cls(
            expected,
            {name: dict(counter) for name, counter in outcomes.items()},
            deaths=numbers(attrgetter("died")),
            timeouts=numbers(attrgetter("timed_out")),
            exceptions=numbers(lambda case: case.outcome not in {ACCEPTED, *REASONS}),
            unseen=numbers(attrgetter("unseen")),
            peak_bytes=max(case.peak_bytes for case in cases),
            slowest=slowest.number,
            slowest_seconds=slowest.seconds,
            seconds=seconds,
        )

    @property
    def faults(self) -> list[str]:
        """What should not be, in a line each."""
        lost = self.expected - sum(sum(row.values()) for row in self.outcomes.values())
        found = []
        if lost:
            found.append(f"{lost} cases are unaccounted for")
        if self.exceptions:
            found.append(f"cases that raised anything but a rejection: {self.exceptions}")
        if self.unseen:
            found.append(f"cases that were accepted and cannot be seen: {self.unseen}")
        if self.peak_bytes > PEAK_BYTES:
            found.append(f"a child took more than {PEAK_BYTES / 2**20:.0f} MB")
        return found

    def __str__(self) -> str:
        found = {outcome for row in self.outcomes.values() for outcome in row}
        outcomes = [outcome for outcome in (ACCEPTED, *REASONS) if outcome in found]
        outcomes += sorted(found - {*outcomes})
        rows = [["", *outcomes]]
        for name, counts in sorted(self.outcomes.items()):
            rows.append([name, *(f"{counts.get(outcome, 0):,}" for outcome in outcomes)])
        lines = [
            "".join(f"{cell:>{len(head) + 8}}" for cell, head in zip(row, rows[0], strict=True))
            for row in rows
        ]
        lines += [
            f"{self.expected:,} cases in {self.seconds:.0f} s; the slowest, {self.slowest}, took "
            f"{self.slowest_seconds:.2f} s; a child took {self.peak_bytes / 2**20:.0f} MB at most",
            f"ended a child: {self.deaths}; of these, took too long: {self.timeouts}",
            *(f"FAULT: {fault}" for fault in self.faults),
        ]
        return "\n".join(lines)


# Valid images of every kind


@cache
def samples(image_format: str) -> dict[str, bytes]:
    """Small valid images of one of `FORMATS`: format and kind -> file."""
    pillow_heif.register_heif_opener()
    makers = {
        "JPEG": _jpegs,
        "PNG": _pngs,
        "GIF": _gifs,
        "WEBP": _webps,
        "BMP": _bmps,
        "TIFF": _tiffs,
        "AVIF": _avifs,
        "HEIF": _heifs,
    }
    return makers[image_format]()


def _picture(mode: str = "RGB", *, turn: int = 0) -> Image.Image:
    """Blocks of colours, 40 by 24, transparent in places where the mode can say so."""
    shades = np.random.default_rng(turn).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    picture = Image.fromarray(shades).resize((40, 24), Image.Resampling.BILINEAR)
    if mode == "I;16":
        gray = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        return Image.fromarray(gray)
    if mode in {"RGBA", "LA"}:
        return picture.convert(mode)
    return picture.convert("RGB").convert(mode)


def _saved(picture: Image.Image, image_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, image_format, **options)
    return stream.getvalue()


def _metadata() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = SECRET.decode()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"
    return {"exif": exif.tobytes(), "icc_profile": profile, "xmp": xmp}


def _frames(mode: str = "RGB") -> dict[str, object]:
    return {"save_all": True, "append_images": [_picture(mode, turn=1), _picture(mode, turn=2)]}


def _jpegs() -> dict[str, bytes]:
    exif = _metadata()["exif"]
    rgb = _picture()
    return {
        "JPEG": _saved(rgb, "JPEG", comment=SECRET, **_metadata()),
        "JPEG plain": _saved(rgb, "JPEG", quality=95, subsampling=0),
        "JPEG progressive": _saved(rgb, "JPEG", progressive=True, exif=exif),
        "JPEG with restarts": _saved(rgb, "JPEG", restart_marker_blocks=1),
        "JPEG gray": _saved(_picture("L"), "JPEG", exif=exif),
        "JPEG CMYK": _saved(_picture("CMYK"), "JPEG", exif=exif),
        "JPEG of several pictures": _saved(rgb, "MPO", exif=exif, **_frames()),
    }


def _pngs() -> dict[str, bytes]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_text("Packed", SECRET.decode(), zip=True)
    exif, profile, _ = _metadata().values()
    return {
        "PNG": _saved(_picture(), "PNG", pnginfo=text, exif=exif, icc_profile=profile),
        "PNG palette": _saved(_picture("P"), "PNG", transparency=3),
        "PNG bits": _saved(_picture("1"), "PNG"),
        "PNG gray and alpha": _saved(_picture("LA"), "PNG"),
        "PNG alpha": _saved(_picture("RGBA"), "PNG", exif=exif),
        "PNG 16 bits": _saved(_picture("I;16"), "PNG"),
        "PNG animated": _saved(_picture(), "PNG", exif=exif, **_frames()),
    }


def _gifs() -> dict[str, bytes]:
    return {
        "GIF": _saved(_picture("P"), "GIF", comment=SECRET),
        "GIF transparent": _saved(_picture("P"), "GIF", transparency=3),
        "GIF gray": _saved(_picture("L"), "GIF"),
        "GIF animated": _saved(_picture(), "GIF", loop=2, duration=70, disposal=2, **_frames()),
    }


def _webps() -> dict[str, bytes]:
    return {
        "WEBP": _saved(_picture(), "WEBP", **_metadata()),
        "WEBP plain": _saved(_picture(), "WEBP"),
        "WEBP lossless": _saved(_picture(), "WEBP", lossless=True),
        "WEBP alpha": _saved(_picture("RGBA"), "WEBP", **_metadata()),
        "WEBP lossless alpha": _saved(_picture("RGBA"), "WEBP", lossless=True),
        "WEBP animated": _saved(_picture(), "WEBP", **_metadata(), **_frames()),
    }


def _bmps() -> dict[str, bytes]:
    return {f"BMP {mode}": _saved(_picture(mode), "BMP") for mode in ("RGB", "RGBA", "L", "P", "1")}


def _tiffs() -> dict[str, bytes]:
    kinds = {
        "RGB": ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"),
        "RGBA": ("raw", "tiff_lzw"),
        "1": ("raw", "group3", "group4", "tiff_ccitt"),
        "CMYK": ("raw", "jpeg"),
        **dict.fromkeys(("L", "P", "LAB", "I;16", "I", "F"), ("raw", "tiff_lzw")),
        "YCbCr": ("raw", "jpeg"),
    }
    found = {
        f"TIFF {mode} {compression}": _tiff(_picture(mode), compression)
        for mode, compressions in kinds.items()
        for compression in compressions
    }
    several = _saved(_picture(), "TIFF", compression="tiff_lzw", **_frames())
    return {
        **found,
        "TIFF big": _tiff(_picture(), "raw", big_tiff=True),
        "TIFF of several": several,
    }


def _tiff(picture: Image.Image, compression: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif.update({270: SECRET.decode(), 274: 6})
    return _saved(picture, "TIFF", compression=compression, exif=exif, **options)


def _avifs() -> dict[str, bytes]:
    return {
        "AVIF": _saved(_picture(), "AVIF", **_metadata()),
        "AVIF full colour": _saved(_picture(), "AVIF", subsampling="4:4:4", quality=95),
        "AVIF gray": _saved(_picture("L"), "AVIF"),
        "AVIF alpha": _saved(_picture("RGBA"), "AVIF", **_metadata()),
        "AVIF animated": _saved(_picture(), "AVIF", **_frames()),
    }


def _heifs() -> dict[str, bytes]:
    return {
        "HEIF": _saved(_picture(), "HEIF", **_metadata()),
        "HEIF gray": _saved(_picture("L"), "HEIF"),
        "HEIF alpha": _saved(_picture("RGBA"), "HEIF", **_metadata()),
        "HEIF 16 bits": _saved(_picture("I;16"), "HEIF"),
        "HEIF of several": _saved(_picture(), "HEIF", **_frames()),
    }


# What is done to them


def damaged(number: int, *, seed: int) -> tuple[str, bytes]:
    """The image of a case, and the name of the sample that it was."""
    chance = random.Random(f"{seed} {number}")  # noqa: S311 - reproducible, nothing to guess
    name, data = chance.choice(list(samples(FORMATS[number % len(FORMATS)]).items()))
    other = chance.choice(list(samples(chance.choice(FORMATS)).values()))
    return name, mutated(data, other, chance=chance)


def mutated(data: bytes, other: bytes, *, chance: random.Random) -> bytes:
    """A file with one to four changes, each of any kind; `other` lends what is spliced in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        chance.choice(_CHANGES)(changed, other, chance)
        if len(changed) < 8:
            break
    if changed.startswith(b"\x89PNG") and chance.random() < 0.8:
        return _resealed(bytes(changed))
    return bytes(changed)


def _flip(data: bytearray, _: bytes, chance: random.Random) -> None:
    for position in chance.choices(range(len(data)), k=chance.choice((1, 1, 2, 8))):
        data[position] ^= 1 << chance.randrange(8)


def _fill(data: bytearray, _: bytes, chance: random.Random) -> None:
    at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 16, 64))
    filling = chance.choice((b"\0", b"\xff", chance.randbytes(1)))
    run = filling * size if chance.random() < 0.7 else chance.randbytes(size)
    data[at : at + size] = run[: len(data) - at]


def _truncate(data: bytearray, _: bytes, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _delete(data: bytearray, _: bytes, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.choice((1, 2, 4, 16, 256))]


def _insert(data: bytearray, _: bytes, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 16, 256)))


def _duplicate(data: bytearray, _: bytes, chance: random.Random) -> None:
    start, at = chance.randrange(len(data)), chance.randrange(len(data))
    data[at:at] = data[start : start + chance.choice((4, 12, 64, 512))]


def _splice(data: bytearray, other: bytes, chance: random.Random) -> None:
    at, start = chance.randrange(len(data)), chance.randrange(len(other))
    if chance.random() < 0.5:
        data[at:] = other[start:]
    else:
        data[at:at] = other[start : start + chance.choice((4, 12, 64, 512))]


def _resize(data: bytearray, _: bytes, chance: random.Random) -> None:
    """Lengths, counts and offsets are where decoders trust a file."""
    width, order = chance.choice((1, 2, 4, 8)), chance.choice(("big", "little"))
    at = chance.randrange(len(data))
    field = data[at : at + width]
    near = int.from_bytes(field, order) + chance.choice((-256, -8, -2, -1, 1, 2, 8, 256))
    value = chance.choice((near, near, len(data), chance.choice(_EDGES)))
    data[at : at + width] = (value % (1 << 8 * len(field))).to_bytes(len(field), order)


_CHANGES = (_flip, _flip, _fill, _truncate, _delete, _insert, _duplicate, _splice, _resize, _resize)


def _resealed(data: bytes) -> bytes:
    """A PNG with checksums that fit: else it would not be looked at any further."""
    sealed, position = [data[:8]], 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4])
        body = data[position + 4 : end]
        sealed += (data[position : position + 4], body, zlib.crc32(body).to_bytes(4))
        position = end + 4
    return b"".join(sealed)


if __name__ == "__main__":
    main()
