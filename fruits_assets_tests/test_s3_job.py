"""The whole job as a person runs it, with source and lake in buckets."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fruits_assets.lake.lake import Lake
from fruits_assets_tests import s3
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.erasure.traces import traces

pytestmark = pytest.mark.slow

KEY = f"arn:aws:kms:{s3.REGION}:123456789012:key/11111111-2222-3333-4444-555555555555"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Account:
    """A person's two buckets, behind a gate that records what is asked of them.

    Attributes:
        gate: the address that the pipeline is given.
        server: what lies behind it.
        source: name of the bucket with the photos.
        bucket: name of the bucket with the lake.
        home: of Dagster.
    """

    gate: s3.Gate
    server: s3.Server
    source: str
    bucket: str
    home: Path

    @property
    def lake(self) -> str:
        return f"s3://{self.bucket}/the/lake"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **s3.CREDENTIALS,
            "AWS_ENDPOINT_URL": self.gate.endpoint,
            "DAGSTER_HOME": str(self.home),
            "FRUITS_SOURCE": f"s3://{self.source}/photos",
            "FRUITS_LAKE": self.lake,
            "FRUITS_WEIGHTS": f"s3://{self.source}/weights/sample.weights.h5",
            "FRUITS_REGION": s3.REGION,
            "FRUITS_KMS_KEY": KEY,
        }

    def objects(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every version of every object of the lake's bucket, as S3 answers a GET of it."""
        client = self.server.client
        for page in client.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            for found in page.get("Versions", ()):
                at = {"Key": found["Key"], "VersionId": found["VersionId"]}
                yield found["Key"], client.get_object(Bucket=self.bucket, **at)


def run(job: str, account: Account, *, config: Path | None = None, **changed: str) -> str:
    """Runs a job from the command line; returns what it printed."""
    done = subprocess.run(
        [
            *(str(BIN / "dagster"), "job", "execute", "-m", "fruits_assets.definitions", "-j", job),
            *(("-c", str(config)) if config else ()),
        ],
        cwd=REPOSITORY,
        env={**account.environment, **changed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    if "must reach Maven Central once" in done.stdout:
        pytest.skip("Spark's packages for S3 cannot be downloaded from here")
    assert s3.SECRET_KEY not in done.stdout
    assert (done.returncode == 0) == (not changed), done.stdout[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def account(
    tmp_path_factory: pytest.TempPathFactory, _moto: s3.Server, photos: Path
) -> Iterator[Account]:
    """Photos and weights in one bucket, and a job that has run on them into another."""
    folder = tmp_path_factory.mktemp("account")
    source = _moto.bucket(versioned=False)
    for photo in photos.rglob("*.jpg"):
        key = f"photos/{photo.relative_to(photos).as_posix()}"
        _moto.client.put_object(Bucket=source, Key=key, Body=photo.read_bytes())
    weights = REPOSITORY / "fruits_assets" / "sample" / "mobilenet_v2_035_96_sample.weights.h5"
    _moto.client.put_object(
        Bucket=source, Key="weights/sample.weights.h5", Body=weights.read_bytes()
    )
    config = {
        "ops": {
            "model_weights": {"config": {"alpha": 0.35, "image_size": 96}},
        }
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    with s3.Gate(before=_moto.endpoint) as gate:
        account = Account(gate, _moto, source, _moto.bucket(), folder)
        run("fruits_job", account, config=folder / "run.yaml")
        yield account


@pytest.fixture
def lake(account: Account) -> Iterator[Lake]:
    with s3.used(account.gate.endpoint):
        yield Lake.at(account.lake, region=s3.REGION, kms_key=KEY)


def test_buckets_give_what_folders_give(account: Account, lake: Lake, finished):
    folder = finished[0].lake
    for asset, column in (("features", "features"), ("pca_features", "components")):
        here, there = (_sorted(one, asset, column) for one in (lake, folder))
        assert here.drop_columns(column).equals(there.drop_columns(column))
        found, expected = (np.stack(table[column].to_numpy()) for table in (here, there))
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    here, there = (_sorted(one, "raw_images", "content") for one in (lake, folder))
    assert here.equals(there)


def _sorted(lake: Lake, asset: str, column: str) -> pa.Table:
    columns = ["path", "split", "label", "sha256", column]
    return lake.current(asset).arrow(columns).combine_chunks().sort_by("path")


def test_every_object_is_encrypted_with_the_key(account: Account):
    found = {
        key: (answer["ServerSideEncryption"], answer["SSEKMSKeyId"])
        for key, answer in account.objects()
    }
    assert len(found) > 30
    assert {key for key, how in found.items() if how != ("aws:kms", KEY)} == set()


SPARK = """
from fruits_assets.definitions import compose
from fruits_assets.lake.lake import Lake
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.spark.local import LocalSpark

settings = Settings()
place = {"region": settings.region, "kms_key": settings.kms_key}
session = LocalSpark(lake=LakeResource(base=settings.lake, **place), s3a=True).session()
features = Lake.at(settings.lake, **place).current("features").spark(session)
features.repartition(3).write.parquet(settings.lake.replace("s3://", "s3a://") + "/of a person")
print("rows:", session.read.parquet("s3a://" + settings.lake[5:] + "/of a person").count())
"""


def test_spark_reads_and_writes_encrypted_and_renames_nothing(account: Account):
    account.gate.requests.clear()
    printed = subprocess.run(
        [sys.executable, "-c", SPARK],
        cwd=REPOSITORY,
        env=account.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout
    assert "rows: 90" in printed
    written = [key for key, _ in account.objects() if "/of a person/part-" in key]
    assert len(written) == 3
    stored = [one for one in account.gate.requests if one.makes_object and "person" in one.key]
    assert stored
    assert {one.headers.get("x-amz-server-side-encryption") for one in stored} == {"aws:kms"}
    assert not [one for one in account.gate.requests if "x-amz-copy-source" in one.headers]
    client = account.server.client
    found = client.list_object_versions(Bucket=account.bucket, Prefix="the/lake/of a person")
    for one in (*found.get("Versions", ()), *found.get("DeleteMarkers", ())):
        client.delete_object(Bucket=account.bucket, Key=one["Key"], VersionId=one["VersionId"])


def test_nothing_is_computed_twice_and_no_prefix_is_listed_whole(account: Account):
    account.gate.requests.clear()
    config = account.home / "run.yaml"
    printed = run("fruits_job", account, config=config)
    assert printed.count("reused version") == 6, "and a check remembers what it measured"
    assert "made version" not in printed
    listed = [one.query for one in account.gate.requests if one.bucket == account.bucket]
    listed = [query for query in listed if "list-type" in query]
    assert listed
    whole = [query for query in listed if query.get("delimiter") != "/"]
    assert all("/_delta_log/" in query["prefix"] for query in whole), "a log is a flat folder"
    own = [one.key for one in account.gate.requests if one.bucket == account.bucket]
    assert own
    assert not [key for key in own if key.endswith(".parquet")], "no part is opened"
    assert len(own) < 600


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"FRUITS_REGION": "eu-central-1"}, f"lies in '{s3.REGION}', but FRUITS_REGION is"),
        ({"FRUITS_REGION": "eu-west-2"}, "'eu-west-2' is not in the European Union"),
        ({"AWS_ACCESS_KEY_ID": ""}, "no usable AWS credentials were found"),
    ],
)
def test_what_is_wrong_is_told_before_a_byte_moves(
    account: Account, changed: dict[str, str], told: str
):
    account.gate.requests.clear()
    assert told in run("fruits_job", account, config=None, **changed)
    assert [one for one in account.gate.requests if one.key] == []


@pytest.fixture
def erasable(account: Account, photos: Path) -> Iterator[str]:
    """The path of a photo, which is put back after the test."""
    path = "Training/Banana/1.jpg"
    yield path
    content = (photos / path).read_bytes()
    account.server.client.put_object(Bucket=account.source, Key=f"photos/{path}", Body=content)
    config = yaml.safe_load((account.home / "run.yaml").read_text())
    config["ops"]["pca_model"] = {"config": {"refit": "always"}}
    (account.home / "refit.yaml").write_text(yaml.safe_dump(config))
    run("fruits_job", account, config=account.home / "refit.yaml")


def test_no_byte_of_an_erased_image_is_left_in_any_version(
    account: Account, lake: Lake, erasable: str
):
    path = erasable
    (raw,) = _rows(lake, "raw_images", path)
    (vector,) = _rows(lake, "features", path)
    middle = len(raw["content"]) // 2
    blobs = [
        raw["content"][middle : middle + 64],
        np.array(vector["features"], np.float32).tobytes()[:256],
    ]
    texts = [path, raw["sha256"]]
    assert len(traces(_contents(account), texts=texts, blobs=blobs)) > 8, "the search finds nothing"
    config = account.home / "erase.yaml"
    config.write_text(yaml.safe_dump({"ops": {"erase": {"config": {"paths": [path]}}}}))

    run("gdpr_erasure", account, config=config)

    assert traces(_contents(account), texts=texts, blobs=blobs) == []
    markers = account.server.client.list_object_versions(Bucket=account.bucket)
    assert "DeleteMarkers" not in markers
    client = account.server.client
    assert client.list_objects_v2(Bucket=account.source, Prefix=f"photos/{path}")["KeyCount"] == 0
    assert lake.current("features").rows == 89
    assert "inferences" in lake.current("features").figures
    run("fruits_job", account, config=account.home / "run.yaml")
    assert lake.current("features").figures["inferences"] == 0


def _contents(account: Account) -> dict[str, bytes]:
    return {
        f"{key} ({number})": answer["Body"].read()
        for number, (key, answer) in enumerate(account.objects())
    }


def _rows(lake: Lake, asset: str, path: str) -> list[dict[str, Any]]:
    dataset = lake.current(asset)
    tables = [pq.read_table(io.BytesIO(dataset.folder.read(part.name))) for part in dataset.files]
    return [row for row in pa.concat_tables(tables).to_pylist() if row["path"] == path]
