"""An audit says what it knows: a vulnerability fails, and no answer is not taken for none."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools import audit, isolated, sbom
from tools.audit import LOCKS, Audit, report
from tools.isolated import REPOSITORY, UnreachableError

ANSWERED = {"name": "pillow", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "numpy", "skip_reason": "Dependency not found on PyPI"}
VULNERABLE = {
    "name": "pillow",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}],
}


def of(*packages: dict[str, Any]) -> Audit:
    return Audit.of({"dependencies": list(packages)})


def test_a_vulnerability_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([("a.lock", of(ANSWERED)), ("b.lock", of(VULNERABLE, ANSWERED))]) == 1
    assert "pillow 1.0: PYSEC-1, fixed in 1.1" in capsys.readouterr().out


def test_no_vulnerability_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([("a.lock", of(ANSWERED, UNKNOWN))]) == 0
    printed = capsys.readouterr().out
    assert "1 packages, and 1 that PyPI does not know; 0 vulnerabilities" in printed


@pytest.mark.parametrize("known", ["PYSEC-1", "CVE-1"])
def test_an_accepted_advisory_passes(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ACCEPTED", {known: "the project does not open such files"})
    assert report([("a.lock", of(VULNERABLE))]) == 0


def test_no_answer_is_said_and_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert report([("a.lock", of(UNKNOWN)), ("b.lock", of(VULNERABLE))]) == 0
    assert "skipped" in capsys.readouterr().out


def _stand_in(tmp_path: Path, program: str) -> Path:
    command = tmp_path / "pip-audit"
    command.write_text(f"#!{sys.executable}\nimport sys\n{program}\n")
    command.chmod(0o755)
    return command


def test_a_feed_out_of_reach_is_no_failure(tmp_path: Path) -> None:
    said = "sys.exit('ERROR: Could not connect to the vulnerability feed')"
    with pytest.raises(UnreachableError, match="Could not connect"):
        audit.audit(_stand_in(tmp_path, said), Path("a.lock"))


def test_any_other_failure_is_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        audit.audit(_stand_in(tmp_path, "sys.exit('ERROR: not a requirement')"), Path("a.lock"))


def test_packages_are_asked_for_by_what_is_pinned(tmp_path: Path) -> None:
    answer = json.dumps({"dependencies": [ANSWERED]})
    said = f"print({answer!r}) if '--require-hashes' in sys.argv else sys.exit(1)"
    assert audit.audit(_stand_in(tmp_path, said), Path("a.lock")).known == 1


def test_every_lock_is_audited() -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.lock"]
    done = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    # Spark 3.5 is what some clusters have: no machine of the project's installs it but tests.
    assert {*LOCKS, "fruits_assets_tests/transforms/pyspark-3.5.6.lock"} == {*done.stdout.split()}


@pytest.mark.parametrize("pinned", [f" --hash=sha256:{'0' * 64}", ""], ids=["wrong", "without"])
def test_a_tool_that_is_not_what_was_pinned_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: str
) -> None:
    """Uv compares hashes of what it has in its cache, too: nothing is fetched."""
    lock = tmp_path / "tool.lock"
    lock.write_text(f"filetype==1.2.0{pinned}\n")
    monkeypatch.setattr(isolated, "lock_of", lambda _: lock)
    monkeypatch.setattr(isolated, "CACHE", tmp_path)
    with pytest.raises((subprocess.CalledProcessError, UnreachableError)):
        isolated.environment("tool")
    assert not list(tmp_path.glob("tool-*/whole"))


def test_a_bill_names_what_spark_may_fetch() -> None:
    bill = sbom.with_jars({"bomFormat": "CycloneDX", "components": [{"name": "numpy"}]})
    by_name = {it["name"]: it for it in bill["components"]}
    assert {"numpy", "hadoop-aws", "delta-spark_2.13"} <= by_name.keys()
    jar = by_name["hadoop-aws"]
    assert jar["purl"] == f"pkg:maven/org.apache.hadoop/hadoop-aws@{jar['version']}"
    assert len(jar["hashes"][0]["content"]) == 64
