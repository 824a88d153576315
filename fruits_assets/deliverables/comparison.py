"""Whether vectors that were computed twice are the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fruits_assets.core.mobilenet import relative_error
from fruits_assets.storage.parquet import File, vectors_matrix
from fruits_assets.storage.snapshot import Snapshot

MAX_BYTES = 2**28
"""Bytes of the lake that are read to compare: a sample needs no more."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        contents: distinct photos that both have.
        largest: L2 norm of the difference over that of the vector kept, at most; 0 without any.
    """

    contents: int
    largest: float


def compare(
    computed: Snapshot, kept: Snapshot, column: str, *, max_bytes: int = MAX_BYTES
) -> Comparison:
    """Compares the vectors of the same photo contents in two tables.

    Args:
        computed: a small one, held in memory.
        kept: a large one, of which only parts with the same contents are read.
        column: `features` or `components`.
        max_bytes: of these parts, at most (the first one is always read).

    Raises:
        DatasetError: a file is missing or damaged.
    """
    own = {
        content: vector
        for part in computed.files
        for content, vector in _vectors(computed, part, column)
    }
    errors: dict[str, float] = {}
    read = 0
    for part, contents in kept.pieces(["sha256"]):
        if own.keys().isdisjoint(contents["sha256"].to_pylist()):
            continue
        if read and read + part.bytes > max_bytes:
            continue
        read += part.bytes
        for content, vector in _vectors(kept, part, column):
            if content in own:
                errors[content] = relative_error(own[content], vector)
    return Comparison(len(errors), max(errors.values(), default=0.0))


def _vectors(snapshot: Snapshot, part: File, column: str) -> Iterator[tuple[str, np.ndarray]]:
    for batch in snapshot.batches(part, ["sha256", column]):
        contents = batch.column("sha256").to_pylist()
        yield from zip(contents, vectors_matrix(batch, column), strict=True)
