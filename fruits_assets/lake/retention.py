"""What is kept of a lake, and what may be removed from it.

Only two kinds of file are ever removed: parts that a log of this lake lists and no kept version
needs, and files with the name of a part that no version lists and that nobody has touched for a
day. Everything else belongs to somebody else, and stays.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from fruits_assets.core.errors import DatasetError, FruitsError
from fruits_assets.storage.base import join
from fruits_assets.storage.folder import PARTIAL
from fruits_assets.storage.parquet import PART_NAME
from fruits_assets.storage.snapshot import DRAFT, READS_IN_FLIGHT

if TYPE_CHECKING:
    from fruits_assets.lake.lake import Lake
    from fruits_assets.lake.table import Table
    from fruits_assets.storage.snapshot import Commit, Snapshot

log = logging.getLogger(__name__)

MAINTENANCE = 20
"""Commits of other software between the last publishes of a table that are looked past."""
ABANDONED_SECONDS = 24 * 3600
"""A part that no version lists, untouched for so long, is not being worked on any more."""


def in_use(lake: Lake) -> set[tuple[str, int]]:
    """Name and number of all that is current, or that a current version was made from or with."""
    return {one for one, commit in _used(lake).items() if commit}


def _used(lake: Lake) -> dict[tuple[str, int], Commit | None]:
    """The same with their commits; None for what is damaged, with `DRAFT` for a whole log."""
    found: dict[tuple[str, int], Commit | None] = {}
    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        todo = [one for one in pool.map(partial(_current, lake), lake.folders()) if one]
    while todo:
        name, number = todo.pop()
        if (name, number) in found:
            continue
        found[name, number] = commit = None
        with contextlib.suppress(DatasetError):  # what is damaged keeps nothing of others
            found[name, number] = commit = lake.table(name).commit(number)
        if commit:
            todo += [_now(lake, commit, one) for one in commit.numbers.items()]
            todo += commit.siblings.items()
    return found


def _now(lake: Lake, made: Commit, one: tuple[str, int]) -> tuple[str, int]:
    """A version that another one was made from, or a later one of the same recipe.

    What was damaged is made again, and what was made from it needs not be.
    """
    name, number = one
    newest = _current(lake, name)
    if newest and newest[1] > number:
        with contextlib.suppress(DatasetError):
            commit = lake.table(name).commit(newest[1])
            if commit and commit.recipe == made.inputs.get(name):
                return newest
    return one


def _current(lake: Lake, name: str) -> tuple[str, int] | None:
    try:
        number = lake.table(name).newest()
    except DatasetError:
        return name, DRAFT
    return None if number is None else (name, number)


def kept(lake: Lake, name: str) -> set[int]:
    """Numbers of the versions of a table that are kept."""
    return _kept(lake, name, in_use(lake))


def _kept(lake: Lake, name: str, used: Iterable[tuple[str, int]]) -> set[int]:
    """The last published ones, and all that a current one was made from or with."""
    publishes = lake.table(name).publishes(lake.keep_versions + MAINTENANCE)
    last = [number for number, _ in islice(publishes, lake.keep_versions)]
    return {*last, *(number for found, number in used if found == name)}


def clean(lake: Lake, names: Iterable[str]) -> int:
    """Removes the parts of some tables that no kept version needs; returns how many files went.

    What cannot be removed now is logged, and removed after a later publish. While a log is
    damaged, nobody knows what it needs of other tables: nothing is removed then.
    """
    try:
        used = _used(lake)
    except (FruitsError, OSError) as error:
        _keep(lake.base, error)
        return 0
    if not all(used.values()):
        return 0
    return sum(_clean(lake, name, used) for name in names)


def _keep(uri: str, error: Exception) -> None:
    log.warning(
        "Old parts in %s cannot be removed now (%s). They are removed after a later publish.",
        uri,
        error,
    )


def _clean(lake: Lake, name: str, used: Iterable[tuple[str, int]]) -> int:
    table = lake.table(name)
    try:
        keep = _kept(lake, name, used)
        needed = {found for number in keep for found in table.open(number).by_name}
        found = table.folder.files()
        unneeded = {name for name in found if name not in needed and is_ours(name)}
        abandoned = time.time() - ABANDONED_SECONDS
        young = {name for name in unneeded if found[name].modified_at > abandoned}
        return table.folder.remove(unneeded - young | _listed(table, young))
    except (FruitsError, OSError) as error:
        _keep(table.folder.uri, error)
        return 0


def _listed(table: Table, parts: set[str]) -> set[str]:
    """Those parts that the log knows: nobody is still writing them."""
    found: set[str] = set()
    commits = table.named()
    while found < parts and (names := next(commits, None)) is not None:
        found |= names & parts
    return found


def is_ours(name: str) -> bool:
    """Whether a file has the name of a part, or of one that is being written."""
    if name.startswith(".part-") and name.endswith(PARTIAL):
        return True
    return PART_NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Damage:
    """A file of the lake that is not what was written.

    Attributes:
        table: that it belongs to.
        uri: of the file.
        what: is wrong with it.
    """

    table: str
    uri: str
    what: str


def damaged(lake: Lake) -> Iterator[Damage]:
    """Reads all that is in use to the end: its logs, and its parts."""
    opened: list[Snapshot] = []
    doubted: set[tuple[str, int]] = set()
    for name, number in sorted(_used(lake)):
        if number == DRAFT:
            continue
        try:
            opened.append(lake.table(name).open(number))
        except DatasetError:
            doubted.add((name, number))
    for name in lake.folders():
        for uri in lake.table(name).damage([number for one, number in doubted if one == name]):
            yield Damage(name, uri, "the log cannot be read with it")
    for snapshot in opened:
        for file in snapshot.files:
            if what := snapshot.damage(file):
                yield Damage(snapshot.name, join(snapshot.uri, file.name), what)
