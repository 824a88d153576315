"""The folder that Spark keeps blocks and broadcasts in: encrypted, and gone with the process.

Spark's own folders, in the system's folder of temporary files, may be read by every user of the
machine, and stay there where its JVM is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

PREFIX = "fruits-spark-"
NAME = re.compile(rf"{PREFIX}[a-z0-9_]{{8}}")
LOCK = "in-use-by-fruits.lock"
"""A file in such a folder, which the process that made it holds locked for as long as it lives."""

SETTINGS: Mapping[str, str] = {"spark.io.encryption.enabled": "true"}
"""Rows that are compared are shuffled over the disk, with paths and hashes of photos. Spark removes
their files some time later, so that an erasure could not be sure that nothing is left."""


@lru_cache(maxsize=1)
def folder() -> Path:
    """The folder of this process, which the first call makes; nobody else may look into it.

    It is removed when this process ends. Those that killed processes have left are removed before.
    """
    sweep()
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    # It gets its name once it is locked: a sweep never sees one that it could lock.
    unnamed = made / f".{LOCK}"
    fcntl.flock(os.open(unnamed, os.O_CREAT | os.O_RDONLY, 0o600), fcntl.LOCK_EX)
    unnamed.rename(made / LOCK)
    atexit.register(_remove, made, os.getpid())
    return made


def environment(kept_in: Path | str) -> dict[str, str]:
    """Variables by which Spark's driver keeps its blocks in a folder; no setting precedes them."""
    return {"SPARK_LOCAL_DIRS": str(kept_in)}


def java_options(kept_in: Path | str) -> str:
    """Options by which a JVM keeps all other temporary files there, libraries for one."""
    return f'"-Djava.io.tmpdir={kept_in}"'


def sweep() -> None:
    """Removes the folders of processes that were killed.

    Only what is surely one of them: it has such a name, belongs to this user, and holds a lock of
    such a process, which no process holds any more.
    """
    for found in own(PREFIX):
        if NAME.fullmatch(found.name):
            with contextlib.suppress(OSError), _locked(found / LOCK):
                shutil.rmtree(found, ignore_errors=True)


def own(prefix: str) -> Iterator[Path]:
    """Folders of this user, among the temporary files, whose names begin with a prefix."""
    for found in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            status = found.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                yield found


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Raises OSError where there is no such file, or where another process has it locked."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(made: Path, maker: int) -> None:
    if os.getpid() == maker:  # and not of a process that was forked from it
        shutil.rmtree(made, ignore_errors=True)
