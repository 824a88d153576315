"""A bad connection to S3: a fifth of all requests suffers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from unittest.mock import patch

from benchmarks.faults.jobs import Site, Stamp, is_part
from benchmarks.faults.outcomes import Outcome, Record
from benchmarks.faults.photos import files_of
from benchmarks.faults.trials import Bench, SkippedError, Start, Trial
from fruits_assets.lake.lake import Lake
from fruits_assets_tests import s3

SHARE = 0.2
SLOW_SECONDS = (0.1, 1.0)
UPLOADS_IN_FLIGHT = 8
PARTS_BEFORE = 3
"""Written before access is denied."""
NOT_FETCHED = "must reach Maven Central once"

Forward = Callable[[], s3.Answer]
Harm = Callable[[Random, Forward], s3.Answer | None]


def _busy(chance: Random, forward: Forward) -> s3.Answer:  # noqa: ARG001 - one of several harms
    return s3.SLOW_DOWN


def _reset(chance: Random, forward: Forward) -> None:
    """Before the request arrives, or after it was obeyed."""
    if chance.random() < 0.5:
        forward()


def _cut(chance: Random, forward: Forward) -> s3.Answer:
    answer = forward()
    return replace(answer, cut=int(chance.random() * len(answer.body)))


def _slow(chance: Random, forward: Forward) -> s3.Answer:
    time.sleep(chance.uniform(*SLOW_SECONDS))
    return forward()


HARMS: Mapping[str, tuple[str, Harm]] = {
    "s3-busy": ("S3 answers 503 Slow Down", _busy),
    "s3-reset": ("S3 resets connections", _reset),
    "s3-cut": ("S3 breaks off its answers", _cut),
    "s3-slow": ("S3 answers late, by up to 1 s", _slow),
}


class Harmful:
    """The rule of a gate that does one kind of harm to a fifth of the requests.

    Attributes:
        asked: how many requests came.
        harmed: how many suffered.
    """

    def __init__(self, harm: Harm, chance: Random) -> None:
        self.asked = self.harmed = 0
        self._harm, self._chance = harm, chance
        self._lock = threading.Lock()

    def __call__(self, _: s3.Request, forward: Forward) -> s3.Answer | None:
        """The answer to a request."""
        with self._lock:
            own = Random(self._chance.random())  # noqa: S311 - the same harm in every sitting
            harmed = own.random() < SHARE
            self.asked += 1
            self.harmed += harmed
        return self._harm(own, forward) if harmed else forward()


class Denying:
    """The rule of a gate that denies everything, once some parts have been written."""

    def __init__(self) -> None:
        self._written = 0
        self._lock = threading.Lock()

    def __call__(self, request: s3.Request, forward: Forward) -> s3.Answer | None:
        """The answer to a request."""
        with self._lock:
            self._written += request.makes_object and is_part(request.key)
            denied = self._written > PARTS_BEFORE
        return s3.refusal(403, "AccessDenied", "Access Denied") if denied else forward()


@dataclass(frozen=True)
class BucketSite(Site):
    """A source and a lake in a bucket, behind a gate.

    Attributes:
        server: that holds them.
        bucket: its name.
    """

    server: s3.Server = field(kw_only=True)
    bucket: str = field(kw_only=True)

    @property
    def base(self) -> str:  # noqa: D102 - see Site
        return f"s3://{self.bucket}/{self.folder.name}/lake"

    def lake(self) -> Lake:
        """The lake, as this process reads it: not through the gate."""
        return Lake.at(self.base, region=s3.REGION)

    def parts(self) -> Mapping[str, Stamp]:  # noqa: D102 - see Site
        pages = self.server.client.get_paginator("list_objects_v2")
        prefix = f"{self.folder.name}/lake/"
        return {
            f"s3://{self.bucket}/{found['Key']}": (found["ETag"], found["LastModified"])
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix)
            for found in page.get("Contents", ())
            if is_part(found["Key"])
        }


@dataclass(frozen=True)
class Account:
    """A bucket with the photos of today, and what an undisturbed run makes of them."""

    gate: s3.Gate
    server: s3.Server
    bucket: str
    start: Start


@contextmanager
def account(bench: Bench) -> Iterator[Account]:
    """Starts an emulator, fills a bucket and runs the job once; this process may read it."""
    ambient = [name for name in os.environ if name.startswith("AWS_")]
    with (
        s3.moto() as server,
        s3.Gate(before=server.endpoint) as gate,
        patch.dict(os.environ, {**s3.CREDENTIALS, "AWS_ENDPOINT_URL": server.endpoint}),
    ):
        for name in set(ambient) - s3.CREDENTIALS.keys() - {"AWS_ENDPOINT_URL"}:
            del os.environ[name]
        bucket = server.bucket(versioned=False)
        _fill(server, bucket, bench.photos.today)
        site = _site(bench, "reference-s3", gate, server, bucket)
        yield Account(gate, server, bucket, _undisturbed(bench, site))


def _undisturbed(bench: Bench, site: BucketSite) -> Start:
    try:
        return bench.start(site)
    except SystemExit:
        if NOT_FETCHED in (site.folder / "run.log").read_text():
            text = "Spark's packages for S3 cannot be downloaded from here"
            raise SkippedError(text) from None
        raise


def _fill(server: s3.Server, bucket: str, folder: Path) -> None:
    client = server.client

    def upload(path: Path) -> None:
        key = f"photos/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())

    with ThreadPoolExecutor(UPLOADS_IN_FLIGHT) as pool:
        list(pool.map(upload, files_of(folder)))


def _site(bench: Bench, name: str, gate: s3.Gate, server: s3.Server, bucket: str) -> BucketSite:
    environment = {
        **s3.CREDENTIALS,
        "AWS_ENDPOINT_URL": gate.endpoint,
        "FRUITS_REGION": s3.REGION,
    }
    folder = bench.site(name).folder
    return BucketSite(folder, f"s3://{bucket}/photos", environment, server=server, bucket=bucket)


def connection(bench: Bench, name: str) -> Outcome:
    """One kind of harm to a fifth of all requests; then the same command without it."""
    title, harm = HARMS[name]
    own = bench.shared(account)
    rule = Harmful(harm, bench.random(name))
    record = _disturbed(bench, name, own, rule)
    times = f"{rule.harmed:,} of {rule.asked:,} requests"
    return Outcome(title, "a gate before moto harms 20 % of all requests", [record], times=times)


def denied(bench: Bench) -> Outcome:
    """Access to the bucket is denied midway, and granted again."""
    record = _disturbed(bench, "s3-permission", bench.shared(account), Denying())
    how = f"403 to everything once {PARTS_BEFORE} parts are written, then granted again"
    return Outcome("access to the bucket lost midway", how, [record])


def _disturbed(bench: Bench, name: str, own: Account, rule: s3.Rule) -> Record:
    own.gate.open()
    with Trial(_site(bench, name, own.gate, own.server, own.bucket), own.start) as trial:
        own.gate.rule = rule
        trial.faults = 1
        ended = trial.run()
        own.gate.open()
        if not ended.well:
            trial.until_done()
        return trial.record()
