"""Every hardening property, on the template itself: no emulator of AWS enforces any of them."""

import fnmatch
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode

from fruits_assets.deliverables.folder import CHECKSUMS, FOLDER
from fruits_assets.erasure.plan import RECORDS as ERASURES
from fruits_assets.infrastructure.__main__ import settings_lines
from fruits_assets.infrastructure.stack import KEPT, TAG, TEMPLATE
from fruits_assets.lake.lake import MARKER
from fruits_assets.lake.lease import FOLDER as LEASES
from fruits_assets.spark.account import MANAGED, EmrPlaces
from fruits_assets.spark.account import STACK as STACK_TAG
from fruits_assets.spark.job_runs import RELEASE
from fruits_assets.storage.parquet import Origin
from fruits_assets.storage.region import EU_REGIONS
from fruits_assets_tests import policies

REGION = "eu-west-3"
ACCOUNT = "111122223333"
PSEUDO = {"AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws"}
ROLES = ("EmrServiceRole", "NodeRole", "JobRole")
WORKERS = ("NodeRole", "JobRole")
"""Roles of what runs the Spark code: machines of clusters, and jobs of EMR Serverless."""
POLICIES = ("OrchestratorPolicy", "ClusterChecksPolicy", "ServerlessPolicy")
BUCKETS = ("DataBucket", "LogBucket")


GROUPS = ("PrimarySecurityGroup", "WorkerSecurityGroup", "ServiceSecurityGroup")
APPLICATION = "arn:ServerlessApplication"


def _template() -> dict[str, Any]:
    template, errors = decode(str(TEMPLATE))
    assert template, errors
    return template


T = _template()


def properties(resource: str) -> dict[str, Any]:
    return T["Resources"][resource].get("Properties", {})


def text(value: Any) -> str:
    """A value with its references resolved: `arn:Key` for an ARN, `<Key>` for an id.

    Other attributes than those have their name: `<Network.CidrBlock>`.
    """
    if not isinstance(value, Mapping):
        return str(value)
    ((function, argument),) = value.items()
    if function == "Ref":
        parameter = T["Parameters"].get(argument)
        return str(parameter["Default"] if parameter else PSEUDO.get(argument, f"<{argument}>"))
    if function == "Fn::GetAtt":
        resource, attribute = argument.split(".") if isinstance(argument, str) else argument
        names = {"Arn": f"arn:{resource}", "GroupId": f"<{resource}>"}
        return names.get(attribute, f"<{resource}.{attribute}>")
    if function == "Fn::Join":
        return argument[0].join(texts(argument[1]))
    assert function == "Fn::Sub", value
    return re.sub(
        r"\$\{([^}]+)\}",
        lambda it: text({"Fn::GetAtt" if it[1].endswith(".Arn") else "Ref": it[1]}),
        argument,
    )


def texts(value: Any) -> list[str]:
    """One value or a list of them, as policies may be written."""
    return [text(it) for it in value] if isinstance(value, list) else [text(value)]


# ------------------------------------------------------------------------ what a policy decides


def _resolved(value: Any) -> Any:
    """A policy with its references resolved."""
    if isinstance(value, list):
        return [_resolved(it) for it in value]
    if isinstance(value, Mapping) and not {"Ref", "Fn::Sub", "Fn::GetAtt"} & set(value):
        return {key: _resolved(it) for key, it in value.items()}
    return text(value)


def effects(
    statements: Sequence[Mapping[str, Any]],
    action: str,
    resource: str,
    context: policies.Context | None = None,
) -> set[str]:
    """What statements say of a request in the stack's region, if it does not say another one."""
    found = {"aws:RequestedRegion": REGION, **(context or {})}
    return policies.effects(_resolved(list(statements)), action, resource, found)


def statements(resource: str) -> list[dict[str, Any]]:
    """What a role, with the policies that it shares, a managed or a bucket policy says."""
    of = properties(resource)
    shared = [
        it["Properties"]
        for it in T["Resources"].values()
        if it["Type"] == "AWS::IAM::Policy" and f"<{resource}>" in texts(it["Properties"]["Roles"])
    ]
    own = of.get("Policies", [of] if "PolicyDocument" in of else [])
    documents = [it["PolicyDocument"] for it in [*own, *shared]]
    return [statement for document in documents for statement in document["Statement"]]


# --------------------------------------------------------------------------------------- region


def _every_region() -> list[str]:
    session = boto3.Session()
    return sorted(
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("s3", partition_name=partition)
    )


def _admits(region: str) -> bool:
    """Whether all rules let a region pass."""
    assertions = [it for rule in T["Rules"].values() for it in rule["Assertions"]]
    assert assertions
    for assertion in assertions:
        admitted, asked = assertion["Assert"]["Fn::Contains"]
        assert asked == {"Ref": "AWS::Region"}
        if region not in admitted:
            return False
    return True


def test_of_all_regions_of_aws_exactly_the_six_of_the_eu_pass() -> None:
    regions = _every_region()
    assert len(regions) > 30
    assert {"eu-west-2", "eu-central-2", "us-east-1", "eusc-de-east-1"} <= set(regions)
    passing = {region for region in regions if _admits(region)}
    assert passing == set(EU_REGIONS)
    assert len(passing) == 6


def test_rules_have_no_condition_that_switches_them_off() -> None:
    for rule in T["Rules"].values():
        assert set(rule) == {"Assertions"}
        for assertion in rule["Assertions"]:
            assert all(region in assertion["AssertDescription"] for region in EU_REGIONS)


# ------------------------------------------------------------------------------------------ key


def test_the_key_rotates_and_stays_in_its_region() -> None:
    key = properties("Key")
    assert key["EnableKeyRotation"] is True
    assert key["MultiRegion"] is False
    assert key["PendingWindowInDays"] == 30


def test_the_key_is_given_to_nobody_outside_the_account() -> None:
    (statement,) = properties("Key")["KeyPolicy"]["Statement"]
    assert texts(statement["Principal"]["AWS"]) == [f"arn:aws:iam::{ACCOUNT}:root"]


def test_what_holds_data_outlives_the_stack() -> None:
    holding = {name for name, it in T["Resources"].items() if it["Type"] in KEPT}
    assert holding == {"Key", *BUCKETS}
    for name in (*holding, "DataBucketPolicy", "LogBucketPolicy"):
        assert T["Resources"][name]["DeletionPolicy"] == "Retain", name
        assert T["Resources"][name]["UpdateReplacePolicy"] == "Retain", name


# -------------------------------------------------------------------------------------- buckets


@pytest.mark.parametrize("bucket", BUCKETS)
def test_buckets_are_closed_to_the_public(bucket: str) -> None:
    assert properties(bucket)["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }


@pytest.mark.parametrize("bucket", BUCKETS)
def test_buckets_have_no_access_control_lists(bucket: str) -> None:
    (rule,) = properties(bucket)["OwnershipControls"]["Rules"]
    assert rule["ObjectOwnership"] == "BucketOwnerEnforced"
    assert "AccessControl" not in properties(bucket)


@pytest.mark.parametrize("resource", ["Key", *BUCKETS, *ROLES, *POLICIES, *GROUPS])
def test_nothing_has_a_fixed_name(resource: str) -> None:
    """Or a second deployment would fail on the buckets that the first one left."""
    fixed = {"BucketName", "RoleName", "ManagedPolicyName", "Name", "GroupName"}
    assert not fixed & set(properties(resource))


def _default_encryption(bucket: str) -> dict[str, Any]:
    (rule,) = properties(bucket)["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    return rule


def test_data_are_encrypted_with_the_key() -> None:
    rule = _default_encryption("DataBucket")
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert text(rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"]) == "arn:Key"
    assert rule["BucketKeyEnabled"] is True


def test_logs_are_encrypted_as_s3_can_deliver_them() -> None:
    default = _default_encryption("LogBucket")["ServerSideEncryptionByDefault"]
    assert default == {"SSEAlgorithm": "AES256"}


def test_data_have_versions_and_access_to_them_is_logged() -> None:
    data = properties("DataBucket")
    assert data["VersioningConfiguration"] == {"Status": "Enabled"}
    assert text(data["LoggingConfiguration"]["DestinationBucketName"]) == "<LogBucket>"
    assert data["LoggingConfiguration"]["LogFilePrefix"] == "access/"
    assert "ReplicationConfiguration" not in data


def _lifecycle(bucket: str) -> dict[str, dict[str, Any]]:
    rules = properties(bucket)["LifecycleConfiguration"]["Rules"]
    assert all(rule["Status"] == "Enabled" for rule in rules)
    return {rule["Id"]: rule for rule in rules}


@pytest.mark.parametrize("bucket", BUCKETS)
def test_interrupted_uploads_are_removed(bucket: str) -> None:
    rule = _lifecycle(bucket)["interrupted-uploads"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "Prefix" not in rule


def test_old_versions_go() -> None:
    rule = _lifecycle("DataBucket")["old-versions"]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": {"Ref": "OldVersionDays"}}
    assert rule["ExpiredObjectDeleteMarker"] is True
    assert "Prefix" not in rule


def test_messages_go_after_a_week() -> None:
    rule = _lifecycle("DataBucket")["pipes"]
    assert (rule["Prefix"], rule["ExpirationInDays"]) == ("pipes/", 7)
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}


def test_no_current_object_of_lake_or_source_ever_expires() -> None:
    for name, rule in _lifecycle("DataBucket").items():
        if name != "pipes":
            assert not {"ExpirationInDays", "ExpirationDate", "Transitions"} & set(rule), name


def test_logs_expire() -> None:
    assert _lifecycle("LogBucket")["logs"]["ExpirationInDays"] == {"Ref": "LogDays"}


# ------------------------------------------------------------------------------- bucket policies

OURS = {
    "aws:SecureTransport": "true",
    "s3:TlsVersion": "1.3",
    "aws:PrincipalAccount": ACCOUNT,
    "aws:PrincipalIsAWSService": "false",
}
SSE = "s3:x-amz-server-side-encryption"
SSE_KEY = f"{SSE}-aws-kms-key-id"


def denied(
    action: str, changes: Mapping[str, str | None] | None = None, *, bucket: str = "DataBucket"
) -> bool:
    """Whether the bucket's policy denies a request, which is one of ours but for some changes."""
    request = {**OURS, **(changes or {})}
    present = {key: value for key, value in request.items() if value is not None}
    objects = "Object" in action or action == "s3:InitiateReplication"
    resource = f"arn:{bucket}/lake/part" if objects else f"arn:{bucket}"
    return "Deny" in effects(statements(f"{bucket}Policy"), action, resource, present)


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:ListBucket"])
def test_requests_without_recent_tls_are_denied(bucket: str, action: str) -> None:
    assert not denied(action, bucket=bucket)
    assert not denied(action, {"s3:TlsVersion": "1.2"}, bucket=bucket)
    assert denied(action, {"s3:TlsVersion": "1.1"}, bucket=bucket)
    assert denied(action, {"aws:SecureTransport": "false", "s3:TlsVersion": None}, bucket=bucket)


@pytest.mark.parametrize("action", ["s3:GetObject", "s3:PutObject", "s3:ListBucket"])
def test_other_accounts_and_strangers_are_denied(action: str) -> None:
    assert denied(action, {"aws:PrincipalAccount": "999999999999"})
    assert denied(action, {"aws:PrincipalAccount": None})
    assert not denied(action, {"aws:PrincipalAccount": None, "aws:PrincipalIsAWSService": "true"})


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        pytest.param({}, False, id="none: the bucket's default"),
        pytest.param({SSE: "aws:kms", SSE_KEY: "arn:Key"}, False, id="our key"),
        pytest.param({SSE: "aws:kms", SSE_KEY: "arn:another"}, True, id="another key"),
        pytest.param({SSE_KEY: "arn:another"}, True, id="another key, alone"),
        pytest.param({SSE: "aws:kms"}, True, id="AWS's own key"),
        pytest.param({SSE: "AES256"}, True, id="no KMS key"),
        pytest.param({SSE: "aws:kms:dsse", SSE_KEY: "arn:Key"}, True, id="two layers"),
        pytest.param({f"{SSE}-customer-algorithm": "AES256"}, True, id="a key that is sent along"),
    ],
)
def test_objects_under_another_key_are_denied(headers: dict[str, str], refused: bool) -> None:
    assert denied("s3:PutObject", headers) is refused
    assert not denied("s3:GetObject", headers)


def test_nothing_is_replicated_out() -> None:
    assert denied("s3:PutReplicationConfiguration")
    assert denied("s3:InitiateReplication")


def test_the_data_bucket_lets_nobody_in_by_itself() -> None:
    for statement in statements("DataBucketPolicy"):
        assert statement["Effect"] == "Deny"
        assert statement["Principal"] == "*"


def test_only_access_logs_of_the_data_bucket_are_let_in() -> None:
    allowing = [it for it in statements("LogBucketPolicy") if it["Effect"] == "Allow"]
    (statement,) = allowing
    assert statement["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    log = {"aws:SourceArn": "arn:DataBucket", "aws:SourceAccount": ACCOUNT}
    assert effects(allowing, "s3:PutObject", "arn:LogBucket/access/x", log)
    assert not effects(allowing, "s3:PutObject", "arn:LogBucket/emr/x", log)
    assert not effects(allowing, "s3:GetObject", "arn:LogBucket/access/x", log)
    for key in log:
        other = {**log, key: "another"}
        assert not effects(allowing, "s3:PutObject", "arn:LogBucket/access/x", other)


# ----------------------------------------------------------------------------------- permissions

UNBOUNDED = {
    ("OrchestratorPolicy", "LaunchClusters"): "a cluster that is launched has no ARN yet",
    ("OrchestratorPolicy", "FindClusters"): "EMR lets clusters be listed in a region or not at all",
    ("ClusterChecksPolicy", "LookAtTheRegion"): "only reads, and EC2 and EMR offer nothing finer",
}
"""(resource, Sid) of the statements that may name every resource, and why."""


def _identity_statements() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, resource in T["Resources"].items():
        if resource["Type"] in {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}:
            yield from ((name, statement) for statement in statements(name))


def test_all_permissions_are_looked_at() -> None:
    types = {it["Type"] for it in T["Resources"].values() if it["Type"].startswith("AWS::IAM")}
    kinds = ("Role", "ManagedPolicy", "InstanceProfile", "Policy")
    assert types == {f"AWS::IAM::{kind}" for kind in kinds}
    assert {name for name, _ in _identity_statements()} == {*ROLES, *POLICIES}
    # A policy of its own is looked at as a part of the roles that it is attached to.
    for policy in _of("AWS::IAM::Policy").values():
        assert {it.strip("<>") for it in texts(policy["Roles"])} <= set(ROLES)
        assert not {"Users", "Groups"} & policy.keys()


def test_every_permission_names_its_actions() -> None:
    for name, statement in _identity_statements():
        if statement["Effect"] == "Allow":
            assert not {"NotAction", "NotResource"} & set(statement), (name, statement["Sid"])
            for action in texts(statement["Action"]):
                assert "*" not in action, (name, statement["Sid"])


def test_every_permission_names_its_resources() -> None:
    cluster = f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/*"
    profile = "arn:InstanceProfile"
    linked = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/"
    unbounded = set()
    for name, statement in _identity_statements():
        if statement["Effect"] == "Deny":
            continue
        for resource in texts(statement["Resource"]):
            if resource == "*":
                unbounded.add((name, statement["Sid"]))
                continue
            assert (
                re.fullmatch(r"arn:(DataBucket|LogBucket)(/[a-z]+)*(/\*)?", resource)
                or resource == "arn:DataBucket/lake/*/part-*.parquet"
                or resource in {"arn:Key", *(f"arn:{role}" for role in ROLES), profile, cluster}
                or resource in {APPLICATION, f"{APPLICATION}/jobruns/*"}
                or (resource.startswith(linked) and "*" not in resource)
            ), (name, statement["Sid"], resource)
    assert unbounded == set(UNBOUNDED)


def test_permissions_on_every_resource_are_bound_to_the_region() -> None:
    for name, statement in _identity_statements():
        if (name, statement["Sid"]) in UNBOUNDED:
            equal = statement["Condition"]["StringEquals"]
            assert equal["aws:RequestedRegion"] == {"Ref": "AWS::Region"}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_orchestrator_is_denied_nothing(policy: str) -> None:
    """A denial would follow the user whom the policy is attached to into all their other work."""
    assert {it["Effect"] for it in statements(policy)} == {"Allow"}


def test_checks_of_clusters_only_read() -> None:
    for statement in statements("ClusterChecksPolicy"):
        for action in texts(statement["Action"]):
            assert re.match("(Get|Describe|List)", action.partition(":")[2]), action


LONGEST = {
    "<AWS::StackName>": "s" * 128,
    "arn:DataBucket": f"arn:aws:s3:::{'b' * 63}",
    "arn:LogBucket": f"arn:aws:s3:::{'b' * 63}",
    "arn:Key": f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/{'k' * 36}",
    "arn:NodeRole": f"arn:aws:iam::{ACCOUNT}:role/{'r' * 64}",
    "arn:EmrServiceRole": f"arn:aws:iam::{ACCOUNT}:role/{'r' * 64}",
    "arn:JobRole": f"arn:aws:iam::{ACCOUNT}:role/{'r' * 64}",
    APPLICATION: f"arn:aws:emr-serverless:eu-central-1:{ACCOUNT}:/applications/{'a' * 64}",
    "arn:InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/{'p' * 128}",
    REGION: "eu-central-1",
}
"""What stands in a resolved policy -> the longest that can be in its place."""


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_fit_however_long_the_names_are(policy: str) -> None:
    """A managed policy may have 6,144 characters, white space not counted."""
    document = json.dumps(_resolved(properties(policy)["PolicyDocument"]), separators=(",", ":"))
    for short, longest in LONGEST.items():
        document = document.replace(short, longest)
    assert len(document) <= 6_144


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", ["s3:GetObject", "ec2:RunInstances", "kms:Decrypt"])
def test_roles_of_a_cluster_can_do_nothing_in_another_region(role: str, action: str) -> None:
    here = effects(statements(role), action, "anything")
    assert "Deny" not in here
    for region in {*_every_region()} - {REGION}:
        elsewhere = {"aws:RequestedRegion": region}
        assert "Deny" in effects(statements(role), action, "anything", elsewhere)


READ, PUT, ABORT = "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"
DELETE, ERASE = "s3:DeleteObject", "s3:DeleteObjectVersion"
OBJECTS = {READ, "s3:GetObjectVersion", PUT, ABORT, DELETE, ERASE}
PART = f"{Origin('0123456789abcdef', 0, 320).prefix}fedcba9876543210.parquet"
"""The name of a part, as workers write it."""
NEW = {"s3:if-none-match": "*"}
"""Condition keys of a request that creates an object and replaces none."""

WORKER: dict[str, set[str]] = {
    "DataBucket/photos/a": {READ},
    f"DataBucket/lake/features/{PART}": {READ, PUT},
    f"DataBucket/lake/_listing/{PART}": {READ, PUT},
    "DataBucket/lake/features/a.parquet": {READ},
    "DataBucket/lake/features/_delta_log/00000000000000000000.json": {READ},
    "DataBucket/lake/features/_delta_log/part-0.parquet": {READ},
    "DataBucket/lake/features/_delta_log/_last_checkpoint": {READ},
    f"DataBucket/lake/{MARKER}": {READ},
    f"DataBucket/lake/{FOLDER}/{CHECKSUMS}": {READ},
    f"DataBucket/lake/{FOLDER}/part-0.parquet": {READ},
    f"DataBucket/lake/{LEASES}/part-0.parquet": {READ},
    f"DataBucket/lake/{ERASURES}/part-0.parquet": {READ},
    "DataBucket/code/a": {READ},
    "DataBucket/pipes/requests/1/a": {READ},
    "DataBucket/pipes/messages/1/1.json": {PUT},
    "DataBucket/pipes/clusters/run.json": set(),
    "DataBucket/pipes/notebook/a": {READ, PUT},
    "DataBucket/pipes/a": set(),
    "DataBucket/other": set(),
    "LogBucket/emr/a": {PUT},
    "LogBucket/access/a": set(),
}
"""What the Spark code may do with objects, wherever it runs."""
MAY = {
    "NodeRole": WORKER,
    "JobRole": WORKER,
    "OrchestratorPolicy": {
        "DataBucket/photos/a": {READ, "s3:GetObjectVersion", DELETE, ERASE},
        "DataBucket/lake/a": OBJECTS,
        "DataBucket/code/a": OBJECTS - {DELETE, ERASE},
        "DataBucket/pipes/a": OBJECTS,
        "DataBucket/other": set(),
        "LogBucket/emr/a": {READ},
        "LogBucket/access/a": set(),
    },
}


@pytest.mark.parametrize(("who", "where"), [(who, where) for who in MAY for where in MAY[who]])
def test_who_may_do_what_with_objects(who: str, where: str) -> None:
    may = {it for it in OBJECTS if effects(statements(who), it, f"arn:{where}", NEW) == {"Allow"}}
    assert may == MAY[who][where]


@pytest.mark.parametrize("role", WORKERS)
def test_no_node_replaces_a_part(role: str) -> None:
    """A put that asks for nothing, or for the ETag of what it replaces, and an upload in parts."""
    node, part = statements(role), f"arn:DataBucket/lake/features/{PART}"
    assert effects(node, PUT, part, NEW) == {"Allow"}
    for context in ({}, {"s3:if-match": "etag"}, {"s3:ObjectCreationOperation": "false"}):
        assert not effects(node, PUT, part, context)


@pytest.mark.parametrize(
    ("who", "actions"),
    [
        ("NodeRole", {"GetBucketLocation", "ListBucket"}),
        ("JobRole", {"GetBucketLocation", "ListBucket"}),
        (
            "OrchestratorPolicy",
            {
                "GetBucketLocation",
                "GetBucketVersioning",
                "ListBucket",
                "ListBucketMultipartUploads",
                "ListBucketVersions",
            },
        ),
    ],
)
def test_who_may_do_what_with_the_data_bucket(who: str, actions: set[str]) -> None:
    found = {
        action
        for statement in statements(who)
        if "arn:DataBucket" in texts(statement.get("Resource", []))
        for action in texts(statement["Action"])
    }
    assert found == {f"s3:{action}" for action in actions}


def test_of_the_logs_only_those_of_clusters_can_be_read() -> None:
    orchestrator = statements("OrchestratorPolicy")
    assert effects(orchestrator, "s3:ListBucket", "arn:LogBucket") == {"Allow"}
    for key, seen in {"emr/j-1/stderr.gz": {"Allow"}, "access/2026-11": set()}.items():
        assert effects(orchestrator, "s3:GetObject", f"arn:LogBucket/{key}") == seen


def test_the_orchestrator_uses_the_key_through_s3_only() -> None:
    orchestrator = statements("OrchestratorPolicy")
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        through = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
        assert effects(orchestrator, action, "arn:Key", through) == {"Allow"}
        assert not effects(orchestrator, action, "arn:Key")


def test_emr_uses_the_key_through_disks_only() -> None:
    emr = statements("EmrServiceRole")
    through = {"kms:ViaService": f"ec2.{REGION}.amazonaws.com"}
    grant = {**through, "kms:GrantIsForAWSResource": "true"}
    assert effects(emr, "kms:Decrypt", "arn:Key", through) == {"Allow"}
    assert not effects(emr, "kms:Decrypt", "arn:Key")
    assert effects(emr, "kms:CreateGrant", "arn:Key", grant) == {"Allow"}
    assert not effects(emr, "kms:CreateGrant", "arn:Key", through)
    assert not effects(emr, "s3:GetObject", "arn:DataBucket/photos/a")


CLUSTER = f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/j-1"
EMR_TAG = "for-use-with-amazon-emr-managed-policies"
STACK = "<AWS::StackName>"
ANY_CLUSTER = f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/*"
"""What EMR asks IAM about while a cluster has no id."""
TAGGED = {
    f"aws:RequestTag/{EMR_TAG}": "true",
    f"aws:RequestTag/{TAG}": STACK,
    "aws:TagKeys": [EMR_TAG, TAG],
}
"""The tags that the pipeline launches clusters with."""
ACTIONS_ON_CLUSTERS = sorted(
    action.partition(":")[2]
    for statement in statements("OrchestratorPolicy")
    for action in texts(statement["Action"])
    if action.startswith("elasticmapreduce:") and statement["Resource"] != "*"
)


def test_the_orchestrator_launches_only_clusters_that_are_tagged_as_its_own() -> None:
    orchestrator, launch = statements("OrchestratorPolicy"), "elasticmapreduce:RunJobFlow"
    assert effects(orchestrator, launch, "any", TAGGED) == {"Allow"}
    elsewhere = {**TAGGED, "aws:RequestedRegion": "us-east-1"}
    assert not effects(orchestrator, launch, "any", elsewhere)
    for tag in (f"aws:RequestTag/{EMR_TAG}", f"aws:RequestTag/{TAG}"):
        assert not effects(orchestrator, launch, "any", {**TAGGED, tag: "another"})
    more = {**TAGGED, "aws:TagKeys": [EMR_TAG, TAG, "team"], "aws:RequestTag/team": "another"}
    assert not effects(orchestrator, launch, "any", more)


@pytest.mark.parametrize("action", ["AddTags", "PutAutoTerminationPolicy"])
def test_a_cluster_gets_its_tags_and_its_end_while_it_is_launched(action: str) -> None:
    """A resource that is created with a tag has it already (IAM User Guide, aws:ResourceTag)."""
    created = {**TAGGED, f"aws:ResourceTag/{TAG}": STACK, f"aws:ResourceTag/{EMR_TAG}": "true"}
    orchestrator = statements("OrchestratorPolicy")
    assert effects(orchestrator, f"elasticmapreduce:{action}", ANY_CLUSTER, created) == {"Allow"}


OWN = {f"aws:ResourceTag/{TAG}": STACK}
OTHERS = {
    "without tags": {},
    "of another stack": {f"aws:ResourceTag/{TAG}": "another"},
    "of somebody else": {f"aws:ResourceTag/{EMR_TAG}": "true", "aws:ResourceTag/team": "another"},
}


@pytest.mark.parametrize("context", OTHERS.values(), ids=OTHERS)
def test_no_cluster_of_others_can_be_taken_over(context: dict[str, str]) -> None:
    """Tag it, and it would be ours to run steps on and to end."""
    orchestrator = statements("OrchestratorPolicy")
    for tags in ({}, TAGGED, {f"aws:RequestTag/{TAG}": STACK, "aws:TagKeys": [TAG]}):
        for action in ACTIONS_ON_CLUSTERS:
            request = f"elasticmapreduce:{action}"
            assert not effects(orchestrator, request, CLUSTER, {**context, **tags}), action


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param({TAG: "another"}, id="to another stack"),
        pytest.param({EMR_TAG: "false"}, id="out of the reach of EMR"),
        pytest.param({"team": "another"}, id="to another team"),
        pytest.param({TAG: STACK, "team": "another"}, id="to another team as well"),
    ],
)
def test_no_cluster_is_handed_over_to_others(tags: dict[str, str]) -> None:
    request = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    context = {**OWN, **request, "aws:TagKeys": list(tags)}
    orchestrator = statements("OrchestratorPolicy")
    assert not effects(orchestrator, "elasticmapreduce:AddTags", CLUSTER, context)


@pytest.mark.parametrize(
    "action",
    ["AddJobFlowSteps", "CancelSteps", "DescribeStep", "TerminateJobFlows"],
)
def test_the_orchestrator_works_on_its_own_clusters_alone(action: str) -> None:
    orchestrator = statements("OrchestratorPolicy")
    request = f"elasticmapreduce:{action}"
    assert effects(orchestrator, request, CLUSTER, OWN) == {"Allow"}
    for account, region in (("999999999999", REGION), (ACCOUNT, "eu-west-1")):
        elsewhere = f"arn:aws:elasticmapreduce:{region}:{account}:cluster/j-1"
        assert not effects(orchestrator, request, elsewhere, OWN)


@pytest.mark.parametrize(
    "action",
    [
        "RemoveTags",
        "SetTerminationProtection",
        "SetVisibleToAllUsers",
        "ModifyCluster",
        "ModifyInstanceFleet",
        "PutAutoScalingPolicy",
        "PutManagedScalingPolicy",
        "RemoveAutoTerminationPolicy",
        "PutBlockPublicAccessConfiguration",
        "CreateSecurityConfiguration",
        "GetClusterSessionCredentials",
    ],
)
def test_what_would_undo_the_tags_or_the_end_is_allowed_to_nobody(action: str) -> None:
    for name in (*POLICIES, *ROLES):
        assert "Allow" not in effects(statements(name), f"elasticmapreduce:{action}", CLUSTER, OWN)


@pytest.mark.parametrize(
    "action",
    [
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:DeleteBucketPolicy",
        "s3:PutBucketPolicy",
        "s3:PutEncryptionConfiguration",
        "s3:PutLifecycleConfiguration",
        "s3:PutBucketVersioning",
        "s3:PutObjectAcl",
        "kms:CreateGrant",
        "kms:PutKeyPolicy",
        "kms:ScheduleKeyDeletion",
        "elasticmapreduce:RunJobFlow",
        "elasticmapreduce:AddJobFlowSteps",
        "elasticmapreduce:TerminateJobFlows",
        "emr-serverless:StartJobRun",
        "iam:PassRole",
        "sts:AssumeRole",
        "ec2:RunInstances",
    ],
)
@pytest.mark.parametrize("role", WORKERS)
def test_whoever_holds_a_node_destroys_nothing_and_becomes_nobody_else(
    action: str, role: str
) -> None:
    node = statements(role)
    everything = [
        *(f"arn:{bucket}{key}" for bucket in BUCKETS for key in ("", "/lake/features/" + PART)),
        *(f"arn:{other}" for other in ("Key", *ROLES)),
        *(CLUSTER, APPLICATION, f"{APPLICATION}/jobruns/1", "anything"),
    ]
    context = {**OWN, **TAGGED, **NEW, "iam:PassedToService": "ec2.amazonaws.com"}
    for resource in everything:
        assert not policies.allowed(_resolved(node), action, resource, {**OURS, **context})


def test_nodes_use_the_key_through_s3_or_in_their_own_network() -> None:
    node = statements("NodeRole")
    through = {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}
    inside = {"aws:SourceVpc": "<Network>"}
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert effects(node, action, "arn:Key", through) == {"Allow"}
        assert effects(node, action, "arn:Key", inside) == {"Allow"}
        assert not effects(node, action, "arn:Key")
        assert not effects(node, action, "arn:Key", {"aws:SourceVpc": "vpc-another"})
        assert not effects(node, action, "arn:another", {**through, **inside})


@pytest.mark.parametrize(
    ("who", "role", "to"),
    [
        ("OrchestratorPolicy", "EmrServiceRole", "elasticmapreduce.amazonaws.com"),
        ("OrchestratorPolicy", "NodeRole", "ec2.amazonaws.com"),
        ("EmrServiceRole", "NodeRole", "ec2.amazonaws.com"),
        ("ServerlessPolicy", "JobRole", "emr-serverless.amazonaws.com"),
    ],
)
def test_roles_are_passed_to_the_service_they_are_for(who: str, role: str, to: str) -> None:
    services = ["elasticmapreduce.amazonaws.com", "ec2.amazonaws.com", "lambda.amazonaws.com"]
    for service in [*services, f"{to}.example.org"]:
        context = {"iam:PassedToService": service}
        found = effects(statements(who), "iam:PassRole", f"arn:{role}", context)
        assert found == ({"Allow"} if service == to else set())
    assert not effects(statements(who), "iam:PassRole", "arn:any", {"iam:PassedToService": to})


def test_only_emr_of_this_account_takes_the_service_role() -> None:
    role = properties("EmrServiceRole")
    (trust,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "elasticmapreduce.amazonaws.com"}
    assert text(trust["Condition"]["StringEquals"]["aws:SourceAccount"]) == ACCOUNT
    source = text(trust["Condition"]["ArnLike"]["aws:SourceArn"])
    assert source == f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:*"
    policies = [text(it) for it in role["ManagedPolicyArns"]]
    assert policies == ["arn:aws:iam::aws:policy/service-role/AmazonEMRServicePolicy_v2"]


def test_only_machines_take_the_node_role() -> None:
    (trust,) = properties("NodeRole")["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert "ManagedPolicyArns" not in properties("NodeRole")
    assert [text(it) for it in properties("InstanceProfile")["Roles"]] == ["<NodeRole>"]


def test_only_jobs_of_the_stacks_application_take_the_role_of_jobs() -> None:
    (trust,) = properties("JobRole")["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "emr-serverless.amazonaws.com"}
    assert text(trust["Condition"]["ArnEquals"]["aws:SourceArn"]) == APPLICATION
    key = statements("JobRole")
    assert not effects(key, "kms:Decrypt", "arn:Key", {"aws:SourceVpc": "<Network>"})


def test_the_code_and_the_template_agree_on_the_tags() -> None:
    assert (STACK_TAG, MANAGED) == (TAG, EMR_TAG)
    for tag in (STACK_TAG, MANAGED):
        assert f"aws:RequestTag/{tag}" in TEMPLATE.read_text()


@pytest.mark.parametrize(
    ("operator", "found", "wanted", "held"),
    [
        ("StringEquals", "a", ["b", "a"], True),
        ("StringEquals", "A", ["a"], False),
        ("StringEquals", None, ["a"], False),
        ("StringNotEquals", "a", ["a", "b"], False),
        ("StringNotEquals", None, ["a"], True),
        ("StringEqualsIfExists", None, ["a"], True),
        ("StringEqualsIfExists", "b", ["a"], False),
        ("StringLike", "a/b/c.parquet", ["a/*.parquet"], True),
        ("StringLike", "a[b]", ["a[b]"], True),
        ("StringLike", "ab", ["a?"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "b", "c"], True),
        ("ForAllValues:StringEquals", ["a", "d"], ["a", "b", "c"], False),
        ("ForAllValues:StringEquals", None, ["a"], True),
        ("ForAnyValue:StringEquals", ["d", "a"], ["a"], True),
        ("ForAnyValue:StringEquals", None, ["a"], False),
        ("Bool", "false", ["false"], True),
        ("Null", None, ["true"], True),
        ("Null", "a", ["false"], True),
        ("NumericLessThan", "1.1", ["1.2"], True),
    ],
)
def test_conditions_hold_as_the_guide_of_iam_says(
    operator: str, found: str | list[str] | None, wanted: list[str], held: bool
) -> None:
    assert policies.holds(operator, found, wanted) is held


# ------------------------------------------------------------------------------------------ EMR


def test_clusters_encrypt_objects_and_disks_with_the_key() -> None:
    security = properties("EmrSecurityConfiguration")["SecurityConfiguration"]
    encryption = security["EncryptionConfiguration"]
    assert encryption["EnableAtRestEncryption"] is True
    at_rest = encryption["AtRestEncryptionConfiguration"]
    assert at_rest["S3EncryptionConfiguration"]["EncryptionMode"] == "SSE-KMS"
    assert text(at_rest["S3EncryptionConfiguration"]["AwsKmsKey"]) == "arn:Key"
    disks = at_rest["LocalDiskEncryptionConfiguration"]
    assert disks["EncryptionKeyProviderType"] == "AwsKms"
    assert text(disks["AwsKmsKey"]) == "arn:Key"
    assert disks["EnableEbsEncryption"] is True


def test_machines_of_a_cluster_hand_out_credentials_by_imds_v2_only() -> None:
    security = properties("EmrSecurityConfiguration")["SecurityConfiguration"]
    assert security["InstanceMetadataServiceConfiguration"] == {
        "MinimumInstanceMetadataServiceVersion": 2,
        "HttpPutResponseHopLimit": 1,
    }


# -------------------------------------------------------------------------------- EMR Serverless


def test_an_application_costs_nothing_while_nobody_works_and_has_a_limit() -> None:
    application = properties("ServerlessApplication")
    assert "InitialCapacity" not in application
    assert application["AutoStopConfiguration"] == {"Enabled": True, "IdleTimeoutMinutes": 5}
    assert application["AutoStartConfiguration"] == {"Enabled": True}
    most = {name: text(it) for name, it in application["MaximumCapacity"].items()}
    assert most == {"Cpu": "16 vCPU", "Memory": "160 GB"}
    assert application["SchedulerConfiguration"]["MaxConcurrentRuns"] == 1


def test_an_application_is_what_jobs_are_made_for() -> None:
    application = properties("ServerlessApplication")
    assert application["ReleaseLabel"] == RELEASE
    assert application["Architecture"].lower() == EmrPlaces.model_fields["architecture"].default
    assert application["Type"] == "SPARK"


def test_workers_of_an_application_are_in_the_network_and_reached_from_nowhere() -> None:
    network = properties("ServerlessApplication")["NetworkConfiguration"]
    assert set(texts(network["SubnetIds"])) == {f"<{name}>" for name in _of("AWS::EC2::Subnet")}
    assert texts(network["SecurityGroupIds"]) == ["<ServerlessSecurityGroup>"]
    assert _rules("ServerlessSecurityGroup", "Ingress", "Source") == set()


def test_aws_keeps_no_copy_of_logs() -> None:
    monitoring = properties("ServerlessApplication")["MonitoringConfiguration"]
    assert monitoring == {"ManagedPersistenceMonitoringConfiguration": {"Enabled": False}}


@pytest.mark.parametrize("action", ["StartJobRun", "GetJobRun", "CancelJobRun", "GetApplication"])
def test_jobs_are_run_on_the_stacks_application_alone(action: str) -> None:
    request, job = f"emr-serverless:{action}", "JobRun" in action and action != "StartJobRun"
    for application in (APPLICATION, f"arn:aws:emr-serverless:{REGION}:{ACCOUNT}:/applications/1"):
        resource = f"{application}/jobruns/1" if job else application
        found = effects(statements("ServerlessPolicy"), request, resource)
        assert found == ({"Allow"} if application == APPLICATION else set())


# --------------------------------------------------------------------------------------- network


def _of(kind: str) -> dict[str, dict[str, Any]]:
    """Name -> properties of all resources of a type."""
    return {name: properties(name) for name, it in T["Resources"].items() if it["Type"] == kind}


def _tags(resource: str) -> dict[str, str]:
    return {it["Key"]: text(it["Value"]) for it in properties(resource).get("Tags", [])}


def test_clusters_have_no_way_to_the_internet_and_none_from_it() -> None:
    """Without a gateway, all that a route table knows is the network itself and its endpoints."""
    networks = {it["Type"] for it in T["Resources"].values() if it["Type"].startswith("AWS::EC2")}
    assert networks == {
        "AWS::EC2::VPC",
        "AWS::EC2::Subnet",
        "AWS::EC2::RouteTable",
        "AWS::EC2::SubnetRouteTableAssociation",
        "AWS::EC2::VPCEndpoint",
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupIngress",
    }
    for subnet in _of("AWS::EC2::Subnet").values():
        assert subnet["MapPublicIpOnLaunch"] is False


def test_subnets_lie_in_different_zones_and_do_not_overlap() -> None:
    subnets = list(_of("AWS::EC2::Subnet").values())
    zones = [it["AvailabilityZone"]["Fn::Select"] for it in subnets]
    assert [index for index, _ in zones] == list(range(len(zones)))
    assert len(zones) >= 2
    blocks = [ip_network(it["CidrBlock"]) for it in subnets]
    whole = ip_network(properties("Network")["CidrBlock"])
    assert all(block.subnet_of(whole) for block in blocks)  # pyright: ignore[reportArgumentType]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(blocks, 2))


def test_every_subnet_reaches_s3_through_the_endpoint() -> None:
    routed = {
        text(it["SubnetId"]): text(it["RouteTableId"])
        for it in _of("AWS::EC2::SubnetRouteTableAssociation").values()
    }
    assert set(routed) == {f"<{name}>" for name in _of("AWS::EC2::Subnet")}
    endpoint = properties("S3Endpoint")
    assert endpoint["VpcEndpointType"] == "Gateway"
    assert text(endpoint["ServiceName"]) == f"com.amazonaws.{REGION}.s3"
    assert set(texts(endpoint["RouteTableIds"])) == set(routed.values())


def test_the_network_answers_the_names_of_its_endpoints() -> None:
    assert properties("Network")["EnableDnsSupport"] is True
    assert properties("Network")["EnableDnsHostnames"] is True
    for endpoint in ("EmrServiceEndpoint", "KmsServiceEndpoint"):
        assert properties(endpoint)["PrivateDnsEnabled"] is True


@pytest.mark.parametrize(
    ("bucket", "actions"),
    [
        ("DataBucket/lake/a", {READ, PUT}),
        ("LogBucket/emr/a", {READ, PUT}),
        ("LogBucket/access/a", set()),
        (f"aws:s3:::al2023-repos-{REGION}-de612dc2/a", {READ}),
        (f"aws:s3:::repo.{REGION}.emr.amazonaws.com/a", {READ}),
        (f"aws:s3:::aws157-instance-data-0-prod-{REGION}/a", {READ}),
        (f"aws:s3:::aws157-instance-data-1-prod-{REGION}/a", {READ}),
        (f"aws:s3:::aws157-logs-prod-{REGION}/a", {PUT}),
        (f"aws:s3:::prod.{REGION}.appinfo.src/a", {READ, PUT}),
        ("aws:s3:::somebody-elses/a", set()),
        ("aws:s3:::repo.us-east-1.emr.amazonaws.com/a", set()),
    ],
)
def test_the_endpoint_leads_to_buckets_of_the_stack_and_of_emr_only(
    bucket: str, actions: set[str]
) -> None:
    """The buckets of EMR are those that its guide lists for clusters in private subnets."""
    said = properties("S3Endpoint")["PolicyDocument"]["Statement"]
    assert {it for it in (READ, PUT) if effects(said, it, f"arn:{bucket}")} == actions


@pytest.mark.parametrize(
    ("endpoint", "parameter"),
    [("EmrServiceEndpoint", "EmrEndpoint"), ("KmsServiceEndpoint", "KmsEndpoint")],
)
def test_endpoints_that_cost_money_are_there_only_if_asked_for(
    endpoint: str, parameter: str
) -> None:
    condition = T["Conditions"][T["Resources"][endpoint]["Condition"]]
    assert condition == {"Fn::Equals": [{"Ref": parameter}, "true"]}
    assert T["Parameters"][parameter]["Default"] == "false"
    assert properties(endpoint)["VpcEndpointType"] == "Interface"
    free = {name for name, it in _of("AWS::EC2::VPCEndpoint").items() if name != endpoint}
    assert free == {"EmrServiceEndpoint", "KmsServiceEndpoint", "S3Endpoint"} - {endpoint}


def test_the_endpoint_of_emr_is_as_emr_would_make_it() -> None:
    endpoint = properties("EmrServiceEndpoint")
    assert text(endpoint["ServiceName"]) == f"aws.api.{REGION}.emr-service-cell01"
    assert texts(endpoint["SecurityGroupIds"]) == ["<ServiceSecurityGroup>"]
    assert _tags("EmrServiceEndpoint")[EMR_TAG] == "true"


def test_kms_is_reached_for_the_key_alone() -> None:
    (statement,) = properties("KmsServiceEndpoint")["PolicyDocument"]["Statement"]
    assert texts(statement["Resource"]) == ["arn:Key"]


@pytest.mark.parametrize("resource", ["Network", "SubnetA", "SubnetB", *GROUPS])
def test_emr_may_use_the_network(resource: str) -> None:
    """AmazonEMRServicePolicy_v2 acts on nothing without this tag."""
    assert _tags(resource)[EMR_TAG] == "true"


def _rules(group: str, direction: str, peer: str) -> set[tuple[str, ...]]:
    """(protocol, first port, last port, from or to whom) of a group's rules."""
    rules = [
        *properties(group).get(f"SecurityGroup{direction}", []),
        *(
            it
            for it in _of(f"AWS::EC2::SecurityGroup{direction}").values()
            if text(it["GroupId"]) == f"<{group}>"
        ),
    ]
    return {
        (
            it["IpProtocol"],
            str(it.get("FromPort", "")),
            str(it.get("ToPort", "")),
            text(it.get(f"{peer}SecurityGroupId", it.get("CidrIp"))),
        )
        for it in rules
    }


ALL_OF = (("icmp", "-1", "-1"), ("tcp", "0", "65535"), ("udp", "0", "65535"))
NODES = {(*it, f"<{group}>") for it in ALL_OF for group in GROUPS[:2]}
EMR = {("tcp", "8443", "8443", "<ServiceSecurityGroup>")}
ANYWHERE = {("-1", "", "", "0.0.0.0/0")}


@pytest.mark.parametrize(
    ("group", "incoming", "outgoing"),
    [
        ("PrimarySecurityGroup", NODES | EMR, ANYWHERE),
        ("WorkerSecurityGroup", NODES | EMR, ANYWHERE),
        ("ServerlessSecurityGroup", set(), ANYWHERE),
        (
            "ServiceSecurityGroup",
            {
                ("tcp", "443", "443", "<Network.CidrBlock>"),
                ("tcp", "9443", "9443", "<PrimarySecurityGroup>"),
            },
            {("tcp", "8443", "8443", f"<{group}>") for group in GROUPS[:2]},
        ),
        ("KmsSecurityGroup", {("tcp", "443", "443", "<Network.CidrBlock>")}, None),
    ],
)
def test_groups_have_the_rules_of_emr_for_private_subnets(
    group: str, incoming: set[tuple[str, ...]], outgoing: set[tuple[str, ...]] | None
) -> None:
    assert _rules(group, "Ingress", "Source") == incoming
    nowhere = {("tcp", "443", "443", "127.0.0.1/32")}
    assert _rules(group, "Egress", "Destination") == (outgoing or nowhere)


def test_nobody_reaches_a_cluster_from_outside_its_network() -> None:
    for group in _of("AWS::EC2::SecurityGroup"):
        for _, first, last, source in _rules(group, "Ingress", "Source"):
            assert source.startswith("<"), "an address, where a group or the network is meant"
            assert (first, last) != ("22", "22")


# ----------------------------------------------------------------------------------------- costs


def test_the_budget_warns_before_and_when_it_is_spent() -> None:
    budget = properties("Budget")["Budget"]
    assert (budget["BudgetType"], budget["TimeUnit"]) == ("COST", "MONTHLY")
    assert budget["BudgetLimit"] == {"Amount": {"Ref": "MonthlyBudgetUsd"}, "Unit": "USD"}
    assert texts(budget["CostFilters"]["Region"]) == [REGION]
    condition, with_email, without = properties("Budget")["NotificationsWithSubscribers"]["Fn::If"]
    assert condition == "HasAlertEmail"
    assert without == {"Ref": "AWS::NoValue"}
    warnings = {
        (it["Notification"]["NotificationType"], it["Notification"]["Threshold"])
        for it in with_email
    }
    assert warnings == {("FORECASTED", 80), ("ACTUAL", 100)}
    for it in with_email:
        assert it["Notification"]["ComparisonOperator"] == "GREATER_THAN"
        assert it["Notification"]["ThresholdType"] == "PERCENTAGE"
        (subscriber,) = it["Subscribers"]
        assert subscriber == {"SubscriptionType": "EMAIL", "Address": {"Ref": "AlertEmail"}}


def test_there_is_a_budget_wherever_cloudformation_has_one() -> None:
    """More regions than these, and the linter complains."""
    alternatives = [it["Fn::Equals"] for it in T["Conditions"]["HasBudgets"]["Fn::Or"]]
    assert all(asked == {"Ref": "AWS::Region"} for asked, _ in alternatives)
    assert {region for _, region in alternatives} == {"eu-central-1", "eu-west-1", "eu-west-3"}
    assert T["Resources"]["Budget"]["Condition"] == "HasBudgets"


@pytest.mark.parametrize(
    ("email", "fits"),
    [("", True), ("me@example.org", True), ("me", False), ("a b@c.eu", False), ("a@b", False)],
)
def test_the_alert_goes_to_one_address_or_none(email: str, fits: bool) -> None:
    assert bool(re.search(T["Parameters"]["AlertEmail"]["AllowedPattern"], email)) is fits


@pytest.mark.parametrize("parameter", T["Parameters"])
def test_every_parameter_has_a_default_and_says_what_it_is(parameter: str) -> None:
    assert {"Default", "Description"} <= set(T["Parameters"][parameter])


# --------------------------------------------------------------------------------- the template


def test_outputs_are_the_lines_of_the_environment() -> None:
    outputs = {
        name: text(output["Value"])
        for name, output in T["Outputs"].items()
        if name != "BudgetAlarm"
    }
    assert settings_lines(outputs) == [
        "FRUITS_BUCKET_OWNER=111122223333",
        "FRUITS_KMS_KEY=arn:Key",
        "FRUITS_LAKE=s3://<DataBucket>/lake",
        f"FRUITS_REGION={REGION}",
        "FRUITS_SOURCE=s3://<DataBucket>/photos",
        "FRUITS_SPARK=local",
        "FRUITS_EMR_CODE=s3://<DataBucket>/code",
        "FRUITS_EMR_INSTANCE_PROFILE=arn:InstanceProfile",
        "FRUITS_EMR_LOGS=s3://<LogBucket>/emr/",
        "FRUITS_EMR_PIPES=s3://<DataBucket>/pipes",
        "FRUITS_EMR_PRIMARY_SECURITY_GROUP=<PrimarySecurityGroup>",
        "FRUITS_EMR_SECURITY_CONFIGURATION=<EmrSecurityConfiguration>",
        "FRUITS_EMR_SERVERLESS_APPLICATION=<ServerlessApplication>",
        "FRUITS_EMR_SERVERLESS_ROLE=arn:JobRole",
        "FRUITS_EMR_SERVICE_ROLE=arn:EmrServiceRole",
        "FRUITS_EMR_SERVICE_SECURITY_GROUP=<ServiceSecurityGroup>",
        "FRUITS_EMR_SUBNETS=<SubnetA>,<SubnetB>",
        f"FRUITS_EMR_TAG={STACK}",
        "FRUITS_EMR_WORKER_SECURITY_GROUP=<WorkerSecurityGroup>",
    ]


def test_cloudformation_takes_the_template_as_it_is() -> None:
    """Without a bucket to put it in first, as a longer one would need."""
    assert len(TEMPLATE.read_bytes()) < 51_200


def test_the_linter_is_content_in_all_six_regions() -> None:
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    command = [cfn_lint, "--regions", *EU_REGIONS, "--", TEMPLATE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_check_that_is_skipped_says_why() -> None:
    skipped = {
        name: {it["id"]: it["comment"] for it in resource["Metadata"]["checkov"]["skip"]}
        for name, resource in T["Resources"].items()
        if "Metadata" in resource
    }
    assert {name: set(it) for name, it in skipped.items()} == {
        "LogBucket": {"CKV_AWS_18", "CKV_AWS_21"}
    }
    assert all(len(reason) > 50 for reason in skipped["LogBucket"].values())


def test_the_template_is_part_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]["fruits_assets.infrastructure"]
    assert any(fnmatch.fnmatch(TEMPLATE.name, pattern) for pattern in data)
