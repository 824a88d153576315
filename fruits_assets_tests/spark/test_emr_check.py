"""Every check of `make emr-check`, once where all is well and once for each thing that is not.

The real stack is deployed to moto's server, and the checks look at that. What is wrong is made so
in the answers: moto's, changed. moto does not know EMR's releases or EC2's quotas, answers for EMR
from another region, and cannot describe a key that CloudFormation made: botocore's Stubber answers
in its place, which refuses questions and answers that are not AWS's.
"""

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber
from moto.server import ThreadedMotoServer

from fruits_assets.core.errors import FruitsError, RegionError, SparkError
from fruits_assets.infrastructure.__main__ import settings_lines
from fruits_assets.infrastructure.stack import Stack
from fruits_assets.settings import Settings
from fruits_assets.spark import __main__ as command
from fruits_assets.spark import emr_check, sizing
from fruits_assets.spark.emr_check import Asked, Finding
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits
from fruits_assets.spark.work import Work
from fruits_assets_tests import s3
from fruits_assets_tests.emulator import cloudformation  # noqa: F401 - moto finds it by itself

REGION = s3.REGION
FAMILIES = ("m5", "m5a", "m6i", "m6a", "c5", "r5")
TYPES = tuple(f"{family}.{size}" for family in FAMILIES for size in ("xlarge", "2xlarge"))
VCPUS = 80
"""Of 64 cores: those of the primary node, and what the last Spot machine may bring beyond."""
CHECKS = (
    "region",
    "settings",
    "credentials",
    "source",
    "lake",
    "code",
    "pipes",
    "logs",
    "key",
    "service role",
    "instance profile",
    "security configuration",
    "block public access",
    "release",
    "subnets",
    "routes",
    "endpoint of S3",
    "endpoint of EMR",
    "security groups",
    "instance types",
    "quota on demand",
    "quota Spot",
    "price of clusters",
    "standing costs",
)
EMR_ENDPOINT = f"aws.api.{REGION}.emr-service-cell01"

# moto's CloudFormation says so of bucket policies and budgets.
pytestmark = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")

Change = Callable[[Any], None]
"""Makes an answer of AWS another one, in place."""


@pytest.fixture(scope="module")
def server(_nobodys_credentials: None) -> Iterator[s3.Server]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield s3.Server(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="module")
def lines(server: s3.Server) -> dict[str, str]:
    """The lines for `.env` of the stack, deployed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.endpoint)
        outputs = Stack("fruits", REGION).deploy({})
    _finish(outputs, _client("ec2", server.endpoint))
    return dict(line.split("=", 1) for line in settings_lines(outputs))


def _finish(outputs: Mapping[str, str], ec2: Any) -> None:
    """Does what moto's CloudFormation does not: associate route tables, deny public addresses."""
    routes = ec2.describe_route_tables(
        Filters=[
            {"Name": "vpc-id", "Values": [outputs["Network"]]},
            {"Name": "tag:aws:cloudformation:logical-id", "Values": ["RouteTable"]},
        ]
    )["RouteTables"]
    for subnet in outputs["FruitsEmrSubnets"].split(","):
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": False})
        ec2.associate_route_table(SubnetId=subnet, RouteTableId=routes[0]["RouteTableId"])


def _zones_of_the_region(answer: Any) -> None:
    """Moto's CloudFormation knows the zones of us-east-1 only."""
    for subnet in answer["Subnets"]:
        subnet["AvailabilityZone"] = REGION + subnet["AvailabilityZone"][-1]


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Some")


@cache
def _client(service: str, endpoint: str) -> Any:
    make: Any = boto3.Session(region_name=REGION).client
    return make(service, endpoint_url=endpoint)


@dataclass
class Account:
    """An account that all is well with, but for what a test changes.

    Attributes:
        asked: what is to be checked.
        endpoint: of moto's server.
        changes: method of a client -> what becomes of its answer.
        refusals: method of a client -> what it raises instead.
    """

    asked: Asked
    endpoint: str
    changes: dict[str, Change] = field(default_factory=dict)
    refusals: dict[str, Exception] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)

    def check(self) -> dict[str, Finding]:
        """What -> its finding."""
        found = emr_check.check(lambda: REGION, lambda: self.asked, lambda _: self.client)
        return {finding.what: finding for finding in found}

    def client(self, service: str) -> Any:
        """A client whose answers are changed."""
        real = _client(service, self.endpoint)
        answers = {"emr": self._emr, "kms": self._kms, "service-quotas": self._quotas}.get(service)
        return _Client(self, real, answers() if answers else {})

    def _emr(self) -> dict[str, Any]:
        account = self.asked.account
        objects = {"EncryptionMode": "SSE-KMS"}
        disks = {"EnableEbsEncryption": True}
        at_rest = {"S3EncryptionConfiguration": objects, "LocalDiskEncryptionConfiguration": disks}
        encryption = {"EnableAtRestEncryption": True, "AtRestEncryptionConfiguration": at_rest}
        metadata = {"MinimumInstanceMetadataServiceVersion": 2}
        security = {
            "EncryptionConfiguration": encryption,
            "InstanceMetadataServiceConfiguration": metadata,
        }
        block = {"BlockPublicSecurityGroupRules": True}
        made = {"CreationDateTime": 0, "CreatedByArn": "arn:aws:iam::111122223333:user/somebody"}
        return {
            "describe_security_configuration": {
                "Name": account.security_configuration,
                "SecurityConfiguration": json.dumps(security),
            },
            "get_block_public_access_configuration": {
                "BlockPublicAccessConfiguration": block,
                "BlockPublicAccessConfigurationMetadata": made,
            },
            "list_release_labels": {"ReleaseLabels": ["emr-7.13.0", account.release]},
            "list_supported_instance_types": {
                "SupportedInstanceTypes": [{"Type": it} for it in self.asked.types]
            },
        }

    def _kms(self) -> dict[str, Any]:
        key = {"KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}
        return {"describe_key": {"KeyMetadata": {"KeyId": "key", **key}}}

    def _quotas(self) -> dict[str, Any]:
        return {"get_service_quota": {"Quota": {"Value": 256.0}}}


@dataclass
class _Client:
    """Answers as moto does, or as it is told, with the changes of an account."""

    account: Account
    real: Any
    answers: Mapping[str, Any]

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(**request: Any) -> Any:
            self.account.called.append(method)
            if method in self.account.refusals:
                raise self.account.refusals[method]
            answer = copy.deepcopy(self.answers.get(method)) or getattr(self.real, method)(
                **request
            )
            if method == "describe_subnets":
                _zones_of_the_region(answer)
            self.account.changes.get(method, lambda _: None)(answer)
            return self._as_aws(method, answer, request) if method in self.answers else answer

        return call

    def _as_aws(self, method: str, answer: Any, request: Mapping[str, Any]) -> Any:
        with Stubber(self.real) as stub:
            stub.add_response(method, answer, dict(request))
            return getattr(self.real, method)(**request)


@pytest.fixture
def account(
    server: s3.Server, lines: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Account:
    _environment(lines, monkeypatch, tmp_path)
    settings = Settings()
    asked = Asked(
        account=settings.emr().account,
        source=settings.source,
        lake=settings.lake,
        kms_key=settings.kms_key,
        types=TYPES,
        limits=Limits(),
        prices=Prices.load(),
    )
    return Account(asked, server.endpoint)


def _environment(lines: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in [name for name in os.environ if name.startswith("FRUITS_")]:
        monkeypatch.delenv(name)
    for name, value in lines.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)


def test_an_account_with_the_stack_is_ready(account: Account) -> None:
    found = account.check()
    assert tuple(found) == CHECKS
    assert not [str(it) for it in found.values() if not it.ok]


def test_nothing_is_ever_changed(account: Account) -> None:
    account.check()
    assert {it.partition("_")[0] for it in account.called} == {"get", "list", "describe"}


def _set(path: str, value: object, /) -> Change:
    """Sets what lies at a path of keys and indices, such as `Subnets.0.Tags`."""

    def change(answer: Any) -> None:
        *steps, last = path.split(".")
        for step in steps:
            answer = answer[int(step) if step.isdigit() else step]
        answer[last] = value

    return change


def _security(path: str, value: Any) -> Change:
    def change(answer: Any) -> None:
        security = json.loads(answer["SecurityConfiguration"])
        _set(path, value)(security)
        answer["SecurityConfiguration"] = json.dumps(security)

    return change


def _public(answer: Any) -> None:
    for table in answer["RouteTables"]:
        table["Routes"].append({"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"})


def _nat(answer: Any) -> None:
    for table in answer["RouteTables"]:
        table["Routes"].append({"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"})


def _few(answer: Any) -> None:
    del answer["InstanceTypeOfferings"][4:]


OFF = False
TRUST = "AssumeRolePolicyDocument.Statement.0.Principal"
ENCRYPTION = "EncryptionConfiguration"
DISKS = f"{ENCRYPTION}.AtRestEncryptionConfiguration.LocalDiskEncryptionConfiguration"
IMDS = "InstanceMetadataServiceConfiguration.MinimumInstanceMetadataServiceVersion"
SECURITY = "describe_security_configuration"
PROFILE = "get_instance_profile"
WRONG = [
    ("source", "get_bucket_location", _set("LocationConstraint", None), "us-east-1"),
    ("lake", "get_bucket_location", _set("LocationConstraint", "EU"), "eu-west-1"),
    ("logs", "get_bucket_location", _set("LocationConstraint", "eu-west-2"), "eu-west-2"),
    ("key", "describe_key", _set("KeyMetadata.KeyState", "PendingDeletion"), "PendingDeletion"),
    ("key", "describe_key", _set("KeyMetadata.KeySpec", "RSA_2048"), "RSA_2048"),
    ("service role", "get_role", _set(f"Role.{TRUST}", {"Service": "ec2.amazonaws.com"}), "take"),
    ("service role", "get_role", _set(f"Role.{TRUST}", "*"), "does not let elasticmapreduce"),
    ("instance profile", PROFILE, _set("InstanceProfile.Roles", []), "holds no role"),
    (
        "instance profile",
        PROFILE,
        _set(f"InstanceProfile.Roles.0.{TRUST}", {"Service": ["lambda.amazonaws.com"]}),
        "does not let ec2",
    ),
    (
        "security configuration",
        SECURITY,
        _security(f"{ENCRYPTION}.EnableAtRestEncryption", None),
        "does not demand encryption at rest.",
    ),
    (
        "security configuration",
        SECURITY,
        _security(f"{DISKS}.EnableEbsEncryption", None),
        "does not demand encryption of all disks",
    ),
    ("security configuration", SECURITY, _security(IMDS, 1), "does not demand IMDSv2"),
    ("security configuration", SECURITY, _set("SecurityConfiguration", "{}"), "IMDSv2"),
    (
        "block public access",
        "get_block_public_access_configuration",
        _set("BlockPublicAccessConfiguration.BlockPublicSecurityGroupRules", OFF),
        f"off in {REGION}",
    ),
    ("release", "list_release_labels", _set("ReleaseLabels", ["emr-spark-8.0.0x"]), "not offer"),
    ("subnets", "describe_subnets", _set("Subnets.0.Tags", []), "lack the tag"),
    ("subnets", "describe_subnets", _set("Subnets.0.VpcId", "vpc-1"), "several networks"),
    ("routes", "describe_subnets", _set("Subnets.1.MapPublicIpOnLaunch", "true"), "public address"),
    ("routes", "describe_route_tables", _public, "lead to the internet"),
    ("endpoint of S3", "describe_vpc_endpoints", _set("VpcEndpoints", []), "install nothing"),
    (
        "endpoint of S3",
        "describe_vpc_endpoints",
        _set(
            "VpcEndpoints", [{"VpcEndpointId": "v", "RouteTableIds": ["r"], "State": "available"}]
        ),
        "reach no gateway",
    ),
    (
        "endpoint of EMR",
        "describe_vpc_endpoints",
        _set("VpcEndpoints", [{"VpcEndpointId": "vpce-1", "State": "failed"}]),
        "'vpce-1': 'failed'",
    ),
    ("security groups", "describe_security_groups", _set("SecurityGroups.2.Tags", []), "lack the"),
    ("security groups", "describe_security_groups", _set("SecurityGroups.0.VpcId", "v"), "not of"),
    ("instance types", "describe_instance_type_offerings", _few, "10 in one of them are wanted"),
    (
        "instance types",
        "list_supported_instance_types",
        _set("SupportedInstanceTypes", [{"Type": it} for it in TYPES[:9]]),
        "knows 9",
    ),
    ("quota on demand", "get_service_quota", _set("Quota.Value", VCPUS - 1.0), "79 vCPUs on dem"),
    ("quota Spot", "get_service_quota", _set("Quota.Value", 0.0), "0 vCPUs Spot"),
]


@pytest.mark.parametrize(("what", "method", "change", "told"), WRONG)
def test_what_is_wrong_is_told(
    account: Account, what: str, method: str, change: Change, told: str
) -> None:
    account.changes[method] = change
    finding = account.check()[what]
    assert not finding.ok
    assert told in finding.told
    assert str(finding).startswith(f"FIX  {what}: ")


def test_every_check_is_seen_to_fail() -> None:
    own = {"region", "settings", "credentials", "code", "pipes"}  # below, and as `lake`
    own |= {"price of clusters", "standing costs"}
    assert {what for what, *_ in WRONG} == set(CHECKS) - own


REFUSED = [
    ("source", "list_objects_v2", "AccessDenied", "s3:ListBucket"),
    ("key", "describe_key", "AccessDeniedException", "kms:DescribeKey"),
    ("service role", "get_role", "AccessDenied", "iam:GetRole"),
    ("instance profile", PROFILE, "AccessDenied", "iam:GetInstanceProfile"),
    ("security configuration", SECURITY, "AccessDeniedException", "elasticmapreduce:DescribeSec"),
    (
        "block public access",
        "get_block_public_access_configuration",
        "AccessDeniedException",
        "elasticmapreduce:GetBlockPublicAccessConfiguration",
    ),
    ("release", "list_release_labels", "AccessDeniedException", "elasticmapreduce:ListRelease"),
    ("subnets", "describe_subnets", "UnauthorizedOperation", "ec2:DescribeSubnets"),
    ("routes", "describe_route_tables", "UnauthorizedOperation", "ec2:DescribeRouteTables"),
    ("endpoint of S3", "describe_vpc_endpoints", "UnauthorizedOperation", "ec2:DescribeVpcEnd"),
    ("security groups", "describe_security_groups", "UnauthorizedOperation", "ec2:DescribeSec"),
    (
        "instance types",
        "describe_instance_type_offerings",
        "UnauthorizedOperation",
        "ec2:DescribeInstanceTypeOfferings",
    ),
    ("quota Spot", "get_service_quota", "AccessDeniedException", "servicequotas:GetServiceQuota"),
]


@pytest.mark.parametrize(("what", "method", "code", "permission"), REFUSED)
def test_a_refused_call_names_the_permission_and_the_policy(
    account: Account, what: str, method: str, code: str, permission: str
) -> None:
    account.refusals[method] = refusal(code, "arn:me may not.")
    finding = account.check()[what]
    assert not finding.ok
    assert f"may call {permission}" in finding.told or f"and {permission}" in finding.told
    assert "the policy ClusterChecksPolicy of the stack" in finding.told


@pytest.mark.parametrize(
    ("what", "method", "code"),
    [
        ("lake", "get_bucket_location", "NoSuchBucket"),
        ("key", "describe_key", "NotFoundException"),
        ("service role", "get_role", "NoSuchEntity"),
        ("instance profile", PROFILE, "NoSuchEntity"),
        ("security configuration", SECURITY, "InvalidRequestException"),
        ("subnets", "describe_subnets", "InvalidSubnetID.NotFound"),
        ("security groups", "describe_security_groups", "InvalidGroup.NotFound"),
    ],
)
def test_what_is_not_there_is_told(account: Account, what: str, method: str, code: str) -> None:
    account.refusals[method] = refusal(code)
    finding = account.check()[what]
    assert not finding.ok
    assert f"does not exist in {REGION}" in finding.told
    assert "`make deploy`" in finding.told


def test_an_answer_that_cannot_be_read_ends_no_other_check(account: Account) -> None:
    account.changes[SECURITY] = _set("SecurityConfiguration", "{'not': 'JSON'}")
    found = account.check()
    assert not found["security configuration"].ok
    assert "what was not expected" in found["security configuration"].told
    assert found["quota Spot"].ok


def test_after_a_failure_what_depends_on_it_is_not_looked_at(account: Account) -> None:
    account.refusals["describe_subnets"] = refusal("UnauthorizedOperation")
    found = account.check()
    skipped = {it.what for it in found.values() if "not looked at" in it.told}
    assert skipped == {
        "routes",
        "endpoint of S3",
        "endpoint of EMR",
        "security groups",
        "instance types",
        "standing costs",
    }
    assert str(found["routes"]) == "FIX  routes: not looked at. Put 'subnets' right first."
    assert not {"describe_route_tables", "describe_security_groups"} & set(account.called)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NoCredentialsError(), "no AWS credentials"),
        (refusal("ExpiredToken"), "have expired"),
        (EndpointConnectionError(endpoint_url="https://sts"), "cannot be reached"),
    ],
)
def test_without_credentials_nothing_else_is_asked(
    account: Account, error: Exception, told: str
) -> None:
    account.refusals["get_caller_identity"] = error
    found = account.check()
    assert told in found["credentials"].told
    assert account.called == ["get_caller_identity"]
    assert tuple(found) == CHECKS
    later = list(found.values())[CHECKS.index("credentials") + 1 :]
    later.remove(found["price of clusters"])  # which needs nobody's
    assert all("'credentials'" in it.told and not it.ok for it in later)


def test_a_folder_is_no_place_for_clusters(account: Account) -> None:
    account.asked = Asked(**{**vars(account.asked), "lake": "lake"})
    assert "is no s3:// URI" in account.check()["lake"].told


def test_without_a_key_s3_encrypts_with_its_own(account: Account) -> None:
    account.asked = Asked(**{**vars(account.asked), "kms_key": None})
    assert account.check()["key"].ok
    assert "describe_key" not in account.called


def test_the_endpoint_of_emr_that_costs_money_is_told(account: Account) -> None:
    assert "EMR makes one with the first cluster" in account.check()["endpoint of EMR"].told
    there = [{"VpcEndpointId": "vpce-1", "State": "available", "RouteTableIds": []}]
    account.changes["describe_vpc_endpoints"] = _set("VpcEndpoints", there)
    finding = account.check()["endpoint of EMR"]
    assert finding.ok
    assert "vpce-1, which costs 6.91 EUR a month and zone" in finding.told


def test_what_clusters_cost_is_told_and_a_limit_that_allows_none_is_not_ready(
    account: Account,
) -> None:
    largest = sizing.plan(Work(0, 0.0, ()), Limits(), Prices.load(), REGION, "arm64", cores=64)
    told = account.check()["price of clusters"].told
    assert "set FRUITS_EMR_MAX_COST_EUR" in told
    hourly = f"{largest.eur_per_hour:.2f} EUR, {largest.most_eur_per_hour:.2f} at most"
    assert f"an hour of the largest cluster (64 cores) {hourly}" in told
    assert largest.most_eur_per_hour > 1.5 * largest.eur_per_hour
    account.asked = replace(account.asked, limits=Limits(max_cost_eur=2.0))
    assert "may cost more than 2 EUR is refused" in account.check()["price of clusters"].told
    account.asked = replace(account.asked, limits=Limits(max_cost_eur=0.01))
    finding = account.check()["price of clusters"]
    assert not finding.ok
    assert "even a run of one photo is refused by FRUITS_EMR_MAX_COST_EUR of 0.01" in finding.told


def test_all_that_stands_is_priced(account: Account) -> None:
    assert account.check()["standing costs"].told == (
        "0.86 EUR a month (key 0.86), and 2.06 EUR for each 100 GB of photos and lake"
    )
    both = {"VpcEndpointType": "Interface", "SubnetIds": ["subnet-1", "subnet-2"]}
    gateway = {"VpcEndpointType": "Gateway", "RouteTableIds": ["rtb-1"]}
    account.changes["describe_vpc_endpoints"] = _set("VpcEndpoints", [both, gateway])
    account.changes["describe_route_tables"] = _nat
    account.asked = replace(account.asked, kms_key=None)
    assert account.check()["standing costs"].told.startswith(
        "45.20 EUR a month (interface endpoints 13.81, NAT gateways 31.39), and"
    )


def test_releases_of_before_need_no_endpoint_of_emr(account: Account) -> None:
    older = account.asked.account.model_copy(update={"release": "emr-7.13.0"})
    account.asked = Asked(**{**vars(account.asked), "account": older})
    assert account.check()["endpoint of EMR"].told == "not needed by emr-7.13.0"


def test_lists_are_read_to_their_end(account: Account) -> None:
    """EMR gives what it lists in pages."""
    pages = [{"A": [1, 2], "Marker": "more"}, {"A": [3]}]
    asked: list[Mapping[str, Any]] = []

    def call(**request: Any) -> Any:
        asked.append(request)
        return pages[len(asked) - 1]

    assert list(emr_check._pages(call, "A", "Marker", {"Of": "x"})) == [1, 2, 3]
    assert asked == [{"Of": "x"}, {"Of": "x", "Marker": "more"}]


def _raise(error: FruitsError) -> Any:
    raise error


def test_without_a_region_in_the_eu_no_client_is_made() -> None:
    for region in ("", "us-east-1", "eu-west-2"):
        found = emr_check.check(lambda region=region: region, lambda: _raise(SparkError("never")))
        assert [it.what for it in found] == ["region", "settings"]
        assert "eu-central-1" in found[0].told
        assert "Put 'region' right first" in found[1].told
    with pytest.raises(RegionError):
        emr_check.aws("us-east-1")


def test_settings_that_are_missing_are_told() -> None:
    found = emr_check.check(lambda: REGION, lambda: _raise(SparkError("FRUITS_EMR_TAG is missing")))
    assert [str(it) for it in found] == [
        f"OK   region: {REGION}, in the EU",
        "FIX  settings: FRUITS_EMR_TAG is missing",
    ]


# ---------------------------------------------------------------------------------- the command


@pytest.mark.parametrize("ready", [True, False])
def test_the_command_prints_a_line_for_each_check(
    account: Account,
    ready: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looked_for: list[Asked] = []

    def check(region: Callable[[], str], asked: Callable[[], Asked]) -> list[Finding]:
        looked_for.append(asked())
        return [Finding("region", ok=True, told=region()), Finding("key", ok=ready, told="x")]

    monkeypatch.setattr(emr_check, "check", check)
    assert command.main(["check"]) == (0 if ready else 1)
    last = "OK   key: x" if ready else "FIX  key: x"
    assert capsys.readouterr().out.splitlines() == [f"OK   region: {REGION}", last]
    (asked,) = looked_for
    assert (asked.account, asked.lake) == (account.asked.account, account.asked.lake)
    assert len(asked.types) >= emr_check.ENOUGH_TYPES


def test_the_command_looks_at_the_account_itself(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", account.endpoint)
    assert command.main(["check"]) == 1, "moto has no quotas"
    told = capsys.readouterr().out.splitlines()
    assert len(told) == len(CHECKS)
    assert s3.SECRET_KEY not in "".join(told)
    assert {"OK   subnets", "OK   lake", "FIX  quota Spot"} < {line.split(":")[0] for line in told}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("FRUITS_REGION=us-east-1", "FIX  region: the region 'us-east-1' is not in"),
        ("FRUITS_SPARK=moon", "FIX  region: the settings cannot be used (spark"),
        (
            "FRUITS_EMR_SUBNETS=",
            "FIX  settings: these settings are not as they must be",
        ),
    ],
)
def test_the_command_tells_settings_that_are_wrong(
    account: Account,
    line: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(*line.split("="))
    assert command.main(["check"]) == 1
    assert told in capsys.readouterr().out
