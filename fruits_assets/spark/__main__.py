"""`python -m fruits_assets.spark`: what concerns clusters and is no run of Dagster's."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.settings import Settings
from fruits_assets.spark import emr_check, sizing
from fruits_assets.spark.prices import XLARGE_VCPUS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except FruitsError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's output
        return 1


def check(_: argparse.Namespace) -> int:
    """Looks whether the account is ready for clusters; changes nothing and costs nothing."""
    findings = emr_check.check(lambda: _settings().region or "", _asked)
    for finding in findings:
        print(finding)  # noqa: T201 - a command's output
    return 0 if all(finding.ok for finding in findings) else 1


def _settings() -> Settings:
    """Raises SparkError where they cannot be read."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise SparkError(f"the settings cannot be used ({wrong}). See .env.example.") from error


def _asked() -> emr_check.Asked:
    """What clusters are to be given, by the settings."""
    settings = _settings()
    emr = settings.emr()
    return emr_check.Asked(
        account=emr.account,
        source=settings.source,
        lake=settings.lake,
        kms_key=settings.kms_key,
        types=sizing.types(emr.account.architecture),
        # Those of executors, and the smallest machine for the primary node.
        vcpus=emr.limits.max_cores + XLARGE_VCPUS,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fruits_assets.spark")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (check,):
        summary = command.__doc__
        added = commands.add_parser(command.__name__, help=summary, description=summary)
        added.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
