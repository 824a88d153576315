"""The environment says where things are, and nothing else does."""

import itertools
import os
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from fruits_assets.assets.places import Source
from fruits_assets.core.errors import SparkError
from fruits_assets.definitions import compose
from fruits_assets.settings import EmrSettings, ServerlessSettings, Settings
from fruits_assets.spark.account import (
    EmrAccount,
    EmrLimits,
    EmrPlaces,
    ServerlessAccount,
    SparkMaster,
)
from fruits_assets_tests.emr import STACK

EXAMPLE = Path(__file__).parent.parent / ".env.example"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.upper().startswith("FRUITS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_with_nothing_set_the_sample_goes_into_a_folder_beside() -> None:
    settings = Settings()
    assert (settings.source, settings.lake, settings.spark) == ("sample", "lake", "local")
    assert settings.weights_origin == "sample"


def test_a_source_of_your_own_has_imagenet_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRUITS_SOURCE", "/photos")
    assert Settings().source == "/photos"
    assert Settings().weights_origin == "imagenet"


@pytest.mark.parametrize("source", ["sample", "/photos"])
@pytest.mark.parametrize("weights", ["imagenet", "sample", "/mine.weights.h5"])
def test_weights_that_are_named_are_used(
    monkeypatch: pytest.MonkeyPatch, source: str, weights: str
) -> None:
    monkeypatch.setenv("FRUITS_SOURCE", source)
    monkeypatch.setenv("FRUITS_WEIGHTS", weights)
    assert Settings().weights_origin == weights


@pytest.mark.parametrize("name", ["SOURCE", "LAKE", "WEIGHTS", "SPARK"])
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    unset = Settings()
    monkeypatch.setenv(f"FRUITS_{name}", "")
    assert Settings() == unset
    assert Settings().weights_origin == "sample"


def test_the_file_in_the_working_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# comment\nFRUITS_SOURCE='/my photos/été #1'\n"
        "FRUITS_WEIGHTS=\nFRUITS_LAKE=/lake\nOTHER=1\n"
    )
    settings = Settings()
    assert settings.source == "/my photos/été #1"
    assert settings.lake == "/lake"
    assert settings.weights_origin == "imagenet"


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("FRUITS_SOURCE=/from-file\nFRUITS_LAKE=/from-file\n")
    monkeypatch.setenv("FRUITS_SOURCE", "/from-environment")
    assert Settings().source == "/from-environment"
    assert Settings().lake == "/from-file"


def test_the_example_lists_every_setting_and_changes_none(tmp_path: Path) -> None:
    unset = Settings()
    shutil.copy(EXAMPLE, tmp_path / ".env")
    assert Settings() == unset
    assert Settings().weights_origin == "sample"
    assert _named() >= {f"FRUITS_{field.upper()}" for field in Settings.model_fields}


def test_the_example_lists_every_setting_of_clusters_and_changes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in STACK.items():
        monkeypatch.setenv(name, value)
    unset = EmrSettings()  # type: ignore[call-arg] - from the environment
    assert unset.account.release == "emr-spark-8.0.0"
    shutil.copy(EXAMPLE, tmp_path / ".env")
    assert EmrSettings() == unset  # type: ignore[call-arg]
    assert ServerlessSettings().account == ServerlessAccount(  # type: ignore[call-arg]
        **unset.model_dump(include=set(EmrPlaces.model_fields)),
        serverless_application=STACK["FRUITS_EMR_SERVERLESS_APPLICATION"],
        serverless_role=STACK["FRUITS_EMR_SERVERLESS_ROLE"],
    )
    known = (EmrAccount, ServerlessAccount, EmrLimits)
    fields = {name: it for kind in known for name, it in kind.model_fields.items()}
    assert {name for name in _named() if name.startswith("FRUITS_EMR_")} == {
        f"FRUITS_EMR_{field.upper()}" for field in fields
    }
    assert len(STACK) == len([field for field in fields.values() if field.is_required()])


def test_the_example_lists_every_setting_of_a_master_and_changes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRUITS_SPARK_MASTER", "yarn")
    monkeypatch.setenv("FRUITS_SPARK_PIPES", "s3://bucket/pipes")
    unset = Settings(spark="spark").master()
    shutil.copy(EXAMPLE, tmp_path / ".env")
    assert Settings(spark="spark").master() == unset
    assert {name for name in _named() if name.startswith("FRUITS_SPARK_")} == {
        f"FRUITS_SPARK_{field.upper()}" for field in SparkMaster.model_fields
    }


@pytest.mark.parametrize("cores", ["0", "3", "8"])
def test_an_executor_has_1_2_or_4_cores(monkeypatch: pytest.MonkeyPatch, cores: str) -> None:
    for name, value in {**STACK, "FRUITS_EMR_EXECUTOR_CORES": cores}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SparkError, match="FRUITS_EMR_EXECUTOR_CORES"):
        Settings(spark="emr").emr()


@pytest.mark.parametrize("code", ["s3://bucket/my code", "s3://bucket/a#b", "s3://bucket/é"])
def test_code_lies_where_spark_finds_it(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    for name, value in {**STACK, "FRUITS_EMR_CODE": code}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SparkError, match="FRUITS_EMR_CODE"):
        Settings(spark="emr").emr()


def test_the_example_says_what_each_setting_is() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("#"), f"nothing is said of {line}"


def _named() -> set[str]:
    lines = EXAMPLE.read_text().splitlines()
    return {line.partition("=")[0] for line in lines if line and not line.startswith("#")}


def test_variables_of_others_and_other_prefixes_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unset = Settings()
    for name in ("SOURCE", "LAKE", "WEIGHTS", "SPARK", "FRUITS", "FRUITS_UNHEARD"):
        monkeypatch.setenv(name, "other")
    assert Settings() == unset


@pytest.mark.parametrize("spark", ["cluster", "LOCAL", "true"])
def test_an_unknown_place_for_spark_is_refused(monkeypatch: pytest.MonkeyPatch, spark: str) -> None:
    monkeypatch.setenv("FRUITS_SPARK", spark)
    with pytest.raises(ValidationError, match="'local'"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("BATCH_PHOTOS", "0", "greater than or equal to 1"),
        ("BATCH_PHOTOS", "many", "valid integer"),
        ("BATCH_MINUTES", "-1", "greater than or equal to 0"),
        ("BATCH_MINUTES", "inf", "finite"),
        ("BATCH_MINUTES", "nan", "finite|greater"),
        ("RUN_CONFIG", "nowhere.yaml", "does not point to a file"),
    ],
)
def test_a_setting_of_automation_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(f"FRUITS_{name}", value)
    with pytest.raises(ValidationError, match=told):
        Settings()


@pytest.mark.parametrize("value", ["", "true"])
def test_links_out_of_the_source_are_followed_only_if_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "outside.jpg").write_bytes(b"photo")
    monkeypatch.setenv("FRUITS_SOURCE", str(tmp_path / "photos"))
    monkeypatch.setenv("FRUITS_FOLLOW_LINKS", value)
    source = (compose(Settings()).resources or {})["source"]
    assert isinstance(source, Source)
    (row,) = source.photos().list(recursive=True).files.to_pylist()
    assert (row["problem"] is None) == (value == "true")
