"""Spark's packages are what was pinned, whatever the repository sends."""

import hashlib
import json
from pathlib import Path

import pyspark
import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark import jars
from fruits_assets.spark.jars import PINNED, Jar, fetched, provided
from fruits_assets.spark.local import LocalSpark
from fruits_assets_tests import s3
from fruits_assets_tests.places import Bucket
from fruits_assets_tests.test_readers import DELTA

CONTENT = b"a jar"
NAME = "org.example:thing_2.13:1.0"


@pytest.fixture
def central(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one file; returns the file."""
    pinned = tmp_path / "jars.json"
    pinned.write_text(json.dumps({"s3a": {NAME: hashlib.sha256(CONTENT).hexdigest()}}))
    monkeypatch.setattr(jars, "PINNED", pinned)
    monkeypatch.setattr(jars, "CENTRAL", (tmp_path / "central").as_uri())
    file = tmp_path / "central" / "org" / "example" / "thing_2.13" / "1.0" / "thing_2.13-1.0.jar"
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    return file


def test_what_is_pinned_is_fetched_once(central: Path, tmp_path: Path) -> None:
    (first,) = fetched("s3a", tmp_path / "kept")
    central.unlink()
    assert fetched("s3a", tmp_path / "kept") == [first]
    assert first.name == central.name
    assert first.read_bytes() == CONTENT


@pytest.mark.parametrize("sent", [b"another jar", b"", CONTENT[:-1], CONTENT + b"\0"])
def test_anything_else_is_refused_and_not_kept(central: Path, tmp_path: Path, sent: bytes) -> None:
    central.write_bytes(sent)
    with pytest.raises(SparkError, match="not what was pinned") as refused:
        fetched("s3a", tmp_path / "kept")
    assert hashlib.sha256(sent).hexdigest() in str(refused.value)
    assert not [it for it in (tmp_path / "kept").rglob("*") if it.is_file()]
    central.write_bytes(CONTENT)
    assert len(fetched("s3a", tmp_path / "kept")) == 1


def test_a_repository_out_of_reach_is_said(central: Path, tmp_path: Path) -> None:
    central.unlink()
    with pytest.raises(SparkError, match="must reach Maven Central once"):
        fetched("s3a", tmp_path / "kept")


def test_only_a_place_with_settings_needs_them(
    central: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert provided({}) == {}
    assert not (tmp_path / "home").exists()
    settings = provided({"spark.hadoop.fs.s3a.committer.name": "magic"})
    assert settings.pop("spark.hadoop.fs.s3a.committer.name") == "magic"
    assert [Path(it).name for it in settings.pop("spark.jars").split(",")] == [central.name]
    assert not settings


def test_a_session_for_a_bucket_fetches_them_only_where_spark_itself_is_to_reach_it(
    central: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lake = LakeResource(base=bucket.base, region=s3.REGION)
    assert not {name for name in LocalSpark(lake=lake)._config() if "jars" in name or "s3a" in name}
    assert not (tmp_path / "home").exists()
    settings = LocalSpark(lake=lake, s3a=True)._config()
    assert Path(settings["spark.jars"]).name == central.name
    assert settings["spark.hadoop.fs.s3a.committer.name"] == "magic"


def test_no_session_asks_spark_to_fetch() -> None:
    for file in Path(jars.__file__).parents[1].rglob("*.py"):
        assert '"spark.jars.packages"' not in file.read_text(), file


@pytest.mark.parametrize("purpose", json.loads(PINNED.read_text()))
def test_every_file_has_an_exact_version_and_a_hash(purpose: str) -> None:
    for jar in Jar.all_for(purpose):
        assert len(bytes.fromhex(jar.sha256)) == hashlib.sha256().digest_size
        assert jar.version[0].isdigit()
        assert not {"[", "(", "+", ","} & set(jar.version)
        assert jar.url.startswith("https://")


def test_they_are_those_of_the_installed_spark() -> None:
    versions = {jar.artifact: jar.version for jar in Jar.all_for("s3a")}
    hadoop = next(Path(pyspark.__file__).parent.glob("jars/hadoop-client-api-*.jar"))
    assert versions["hadoop-aws"] == hadoop.stem.rpartition("-")[2]
    assert versions["spark-hadoop-cloud_2.13"] == pyspark.__version__
    assert DELTA in json.loads(PINNED.read_text())["delta"]
