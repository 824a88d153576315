"""Whoever may launch a run chooses how it computes, and not what it executes or where it writes."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from fruits_assets.core.errors import SparkError
from fruits_assets.definitions import compose
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import Settings
from fruits_assets.spark.local import LocalSpark
from fruits_assets.spark.tuning import TUNABLE
from fruits_assets_tests.emr import STACK

EXECUTION = {
    "in_process.marker_to_close",
    "in_process.retries",
    "in_process.step_dependency_config.require_upstream_step_success",
    "multiprocess.max_concurrent",
    "multiprocess.retries",
    "multiprocess.step_dependency_config.require_upstream_step_success",
    "multiprocess.tag_concurrency_limits.key",
    "multiprocess.tag_concurrency_limits.limit",
    "multiprocess.tag_concurrency_limits.value",
    "multiprocess.tag_concurrency_limits.value.applyLimitPerUniqueValue",
}
OPS = {
    "deliverables": {"attribution", "force", "language"},
    "erase": {"keep_source", "labels", "paths", "sha256"},
    "features": {"force", "max_seconds", "reduced_decoding"},
    "gallery": {"force", "max_photos", "max_seconds"},
    "ingest": {
        *("force", "labels", "max_megabytes", "max_megapixels", "max_rejected", "max_seconds"),
        "recursive",
    },
    "model_weights": {"alpha", "force", "image_size"},
    "notebook": {"cell_minutes", "force", "max_photos"},
    "pca_features": {"force"},
    "pca_features_recognition": {"max_loss", "min_accuracy"},
    "pca_model": {"fit_split", "force", "n_components", "refit", "standardize"},
    # A file that is read as JSON, and of which four figures are shown.
    "presentation": {"benchmark", "force", "language"},
    "sweep": {"dry_run", "older_than_hours"},
}
HARMLESS = {
    # A name that no op or resource of the job has: Dagster passes it over.
    *("ops.*", "resources.*"),
    *(f"execution.config.{name}" for name in EXECUTION),
    *(f"execution.config.{name.partition('.')[2]}" for name in EXECUTION if "in_pro" in name),
    *(f"loggers.console.config.{name}" for name in ("log_level", "name")),
    *(f"ops.{op}.config.{field}" for op, fields in OPS.items() for field in fields),
    *(f"resources.authorship.config.{name}" for name in ("first_name", "last_name", "month")),
    *("resources.authorship.config.place", "resources.spark.config.driver_memory"),
    *(f"resources.spark.config.spark_config.{name}" for name in TUNABLE),
}
"""All that the config of any run can set: each was seen to execute, write and fetch nothing."""
CODE = [
    *("spark.driver.extraJavaOptions", "spark.driver.defaultJavaOptions", "spark.driver.memory"),
    *(
        "spark.executor.extraJavaOptions",
        "spark.driver.extraClassPath",
        "spark.jars",
        "spark.files",
    ),
    *("spark.driver.extraLibraryPath", "spark.jars.packages", "spark.jars.repositories"),
    *("spark.jars.ivySettings", "spark.submit.pyFiles", "spark.archives", "spark.plugins"),
    *("spark.pyspark.python", "spark.pyspark.driver.python", "spark.executorEnv.PYTHONPATH"),
    *("spark.python.daemon.module", "spark.python.worker.module", "spark.extraListeners"),
    *("spark.sql.extensions", "spark.sql.warehouse.dir", "spark.sql.catalog.a", "spark.master"),
    *("spark.serializer", "spark.io.compression.codec", "spark.local.dir", "spark.eventLog.dir"),
    *("spark.ui.enabled", "spark.ui.filters", "spark.driver.host", "spark.driver.bindAddress"),
    *("spark.authenticate", "spark.network.crypto.enabled", "spark.hadoop.fs.s3a.endpoint"),
    *("spark.hadoop.hadoop.security.credential.provider.path", "spark.home", "spark.remote"),
    *("SPARK.DRIVER.EXTRAJAVAOPTIONS", "spark.sql.shuffle.partitions ", "driver.extraJavaOptions"),
]
ELSEWHERE: list[Mapping[str, Any]] = [
    {"lake": {"base": "/elsewhere"}},
    {"lake": {"base": "s3://elsewhere/lake", "region": "eu-west-3"}},
    {"lake": {"kms_key": "elsewhere"}},
    {"io_manager": {"lake": {"base": "/elsewhere"}}},
    {"source": {"place": "/elsewhere"}},
    {"source": {"lake": ""}},
    {"weights": {"place": "/elsewhere.h5"}},
    {"spark": {"master": "spark://elsewhere:7077"}},
    {"spark": {"lake": {"base": "/elsewhere"}}},
    {"spark": {"account": {"code": "s3://elsewhere/code"}}},
    {"spark": {"account": {"service_role": "arn:aws:iam::123456789012:role/other"}}},
    {"spark": {"limits": {"max_cost_eur": 1e9}}},
    {"spark": {"limits": {"prices": "/elsewhere.json"}}},
    {"spark": {"region": "eu-north-1"}},
]


@pytest.fixture(name="jobs", scope="module", params=["local", "emr"])
def jobs_fixture(request: pytest.FixtureRequest) -> Iterator[Mapping[str, dg.JobDefinition]]:
    """All jobs, by name."""
    places: dict[str, Any] = {
        "source": "s3://bucket/photos",
        "lake": "s3://bucket/lake",
        "region": "eu-west-3",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in STACK.items():
            patch.setenv(name, value)
        definitions = compose(Settings(spark=request.param, **places))
        yield {job.name: job for job in definitions.get_repository_def().get_all_jobs()}


def _fields(kind: Any, path: str = "") -> Iterator[str]:
    """Everything that can be set by a config of a type, as dotted paths."""
    name = kind.kind.name
    if (fields := getattr(kind, "fields", None)) is not None:
        for field, inner in fields.items():
            yield from _fields(inner.config_type, f"{path}.{field}".lstrip("."))
        if name not in {"STRICT_SHAPE", "SELECTOR"}:
            yield f"{path}.*"
    elif name in {"ARRAY", "NONEABLE"}:
        yield from _fields(kind.inner_type, path)
    elif name == "SCALAR_UNION":
        yield path
        yield from _fields(kind.non_scalar_type, path)
    else:
        yield f"{path}.*" if name == "MAP" else path


def test_what_a_run_can_be_configured_with_is_known_to_be_harmless(
    jobs: Mapping[str, dg.JobDefinition],
) -> None:
    found = {
        path.removesuffix(".env")
        for job in jobs.values()
        for path in _fields(job.run_config_schema.config_type)
    }
    # Dagster offers a config to each check and retry policy that declares none: nothing reads it.
    unread = {it for it in found if re.fullmatch(r"ops\.\w+\.config|.*\.retries\.\w+", it)}
    assert found - unread - HARMLESS == set()


@pytest.mark.parametrize("setting", CODE)
def test_no_run_config_makes_spark_run_other_code(
    setting: str, jobs: Mapping[str, dg.JobDefinition]
) -> None:
    _refused(jobs, {"spark": {"spark_config": {setting: "1"}}})
    with pytest.raises(SparkError, match=r"could make Spark run other code"):
        LocalSpark(lake=LakeResource(base="lake"), spark_config={setting: "1"})


@pytest.mark.parametrize("resources", ELSEWHERE, ids=str)
def test_no_run_config_leads_elsewhere(
    resources: Mapping[str, Any], jobs: Mapping[str, dg.JobDefinition]
) -> None:
    _refused(jobs, resources)


def _refused(jobs: Mapping[str, dg.JobDefinition], resources: Mapping[str, Any]) -> None:
    config = {"resources": {name: {"config": dict(it)} for name, it in resources.items()}}
    for job in jobs.values():
        with pytest.raises(dg.DagsterInvalidConfigError, match=r"unexpected config entr|undefined"):
            dg.validate_run_config(job, config)


def test_no_run_config_imports_a_module(jobs: Mapping[str, dg.JobDefinition]) -> None:
    start = {"start_method": {"forkserver": {"preload_modules": ["antigravity"]}}}
    for config in (start, {"multiprocess": start}):
        for job in jobs.values():
            with pytest.raises(dg.DagsterInvalidConfigError):
                dg.validate_run_config(job, {"execution": {"config": config}})


@pytest.mark.parametrize(
    "value",
    [
        *("1g -XX:OnOutOfMemoryError=touch", "1g\n", "1;touch", "$(touch a)", "/a", "a.b.C"),
        *("", " 1", "-javaagent:a.jar", "1gbbb"),
    ],
)
def test_a_harmless_setting_has_a_plain_value(value: str) -> None:
    lake = LakeResource(base="lake")
    with pytest.raises(SparkError, match=r"must have a number"):
        LocalSpark(lake=lake, spark_config={"spark.executor.memory": value})
    with pytest.raises(SparkError, match=r"must be a size"):
        LocalSpark(lake=lake, driver_memory=value)


def test_a_run_may_tune_spark_and_nothing_else_changes(tmp_path: Path) -> None:
    tuned = {"spark.sql.shuffle.partitions": "4", "spark.executor.memory": "512m"}
    seen: list[LocalSpark] = []

    @dg.asset
    def tuning(spark: LocalSpark) -> None:
        seen.append(spark)

    lake = LakeResource(base=str(tmp_path / "lake"))
    spark = LocalSpark(lake=lake, master="local[3]", spark_config={"spark.task.cpus": "1"})
    for config in ({}, {"driver_memory": "2g"}, {"spark_config": tuned}):
        run_config = {"resources": {"spark": {"config": config}}}
        assert dg.materialize([tuning], resources={"spark": spark}, run_config=run_config).success
    assert [one.driver_memory for one in seen] == ["1g", "2g", "1g"]
    assert [one.master for one in seen] == ["local[3]"] * 3
    assert [one.lake.base for one in seen] == [lake.base] * 3
    assert [one.spark_config for one in seen[:2]] == [spark.spark_config] * 2
    assert seen[2].spark_config == tuned
    assert tuned.items() <= seen[2]._config().items()
