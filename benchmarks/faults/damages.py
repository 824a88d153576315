"""Files of a lake that somebody damaged by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.faults.jobs import Told
from benchmarks.faults.lakes import (
    ASSETS,
    ENTRY,
    LOG,
    Differences,
    differences,
    rows_of,
    verified,
)
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.trials import Bench, Trial
from fruits_assets.core.errors import FruitsError
from fruits_assets.lake.lake import Lake

FLIPS = 60
"""Single bytes that are tried."""
READABLE = 600
"""Characters; more is no sentence."""
REPAIR = ("make repair", "fruits repair")
ADVICE = re.compile(r"Materialise|repair")
BENT = "bent rows unnoticed"


def flip(file: Path, chance: Random) -> None:
    """Changes one byte."""
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= chance.randrange(1, 256)
    file.write_bytes(content)


def truncate(file: Path, chance: Random) -> None:
    """Cuts off some of the end."""
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def delete(file: Path, chance: Random) -> None:  # noqa: ARG001 - one of several kinds of harm
    """Removes it."""
    file.unlink()


def empty(file: Path, chance: Random) -> None:  # noqa: ARG001 - one of several kinds of harm
    """Leaves it without content, as a power cut may."""
    file.write_bytes(b"")


def part(lake: Lake, table: str, chance: Random) -> Path:
    """A part of the current version; URIs of a lake in a folder are paths."""
    current = lake.current(table)
    return Path(current.folder.at(chance.choice(current.files).name))


def commit(lake: Lake, table: str, chance: Random) -> Path:  # noqa: ARG001 - one of several kinds
    """The last commit."""
    return max(path for path in Path(lake.base, table, LOG).iterdir() if ENTRY.fullmatch(path.name))


def checkpoint(lake: Lake, table: str, chance: Random) -> Path:  # noqa: ARG001 - see `commit`
    """A checkpoint of the whole log, made if there is none: it takes a hundred commits."""
    log = Path(lake.base, table, LOG)
    if not [*log.glob(CHECKPOINTS)]:
        DeltaTable(str(log.parent)).create_checkpoint()
    return max(log.glob(CHECKPOINTS))


@dataclass(frozen=True)
class Damage:
    """One kind.

    Attributes:
        title: for people.
        harm: what is done to the file.
        choose: the file of a table of a lake.
        singly: whether many single bytes are tried, too.
    """

    title: str
    harm: Callable[[Path, Random], None]
    choose: Callable[[Lake, str, Random], Path]
    singly: bool = False


CHECKPOINTS = "*.checkpoint.parquet"
DAMAGES: Mapping[str, Damage] = {
    "part-flipped": Damage("a byte of a part flipped", flip, part, singly=True),
    "part-truncated": Damage("a part truncated", truncate, part),
    "part-deleted": Damage("a part deleted", delete, part),
    "commit-flipped": Damage("a byte of the last commit flipped", flip, commit, singly=True),
    "commit-truncated": Damage("the last commit truncated", truncate, commit),
    "commit-empty": Damage("the last commit emptied", empty, commit),
    "checkpoint-flipped": Damage("a byte of a checkpoint flipped", flip, checkpoint, singly=True),
    "checkpoint-truncated": Damage("a checkpoint truncated", truncate, checkpoint),
    "checkpoint-deleted": Damage("a checkpoint deleted", delete, checkpoint),
}


def damaged(bench: Bench, name: str) -> Outcome:
    """Somebody damages a file, is told so on reading, and does what the sentence says."""
    damage, chance = DAMAGES[name], bench.random(name)
    whole = replace(bench.empty, lake=Path(bench.empty.made.base), before=bench.empty.after)
    records = []
    for number in range(1, bench.repeat + 1):
        trial = Trial(bench.site(f"{name}-{number}"), whole)  # nobody reads it meanwhile
        lake = trial.site.lake()
        if damage.singly and number == 1:
            for asset in ASSETS:
                _singly(trial, asset, damage.choose(lake, asset, chance), chance)
        asset = chance.choice(ASSETS)
        file = damage.choose(lake, asset, chance)
        damage.harm(file, chance)
        trial.faults = 1
        _mend(trial, asset, file)
        records.append(trial.mended())
    return Outcome(f"{damage.title} by hand", "then what the sentence on reading says", records)


def _mend(trial: Trial, asset: str, file: Path) -> None:
    said = _read(trial.site.lake(), asset)
    if not said:
        if differences(asset, rows_of(trial.site.lake().current(asset)), _rows(trial, asset)):
            trial.notes.append("a damage went unnoticed")
        return
    trial.read_in_vain(Told(said, clear=_is_clear(said, asset, file)))
    _follow(said, trial)
    if said := _read(trial.site.lake(), asset):
        trial.notes.append(f"still damaged after what was advised: {said}")


def _rows(trial: Trial, asset: str) -> pa.Table:
    return trial.start.after.tables[asset]


def _read(lake: Lake, asset: str) -> str:
    """What somebody is told who reads all of an asset; nothing, if it can be read."""
    try:
        rows_of(verified(lake.current(asset)))
    except FruitsError as error:
        return str(error)
    return ""


def _is_clear(said: str, asset: str, file: Path) -> bool:
    """Of a log, nobody needs to know which file is damaged: the repair finds it."""
    names = asset in said and (file.name in said or file.parent.name == LOG)
    return names and bool(ADVICE.search(said)) and len(said) <= READABLE


def _follow(said: str, trial: Trial) -> None:
    """Does what a sentence says, to the letter: the one place that knows how lakes are repaired."""
    if any(command in said for command in REPAIR):
        subprocess.run(
            [sys.executable, "-m", "fruits_assets.cli", "repair"],
            cwd=trial.site.folder,
            env=trial.site.variables(),
            stdout=subprocess.DEVNULL,
            check=False,  # it says so where anything was damaged
        )
    trial.run()


def _singly(trial: Trial, asset: str, file: Path, chance: Random) -> None:
    """Flips many bytes, one at a time, and reads as the pipeline does: not by whole files."""
    lake, expected = trial.site.lake(), _rows(trial, asset)
    found: Counter[str] = Counter()
    for _ in range(FLIPS):
        with _flipped(file, chance):
            found[_noticed(lake, asset, expected)] += 1
    if found[BENT]:
        example = f"{asset}: {BENT} of a flipped byte of its {_kind(file)}"
        trial.found += Differences(0, found[BENT], (example,))
    told = ", ".join(f"{count} {how}" for how, count in found.most_common())
    trial.notes.append(f"{FLIPS} single bytes of {asset}'s {_kind(file)} flipped: {told}")


def _noticed(lake: Lake, asset: str, expected: pa.Table) -> str:
    """What a flipped byte does to somebody who streams the rows."""
    try:
        rows = rows_of(lake.current(asset))
    except FruitsError:
        return "noticed"
    except Exception as error:
        return f"noticed, as {type(error).__name__}"
    return BENT if differences(asset, rows, expected) else "without effect on rows"


@contextmanager
def _flipped(file: Path, chance: Random) -> Iterator[None]:
    content = file.read_bytes()
    flip(file, chance)
    try:
        yield
    finally:
        file.write_bytes(content)


def _kind(file: Path) -> str:
    if file.parent.name != LOG:
        return "part"
    return "commit" if ENTRY.fullmatch(file.name) else "checkpoint"
