"""The source of all trials: photos, copies of some, and files that are no photos."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import photos
from fruits_assets.sample.drawing import write_sample

COPIES = 5
SINCE_YESTERDAY = 0.4
"""Share of the photos that yesterday's source does not have."""
NO_PHOTOS = {"Training/notes.txt": b"bananas, mostly", "Test/empty.jpg": b""}


@dataclass(frozen=True)
class Photos:
    """A source that has grown.

    Attributes:
        today: its folder.
        yesterday: folder of what it held before.
    """

    today: Path
    yesterday: Path

    @classmethod
    def of(cls, work: Path, original: Path | None, *, count: int) -> Photos:
        """Makes both anew.

        Args:
            work: folder to make them in.
            original: folder of JPEGs, any number; drawn photos without.
            count: of the photos.
        """
        if original is None:
            original = work / "drawn"
            write_sample(original)
        today, yesterday = work / f"photos-{count}", work / f"photos-{count}-yesterday"
        for folder in (today, yesterday):
            shutil.rmtree(folder, ignore_errors=True)
        photos.multiplied(original, today, count=count)
        _complicate(today, files_of(today))
        files = files_of(today)
        for number, file in enumerate(files):
            if (number * 7) % 10 >= SINCE_YESTERDAY * 10:
                copied(file, yesterday / file.relative_to(today))
        return cls(today, yesterday)


def files_of(folder: Path) -> Sequence[Path]:
    """All files, in path order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copied(file: Path, target: Path) -> None:
    """A copy as old as the original."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, target)


def _complicate(folder: Path, files: Sequence[Path]) -> None:
    for file in files[:: max(1, len(files) // COPIES)][:COPIES]:
        copied(file, file.with_name(f"copy-{file.name}"))
    for name, content in NO_PHOTOS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def jpegs_of(folder: Path) -> Sequence[Path]:
    """The photos, in path order."""
    return [file for file in files_of(folder) if file.read_bytes()[:2] == b"\xff\xd8"]


def commented(jpeg: bytes, text: str) -> bytes:
    """The same picture in other bytes: a comment segment follows the start of the image."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
