"""`python -m fruits_assets.spark` launch, clusters and end, as a person uses them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from fruits_assets.spark import __main__ as command
from fruits_assets.spark import clusters, sizing
from fruits_assets_tests.emr import Emr
from fruits_assets_tests.spark.conftest import User

INGEST = ("raw_images", "rejected_images")
BOOTED = 600
"""Seconds: a cluster that nothing runs on stays as it is."""


@dataclass(frozen=True)
class Printed:
    """What a command left.

    Attributes:
        code: its exit code.
        out: standard output.
        err: standard error.
    """

    code: int
    out: str
    err: str


Command = Callable[..., Printed]


@pytest.fixture
def run(user: User, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command with the user's `.env`, in which variables may differ."""

    def run(*arguments: str, **changed: str) -> Printed:
        for name, value in {**user.variables, **changed}.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = command.main(arguments)
        printed = capsys.readouterr()
        return Printed(code, printed.out, printed.err)

    return run


def _launched(printed: Printed) -> str:
    assert printed.code == 0, printed.err
    found = re.fullmatch(r"FRUITS_EMR_CLUSTER=(j-[A-Z0-9]+)\n", printed.out)
    assert found, printed.out
    return found[1]


def _alive(emr: Emr) -> list[str]:
    return [one.id for one in emr.clusters() if one.state in clusters.LIVE]


@pytest.mark.slow
def test_a_launched_cluster_is_used_by_runs_and_ended_by_nobody_else(user: User, run: Command):
    user.emr.plan(time_scale=5)  # it is idle for a while between two runs
    printed = run("launch")
    cluster = _launched(printed)
    assert "4 cores (0 of them on Spot) in eu-west-3" in printed.err
    assert re.search(r"costs 0\.\d\d EUR per hour", printed.err)
    assert "ends by itself when no step has run on it for 5 minutes" in printed.err
    assert f"end {cluster}" in printed.err

    attached = replace(user, changed={"FRUITS_EMR_CLUSTER": cluster})
    result, told = attached.run(*INGEST)
    assert result.success, told
    assert user.published() == sorted(INGEST)
    again, told = attached.run(*INGEST, ingest={"force": True})
    assert again.success, told

    (only,) = user.emr.clusters()
    # Each run ingests, and measures what its checks need.
    assert [step.state for step in only.steps] == 4 * ["COMPLETED"]
    assert only.state == "WAITING"
    assert only.request["AutoTerminationPolicy"] == {"IdleTimeout": 300}

    listed = run("clusters").out.splitlines()
    assert len(listed) == 1
    id_, of, state, minutes, eur = listed[0].split("\t")
    assert (id_, state) == (cluster, "WAITING")
    assert only.name == f"fruits fruits {of}"
    assert re.fullmatch(r"[0-5] min", minutes)
    assert 0 < float(eur.removesuffix(" EUR")) < 0.1

    ended = run("end", cluster)
    assert (ended.code, ended.out) == (0, f"{cluster}\n")
    assert user.emr.wait(cluster, "TERMINATED").code == "USER_REQUEST"
    assert run("clusters").out == ""


@pytest.fixture
def shipped(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code is where clusters find it, but nothing ever fetches it: none gets so far."""
    user.emr.plan(boot_seconds=BOOTED)
    monkeypatch.setattr(
        "fruits_assets.spark.environment.archive", lambda _, folder: _written(folder / "archive")
    )


def _written(file: Any) -> Any:
    file.write_bytes(b"no archive")
    return file


@pytest.fixture
def own_code(user: User) -> dict[str, str]:
    """A place for code of the test's own: what is no archive must not be found by others."""
    return {"FRUITS_EMR_CODE": f"{user.lake}-code", "FRUITS_EMR_IDLE_MINUTES": "90"}


@pytest.mark.usefixtures("shipped")
def test_a_cluster_is_as_large_as_asked_for(user: User, run: Command, own_code: dict[str, str]):
    printed = run("launch", "--cores", "12", **own_code)
    cluster = user.emr.cluster(_launched(printed))
    fleets = cluster.request["Instances"]["InstanceFleets"]
    capacity = {
        fleet["InstanceFleetType"]: fleet.get(
            "TargetSpotCapacity", fleet.get("TargetOnDemandCapacity")
        )
        for fleet in fleets
    }
    assert capacity == {"MASTER": 1, "CORE": 1, "TASK": 8}
    assert cluster.request["AutoTerminationPolicy"] == {"IdleTimeout": 5400}
    assert "12 cores (8 of them on Spot)" in printed.err
    assert "for 90 minutes" in printed.err


@pytest.mark.usefixtures("shipped")
def test_a_dry_run_prints_the_request_and_starts_nothing(
    user: User, run: Command, own_code: dict[str, str]
):
    printed = run("launch", "--dry-run", **own_code)
    assert printed.code == 0
    assert printed.err.endswith("Nothing was started.\n")
    assert "EUR per hour" in printed.err
    assert "RunJobFlow" not in [call.action for call in user.emr.history()]
    request = json.loads(printed.out)

    cluster = user.emr.cluster(_launched(run("launch", **own_code)))
    assert request.pop("Name") != cluster.name
    assert request == {name: it for name, it in cluster.request.items() if name != "Name"}


def test_what_a_cluster_costs_per_hour_is_what_it_is_billed(user: User):
    prices = sizing.Prices.load()
    limits = sizing.Limits()
    plans = [
        sizing.plan(sizing.Work(0, 0.0, ()), limits, prices, "eu-west-3", "arm64", cores=cores)
        for cores in (4, 16, 64)
    ]
    assert [plan.cores for plan in plans] == [4, 16, 64]
    (small, _, large) = plans
    cheapest = prices.families("eu-west-3", "arm64")[0]
    two = 2 * (
        prices.instance_eur("eu-west-3", f"{cheapest}.xlarge")
        + prices.emr_eur(f"{cheapest}.xlarge")
    )
    volumes = prices.ebs_eur("eu-west-3", 2 * (sizing.ROOT_GB + sizing.VOLUME_GB), 1)
    assert small.eur_per_hour == pytest.approx(two + volumes)
    assert small.eur_per_hour < large.eur_per_hour < 16 * small.eur_per_hour


@pytest.mark.parametrize("cores", ["0", "6", "-4", "68"])
def test_a_cluster_that_there_cannot_be_is_refused(user: User, run: Command, cores: str):
    printed = run("launch", "--cores", cores)
    assert (printed.code, printed.out) == (1, "")
    assert f"cannot have {cores} cores: ask for a multiple of 4, from 4 to 64" in printed.err
    assert user.emr.clusters() == []


@pytest.mark.usefixtures("shipped")
def test_old_clusters_are_ended(
    user: User, run: Command, own_code: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    launched = {_launched(run("launch", **own_code)) for _ in range(2)}
    asked: list[timedelta] = []
    sweep = clusters.OwnClusters.sweep

    def noted(self: Any, older_than: timedelta, *, dry_run: bool) -> list[clusters.Cluster]:
        asked.append(older_than)
        return sweep(self, older_than, dry_run=dry_run)

    monkeypatch.setattr(clusters.OwnClusters, "sweep", noted)
    assert run("end", "--older-than", "1.5").out == ""
    assert len(_alive(user.emr)) == 2
    assert set(run("end", "--older-than", "0").out.split()) == launched
    assert _alive(user.emr) == []
    assert asked == [timedelta(hours=1.5), timedelta(0)]


@pytest.mark.usefixtures("shipped")
def test_clusters_of_other_stacks_are_neither_listed_nor_ended(
    user: User, run: Command, own_code: dict[str, str]
):
    other = _launched(run("launch", **own_code, FRUITS_EMR_TAG="another"))
    own = _launched(run("launch", **own_code, FRUITS_EMR_TAG="fruits"))
    assert [line.split("\t")[0] for line in run("clusters").out.splitlines()] == [own]
    refused = run("end", own, other)
    assert (refused.code, refused.out) == (1, "")
    assert f"{other} is no cluster of the stack fruits that is alive" in refused.err
    assert _alive(user.emr) == [other, own]
    assert run("end", "--older-than", "0").out.split() == [own]
    assert _alive(user.emr) == [other]


def test_none_alive_is_said(user: User, run: Command):
    printed = run("clusters")
    assert (printed.code, printed.out) == (0, "")
    assert printed.err == "No cluster of the stack fruits is alive.\n"


@pytest.mark.usefixtures("shipped")
@pytest.mark.parametrize("arguments", [["launch"], ["clusters"], ["end", "j-1"]])
def test_errors_are_one_sentence(
    user: User, run: Command, own_code: dict[str, str], arguments: list[str]
):
    for changed, found in (
        ({"FRUITS_EMR_SUBNETS": "", "FRUITS_EMR_TAG": ""}, "FRUITS_EMR_SUBNETS"),
        ({"FRUITS_REGION": "eu-west-2"}, "'eu-west-2' is not in the European Union"),
        ({"FRUITS_EMR_POLL_SECONDS": "often"}, "FRUITS_EMR_POLL_SECONDS"),
    ):
        printed = run(*arguments, **{**own_code, **changed})
        assert (printed.code, printed.out) == (1, "")
        assert found in printed.err
        assert "Traceback" not in printed.err
        assert printed.err.count("\n") == 1
    assert user.emr.clusters() == []


@pytest.mark.usefixtures("shipped")
def test_what_aws_refuses_is_told(user: User, run: Command, own_code: dict[str, str]):
    user.emr.plan(refuse=("AccessDeniedException", "not authorized to perform iam:PassRole"))
    printed = run("launch", **own_code)
    assert (printed.code, printed.out) == (1, "")
    assert "iam:PassRole" in printed.err
    user.emr.expire_credentials()
    try:
        for arguments in (["clusters"], ["end", "j-1"], ["end", "--older-than", "1"]):
            printed = run(*arguments)
            assert (printed.code, printed.out) == (1, "")
            assert "credentials have expired" in printed.err
    finally:
        user.emr.restore_credentials()


@pytest.mark.parametrize(
    "arguments",
    [["end"], ["end", "--older-than", "-1"], ["end", "--older-than", "nan"], ["launch", "j-1"]],
)
def test_what_no_command_understands_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as left:
        command.main(arguments)
    assert left.value.code == 2
    assert "usage:" in capsys.readouterr().err
