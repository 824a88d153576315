"""One CloudFormation stack: deployed, deleted, and what went wrong with it in words."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from fruits_assets.core.errors import FruitsError
from fruits_assets.storage import clients
from fruits_assets.storage.region import check_region

TEMPLATE = Path(__file__).with_name("stack.yaml")
NAME = re.compile("[A-Za-z][A-Za-z0-9-]{0,127}")
TAG = "fruits-stack"
"""Every resource of a stack carries its name under this tag."""
STABLE = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
}
"""States of a stack that can be changed."""
KEPT = {"AWS::S3::Bucket", "AWS::KMS::Key"}
"""Types of the resources that outlive their stack and are to be removed by hand, if at all."""
WAIT = {"Delay": 5, "MaxAttempts": 720}
"""Ask every five seconds, for an hour: minutes are usual, and a stack never takes longer."""


class StackError(FruitsError):
    """A stack is not in a state to be worked on, or what was asked of it failed."""


@dataclass(frozen=True)
class Kept:
    """A resource that outlives its stack.

    Attributes:
        resource: its name in the template.
        type: such as `AWS::S3::Bucket`.
        id: what AWS knows it by.
    """

    resource: str
    type: str
    id: str


class Stack:
    """A stack in one region of the EU, which need not exist yet."""

    def __init__(self, name: str, region: str) -> None:
        """Names a stack; AWS is not asked anything yet.

        Raises:
            RegionError: the region is not in the EU.
            EndpointError: CloudFormation is not to be asked at AWS.
            StackError: CloudFormation knows no such names.
        """
        check_region(region)
        if not NAME.fullmatch(name):
            raise StackError(
                f"{name!r} cannot be the name of a stack. Give one that begins with a letter and "
                "has only letters, digits and hyphens."
            )
        self.name = name
        self.region = region
        self._client: Any = clients.client("cloudformation", region, Config())

    def deploy(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Creates the stack or changes it to the template, and waits until that is done.

        Args:
            parameters: of the template. One that is not named keeps the value it has in the
                stack, or else has the template's default.

        Returns:
            The outputs of the stack.

        Raises:
            StackError: it is in a state that cannot be deployed to, or the deployment failed.
        """
        before = self._describe()
        request: dict[str, Any] = {
            "StackName": self.name,
            "TemplateBody": self._template,
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": TAG, "Value": self.name}],
            "Parameters": [
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in {**self._values(before), **parameters}.items()
            ],
            # The template keeps buckets and key for the sake of what is in them. Those that a
            # failed deployment has just made are empty, and would be left behind at every attempt.
            "RetainExceptOnCreate": True,
            "ClientRequestToken": str(uuid.uuid4()),
        }
        if before is None:
            stack = self._client.create_stack(**request)["StackId"]
            self._wait("stack_create_complete", stack, request)
        else:
            self._check_stable(before["StackStatus"])
            self._update(before["StackId"], request)
        return self.outputs()

    def outputs(self) -> dict[str, str]:
        """What the stack says of itself.

        Raises:
            StackError: there is no such stack.
        """
        outputs = self._existing().get("Outputs", [])
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    def kept(self) -> list[Kept]:
        """What will be left when the stack is deleted.

        Raises:
            StackError: there is no such stack.
        """
        stack = self._existing()["StackId"]
        pages = self._client.get_paginator("list_stack_resources").paginate(StackName=stack)
        return [
            Kept(it["LogicalResourceId"], it["ResourceType"], it["PhysicalResourceId"])
            for page in pages
            for it in page["StackResourceSummaries"]
            if it["ResourceType"] in KEPT and it["ResourceStatus"] != "DELETE_COMPLETE"
        ]

    def destroy(self) -> None:
        """Deletes the stack and waits until that is done; `kept` is left.

        Raises:
            StackError: there is no such stack, or something of it could not be deleted.
        """
        stack = self._existing()["StackId"]
        request = {"ClientRequestToken": str(uuid.uuid4())}
        self._client.delete_stack(StackName=stack, **request)
        self._wait("stack_delete_complete", stack, request)

    def _describe(self) -> dict[str, Any] | None:
        try:
            return self._client.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            if "does not exist" in error.response.get("Error", {}).get("Message", ""):
                return None
            raise

    def _existing(self) -> dict[str, Any]:
        stack = self._describe()
        if stack is None:
            raise StackError(
                f"there is no stack {self.name!r} in {self.region}. Name the one that was deployed,"
                " and its region."
            )
        return stack

    @property
    def _template(self) -> str:
        return TEMPLATE.read_text(encoding="utf-8")

    def _values(self, before: Mapping[str, Any] | None) -> dict[str, str]:
        """What the stack's parameters were set to, without those that the template has no more."""
        had = before.get("Parameters", []) if before else []
        if not had:
            return {}
        summary = self._client.get_template_summary(TemplateBody=self._template)
        known = {parameter["ParameterKey"] for parameter in summary["Parameters"]}
        values = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in had}
        return {name: value for name, value in values.items() if name in known}

    def _check_stable(self, status: str) -> None:
        if status in STABLE:
            return
        if status == "UPDATE_ROLLBACK_FAILED":
            raise StackError(
                f"the stack {self.name!r} is stuck between two states ({status}). Run `aws "
                f"cloudformation continue-update-rollback --stack-name {self.name} --region "
                f"{self.region}`, then deploy again."
            )
        if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
            raise StackError(
                f"the stack {self.name!r} is being changed right now ({status}). Wait until that "
                "is over, then deploy again."
            )
        raise StackError(
            f"the stack {self.name!r} was never created whole or never deleted whole ({status}). "
            f"Remove it with `{self._command('destroy')}`, then deploy again."
        )

    def _update(self, stack: str, request: Mapping[str, Any]) -> None:
        try:
            self._client.update_stack(**request)
        except ClientError as error:
            # CloudFormation's way to say that all is as it should be.
            if "No updates are to be performed" in str(error):
                return
            raise
        self._wait("stack_update_complete", stack, request)

    def _wait(self, waiter: str, stack: str, request: Mapping[str, Any]) -> None:
        try:
            self._client.get_waiter(waiter).wait(StackName=stack, WaiterConfig=WAIT)
        except WaiterError as error:
            raise StackError(self._failure(stack, request["ClientRequestToken"])) from error

    def _failure(self, stack: str, token: str) -> str:
        """Why an operation failed, and what to do."""
        now = self._client.describe_stacks(StackName=stack)["Stacks"][0]
        status = now["StackStatus"]
        if status.endswith("_IN_PROGRESS"):
            return (
                f"the stack {self.name!r} is still not done ({status}). CloudFormation goes on "
                "without this command: look at its console, and run this again afterwards."
            )
        reasons = self._reasons(stack, token) or [now.get("StackStatusReason", status)]
        advice = {
            "DELETE_FAILED": f"Put that right, then run `{self._command('destroy')}` again.",
            "UPDATE_ROLLBACK_COMPLETE": "All is as it was before. Put that right and deploy again.",
            "UPDATE_ROLLBACK_FAILED": "Put that right, then run `aws cloudformation "
            f"continue-update-rollback --stack-name {self.name} --region {self.region}`.",
        }.get(
            status,
            f"Put that right, remove the remains with `{self._command('destroy')}` and deploy "
            "again.",
        )
        lines = "".join(f"\n  {reason}" for reason in reasons)
        return f"the stack {self.name!r} ended as {status}:{lines}\n{advice}"

    def _reasons(self, stack: str, token: str) -> list[str]:
        """What each resource that failed in one operation says, the first failure first."""
        pages = self._client.get_paginator("describe_stack_events").paginate(StackName=stack)
        events = [event for page in pages for event in page["StackEvents"]]
        return [
            f"{event['LogicalResourceId']} ({event['ResourceType']}): {reason}"
            for event in reversed(events)
            if event.get("ClientRequestToken") == token
            and event["ResourceStatus"].endswith("_FAILED")
            and event["ResourceType"] != "AWS::CloudFormation::Stack"
            # Those that CloudFormation gave up because another had failed explain nothing.
            and "cancelled" not in (reason := event.get("ResourceStatusReason", "no reason given"))
        ]

    def _command(self, verb: str) -> str:
        return f"make {verb} STACK={self.name} REGION={self.region}"
