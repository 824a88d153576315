"""The Python environment of clusters: one archive of packages, the same on every node.

Made on whichever machine asks, for the machines of the cluster, from wheels that are pinned with
their hashes (cluster.lock, a part of requirements.lock). Spark unpacks it on every node
(`--archives`).
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import uv

from fruits_assets.core.errors import SparkError
from fruits_assets.spark.account import Architecture

LOCK = Path(__file__).with_name("cluster.lock")
PYTHON = "3.11"
"""The one version that all supported releases of EMR have."""
GLIBC = "2_28"
"""Wheels may need this one, no later; Amazon Linux 2023 has 2.34."""
FORMAT = 2
"""Of the archive: changes whenever the same lock gives another one."""
MAX_BYTES = 150 * 10**6
"""Every node fetches and unpacks the archive before it can work."""
COMPRESSION = 3
"""Of gzip: twice as fast to make as the usual 6, and 6 % larger."""
EPOCH = 315_532_800
"""Of all files, 1980-01-01: GNU tar warns of the more obvious 0."""

MACHINES: dict[Architecture, tuple[str, int]] = {
    "arm64": ("aarch64", 183),
    "x86_64": ("x86_64", 62),
}
"""Name in wheels' platform tags, and `e_machine` in the header of ELF files."""

UNUSED = (
    # Of the installation, not of the packages; commands name this machine's Python.
    "bin/*",
    ".lock",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*/__pycache__/*",
    # For compilers, type checkers and the packages' own developers.
    *(f"*.{suffix}" for suffix in ("a", "c", "cc", "cpp", "f", "f90", "h", "hpp", "pyf")),
    *(f"*.{suffix}" for suffix in ("pxd", "pxi", "pyi", "pyx")),
    "*/include/*",
    "*/tests/*",
    # Network protocols: all that moves goes through obstore and boto3.
    "pyarrow/*flight*",
    "pyarrow/_s3fs*",
    "pyarrow/libarrow_s3*",
    # The nodes have no GPU; loaded by name where there is one.
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    # Descriptions of 400 services of AWS.
    "botocore/data/*/*",
)
"""Patterns of files that are left out."""
KEPT = tuple(f"botocore/data/{service}/*" for service in ("s3", "sso", "sso-oidc", "sts"))
"""Patterns of files that are kept all the same: the services that a node calls."""


def name(architecture: Architecture) -> str:
    """File name of the archive: the same as long as the archive would be, and known without it."""
    digest = hashlib.sha256(repr((FORMAT, architecture, PYTHON, GLIBC)).encode())
    digest.update(LOCK.read_bytes())
    return f"environment-{architecture}-{digest.hexdigest()[:16]}.tar.gz"


def archive(architecture: Architecture, folder: Path) -> Path:
    """Builds the archive for machines of an architecture, on any machine.

    Its bytes are the same whenever and wherever they are made (given the same zlib).

    Args:
        architecture: of the cluster's nodes.
        folder: in which to write it; made where it does not exist.

    Returns:
        The file, called `name(architecture)`.

    Raises:
        SparkError: the packages cannot be fetched, or are not what they should be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name(architecture)
    with tempfile.TemporaryDirectory(prefix=".environment-", dir=folder) as scratch:
        packages, partial = Path(scratch, "packages"), Path(scratch, target.name)
        _install(architecture, packages)
        files = sorted(_used(packages))
        _check_machine(architecture, packages, files)
        _pack(packages, files, partial)
        _check_size(partial)
        partial.replace(target)
    return target


def _install(architecture: Architecture, target: Path) -> None:
    platform = f"{MACHINES[architecture][0]}-manylinux_{GLIBC}"
    command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--target", str(target)]
    command += ["--python", sys.executable, "--python-version", PYTHON]
    command += ["--python-platform", platform, "--only-binary", ":all:"]
    command += ["--require-hashes", "--no-deps", "--requirement", str(LOCK)]
    done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
        command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SparkError(
            f"the packages of the cluster's environment ({architecture}) could not be fetched: "
            f"{' '.join(done.stderr.split())} They come from PyPI, or from the index that uv is "
            "configured to use: this machine must reach it once, then they are cached."
        )


def _used(packages: Path) -> Iterator[str]:
    """Paths of the files to keep, relative to `packages`, with slashes."""
    for path in packages.rglob("*"):
        relative = path.relative_to(packages).as_posix()
        left_out = _matches(relative, UNUSED) and not _matches(relative, KEPT)
        if path.is_file() and not left_out:
            yield relative


def _matches(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(file, pattern) for pattern in patterns)


def _check_machine(architecture: Architecture, packages: Path, files: list[str]) -> None:
    """Finds a wheel whose tag promises another architecture than its libraries are for."""
    _, expected = MACHINES[architecture]
    for file in files:
        with (packages / file).open("rb") as opened:
            header = opened.read(20)
        machine = int.from_bytes(header[18:20], "little")
        if header.startswith(b"\x7fELF") and machine != expected:
            raise SparkError(
                f"{file} is for another machine than {architecture} (ELF machine {machine} instead "
                f"of {expected}): its wheel is mislabelled. Pin another version of that package."
            )


def _pack(packages: Path, files: list[str], target: Path) -> None:
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", COMPRESSION, raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for file in files:
            path = packages / file
            member = tarfile.TarInfo(file)  # of mode 0644, uid 0, gid 0, and no names
            member.size, member.mtime = path.stat().st_size, EPOCH
            with path.open("rb") as opened:
                tar.addfile(member, opened)


def _check_size(file: Path) -> None:
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise SparkError(
            f"the cluster's environment has {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}: "
            "every node would wait for it. Leave out more of it (UNUSED), or fewer packages in."
        )
