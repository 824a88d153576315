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

from benchmarks.faults.jobs import Told
from benchmarks.faults.lakes import ASSETS, Differences, differences, rows_of, verified
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.trials import Bench, Trial
from fruits_assets.core.dataset import MANIFEST, is_part
from fruits_assets.core.errors import FruitsError
from fruits_assets.lake.lake import CURRENT, Lake

OPS = {"raw_images": "ingest", "rejected_images": "ingest"}
"""Asset -> op that makes it, where they are not called the same."""
FLIPS = 60
"""Single bytes that are tried."""
READABLE = 600
"""Characters; more is no sentence."""
REPAIR = ("make repair", "fruits_assets.lake repair")
ADVICE = re.compile(r"Materialise|Delete|repair")
BENT = "bent rows unnoticed"
GARBAGE = b"\x00\xff not a pointer"


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


def garbage(file: Path, chance: Random) -> None:  # noqa: ARG001 - one of several kinds of harm
    """Writes something else in its place."""
    file.write_bytes(GARBAGE)


@dataclass(frozen=True)
class Damage:
    """One kind.

    Attributes:
        title: for people.
        harm: what is done to the file.
        name: of the file; None for any part.
        singly: whether many single bytes are tried, too.
    """

    title: str
    harm: Callable[[Path, Random], None]
    name: str | None = None
    singly: bool = False

    @property
    def assets(self) -> tuple[str, ...]:
        """That have such a file."""
        return tuple(asset for asset in ASSETS if self.name or asset != "pca_model")


DAMAGES: Mapping[str, Damage] = {
    "part-flipped": Damage("a byte of a part flipped", flip, singly=True),
    "part-truncated": Damage("a part truncated", truncate),
    "part-deleted": Damage("a part deleted", delete),
    "manifest-flipped": Damage("a byte of manifest.json flipped", flip, MANIFEST, singly=True),
    "pointer-garbage": Damage("garbage in current.json", garbage, CURRENT),
}


def damaged(bench: Bench, name: str) -> Outcome:
    """Somebody damages a file, is told so on reading, and does what the sentence says."""
    damage, chance = DAMAGES[name], bench.random(name)
    whole = replace(bench.empty, lake=Path(bench.empty.made.base), before=bench.empty.after)
    records = []
    for number in range(1, bench.repeat + 1):
        trial = Trial(bench.site(f"{name}-{number}"), whole)  # nobody reads it meanwhile
        if damage.singly and number == 1:
            for asset in damage.assets:
                _singly(trial, asset, _file(trial.site.lake(), asset, damage, chance), chance)
        asset = chance.choice(damage.assets)
        file = _file(trial.site.lake(), asset, damage, chance)
        damage.harm(file, chance)
        trial.faults = 1
        _mend(trial, asset, file)
        records.append(trial.mended())
    return Outcome(f"{damage.title} by hand", "then what the sentence on reading says", records)


def _mend(trial: Trial, asset: str, file: Path) -> None:
    said = _read(trial.site.lake(), asset)
    if not said:
        trial.notes.append("a damage went unnoticed")
        return
    trial.read_in_vain(Told(said, clear=_is_clear(said, asset, file)))
    _follow(said, trial, asset)
    if said := _read(trial.site.lake(), asset):
        trial.notes.append(f"still damaged after what was advised: {said}")


def _file(lake: Lake, asset: str, damage: Damage, chance: Random) -> Path:
    """One file of what is current; URIs of a lake in a folder are paths."""
    dataset = lake.current(asset)
    names = {part.name for part in dataset.parts} if damage.name is None else {damage.name}
    files = sorted(Path(uri) for uri in lake.files(dataset))
    return chance.choice([file for file in files if any(map(str(file).endswith, names))])


def _read(lake: Lake, asset: str) -> str:
    """What somebody is told who reads all of an asset; nothing, if it can be read."""
    try:
        rows_of(verified(lake.current(asset)))
    except FruitsError as error:
        return str(error)
    return ""


def _is_clear(said: str, asset: str, file: Path) -> bool:
    names = asset in said and file.name in said
    return names and bool(ADVICE.search(said)) and len(said) <= READABLE


def _follow(said: str, trial: Trial, asset: str) -> None:
    """Does what a sentence says, to the letter: the one place that knows how lakes are repaired."""
    if any(command in said for command in REPAIR):
        subprocess.run(
            [sys.executable, "-m", "fruits_assets.lake", "repair"],
            cwd=trial.site.folder,
            env=trial.site.variables(),
            stdout=subprocess.DEVNULL,
            check=False,  # it says so where anything was damaged
        )
    if "Delete that one file" in said:
        Path(trial.site.base, asset, CURRENT).unlink()
    forced = {OPS.get(asset, asset): {"force": True}} if "force: true" in said else None
    trial.run(config=forced)


def _singly(trial: Trial, asset: str, file: Path, chance: Random) -> None:
    """Flips many bytes, one at a time, and reads as the pipeline does: not by whole files."""
    lake, expected = trial.site.lake(), trial.start.after.tables[asset]
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
    return "part" if is_part(file.name) else file.name
