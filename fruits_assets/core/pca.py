"""Principal component analysis from moments that many machines can gather.

Each part of the data gives its `Moments`; moments add up; the principal components are the
eigenvectors of the covariance matrix that they make. That is the `covariance_eigh` method of
scikit-learn, whose results this equals (to 1e-5), with the data never in one place.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from fruits_assets.core.errors import PcaError
from fruits_assets.storage.snapshot import Commit

FILE = "pca.npz"


class FeatureSpace(NamedTuple):
    """What features of different photos must have in common to be compared at all.

    Attributes:
        code_version: of the transform that computed them.
        model_weights: version of the network.
        reduced_decoding: whether large photos were decoded at a fraction of their size.
    """

    code_version: str
    model_weights: str
    reduced_decoding: bool

    @classmethod
    def of(cls, features: Commit) -> Self:
        """That of a version of `features`."""
        weights, reduced = features.inputs["model_weights"], features.params["reduced_decoding"]
        return cls(features.code_version, weights, reduced)


@dataclass(frozen=True)
class Moments:
    """First and second moments of rows, about a common pivot.

    The pivot (any row of the data) takes the large common part out of the sums, so that nothing is
    lost to cancellation when the mean is subtracted: identical rows give exactly zero variance
    (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance").

    Attributes:
        rows: number of rows.
        total: (d,) float64, sum of (row - pivot).
        gram: (d, d) float64, sum of outer products of (row - pivot).
    """

    rows: int
    total: np.ndarray
    gram: np.ndarray

    @classmethod
    def zero(cls, features: int) -> Moments:
        """The moments of no rows."""
        return cls(0, np.zeros(features), np.zeros((features, features)))

    @classmethod
    def of(cls, rows: np.ndarray, pivot: np.ndarray) -> Moments:
        """The moments of (n, d) rows about a (d,) pivot."""
        shifted = rows.astype(np.float64) - pivot
        return cls(len(rows), shifted.sum(axis=0), shifted.T @ shifted)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.rows + other.rows, self.total + other.total, self.gram + other.gram)

    def __iadd__(self, other: Moments) -> Moments:
        """Adds up in place: a Gram matrix is 13 MB, and one per batch comes."""
        total, gram = self.total, self.gram
        total += other.total
        gram += other.gram
        return Moments(self.rows + other.rows, total, gram)

    def __sub__(self, other: Moments) -> Moments:
        """The moments of the rows that remain when others, about the same pivot, are taken away."""
        return Moments(self.rows - other.rows, self.total - other.total, self.gram - other.gram)

    def moved(self, pivot: np.ndarray, to: np.ndarray) -> Moments:
        """The same rows' moments about another (d,) pivot."""
        step = pivot - to
        cross = np.outer(self.total, step)
        gram = self.gram + cross + cross.T + self.rows * np.outer(step, step)
        return Moments(self.rows, self.total + self.rows * step, gram)

    def to_npz(self, pivot: np.ndarray) -> bytes:
        """As `moments.npz` holds them, with their pivot."""
        buffer = io.BytesIO()
        np.savez(buffer, **vars(self), pivot=pivot)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, content: bytes) -> tuple[Moments, np.ndarray]:
        """Reads `moments.npz`, never unpickling: the moments, and their (d,) pivot."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = dict(arrays)
        return cls(int(found["rows"]), found["total"], found["gram"]), found["pivot"]

    def mean(self, pivot: np.ndarray) -> np.ndarray:
        """(d,) float64."""
        return pivot + self.total / self.rows

    def covariance(self) -> np.ndarray:
        """(d, d) float64, unbiased (n - 1)."""
        scatter = self.gram - np.outer(self.total, self.total) / self.rows
        return scatter / (self.rows - 1)

    def rounding(self) -> np.ndarray:
        """(d,) float64, the variance of a feature that may be nothing but rounding.

        It is not zero where the pivot is not a row of the data, as when only one split is fitted.
        """
        spread = max(self.rows, len(self.total)) * np.finfo(np.float64).eps
        return spread * self.gram.diagonal() / (self.rows - 1)


@dataclass(frozen=True)
class PcaModel:
    """A fitted PCA, as `pca.npz` holds it: all float64.

    Attributes:
        mean: (d,), subtracted from the features.
        scale: (d,), divides them then; ones unless standardised.
        components: (k, d), rows are orthonormal; the largest loading of each is positive.
        explained_variance: (k,), of the scaled features.
        explained_variance_ratio: (k,), share of their total variance.
        spectrum: (min(n - 1, d),) explained variance ratio of all components, for scree plots.
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    explained_variance_ratio: np.ndarray
    spectrum: np.ndarray

    def transform(self, features: np.ndarray) -> np.ndarray:
        """(n, d) features -> (n, k) float32 components."""
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        return (scaled @ self.components.T).astype(np.float32)

    def to_npz(self) -> bytes:
        """As `pca.npz` holds it."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(self))
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, content: bytes) -> PcaModel:
        """Reads `pca.npz`; never unpickles."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return cls(**arrays)

    def __reduce__(self) -> tuple[Callable[[bytes], PcaModel], tuple[bytes]]:
        """Pickled as bytes: PySpark cannot encrypt the arrays of a broadcast."""
        return PcaModel.from_npz, (self.to_npz(),)


def check_n_components(n_components: float) -> None:
    """Accepts a share of variance in (0, 1) or a whole number from 1.

    Raises:
        PcaError: it is neither.
    """
    if not (0 < n_components < 1 or (n_components >= 1 and float(n_components).is_integer())):
        raise PcaError(
            f"n_components is {n_components:g}; expected a share of the variance between 0 and 1 "
            "(such as 0.95), or a whole number of components from 1."
        )


def fit(moments: Moments, pivot: np.ndarray, *, n_components: float, standardize: bool) -> PcaModel:
    """The PCA of rows whose moments are given.

    Args:
        moments: of at least two rows.
        pivot: (d,), the pivot of the moments.
        n_components: number of components, or the share of variance that they must explain
            together (then the fewest that explain more than it, as scikit-learn chooses).
        standardize: divide each feature by its standard deviation first; constant ones by 1.

    Raises:
        PcaError: fewer than two rows, no variance at all, values that are not finite, or more
            components than there are.
    """
    check_n_components(n_components)
    if moments.rows < 2:
        raise PcaError(
            f"PCA was given {moments.rows} image(s) to fit; it needs at least 2. "
            "Add photos to the source, or choose another `fit_split`."
        )
    covariance = moments.covariance()
    if not np.isfinite(covariance).all():
        raise PcaError(
            "the features to fit hold NaN or infinite values, of which there is no PCA. "
            "Check the weights that they were computed with."
        )
    constant = covariance.diagonal() <= moments.rounding()
    if constant.all():
        raise PcaError(
            f"all {moments.rows} images to fit have the same features, so there is no variance to "
            "explain. Check that the source holds different photos."
        )
    covariance[constant], covariance[:, constant] = 0, 0
    scale = np.ones(len(covariance))
    if standardize:
        scale = np.sqrt(np.where(constant, 1.0, covariance.diagonal()))
        covariance = covariance / np.outer(scale, scale)
    variance, vectors = np.linalg.eigh(covariance)
    possible = min(moments.rows - 1, len(covariance))
    variance = np.maximum(variance[::-1][:possible], 0)
    components = _signed(vectors.T[::-1][:possible])
    rank = int((variance > variance[0] * len(covariance) * np.finfo(np.float64).eps).sum())
    ratio = variance / covariance.trace()
    count = _count(n_components, ratio[:rank])
    return PcaModel(
        moments.mean(pivot), scale, components[:count], variance[:count], ratio[:count], ratio
    )


def _count(n_components: float, ratio: np.ndarray) -> int:
    """How many components: all meaningful ones where the share cannot be reached."""
    if n_components < 1:
        reached = int(np.searchsorted(np.cumsum(ratio), n_components, side="right")) + 1
        return min(reached, len(ratio))
    if n_components > len(ratio):
        raise PcaError(
            f"n_components is {n_components:g}, but these images have only {len(ratio)} "
            f"meaningful component(s). Choose at most {len(ratio)}, or a share such as 0.95."
        )
    return int(n_components)


def _signed(components: np.ndarray) -> np.ndarray:
    """Eigenvectors have no sign of their own: the largest loading (by size) becomes positive."""
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * signs[:, np.newaxis]
