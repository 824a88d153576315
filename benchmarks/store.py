"""A store of objects on this machine, every request to which takes as long as to one far away."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import psutil

from benchmarks.delay import delaying
from fruits_assets_tests.s3 import CREDENTIALS, REGION, Server, versitygw

DELAY_SECONDS = 0.030
UPLOADS_IN_FLIGHT = 16


@dataclass(frozen=True)
class Store:
    """A running one; processes that are started meanwhile find it through their environment.

    Attributes:
        server: what answers without delay.
        region: of its buckets.
        pids: kind of process, `store` or `proxy` -> which one it is.
    """

    server: Server
    region: str
    pids: Mapping[str, int]

    def filled(self, folder: Path, *, count: int) -> str:
        """`s3://bucket/photos` with so many files of a folder, the first ones in path order."""
        bucket = self.server.bucket(versioned=False)
        client = self.server.client

        def upload(path: Path) -> None:
            key = f"photos/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

        with ThreadPoolExecutor(UPLOADS_IN_FLIGHT) as pool:
            for _ in pool.map(upload, sorted(folder.rglob("*.jpg"))[:count]):
                pass
        return f"s3://{bucket}/photos"


@contextlib.contextmanager
def delayed(work: Path) -> Iterator[Store]:
    """Starts the store and the proxy before it, and ends them.

    Args:
        work: folder for its objects, which are gone afterwards.
    """
    environment = {**CREDENTIALS, "VGW_KEEP_ALIVE": "true"}  # as S3 does, and versitygw can
    with (
        patch.dict(os.environ, environment),
        tempfile.TemporaryDirectory(dir=work) as folder,
        versitygw(Path(folder)) as server,
    ):
        port = urlsplit(server.endpoint).port
        assert port  # noqa: S101 - of every server on loopback
        with (
            delaying(port, DELAY_SECONDS) as proxy,
            patch.dict(os.environ, AWS_ENDPOINT_URL=proxy.endpoint),
        ):
            yield Store(server, REGION, {"store": _listening(port), "proxy": proxy.pid})


def _listening(port: int) -> int:
    """The child of this process that listens on a port."""
    for child in psutil.Process().children():
        listens: list[Any] = child.net_connections("tcp")
        if any(one.laddr.port == port and one.status == psutil.CONN_LISTEN for one in listens):
            return child.pid
    raise LookupError(port)
