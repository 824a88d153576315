"""A machine of a cluster: a folder for what is installed on it, and a few programs."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from fruits_assets_tests.emulator.plan import NODE_KEY, SECRET_KEY

PASSED_ON = frozenset(
    {"JAVA_HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"}
)
"""Variables of this machine that a machine of a cluster has too, besides pip's and proxies."""
SMALL_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Of all JVMs, which live for seconds here: they start in half the processor time."""
PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
"""The interpreter without the packages of the virtual environment, hence without the project."""


@dataclass(frozen=True)
class Node:
    """The primary machine of a cluster, which steps run on.

    Attributes:
        folder: for all of it.
        endpoint: of AWS.
        region: that it is in.
        log_uri: `s3://bucket/prefix` for the logs of its cluster; None for no logs.
        log_key: KMS key for the logs, if any.
    """

    folder: Path
    endpoint: str
    region: str
    log_uri: str | None = None
    log_key: str | None = None

    def set_up(self) -> None:
        """Makes its folders and programs."""
        for name in ("bin", "home", "tmp"):
            (self.folder / name).mkdir(parents=True)
        for name in ("python3", PYTHON.name):
            file = self.folder / "bin" / name
            file.write_text(f'#!/bin/bash\nexec {shlex.quote(str(PYTHON))} "$@"\n')
            file.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Of every process on it: the machine's role as credentials, and nothing of the tests."""
        java = shutil.which("java")
        path = [str(self.folder / "bin"), *([str(Path(java).parent)] if java else [])]
        return {
            **{
                name: value
                for name, value in os.environ.items()
                if name in PASSED_ON or name.startswith("PIP_") or name.lower().endswith("_proxy")
            },
            "PATH": ":".join([*path, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONNOUSERSITE": "1",
            "JAVA_TOOL_OPTIONS": SMALL_JVM,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": NODE_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def archive_logs(self, folder: Path, place: str, *, delay: float = 0.0) -> None:
        """Puts stdout, stderr and controller of a folder to where EMR keeps the logs of a cluster.

        Args:
            folder: that the files lie in.
            place: below the log URI.
            delay: seconds until then; without any, they are there on return.
        """
        if self.log_uri is None:
            return
        if delay:
            timer = threading.Timer(delay, self.archive_logs, (folder, place))
            timer.daemon = True
            timer.start()
            return
        bucket, prefix = split(self.log_uri)
        key = f"{prefix.rstrip('/')}/{place}".lstrip("/")
        encryption = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.log_key} if self.log_key else {}
        )
        for name in ("controller", "stderr", "stdout"):
            file = folder / name
            content = gzip.compress(file.read_bytes() if file.exists() else b"")
            try:
                _s3(self.endpoint, self.region).put_object(
                    Bucket=bucket, Key=f"{key}/{name}.gz", Body=content, **encryption
                )
            except (BotoCoreError, ClientError) as error:
                # A cluster whose logs cannot be written works all the same, as with EMR.
                sys.stderr.write(f"the log {key}/{name}.gz is lost: {error}\n")


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/b` -> (bucket, a/b); the schemes s3a and s3n mean the same."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


_lock = threading.Lock()
_clients: dict[tuple[str, str], Any] = {}


def _s3(endpoint: str, region: str) -> Any:
    """A client with the credentials of a machine; making one is slow, and not thread-safe."""
    with _lock:
        if (endpoint, region) not in _clients:
            _clients[endpoint, region] = boto3.Session(NODE_KEY, SECRET_KEY).client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                config=Config(s3={"addressing_style": "path"}),
            )
        return _clients[endpoint, region]
