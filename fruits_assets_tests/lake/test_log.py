"""The log of a table has no checksums: what is damaged there never passes for a version."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from fruits_assets.core.errors import DatasetError
from fruits_assets.lake import retention
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.lake.table import Table
from fruits_assets.storage.parquet import Origin, address_of, write_part
from fruits_assets.storage.snapshot import Output, Snapshot
from fruits_assets_tests import s3
from fruits_assets_tests.places import Bucket

SCHEMA = pa.schema([("path", pa.string())])


def publish(lake: Lake, *paths: str, name: str = "images", source: str = "") -> Snapshot:
    """A version with a part for each path."""
    folder = lake.table(name).folder
    files = tuple(
        write_part(folder, Origin(address_of(path), 0, 1), pa.table({"path": [path]}, SCHEMA))
        for path in paths
    )
    recipe = Recipe("list_paths", "1", {}, {"source": source or address_of(paths)})
    outputs = {name: Output(files, {"paths": len(paths)})}
    follows = {name: lake.table(name).latest()}
    schemas = {name: SCHEMA}
    draft = lake.draft(recipe, outputs, schemas, run="a run", seconds=1.0, follows=follows)
    return lake.publish(draft)


def paths_of(snapshot: Snapshot) -> list[str]:
    return sorted(snapshot.arrow(["path"])["path"].to_pylist())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """With three versions of one table."""
    lake = Lake.at(str(tmp_path / "lake"))
    for paths in (["a"], ["a", "b"], ["b", "c", "d"]):
        publish(lake, *paths)
    return lake


@pytest.fixture
def table(lake: Lake) -> Table:
    return lake.table("images")


def entry(table: Table, number: int) -> Path:
    return Path(table.entry(number))


def checkpoint(table: Table) -> Path:
    DeltaTable(table.folder.uri).create_checkpoint()
    (found,) = Path(table.folder.uri, "_delta_log").glob("*.checkpoint.parquet")
    return found


def repair(lake: Lake) -> set[str]:
    """Removes what is damaged, and returns the names of the files."""
    uris = [one.uri for one in retention.damaged(lake)]
    lake.storage.remove(uris)
    return {Path(uri).name for uri in uris}


# ------------------------------------------------------------------------------ numbers


def test_an_older_version_is_opened_with_its_own_metadata(table: Table):
    opened = [table.open(number) for number in range(3)]
    assert [one.figures["paths"] for one in opened] == [1, 2, 3]
    assert [paths_of(one) for one in opened] == [["a"], ["a", "b"], ["b", "c", "d"]]
    assert len({one.version for one in opened}) == 3


def test_numbers_are_right_where_others_have_published_meanwhile(table: Table):
    """Somebody publishes between a look at the log and the reading of it."""
    expected = {number: table.open(number).version for number in range(3)}
    for last in range(3):
        for limit in (1, 2, None):
            found = table._history(last, limit)
            assert {number: commit.recipe for number, commit in found}.items() <= expected.items()


# ------------------------------------------------------------------------------ damage


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _another_figure(file: Path) -> None:
    text = file.read_text()
    assert text.count(r"\"paths\": 3") == 1
    file.write_text(text.replace(r"\"paths\": 3", r"\"paths\": 4"))


def _without_removal(file: Path) -> None:
    text = file.read_text()
    assert '"remove"' in text
    file.write_text(text.replace('"remove"', '"remoue"'))


def _without_metadata(file: Path) -> None:
    text = file.read_text()
    assert text.count("fruits.recipe") == 1
    file.write_text(text.replace("fruits.recipe", "fruits.recipf"))


HARMS = (_emptied, _cut, _another_figure, _without_removal, _without_metadata)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_commit_is_noticed_and_repaired(
    lake: Lake, table: Table, harm: Callable[[Path], None]
):
    harm(entry(table, 2))
    with pytest.raises(DatasetError, match=r"images .* is damaged: .*make repair"):
        lake.current("images")
    assert repair(lake) == {entry(table, 2).name}
    assert paths_of(lake.current("images")) == ["a", "b"]
    assert repair(lake) == set()
    assert publish(lake, "b", "c", "d").number == 2


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_commit_that_another_table_needs_is_repaired(
    lake: Lake, table: Table, harm: Callable[[Path], None]
):
    recipe = Recipe.of("use", "1", [lake.current("images")])
    outputs, schemas = {"used": Output(())}, {"used": SCHEMA}
    follows = {"used": lake.table("used").latest()}
    lake.publish(lake.draft(recipe, outputs, schemas, run="", seconds=0.0, follows=follows))
    publish(lake, "e")
    harm(entry(table, 2))
    assert repair(lake) == {entry(table, 2).name, entry(table, 3).name}
    assert paths_of(lake.current("images")) == ["a", "b"]
    assert lake.current("used").commit.numbers == {"images": 2}


def test_no_byte_of_a_commit_can_be_changed_unnoticed(lake: Lake, table: Table):
    file = entry(table, 2)
    content, whole = file.read_bytes(), lake.current("images")
    chance = random.Random(0)  # noqa: S311 - the same in every run
    noticed = 0
    for _ in range(100):
        changed = bytearray(content)
        changed[chance.randrange(len(content))] ^= chance.randrange(1, 256)
        file.write_bytes(changed)
        try:
            found = lake.current("images")
        except DatasetError:
            noticed += 1
        else:
            assert (found, found.schema, paths_of(found)) == (whole, SCHEMA, ["b", "c", "d"])
    assert noticed > 50


def test_a_commit_that_is_gone_takes_those_after_it_with_it(lake: Lake, table: Table):
    publish(lake, "b", "c", "d", source="another")  # it adds no part, and removes none
    publish(lake, "e")
    entry(table, 3).unlink()
    with pytest.raises(DatasetError, match="make repair"):
        lake.current("images")
    assert repair(lake) == {entry(table, 4).name}
    assert paths_of(lake.current("images")) == ["b", "c", "d"]


def test_a_table_whose_first_commit_is_damaged_begins_again(lake: Lake, table: Table):
    _emptied(entry(table, 0))
    assert repair(lake) == {entry(table, number).name for number in range(3)}
    with pytest.raises(DatasetError, match="no images yet"):
        lake.current("images")
    assert publish(lake, "a").number == 0


@pytest.mark.parametrize("harm", [_emptied, _cut, Path.unlink])
def test_a_damaged_checkpoint_costs_no_version(
    lake: Lake, table: Table, harm: Callable[[Path], None]
):
    file = checkpoint(table)
    harm(file)
    with pytest.raises(DatasetError, match=r"images .* is damaged: .*make repair"):
        lake.current("images")
    assert repair(lake) - {file.name} == {"_last_checkpoint"}
    assert paths_of(lake.current("images")) == ["b", "c", "d"]
    assert repair(lake) == set()


def test_a_checkpoint_that_says_something_else_is_noticed(lake: Lake, table: Table):
    publish(lake, "d", "e")
    file = checkpoint(table)
    publish(lake, "e", "f")
    rows = pq.read_table(file)
    first = next(add["path"] for add in rows["add"].to_pylist() if add)
    kept = [add is None or add["path"] != first for add in rows["add"].to_pylist()]
    pq.write_table(rows.filter(pa.array(kept)), file)
    with pytest.raises(DatasetError, match="is not what was written"):
        lake.current("images")
    assert repair(lake) - {file.name} == {"_last_checkpoint"}
    assert paths_of(lake.current("images")) == ["e", "f"]


# ------------------------------------------------------------------------------ connections


def test_a_listing_that_breaks_off_is_asked_for_again(gated: Bucket, gate: s3.Gate):
    lake = Lake.at(gated.base, region=s3.REGION)
    publish(lake, "a")
    cut: list[s3.Request] = []

    def break_off(request: s3.Request, forward: Callable[[], s3.Answer]) -> s3.Answer:
        answer = forward()
        ours = request.headers["user-agent"].startswith("Boto3")
        if "list-type" not in request.query or ours or len(cut) == 3:
            return answer
        cut.append(request)
        return replace(answer, cut=10)

    gate.rule = break_off
    assert paths_of(lake.current("images")) == ["a"]
    assert len(cut) == 3


# ------------------------------------------------------------------------------ siblings


def together(source: str) -> Recipe:
    return Recipe("together", "1", {}, {"source": source})


def publish_together(lake: Lake, recipe: Recipe, *names: str) -> Snapshot:
    """Empty versions of several tables; the first leads."""
    outputs = {name: Output(()) for name in names}
    schemas = dict.fromkeys(names, SCHEMA)
    follows = {name: lake.table(name).latest() for name in names}
    draft = lake.draft(recipe, outputs, schemas, run="", seconds=0.0, follows=follows)
    return lake.publish(draft)


def test_a_table_that_was_made_with_a_damaged_one_is_made_again(lake: Lake):
    names = ("lead", "sibling")
    for source in "321":
        publish_together(lake, together(source), *names)
    _emptied(entry(lake.table("sibling"), 1))
    assert len(repair(lake)) == 2
    assert lake.answers(together("1"), "lead") is None
    found = lake.earlier(together("4"), "lead", grown=["source"])
    assert found
    assert found.number == 0, "the newest that is whole"
    made = publish_together(lake, together("1"), *names)
    assert made.siblings["sibling"].version == made.version == together("1").version
    assert lake.answers(together("1"), "lead") == made


def test_a_number_that_was_given_again_is_not_taken_for_a_sibling(lake: Lake):
    publish_together(lake, together("1"), "lead", "images")
    _emptied(entry(lake.table("images"), 3))
    repair(lake)
    assert publish(lake, "z").number == 3
    with pytest.raises(DatasetError, match="was not made together with"):
        lake.current("lead").siblings["images"]
    assert lake.answers(together("1"), "lead") is None


def test_what_is_whole_is_left_alone(lake: Lake, table: Table):
    checkpoint(table)
    before = {path: path.read_bytes() for path in Path(lake.base).rglob("*") if path.is_file()}
    assert repair(lake) == set()
    after = {path: path.read_bytes() for path in Path(lake.base).rglob("*") if path.is_file()}
    assert before == after
