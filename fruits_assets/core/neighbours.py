"""Exact nearest neighbours: every row is compared with every other."""

from __future__ import annotations

import numpy as np

BLOCK_BYTES = 64 * 2**20
"""Of distances held at a time."""


def nearest(
    rows: np.ndarray,
    count: int,
    *,
    among: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest to each row (Euclidean distance), itself excepted.

    Candidates come from squares and products of float64, about the mean of all rows, and their
    distances from differences: small ones are more than rounding.

    Args:
        rows: (n, d) floats.
        count: how many neighbours, k.
        among: (n,) bool, the rows that may be neighbours; all without.

    Returns:
        (n, k) int64 indices of rows, nearest first, and (n, k) float64 distances; of equally
        distant rows, the first comes first. Where there are fewer than k others, -1 and infinity.
    """
    candidates = np.arange(len(rows)) if among is None else np.flatnonzero(among)
    indices = np.full((len(rows), count), -1)
    distances = np.full((len(rows), count), np.inf)
    kept = min(count, len(candidates))
    if not kept:
        return indices, distances
    centred = rows - rows.mean(axis=0, dtype=np.float64)
    known = centred[candidates]
    squares = np.einsum("md,md->m", known, known)
    own = np.full(len(rows), -1)
    own[candidates] = np.arange(len(candidates))
    block = max(1, BLOCK_BYTES // (8 * max(len(candidates), kept * rows.shape[1])))
    for start in range(0, len(rows), block):
        asked = centred[start : start + block]
        # Without the square of the row asked for, which changes no order.
        order = squares - 2 * asked @ known.T
        itself = own[start : start + block]
        order[np.flatnonzero(itself >= 0), itself[itself >= 0]] = np.inf
        found = np.argpartition(order, kept - 1, axis=1)[:, :kept]
        offsets = known[found] - asked[:, np.newaxis]
        exact = np.sqrt(np.einsum("bkd,bkd->bk", offsets, offsets))
        exact[np.isinf(np.take_along_axis(order, found, axis=1))] = np.inf
        ranks = np.lexsort((found, exact), axis=1)
        exact, found = (np.take_along_axis(one, ranks, axis=1) for one in (exact, found))
        indices[start : start + block, :kept] = np.where(np.isinf(exact), -1, candidates[found])
        distances[start : start + block, :kept] = exact
    return indices, distances
