"""`python -m benchmarks.collections`: the test images of other projects, and what becomes of each.

They lie in source distributions on PyPI, whose versions and hashes are fixed here, and are read out
of the archives in memory. Counts by format and outcome are printed; every file, with its reason, is
in `collections.csv`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import tarfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fruits_assets.assets.raw_images import IngestConfig
from fruits_assets.core.decoder import Decoder
from fruits_assets.core.rejection import RejectedImage

SUFFIXES = frozenset(
    {".avif", ".avifs", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jpe", ".jpeg", ".jpg"}
    | {".mpo", ".png", ".tif", ".tiff", ".webp"}
)
ACCEPTED = "accepted"
_INDEX = "https://files.pythonhosted.org/packages/"


class Archive(NamedTuple):
    """A source distribution.

    Attributes:
        address: Path below the URL of the index's files.
        sha256: SHA-256 of the archive, hexadecimal.
    """

    address: str
    sha256: str


ARCHIVES = (
    Archive(
        "ce/a4/9cc30690a394a8305e8be4c9036aa16d0dfddadd09079860b582f562496d/pillow-13.0.0.tar.gz",
        "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
    ),
    Archive(
        "44/c1/82145984920ca055675af2c2795bd30da6f7461215c41f3c1eacb3d66353/"
        "pillow_heif-1.8.1.tar.gz",
        "521ebffb8a181d56c3904e5a61f20903edee0d9d3275967b8fb345f866215c06",
    ),
    Archive(
        "a1/b4/2528bb43c67d48053a7a649a9666432dc307d66ba02e3a6d5c40f46655df/"
        "scikit_image-0.26.0.tar.gz",
        "f5f970ab04efad85c24714321fcc91613fcb64ef2a892a13167df2f3e59199fa",
    ),
    Archive(
        "82/17/7b135d63912f47e2a52b202688992f0f6f1686f3c90cdb0bc4fba2c89c37/thumbor-7.8.0.tar.gz",
        "3211d7b3210864fae09a67a822e69851aa54ac6137d8a35c1a4047881e3c6dfc",
    ),
    Archive(
        "85/27/98de4383d028df318b9dd56e7ac2a8437684db18c2da7204c084f37e8f95/wand-0.7.2.tar.gz",
        "0387fd08848d00cadd1d885fcb19a17dd4250df2029e5338b6b668b7fed64b5b",
    ),
    Archive(
        "57/a6/ffacc0937524aeff27d20c981e5f321aedd284daf66aca7d52c707fa2d93/hachoir-3.4.0.tar.gz",
        "7f88018d58ef42b5dcd8ff51f2a6191abf3ade38eee8da11acd93f5a7d9cf8f8",
    ),
)


class Outcome(NamedTuple):
    """One file, accepted or rejected.

    Attributes:
        file: Path in its archive.
        format: Name by Pillow if the file was accepted; else its suffix.
        outcome: `accepted`, or the reason of the rejection.
        detail: Sentence of the rejection; empty if the file was accepted.
    """

    file: str
    format: str
    outcome: str
    detail: str


def main() -> None:
    """Fetches the archives, examines what is in them and prints the counts."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collections", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("artifacts/collections"))
    folder: Path = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with Decoder() as decoder:
        for archive in ARCHIVES:
            outcomes += examined(fetched(archive), decoder)
    with (folder / "collections.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(Outcome._fields)
        writer.writerows(outcomes)
    print(summary(outcomes))


def fetched(archive: Archive) -> bytes:
    """An archive. Raises ValueError if it is not the one that was meant."""
    with urllib.request.urlopen(_INDEX + archive.address) as answer:  # noqa: S310 - https, above
        data: bytes = answer.read()
    found = hashlib.sha256(data).hexdigest()
    if found != archive.sha256:
        raise ValueError(f"{archive.address} has the SHA-256 {found}, not {archive.sha256}")
    return data


def examined(archive: bytes, decoder: Decoder) -> Iterator[Outcome]:
    """The outcome of every file in a `.tar.gz` that is named like an image."""
    most = IngestConfig().limits["max_pixels"]
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        for member in members:
            suffix = PurePosixPath(member.name).suffix.lower()
            file = members.extractfile(member) if member.isfile() and suffix in SUFFIXES else None
            if file is None:
                continue
            try:
                photo = decoder.examine(file.read(), max_pixels=most)
                decoder.pixels(photo.content, orientation=photo.orientation, size=224)
            except RejectedImage as error:
                yield Outcome(member.name, suffix[1:].upper(), error.reason, error.detail)
            else:
                yield Outcome(member.name, photo.format, ACCEPTED, "")


def summary(outcomes: Sequence[Outcome]) -> str:
    """Counts by format and outcome, as a table."""
    counts = Counter((one.format, one.outcome) for one in outcomes)
    columns = sorted({outcome for _, outcome in counts}, key=lambda one: (one != ACCEPTED, one))
    rows = [["", *columns]]
    rows += [
        [name, *(str(counts[name, outcome]) for outcome in columns)]
        for name in sorted({name for name, _ in counts})
    ]
    lines = ["".join(f"{cell:>20}" for cell in row) for row in rows]
    return "\n".join((*lines, f"{len(outcomes)} files"))


if __name__ == "__main__":
    main()
