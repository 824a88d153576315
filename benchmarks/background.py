"""What goes on beside a run that is measured or harmed."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Background(ABC):
    """Does something again and again, on a thread, as long as a `with` block lasts."""

    def __init__(self, *, every_seconds: float) -> None:
        self._every = every_seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @abstractmethod
    def look(self) -> None:
        """What is done each time."""

    def _run(self) -> None:
        while not self._done.wait(self._every):
            self.look()
