"""`spark-submit` as a step calls it on EMR, turned into one that runs on this machine."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import jars
from fruits_assets_tests.emulator.node import PYTHON, Node

NO_VALUE = frozenset({"--verbose", "-v", "--supervise"})
"""Options that stand alone; all others have a value."""
FILES = frozenset({"--py-files", "--files", "--archives", "--jars", "--properties-file"})
"""Options whose values are lists of files, each maybe with a name after `#`."""
MACHINES = frozenset(
    {"--master", "--queue", "--num-executors", "--driver-cores", "--driver-memory"}
    | {"--executor-cores", "--executor-memory", "--total-executor-cores"}
)
"""Options for machines and a resource manager that are not here."""
MACHINE_SETTINGS = (
    *("spark.yarn.", "spark.dynamicAllocation.", "spark.shuffle.service.", "spark.eventLog."),
    *("spark.executor.memory", "spark.executor.cores", "spark.executor.instances"),
    *("spark.driver.memory", "spark.driver.cores", "spark.cores.max", "spark.task.cpus"),
    *("spark.executor.pyspark.memory", "spark.master", "spark.submit.deployMode"),
    *("spark.decommission.", "spark.executor.heartbeatInterval", "spark.network.timeout"),
)
"""Beginnings of the names of settings that are about such machines."""
DRIVER_ENVIRONMENT = "spark.yarn.appMasterEnv."


@dataclass
class Submission:
    """The call of `spark-submit`.

    Attributes:
        options: that are passed on, with their values.
        settings: of Spark, by name.
        application: the program and its arguments.
        archives: URIs of archives, each maybe with the name of a folder after `#`.
        cluster_mode: whether the driver runs on the cluster, in a folder of its own.
    """

    options: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    application: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    cluster_mode: bool = False

    @classmethod
    def of(cls, args: Sequence[str]) -> Submission:
        """Reads the arguments after `spark-submit`."""
        found = cls()
        rest = list(args)
        while rest and rest[0].startswith("-"):
            name = rest.pop(0)
            if name in NO_VALUE:
                continue
            name, equals, value = name.partition("=")
            value = value if equals else rest.pop(0)
            if name in {"--conf", "-c"}:
                key, _, setting = value.partition("=")
                found.settings[key] = setting
            elif name == "--deploy-mode":
                found.cluster_mode = value == "cluster"
            elif name == "--archives":
                found.archives += value.split(",")
            elif name not in MACHINES:
                found.options += [name, value]
        if found.settings.get("spark.submit.deployMode") == "cluster":
            found.cluster_mode = True
        found.application = rest
        return found


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
    master: str,
    configurations: Sequence[Mapping[str, Any]],
) -> tuple[list[str], dict[str, str]]:
    """What to run for a step, and in which environment.

    Args:
        args: of the step, without `spark-submit` itself.
        node: that it runs on.
        folder: of the step.
        master: of Spark, instead of YARN.
        configurations: of the cluster.

    Raises:
        FileNotFoundError: a file that the step names is not in its bucket.
    """
    submission = Submission.of([node.placed(arg) for arg in args])
    defaults = classified(configurations, "spark-defaults")
    defaults = {name: node.placed(value) for name, value in defaults.items()}
    settings = {**defaults, **submission.settings}
    exported = classified(configurations, "spark-env")
    environment = _environment(submission, settings, exported, node=node, folder=folder)
    kept = {
        name: value
        for name, value in settings.items()
        if not name.startswith(MACHINE_SETTINGS) and name != "spark.archives"
    }
    archives = [*submission.archives, *filter(None, settings.get("spark.archives", "").split(","))]
    downloads = folder / "downloads"
    options: list[str] = []
    for name, value in zip(submission.options[::2], submission.options[1::2], strict=True):
        options += [name, _fetched(value, node, downloads) if name in FILES else value]
    if archives:
        options += ["--archives", _fetched(",".join(archives), node, downloads)]
        if submission.cluster_mode:  # YARN unpacks them for the driver too
            _unpack(options[-1], folder / "work")
    program, *rest = submission.application
    if program.startswith("s3"):
        # Alone in its folder: the folder of a program is where Python looks for modules first.
        program = str(node.fetch(program, folder / "program"))
    settings = {**_provided(node), **kept}
    for name, value in settings.items():
        options += ["--conf", f"{name}={value}"]
    home = environment["SPARK_HOME"]
    return [f"{home}/bin/spark-submit", "--master", master, *options, program, *rest], environment


def _environment(
    submission: Submission,
    settings: Mapping[str, str],
    exported: Mapping[str, str],
    *,
    node: Node,
    folder: Path,
) -> dict[str, str]:
    """Of the driver: of what is exported, a driver on the cluster sees only which Python to use."""
    own = {
        name.removeprefix(DRIVER_ENVIRONMENT): value
        for name, value in settings.items()
        if name.startswith(DRIVER_ENVIRONMENT)
    }
    if submission.cluster_mode:
        exported = {n: value for n, value in exported.items() if n.startswith("PYSPARK_")}
    else:
        own = {}
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        **node.environment,
        "PYSPARK_PYTHON": str(node.folder / "bin" / PYTHON.name),
        **{name: node.placed(value.strip('"')) for name, value in exported.items()},
        **own,
        "SPARK_HOME": str(_spark_home(folder / "spark")),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_DIRS": str(folder / "tmp"),
        "SPARK_SUBMIT_OPTS": f"-Djava.io.tmpdir={folder / 'tmp'}",
    }


def _spark_home(folder: Path) -> Path:
    """PySpark's own Spark under another path: executors work in a folder below it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("bin", "jars", "python", "sbin"):
        link = folder / name
        if not link.exists():
            link.symlink_to(_pyspark() / name)
    return folder


def _pyspark() -> Path:
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _provided(node: Node) -> dict[str, str]:
    """What is set on EMR's machines before anybody sets anything: access to S3."""
    path = ":".join(_jars())
    return {
        "spark.driver.extraClassPath": path,
        "spark.executor.extraClassPath": path,
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.s3a.aws.credentials.provider": (
            "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"
        ),
        "spark.hadoop.fs.s3a.endpoint": node.endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": node.region,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.ui.enabled": "false",
        # YARN makes one for every application, for where `spark.authenticate` asks for it.
        "spark.authenticate.secret": secrets.token_hex(16),
    }


@cache
def _jars() -> list[str]:
    """The jars of s3a and all that they need; found once.

    As jars of the application they would be copied to each executor, half a gigabyte a time.
    """
    try:
        return [str(jar) for jar in jars.fetched("s3a")]
    except SparkError as problem:
        raise FileNotFoundError(f"the packages of s3a are not to be had:\n{problem}") from problem


def _fetched(files: str, node: Node, folder: Path) -> str:
    """A list of files, with those in buckets copied to this machine."""
    found = []
    for number, file in enumerate(files.split(",")):
        uri, hash_sign, name = file.partition("#")
        if uri.startswith("s3"):
            # One folder each: two files may have the same name.
            uri = str(node.fetch(uri, folder / f"{len(list(folder.glob('*')))}-{number}"))
        found.append(f"{uri}{hash_sign}{name}")
    return ",".join(found)


def _unpack(archives: str, work: Path) -> None:
    for archive in archives.split(","):
        file, _, name = archive.partition("#")
        shutil.unpack_archive(file, work / (name or Path(file).name))
