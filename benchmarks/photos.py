"""Photos in any number, made from few: the same pictures under other names, with other bytes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from fruits_assets.sample.drawing import write_sample
from fruits_assets.sources.places import photos_at
from fruits_assets.storage.places import folder_at

PHOTO_12_MEGAPIXELS = (4032, 3024)
LARGE_ORIGINALS = 40
NOISE = 6.0
"""Standard deviation in gray levels."""
JPEG = frozenset({".jpg", ".jpeg"})


def multiplied(source: Path, target: Path, *, count: int) -> Path:
    """A source of exactly `count` photos, each with bytes of its own.

    A comment segment makes a JPEG another file without changing its pixels; other files are left.
    """
    if target.is_dir():
        return target
    paths = photos_at(folder_at(str(source))).list(recursive=True).files["path"].to_pylist()
    jpegs = [path for path in paths if Path(path).suffix.lower() in JPEG]
    for number, path in zip(range(count), itertools.cycle(jpegs), strict=False):
        original = source / path
        copy = target / Path(path).parent / f"{number:07d}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(_commented(original.read_bytes(), str(number)))
    return target


def distinct(source: Path, target: Path, *, count: int) -> Path:
    """A source of exactly `count` photos, each a picture of its own: a corner of it is noise."""
    originals = [Image.open(path).convert("RGB") for path in sorted(source.rglob("*.jpg"))]
    folders = [path.parent.relative_to(source) for path in sorted(source.rglob("*.jpg"))]
    chance = np.random.default_rng(0)
    for number in range(count):
        picture = originals[number % len(originals)].copy()
        picture.paste(Image.fromarray(chance.integers(0, 256, (16, 16, 3), np.uint8)), (0, 0))
        copy = target / folders[number % len(folders)] / f"{number:07d}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        picture.save(copy, quality=90)
    return target


def drawn(folder: Path) -> Path:
    """Drawn photos, a few of each class of the embedded sample."""
    write_sample(folder, photos_per_class=(8, 0))
    return folder


def large(source: Path, target: Path, *, count: int) -> Path:
    """Photos of 12 megapixels as a phone takes them: enlarged, with a sensor's noise, about 5 MB.

    Args:
        source: photos to enlarge; `LARGE_ORIGINALS` of them, evenly chosen, make all others.
        target: folder to write to.
        count: how many.
    """
    few = target.with_name(f"{target.name}-originals")
    paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in JPEG]
    for number, path in enumerate(paths[:: max(1, len(paths) // LARGE_ORIGINALS)]):
        enlarged = few / path.parent.name / f"{number}.jpg"
        if not enlarged.exists():
            enlarged.parent.mkdir(parents=True, exist_ok=True)
            _enlarged(path, seed=number).save(enlarged, quality=90)
    return multiplied(few, target, count=count)


def _enlarged(path: Path, *, seed: int) -> Image.Image:
    with Image.open(path) as photo:
        picture = photo.convert("RGB").resize(PHOTO_12_MEGAPIXELS)
    width, height = PHOTO_12_MEGAPIXELS
    noise = np.random.default_rng(seed).normal(0, NOISE, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _commented(jpeg: bytes, text: str) -> bytes:
    """Inserts a comment segment right after the start-of-image marker (ITU T.81, B.2.4.5)."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
