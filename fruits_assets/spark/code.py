"""What a cluster runs, put where it finds it: this package's own code, and its environment."""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fruits_assets
from fruits_assets.spark import environment
from fruits_assets.spark.account import Architecture
from fruits_assets.storage.base import Folder

LAYERS = ("core", "sources", "storage", "transforms")
"""The packages that need neither Dagster nor TensorFlow."""
ROOT = Path(fruits_assets.__file__).parent
ENTRY = ROOT / "transforms" / "__main__.py"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold: the same code has the same bytes."""


@dataclass(frozen=True)
class Code:
    """URIs of what a cluster runs.

    Attributes:
        package: zip file with the packages of `LAYERS`.
        entry: the program that `spark-submit` starts.
        environment: archive of the packages that it needs (`environment.py`).
    """

    package: str
    entry: str
    environment: str


def ship(place: Folder, architecture: Architecture, *, log: Callable[[str], None]) -> Code:
    """Uploads what is not there yet; every object is named after its content.

    Args:
        place: the folder for code.
        architecture: of the cluster's machines.
        log: told when the environment has to be built, which takes a minute.

    Raises:
        S3Error: the place cannot be written.
        SparkError: the environment cannot be built.
    """
    there = place.sizes()

    def put(stem: str, suffix: str, content: bytes) -> str:
        name = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
        if there.get(name) != len(content):
            place.write(name, content)
        return place.at(name)

    archive = environment.name(architecture)
    if archive not in there:
        log(f"building the cluster's Python environment for {architecture}")
        with tempfile.TemporaryDirectory() as folder:
            content = environment.archive(architecture, Path(folder)).read_bytes()
        place.write(archive, content)
    return Code(
        put("fruits", ".zip", packed()),
        put("run", ".py", ENTRY.read_bytes()),
        place.at(archive),
    )


def packed() -> bytes:
    """The package's code as a zip file, of the same bytes for the same code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(_files()):
            info = zipfile.ZipInfo(str(Path(ROOT.name, file.relative_to(ROOT))), EPOCH)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, file.read_bytes())
    return buffer.getvalue()


def _files() -> Iterator[Path]:
    yield ROOT / "__init__.py"
    for layer in LAYERS:
        yield from (ROOT / layer).rglob("*.py")
