"""Looks for known vulnerabilities in everything that is pinned (`make audit`).

The advisories are PyPI's, asked for by pip-audit. Where they cannot be had, that is said, and
nothing is judged: an index may answer, and know packages but no advisories.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.isolated import REPOSITORY, UnreachableError, environment

LOCKS = (
    "fruits_assets/spark/cluster.lock",
    "requirements.lock",
    "tools/checkov.lock",
    "tools/supply.lock",
)
"""All that is installed from PyPI. A short one is first: it shows whether there is an answer."""
ACCEPTED: Mapping[str, str] = {}
"""Id of an advisory -> why it does not concern the project."""
OUT_OF_REACH = ("ConnectionError", "Could not connect", "your network may be blocking", "timed out")
"""Errors of pip-audit where it gets no answer, as opposed to one that it does not understand."""
SECONDS = 300


@dataclass(frozen=True)
class Audit:
    """Answers of the advisories about some packages.

    Attributes:
        known: number of packages with an answer.
        unknown: number of packages without one.
        found: lines for people, one per vulnerability that is not accepted.
    """

    known: int
    unknown: int
    found: tuple[str, ...]

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Audit:
        """Reads the JSON report of pip-audit."""
        packages = report["dependencies"]
        answered = [it for it in packages if "skip_reason" not in it]
        lines = (line for it in answered for line in _lines(it))
        return cls(len(answered), len(packages) - len(answered), tuple(lines))


def _lines(package: Mapping[str, Any]) -> Iterator[str]:
    for one in package["vulns"]:
        if not {one["id"], *one.get("aliases", ())} & ACCEPTED.keys():
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            yield f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}"


def audit(command: Path, lock: Path) -> Audit:
    """Asks for the advisories on all packages of a lock.

    Raises:
        UnreachableError: they cannot be had.
        ValueError: pip-audit failed for another reason, which it has said on stderr.
    """
    done = subprocess.run(
        [
            *(str(command), "--disable-pip", "--require-hashes", "--requirement", str(lock)),
            *("--format", "json", "--progress-spinner", "off", "--timeout", "15"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    try:
        return Audit.of(json.loads(done.stdout))
    except ValueError:
        if any(sign in done.stderr for sign in OUT_OF_REACH):
            raise UnreachableError(done.stderr.strip().splitlines()[-1]) from None
        sys.stderr.write(done.stderr)
        raise


def main() -> int:
    """Prints what was found; returns 1 where there is a vulnerability."""
    try:
        command = environment("supply") / "pip-audit"
        return report((lock, audit(command, REPOSITORY / lock)) for lock in LOCKS)
    except (UnreachableError, subprocess.TimeoutExpired) as error:
        print(f"audit: skipped, as advisories are out of reach from here ({error})")
        return 0


def report(found: Iterable[tuple[str, Audit]]) -> int:
    """Prints results by lock, as they come; returns 1 where there is a vulnerability."""
    vulnerable = False
    for lock, one in found:
        if not one.known:
            print(
                f"audit: skipped, as the index that answers here has advisories on none of the "
                f"{one.unknown} packages of {lock}"
            )
            break
        unknown = f", and {one.unknown} that PyPI does not know" if one.unknown else ""
        print(f"audit: {lock}: {one.known} packages{unknown}; {len(one.found)} vulnerabilities")
        for line in one.found:
            print(f"  {line}")
        vulnerable |= bool(one.found)
    return int(vulnerable)


if __name__ == "__main__":
    sys.exit(main())
