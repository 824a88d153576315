"""What lakes hold, and how two of them differ."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from fruits_assets.core.errors import FruitsError
from fruits_assets.core.pca import PcaModel
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.base import Folder
from fruits_assets.storage.snapshot import Snapshot
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
LOG = "_delta_log"
ENTRY = re.compile(r"\d{20}\.json")


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
        unreadable: table -> what is wrong with its latest version, whether or not it is an asset.
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
        for table in lake.folders():
            if wrong := unsound(lake.folder.child(table)):
                tables.pop(table, None)
                unreadable.setdefault(table, wrong)
        return cls(tables, unreadable)


def unsound(table: Folder) -> str:
    """What is wrong with the latest version of a table, as other software finds it.

    Its last commit must be whole, and every part that the log lists must be there, of the size that
    the log says and with the content that its name promises.

    Returns:
        A sentence; empty where nothing is wrong.
    """
    log = table.child(LOG)
    commits = sorted(name for name in log.sizes() if ENTRY.fullmatch(name))
    if not commits:
        return "it has no commit"
    try:
        actions = [json.loads(line) for line in log.read(commits[-1]).splitlines()]
        delta = DeltaTable(table.uri, storage_options=table.storage.delta_options())
        listed = pa.table(delta.get_add_actions(flatten=True)).to_pylist()
    except (DeltaError, OSError, ValueError) as error:
        return f"its last commit is torn ({error})"
    if not any("commitInfo" in action for action in actions):
        return f"{commits[-1]} is no commit"
    if delta.version() != len(commits) - 1:
        return f"{len(commits)} commits make version {delta.version()}"
    return _wrong_part(table, {part["path"]: part["size_bytes"] for part in listed})


def _wrong_part(table: Folder, listed: Mapping[str, int]) -> str:
    sizes = table.sizes()
    for name, size in listed.items():
        if sizes.get(name) != size:
            return f"{name} is missing, or of another size"
        digest = hashlib.sha256(table.read(name)).hexdigest()
        if not name.endswith(f"-{digest[:16]}.parquet"):
            return f"{name} is not what was written"
    return ""


def verified(snapshot: Snapshot) -> Snapshot:
    """The same, once every part, those of its siblings too, is what was written.

    Raises:
        DatasetError: one is not.
    """
    for one in (snapshot, *snapshot.siblings.values()):
        for file in one.files:
            one.table(file)
    return snapshot


def rows_of(snapshot: Snapshot) -> pa.Table:
    """All rows of a table; of the PCA model, one for each array, component and figure."""
    if snapshot.name == "pca_model":
        return _rows_of_pca(snapshot)
    return snapshot.arrow(snapshot.schema.names)


def _rows_of_pca(snapshot: Snapshot) -> pa.Table:
    model = PcaModel.from_npz(snapshot.read(pca.MODEL))
    rows: dict[str, np.ndarray] = {}
    for name, array in vars(model).items():
        matrix = np.atleast_2d(np.asarray(array, np.float64))
        rows |= {f"{name} {number}": row for number, row in enumerate(matrix, 1)}
    figures = snapshot.figures
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
    for table in found.unreadable.keys() - expected.tables.keys():
        total += Differences(0, 1, (f"{table}: {found.unreadable[table]}",))
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
