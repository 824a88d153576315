"""What the files of a source have been, over time."""

from __future__ import annotations

import hashlib
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from benchmarks.faults.photos import files_of
from fruits_assets.core.images import RejectedImage, examine
from fruits_assets.storage.snapshot import Snapshot

MAX_PIXELS = 100_000_000


class Journal:
    """Every complete content that a file of a source had.

    A content is noted before it can be read, so that no reader is ahead of the journal.
    """

    def __init__(self, source: Path) -> None:
        self._lock = threading.Lock()
        self._contents: dict[str, dict[str, bytes]] = defaultdict(dict)
        for file in files_of(source):
            self.note(file.relative_to(source).as_posix(), file.read_bytes())

    def note(self, path: str, content: bytes) -> None:
        """A file is going to have this content."""
        with self._lock:
            self._contents[path][hashlib.sha256(content).hexdigest()] = content

    def judge(self, snapshot: Snapshot) -> str:
        """What is wrong with a version: its rows of states that no file ever was in."""
        if snapshot.name not in {"raw_images", "features", "pca_features"}:
            return ""
        columns = ["path", "sha256", *(["content"] if snapshot.name == "raw_images" else [])]
        rows = snapshot.arrow(columns).to_pylist()
        bent = [row["path"] for row in rows if not self._was(row)]
        return f"{len(bent)} rows that were no state of their file: {bent[:3]}" if bent else ""

    def _was(self, row: Mapping[str, str | bytes]) -> bool:
        with self._lock:
            content = self._contents[str(row["path"])].get(str(row["sha256"]))
        if content is None or "content" not in row:
            return content is not None
        try:
            return examine(content, max_pixels=MAX_PIXELS).content == row["content"]
        except RejectedImage:
            return False
