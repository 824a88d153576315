"""Tools whose packages conflict with the project's: each in an environment of its own.

    python -m tools.isolated checkov checkov --version

runs a command of the environment that `checkov.lock` describes, which is made where it is missing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import uv

REPOSITORY = Path(__file__).parent.parent
CACHE = REPOSITORY / ".cache" / "tools"
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "client error (Connect)")
"""Errors of uv where it cannot fetch packages, as opposed to refusing them."""


class UnreachableError(Exception):
    """The packages of a tool cannot be fetched from here."""


def lock_of(name: str) -> Path:
    """The pinned packages of an environment."""
    return Path(__file__).with_name(f"{name}.lock")


def environment(name: str) -> Path:
    """The folder with the commands of an environment, made once for each content of its lock.

    Raises:
        UnreachableError: its packages are not here, and cannot be fetched.
        CalledProcessError: they are not what was pinned.
    """
    lock = lock_of(name)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"{name}-{digest}"
    if not (folder / "whole").exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        _uv("venv", "--clear", "--python", sys.executable, str(folder))
        python = str(folder / "bin" / "python")
        _uv("pip", "sync", "--require-hashes", "--python", python, str(lock))
        (folder / "whole").touch()
    return folder / "bin"


def _uv(*arguments: str) -> None:
    command = [uv.find_uv_bin(), "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        raise UnreachableError(" ".join(done.stderr.split())[:500])
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()


def main(name: str, command: str, *arguments: str) -> None:
    """Becomes a command of an environment."""
    try:
        bin_folder = environment(name)
    except UnreachableError as error:
        sys.exit(f"{command} cannot be installed: its packages are out of reach ({error})")
    os.execv(bin_folder / command, [command, *arguments])  # noqa: S606 - it is the point


if __name__ == "__main__":
    main(*sys.argv[1:])
