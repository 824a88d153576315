"""What the fault programs conclude: how lakes differ, what was made twice, what was told."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from benchmarks.faults import damages, outcomes
from benchmarks.faults.damages import DAMAGES, checkpoint, commit, part
from benchmarks.faults.interrupts import unheeded
from benchmarks.faults.jobs import Ended, Site, Told, told
from benchmarks.faults.journal import Journal
from benchmarks.faults.lakes import Contents, Differences, compared, differences, unsound
from benchmarks.faults.ledger import Ledger, Work
from benchmarks.faults.outcomes import Outcome, Record
from benchmarks.faults.photos import Photos, commented, files_of
from benchmarks.faults.reader import Reader, one_of
from fruits_assets.lake.lake import Lake
from fruits_assets.storage.parquet import vectors_array


def features(*paths: str, scale: float = 1.0) -> pa.Table:
    """A row per path, all of the same numbers."""
    vectors = vectors_array(np.tile(np.arange(1, 9, dtype=np.float32) * scale, (len(paths), 1)))
    return pa.table({"path": [*paths], "sha256": [path * 2 for path in paths], "features": vectors})


def test_rows_in_another_order_are_the_same():
    assert not differences("features", features("b", "a"), features("a", "b"))


def test_a_missing_row_is_lost():
    found = differences("features", features("a"), features("a", "b", "c"))
    assert (found.lost, found.bent) == (2, 0)
    assert "b is lost" in found.examples[0]


@pytest.mark.parametrize("found", [features("a", "b", "b"), features("a", "b", "new")])
def test_a_row_too_many_is_bent(found: pa.Table):
    result = differences("features", found, features("a", "b"))
    assert (result.lost, result.bent) == (0, 1)


@pytest.mark.parametrize(("scale", "bent"), [(1 + 5e-7, 0), (1 + 5e-6, 2)])
def test_numbers_may_differ_by_rounding_only(scale: float, bent: int):
    result = differences("features", features("a", "b", scale=scale), features("a", "b"))
    assert result.bent == bent


def test_another_hash_or_width_is_bent():
    expected = features("a", "b")
    hashes = expected.set_column(1, "sha256", pa.array(["aa", "x"]))
    assert differences("features", hashes, expected).bent == 1
    short = expected.set_column(2, "features", vectors_array(np.ones((2, 7), np.float32)))
    assert differences("features", short, expected).bent == 2
    assert differences("features", expected.drop_columns("sha256"), expected).bent == 2


def test_content_is_compared_to_the_last_bit():
    expected = pa.table({"path": ["a", "b"], "content": [b"\x00\x01", b"\x02"]})
    found = pa.table({"path": ["a", "b"], "content": [b"\x00\x01", b"\x03"]})
    assert differences("raw_images", found, expected).bent == 1


def test_all_rows_of_an_asset_that_cannot_be_read_are_lost():
    expected = Contents({"features": features("a", "b"), "raw_images": features("a")}, {})
    found = Contents({"raw_images": features("a")}, {"features": "it is damaged"})
    assert compared(found, expected) == Differences(2, 0, ("features: it is damaged",))


def test_a_working_table_that_is_not_whole_is_bent():
    expected = Contents({"features": features("a")}, {})
    found = Contents({"features": features("a")}, {"_moments": "its last commit is torn"})
    wrong = Differences(0, 1, ("_moments: its last commit is torn",))
    assert compared(found, expected) == wrong


def test_a_lake_equals_itself_and_every_kind_of_row_is_compared(finished):
    contents = Contents.of(finished[0].lake)
    assert not contents.unreadable
    assert not compared(contents, contents)
    for asset, rows in contents.tables.items():
        fewer = Contents({**contents.tables, asset: rows.slice(1)}, {})
        if rows.num_rows:
            assert compared(fewer, contents).lost == 1, asset
    figures = contents.tables["pca_model"]["path"].to_pylist()
    assert {"mean 1", "components 1", "explained_variance"} <= set(figures)


def test_a_lake_that_is_not_there_has_lost_everything(tmp_path: Path, finished):
    contents = Contents.of(finished[0].lake)
    nothing = Contents.of(Lake.at(str(tmp_path / "nothing")))
    found = compared(nothing, contents)
    assert found.lost == sum(rows.num_rows for rows in contents.tables.values())


# ------------------------------------------------------------------------------ damages


@pytest.fixture
def lake(finished, tmp_path: Path) -> Lake:
    """A copy of the lake of a whole run, which may be damaged."""
    return Lake.at(str(shutil.copytree(finished[0].lake.base, tmp_path / "lake")))


def chance() -> Random:
    return Random(0)  # noqa: S311 - the same in every run


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _flipped(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])


@pytest.mark.parametrize(
    ("choose", "harm", "says"),
    [
        (part, Path.unlink, "is missing, or of another size"),
        (part, _cut, "is missing, or of another size"),
        (part, _flipped, "is not what was written"),
        (commit, _emptied, "its last commit is torn"),
        (commit, _cut, "its last commit is torn"),
        (checkpoint, _cut, "its last commit is torn"),
    ],
)
def test_a_table_is_whole_or_it_is_said_what_is_wrong(
    lake: Lake, choose: Callable[..., Path], harm: Callable[[Path], None], says: str
):
    for table in ("features", "pca_model", "_listing"):
        assert unsound(lake.folder.child(table)) == ""
        harm(choose(lake, table, chance()))
        assert says in unsound(lake.folder.child(table))


def test_a_version_that_a_commit_is_missing_of_is_not_whole(lake: Lake):
    file = commit(lake, "features", chance())
    file.rename(file.with_name(f"{7:020d}.json"))
    assert unsound(lake.folder.child("features"))
    file.with_name(f"{7:020d}.json").unlink()
    assert unsound(lake.folder.child("features")) == "it has no commit"


def test_what_is_not_whole_is_not_read(lake: Lake):
    for table in ("features", "_listing"):
        _cut(commit(lake, table, chance()))
    found = Contents.of(lake)
    assert found.unreadable.keys() >= {"features", "_listing"}
    assert found.tables.keys() == {"rejected_images", "pca_model", "pca_features"}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_done_to_the_file_that_it_says_and_noticed(lake: Lake, name: str):
    file = DAMAGES[name].choose(lake, "raw_images", chance())
    kinds = {"part": "raw_images", "commit": "_delta_log", "checkpoint": "_delta_log"}
    assert file.parent.name == kinds[name.partition("-")[0]]
    others = {path: path.read_bytes() for path in file.parent.iterdir() if path.is_file()}
    before = others.pop(file)
    DAMAGES[name].harm(file, chance())
    assert not file.exists() or file.read_bytes() != before
    assert all(path.read_bytes() == content for path, content in others.items())
    if name not in {"commit-flipped", "checkpoint-flipped"}:  # there, a byte may mean nothing
        assert damages._is_clear(damages._read(lake, "raw_images"), "raw_images", file)


def test_parts_are_those_of_tables_with_a_row_per_photo(lake: Lake):
    site = Site(Path(lake.base).parent, "")
    tables = [Path(uri).parent.name for uri in site.parts()]
    assert set(tables) == {"raw_images", "features", "pca_features"}
    assert len(tables) == len(set(site.parts()))
    (Path(lake.base) / "features" / "part-1.parquet").write_bytes(b"of somebody else")
    assert len(site.parts()) == len(tables)


def test_a_reader_accepts_whole_states_only(finished):
    lake = finished[0].lake
    whole = Contents.of(lake)
    raw = lake.current("raw_images")
    part = replace(whole, tables={**whole.tables, "raw_images": whole.tables["raw_images"][1:]})
    assert one_of([part, whole])(raw) == ""
    assert "0 rows lost, 1 bent" in one_of([part])(raw)


def test_a_reader_notes_what_nobody_must_see_and_waits_for_what_is_not_there_yet(finished):
    nothing = Reader(Lake.at("/nonexistent"), None)
    nothing._look("features")
    assert nothing.looks == 0
    reader = Reader(finished[0].lake, lambda dataset: f"{dataset.name} is odd")
    reader._look("features")
    reader._look("features")
    assert reader.looks == 2
    assert reader.wrong == ["a reader of features saw features is odd"]


def test_parts_that_are_kept_and_parts_that_are_made_again():
    parts = {"old": (1,)}
    ledger = Ledger(lambda: parts)
    parts |= {"a": (2,), "b": (3,), "c": (4,)}
    ledger.look()
    parts |= {"b": (5,), "d": (6,)}
    assert ledger.work(["old", "a", "b", "d"]) == Work(kept=1, redone=2)


FAILED = """
2026 - ERROR - fruits_job - 1 - ingest - STEP_FAILURE - Execution of step "ingest" failed.

{first}

Stack Trace:
  File "x.py", line 1, in y

The above exception was caused by the following exception:
py4j.protocol.Py4JNetworkError: Answer from Java side is empty

"""


def test_a_sentence_for_people_is_told_from_the_text_of_an_exception():
    sentence = "the source is empty. Put photos there."
    failure = FAILED.format(first=f"dagster._core.definitions.events.Failure: {sentence}")
    assert told(failure) == Told(sentence, clear=True)
    other = FAILED.format(first="dagster._core.errors.DagsterExecutionStepExecutionError: Error")
    text = "py4j.protocol.Py4JNetworkError: Answer from Java side is empty"
    assert told(other) == Told(text, clear=False)
    assert told("Killed") is None


def test_sentences_that_differ_by_place_are_counted_together():
    texts = [
        f"/home/{place}/lake/features/part-{part}.parquet cannot be written: no space."
        for place, part in [("a/b", f"{'0' * 16}-000000-000320-1a"), ("c", f"{'f' * 16}-000320-2b")]
    ]
    assert {outcomes.shortened(text) for text in texts} == {
        "<lake>/features/part-….parquet cannot be written: no space."
    }


def outcome(differences: Differences | None = None, **changed) -> Outcome:
    sentence = Told("the disk is full | free space", clear=True)
    runs = (Ended(-9, 3.0), Ended(1, 2.0, sentence), Ended(0, 9.0))
    record = Record(2, runs, differences or Differences(), Work(7, 1), 4.0, looks=1500)
    return Outcome("disk full", "a small disk", [replace(record, **changed)])


def test_the_table_has_a_row_per_fault():
    header, rule, row = outcomes.table([outcome(Differences(3, 1))]).splitlines()
    assert header.count("|") == rule.count("|") == row.count("|") == len(outcomes.COLUMNS) + 1
    assert row == (
        "| disk full | a small disk | 2 | 2 of 3, 1 of them killed: “the disk is full / free "
        "space” | 3 | 1 | 1 of 8 | 2.0 |"
    )


def test_what_is_skipped_says_why():
    row = outcomes.table([Outcome("disk full", "", skipped="it needs root")]).splitlines()[-1]
    assert row.startswith("| disk full |  | skipped: it needs root |")


def test_anything_lost_bent_or_seen_by_a_reader_spoils_it():
    assert not outcomes.spoilt([outcome()])
    assert outcomes.spoilt([outcome(), outcome(Differences(lost=1))])
    assert outcomes.spoilt([outcome(Differences(bent=1))])
    assert outcomes.spoilt([outcome(wrong=("half a version",))])


def test_all_of_it_is_kept_as_json():
    found = json.loads(outcomes.as_json([outcome(Differences(3, 1))], {"seed": 0}))
    (one,) = found["outcomes"]
    assert (one["lost"], one["bent"], one["records"][0]["work"]["redone"]) == (3, 1, 1)
    assert one["sentences"] == [["the disk is full / free space", True, 1]]


def test_remarks_tell_what_was_left_behind():
    lines = outcomes.remarks([outcome(orphans=("java (3.0 s of CPU time)",), notes=("a note",))])
    assert "1,500 times" in lines[0]
    assert "1 were left behind" in lines[1]
    assert lines[2:] == ["disk full: a note", "disk full: left behind: java (3.0 s of CPU time)"]


@pytest.fixture
def jpeg(tmp_path: Path) -> bytes:
    path = tmp_path / "one.jpg"
    Image.new("RGB", (32, 32), "red").save(path)
    return path.read_bytes()


def test_a_journal_knows_every_content_that_a_file_had(finished, jpeg: bytes):
    pipeline, _ = finished
    raw = pipeline.lake.current("raw_images")
    journal = Journal(pipeline.source)
    assert journal.judge(raw) == ""
    path = raw.arrow(["path"])["path"][0].as_py()
    journal._contents[path].clear()
    assert "1 rows that were no state of their file" in journal.judge(raw)
    journal.note(path, commented(jpeg, "another"))
    assert "1 rows" in journal.judge(raw)
    journal.note(path, (pipeline.source / path).read_bytes())
    assert journal.judge(raw) == ""


def test_yesterdays_source_is_part_of_todays(tmp_path: Path, photos: Path):
    made = Photos.of(tmp_path, photos, count=40)
    today, yesterday = (
        {(file.relative_to(folder), file.stat().st_mtime_ns) for file in files_of(folder)}
        for folder in (made.today, made.yesterday)
    )
    assert yesterday < today
    assert len(today) == 40 + 5 + 2


RUN_FAILURE = (
    "2026 - dagster - ERROR - fruits_job - 1 - RUN_FAILURE - Execution of run for "
    '"fruits_job" failed. Execution was interrupted unexpectedly. Treating as failure.'
)


@pytest.mark.parametrize("said", [RUN_FAILURE, "\nInterrupted: the run was ended.\n"])
def test_a_run_that_says_it_was_interrupted_is_clear(said: str):
    found = told(said)
    assert found
    assert found.clear
    assert "nterrupted" in found.text


SAYS_SO = Told("Interrupted: the run was ended.", clear=True)


@pytest.mark.parametrize(
    ("ended", "gone", "problem"),
    [
        (Ended(1, 5.0, SAYS_SO), 2.0, ""),
        (Ended(-15, 4.2), 0.2, ""),  # before anything of ours was there
        (Ended(0, 4.1), 0.1, ""),  # all was done
        (Ended(0, 9.0), 5.0, "as if nothing had happened"),
        (Ended(1, 5.0, SAYS_SO), 10.5, "gone after 10.5 s only"),
        (Ended(1, 5.0, Told("ValueError", clear=False)), 1.0, "does not say"),
        (Ended(1, 5.0), 1.0, "does not say"),
    ],
)
def test_an_interrupt_is_heeded_or_it_is_said_what_is_wrong(
    ended: Ended, gone: float, problem: str
):
    found = unheeded(ended, after=4.0, gone=gone)
    assert problem in found
    assert bool(problem) is bool(found)
    assert outcomes.spoilt([outcome(unheeded=(found,) if found else ())]) is bool(problem)
