"""Spark's packages for other places and formats: fetched from Maven Central, by their hashes.

Spark's own way (`spark.jars.packages`) believes whatever the repository sends: what it compares
with comes from the same place. jars.json pins every file: s3a in the version of PySpark's Hadoop,
with the committers that do not rename (570 MB), and Delta. The pipeline itself reads and writes
without either.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fruits_assets.core.errors import SparkError

CENTRAL = "https://repo1.maven.org/maven2"
PINNED = Path(__file__).with_name("jars.json")
SECONDS = 60
"""To wait for an answer, and for more bytes of one."""
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Jar:
    """A file of Maven Central.

    Attributes:
        group: `org.apache.hadoop`.
        artifact: `hadoop-aws`.
        version: `3.4.1`.
        sha256: of the file, hexadecimal.
    """

    group: str
    artifact: str
    version: str
    sha256: str

    @classmethod
    def all_for(cls, purpose: str, pinned: Path | None = None) -> tuple[Self, ...]:
        """The jars that a purpose needs, with all that they need themselves.

        Args:
            purpose: a key of the file of pins, such as `s3a` or `delta`.
            pinned: the file of pins, purpose -> coordinates -> SHA-256; the package's own without.
        """
        pins = json.loads((pinned or PINNED).read_text())[purpose]
        return tuple(cls.of(name, digest) for name, digest in pins.items())

    @classmethod
    def of(cls, coordinates: str, sha256: str) -> Self:
        """From coordinates as Maven writes them, `group:artifact:version`."""
        group, artifact, version = coordinates.split(":")
        return cls(group, artifact, version, sha256)

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.artifact}-{self.version}.jar"

    @property
    def url(self) -> str:
        """Where it is to be had."""
        folders = self.group.replace(".", "/")
        return f"{CENTRAL}/{folders}/{self.artifact}/{self.version}/{self.name}"


def fetched(purpose: str, folder: Path | None = None, *, pinned: Path | None = None) -> list[Path]:
    """Files that are what was pinned; those that are not here yet are fetched.

    Args:
        purpose: a key of the file of pins, such as `s3a` or `delta`.
        folder: that they are kept in; one of this user's without.
        pinned: the file of pins; the package's own without.

    Raises:
        SparkError: one cannot be fetched, or is not what was pinned.
    """
    folder = folder or Path.home() / ".cache" / "fruits" / "jars"
    return [_fetched(jar, folder) for jar in Jar.all_for(purpose, pinned)]


def provided(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings by which Spark's JVM reaches a bucket, with the jars that they need.

    Args:
        settings: of `Storage.spark_config`; a folder has none, and needs no jar.

    Raises:
        SparkError: a jar cannot be fetched, or is not what was pinned.
    """
    if not settings:
        return {}
    return {**settings, "spark.jars": ",".join(map(str, fetched("s3a")))}


def _fetched(jar: Jar, folder: Path) -> Path:
    # Only what has this digest is ever moved here.
    target = folder / jar.sha256 / jar.name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        partial = Path(scratch, jar.name)
        digest = _download(jar.url, partial)
        if digest != jar.sha256:
            raise SparkError(
                f"{jar.url} is not what was pinned: its SHA-256 is {digest}, and {jar.sha256} was "
                "expected. It was not used. See whether something on the way changes files (a "
                f"proxy); else put the right file at {target} and report this (SECURITY.md)."
            )
        partial.replace(target)
    return target


def _download(url: str, target: Path) -> str:
    """Fetches a file, and returns the SHA-256 of what has come."""
    digest = hashlib.sha256()
    try:
        # Over TLS, from a constant; and whatever it redirects to has to have the digest.
        with urllib.request.urlopen(url, timeout=SECONDS) as answer, target.open("wb") as sink:  # noqa: S310
            while chunk := answer.read(CHUNK_BYTES):
                digest.update(chunk)
                sink.write(chunk)
    except OSError as error:
        raise SparkError(
            f"{url} cannot be fetched ({error}). This machine must reach Maven Central once; or "
            "copy the folder .cache/fruits/jars of a home folder that has it."
        ) from error
    return digest.hexdigest()
