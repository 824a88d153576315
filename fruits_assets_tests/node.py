"""A node of a cluster, on this machine: the environment of clusters, and a Spark beside it."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pyspark
import pytest
import uv

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import environment
from fruits_assets.spark.account import Architecture
from fruits_assets_tests.emulator.node import PYTHON

REPOSITORY = Path(__file__).parent.parent
CACHE = REPOSITORY / ".cache"
ARCHITECTURES: dict[str, Architecture] = {"x86_64": "x86_64", "aarch64": "arm64"}
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "client error (Connect)")
"""What uv says where it cannot fetch packages, as opposed to refusing them."""
SPARK_LOCKS = Path(__file__).parent / "transforms"
BUILD_SECONDS = 900


@cache
def archive(architecture: Architecture, base: Path) -> Path:
    """The environment's archive, built once for all tests that use it.

    Args:
        architecture: of the node.
        base: folder of the test session.
    """
    try:
        return environment.archive(architecture, base / "environment")
    except SparkError as error:
        skip_unless_fetched(str(error))
        raise


def skip_unless_fetched(error: str) -> None:
    """Skips the test where packages cannot be fetched from here."""
    if any(sign in error for sign in UNREACHABLE):
        pytest.skip(f"PyPI cannot be reached: {error[-500:]}")


def architecture() -> Architecture:
    """Of this machine; skips the test where no cluster has such machines."""
    found = ARCHITECTURES.get(platform.machine())
    if found is None or sys.platform != "linux":
        pytest.skip(f"no node of a cluster is like this machine ({platform.platform()})")
    return found


@cache
def unpacked(base: Path) -> Path:
    """The folder that Spark unpacks the archive to, for machines of this machine's kind."""
    folder = base / "unpacked"
    shutil.unpack_archive(archive(architecture(), base), folder, filter="data")
    return folder


def spark_home(version: str) -> Path:
    """A Spark of that version, as pip has it: this environment's, or in the cache folder."""
    if version == pyspark.__version__:
        return Path(pyspark.__path__[0])
    home = CACHE / f"pyspark-{version}"
    if not home.is_dir():
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _install_spark(version, Path(folder))
            Path(folder, "pyspark").replace(home)
    return home


def _install_spark(version: str, target: Path) -> None:
    # It has no wheel: what builds it is pinned, with its hash, as well.
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", sys.executable]
    command += ["--target", str(target), "--require-hashes", "--no-deps"]
    command += ["--build-constraints", str(REPOSITORY / "requirements.lock")]
    command += ["--requirement", str(SPARK_LOCKS / f"pyspark-{version}.lock")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode:
        skip_unless_fetched(done.stderr)
        pytest.fail(done.stderr)


def run(
    environment: Path, version: str, *arguments: str, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs Python as a node does: with the environment, Spark's own modules and the project's."""
    home = spark_home(version)
    modules = [environment, REPOSITORY, *sorted((home / "python" / "lib").glob("*.zip"))]
    assert len(modules) == 4, modules
    variables = {
        "PATH": os.environ["PATH"],
        "SPARK_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(map(str, modules)),
        "PYSPARK_PYTHON": str(PYTHON),
        "PYSPARK_DRIVER_PYTHON": str(PYTHON),
        **{name: os.environ[name] for name in ("JAVA_HOME", "HOME") if name in os.environ},
    }
    return subprocess.run(
        [str(PYTHON), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
