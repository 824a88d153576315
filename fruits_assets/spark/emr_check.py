"""Whether an account is ready for clusters: looked at before one is paid for, changing nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fruits_assets.core.errors import FruitsError
from fruits_assets.spark.account import MANAGED, EmrAccount
from fruits_assets.spark.emr_costs import Pricing
from fruits_assets.spark.prices import Prices
from fruits_assets.spark.sizing import Limits
from fruits_assets.storage import clients as aws_clients
from fruits_assets.storage.aws_errors import code_of, explain
from fruits_assets.storage.base import S3
from fruits_assets.storage.endpoints import split
from fruits_assets.storage.region import check_region

ENOUGH_TYPES = 10
"""Of these at least, one zone should offer: Spot takes the pools that have machines to spare."""
QUOTAS = {"on demand": "L-1216C47A", "Spot": "L-34B43A08"}
"""Market -> code of EC2's quota for standard instances (m among them), in vCPUs."""
POLICY = "the policy ClusterChecksPolicy of the stack (docs/emr.md)"
NOT_THERE = {
    "NoSuchBucket",
    "NoSuchEntity",
    "NotFoundException",
    "InvalidSubnetID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.Malformed",
    "InvalidSubnetId.Malformed",
}
"""Codes by which services say that they have no such thing."""
REDEPLOY = "Run `make deploy` again and take over its lines into .env"

Aws = Callable[[str], Any]
"""Name of a service -> boto3's client of it."""


class NotReadyError(FruitsError):
    """Something is not as clusters need it; the text says what, and what to do."""


@dataclass(frozen=True)
class Finding:
    """What came of one check.

    Attributes:
        what: was looked at.
        ok: whether it is as clusters need it.
        told: what was found, and what to do where that is not enough.
    """

    what: str
    ok: bool
    told: str

    def __str__(self) -> str:
        return f"{'OK' if self.ok else 'FIX':<4} {self.what}: {self.told}"


@dataclass(frozen=True)
class Asked:
    """What is to be checked.

    Attributes:
        account: what clusters use.
        source: URI of the photos.
        lake: URI that is published to.
        kms_key: that everything written is encrypted with; None for S3's own.
        types: instance types of the fleets, such as `m7g.xlarge`.
        limits: of a run.
        prices: of AWS.
        bucket_owner: AWS account that owns the buckets; None where that is not known.
    """

    account: EmrAccount
    source: str
    lake: str
    kms_key: str | None
    types: Sequence[str]
    limits: Limits
    prices: Prices
    bucket_owner: str | None = None


@dataclass(frozen=True)
class Check:
    """One thing to look at.

    Attributes:
        what: its name.
        look: says what it found; raises NotReadyError.
        may: the permissions that looking takes.
        needs: names of the checks that must have succeeded before.
    """

    what: str
    look: Callable[[], str]
    may: str = ""
    needs: tuple[str, ...] = ()


def aws(region: str) -> Aws:
    """Clients in one region of the EU, which raise EndpointError. Raises RegionError."""
    check_region(region)
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=10, read_timeout=30
    )

    @cache
    def client(service: str) -> Any:
        return aws_clients.client(service, region, config)

    return client


def check(
    region: Callable[[], str], asked: Callable[[], Asked], clients: Callable[[str], Aws] = aws
) -> list[Finding]:
    """Looks at everything that a cluster needs, without changing anything.

    Args:
        region: gives the region, or raises a FruitsError.
        asked: gives what is to be checked, or raises a FruitsError.
        clients: region -> clients.

    Returns:
        A finding for each check. A refusal of AWS is one that says what to do.
    """
    found: dict[str, Finding] = {}
    where, what = "", None

    def locate() -> str:
        nonlocal where
        where = check_region(region())
        return f"{where}, in the EU"

    def read() -> str:
        nonlocal what
        what = asked()
        return "all that clusters need is set"

    _run(Check("region", locate), found, where)
    _run(Check("settings", read, needs=("region",)), found, where)
    if what is None:
        return list(found.values())
    survey = Survey(what, clients(where), where)
    for one in survey.checks():
        _run(one, found, where)
    return list(found.values())


def _run(one: Check, found: dict[str, Finding], region: str) -> None:
    """Adds the finding of a check to those before it."""
    waiting = [name for name in one.needs if not found[name].ok]
    if waiting:
        told = f"not looked at. Put {' and '.join(repr(name) for name in waiting)} right first."
        found[one.what] = Finding(one.what, ok=False, told=told)
        return
    try:
        found[one.what] = Finding(one.what, ok=True, told=one.look())
    except FruitsError as error:
        found[one.what] = Finding(one.what, ok=False, told=str(error))
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        found[one.what] = Finding(one.what, ok=False, told=_refused(error, one.may, region))
    except (KeyError, TypeError, ValueError) as error:  # the other checks still have their say
        told = f"AWS answered what was not expected ({error!r}). See it in the console."
        found[one.what] = Finding(one.what, ok=False, told=told)


def _refused(
    error: ClientError | BotoCoreError | ResponseParserError, may: str, region: str
) -> str:
    if isinstance(error, ClientError) and code_of(error) in NOT_THERE:
        return f"it does not exist in {region} ({error.response['Error']['Message']}). {REDEPLOY}."
    return explain(error, region, may=f"call {may}, as {POLICY} allows")


class Survey:
    """The checks of one account; what several of them look at is asked for once."""

    def __init__(self, asked: Asked, clients: Aws, region: str) -> None:
        self._asked, self._account = asked, asked.account
        self._client, self._region = clients, region
        of = self._account.architecture
        self._pricing = Pricing(asked.limits, asked.prices, region, of)

    def checks(self) -> Iterable[Check]:
        """All of them, each after those that it needs."""
        known = ("credentials",)
        account, asked = self._account, self._asked
        yield Check("credentials", self._credentials, "sts:GetCallerIdentity")
        for name, uri in {
            "source": asked.source,
            "lake": asked.lake,
            "code": account.code,
            "pipes": account.pipes,
            "logs": account.logs,
        }.items():
            may = "s3:GetBucketLocation and s3:ListBucket"
            yield Check(name, lambda uri=uri: self._place(uri), may, known)
        yield Check("key", self._key, "kms:DescribeKey", known)
        yield Check("service role", self._service_role, "iam:GetRole", known)
        yield Check("instance profile", self._profile, "iam:GetInstanceProfile", known)
        may = "elasticmapreduce:DescribeSecurityConfiguration"
        yield Check("security configuration", self._security, may, known)
        may = "elasticmapreduce:GetBlockPublicAccessConfiguration"
        yield Check("block public access", self._block_public_access, may, known)
        yield Check("release", self._release, "elasticmapreduce:ListReleaseLabels", known)
        yield Check("subnets", self._subnets_usable, "ec2:DescribeSubnets", known)
        subnets = (*known, "subnets")
        yield Check("routes", self._routes, "ec2:DescribeRouteTables", subnets)
        may = "ec2:DescribeVpcEndpoints and ec2:DescribeRouteTables"
        yield Check("endpoint of S3", self._s3_endpoint, may, subnets)
        yield Check("endpoint of EMR", self._emr_endpoint, "ec2:DescribeVpcEndpoints", subnets)
        yield Check("security groups", self._groups, "ec2:DescribeSecurityGroups", subnets)
        may = "elasticmapreduce:ListSupportedInstanceTypes and ec2:DescribeInstanceTypeOfferings"
        yield Check("instance types", self._types, may, (*subnets, "release"))
        for market, code in QUOTAS.items():
            yield Check(
                f"quota {market}",
                lambda market=market, code=code: self._quota(market, code),
                "servicequotas:GetServiceQuota",
                known,
            )
        yield Check("price of clusters", self._pricing.of_clusters)
        may = "ec2:DescribeVpcEndpoints and ec2:DescribeRouteTables"
        yield Check("standing costs", self._standing, may, subnets)

    def _credentials(self) -> str:
        identity = self._client("sts").get_caller_identity()
        return f"account {identity['Account']}, as {identity['Arn']}"

    def _place(self, uri: str) -> str:
        if not uri.startswith(S3):
            raise NotReadyError(
                f"{uri} is no s3:// URI, and clusters reach nothing else. {REDEPLOY}."
            )
        bucket, prefix = split(uri)
        owner = self._asked.bucket_owner
        at = {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
        s3 = self._client("s3")
        # S3's answers from before regions had names.
        old = {None: "us-east-1", "EU": "eu-west-1"}
        location = s3.get_bucket_location(**at)["LocationConstraint"]
        if old.get(location, location) != self._region:
            raise NotReadyError(
                f"the bucket {bucket} lies in {old.get(location, location)}, not in "
                f"{self._region}. Use one in the region of the clusters."
            )
        s3.list_objects_v2(**at, Prefix=f"{prefix.rstrip('/')}/", MaxKeys=1)
        return f"{uri} can be listed"

    def _key(self) -> str:
        key = self._asked.kms_key
        if key is None:
            return "none is set: S3's own keys encrypt what is written"
        found = self._client("kms").describe_key(KeyId=key)["KeyMetadata"]
        if found["KeyState"] != "Enabled":
            raise NotReadyError(
                f"{key} is {found['KeyState']}. Enable it, or cancel its deletion, in KMS."
            )
        if (found["KeyUsage"], found["KeySpec"]) != ("ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT"):
            raise NotReadyError(
                f"{key} is a key of {found['KeySpec']} for {found['KeyUsage']}; EMR and S3 use "
                f"symmetric keys that encrypt. {REDEPLOY}."
            )
        return f"{key} is enabled"

    def _service_role(self) -> str:
        role = self._client("iam").get_role(RoleName=_name(self._account.service_role))["Role"]
        _check_trust(role, "elasticmapreduce.amazonaws.com")
        return f"EMR may take {role['RoleName']}"

    def _profile(self) -> str:
        name = _name(self._account.instance_profile)
        profile = self._client("iam").get_instance_profile(InstanceProfileName=name)
        roles = profile["InstanceProfile"]["Roles"]
        if not roles:
            raise NotReadyError(f"{name} holds no role. {REDEPLOY}.")
        _check_trust(roles[0], "ec2.amazonaws.com")
        return f"machines may take {roles[0]['RoleName']}"

    def _security(self) -> str:
        name = self._account.security_configuration
        try:
            answer = self._client("emr").describe_security_configuration(Name=name)
        except ClientError as error:
            # All that EMR says of a name it does not know.
            if code_of(error) == "InvalidRequestException":
                raise NotReadyError(
                    f"{name} does not exist in {self._region}. {REDEPLOY}."
                ) from error
            raise
        found = json.loads(answer["SecurityConfiguration"])
        encryption = found.get("EncryptionConfiguration", {})
        at_rest = encryption.get("AtRestEncryptionConfiguration", {})
        disks = at_rest.get("LocalDiskEncryptionConfiguration", {})
        metadata = found.get("InstanceMetadataServiceConfiguration", {})
        wanted = {
            "encryption at rest": encryption.get("EnableAtRestEncryption"),
            "encryption of objects": at_rest.get("S3EncryptionConfiguration"),
            "encryption of all disks (EBS)": disks.get("EnableEbsEncryption"),
            "IMDSv2": metadata.get("MinimumInstanceMetadataServiceVersion") == 2,
        }
        missing = [what for what, there in wanted.items() if not there]
        if missing:
            raise NotReadyError(f"{name} does not demand {', '.join(missing)}. {REDEPLOY}.")
        return f"{name} demands {', '.join(wanted)}"

    def _block_public_access(self) -> str:
        answer = self._client("emr").get_block_public_access_configuration()
        if not answer["BlockPublicAccessConfiguration"].get("BlockPublicSecurityGroupRules"):
            raise NotReadyError(
                f"it is off in {self._region}: a cluster could be reached from everywhere. Turn it "
                "on in EMR's console, under Block public access."
            )
        return "on"

    def _release(self) -> str:
        release = self._account.release
        emr, request = self._client("emr"), {"Filters": {"Prefix": release}}
        if release not in _pages(emr.list_release_labels, "ReleaseLabels", "NextToken", request):
            raise NotReadyError(
                f"EMR does not offer {release} in {self._region}. Set another release "
                "(docs/emr.md), or deploy to another region."
            )
        return f"{release} is offered"

    @cached_property
    def _subnets(self) -> list[Mapping[str, Any]]:
        ids = [it.strip() for it in self._account.subnets.split(",")]
        return self._client("ec2").describe_subnets(SubnetIds=ids)["Subnets"]

    @property
    def _network(self) -> str:
        return self._subnets[0]["VpcId"]

    def _subnets_usable(self) -> str:
        _check_tags(self._subnets, "SubnetId")
        if len({it["VpcId"] for it in self._subnets}) > 1:
            raise NotReadyError(f"they lie in several networks. {REDEPLOY}.")
        zones = sorted(it["AvailabilityZone"] for it in self._subnets)
        return f"{len(self._subnets)} of {self._network}, in {', '.join(zones)}"

    def _tables(self) -> list[Mapping[str, Any]]:
        """Of each subnet, in their order: a subnet without one of its own has the network's."""
        tables = self._client("ec2").describe_route_tables(
            Filters=[{"Name": "vpc-id", "Values": [self._network]}]
        )["RouteTables"]
        of = {
            it.get("SubnetId"): table
            for table in tables
            for it in table["Associations"]
            if it.get("SubnetId") or it.get("Main")
        }
        return [of.get(subnet["SubnetId"], of.get(None, {})) for subnet in self._subnets]

    def _routes(self) -> str:
        public = {
            subnet["SubnetId"]
            for subnet, table in zip(self._subnets, self._tables(), strict=True)
            if subnet["MapPublicIpOnLaunch"]
            or any(it.get("GatewayId", "").startswith("igw-") for it in table.get("Routes", []))
        }
        if public:
            raise NotReadyError(
                f"{', '.join(sorted(public))} have public addresses or lead to the internet. "
                f"{REDEPLOY}, or name private subnets."
            )
        return "none from the internet, and no public addresses"

    def _endpoints(self, service: str) -> list[Mapping[str, Any]]:
        return self._client("ec2").describe_vpc_endpoints(
            Filters=[
                {"Name": "vpc-id", "Values": [self._network]},
                {"Name": "service-name", "Values": [service]},
            ]
        )["VpcEndpoints"]

    def _s3_endpoint(self) -> str:
        endpoints = self._endpoints(f"com.amazonaws.{self._region}.s3")
        reached = {table for it in endpoints for table in it.get("RouteTableIds", [])}
        cut_off = [
            subnet["SubnetId"]
            for subnet, table in zip(self._subnets, self._tables(), strict=True)
            if table.get("RouteTableId") not in reached
        ]
        if cut_off:
            raise NotReadyError(
                f"{', '.join(cut_off)} reach no gateway endpoint of S3: machines could install "
                f"nothing and read no photos. {REDEPLOY}."
            )
        return "reached from every subnet"

    def _emr_endpoint(self) -> str:
        if not self._account.release.startswith("emr-spark-"):
            return f"not needed by {self._account.release}"
        endpoints = self._endpoints(f"aws.api.{self._region}.emr-service-cell01")
        if not endpoints:
            return (
                "none yet. EMR makes one with the first cluster; it stays, and costs "
                f"{self._pricing.endpoint()} until somebody deletes it (docs/costs.md)"
            )
        states = {it["VpcEndpointId"]: it["State"].lower() for it in endpoints}
        if "available" not in states.values():
            raise NotReadyError(
                f"{states}: delete it in the VPC console, and EMR makes another one."
            )
        return f"{', '.join(states)}, which costs {self._pricing.endpoint()} while it is there"

    def _groups(self) -> str:
        account = self._account
        ids = {
            account.primary_security_group,
            account.worker_security_group,
            account.service_security_group,
        }
        found = self._client("ec2").describe_security_groups(GroupIds=sorted(ids))
        groups = found["SecurityGroups"]
        _check_tags(groups, "GroupId")
        strangers = [it["GroupId"] for it in groups if it["VpcId"] != self._network]
        if strangers:
            raise NotReadyError(f"{', '.join(strangers)} are not of {self._network}. {REDEPLOY}.")
        return f"{', '.join(sorted(ids))} of {self._network}"

    def _types(self) -> str:
        release = self._account.release
        supported = {
            it["Type"]
            for it in _pages(
                self._client("emr").list_supported_instance_types,
                "SupportedInstanceTypes",
                "Marker",
                {"ReleaseLabel": release},
            )
        }
        usable = [it for it in self._asked.types if it in supported]
        zones = {it["AvailabilityZone"]: 0 for it in self._subnets}
        for it in _pages(
            self._client("ec2").describe_instance_type_offerings,
            "InstanceTypeOfferings",
            "NextToken",
            {
                "LocationType": "availability-zone",
                "Filters": [
                    {"Name": "instance-type", "Values": usable},
                    {"Name": "location", "Values": sorted(zones)},
                ],
            },
        ):
            zones[it["Location"]] += 1
        told = ", ".join(f"{count} in {zone}" for zone, count in sorted(zones.items()))
        enough = min(ENOUGH_TYPES, len(self._asked.types))
        if max(zones.values()) < enough:
            raise NotReadyError(
                f"of {len(self._asked.types)} types, {release} knows {len(usable)}, and zones offer"
                f" {told}; {enough} in one of them are wanted. Set the other architecture, or "
                "deploy to another region (docs/emr.md)."
            )
        return f"{told}, of {len(self._asked.types)}"

    def _quota(self, market: str, code: str) -> str:
        quotas = self._client("service-quotas")
        value = quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        wanted = self._pricing.most_vcpus
        if value < wanted:
            raise NotReadyError(
                f"{value:g} vCPUs {market}, where a cluster may take {wanted}. Ask AWS "
                f"for more (Service Quotas, EC2, {code}; free, takes hours to days), or lower "
                "max_cores (docs/emr.md)."
            )
        return f"{value:g} vCPUs, where a cluster takes {wanted} at the most"

    def _standing(self) -> str:
        where = [{"Name": "vpc-id", "Values": [self._network]}]
        found = self._client("ec2").describe_vpc_endpoints(Filters=where)["VpcEndpoints"]
        paid = [it for it in found if it.get("VpcEndpointType") == "Interface"]
        routes = [route for table in self._tables() for route in table.get("Routes", [])]
        return self._pricing.of_nothing(
            keys=1 if self._asked.kms_key else 0,
            zones=sum(len(it.get("SubnetIds", [])) for it in paid),
            nats=len({it["NatGatewayId"] for it in routes if it.get("NatGatewayId")}),
        )


def _name(arn: str) -> str:
    """Of a role or profile, which an ARN ends with."""
    return arn.rpartition("/")[2]


def _check_trust(role: Mapping[str, Any], service: str) -> None:
    """Raises NotReadyError where a service may not take a role."""
    for statement in role["AssumeRolePolicyDocument"]["Statement"]:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, Mapping) else []
        services = [services] if isinstance(services, str) else services
        if statement["Effect"] == "Allow" and service in services:
            return
    raise NotReadyError(f"{role['RoleName']} does not let {service} take it. {REDEPLOY}.")


def _check_tags(resources: Iterable[Mapping[str, Any]], id_name: str) -> None:
    """Raises NotReadyError where EMR's managed policy would not act on a resource."""
    bare = [
        it[id_name]
        for it in resources
        if {"Key": MANAGED, "Value": "true"} not in it.get("Tags", [])
    ]
    if bare:
        raise NotReadyError(
            f"{', '.join(bare)} lack the tag {MANAGED}=true. {REDEPLOY}, or tag them."
        )


def _pages(
    call: Callable[..., Any], items: str, token: str, request: Mapping[str, Any]
) -> Iterable[Any]:
    """Everything that a call lists; boto3 has no paginators for some of EMR's."""
    further: dict[str, Any] = {}
    while True:
        answer = call(**request, **further)
        yield from answer.get(items, [])
        if not answer.get(token):
            return
        further = {token: answer[token]}
