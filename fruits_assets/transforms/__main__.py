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
import traceback
from collections.abc import Mapping

from botocore.config import Config
from dagster_pipes import (
    PipesCliArgsParamsLoader,
    PipesContext,
    PipesS3ContextLoader,
    PipesS3MessageWriter,
    open_dagster_pipes,
)
from pyspark.sql import SparkSession

from fruits_assets.core.errors import FruitsError, without_secrets
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


def main() -> int:
    """Runs what the step was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fruits_assets.transforms")
    parser.add_argument("--region", required=True)
    parser.add_argument("--bucket-owner")
    options, _ = parser.parse_known_args()
    client = clients.client("s3", options.region, Config(), owner=options.bucket_owner)
    with open_dagster_pipes(
        params_loader=PipesCliArgsParamsLoader(),
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


def _shortened(text: str) -> str:
    """The JVM's errors are long: what happened is said at their begin, and why at their end."""
    lines = text.splitlines()
    if len(lines) <= LAST_LINES:
        return text
    half = LAST_LINES // 2
    return "\n".join([*lines[:half], "...", *lines[-half:]])


def _end_at_deadline(seconds: float) -> None:
    """Even if nobody is left to cancel the step: a cluster ends only once it is idle."""

    def end() -> None:
        print(f"not done within {seconds:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
        os._exit(DEADLINE_PASSED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    sys.exit(main())
