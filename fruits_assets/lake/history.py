"""The history of a lake for people: what was published when, and going back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fruits_assets.core.errors import DatasetError, LakeError
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.resource import again
from fruits_assets.storage.snapshot import Commit, Snapshot

LEADS = ("raw_images", "model_weights", "features", "pca_model", "pca_features")
"""Tables that are made from each other, in this order."""


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
        DatasetError: there is no such version, or it is not whole any more.
        ConflictError: another run publishes at the same time.
        LakeError: the lake cannot be written.
    """
    projected = lake.version("pca_features", _number(lake, version))
    model = lake.made_from(projected, "pca_model")
    features = lake.made_from(projected, "features")
    lake.made_from(model, "features")  # what it was fitted on is kept with it
    raw, weights = (lake.made_from(features, name) for name in ("raw_images", "model_weights"))
    published: dict[str, Snapshot] = {}
    for snapshot in (raw, weights, features, model, projected):
        published[snapshot.name] = _publish(lake, snapshot, published)
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
    found = [
        number
        for number, commit in lake.table("pca_features").publishes()
        if version == str(number) or (len(version) >= 4 and commit.recipe.startswith(version))
    ]
    if not found:
        raise LakeError(
            f"pca_features has no version {version!r} that can be taken again. "
            "`fruits history pca_features` lists them."
        )
    return found[0]
