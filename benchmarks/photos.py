"""Photos in any number, made from few: the same pictures under other names, with other bytes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from fruits_assets.core.source import list_folder
from fruits_assets.sample.drawing import write_sample

PHOTO_12_MEGAPIXELS = (4032, 3024)


def multiplied(source: Path, target: Path, *, count: int) -> Path:
    """A source of exactly `count` photos, each with bytes of its own.

    A comment segment makes a JPEG another file without changing its pixels; other files are left.
    """
    if target.is_dir():
        return target
    paths = list_folder(str(source), recursive=True).files["path"].to_pylist()
    jpegs = [path for path in paths if path.lower().endswith((".jpg", ".jpeg"))]
    for number, path in zip(range(count), itertools.cycle(jpegs), strict=False):
        original = source / path
        copy = target / Path(path).parent / f"{number:07d}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(_commented(original.read_bytes(), str(number)))
    return target


def drawn(folder: Path) -> Path:
    """The embedded sample."""
    write_sample(folder)
    return folder


def large(target: Path, *, count: int) -> Path:
    """Photos of 12 megapixels, as a phone takes them: noise on a gradient, about 5 MB each."""
    few = target.with_name(f"{target.name}-few")
    for number in range(4):
        path = few / "Apple" / f"{number}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _large_picture(number).save(path, quality=90)
    return multiplied(few, target, count=count)


def _large_picture(seed: int) -> Image.Image:
    width, height = PHOTO_12_MEGAPIXELS
    rng = np.random.default_rng(seed)
    gradient = np.linspace(60, 200, width, dtype=np.float32)[np.newaxis, :, np.newaxis]
    noise = rng.normal(0, 12, (height, width, 3)).astype(np.float32)
    return Image.fromarray(np.clip(gradient + noise, 0, 255).astype(np.uint8))


def _commented(jpeg: bytes, text: str) -> bytes:
    """Inserts a comment segment right after the start-of-image marker (ITU T.81, B.2.4.5)."""
    comment = text.encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
