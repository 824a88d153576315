"""The GitHub workflow does what `.ci/run` does, with actions that cannot change under it."""

import re

import yaml

from fruits_assets_tests.conftest import REPOSITORY

WORKFLOW = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text()
TIERS = {"test-all": {"test", "test-slow"}}
"""Target of `.ci/run` -> the targets that the workflow runs side by side instead."""


def test_every_action_is_pinned_by_its_commit() -> None:
    used = re.findall(r"uses: (\S+)", WORKFLOW)
    assert len(used) >= 5
    assert [one for one in used if not re.search(r"@[0-9a-f]{40}$", one)] == []


def test_it_runs_what_must_pass_before_a_change_lands() -> None:
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    targets = {one["target"] for one in job["strategy"]["matrix"]["include"]}
    script = (REPOSITORY / ".ci" / "run").read_text()
    expected: set[str] = set()
    for target in re.findall(r"^make (\S+)$", script, re.MULTILINE):
        expected |= TIERS.get(target, {target})
    assert targets == expected
