"""docs/emr.md, followed to the letter: its commands, in its order, on an emulated account.

What only AWS itself can answer stands below *Needs AWS.* on the page, and is passed over.
"""

import ast
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fruits_assets.lake.lake import Lake
from fruits_assets_tests import aws_sync, node, pages, s3
from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.emr import Cluster, Emr, eventually
from fruits_assets_tests.pages import Block

PAGE = REPOSITORY / "docs" / "emr.md"
LINKED = ("Makefile", "pyproject.toml", "requirements.lock", "workspace.yaml")
"""What `make` finds in the repository; `.env`, the lake and Dagster's home are the reader's own."""
CACHES = (".cache", ".config", ".pyenv")
"""Of the home folder: packages are not fetched again, and this machine's own index is known."""
PASSED_ON = re.compile(
    r"PATH|JAVA_HOME|LANG|LC_.*|(SSL|UV|PIP|XDG|PYENV)_.*|REQUESTS_CA_BUNDLE|.*_(proxy|PROXY)"
)
"""Not what `make test` itself was told: a `make` in it would take ARGS and DAGSTER_HOME over."""
STEPS = (
    *("ingest", "inspect_images", "featurize", "inspect_features"),
    *("fit_pca", "apply_pca", "recognize"),
)
SECONDS = 600
TYPED = "fruits\n"
"""By the person at the terminal: the name of the stack, when it is to be deleted."""

NOT_EMULATED = {
    "key": "moto fails to describe a key that its CloudFormation made",
    "routes": "moto's CloudFormation gives all subnets public addresses",
    "endpoint of S3": "moto's CloudFormation associates no route table with a subnet",
    "instance types": "moto's CloudFormation takes the zones of us-east-1",
    "quota on demand": "moto knows quotas of VPCs only",
    "quota Spot": "moto knows quotas of VPCs only",
}
"""Line of `make emr-check` that says FIX -> why it does here."""


@dataclass(frozen=True)
class Followed:
    """What came of following the page.

    Attributes:
        home: the folder that the reader worked in.
        told: block -> what it printed, errors included.
        settings: the lines of `.env`, the last of each name.
    """

    emr: Emr
    home: Path
    told: dict[str, str]
    settings: dict[str, str]
    clusters: list[Cluster]

    def of(self, command: str) -> str:
        """What the first block with a command printed."""
        return next(text for block, text in self.told.items() if command in block)


def blocks() -> list[Block]:
    """What is typed, in order."""
    found = [block for block in pages.blocks(PAGE) if block.language in {"bash", "python"}]
    return [block for block in found if block.marker is None]


@pytest.fixture(scope="module")
def followed(
    emr_service: Emr, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Followed]:
    emr_service.reset()
    emr_service.plan(time_scale=5)
    home = tmp_path_factory.mktemp("reader")
    environment = _environment(emr_service, home, photos)
    told = {}
    for block in blocks():
        told[block.text] = _follow(block, home / "fruits", environment, emr_service)
    settings = _settings(home / "fruits")
    clusters = eventually(lambda: _ended(emr_service))
    with s3.used(emr_service.endpoint):
        yield Followed(emr_service, home, told, settings, clusters)
    emr_service.reset()


def _environment(emr: Emr, home: Path, photos: Path) -> dict[str, str]:
    """The variables, home folder and checkout of somebody who has just cloned the repository."""
    checkout, programs = home / "fruits", home / "bin"
    for folder in (checkout, checkout / ".venv", programs):
        folder.mkdir()
    for name in LINKED:
        (checkout / name).symlink_to(REPOSITORY / name)
    for path in Path(sys.prefix).iterdir():
        if path.name != "installed":
            (checkout / ".venv" / path.name).symlink_to(path)
    (checkout / ".venv" / "installed").touch()  # nothing that `make` would install again
    (home / "photos").symlink_to(photos)
    for name in CACHES:
        if (Path.home() / name).exists():
            (home / name).symlink_to(Path.home() / name)
    own = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    variables = {
        **own,
        **emr.environment,
        "HOME": str(home),
        "AWS_DEFAULT_REGION": s3.REGION,  # as `aws configure` has asked for it
        "FRUITS_WEIGHTS": "sample",  # those of ImageNet are at Keras's server
        # The emulated machines are of this machine's kind, and have nothing to wait for.
        "FRUITS_EMR_ARCHITECTURE": node.architecture(),
        "FRUITS_EMR_POLL_SECONDS": "0.2",
    }
    if not _has_aws(variables):
        stand_in = [sys.executable, str(aws_sync.__file__)]
        (programs / "aws").write_text(f'#!/bin/bash\nexec {shlex.join(stand_in)} "$@"\n')
        (programs / "aws").chmod(0o755)
    return {**variables, "PATH": f"{programs}:{variables['PATH']}"}


def _has_aws(environment: dict[str, str]) -> bool:
    """Whether the AWS CLI is here, and of a version that minds AWS_ENDPOINT_URL."""
    if shutil.which("aws") is None:
        return False
    done = subprocess.run(
        ["aws", "--version"], env=environment, capture_output=True, text=True, check=False
    )
    found = re.match(r"aws-cli/(\d+)\.(\d+)", done.stdout)
    if done.returncode or found is None:
        return False
    major, minor = map(int, found.groups())
    return minor >= {1: 29, 2: 13}.get(major, 0)


def _follow(block: Block, checkout: Path, environment: dict[str, str], emr: Emr) -> str:
    """Runs a block, and returns what it printed."""
    if "make destroy" in block.text:
        _forget_routes(emr)
    program = {"bash": ["bash", "-eu"], "python": [".venv/bin/python"]}[block.language]
    process = subprocess.Popen(
        [*program, "-c", block.text],
        cwd=checkout,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(TYPED, timeout=SECONDS)
    finally:  # and with it, whatever it has started
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for sign in ("packages of s3a are not to be had", *node.UNREACHABLE):
        if process.returncode and sign in printed:
            pytest.skip(f"packages cannot be fetched from here: {printed[-500:]}")
    expected = process.returncode == 0 or "make emr-check" in block.text
    assert expected, f"{block.text}\n{printed[-5000:]}"
    if "make deploy" in block.text:
        _put_right(emr, _settings(checkout)["FRUITS_EMR_SECURITY_CONFIGURATION"])
    return printed


def _put_right(emr: Emr, name: str) -> None:
    """As JSON, a security configuration that moto's CloudFormation stored as Python writes it."""
    client = emr.client()
    text = client.describe_security_configuration(Name=name)["SecurityConfiguration"]
    client.delete_security_configuration(Name=name)
    client.create_security_configuration(
        Name=name, SecurityConfiguration=json.dumps(ast.literal_eval(text))
    )


def _settings(checkout: Path) -> dict[str, str]:
    """The lines of `.env`; of a name that is there twice, the last."""
    return dict(line.split("=", 1) for line in (checkout / ".env").read_text().splitlines())


def _forget_routes(emr: Emr) -> None:
    """Deletes all route tables, as CloudFormation does before it deletes their network.

    moto's leaves them where they are, and then refuses to delete the network.
    """
    client = emr.client("ec2")
    for table in client.describe_route_tables()["RouteTables"]:
        if not any(it["Main"] for it in table["Associations"]):
            client.delete_route_table(RouteTableId=table["RouteTableId"])


def _ended(emr: Emr) -> list[Cluster]:
    """All clusters there have been, once they have ended."""
    clusters = emr.clusters()
    over = {"TERMINATED", "TERMINATED_WITH_ERRORS"}
    return clusters if all(one.state in over for one in clusters) else []


def test_the_page_has_commands_and_marks_what_needs_aws() -> None:
    assert len(blocks()) >= 9
    assert len(pages.blocks(PAGE)) > len(blocks())
    for block in blocks():
        ids = re.findall(r"\bj-[A-Z0-9]+|\.\.\.", block.text)
        assert not ids, f"{ids} cannot be typed as it stands"


def test_the_stand_in_of_the_command_line_copies_both_ways(
    emr_service: Emr, photos: Path, tmp_path: Path
) -> None:
    bucket = emr_service.s3.bucket()
    for source, target in ((photos, f"s3://{bucket}/a/b"), (f"s3://{bucket}/a/b/", tmp_path)):
        command = [sys.executable, str(aws_sync.__file__), "s3", "sync", str(source), str(target)]
        done = subprocess.run(
            command, env={**os.environ, **emr_service.environment}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 90
    files = [path.relative_to(photos) for path in photos.rglob("*.jpg")]
    assert all((tmp_path / file).read_bytes() == (photos / file).read_bytes() for file in files)


@pytest.mark.slow
def test_a_cluster_ran_all_of_it_and_ended_with_the_run(followed: Followed) -> None:
    cluster, _ = followed.clusters
    assert [(step.name, step.state) for step in cluster.steps] == [
        (name, "COMPLETED") for name in STEPS
    ]
    assert (cluster.state, cluster.code) == ("TERMINATED", "USER_REQUEST")
    assert "user request" in (cluster.message or ""), "its run ended it, and not its idle timeout"
    assert cluster.request["ServiceRole"] == followed.settings["FRUITS_EMR_SERVICE_ROLE"]
    assert cluster.tags["fruits-stack"] == "fruits"


@pytest.mark.slow
def test_the_results_are_in_the_lake(followed: Followed) -> None:
    lake = Lake.at(followed.settings["FRUITS_LAKE"], region=s3.REGION)
    assert lake.current("pca_features").rows == 90
    summary = followed.of("fruits status")
    assert re.search(r"pca_features .* 90 photos, \d+ components each", summary)
    assert "components" in followed.of("lake.current")
    client, (_, _, bucket, prefix) = followed.emr.s3.client, lake.base.split("/", 3)
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/pca_features/")["Contents"]
    keys = [one["Key"] for one in found]
    assert {key.rpartition(".")[2] for key in keys} == {"json", "parquet"}, "the log, and parts"
    for key in keys:
        encryption = client.head_object(Bucket=bucket, Key=key)
        assert encryption["SSEKMSKeyId"] == followed.settings["FRUITS_KMS_KEY"]


@pytest.mark.slow
def test_the_check_finds_all_that_is_emulated_in_order(followed: Followed) -> None:
    lines = re.findall(r"^(OK|FIX) +([^:]+):", followed.of("make emr-check"), re.MULTILINE)
    assert {what for found, what in lines if found == "FIX"} == NOT_EMULATED.keys()
    in_order = {what for found, what in lines if found == "OK"}
    assert in_order >= {"source", "logs", "service role", "security configuration", "subnets"}


@pytest.mark.slow
def test_the_price_is_told_before_and_after(followed: Followed) -> None:
    printed = followed.of("make run")
    assert "90 images take" in printed
    assert re.search(r"ended the run's cluster: .*fruits/cost_eur 0\.\d*[1-9]", printed)


@pytest.mark.slow
def test_logs_of_steps_can_be_read(followed: Followed) -> None:
    cluster, _ = followed.clusters
    logs = followed.home / "fruits" / "logs" / cluster.id / "steps"
    assert {folder.name for folder in logs.iterdir()} == {step.id for step in cluster.steps}
    assert len(followed.of("gunzip").splitlines()) > 20


@pytest.mark.slow
def test_a_cluster_that_stays_is_used_listed_and_ended(followed: Followed) -> None:
    _, cluster = followed.clusters
    told = followed.of("spark launch")
    assert re.search(rf"^{cluster.id}\t.*\tWAITING\t", told, re.MULTILINE)
    assert told.rstrip().endswith(cluster.id)
    assert (cluster.state, cluster.code) == ("TERMINATED", "USER_REQUEST")
    assert "user request" in (cluster.message or "")
    assert followed.settings["FRUITS_EMR_CLUSTER"] == ""


@pytest.mark.slow
def test_nothing_is_left_to_sweep(followed: Followed) -> None:
    assert "ended 0 clusters older than 12 hours" in followed.of("sweep_clusters")


@pytest.mark.slow
def test_the_end_of_the_stack_leaves_the_data(followed: Followed) -> None:
    told = followed.of("make destroy")
    assert "The stack fruits is deleted." in told
    stacks = followed.emr.client("cloudformation").describe_stacks()["Stacks"]
    assert not [stack for stack in stacks if stack["StackName"] == "fruits"]
    bucket = followed.settings["FRUITS_SOURCE"].split("/")[2]
    assert f"aws s3 rb s3://{bucket}" in told
    for prefix, count in (("photos/", 90), ("lake/pca_features/", 1)):
        found = followed.emr.s3.client.list_objects_v2(Bucket=bucket, Prefix=prefix)
        assert found["KeyCount"] >= count
