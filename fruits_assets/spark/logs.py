"""Output of a failed job, read from the bucket that EMR brings it to."""

from __future__ import annotations

import gzip
import time
import zlib

from fruits_assets.core.errors import FruitsError
from fruits_assets.storage.base import join
from fruits_assets.storage.places import folder_at

LAST_LINES = 50
"""Lines of each file that are shown."""
LOG_SECONDS = 30.0
"""Seconds to wait for the files: EMR brings them to the bucket soon after a job ends."""


def tail(place: str, region: str, bucket_owner: str | None, pause: float) -> str:
    """The last lines that a program printed, if they can be had.

    Spark itself and the JVM speak on standard error, Spark's Python program on standard output.

    Args:
        place: URI of the folder with the program's files.
        region: of the bucket.
        bucket_owner: AWS account that owns the bucket; None where that is not known.
        pause: seconds between two looks, at most.
    """
    deadline = time.monotonic() + LOG_SECONDS
    while True:
        found = [_printed(place, name, region, bucket_owner) for name in ("stdout", "stderr")]
        if found[1]:
            return "\n".join(text for text in found if text)
        if time.monotonic() > deadline:
            return "(what it printed has not arrived there yet)"
        time.sleep(min(2.0, pause))


def _printed(place: str, name: str, region: str, bucket_owner: str | None) -> str:
    uri = join(place, f"{name}.gz")
    try:
        storage = folder_at(uri, region=region, bucket_owner=bucket_owner).storage
        text = gzip.decompress(storage.read(uri)).decode(errors="replace")
    except (FruitsError, OSError, EOFError, zlib.error):
        return ""
    return "\n".join([f"{name}:", *text.splitlines()[-LAST_LINES:]])
