"""The history of a lake for people: what was published when, and going back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fruits_assets.core.errors import DatasetError, LakeError
from fruits_assets.lake import retention
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import again
from fruits_assets.storage.snapshot import DRAFT, Commit, Snapshot

PROJECTED = "pca_features"
SHORTEST = 4
"""Hexadecimal digits that a version is called by, at least."""
LISTED = "`fruits history pca_features` lists its versions."


@dataclass(frozen=True)
class Entry:
    """One version of a table.

    Attributes:
        number: its Delta version.
        commit: how it came to be.
        rows: how many it has; None where its parts are gone.
        is_current: whether it is the version that readers see.
    """

    number: int
    commit: Commit
    rows: int | None
    is_current: bool


def entries(lake: Lake, name: str, limit: int | None = None) -> list[Entry]:
    """All versions that a table ever had, the newest first.

    Args:
        lake: to look into.
        name: of the table.
        limit: how many, at most.

    Raises:
        DatasetError: there is no such table, or its log is damaged.
    """
    table = lake.table(name)
    found = table.history(limit)
    if not found:
        names = ", ".join(lake.folders()) or "none"
        raise DatasetError(f"the lake {lake.base} has no table {name!r}. Its tables: {names}.")
    sizes, current = table.folder.sizes(), table.newest()
    return [
        Entry(number, commit, _rows(table.open(number), sizes), number == current)
        for number, commit in found
    ]


def _rows(snapshot: Snapshot, sizes: Mapping[str, int]) -> int | None:
    whole = all(sizes.get(file.name) == file.bytes for file in snapshot.files)
    return snapshot.rows if whole and snapshot.commit.recipe else None


def rollback(lake: Lake, version: str) -> list[Snapshot]:
    """Publishes an earlier version of `pca_features` again, with all that it was made from.

    Args:
        lake: to write to.
        version: of `pca_features`: its number, or the beginning of its recipe hash.

    Returns:
        What is current now.

    Raises:
        DatasetError: it is not whole any more, or something that it was made from is not.
        ConflictError: another run publishes at the same time.
        LakeError: there is no such version, or the lake cannot be written.
    """
    number = _number(lake, version)
    if _is_removed(lake, PROJECTED, number):
        raise _removed(lake, lake.table(PROJECTED).open(number), PROJECTED)
    projected = lake.version(PROJECTED, number)
    model = _made_from(lake, projected, "pca_model")
    features = _made_from(lake, projected, "features")
    _made_from(lake, model, "features")  # what it was fitted on is kept with it
    raw, weights = (_made_from(lake, features, name) for name in ("raw_images", "model_weights"))
    # A publish removes what is too old: nothing that another one of these needs.
    careful = replace(lake, keep_versions=lake.keep_versions + 1)
    published: dict[str, Snapshot] = {}
    for snapshot in (raw, weights, features, model, projected):
        published[snapshot.name] = _publish(careful, snapshot, published)
    retention.clean(lake, {*published, *raw.siblings})
    return list(published.values())


def _publish(lake: Lake, snapshot: Snapshot, published: Mapping[str, Snapshot]) -> Snapshot:
    made = snapshot.commit
    recipe = Recipe(
        made.transform, made.code_version, made.params, made.inputs, numbers=made.numbers
    )
    follows = {name: lake.table(name).latest() for name in (snapshot.name, *snapshot.siblings)}
    # A PCA may have been fitted on an earlier version of the features than is current with it.
    given = {name: one for name, one in published.items() if made.inputs.get(name) == one.version}
    return lake.publish(again(snapshot, recipe, follows), made_from=given)


def _number(lake: Lake, version: str) -> int:
    found = lake.table(PROJECTED).history()
    matching = {number: commit.recipe for number, commit in found if str(number) == version}
    if not matching and len(version) >= SHORTEST:
        matching = {
            number: commit.recipe for number, commit in found if commit.recipe.startswith(version)
        }
    if not matching:
        raise LakeError(f"{PROJECTED} has no version {version!r}. {LISTED}")
    if len(set(matching.values())) > 1:
        names = ", ".join(sorted(set(matching.values())))
        raise LakeError(f"{version!r} stands for several versions of {PROJECTED}: {names}.")
    withdrawn = [number for number, commit in found if not commit.recipe]
    if max(matching) <= max(withdrawn, default=DRAFT):
        raise LakeError(
            f"the version {version!r} of {PROJECTED} was withdrawn by an erasure, and cannot be "
            f"taken again. {LISTED}"
        )
    return max(matching)


def _made_from(lake: Lake, snapshot: Snapshot, name: str) -> Snapshot:
    try:
        return lake.made_from(snapshot, name)
    except DatasetError:
        number = snapshot.commit.numbers.get(name)
        if number is not None and _is_removed(lake, name, number):
            raise _removed(lake, snapshot, name) from None
        raise


def _is_removed(lake: Lake, name: str, number: int) -> bool:
    """Whether a version lacks parts because it is not kept: it is not damaged then."""
    if number in retention.kept(lake, name):
        return False
    snapshot = lake.table(name).open(number)
    return len(snapshot.remains().files) < len(snapshot.files)


def _removed(lake: Lake, snapshot: Snapshot, name: str) -> DatasetError:
    what = "its parts" if snapshot.name == name else f"parts of {name}, which it was made from,"
    return DatasetError(
        f"{snapshot.name} {snapshot.version} cannot be taken again: {what} have been removed. "
        f"The lake keeps the last {lake.keep_versions} versions of a table and what the current "
        f"ones were made from, and an erasure removes all others. {LISTED}"
    )
