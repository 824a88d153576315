"""`spark-submit` on the primary node of a cluster: PySpark's own, before a genuine YARN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyspark

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import jars
from fruits_assets_tests.emulator.node import PYTHON, Node
from fruits_assets_tests.yarn.cluster import Yarn


def classified(configurations: Iterable[Mapping[str, Any]], name: str) -> dict[str, str]:
    """The properties of a classification of a cluster's configurations, at any depth."""
    found: dict[str, str] = {}
    for one in configurations:
        if one.get("Classification") == name:
            found |= one.get("Properties") or {}
            found |= classified(one.get("Configurations") or (), "export")
    return found


def command(
    args: Sequence[str],
    *,
    node: Node,
    folder: Path,
    yarn: Yarn,
    configurations: Sequence[Mapping[str, Any]],
) -> tuple[list[str], dict[str, str]]:
    """What to run for a step, and in which environment.

    Args:
        args: of the step, without `spark-submit` itself.
        node: that it runs on.
        folder: of the step.
        yarn: of the cluster.
        configurations: of the cluster.

    Raises:
        FileNotFoundError: the jars by which Spark reads S3 cannot be had.
    """
    conf = folder / "conf"
    conf.mkdir(parents=True, exist_ok=True)
    settings = {**_installed(node), **classified(configurations, "spark-defaults")}
    lines = [f"{name} {value}\n" for name, value in settings.items()]
    (conf / "spark-defaults.conf").write_text("".join(lines))
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    home = _spark_home(node.folder / "spark")
    environment = {
        **node.environment,
        "PYSPARK_PYTHON": str(node.folder / "bin" / PYTHON.name),
        **classified(configurations, "spark-env"),
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(conf),
        "HADOOP_CONF_DIR": str(yarn.conf),
        "SPARK_LOCAL_IP": yarn.primary,
        "SPARK_LOCAL_DIRS": str(folder / "tmp"),
        "SPARK_SUBMIT_OPTS": f"-Djava.io.tmpdir={folder / 'tmp'}",
    }
    return [f"{home}/bin/spark-submit", *args], environment


def _spark_home(folder: Path) -> Path:
    """Spark as it is installed on EMR's machines: with the jars by which it reads S3."""
    installed = Path(pyspark.__file__).parent
    for name in ("bin", "python", "sbin"):
        _link(folder / name, installed / name)
    for jar in (*(installed / "jars").glob("*.jar"), *_s3_jars()):
        _link(folder / "jars" / jar.name, jar)
    return folder


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(target)


def _installed(node: Node) -> dict[str, str]:
    """What is set on EMR's machines before anybody sets anything: where S3 is, not its region."""
    return {
        "spark.yarn.jars": f"local:{node.folder}/spark/jars/*",
        "spark.yarn.stagingDir": (node.folder / "staging").as_uri(),
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.aws.credentials.provider": (
            "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"
        ),
        "spark.hadoop.fs.s3a.endpoint": node.endpoint,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.ui.enabled": "false",
    }


@cache
def _s3_jars() -> list[Path]:
    try:
        return jars.fetched("s3a")
    except SparkError as problem:
        raise FileNotFoundError(f"the packages of s3a are not to be had:\n{problem}") from problem
