"""What `reduced_decoding` wins in time and loses in exactness."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.contenders import Spec
from fruits_assets.core.images import pixels
from fruits_assets.core.mobilenet import MODEL, FeatureExtractor, relative_error

PHOTOS = 40


@dataclass(frozen=True)
class Decoding:
    """Of photos of 12 megapixels.

    Attributes:
        photos: how many.
        full_ms: to decode and resize one, median.
        reduced_ms: the same, reduced.
        error: relative L2 distance of the features, median.
        worst: the largest of these distances.
    """

    photos: int
    full_ms: float
    reduced_ms: float
    error: float
    worst: float

    def __str__(self) -> str:
        return (
            f"reduced decoding of {self.photos} photos of 12 megapixels: {self.reduced_ms:.0f} ms "
            f"instead of {self.full_ms:.0f} ms each, features off by {self.error:.1%} (median, "
            f"relative L2; at most {self.worst:.1%})"
        )


def measure(spec: Spec) -> Decoding:
    """Compares both ways on the first photos of a folder."""
    extract = FeatureExtractor(spec.model.read(MODEL))
    full, reduced, errors = [], [], []
    for path in sorted(Path(spec.photos).rglob("*.jpg"))[:PHOTOS]:
        exact, seconds = _timed(path.read_bytes(), spec.image_size, reduced=False)
        full.append(1e3 * seconds)
        rough, seconds = _timed(path.read_bytes(), spec.image_size, reduced=True)
        reduced.append(1e3 * seconds)
        errors.append(relative_error(extract(rough), extract(exact)))
    return Decoding(
        len(errors),
        statistics.median(full),
        statistics.median(reduced),
        statistics.median(errors),
        max(errors),
    )


def _timed(content: bytes, size: int, *, reduced: bool) -> tuple[np.ndarray, float]:
    started = time.perf_counter()
    seen = pixels(content, orientation=1, size=size, reduced=reduced)
    return seen, time.perf_counter() - started
