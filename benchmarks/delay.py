"""A proxy that makes every request take longer: what a client sends arrives late, answers do not.

    python -m benchmarks.delay PORT SECONDS

It listens on a free port of loopback, which it prints, for what listens on `PORT`.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvloop  # half the CPU time of asyncio's own loop, from the same cores as what is measured

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Proxy:
    """A running one.

    Attributes:
        endpoint: its URL.
        pid: its process.
    """

    endpoint: str
    pid: int


@contextlib.contextmanager
def delaying(port: int, seconds: float) -> Iterator[Proxy]:
    """Starts a proxy as a process of its own, and ends it."""
    command = [sys.executable, "-m", "benchmarks.delay", str(port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout  # noqa: S101 - opened as a pipe above
        try:
            own = process.stdout.readline().strip()
            yield Proxy(f"http://{HOST}:{own}", process.pid)
        finally:
            process.terminate()


class _Server(asyncio.Protocol):
    """The side of the server: passes on what comes, at once."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._client.close()


class _Client(asyncio.Protocol):
    """The side of a client: each piece waits for itself, so that none waits for another."""

    def __init__(self, port: int, seconds: float) -> None:
        self._port, self._seconds = port, seconds
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._opening = self._loop.create_task(self._open(transport))

    async def _open(self, client: asyncio.Transport) -> asyncio.Transport:
        server, _ = await self._loop.create_connection(lambda: _Server(client), HOST, self._port)
        return server

    def data_received(self, data: bytes) -> None:
        self._later(lambda server: server.write(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._later(lambda server: server.close())

    def _later(self, do: Callable[[asyncio.Transport], None]) -> None:
        self._loop.call_later(self._seconds, self._do, do)

    def _do(self, do: Callable[[asyncio.Transport], None]) -> None:
        if self._opening.done():
            do(self._opening.result())
        else:  # a busy machine: the connection takes longer than the delay
            self._opening.add_done_callback(lambda opened: do(opened.result()))


async def _serve(port: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(port, seconds), HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
