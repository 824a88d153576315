"""Nearest neighbours of one row at a time: exact among few rows, by an inverted file among many.

An inverted file (Sivic & Zisserman 2003, "Video Google") sorts rows into cells by the nearest of
some centroids (k-means: Lloyd 1982, "Least squares quantization in PCM"). A search measures the
distances to the rows of the nearest cells only: these are exact, but a neighbour that lies in
another cell is missed. `make bench-search` measures how often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CELLS = "_cells"
"""Table of files, beside `pca_features`: the centroids, and the cell of each photo."""
CENTROIDS = "centroids.npy"
"""File in it: (c, k) float32. Each other file is named after a part, and holds its rows' cells."""
CELL = np.dtype("<u2")
"""How a file of cells holds the number of one."""
EXACT_PHOTOS = 50_000
"""Up to so many photos are all compared: some 5 ms on one core at 280 components."""
MAX_CELLS = 4096
ROWS_PER_CELL = 64
"""Of the sample that centroids are fitted on."""
MAX_SAMPLE = 131_072
"""Rows that centroids are fitted on, at most: 147 MB at 280 components."""
ROUNDS = 10
"""Of k-means."""
PROBED = 64
"""Cells of average size that a search looks at: 6 % of the rows at 10^6, 28 % at 50,000."""
BLOCK_ROWS = 512
"""Rows that distances are computed to at a time: they stay in a core's cache."""
ASSIGNED_ROWS = 4096
"""Rows that are sorted into cells at a time: their distances to all centroids take 64 MB."""


def cells_for(rows: int) -> int:
    """How many cells so many rows are sorted into: their square root, at most `MAX_CELLS`."""
    return min(MAX_CELLS, math.isqrt(rows))


def sampled(sha256: Sequence[str], share: float) -> np.ndarray:
    """(n,) bool: whether each content is in a sample of about a share (0 to 1) of all contents.

    A content is in it or not whatever else there is, so that workers can draw it part by part.
    """
    limit = share * 2**32
    return np.array([int(digest[:8], 16) < limit for digest in sha256], bool)


def fit_centroids(sample: np.ndarray, count: int) -> np.ndarray:
    """Fits centroids by k-means: the same sample in the same order gives the same ones.

    Args:
        sample: (m, k) float32 in random order; the first rows are the centroids to begin with.
        count: how many, c; fewer where the sample has fewer rows.

    Returns:
        (c, k) float32.
    """
    centroids = sample[:count].copy()
    for _ in range(ROUNDS):
        found = _means(sample, nearest_centroids(sample, centroids), len(centroids))
        is_empty = np.isinf(found[:, 0])
        centroids = np.where(is_empty[:, np.newaxis], centroids, found)
    return centroids


def nearest_centroids(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The cell of each of (n, k) float32 rows: (n,) `CELL`, which of (c, k) centroids is nearest.

    By products, not differences: of two centroids that are equally far but for rounding, either
    will do.
    """
    halves = np.einsum("ck,ck->c", centroids, centroids) / 2
    cells = np.empty(len(rows), CELL)
    for start in range(0, len(rows), ASSIGNED_ROWS):
        block = rows[start : start + ASSIGNED_ROWS]
        cells[start : start + ASSIGNED_ROWS] = np.argmax(block @ centroids.T - halves, axis=1)
    return cells


def _means(rows: np.ndarray, cells: np.ndarray, count: int) -> np.ndarray:
    """(c, k) mean of the rows of each cell; infinity, far from every row, where it has none."""
    order = np.argsort(cells, kind="stable")
    return _means_between(rows[order], _starts(cells, count))


def _starts(cells: np.ndarray, count: int) -> np.ndarray:
    """(c + 1,) where the rows of each cell begin once they are in the order of the cells."""
    return np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=count))])


def _means_between(rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
    sizes = np.diff(starts)
    means = np.full((len(sizes), rows.shape[1]), np.inf, np.float32)
    used = sizes > 0
    if used.any():
        sums = np.add.reduceat(rows, starts[:-1][used], axis=0)
        means[used] = sums / sizes[used, np.newaxis]
    return means


@dataclass(frozen=True)
class InvertedFile:
    """Rows in the order of their cells. Of a single cell, all rows: its search is exact.

    Attributes:
        rows: (n, k) float32.
        positions: (n,) int32, where each row stood before it was sorted.
        starts: (c + 1,) integers, where the rows of each cell begin.
        centroids: (c, k) float32, the means of the cells; infinite for those without rows.
    """

    rows: np.ndarray
    positions: np.ndarray
    starts: np.ndarray
    centroids: np.ndarray

    @classmethod
    def filled(cls, cells: np.ndarray, width: int, blocks: Iterable[np.ndarray]) -> InvertedFile:
        """Sorts rows while they come, so that they are in memory once.

        Args:
            cells: (n,) integers, the cell of each row.
            width: of the rows, k.
            blocks: (m, k) float32 each: all rows, in the order of `cells`.
        """
        positions = np.argsort(cells, kind="stable").astype(np.int32)
        places = _inverse(positions)
        rows = np.empty((len(cells), width), np.float32)
        filled = 0
        for block in blocks:
            rows[places[filled : filled + len(block)]] = block
            filled += len(block)
        starts = _starts(cells, 1)
        return cls(rows, positions, starts, _means_between(rows, starts))

    def places(self) -> np.ndarray:
        """(n,) int32: where each row stands now, the reverse of `positions`."""
        return _inverse(self.positions)

    def nearest(self, row: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows nearest to a (k,) row.

        Args:
            row: to compare with.
            count: how many; fewer where there are fewer rows.

        Returns:
            Positions and squared Euclidean distances, nearest first.
        """
        count = min(count, len(self.rows))
        if not count:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        slices = [slice(*self.starts[cell : cell + 2]) for cell in self._probed(row, count)]
        squares = np.concatenate([squared_distances(self.rows[one], row) for one in slices])
        positions = np.concatenate([self.positions[one] for one in slices])
        found = np.argpartition(squares, count - 1)[:count]
        found = found[np.argsort(squares[found])]
        return positions[found], squares[found]

    def _probed(self, row: np.ndarray, count: int) -> np.ndarray:
        """The nearest cells that hold enough rows together."""
        enough = max(count, PROBED * len(self.rows) // len(self.centroids))
        cells = np.argsort(squared_distances(self.centroids, row))
        held = np.cumsum(np.diff(self.starts)[cells])
        return cells[: np.searchsorted(held, enough) + 1]


def _inverse(order: np.ndarray) -> np.ndarray:
    places = np.empty_like(order)
    places[order] = np.arange(len(order), dtype=order.dtype)
    return places


def squared_distances(rows: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(n,) float32 squared Euclidean distances of (n, k) float32 rows to a (k,) row."""
    squares = np.empty(len(rows), np.float32)
    for start in range(0, len(squares), BLOCK_ROWS):
        # Differences first: from squares and products, small distances would be rounding only.
        offsets = rows[start : start + BLOCK_ROWS] - row
        np.einsum("nk,nk->n", offsets, offsets, out=squares[start : start + BLOCK_ROWS])
    return squares
