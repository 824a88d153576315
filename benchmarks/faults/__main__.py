"""`python -m benchmarks.faults`: injects faults into real runs, and compares what they leave."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.faults import (
    buckets,
    changes,
    clocks,
    damages,
    disks,
    interrupts,
    kills,
    outcomes,
    permissions,
    twins,
)
from benchmarks.faults.jobs import REPOSITORY, VICTIMS
from benchmarks.faults.outcomes import Outcome
from benchmarks.faults.photos import Photos
from benchmarks.faults.trials import Bench, SkippedError

Scenario = Callable[[Bench], Outcome]

SCENARIOS: Mapping[str, Scenario] = {
    **{victim: partial(kills.kills, victim=victim) for victim in VICTIMS},
    **{name: partial(interrupts.interrupted, name=name) for name in interrupts.KINDS},
    **{name: partial(buckets.connection, name=name) for name in buckets.HARMS},
    "disk": disks.disk_full,
    "twins": twins.twins,
    "clock": clocks.backwards,
    **{name: partial(damages.damaged, name=name) for name in damages.DAMAGES},
    "changing": changes.changing,
    "put-back": changes.put_back,
    "lake-permission": permissions.lake_read_only,
    "folder-permission": permissions.folder_unreadable,
    "source-permission": permissions.source_unreadable,
    "s3-permission": buckets.denied,
    "many": kills.many,
}


def main() -> None:
    """Runs the scenarios and prints the table; exits with 1 where anything was lost or bent.

    A shell has what it starts in the background ignore Ctrl-C, and so would every run.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = _arguments()
    work, output = Path(arguments.work).absolute(), Path(arguments.output).absolute()
    original = Path(arguments.source).absolute() if arguments.source else None
    with contextlib.ExitStack() as stack:
        bench = Bench(
            work=work,
            original=original,
            photos=Photos.of(work, original, count=arguments.sample),
            seed=arguments.seed,
            kills=arguments.kills,
            repeat=arguments.repeat,
            many=arguments.photos,
            interruptions=arguments.interruptions,
            stack=stack,
        )
        names = arguments.only or [name for name in SCENARIOS if name != "many" or bench.many]
        found = [_outcome(name, bench) for name in names]
    _tell(found, _setting(arguments), output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=[*SCENARIOS], metavar="NAME", help=", ".join(SCENARIOS))
    add("--source", help="folder of JPEG photos (drawn ones without)")
    add("--sample", type=int, default=400, help="photos in the source of most scenarios")
    add("--kills", type=int, default=20, help="of each kind of process; interrupts of each kind")
    add("--repeat", type=int, default=3, help="trials of what depends on chance")
    add("--photos", type=int, default=0, help="photos of the scenario `many`, which needs some")
    add("--interruptions", type=int, default=10, help="of that one")
    add("--seed", type=int, default=0, help="of all that is random")
    add("--work", default="artifacts/faults/work", help="folder for what is made")
    add("--output", default="artifacts/faults", help="folder for table and JSON")
    arguments = parser.parse_args()
    if "many" in (arguments.only or ()) and not arguments.photos:
        parser.error("the scenario `many` needs --photos")
    return arguments


def _outcome(name: str, bench: Bench) -> Outcome:
    started = time.monotonic()
    scenario = SCENARIOS[name]
    try:
        outcome = scenario(bench)
    except SkippedError as error:
        outcome = Outcome(name, "", skipped=str(error))
    seconds = time.monotonic() - started
    print(f"{time.strftime('%H:%M:%S')} {name}: {seconds:.0f} s", flush=True)
    return outcome


def _setting(arguments: argparse.Namespace) -> Mapping[str, object]:
    head = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    machine = {"commit": head, "cores": os.cpu_count(), "platform": platform.platform()}
    return {**vars(arguments), **machine}


def _tell(found: Sequence[Outcome], setting: Mapping[str, object], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    lines = [f"- {line}" for line in outcomes.remarks(found)]
    text = "\n".join([outcomes.table(found), "", *lines])
    print(f"\n{text}")
    (output / "faults.md").write_text(f"{text}\n")
    (output / "faults.json").write_text(outcomes.as_json(found, setting))
    if outcomes.spoilt(found):
        sys.exit(1)


if __name__ == "__main__":
    main()
