"""A node of a cluster, on this machine: the environment of clusters, and a Spark beside it."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

import pyspark
import pytest
import uv

from fruits_assets.core.errors import SparkError
from fruits_assets.spark import environment
from fruits_assets.spark.account import Architecture

REPOSITORY = Path(__file__).parent.parent
CACHE = REPOSITORY / ".cache"
BOOTSTRAP = Path(environment.__file__).with_name("bootstrap.sh")
ARCHITECTURES: dict[str, Architecture] = {"x86_64": "x86_64", "aarch64": "arm64"}
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "client error (Connect)")
"""What uv says where it cannot fetch packages, as opposed to refusing them."""
SPARK_LOCKS = Path(__file__).parent / "transforms"
BUILD_SECONDS = 900

AWS = """#!/bin/bash
# In the place of the command line of AWS, for `aws s3 cp`: a folder holds the objects.
[ "$1 $2 $3" = "s3 cp --only-show-errors" ] && exec cp "$OBJECTS/${4#s3://}" "$5"
"""
SUDO = """#!/bin/bash
exec "$@"
"""


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


def bootstrap(
    target: Path, packed: Path, *, digest: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the bootstrap action, with a folder for S3 and `target` for /opt/fruits.

    Args:
        target: takes the place of /opt/fruits.
        packed: the archive, in its bucket.
        digest: SHA-256 that the action is told; the archive's own without.
    """
    python = shutil.which("python3.11", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if python is None:
        pytest.skip("nodes of clusters run Python 3.11, which is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "bootstrap.sh")
        script.write_text(BOOTSTRAP.read_text().replace("/opt/fruits", str(target)))
        programs = {"aws": AWS, "sudo": SUDO, "python3.11": f'#!/bin/bash\nexec {python} "$@"\n'}
        for program, text in programs.items():
            Path(folder, program).write_text(text)
            Path(folder, program).chmod(0o755)
        uri = f"s3://{packed.name}"
        return subprocess.run(
            ["/bin/bash", str(script), uri, digest or sha256(packed.read_bytes()).hexdigest()],
            env={"PATH": f"{folder}:{os.environ['PATH']}", "OBJECTS": str(packed.parent)},
            capture_output=True,
            text=True,
            check=False,
        )


@cache
def python(base: Path) -> Path:
    """The interpreter of a node's environment, made once for all tests that use it."""
    target = base / "node" / "fruits"
    done = bootstrap(target, archive(architecture(), base))
    assert done.returncode == 0, done.stderr
    return target / "bin" / "python"


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
    interpreter: Path, version: str, *arguments: str, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Runs Python as a node does: with Spark's own modules and the project's, and no others."""
    home = spark_home(version)
    modules = [REPOSITORY, *sorted((home / "python" / "lib").glob("*.zip"))]
    assert len(modules) == 3, modules
    variables = {
        "PATH": os.environ["PATH"],
        "SPARK_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(map(str, modules)),
        "PYSPARK_PYTHON": str(interpreter),
        "PYSPARK_DRIVER_PYTHON": str(interpreter),
        **{name: os.environ[name] for name in ("JAVA_HOME", "HOME") if name in os.environ},
    }
    return subprocess.run(
        [str(interpreter), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
