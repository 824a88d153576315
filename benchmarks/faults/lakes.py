"""What lakes hold, and how two of them differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fruits_assets.core.dataset import Dataset
from fruits_assets.core.errors import FruitsError
from fruits_assets.core.pca import PcaModel
from fruits_assets.lake.lake import Lake
from fruits_assets.transforms import pca

ASSETS = ("raw_images", "rejected_images", "features", "pca_model", "pca_features")
"""Whose rows are compared."""
VECTORS: Mapping[str, tuple[str, float]] = {
    "features": ("features", 1e-6),
    "pca_model": ("values", 1e-5),
    "pca_features": ("components", 1e-5),
}
"""Asset -> its column of numbers, and the relative L2 error that is no difference."""
PCA_FIGURES = ("images", "features", "components", "explained_variance")
SHOWN = 3


@dataclass(frozen=True)
class Differences:
    """Between what a lake holds and what it should hold.

    Attributes:
        lost: rows that are missing.
        bent: rows that are not what they should be, are there twice, or should not be there.
        examples: some of them, for people.
    """

    lost: int = 0
    bent: int = 0
    examples: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.lost or self.bent)

    def __add__(self, other: Differences) -> Differences:
        return Differences(
            self.lost + other.lost, self.bent + other.bent, self.examples + other.examples
        )


@dataclass(frozen=True)
class Contents:
    """All rows of a lake's current versions.

    Attributes:
        tables: asset -> its rows; an asset that cannot be read is not among them.
        unreadable: asset -> why.
    """

    tables: Mapping[str, pa.Table]
    unreadable: Mapping[str, str]

    @classmethod
    def of(cls, lake: Lake) -> Contents:
        """Reads them all, every checksum verified."""
        tables, unreadable = {}, {}
        for asset in ASSETS:
            try:
                tables[asset] = rows_of(verified(lake.current(asset)))
            except (FruitsError, OSError, pa.ArrowInvalid) as error:
                unreadable[asset] = str(error)
        return cls(tables, unreadable)


def verified(dataset: Dataset) -> Dataset:
    """The same, once every file is what was written. Raises DatasetError."""
    for file in dataset.manifest.files:
        dataset.read(file.name)
    return dataset


def rows_of(dataset: Dataset) -> pa.Table:
    """All rows of a table; of the PCA model, one for each array, component and figure."""
    if dataset.name == "pca_model":
        return _rows_of_pca(dataset)
    return dataset.arrow([*dataset.manifest.schema])


def _rows_of_pca(dataset: Dataset) -> pa.Table:
    model = PcaModel.from_npz(dataset.read(pca.MODEL))
    rows: dict[str, np.ndarray] = {}
    for name, array in vars(model).items():
        matrix = np.atleast_2d(np.asarray(array, np.float64))
        rows |= {f"{name} {number}": row for number, row in enumerate(matrix, 1)}
    figures = dataset.manifest.figures
    rows |= {name: np.array([figures.get(name, np.nan)], np.float64) for name in PCA_FIGURES}
    return pa.table({"path": [*rows], "values": [row.tolist() for row in rows.values()]})


def compared(found: Contents, expected: Contents) -> Differences:
    """How the rows of a lake differ from those that it should hold."""
    total = Differences()
    for asset, rows in expected.tables.items():
        if asset in found.tables:
            total += differences(asset, found.tables[asset], rows)
        else:
            why = found.unreadable.get(asset, "it is not there")
            total += Differences(rows.num_rows, 0, (f"{asset}: {why}",))
    return total


def differences(asset: str, found: pa.Table, expected: pa.Table) -> Differences:
    """How the rows of one asset differ; their order does not matter.

    Args:
        asset: whose column of numbers is compared with a tolerance, all else to the last bit.
        found: has a column `path`.
        expected: has one row per path.
    """
    here, there = _places(found), _places(expected)
    lost = sorted(there.keys() - here.keys())
    strange = sorted(here.keys() - there.keys())
    common = sorted(here.keys() & there.keys())
    bent = {path for path in here if len(here[path]) > 1} | set(strange)
    if set(found.column_names) != set(expected.column_names):
        bent |= set(common)
    else:
        bent |= _unequal(
            asset,
            found.take(pa.array([here[path][0] for path in common], pa.int64())),
            expected.take(pa.array([there[path][0] for path in common], pa.int64())),
        )
    examples = [f"{asset}: {path} is lost" for path in lost[:SHOWN]]
    examples += [f"{asset}: {path} is bent" for path in sorted(bent)[:SHOWN]]
    return Differences(len(lost), len(bent), tuple(examples))


def _places(table: pa.Table) -> dict[str, list[int]]:
    """Path -> the numbers of its rows."""
    places = defaultdict(list)
    for number, path in enumerate(table["path"].to_pylist()):
        places[path].append(number)
    return places


def _unequal(asset: str, found: pa.Table, expected: pa.Table) -> set[str]:
    """Paths of rows that are not equal, of two tables with the same paths."""
    vector, tolerance = VECTORS.get(asset, ("", 0.0))
    paths = expected["path"].to_pylist()
    unequal: set[str] = set()
    for name in expected.column_names:
        pairs = zip(found[name].to_pylist(), expected[name].to_pylist(), strict=True)
        if name == vector:
            same = [_close(one, other, tolerance) for one, other in pairs]
        else:
            same = [one == other for one, other in pairs]
        unequal |= {path for path, equal in zip(paths, same, strict=True) if not equal}
    return unequal


def _close(found: Sequence[Any], expected: Sequence[Any], tolerance: float) -> bool:
    if len(found) != len(expected):
        return False
    one, other = np.array(found, np.float64), np.array(expected, np.float64)
    return bool(np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other))
