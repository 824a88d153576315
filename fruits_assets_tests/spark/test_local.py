"""Spark on this machine: the way of large results, and the error when the JVM ends."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from fruits_assets.core.pca import Moments
from fruits_assets_tests.conftest import REPOSITORY

PROGRAM = """
import os, signal
import dagster as dg
import pyarrow as pa
from fruits_assets.lake.resource import LakeResource
from fruits_assets.spark.local import LocalSpark
from fruits_assets.storage.snapshot import Output
from fruits_assets.transforms.transform import transform

@transform(code_version="1", outputs={"doomed": pa.schema([])})
def end_the_jvm(spark, *, question, log, doomed):
    os.kill(int(spark._jvm.ProcessHandle.current().pid()), signal.SIGKILL)
    spark.range(10).count()
    return {"doomed": Output(())}

@dg.asset
def doomed(context: dg.AssetExecutionContext, spark: LocalSpark) -> None:
    spark.run(context, end_the_jvm)

spark = LocalSpark(lake=LakeResource(base="lake"), master="local[1]")
result = dg.materialize([doomed], resources={"spark": spark}, raise_on_error=False)
(event,) = [event for event in result.all_events if event.is_step_failure]
failed = event.step_failure_data
print("FAILED:", failed.user_failure_data.description if failed.user_failure_data else failed.error)
os._exit(0)  # py4j waits for a JVM that is gone
"""


def test_the_largest_gram_matrix_passes_through_no_port(session: SparkSession):
    largest = len(pickle.dumps(Moments.zero(1792)))  # features of MobileNetV2 at alpha 1.4
    asked = session.sparkContext.getConf().get("spark.task.maxDirectResultSize", "1m")
    jvm: Any = session.sparkContext._jvm
    direct = jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(asked)
    assert largest < direct


@pytest.mark.slow
def test_a_jvm_that_ended_is_told(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("FAILED:")] or [done]
    assert "Spark's JVM ended while it ran end_the_jvm" in str(told)
    assert "Run again" in str(told)
