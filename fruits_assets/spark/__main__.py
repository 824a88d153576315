"""`python -m fruits_assets.spark`: what concerns clusters and is no run of Dagster's."""

from __future__ import annotations

import argparse
import json
import math
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from fruits_assets.core.errors import FruitsError, SparkError
from fruits_assets.lake.resource import LakeResource
from fruits_assets.settings import EmrSettings, Settings
from fruits_assets.spark import emr_check, sizing
from fruits_assets.spark.emr import EmrSpark
from fruits_assets.spark.prices import XLARGE_VCPUS, Prices


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except FruitsError as error:
        _tell(str(error))
        return 1


def check(_: argparse.Namespace) -> int:
    """Looks whether the account is ready for clusters; changes nothing and costs nothing."""
    findings = emr_check.check(lambda: _settings().region or "", _asked)
    for finding in findings:
        print(finding)  # noqa: T201 - a command's output
    return 0 if all(finding.ok for finding in findings) else 1


def launch(options: argparse.Namespace) -> int:
    """Starts a cluster for many runs, prepared for this version of the pipeline.

    Standard output gets nothing but its line for .env, standard error what a person should know.
    """
    emr = _emr()
    plan = emr.plan_of(options.cores)
    emr.ship(_tell)
    request = emr.request(plan)
    shared = f"shared-{uuid.uuid4().hex[:8]}"  # in the place of the run that others are of
    if options.dry_run:
        name = emr.own_clusters.name(shared)
        print(json.dumps({"Name": name, **request}, indent=2))  # noqa: T201 - a command's output
        _tell(f"{_costs(plan)}. Nothing was started.")
        return 0
    cluster = emr.own_clusters.start(shared, lambda: request)
    print(f"{EmrSettings.model_config.get('env_prefix')}CLUSTER={cluster}")  # noqa: T201 - a command's output
    _tell(
        f"{_costs(plan)}. It ends by itself when no step has run on it for "
        f"{emr.limits.idle_minutes:g} minutes (FRUITS_EMR_IDLE_MINUTES); "
        f"`python -m fruits_assets.spark end {cluster}` ends it at once."
    )
    return 0


def _costs(plan: sizing.Plan) -> str:
    return (
        f"A cluster of {plan.cores} cores ({plan.task_cores} of them on Spot) in {plan.region} "
        f"costs {plan.eur_per_hour:.2f} EUR per hour (expected, without tax)"
    )


def clusters(_: argparse.Namespace) -> int:
    """Lists the clusters of this stack that are alive: id, run, state, age, and cost so far."""
    emr = _emr()
    live = emr.own_clusters.live()
    for one in live:
        minutes = (datetime.now(UTC) - one.created_at).total_seconds() / 60
        eur = emr.bill([one.id]).total_eur
        about = (one.id, emr.own_clusters.run(one), one.state, f"{minutes:.0f} min")
        print(*about, f"{eur:.4f} EUR", sep="\t")  # noqa: T201 - a command's output
    if not live:
        _tell(f"No cluster of the stack {emr.account.tag} is alive.")
    return 0


def end(options: argparse.Namespace) -> int:
    """Ends clusters of this stack at once, whatever runs on them, and lists them."""
    emr = _emr()
    if options.older_than is None:
        emr.own_clusters.end(options.clusters)
        ended = options.clusters
    else:
        ended = [one.id for one in emr.sweep(options.older_than, dry_run=False)]
    for cluster in ended:
        print(cluster)  # noqa: T201 - a command's output
    return 0


def _emr() -> EmrSpark:
    """The target that the settings name. Raises SparkError where they cannot be used."""
    settings = _settings()
    emr = settings.emr()
    place = settings.bucket_access()
    return EmrSpark(
        lake=LakeResource(base=settings.lake, **place),
        account=emr.account,
        limits=emr.limits,
        **place,
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - a command's output


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
        bucket_owner=settings.bucket_owner,
        types=sizing.types(emr.account.architecture),
        limits=emr.limits.of_plans(),
        prices=Prices.read(emr.limits.prices),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fruits_assets.spark")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    added = {}
    for command in (check, launch, clusters, end):
        summary = (command.__doc__ or "").splitlines()[0]
        added[command] = commands.add_parser(command.__name__, help=summary, description=summary)
        added[command].set_defaults(command=command)
    added[launch].add_argument("--cores", type=int, default=XLARGE_VCPUS, help="default: 4")
    added[launch].add_argument(
        "--dry-run",
        action="store_true",
        help="upload what it would run, print the request, and start nothing",
    )
    which = added[end].add_mutually_exclusive_group(required=True)
    which.add_argument("clusters", nargs="*", default=[], metavar="CLUSTER_ID")
    which.add_argument("--older-than", type=_hours, metavar="HOURS", help="all of this stack")
    return parser


def _hours(text: str) -> timedelta:
    hours = float(text)
    if not 0 <= hours < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of hours")
    return timedelta(hours=hours)


if __name__ == "__main__":
    sys.exit(main())
