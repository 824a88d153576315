"""EMR's API: what is asked of clusters, and what EMR and the deployment's policy refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fruits_assets_tests.emulator.clusters import (
    ACCOUNT,
    ACTIVE,
    INSTANCE_STATES,
    OVER,
    Cluster,
    Instance,
    Step,
)
from fruits_assets_tests.emulator.plan import Plan

Parameters = dict[str, Any]
Answer = dict[str, Any]

NAME_LENGTH = 256
ARGS_LENGTH = 10_280
ACTIVE_STEPS = 256
IDLE_SECONDS = range(60, 604_800 + 1)
SPOT_MINUTES = range(5, 1440 + 1)
FLEET_TYPES = 30
"""Instance types of a fleet with an allocation strategy; without one, it is 5."""
FLEET_TYPES_PLAIN = 5
PAGE = 50
MANAGED_TAG, STACK_TAG = "for-use-with-amazon-emr-managed-policies", "fruits-stack"
RELEASES = {
    "emr-spark-8.0.0": ("4.0.2", "3.4.1"),
    "emr-7.13.0": ("3.5.6", "3.4.1"),
    "emr-7.12.0": ("3.5.6", "3.4.1"),
    "emr-6.15.0": ("3.4.1", "3.3.6"),
}
"""Release label -> versions of Spark and Hadoop."""
OPEN_PORTS = {"MinRange": 22, "MaxRange": 22}


class RefusalError(Exception):
    """A request is refused.

    Attributes:
        code: by which clients know the error.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def _invalid(message: str) -> RefusalError:
    return RefusalError("ValidationException", message)


@dataclass
class Service:
    """EMR in all regions.

    Attributes:
        endpoint: of the AWS that it is part of.
        folder: for its clusters.
        plan: of clusters that are created.
        plans: of the next clusters to be created, one each.
        clusters: by identifier, in the order of their creation.
    """

    endpoint: str
    folder: Path
    plan: Plan = field(default_factory=Plan)
    plans: list[Plan] = field(default_factory=list)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    public_access: dict[str, Answer] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._actions: dict[str, Callable[[str, Parameters], Answer]] = {
            "AddJobFlowSteps": self._add_job_flow_steps,
            "AddTags": self._add_tags,
            "CancelSteps": self._cancel_steps,
            "DescribeCluster": self._describe_cluster,
            "DescribeReleaseLabel": self._describe_release_label,
            "DescribeStep": self._describe_step,
            "GetAutoTerminationPolicy": self._get_auto_termination_policy,
            "GetBlockPublicAccessConfiguration": self._get_block_public_access,
            "GetManagedScalingPolicy": self._get_managed_scaling_policy,
            "ListClusters": self._list_clusters,
            "ListInstanceFleets": self._list_instance_fleets,
            "ListInstanceGroups": self._list_instance_groups,
            "ListInstances": self._list_instances,
            "ListReleaseLabels": self._list_release_labels,
            "ListSteps": self._list_steps,
            "ModifyCluster": self._modify_cluster,
            "PutAutoTerminationPolicy": self._put_auto_termination_policy,
            "PutBlockPublicAccessConfiguration": self._put_block_public_access,
            "RemoveAutoTerminationPolicy": self._remove_auto_termination_policy,
            "RemoveTags": self._remove_tags,
            "RunJobFlow": self._run_job_flow,
            "SetKeepJobFlowAliveWhenNoSteps": self._set_keep_alive,
            "SetTerminationProtection": self._set_termination_protection,
            "TerminateJobFlows": self._terminate_job_flows,
        }

    def knows(self, action: str) -> bool:
        """Whether an action is answered here; moto answers the others."""
        return action in self._actions

    def answer(self, action: str, parameters: Parameters, *, region: str) -> Answer:
        """What EMR answers in a region.

        Raises:
            RefusalError: it refuses.
        """
        return self._actions[action](region, parameters)

    def next_plan(self) -> Plan:
        """Of the cluster that is created now."""
        with self.lock:
            return self.plans.pop(0) if self.plans else self.plan

    def _find(self, region: str, identifier: str) -> Cluster:
        cluster = self.clusters.get(identifier)
        if cluster is None or cluster.region != region:
            raise RefusalError(
                "InvalidRequestException", f"Cluster id '{identifier}' is not valid."
            )
        return cluster

    # ------------------------------------------------------------------------------- clusters

    def _run_job_flow(self, region: str, request: Parameters) -> Answer:
        check_request(request, region)
        plan = self.next_plan()
        if plan.refuse:
            raise RefusalError(*plan.refuse)
        cluster = Cluster(request, plan, region=region, endpoint=self.endpoint, folder=self.folder)
        with self.lock:
            self.clusters[cluster.id] = cluster
        cluster.start()
        return {"JobFlowId": cluster.id, "ClusterArn": cluster.arn}

    def _describe_cluster(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        with cluster.changed:
            return {"Cluster": described(cluster)}

    def _list_clusters(self, region: str, asked: Parameters) -> Answer:
        states = asked.get("ClusterStates")
        after, before = asked.get("CreatedAfter", 0.0), asked.get("CreatedBefore", float("inf"))
        with self.lock:
            newest = list(reversed(self.clusters.values()))
        found = [
            {
                "Id": cluster.id,
                "Name": cluster.name,
                "Status": _cluster_status(cluster),
                "NormalizedInstanceHours": 0,
                "ClusterArn": cluster.arn,
            }
            for cluster in newest
            if cluster.region == region and after <= cluster.created <= before
        ]
        found = [one for one in found if not states or one["Status"]["State"] in states]
        return _page("Clusters", found, asked)

    def _terminate_job_flows(self, region: str, asked: Parameters) -> Answer:
        found = [self._known(region, identifier) for identifier in asked["JobFlowIds"]]
        for cluster in found:
            if not cluster.protected:
                cluster.end("TERMINATED", "USER_REQUEST", "Terminated by user request")
        if any(cluster.protected for cluster in found):
            raise _invalid(
                "Could not shut down one or more job flows since they are termination protected."
            )
        return {}

    def _known(self, region: str, identifier: str) -> Cluster:
        """The older actions, those about job flows, refuse with another error."""
        try:
            return self._find(region, identifier)
        except RefusalError as error:
            raise _invalid("Specified job flow ID not valid.") from error

    def _modify_cluster(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        with cluster.changed:
            cluster.concurrency = asked.get("StepConcurrencyLevel", cluster.concurrency)
            cluster.changed.notify_all()
        return {"StepConcurrencyLevel": cluster.concurrency}

    def _set_termination_protection(self, region: str, asked: Parameters) -> Answer:
        for identifier in asked["JobFlowIds"]:
            self._known(region, identifier).protected = asked["TerminationProtected"]
        return {}

    def _set_keep_alive(self, region: str, asked: Parameters) -> Answer:
        for identifier in asked["JobFlowIds"]:
            cluster = self._known(region, identifier)
            with cluster.changed:
                cluster.keep_alive = asked["KeepJobFlowAliveWhenNoSteps"]
                cluster.changed.notify_all()
        return {}

    def _add_tags(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ResourceId"])
        cluster.tags |= {tag["Key"]: tag.get("Value", "") for tag in asked["Tags"]}
        return {}

    def _remove_tags(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ResourceId"])
        cluster.tags = {k: tag for k, tag in cluster.tags.items() if k not in asked["TagKeys"]}
        return {}

    def _get_auto_termination_policy(self, region: str, asked: Parameters) -> Answer:
        policy = self._find(region, asked["ClusterId"]).auto_termination
        return {"AutoTerminationPolicy": policy} if policy else {}

    def _put_auto_termination_policy(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        _check_auto_termination(asked.get("AutoTerminationPolicy"))
        _check_open(cluster)
        with cluster.changed:
            cluster.auto_termination = asked.get("AutoTerminationPolicy")
            cluster.changed.notify_all()
        return {}

    def _remove_auto_termination_policy(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        with cluster.changed:
            cluster.auto_termination = None
            cluster.changed.notify_all()
        return {}

    def _get_managed_scaling_policy(self, region: str, asked: Parameters) -> Answer:
        policy = self._find(region, asked["ClusterId"]).request.get("ManagedScalingPolicy")
        return {"ManagedScalingPolicy": policy} if policy else {}

    # ---------------------------------------------------------------------------------- steps

    def _add_job_flow_steps(self, region: str, asked: Parameters) -> Answer:
        cluster = self._known(region, asked["JobFlowId"])
        with cluster.changed:
            _check_open(cluster)
            _check_steps(asked["Steps"], cluster.concurrency)
            active = sum(step.state in ACTIVE for step in cluster.steps)
            if active + len(asked["Steps"]) > ACTIVE_STEPS:
                raise _invalid(
                    f"Maximum number of active steps({ACTIVE_STEPS}) for cluster exceeded."
                )
            return {"StepIds": cluster.add_steps(asked["Steps"])}

    def _cancel_steps(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        _check_open(cluster)
        force = asked.get("StepCancellationOption") == "TERMINATE_PROCESS"
        answers = []
        for identifier in asked["StepIds"]:
            done = cluster.cancel(_step(cluster, identifier), force=force)
            answer = {"StepId": identifier, "Status": "SUBMITTED" if done else "FAILED"}
            if not done:
                answer["Reason"] = "The step has ended, or is being cancelled."
            answers.append(answer)
        return {"CancelStepsInfoList": answers}

    def _describe_step(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        with cluster.changed:
            return {"Step": _described_step(_step(cluster, asked["StepId"]))}

    def _list_steps(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        states, identifiers = asked.get("StepStates"), asked.get("StepIds")
        with cluster.changed:
            found = [
                _described_step(step)
                for step in reversed(cluster.steps)
                if (not states or step.state in states)
                and (not identifiers or step.id in identifiers)
            ]
        return _page("Steps", found, asked)

    # ------------------------------------------------------------------------------- machines

    def _list_instances(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        kinds = asked.get("InstanceGroupTypes") or [asked.get("InstanceFleetType")]
        group = asked.get("InstanceGroupId") or asked.get("InstanceFleetId")
        states = asked.get("InstanceStates")
        with cluster.changed:
            found = [
                _described_instance(cluster, one)
                for one in cluster.instances
                if kinds in ([None], []) or one.kind in kinds
                if group in (None, one.group)
            ]
        found = [one for one in found if not states or one["Status"]["State"] in states]
        return _page("Instances", found, asked, size=2000)

    def _list_instance_fleets(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        if cluster.groups:
            raise RefusalError(
                "InvalidRequestException",
                "Instance fleets and instance groups are mutually exclusive.",
            )
        found = [{**fleet, "Status": _group_status(cluster)} for fleet in cluster.fleets]
        return _page("InstanceFleets", found, asked)

    def _list_instance_groups(self, region: str, asked: Parameters) -> Answer:
        cluster = self._find(region, asked["ClusterId"])
        if cluster.fleets:
            raise RefusalError(
                "InvalidRequestException",
                "Instance fleets and instance groups are mutually exclusive.",
            )
        found = []
        for group in cluster.groups:
            running = [
                one for one in cluster.instances if one.group == group["Id"] and not one.ended
            ]
            status = _group_status(cluster)
            found.append({**group, "RunningInstanceCount": len(running), "Status": status})
        return _page("InstanceGroups", found, asked)

    def _list_release_labels(self, _: str, asked: Parameters) -> Answer:
        prefix = (asked.get("Filters") or {}).get("Prefix", "")
        return {"ReleaseLabels": [label for label in RELEASES if label.startswith(prefix)]}

    def _describe_release_label(self, _: str, asked: Parameters) -> Answer:
        label = asked.get("ReleaseLabel", next(iter(RELEASES)))
        if label not in RELEASES:
            raise _invalid(f"The supplied release label is invalid: {label}.")
        spark, hadoop = RELEASES[label]
        applications = [{"Name": "Hadoop", "Version": hadoop}, {"Name": "Spark", "Version": spark}]
        return {"ReleaseLabel": label, "Applications": applications}

    def _get_block_public_access(self, region: str, _: Parameters) -> Answer:
        as_for_new_accounts = {
            "BlockPublicSecurityGroupRules": True,
            "PermittedPublicSecurityGroupRuleRanges": [OPEN_PORTS],
        }
        return {
            "BlockPublicAccessConfiguration": self.public_access.get(region, as_for_new_accounts),
            "BlockPublicAccessConfigurationMetadata": {
                "CreationDateTime": 0.0,
                "CreatedByArn": f"arn:aws:iam::{ACCOUNT}:root",
            },
        }

    def _put_block_public_access(self, region: str, asked: Parameters) -> Answer:
        self.public_access[region] = asked["BlockPublicAccessConfiguration"]
        return {}


# ------------------------------------------------------------------------------- descriptions


def described(cluster: Cluster) -> Answer:
    """A cluster as DescribeCluster describes it."""
    request, wanted = cluster.request, cluster.request["Instances"]
    copied = (
        *("LogUri", "LogEncryptionKmsKeyId", "ReleaseLabel", "ServiceRole", "Configurations"),
        *("SecurityConfiguration", "ScaleDownBehavior", "EbsRootVolumeSize", "OSReleaseLabel"),
    )
    subnets = wanted.get("Ec2SubnetIds") or [wanted.get("Ec2SubnetId")]
    spark, hadoop = RELEASES.get(request.get("ReleaseLabel", ""), ("", ""))
    versions = {"spark": spark, "hadoop": hadoop}
    return {
        "Id": cluster.id,
        "Name": cluster.name,
        "ClusterArn": cluster.arn,
        "Status": _cluster_status(cluster),
        "InstanceCollectionType": "INSTANCE_FLEET" if cluster.fleets else "INSTANCE_GROUP",
        "Ec2InstanceAttributes": {
            "IamInstanceProfile": request.get("JobFlowRole"),
            "RequestedEc2SubnetIds": [subnet for subnet in subnets if subnet],
            "Ec2SubnetId": subnets[0],
            "Ec2AvailabilityZone": f"{cluster.region}a",
        },
        "AutoTerminate": not cluster.keep_alive,
        "TerminationProtected": cluster.protected,
        "VisibleToAllUsers": request.get("VisibleToAllUsers", True),
        "Applications": [
            {"Name": one["Name"], "Version": versions.get(one["Name"].lower(), "")}
            for one in request.get("Applications", ())
        ],
        "Tags": [{"Key": key, "Value": tag} for key, tag in cluster.tags.items()],
        "NormalizedInstanceHours": 0,
        "MasterPublicDnsName": f"ip-10-0-0-1.{cluster.region}.compute.internal",
        "StepConcurrencyLevel": cluster.concurrency,
        **{name: request[name] for name in copied if name in request},
    }


def _timeline(**moments: float | None) -> Answer:
    return {name: moment for name, moment in moments.items() if moment is not None}


def _cluster_status(cluster: Cluster) -> Answer:
    reason = cluster.end_reason
    return {
        "State": cluster.state,
        "StateChangeReason": {"Code": reason.code, "Message": reason.message} if reason else {},
        "Timeline": _timeline(
            CreationDateTime=cluster.created,
            ReadyDateTime=cluster.ready,
            EndDateTime=cluster.ended,
        ),
    }


def _group_status(cluster: Cluster) -> Answer:
    state = cluster.state
    shown = "TERMINATED" if cluster.ended else INSTANCE_STATES.get(state, "TERMINATING")
    return {
        "State": shown,
        "StateChangeReason": {"Message": ""},
        "Timeline": _timeline(
            CreationDateTime=cluster.created,
            ReadyDateTime=cluster.ready,
            EndDateTime=cluster.ended,
        ),
    }


def _described_instance(cluster: Cluster, one: Instance) -> Answer:
    state = "TERMINATED" if one.ended else INSTANCE_STATES.get(cluster.state, "RUNNING")
    code, message = one.reason or (None, None)
    return {
        "Id": one.id,
        "Ec2InstanceId": one.ec2_id,
        "InstanceType": one.type,
        "Market": one.market,
        "InstanceFleetId" if cluster.fleets else "InstanceGroupId": one.group,
        "Status": {
            "State": state,
            "StateChangeReason": {"Code": code, "Message": message} if code else {},
            "Timeline": _timeline(
                CreationDateTime=one.created, ReadyDateTime=one.ready, EndDateTime=one.ended
            ),
        },
    }


def _described_step(step: Step) -> Answer:
    jar = step.config["HadoopJarStep"]
    status: Answer = {
        "State": step.state,
        "StateChangeReason": {"Message": step.message} if step.message else {},
        "Timeline": _timeline(
            CreationDateTime=step.created, StartDateTime=step.started, EndDateTime=step.ended
        ),
    }
    if step.failure:
        status["FailureDetails"] = step.failure
    return {
        "Id": step.id,
        "Name": step.config["Name"],
        "Config": {"Jar": jar["Jar"], "Properties": {}, "Args": jar.get("Args", [])},
        "ActionOnFailure": step.on_failure,
        "Status": status,
    }


def _step(cluster: Cluster, identifier: str) -> Step:
    for step in cluster.steps:
        if step.id == identifier:
            return step
    raise RefusalError("InvalidRequestException", f"Step id '{identifier}' is not valid.")


def _page(name: str, found: Sequence[Answer], asked: Parameters, *, size: int = PAGE) -> Answer:
    """A page of a list; the marker of the next one is where it starts."""
    start = int(asked.get("Marker") or 0)
    answer: Answer = {name: list(found[start : start + size])}
    if start + size < len(found):
        answer["Marker"] = str(start + size)
    return answer


# ------------------------------------------------------------------------------------- checks


def check_request(request: Mapping[str, Any], region: str) -> None:
    """What EMR, or the policy of the deployment's users, checks of RunJobFlow.

    Raises:
        RefusalError: it would refuse the request.
    """
    tags = {tag["Key"]: tag.get("Value") for tag in request.get("Tags", ())}
    if tags.get(MANAGED_TAG) != "true" or not tags.get(STACK_TAG):
        raise RefusalError(
            "AccessDeniedException",
            f"User: arn:aws:iam::{ACCOUNT}:user/fruits is not authorized to perform: "
            f"elasticmapreduce:RunJobFlow on resource: arn:aws:elasticmapreduce:{region}:"
            f"{ACCOUNT}:cluster/* because no identity-based policy allows the "
            "elasticmapreduce:RunJobFlow action",
        )
    if len(request["Name"]) > NAME_LENGTH:
        raise _invalid(
            f"1 validation error detected: Value at 'name' failed to satisfy constraint: "
            f"Member must have length less than or equal to {NAME_LENGTH}"
        )
    concurrency = request.get("StepConcurrencyLevel", 1)
    if not 1 <= concurrency <= ACTIVE_STEPS:
        raise _invalid(f"The step concurrency level must be between 1 and {ACTIVE_STEPS}.")
    label = request.get("ReleaseLabel")
    if label not in RELEASES:
        raise _invalid(f"The supplied release label is invalid: {label}.")
    _check_auto_termination(request.get("AutoTerminationPolicy"))
    _check_instances(request["Instances"])
    _check_steps(request.get("Steps", ()), concurrency)


def _check_auto_termination(policy: Mapping[str, Any] | None) -> None:
    if policy and policy.get("IdleTimeout") not in IDLE_SECONDS:
        raise _invalid(
            "The idle timeout of an auto-termination policy must be between "
            f"{IDLE_SECONDS[0]} and {IDLE_SECONDS[-1]} seconds."
        )


def _check_instances(wanted: Mapping[str, Any]) -> None:
    fleets = wanted.get("InstanceFleets", ())
    groups = wanted.get("InstanceGroups") or wanted.get("MasterInstanceType")
    if fleets and groups:
        raise _invalid("Instance fleets and instance groups are mutually exclusive.")
    if fleets:
        kinds = [fleet["InstanceFleetType"] for fleet in fleets]
    elif wanted.get("InstanceGroups"):
        kinds = [group["InstanceRole"] for group in wanted["InstanceGroups"]]
    else:
        kinds = ["MASTER"] if groups else []
    if kinds.count("MASTER") != 1:
        raise _invalid("A job flow must have exactly one master instance group or fleet.")
    if "TASK" in kinds and "CORE" not in kinds:
        raise _invalid("Task instances need core instances.")
    subnets = [*wanted.get("Ec2SubnetIds", ()), *filter(None, [wanted.get("Ec2SubnetId")])]
    for subnet in subnets:
        if not subnet.startswith("subnet-"):
            raise _invalid(f"The subnet {subnet} is not valid.")
    if len(subnets) > 1 and not fleets:
        raise _invalid("More than one subnet can be given with instance fleets only.")
    for fleet in fleets:
        _check_fleet(fleet)


def _check_fleet(fleet: Mapping[str, Any]) -> None:
    kind = fleet["InstanceFleetType"]
    types = fleet.get("InstanceTypeConfigs", ())
    launches = fleet.get("LaunchSpecifications", {})
    spot, demand = (launches.get(f"{it}Specification", {}) for it in ("Spot", "OnDemand"))
    chosen = "AllocationStrategy" in spot or "AllocationStrategy" in demand
    most = FLEET_TYPES if chosen else FLEET_TYPES_PLAIN
    if not 1 <= len(types) <= most:
        raise _invalid(
            f"The fleet {kind} has {len(types)} instance types, not between 1 and {most}."
        )
    names = [one["InstanceType"] for one in types]
    if len(set(names)) < len(names):
        raise _invalid(f"The fleet {kind} names an instance type twice.")
    targets = [fleet.get(f"Target{it}Capacity", 0) for it in ("OnDemand", "Spot")]
    if sum(targets) < 1 or (kind == "MASTER" and sum(targets) != 1):
        raise _invalid(f"The fleet {kind} has the target capacities {targets}.")
    if spot and spot.get("TimeoutDurationMinutes") not in SPOT_MINUTES:
        raise _invalid(
            f"The Spot timeout must be between {SPOT_MINUTES[0]} and {SPOT_MINUTES[-1]} minutes."
        )


def _check_steps(steps: Iterable[Mapping[str, Any]], concurrency: int) -> None:
    for step in steps:
        if len(step["Name"]) > NAME_LENGTH:
            raise _invalid(
                "1 validation error detected: Value at 'steps.1.member.name' failed to satisfy "
                f"constraint: Member must have length less than or equal to {NAME_LENGTH}"
            )
        if sum(map(len, step["HadoopJarStep"].get("Args", ()))) > ARGS_LENGTH:
            raise _invalid(f"The args of a step may have {ARGS_LENGTH} characters in total.")
        action = step.get("ActionOnFailure", "TERMINATE_CLUSTER")
        if concurrency > 1 and action != "CONTINUE":
            raise _invalid(
                f"ActionOnFailure {action} is not valid: a cluster with StepConcurrencyLevel "
                "greater than 1 takes CONTINUE only."
            )


def _check_open(cluster: Cluster) -> None:
    if cluster.state in OVER:
        raise _invalid(
            "A job flow that is shutting down, terminated, or finished may not be modified."
        )
