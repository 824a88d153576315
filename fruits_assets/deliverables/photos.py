"""Counts and small pictures of the photos, from the tables that are made with `raw_images`."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.ingest import CLASSES, THUMBNAILS

Counts = dict[str | None, dict[str | None, int]]
"""Photos by label, then by split."""


def class_counts(raw: Snapshot) -> Counts:
    """How many photos each class has in each split. Raises DatasetError."""
    counts: Counts = {}
    for row in raw.siblings[CLASSES].arrow(["label", "split", "images"]).to_pylist():
        counts.setdefault(row["label"], {})[row["split"]] = row["images"]
    return counts


def thumbnails(raw: Snapshot) -> list[tuple[np.ndarray, str | None]]:
    """(h, w, 3) uint8 RGB and label of a small sample of the photos. Raises DatasetError."""
    return [
        (np.asarray(Image.open(io.BytesIO(row["jpeg"])).convert("RGB")), row["label"])
        for row in raw.siblings[THUMBNAILS].arrow(["jpeg", "label"]).to_pylist()
    ]
