"""`python -m fruits_assets.infrastructure`: deploys and destroys the stack.

What `deploy` prints on standard output is lines for `.env` and nothing else, so that it can be
appended there; what is meant for the person at the terminal goes to standard error.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from fruits_assets.core.errors import FruitsError
from fruits_assets.infrastructure.stack import Kept, Stack, StackError
from fruits_assets.storage.aws_errors import explain

MAY = "administrate CloudFormation, S3, KMS, IAM, EMR, networks (EC2) and budgets"
"""What deploying and destroying take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, or 1 with a sentence of what to do."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except FruitsError as error:
        _tell(f"{error}")
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        _tell(explain(error, options.region, may=MAY))
    except KeyboardInterrupt:
        _tell("\nstopped watching. What CloudFormation has begun, it goes on with.")
    else:
        return 0
    return 1


def deploy(options: argparse.Namespace) -> None:
    """Creates or changes the stack and prints the lines for `.env`."""
    stack = Stack(options.stack, options.region)
    parameters = _parameters(options.set)
    _tell(f"Deploying the stack {stack.name} in {stack.region}; this takes a few minutes.")
    outputs = stack.deploy(parameters)
    _tell(f"Done. {outputs['BudgetAlarm']}")
    _tell(f"Attach these policies to the user or role that runs Dagster:{_policies(outputs)}")
    _tell("These lines belong in .env:\n")
    for line in settings_lines(outputs):
        print(line)  # noqa: T201 - a command's output


def destroy(options: argparse.Namespace) -> None:
    """Deletes the stack, but not the data, once its name has been typed."""
    stack = Stack(options.stack, options.region)
    outputs, kept = stack.outputs(), stack.kept()
    _tell(f"Deleting the stack {stack.name} in {stack.region} removes its roles and settings.")
    if policies := _policies(outputs):
        _tell(f"If these policies are attached to somebody, detach them first:{policies}")
    if network := outputs.get("Network"):
        _tell(_endpoint_advice(network, stack.region))
    if kept:
        _tell(_farewell(kept, stack.region))
    if not options.yes:
        _confirm(stack.name)
    stack.destroy()
    _tell(f"The stack {stack.name} is deleted.")


def settings_lines(outputs: Mapping[str, str]) -> list[str]:
    """`NAME=value` for every output that is a setting: those of EMR last, each group by name."""
    lines = {
        re.sub("(?<!^)(?=[A-Z])", "_", output).upper(): value
        for output, value in outputs.items()
        if output.startswith("Fruits")
    }
    return [
        f"{name}={lines[name]}" for name in sorted(lines, key=lambda name: ("_EMR_" in name, name))
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fruits_assets.infrastructure")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (deploy, destroy):
        summary = command.__doc__
        added = commands.add_parser(command.__name__, help=summary, description=summary)
        added.add_argument("--stack", required=True, help="its name")
        added.add_argument("--region", required=True, help="a region of the EU")
        added.set_defaults(command=command)
        if command is deploy:
            added.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="NAME=VALUE",
                help="a parameter of stack.yaml, such as AlertEmail=me@example.org; repeatable",
            )
        else:
            added.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _parameters(given: Sequence[str]) -> dict[str, str]:
    for parameter in given:
        if not re.match("[A-Za-z0-9]+=", parameter):
            raise StackError(
                f"--set {parameter} is not NAME=VALUE. Write it as AlertEmail=me@a.eu."
            )
    return dict(parameter.split("=", 1) for parameter in given)


def _policies(outputs: Mapping[str, str]) -> str:
    """A line for each policy of the Dagster host: whom it is for, CloudFormation cannot know."""
    return "".join(f"\n  {arn}" for name, arn in outputs.items() if name.endswith("Policy"))


def _endpoint_advice(network: str, region: str) -> str:
    """How to remove what EMR itself may have put into the network, which cannot go before it."""
    return (
        "If a cluster of emr-spark-8 ran here, EMR left an endpoint, which costs money and keeps "
        "the network from being deleted. Find its id and delete it first:\n"
        f"  aws ec2 describe-vpc-endpoints --region {region} --filters "
        f"Name=vpc-id,Values={network} Name=tag:Name,Values=emr-service-vpce "
        "--query 'VpcEndpoints[].VpcEndpointId'\n"
        f"  aws ec2 delete-vpc-endpoints --region {region} --vpc-endpoint-ids ..."
    )


def _farewell(kept: Sequence[Kept], region: str) -> str:
    """What is left of a stack, and how it could be removed."""
    buckets = [it.id for it in kept if it.type == "AWS::S3::Bucket"]
    keys = [it.id for it in kept if it.type == "AWS::KMS::Key"]
    return "\n".join(
        [
            "\nKept, because data are in them or depend on them:",
            *(f"  {it.resource:<11} {it.id}" for it in kept),
            "\nTo remove them too, once and for all:",
            "  1. in the S3 console, Empty each bucket (which takes its old versions too), then",
            *(f"     aws s3 rb s3://{bucket} --region {region}" for bucket in buckets),
            "  2. and only then the key, without which nobody can read what it encrypted:",
            *(
                f"     aws kms schedule-key-deletion --key-id {key} --region {region}"
                for key in keys
            ),
            "",
        ]
    )


def _confirm(name: str) -> None:
    _tell("Type the name of the stack to delete it:")
    if sys.stdin.readline().strip() != name:
        raise StackError(f"that is not {name!r}: nothing was deleted. Run this again to delete it.")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())
