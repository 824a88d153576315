"""Tiny tables for the tests of the lake: a version is a number, and each of its rows says so."""

from collections.abc import Sequence

import pyarrow as pa
from deltalake import DeltaTable

from fruits_assets.lake import resource
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.storage.parquet import File, Origin, address_of, write_part
from fruits_assets.storage.snapshot import Output, Snapshot

SCHEMA = pa.schema([("text", pa.string())])


def recipe_of(name: str, number: int, *inputs: Snapshot) -> Recipe:
    """The recipe of a version."""
    return Recipe.of(f"make_{name}", "1", inputs, params={"number": number})


def write_parts(lake: Lake, name: str, number: int, *, parts: int) -> tuple[File, ...]:
    """The parts of a version, one row each."""
    folder, rows = lake.table(name).folder, pa.table({"text": [f"{name} {number}"]}, SCHEMA)
    origins = [Origin(address_of(name, number, part), part, part + 1) for part in range(parts)]
    return tuple(write_part(folder, origin, rows) for origin in origins)


def draft(
    lake: Lake,
    name: str,
    number: int,
    *inputs: Snapshot,
    siblings: Sequence[str] = (),
    parts: int = 2,
) -> Snapshot:
    """A version whose parts are written, as a run leaves it before it is published."""
    names = [name, *siblings]
    written = {one: write_parts(lake, one, number, parts=parts) for one in names}
    return lake.draft(
        recipe_of(name, number, *inputs),
        {one: Output(files, {"number": number}) for one, files in written.items()},
        dict.fromkeys(names, SCHEMA),
        run="run",
        seconds=1.0,
        follows={one: lake.table(one).latest() for one in names},
    )


def publish(
    lake: Lake, name: str, number: int, *inputs: Snapshot, siblings: Sequence[str] = ()
) -> Snapshot:
    """The same, published."""
    return lake.publish(draft(lake, name, number, *inputs, siblings=siblings))


def again(lake: Lake, snapshot: Snapshot) -> Snapshot:
    """A version as it is drafted by a run that finds it in the lake as it is now."""
    recipe = Recipe("", "", {}, {}, numbers=snapshot.commit.numbers)
    follows = {name: lake.table(name).latest() for name in (snapshot.name, *snapshot.siblings)}
    return resource.again(snapshot, recipe, follows)


def rows(snapshot: Snapshot) -> list[str]:
    """What a reader sees of a version, sorted."""
    return sorted(snapshot.arrow(["text"])["text"].to_pylist())


def seen(lake: Lake, name: str) -> list[str]:
    """What a reader sees of a table."""
    return rows(lake.current(name))


def seen_by_others(lake: Lake, name: str) -> list[str]:
    """What software sees of a table that knows Delta, and nothing of this project."""
    table = DeltaTable(lake.table(name).folder.uri, storage_options=lake.storage.delta_options())
    return sorted(table.to_pyarrow_table()["text"].to_pylist())


def of(name: str, number: int) -> list[str]:
    """What `rows` returns of a version that is whole."""
    return [f"{name} {number}"] * 2
