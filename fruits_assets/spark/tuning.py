"""Which Spark settings the config of a run may hold: those that only say how much of something.

Most other settings run or fetch code (`extraJavaOptions`, `spark.jars`, `spark.pyspark.python`,
`spark.plugins`, `spark.hadoop.*`), name a folder or a host, or open a port.
"""

import re
from collections.abc import Mapping

from fruits_assets.core.errors import SparkError

TUNABLE = (
    "spark.cores.max",
    "spark.default.parallelism",
    "spark.driver.maxResultSize",
    "spark.executor.cores",
    "spark.executor.heartbeatInterval",
    "spark.executor.memory",
    "spark.executor.memoryOverhead",
    "spark.executor.pyspark.memory",
    "spark.locality.wait",
    "spark.memory.fraction",
    "spark.memory.storageFraction",
    "spark.network.timeout",
    "spark.python.worker.memory",
    "spark.python.worker.reuse",
    "spark.scheduler.minRegisteredResourcesRatio",
    "spark.speculation",
    "spark.sql.adaptive.coalescePartitions.enabled",
    "spark.sql.adaptive.enabled",
    "spark.sql.autoBroadcastJoinThreshold",
    "spark.sql.execution.arrow.maxRecordsPerBatch",
    "spark.sql.files.maxPartitionBytes",
    "spark.sql.shuffle.partitions",
    "spark.task.cpus",
)
"""Numbers, sizes, durations, and what is on or off."""
VALUE = re.compile(r"-?\d+(\.\d+)?[a-zA-Z]{0,3}|true|false")
SIZE = re.compile(r"\d+[kmgtKMGT]?[bB]?")


def check_settings(settings: Mapping[str, str]) -> None:
    """Raises SparkError for a setting that is not one of `TUNABLE`, or has no plain value."""
    for name, value in settings.items():
        if name not in TUNABLE:
            raise SparkError(
                f"spark_config may not hold {name!r}: it could make Spark run other code, or write "
                f"elsewhere. It may hold {', '.join(TUNABLE)}."
            )
        if not VALUE.fullmatch(value):
            raise SparkError(
                f"spark_config has {name}={value!r}, and must have a number, a size or duration "
                "such as 512m or 30s, true or false."
            )


def check_memory(size: str) -> None:
    """Raises SparkError for a size that Java would not read as one."""
    if not SIZE.fullmatch(size):
        raise SparkError(f"driver_memory is {size!r}, and must be a size such as 1g or 512m.")
