"""Leases: who may write to a lake, said in the lake itself.

Runs share the lake: each holds a lease while it writes. An erasure or a repair needs it alone. A
lease is a small file that its holder renews; one that is not renewed ends by itself, so that a
killed process holds up nobody for long. Clocks of the machines that share a lake must agree to a
minute.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fruits_assets.core.errors import ConflictError, FruitsError, LeaseError
from fruits_assets.storage.base import Folder

FOLDER = "locks"
ALONE = "alone.json"
RENEW_SECONDS = 30.0
FREE_SECONDS = 120.0
"""A lease that was not renewed for so long is free."""
FORGET_SECONDS = 3600.0
"""The file of a lease that ended so long ago is removed: clocks may differ."""


@dataclass
class Lease:
    """A lease that this process holds.

    Attributes:
        folder: that holds the file.
        name: of the file.
        holder: the run that holds it.
    """

    folder: Folder
    name: str
    holder: str
    _content: bytes | None = None
    _until: float = 0.0
    _lost: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it is somebody else's, or ended: others may have come and gone since then."""
        return self._lost or time.time() > self._until

    def check(self) -> None:
        """Raises LeaseError where it was lost: this process was suspended, or cut off."""
        if self.is_lost:
            raise LeaseError(
                "this run was suspended or cut off from the lake for so long that it lost its "
                "lease, and others may have written meanwhile. Nothing more is written. Run again: "
                "what is finished is kept."
            )

    def write(self, *, expected: bytes | None) -> None:
        """Writes or renews it. Raises ConflictError where it is somebody else's."""
        until = time.time() + FREE_SECONDS
        content = json.dumps({"holder": self.holder, "until": until}).encode()
        self.folder.storage.swap(self.folder.at(self.name), content, expected=expected)
        self._content, self._until = content, until

    def keep(self, ended: threading.Event) -> None:
        """Renews it until the end."""
        while not ended.wait(RENEW_SECONDS):
            if self.is_lost:
                self._lost = True
                return
            try:
                self.write(expected=self._content)
            except ConflictError:
                self._lost = True
                return
            except (FruitsError, OSError):
                continue  # it is tried again before the lease ends

    def release(self) -> None:
        """Gives it up, unless it was lost."""
        if not self.is_lost:
            with contextlib.suppress(FruitsError, OSError):
                self.folder.remove([self.name])


@contextlib.contextmanager
def shared(lake: Folder, holder: str) -> Iterator[Lease]:
    """A lease to write beside others.

    Args:
        lake: its folder.
        holder: id of the run; it may write while it holds the lake alone, too.

    Raises:
        LeaseError: another run has the lake alone.
    """
    folder = lake.child(FOLDER)
    lease = Lease(folder, f"run-{uuid.uuid4().hex}.json", holder)
    lease.write(expected=None)
    alone = _alive(folder).get(ALONE)
    if alone and alone["holder"] != holder:
        lease.release()
        raise LeaseError(
            f"an erasure or a repair is at work in this lake ({alone['holder']}). Nothing was "
            f"written. Run again when it has ended; if it was killed, in {FREE_SECONDS:.0f} s."
        )
    yield from _kept(lease)


@contextlib.contextmanager
def alone(lake: Folder, holder: str) -> Iterator[Lease]:
    """The lease to write while nobody else does.

    Raises:
        LeaseError: others are at work.
    """
    folder = lake.child(FOLDER)
    lease = Lease(folder, ALONE, holder)
    content = _content(folder, ALONE)
    found = _parsed(content)
    if found and _is_alive(found):
        raise _others(found["holder"])
    try:
        lease.write(expected=content)
    except ConflictError:
        raise _others("another erasure or repair") from None
    others = {name: one for name, one in _alive(folder).items() if name != ALONE}
    if others:
        lease.release()
        raise _others(next(iter(others.values()))["holder"])
    yield from _kept(lease)


def _kept(lease: Lease) -> Iterator[Lease]:
    ended = threading.Event()
    thread = threading.Thread(target=lease.keep, args=(ended,), daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        lease.release()


def _others(holder: str) -> LeaseError:
    return LeaseError(
        f"another run is at work in this lake ({holder}), and could publish again what is removed. "
        "Nothing was changed. Wait for its end, then run this again; a run that was killed lets go "
        f"within {FREE_SECONDS:.0f} s."
    )


def _alive(folder: Folder) -> dict[str, Mapping[str, Any]]:
    """Leases that have not ended, by file name; those of runs that were killed are removed."""
    read = {
        name: _parsed(_content(folder, name)) for name in folder.files() if name.endswith(".json")
    }
    found = {name: fields for name, fields in read.items() if fields}
    with contextlib.suppress(FruitsError, OSError):
        folder.remove([name for name, one in found.items() if name != ALONE and _is_old(one)])
    return {name: one for name, one in found.items() if _is_alive(one)}


def _is_alive(fields: Mapping[str, Any]) -> bool:
    return fields["until"] > time.time()


def _is_old(fields: Mapping[str, Any]) -> bool:
    """Whether a lease ended so long ago that its holder cannot be at work any more."""
    return fields["until"] + FORGET_SECONDS < time.time()


def _content(folder: Folder, name: str) -> bytes | None:
    try:
        return folder.read(name)
    except FileNotFoundError:
        return None


def _parsed(content: bytes | None) -> Mapping[str, Any] | None:
    """What a lease says; None where it is gone meanwhile, or is none."""
    try:
        fields = json.loads(content or b"")
        return {"holder": str(fields["holder"]), "until": float(fields["until"])}
    except (ValueError, KeyError, TypeError):
        return None
