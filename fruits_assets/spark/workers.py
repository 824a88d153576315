"""What Spark is told of its workers, wherever they run."""

ENVIRONMENT = "environment"
"""Folder that Spark unpacks the archive of packages to, in the folder of each of its processes."""

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    # One core, one thread: the cores are Spark's to share out.
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    # What Arrow frees goes back to the system instead of staying in a pool.
    "spark.executorEnv.ARROW_DEFAULT_MEMORY_POOL": "system",
}
