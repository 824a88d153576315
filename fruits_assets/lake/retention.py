"""What is kept of a lake, and what may be removed from it.

Only two kinds of file are ever removed: parts that a log of this lake lists and no kept version
needs, and files with the name of a part that no version lists and that nobody has touched for a day.
Everything else belongs to somebody else, and stays.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from fruits_assets.core.errors import DatasetError, LakeError
from fruits_assets.storage.base import join
from fruits_assets.storage.folder import PARTIAL
from fruits_assets.storage.parquet import PART_NAME
from fruits_assets.storage.snapshot import DRAFT

if TYPE_CHECKING:
    from fruits_assets.lake.lake import Lake
    from fruits_assets.lake.table import Table

MAINTENANCE = 20
"""Commits of other software between the last publishes of a table that are looked past."""
ABANDONED_SECONDS = 24 * 3600
"""A part that no version lists, untouched for so long, is not being worked on any more."""


def kept(lake: Lake, name: str) -> set[int]:
    """Numbers of the versions of a table that are kept.

    They are the last published ones, and all that a current version was made from or with.
    """
    publishes = lake.table(name).publishes(lake.keep_versions + MAINTENANCE)
    last = [number for number, _ in islice(publishes, lake.keep_versions)]
    return {*last, *(number for found, number in in_use(lake) if found == name)}


def in_use(lake: Lake) -> set[tuple[str, int]]:
    """Name and number of all that is current, or that a current version was made from or with."""
    found: set[tuple[str, int]] = set()
    todo: list[tuple[str, int]] = []
    for name in lake.folders():
        with contextlib.suppress(DatasetError):  # what is damaged keeps nothing of others
            if (number := lake.table(name).newest()) is not None:
                todo.append((name, number))
    while todo:
        one = todo.pop()
        if one in found:
            continue
        with contextlib.suppress(DatasetError):
            commit = lake.table(one[0]).open(one[1]).commit
            found.add(one)
            todo += [*commit.numbers.items(), *commit.siblings.items()]
    return found


def clean(lake: Lake, name: str) -> int:
    """Removes the parts of a table that no kept version needs; returns how many files went.

    What cannot be removed now is removed after a later publish.
    """
    table = lake.table(name)
    there = table.folder.files()
    with contextlib.suppress(DatasetError, LakeError, OSError):
        keep = kept(lake, name)
        needed = {found for number in keep for found in table.open(number).by_name}
        superseded = _superseded(table, keep, needed, set(there))
        now = time.time()
        return table.folder.remove(
            found
            for found, one in there.items()
            if found not in needed
            and is_ours(found)
            and (found in superseded or now - one.modified_at > ABANDONED_SECONDS)
        )
    return 0


def _superseded(table: Table, keep: set[int], needed: set[str], there: set[str]) -> set[str]:
    """Parts that versions which are not kept any more list, and that are still there."""
    found: set[str] = set()
    for number, _ in table.publishes():
        if number not in keep:
            own = (table.open(number).by_name.keys() - needed) & there
            if not own - found:
                break  # older ones have been cleaned before
            found |= own
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
    """Reads all that is in use to the end: its last commits, and its parts."""
    for name in lake.folders():
        table = lake.table(name)
        entries = table.entries()
        last = max(entries, default=DRAFT)
        try:
            table.latest()
            next(table.publishes(), None)
        except DatasetError as error:
            yield Damage(name, table.entry(last), str(error))
    for name, number in sorted(in_use(lake)):
        snapshot = lake.table(name).open(number)
        for file in snapshot.files:
            if what := snapshot.damage(file):
                yield Damage(name, join(snapshot.uri, file.name), what)
