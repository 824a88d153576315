"""A disk that is full, and then is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.faults.outcomes import Outcome, Record
from benchmarks.faults.photos import files_of
from benchmarks.faults.trials import Bench, SkippedError, Trial

ROOM = 4
"""Times the size of the lake, after growing."""
PAGE_BYTES = 4096


def disk_full(bench: Bench) -> Outcome:
    """A lake on a small disk, which is made larger when the run has failed."""
    if os.geteuid():
        raise SkippedError("mounting a tmpfs needs root")
    start, chance = bench.empty, bench.random("disk")
    needed = sum(
        -(-file.stat().st_size // PAGE_BYTES) * PAGE_BYTES
        for file in files_of(Path(start.made.base))
    )
    shares = [(number + chance.random()) / bench.repeat for number in range(bench.repeat)]
    records = [_filled(bench, f"disk-{share:.2f}", share, needed=needed) for share in shares]
    how = "the lake on a tmpfs too small for it, which then grows"
    return Outcome("disk full", how, records)


def _filled(bench: Bench, name: str, share: float, *, needed: int) -> Record:
    site = bench.site(name)
    with (
        small_disk(Path(site.base), int(share * needed)) as grow,
        Trial(site, bench.empty) as trial,
    ):
        trial.faults = 1
        ended = trial.run()
        grow(ROOM * needed)
        if ended.well:
            trial.notes.append(f"{share:.0%} of the space was enough")
        else:
            trial.until_done()
        return trial.record()


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[int], None]]:
    """Mounts one of so many bytes; what is yielded makes it larger. Raises SkippedError."""
    folder.mkdir()
    _mount(f"size={max(size, PAGE_BYTES)}", folder)
    try:
        yield lambda size: _mount(f"remount,size={size}", folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(options: str, folder: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SkippedError(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
