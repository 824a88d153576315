"""Writes the software bills of materials (`make sbom`): CycloneDX 1.6, JSON.

One of what is installed on this machine, with what Spark may fetch beside it, and one of the
environment of clusters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fruits_assets.spark.jars import PINNED, Jar
from tools.isolated import REPOSITORY, UnreachableError, environment

FOLDER = REPOSITORY / "artifacts" / "sbom"
OPTIONS = ("--of", "JSON", "--sv", "1.6", "--output-reproducible", "--validate")


def component(jar: Jar) -> dict[str, Any]:
    """A file of Maven Central, as CycloneDX has it."""
    purl = f"pkg:maven/{jar.group}/{jar.artifact}@{jar.version}"
    return {
        "bom-ref": purl,
        "type": "library",
        "scope": "optional",
        "group": jar.group,
        "name": jar.artifact,
        "version": jar.version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": jar.sha256}],
        "externalReferences": [{"type": "distribution", "url": jar.url}],
    }


def with_jars(bill: dict[str, Any]) -> dict[str, Any]:
    """A bill, and what Spark may fetch."""
    jars = [jar for purpose in json.loads(PINNED.read_text()) for jar in Jar.all_for(purpose)]
    return {**bill, "components": [*bill["components"], *map(component, jars)]}


def main() -> int:
    """Writes both; returns the exit code."""
    try:
        command = environment("supply") / "cyclonedx-py"
    except UnreachableError as error:
        print(f"sbom: cyclonedx-bom cannot be installed from here ({error})", file=sys.stderr)
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    host, cluster = FOLDER / "host.cdx.json", FOLDER / "cluster.cdx.json"
    project = str(REPOSITORY / "pyproject.toml")
    installed = ("environment", sys.prefix, "--pyproject", project)
    locked = ("requirements", str(REPOSITORY / "fruits_assets" / "spark" / "cluster.lock"))
    _write(command, host, *installed)
    _write(command, cluster, *locked)
    host.write_text(json.dumps(with_jars(json.loads(host.read_text())), indent=2) + "\n")
    for bill in (host, cluster):
        count = len(json.loads(bill.read_text())["components"])
        print(f"{bill.relative_to(REPOSITORY)}: {count} components")
    return 0


def _write(command: Path, target: Path, *source: str) -> None:
    subprocess.run([str(command), *source, *OPTIONS, "--output-file", str(target)], check=True)


if __name__ == "__main__":
    sys.exit(main())
