"""What `spark-submit` runs on a cluster: one transform, asked for and reported over Dagster Pipes.

The step's arguments say only where the request lies, and in which region. The request names a
transform, its URIs and parameters; what the transform wrote goes back as a message, as does its
log and its error.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesContext,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)
from pyspark.sql import SparkSession

from fruits_assets.core.errors import FruitsError, SparkError, without_secrets
from fruits_assets.storage import clients
from fruits_assets.storage.snapshot import Output
from fruits_assets.transforms.arguments import from_json, regions
from fruits_assets.transforms.transform import transform_at

MESSAGE_SECONDS = 1.0
"""Between two uploads of messages, at least."""
LAST_LINES = 50
"""Of a traceback."""
DEADLINE_PASSED = 124
"""Exit code, as of the command `timeout`."""
WITHDRAWN = 125
"""Exit code of a program whose request is gone."""
WATCH_SECONDS = 10.0
"""Between two looks at the request."""
MEMORY = ("memory", "memoryOverhead")


def main() -> int:
    """Runs what the step was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fruits_assets.transforms")
    parser.add_argument("--region", required=True)
    parser.add_argument("--bucket-owner")
    options, _ = parser.parse_known_args()
    client = clients.client("s3", options.region, Config(), owner=options.bucket_owner)
    params = PipesCliArgsParamsLoader()
    _end_when_withdrawn(client, **params.load_context_params())
    with open_dagster_pipes(
        params_loader=params,
        context_loader=PipesS3ContextLoader(client),
        message_writer=PipesS3MessageWriter(client, interval=MESSAGE_SECONDS),
    ) as pipes:
        _end_at_deadline(pipes.get_extra("deadline_seconds"))
        try:
            outputs = run(pipes)
        except FruitsError as error:
            pipes.report_custom_message({"error": type(error).__name__, "text": str(error)})
            return 1
        except Exception:
            pipes.report_custom_message(
                {"error": None, "text": _shortened(without_secrets(traceback.format_exc()))}
            )
            raise
        pipes.report_custom_message(
            {"outputs": {name: output.to_dict() for name, output in outputs.items()}}
        )
    return 0


def run(pipes: PipesContext) -> Mapping[str, Output]:
    """Runs the transform of a request, in buckets that lie in the EU."""
    arguments = from_json(pipes.get_extra("arguments"))
    transform = transform_at(pipes.get_extra("transform"))
    spark = _session(transform.name, regions(arguments))
    try:
        spark.sparkContext.setLogLevel("ERROR")
        _wait_for_executor(spark, pipes.get_extra("begin_seconds"))
        return transform.function(spark, log=pipes.log.info, **arguments)
    finally:
        spark.stop()


def _session(name: str, regions: Mapping[str, str]) -> SparkSession:
    """Spark, with the regions of the buckets that its JVM reads.

    s3a would look for them in the United States first, where the nodes' network does not reach.
    """
    builder = SparkSession.builder.appName(name)
    for bucket, region in regions.items():
        builder = builder.config(f"spark.hadoop.fs.s3a.bucket.{bucket}.endpoint.region", region)
    return builder.getOrCreate()


def _wait_for_executor(spark: SparkSession, seconds: float) -> None:
    """Without any executor, Spark would wait for ever. Raises SparkError."""
    context: Any = spark.sparkContext
    scheduler = context._jsc.sc()  # noqa: SLF001 - PySpark itself does not say it
    deadline = time.monotonic() + seconds
    while scheduler.getExecutorMemoryStatus().size() < 2:  # the driver is one of them
        if time.monotonic() > deadline:
            settings = spark.sparkContext.getConf()
            memory = [settings.get(f"spark.executor.{name}", "the default") for name in MEMORY]
            raise SparkError(
                f"the cluster has given no executor within {seconds:.0f} s: no machine "
                f"has room for one of {settings.get('spark.executor.cores', '1')} cores and "
                f"{' + '.join(memory)} of memory beside the driver, or all are taken. Ask for "
                "smaller executors, or for a larger cluster."
            )
        time.sleep(1)


def _shortened(text: str) -> str:
    """The JVM's errors are long: what happened is said at their begin, and why at their end."""
    lines = text.splitlines()
    if len(lines) <= LAST_LINES:
        return text
    half = LAST_LINES // 2
    return "\n".join([*lines[:half], "...", *lines[-half:]])


def _end_at_deadline(seconds: float) -> None:
    """Even if nobody is left to cancel the step: a cluster ends only once it is idle."""
    timer = threading.Timer(seconds, _end, (f"not done within {seconds:.0f} s", DEADLINE_PASSED))
    timer.daemon = True
    timer.start()


def _end_when_withdrawn(client: Any, bucket: str, key: str) -> None:
    """Ends this program once its request is gone: whoever asked does not wait any more.

    A driver on a cluster does not end with the command that has submitted it.
    """

    def watch() -> None:
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                    _end("the request was withdrawn", WITHDRAWN)
            except BotoCoreError:  # of a network that is away for a while
                continue

    threading.Thread(target=watch, daemon=True).start()


def _end(reason: str, code: int) -> None:
    print(reason, file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
