"""Which work was done twice: part files that were finished, and then not used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from benchmarks.faults.jobs import Stamp


@dataclass(frozen=True)
class Work:
    """What became of the part files that were finished before the last run.

    Attributes:
        kept: those that the lake holds in the end.
        redone: those that were made again, or that nobody uses.
    """

    kept: int = 0
    redone: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.kept + other.kept, self.redone + other.redone)


class Ledger:
    """Looks at the part files of a lake before every run."""

    def __init__(self, parts: Callable[[], Mapping[str, Stamp]]) -> None:
        self._parts = parts
        self._before = set(parts().items())
        self._finished: set[tuple[str, Stamp]] = set()

    def look(self) -> None:
        """Notes what is finished by now."""
        self._finished |= set(self._parts().items()) - self._before

    def repaired(self, used: Iterable[str]) -> Work:
        """Of a lake that was whole before: what was made again, and what was not."""
        files = set(used)
        now = {(uri, stamp) for uri, stamp in self._parts().items() if uri in files}
        return Work(len(self._before & now), len(self._finished))

    def work(self, used: Iterable[str]) -> Work:
        """What became of it, given the URIs of the files that the lake consists of in the end."""
        files = set(used)
        now = {(uri, stamp) for uri, stamp in self._parts().items() if uri in files}
        return Work(len(self._finished & now), len(self._finished - now))
