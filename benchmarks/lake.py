"""`python -m benchmarks.lake`: what the lake costs, beside bare deltalake on the same files.

Publishing and opening tables of many parts; a run that finds nothing new; erasing one photo, in
three shares: rewriting (grows with what is erased), projection and proof (grow with the table).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, create_table_with_add_actions

from benchmarks import photos
from benchmarks.increments import Job
from fruits_assets.definitions import compose
from fruits_assets.erasure.job import gdpr_erasure
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.recipe import Recipe
from fruits_assets.settings import Settings
from fruits_assets.storage.parquet import File, Origin
from fruits_assets.storage.snapshot import Output

SCHEMA = pa.schema([pa.field("path", pa.string(), nullable=False)])
CONTENT = b"no reader opens it"
REPORT = "lake.json"


def main() -> int:
    """Measures, prints and writes a report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lake", description=__doc__)
    parser.add_argument("--parts", type=int, nargs="*", default=[1_000, 100_000])
    parser.add_argument("--photos", type=int, nargs="*", default=[14_000])
    parser.add_argument("--output", type=Path, default=Path("artifacts/lake"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    for measure, counts in ((_tables, options.parts), (_runs, options.photos)):
        for count in counts:
            with tempfile.TemporaryDirectory(prefix="fruits-lake-") as work:
                found.append(measure(Path(work), count))
            print(", ".join(f"{name} {value}" for name, value in found[-1].items()), flush=True)
    (options.output / REPORT).write_text(json.dumps(found, indent=2))
    return 0


@contextmanager
def _timed(found: dict[str, Any], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    found[name] = round(time.monotonic() - began, 3)


def _tables(work: Path, count: int) -> dict[str, Any]:
    """Seconds of publishing and opening a table of so many parts, and of one part more."""
    found: dict[str, Any] = {"parts": count}
    lake, folder = Lake.at(str(work / "lake")), work / "lake" / "many"
    folder.mkdir(parents=True)
    files = [_file(folder, number) for number in range(count)]
    for name, some in (("publish_s", files), ("increment_s", [*files, _file(folder, count)])):
        recipe = Recipe("many", "1", {"parts": len(some)}, {})
        follows = {"many": lake.table("many").latest()}
        outputs = {"many": Output(tuple(some))}
        draft = lake.draft(
            recipe, outputs, {"many": SCHEMA}, run="bench", seconds=0.0, follows=follows
        )
        with _timed(found, name):
            lake.publish(draft)
    with _timed(found, "open_s"):
        snapshot = lake.current("many")
    assert len(snapshot.files) == count + 1  # noqa: S101 - a benchmark of nothing else
    found |= _bare(str(folder), files)
    return found


def _file(folder: Path, number: int) -> File:
    name = f"{Origin(f'{number:016x}', 0, 1).prefix}{number:016x}.parquet"
    (folder / name).write_bytes(CONTENT)
    return File(name, len(CONTENT), 1)


def _bare(folder: str, files: list[File]) -> dict[str, Any]:
    """The same by deltalake alone: it neither looks at the files nor syncs, nor keeps recipes."""
    found: dict[str, Any] = {}
    other = f"{folder}-bare"
    adds = [
        AddAction(file.name, file.bytes, {}, 0, True, json.dumps({"numRecords": 1}))  # noqa: FBT003
        for file in files
    ]
    with _timed(found, "bare_publish_s"):
        create_table_with_add_actions(other, Schema.from_arrow(SCHEMA), adds)
    one = AddAction("more.parquet", 1, {}, 0, True, json.dumps({"numRecords": 1}))  # noqa: FBT003
    with _timed(found, "bare_increment_s"):
        DeltaTable(other).create_write_transaction([one], "append", Schema.from_arrow(SCHEMA))
    with _timed(found, "bare_open_s"):
        DeltaTable(other).get_add_actions(flatten=True)
    return found


def _runs(work: Path, count: int) -> dict[str, Any]:
    """Seconds of a whole run, of one that finds nothing new, and of erasing one photo."""
    found: dict[str, Any] = {"photos": count}
    source = photos.distinct(photos.drawn(work / "drawn"), work / "photos", count=count)
    job = Job.started(work, source, "sample")
    for name in ("run_s", "nothing_new_s"):
        with _timed(found, name):
            job.run(name, count)
    path = min(source.rglob("*.jpg")).relative_to(source).as_posix()
    resources = compose(Settings(source=str(source), lake=job.lake, weights="sample")).resources
    given = {name: (resources or {})[name] for name in ("spark", "source")}
    config = {
        "loggers": {"console": {"config": {"log_level": "WARNING"}}},
        "ops": {"erase": {"config": {"paths": [path]}}},
    }
    with _timed(found, "erase_one_s"):
        result = gdpr_erasure.execute_in_process(resources=given, run_config=config)
    record = json.loads(Path(job.lake, "erasures", f"{result.run_id}.json").read_bytes())
    found |= {f"erase_{name}_s": value for name, value in record["seconds"].items()}
    found["files_searched"] = record["files_searched"]
    return found


if __name__ == "__main__":
    sys.exit(main())
