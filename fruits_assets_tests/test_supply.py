"""Whatever is fetched is pinned: by a hash, by a commit, or in a checksum database."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fruits_assets_tests.conftest import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github").rglob("*.y*ml"))
COMMIT = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
HASHED = re.compile(r"--hash=sha256:[0-9a-f]{64}")
EXACT = re.compile(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[0-9][A-Za-z0-9.+!-]*( ; .+)?")


def _listed(*patterns: str) -> list[Path]:
    """Files of the repository, those that are not committed yet included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [path for name in done.stdout.splitlines() if (path := REPOSITORY / name).is_file()]


LOCKS = _listed("*.lock")
COMMANDS = _listed("Makefile", ".ci/*", ".github/*", "*.sh", "*.mk")
CODE = _listed("fruits_assets/*.py", "tools/*.py", "benchmarks/*.py")


def _uses(found: Any) -> list[str]:
    """The values of every key `uses`, at any depth."""
    if isinstance(found, list):
        return [it for one in found for it in _uses(one)]
    if not isinstance(found, dict):
        return []
    own = [str(found["uses"])] if "uses" in found else []
    return own + [it for one in found.values() for it in _uses(one)]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_the_version_beside_it(workflow: Path) -> None:
    text = workflow.read_text()
    actions = _uses(yaml.safe_load(text))
    assert actions
    for action in actions:
        assert COMMIT.fullmatch(action), action
        assert re.search(rf"{re.escape(action)} # v\d+\.\d+\.\d+$", text, re.MULTILINE), action


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_the_code_and_nothing_else(workflow: Path) -> None:
    found = yaml.safe_load(workflow.read_text())
    assert found["permissions"] == {"contents": "read"}
    assert not [job for job in found["jobs"].values() if "permissions" in job]
    # A run for a stranger's proposal must have no secrets.
    assert "pull_request_target" not in found[True]  # `on`, as YAML 1.1 reads it


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_hold_exact_versions_with_hashes_and_no_address(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    assert joined
    for line in joined:
        requirement, _, rest = line.partition("--hash=")
        assert EXACT.fullmatch(requirement.strip()), requirement
        hashes = f"--hash={rest}".split()
        assert all(HASHED.fullmatch(it) for it in hashes), requirement
    assert "://" not in lock.read_text()


UNPINNED = {
    r"\b(curl|wget)\b": "fetch it by a hash (fruits_assets/spark/jars.py)",
    r"\b(uvx|pipx|npx)\b|uv tool (run|install)": "give the tool a lock (tools/isolated.py)",
    r"@latest|go get\b": "name a version",
    r"pip install (?!.*--(require-hashes|no-deps))": "install from a lock, with hashes",
    r"pip sync (?!.*--require-hashes)": "compare hashes",
    r"--extra-index-url|--trusted-host|--index-url|--find-links": "hashes are compared, not places",
    r"playwright install|npm (install|i)\b": "take it from Debian or from a lock",
    r"GO(NO|IN|FLAGS=-)\w*=[^\s]*(insecure|off)|GOSUMDB=off|GONOSUMDB=\*": "ask Go's database",
}
"""What must not be in a file that runs commands -> what to do instead."""


@pytest.mark.parametrize("file", COMMANDS, ids=lambda path: path.name)
def test_commands_fetch_nothing_that_is_not_pinned(file: Path) -> None:
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        for pattern, instead in UNPINNED.items():
            assert not re.search(pattern, line.partition("# ")[0]), f"{file}:{number}: {instead}"


def test_go_modules_have_an_exact_version_and_are_in_the_checksum_database() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    (install,) = re.findall(r"GOBIN=.*(?:\\\n.*)*go install.*", makefile)
    for setting in ("GOSUMDB=sum.golang.org", "GONOSUMDB= ", "GOPRIVATE= ", "GOINSECURE= "):
        assert setting in install
    assert re.search(r"^VERSITYGW := .*-v\d+\.\d+\.\d+$", makefile, re.MULTILINE)


FETCHING = re.compile(r"urlopen|urlretrieve|requests\.get|httpx\.|spark\.jars\.packages|pooch")
MAY_FETCH = {
    "fruits_assets/spark/jars.py": "by hashes",
    "benchmarks/collections.py": "by hashes",
}
"""Modules that fetch something over the network that is not the user's own -> how it is pinned."""


def test_code_fetches_in_one_place() -> None:
    found = {
        str(file.relative_to(REPOSITORY)) for file in CODE if FETCHING.search(file.read_text())
    }
    assert found <= MAY_FETCH.keys()
