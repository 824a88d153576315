"""`deploy` and `destroy` as a person runs them, against servers on loopback.

moto's server stands for AWS where all goes well. It never fails a deployment and knows no expired
credentials: where AWS is to refuse, a server with a few answers in CloudFormation's XML does.
"""

import contextlib
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.exceptions import CredentialRetrievalError, UnauthorizedSSOTokenError
from moto.server import ThreadedMotoServer

from fruits_assets.infrastructure.__main__ import main
from fruits_assets.infrastructure.stack import TAG
from fruits_assets.settings import Settings
from fruits_assets.storage.aws_errors import explain
from fruits_assets.storage.region import EU_REGIONS
from fruits_assets_tests.emulator.cloudformation import DEPLOYED

REGION = "eu-north-1"
STACK = ("--stack", "fruits", "--region", REGION)

# moto's CloudFormation says so of bucket policies and budgets: test_stack.py holds what they say.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what this machine knows of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """The command, with what is typed in and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "stdin", io.StringIO(typed))
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


# ------------------------------------------------------------------------- against moto's server


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(moto: str, credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account of moto's as it was left."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)


@pytest.fixture
def aws(moto: str, account: None) -> None:
    """An account of moto's with nothing in it."""
    _empty(moto)


def _empty(moto: str) -> None:
    urlopen(Request(f"{moto}/moto-api/reset", method="POST")).close()  # noqa: S310 - loopback


def client(service: str) -> Any:
    return _client(service, os.environ["AWS_ENDPOINT_URL"])


@cache
def _client(service: str, endpoint: str) -> Any:
    session = boto3.Session("test", "test", region_name=REGION)
    return session.client(service, endpoint_url=endpoint)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownMemberType, reportUnknownVariableType]


def stack() -> dict[str, Any]:
    return client("cloudformation").describe_stacks(StackName="fruits")["Stacks"][0]


def forget_routes() -> None:
    """Deletes all route tables, as CloudFormation does before it deletes their network.

    moto's leaves them where they are, and then refuses to delete the network.
    """
    ec2 = client("ec2")
    for table in ec2.describe_route_tables()["RouteTables"]:
        associations = table["Associations"]
        if not any(it["Main"] for it in associations):
            for it in associations:
                ec2.disassociate_route_table(AssociationId=it["RouteTableAssociationId"])
            ec2.delete_route_table(RouteTableId=table["RouteTableId"])


def settings(printed: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in printed.splitlines())


Deployed = subprocess.CompletedProcess[str]


@pytest.fixture(scope="class")
def deployed(moto: str) -> Deployed:
    """Deploys the only stack of an account, and returns what the command printed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_ENDPOINT_URL", moto)
        _empty(moto)
        done = run("deploy", *STACK)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.usefixtures("account", "deployed")
class TestDeployed:
    """Tests of a stack that is there, which leave it as it is."""

    def test_a_deployment_prints_the_lines_of_the_environment_and_nothing_else(
        self, deployed: Deployed
    ) -> None:
        lines = settings(deployed.stdout)
        assert all(name.startswith("FRUITS_") for name in lines)
        (data, log) = sorted(it["Name"] for it in client("s3").list_buckets()["Buckets"])
        assert lines["FRUITS_LAKE"] == f"s3://{data}/lake"
        assert lines["FRUITS_SOURCE"] == f"s3://{data}/photos"
        assert lines["FRUITS_REGION"] == REGION
        assert lines["FRUITS_BUCKET_OWNER"] == "123456789012"
        assert lines["FRUITS_SPARK"] == "local"
        assert lines["FRUITS_EMR_LOGS"] == f"s3://{log}/emr/"
        assert [it["KeyArn"] for it in client("kms").list_keys()["Keys"]] == [
            lines["FRUITS_KMS_KEY"]
        ]
        rule = client("s3").get_bucket_encryption(Bucket=data)["ServerSideEncryptionConfiguration"]
        default = rule["Rules"][0]["ApplyServerSideEncryptionByDefault"]
        assert default["KMSMasterKeyID"] == lines["FRUITS_KMS_KEY"]
        roles = {it["Arn"] for it in client("iam").list_roles()["Roles"]}
        assert lines["FRUITS_EMR_SERVICE_ROLE"] in roles
        assert {"Key": TAG, "Value": "fruits"} in stack()["Tags"]
        for policy in ("OrchestratorPolicy", "ClusterChecksPolicy"):
            assert f"  arn:aws:iam::123456789012:policy/fruits-{policy}-" in deployed.stderr
        assert f"no budgets in {REGION}" in deployed.stderr

    def test_the_lines_are_all_that_clusters_need_to_be_told(
        self, deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in [name for name in os.environ if name.startswith("FRUITS_")]:
            monkeypatch.delenv(name)
        monkeypatch.chdir(tmp_path)
        (tmp_path / ".env").write_text(deployed.stdout)
        assert Settings().spark == "local", "a cluster costs money: nobody has one unasked"
        account = Settings().emr()
        subnets = client("ec2").describe_subnets(SubnetIds=account.subnets.split(","))["Subnets"]
        assert len({it["AvailabilityZone"] for it in subnets}) == len(subnets) == 2
        names = [account.primary_security_group, account.worker_security_group]
        groups = client("ec2").describe_security_groups(
            GroupIds=[*names, account.service_security_group]
        )["SecurityGroups"]
        assert {it["VpcId"] for it in groups} == {it["VpcId"] for it in subnets}
        assert Settings().serverless().account.serverless_application in DEPLOYED

    def test_a_second_deployment_changes_nothing_and_prints_the_same(
        self, deployed: Deployed
    ) -> None:
        again = run("deploy", *STACK)
        assert (again.returncode, again.stdout) == (0, deployed.stdout)
        assert len(client("s3").list_buckets()["Buckets"]) == 2

    @pytest.mark.parametrize("typed", ["", "yes\n", "Fruits\n"])
    def test_without_its_name_nothing_is_destroyed(self, typed: str) -> None:
        before = stack()
        done = run("destroy", *STACK, typed=typed)
        assert done.returncode == 1
        assert "nothing was deleted" in done.stderr
        assert stack()["StackStatus"] == before["StackStatus"]
        assert stack()["StackId"] == before["StackId"]


def test_parameters_are_set_and_then_stay_set(aws: None) -> None:
    def values() -> dict[str, str]:
        return {it["ParameterKey"]: it["ParameterValue"] for it in stack()["Parameters"]}

    run("deploy", *STACK, "--set", "LogDays=11")
    assert (values()["LogDays"], values()["OldVersionDays"]) == ("11", "30")
    done = run("deploy", *STACK, "--set", "OldVersionDays=12")
    assert done.returncode == 0, done.stderr
    assert stack()["StackStatus"] == "UPDATE_COMPLETE"
    assert (values()["LogDays"], values()["OldVersionDays"]) == ("11", "12")


def test_two_stacks_lie_beside_each_other(aws: None) -> None:
    first = run("deploy", *STACK)
    second = run("deploy", "--stack", "other", "--region", REGION)
    assert second.returncode == 0, second.stderr
    assert not set(settings(first.stdout).values()) & {settings(second.stdout)["FRUITS_LAKE"]}


def test_destroying_explains_what_it_keeps_and_keeps_it(aws: None) -> None:
    lines = settings(run("deploy", *STACK).stdout)
    buckets = {it["Name"] for it in client("s3").list_buckets()["Buckets"]}
    forget_routes()
    done = run("destroy", *STACK, typed="fruits\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    for bucket in buckets:
        assert f"aws s3 rb s3://{bucket} --region {REGION}" in done.stderr
    key = lines["FRUITS_KMS_KEY"].rpartition("/")[2]
    assert f"schedule-key-deletion --key-id {key} --region {REGION}" in done.stderr
    assert "OrchestratorPolicy" in done.stderr
    assert "ClusterChecksPolicy" in done.stderr
    assert f"aws ec2 delete-vpc-endpoints --region {REGION}" in done.stderr
    assert not client("cloudformation").describe_stacks()["Stacks"]
    assert not [it for it in client("iam").list_roles()["Roles"] if "fruits" in it["RoleName"]]
    assert {it["Name"] for it in client("s3").list_buckets()["Buckets"]} == buckets
    assert run("deploy", *STACK).returncode == 0


def test_destroying_asks_nothing_when_told_so(aws: None) -> None:
    run("deploy", *STACK)
    forget_routes()
    done = run("destroy", *STACK, "--yes")
    assert done.returncode == 0, done.stderr
    assert not client("cloudformation").describe_stacks()["Stacks"]


def test_a_stack_that_is_not_there_cannot_be_destroyed(aws: None) -> None:
    done = run("destroy", *STACK, "--yes")
    assert done.returncode == 1
    assert done.stderr == (
        f"there is no stack 'fruits' in {REGION}. Name the one that was deployed, and its region.\n"
    )


# ------------------------------------------------------------------- before any request is made


@pytest.mark.parametrize("command", ["deploy", "destroy"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-west-2", "eu-central-2", "nowhere"])
def test_a_region_outside_the_eu_is_refused(
    command: str, region: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--stack", "fruits", "--region", region]) == 1
    told = capsys.readouterr().err
    assert region in told
    assert all(allowed in told for allowed in EU_REGIONS)


def test_no_region_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", "--stack", "fruits", "--region", ""]) == 1
    told = capsys.readouterr().err
    assert all(allowed in told for allowed in EU_REGIONS)


@pytest.mark.parametrize("name", ["", "two words", "1st", "a_b", "é"])
def test_a_name_that_no_stack_can_have_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "--stack", name, "--region", REGION]) == 1
    assert "begins with a letter" in capsys.readouterr().err


@pytest.mark.parametrize("parameter", ["LogDays", "=3", "Log Days=3"])
def test_a_parameter_without_a_name_or_value_is_refused(
    parameter: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", *STACK, "--set", parameter]) == 1
    assert f"--set {parameter} is not NAME=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["deploy", pytest.param("destroy", marks=pytest.mark.slow)])
def test_missing_credentials_are_told(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fruits_assets.infrastructure", command, *STACK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there are no AWS credentials on this machine. Sign in" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_PROFILE", "nobody"), ("AWS_ACCESS_KEY_ID", "half")]
)
def test_unusable_credentials_are_told(
    variable: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["deploy", *STACK]) == 1
    told = capsys.readouterr().err
    assert "credentials at hand cannot be used" in told
    assert "Sign in" in told


@pytest.mark.parametrize(
    "error",
    [UnauthorizedSSOTokenError(), CredentialRetrievalError(provider="sso", error_msg="expired")],
)
def test_a_session_that_ended_is_told(error: Any) -> None:
    assert "Sign in" in explain(error, REGION, may="")


def test_an_endpoint_that_nobody_listens_at_is_told(
    credentials: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert main(["deploy", *STACK]) == 1
    assert f"AWS cannot be reached in {REGION}" in capsys.readouterr().err


# ------------------------------------------------------------------------- where AWS refuses


@dataclass
class CloudFormation:
    """A stack that is in one state before an operation, and in another after it.

    Attributes:
        before: its state at first; empty where it does not exist yet.
        after: its state once an operation has begun.
        failures: (resource, reason) of what fails in it, the first failure first.
        refusal: code and message that everything is answered with instead.
        refused: action that is answered so; empty for every one.
    """

    before: str = ""
    after: str = ""
    failures: tuple[tuple[str, str], ...] = ()
    refusal: tuple[str, str] | None = None
    refused: str = ""
    token: str = field(default="", init=False)
    requests: list[dict[str, str]] = field(default_factory=list, init=False)

    def answer(self, request: dict[str, str]) -> tuple[int, str]:
        """Status and body for a request of the query protocol."""
        self.requests.append(request)
        action = request["Action"]
        if self.refusal and self.refused in {"", action}:
            return self._error(*self.refusal)
        if action == "DescribeStacks":
            status = self.after if self.token else self.before
            if not status:
                return self._error("ValidationError", "Stack with id fruits does not exist")
            return self._result(
                action,
                "<Stacks><member><StackName>fruits</StackName><StackId>arn:fruits</StackId>"
                "<CreationTime>2026-01-01T00:00:00Z</CreationTime>"
                f"<StackStatus>{status}</StackStatus><Outputs><member>"
                "<OutputKey>BudgetAlarm</OutputKey><OutputValue>None.</OutputValue>"
                "</member></Outputs></member></Stacks>",
            )
        if action in {"CreateStack", "UpdateStack", "DeleteStack"}:
            self.token = request["ClientRequestToken"]
            return self._result(action, "<StackId>arn:fruits</StackId>")
        if action == "DescribeStackEvents":
            return self._result(action, f"<StackEvents>{self._events()}</StackEvents>")
        assert action == "ListStackResources"
        return self._result(action, "<StackResourceSummaries></StackResourceSummaries>")

    def _events(self) -> str:
        """The latest first, as CloudFormation gives them; an operation of before is the oldest."""
        events = [("an-earlier-operation", "Key", "something of before")]
        events += [(self.token, *failure) for failure in self.failures]
        return "".join(
            f"<member><EventId>{number}</EventId><StackId>arn:fruits</StackId>"
            f"<StackName>fruits</StackName><Timestamp>2026-01-01T00:00:00Z</Timestamp>"
            f"<ClientRequestToken>{token}</ClientRequestToken>"
            f"<LogicalResourceId>{resource}</LogicalResourceId>"
            f"<ResourceType>AWS::Some::Type</ResourceType>"
            f"<ResourceStatus>CREATE_FAILED</ResourceStatus>"
            f"<ResourceStatusReason>{reason}</ResourceStatusReason></member>"
            for number, (token, resource, reason) in reversed(list(enumerate(events)))
        )

    @staticmethod
    def _result(action: str, content: str) -> tuple[int, str]:
        space = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
        result = f"<{action}Result>{content}</{action}Result>"
        return 200, f'<{action}Response xmlns="{space}">{result}</{action}Response>'

    @staticmethod
    def _error(code: str, message: str) -> tuple[int, str]:
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        return 400, f"<ErrorResponse>{error}</ErrorResponse>"


@pytest.fixture
def cloudformation(credentials: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudFormation]:
    """What a test sets of it is what the command meets."""
    service = CloudFormation()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            request = {name: values[0] for name, values in parse_qs(body).items()}
            status, answer = service.answer(request)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield service
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("states", "verb", "advice"),
    [
        (("", "ROLLBACK_COMPLETE"), "deploy", f"`make destroy STACK=fruits REGION={REGION}`"),
        (("CREATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"), "deploy", "All is as it was before."),
        (("CREATE_COMPLETE", "UPDATE_ROLLBACK_FAILED"), "deploy", "continue-update-rollback"),
        (("CREATE_COMPLETE", "DELETE_FAILED"), "destroy", f"STACK=fruits REGION={REGION}` again"),
    ],
)
def test_a_failed_operation_says_which_resources_failed_and_why(
    cloudformation: CloudFormation,
    states: tuple[str, str],
    verb: str,
    advice: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloudformation.before, cloudformation.after = states
    cloudformation.failures = (
        ("NodeRole", "not authorized to perform iam:CreateRole"),
        ("DataBucket", "Resource creation cancelled"),
        ("Budget", "another failure"),
    )
    arguments = [verb, *STACK, *(["--yes"] if verb == "destroy" else [])]
    assert main(arguments) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert (
        f"the stack 'fruits' ended as {states[1]}:\n"
        "  NodeRole (AWS::Some::Type): not authorized to perform iam:CreateRole\n"
        "  Budget (AWS::Some::Type): another failure\n"
    ) in told.err
    assert advice in told.err


def test_a_deployment_with_nothing_new_succeeds(cloudformation: CloudFormation) -> None:
    cloudformation.before = "UPDATE_COMPLETE"
    cloudformation.refused = "UpdateStack"
    cloudformation.refusal = ("ValidationError", "No updates are to be performed.")
    assert main(["deploy", *STACK]) == 0
    assert "UpdateStack" in [it["Action"] for it in cloudformation.requests]


def test_an_update_that_is_refused_is_told(
    cloudformation: CloudFormation, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudformation.before = "UPDATE_COMPLETE"
    cloudformation.refused = "UpdateStack"
    cloudformation.refusal = ("ValidationError", "Parameters: [LogDay] do not exist.")
    assert main(["deploy", *STACK]) == 1
    assert "Parameters: [LogDay] do not exist" in capsys.readouterr().err


def test_a_first_deployment_that_fails_leaves_no_empty_buckets(
    cloudformation: CloudFormation,
) -> None:
    cloudformation.after = "ROLLBACK_COMPLETE"
    main(["deploy", *STACK])
    (creation,) = [it for it in cloudformation.requests if it["Action"] == "CreateStack"]
    assert creation["RetainExceptOnCreate"] == "true"


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("ROLLBACK_COMPLETE", f"Remove it with `make destroy STACK=fruits REGION={REGION}`"),
        ("ROLLBACK_FAILED", "Remove it with"),
        ("CREATE_FAILED", "Remove it with"),
        ("DELETE_FAILED", "Remove it with"),
        ("REVIEW_IN_PROGRESS", "Remove it with"),
        ("UPDATE_IN_PROGRESS", "Wait until that is over"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name fruits"),
    ],
)
def test_a_stack_that_cannot_be_deployed_to_is_told_with_what_to_do(
    cloudformation: CloudFormation, status: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudformation.before = status
    assert main(["deploy", *STACK]) == 1
    told = capsys.readouterr().err
    assert status in told
    assert advice in told
    assert {it["Action"] for it in cloudformation.requests} == {"DescribeStacks"}


def test_the_remains_of_a_failed_deployment_can_be_removed(
    cloudformation: CloudFormation, capsys: pytest.CaptureFixture[str]
) -> None:
    cloudformation.before, cloudformation.after = "ROLLBACK_COMPLETE", "DELETE_COMPLETE"
    assert main(["destroy", *STACK, "--yes"]) == 0
    assert "Kept" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        (("AccessDenied", "arn:me may not."), "does not allow this (arn:me may not). Sign in as"),
        (("ExpiredToken", "expired"), "the AWS credentials have expired. Sign in"),
        (("InvalidClientTokenId", "invalid"), f"AWS does not know these credentials in {REGION}"),
        (("SignatureDoesNotMatch", "Signature expired"), "Correct the clock"),
        (("Throttling", "Rate exceeded"), "Wait a minute"),
        (("ValidationError", "Template format error"), "(ValidationError: Template format error)"),
    ],
)
@pytest.mark.parametrize("command", ["deploy", "destroy"])
def test_refusals_of_aws_are_sentences(
    cloudformation: CloudFormation,
    command: str,
    refusal: tuple[str, str],
    advice: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cloudformation.refusal = refusal
    assert main([command, *STACK]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert advice in told
    assert told.endswith(".")


def test_what_is_not_aws_is_told(
    cloudformation: CloudFormation,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cloudformation, "answer", lambda _: (502, "<html><p>Bad gateway</html>"))
    assert main(["deploy", *STACK]) == 1
    assert "is not AWS" in capsys.readouterr().err
