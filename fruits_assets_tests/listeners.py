"""Which ports the processes of a program listen on."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterator
from typing import Self

import psutil

POLL_SECONDS = 0.2


def ports(pid: int) -> Iterator[tuple[str, str, int]]:
    """Name, address and port of whatever listens of a process and its descendants, UDP too."""
    processes = []
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM:
                    yield process.name(), one.laddr.ip, one.laddr.port


def beyond_loopback(address: str) -> bool:
    """Whether other machines may reach it."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)  # Java's are IPv4 addresses in IPv6
    return not (mapped or parsed).is_loopback


class Watch:
    """Looks all the time at what a program listens on, whatever phase it is in.

    Attributes:
        seen: name, address and port of all that it listened on.
    """

    def __init__(self, *pids: int) -> None:
        self.seen: set[tuple[str, str, int]] = set()
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def open(self) -> list[str]:
        """What others could reach."""
        return [f"{name} on {ip}" for name, ip, _ in sorted(self.seen) if beyond_loopback(ip)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            for pid in self._pids:
                self.seen.update(ports(pid))
