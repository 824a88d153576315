"""Applications of EMR Serverless for moto's CloudFormation, which knows none.

Importing this is enough: moto looks for all subclasses of its model when it is first asked.
"""

from __future__ import annotations

from typing import Any

from moto.core.common_models import CloudFormationModel

from fruits_assets_tests.emulator.serverless import DEPLOYED, Application


class DeployedApplication(CloudFormationModel):
    """An application of a stack."""

    def __init__(self, application: Application) -> None:
        self.application = application

    @property
    def physical_resource_id(self) -> str:
        return self.application.id

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::EMRServerless::Application"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in ("Arn", "ApplicationId")

    def get_cfn_attribute(self, attribute_name: str) -> str:
        return self.application.arn if attribute_name == "Arn" else self.application.id

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,  # noqa: ARG003 - moto's
        region_name: str,
        **_: Any,
    ) -> DeployedApplication:
        request = _lowered(cloudformation_json["Properties"])
        made = Application({"name": resource_name, **request}, region_name)
        DEPLOYED[made.id] = made
        return cls(made)

    @classmethod
    def update_from_cloudformation_json(
        cls,
        original_resource: DeployedApplication,
        new_resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,  # noqa: ARG003 - moto's
        region_name: str,  # noqa: ARG003 - moto's
    ) -> DeployedApplication:
        request = _lowered(cloudformation_json["Properties"])
        original_resource.application.request = {"name": new_resource_name, **request}
        return original_resource

    @classmethod
    def delete_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],  # noqa: ARG003 - moto's
        account_id: str,  # noqa: ARG003 - moto's
        region_name: str,  # noqa: ARG003 - moto's
    ) -> None:
        if resource_name in DEPLOYED:
            DEPLOYED[resource_name].state = "TERMINATED"


def _lowered(value: Any) -> Any:
    """Properties of a template as parameters of the API: their names begin with a small letter."""
    if isinstance(value, dict):
        return {f"{name[0].lower()}{name[1:]}": _lowered(it) for name, it in value.items()}
    return value
