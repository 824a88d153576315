"""The command line `fruits`: what a source and a lake hold, history, costs, erasing, repairing."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fruits_assets.core.errors import DatasetError, FruitsError
from fruits_assets.settings import Settings
from fruits_assets.sources.layout import LABELS, Labels

if TYPE_CHECKING:
    from fruits_assets.erasure.plan import Plan
    from fruits_assets.lake.lake import Lake

ORDER = (
    *("rejected_images", "raw_images", "model_weights", "features", "pca_model", "pca_features"),
    *("recognition", "notebook", "presentation", "gallery", "deliverables"),
)
"""In which order assets are made from each other."""
HEADLINES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "raw_images": lambda of: f"{of['images']} photos, {of['classes']} classes",
    "rejected_images": lambda of: f"{of['rejected']} of {of['files_found']} files rejected",
    "model_weights": lambda of: (
        f"MobileNetV2, alpha {of['alpha']:g}, {of['image_size']} px; "
        f"{of['relative_error']:.0e} from Keras"
    ),
    "features": lambda of: (
        f"{of['features_per_image']} features each"
        + (f", {of['images_per_second']:.0f} images/s" if of["inferences"] else "")
    ),
    "pca_model": lambda of: (
        f"{of['components']} components explain {of['explained_variance']:.1%} "
        f"(fitted on {of['fitted_on']})"
    ),
    "pca_features": lambda of: f"{of['images']} photos, {of['components']} components each",
    "recognition": lambda of: (
        f"{of['accuracy_components']:.1%} of {of['test']:.0f} Test photos recognised "
        f"({of['accuracy_features']:.1%} with all features)"
    ),
    "notebook": lambda of: (
        f"{of['cells']} cells, {of['live']['photos']} photos computed again: "
        f"{of['live']['features_difference']:.0e} from the lake"
    ),
    "presentation": lambda of: f"{of['slides']} slides for {of['minutes']} minutes",
    "gallery": lambda of: f"{of['photos']} of {of['of']} photos, {of['sheets']} sheets of them",
}
"""Table -> the sentence that its figures make."""


PLANNED = (10_000, 1_000_000, 100_000_000)
"""Photos that `fruits plan` prices when it is not told how many."""
PLAN_REGION = "eu-west-3"
"""Where it prices them when no region is set."""


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the settings, and turns its errors into a sentence.

    SIGTERM ends it as Ctrl-C does: leases are given back, and it says so.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            command(Settings(), *args, **kwargs)
        except FruitsError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            raise click.ClickException(
                "interrupted. What is finished is kept; the same command goes on from there."
            ) from None

    return run


def _with_lake(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the lake of the settings, and turns its errors into a sentence."""

    @functools.wraps(command)
    def run(settings: Settings, *args: Any, **kwargs: Any) -> None:
        from fruits_assets.lake.lake import Lake  # noqa: PLC0415 - `--help` waits for nothing

        command(Lake.at(settings.lake, **settings.bucket_access()), *args, **kwargs)

    return _with_settings(run)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Fruits!: photos of fruit to compact features, in a lake of Delta tables.

    The lake is the one of FRUITS_LAKE, the source that of FRUITS_SOURCE (README.md).
    """


@main.command()
@_with_lake
def status(lake: Lake) -> None:
    """Show what the lake holds now."""
    from fruits_assets.deliverables.folder import Published  # noqa: PLC0415 - as above

    click.echo(f"\nThe lake {lake.base} holds:\n")
    click.echo(f"{'table':<18} {'version':<17} {'no.':>4} {'MB':>8} {'made in':>8}  what")
    names = lake.folders()
    for name in [name for name in ORDER if name in names]:
        click.echo(_line(lake, name))
    deliverables = Published.read(lake.folder)
    if deliverables.sums:
        megabytes = deliverables.bytes / 1e6
        recipe, what = deliverables.recipe, deliverables.headline
        click.echo(f"{'deliverables':<18} {recipe:<17} {'':>4} {megabytes:>8.1f} {'':>8}  {what}")


def _line(lake: Lake, name: str) -> str:
    try:
        found = lake.find(name)
    except FruitsError as error:
        return f"{name:<18} {error}"
    if found is None:
        return f"{name:<18} withdrawn: materialise it again"
    headline = HEADLINES[name](found.figures) if name in HEADLINES else ""
    megabytes, seconds = found.bytes / 1e6, f"{found.commit.seconds:.1f} s"
    return (
        f"{name:<18} {found.version:<17} {found.number:>4} {megabytes:>8.1f} {seconds:>8}  "
        f"{headline}"
    )


@main.command()
@click.argument("table", default="pca_features")
@click.option("-n", "--limit", type=click.IntRange(1), help="Show so many versions at most.")
@_with_lake
def history(lake: Lake, table: str, limit: int | None) -> None:
    """Show the versions of a TABLE (pca_features without): when, how many rows, by which run."""
    from fruits_assets.lake.history import entries  # noqa: PLC0415 - as above

    click.echo(f"{'no.':>5}  {'version':<16}  {'published':<19}  {'rows':>9}  run")
    for one in entries(lake, table, limit):
        made = one.commit
        rows = "removed" if one.rows is None else f"{one.rows:,}"
        mark = "  <- current" if one.is_current else ""
        click.echo(
            f"{one.number:>5}  {made.recipe or made.transform:<16}  "
            f"{made.created_at[:19].replace('T', ' ')}  {rows:>9}  {made.run_id[:8]}{mark}"
        )


@main.command()
@click.option(
    "--photos", multiple=True, type=click.IntRange(1), help="How many photos; repeatable."
)
@click.option(
    "--kilobytes",
    default=100,
    show_default=True,
    type=click.IntRange(1, 10**6),
    help="Mean size of a photo.",
)
@click.option("--region", help="Region of AWS: FRUITS_REGION, or eu-west-3.")
@click.option("--cores", type=click.IntRange(1), help="Cores of this machine: those it has.")
@click.option(
    "--serverless-vcpus",
    default=16,
    show_default=True,
    type=click.IntRange(1),
    help="Of the application of EMR Serverless: ServerlessVcpus of the stack.",
)
@click.option("--items", is_flag=True, help="Show what each price is made of.")
@_with_settings
def plan(
    settings: Settings,
    *,
    photos: Sequence[int],
    kilobytes: int,
    region: str | None,
    cores: int | None,
    serverless_vcpus: int,
    items: bool,
) -> None:
    """Price a first run here, on EMR and on EMR Serverless, and say which to take.

    Nothing is asked of AWS. Limits and prices are those of FRUITS_EMR_* (docs/costs.md).
    """
    from fruits_assets.spark import forecast, forecast_table  # noqa: PLC0415 - as above
    from fruits_assets.spark.prices import Prices  # noqa: PLC0415
    from fruits_assets.spark.work import Work  # noqa: PLC0415
    from fruits_assets.storage.region import check_region  # noqa: PLC0415

    of = settings.forecast()
    asked = [
        forecast.Question(
            work=Work(images, images * kilobytes / 1e3),
            limits=of.of_plans(),
            prices=Prices.read(of.prices),
            region=check_region(region or settings.region or PLAN_REGION),
            release=of.release,
            architecture=of.architecture,
            serverless_vcpus=serverless_vcpus,
            local_cores=cores or os.cpu_count() or 1,
        )
        for images in photos or PLANNED
    ]
    for line in forecast_table.lines(asked, items=items):
        click.echo(line)


@main.command()
@click.argument("version")
@_with_lake
def rollback(lake: Lake, version: str) -> None:
    """Publish an earlier VERSION of pca_features again, with all that it was made from.

    VERSION is its number or its hash, as `fruits history pca_features` lists them.
    """
    from fruits_assets.lake import lease  # noqa: PLC0415 - as above
    from fruits_assets.lake.history import rollback as go_back  # noqa: PLC0415

    with lease.alone(lake.folder, f"rollback {uuid.uuid4().hex[:8]}"):
        for snapshot in go_back(lake, version):
            click.echo(f"{snapshot.name:<18} {snapshot.version}  published as {snapshot.number}")
    click.echo(
        "\nNothing was computed. The next run goes forward again, unless the source is as it was "
        "when this version was made."
    )


@main.command()
@click.argument("paths", nargs=-1)
@click.option("--sha256", multiple=True, help="SHA-256 of a file, hexadecimal.")
@click.option("--label", "labels", multiple=True, help="Label: all images of a class.")
@click.option("--keep-source", is_flag=True, help="Leave the files in the source.")
@click.option("--dry-run", is_flag=True, help="Show what would be erased, and change nothing.")
@_with_lake
def erase(
    lake: Lake,
    paths: Sequence[str],
    sha256: Sequence[str],
    labels: Sequence[str],
    *,
    keep_source: bool,
    dry_run: bool,
) -> None:
    """Erase images, and everything made from them, for good (GDPR, article 17).

    PATHS are relative to the source, as raw_images has them. Every file that shows the same picture
    is erased too. Without names, an erasure that was interrupted is finished.
    """
    from fruits_assets.erasure import plan as plans  # noqa: PLC0415 - as above
    from fruits_assets.lake import lease  # noqa: PLC0415

    source = _resources()["source"]
    source.check_place()
    with lease.alone(lake.folder, f"erase {uuid.uuid4().hex[:8]}"):
        asked = plans.Asked.of(paths, sha256, labels)
        plan = plans.make(lake, source.photos(), asked, keep_source=keep_source)
        click.echo(_planned(lake, plan))
        if dry_run:
            click.echo("\nNothing was changed (--dry-run).")
            return
        # The names go by the journal: Dagster keeps the config of a run.
        plans.write(lake, plan)
    _run_erasure(lake)


def _planned(lake: Lake, plan: Plan) -> str:
    """Everything that a plan will erase, by name, for whoever typed the names; it is kept nowhere.

    Names are strangers': a terminal obeys some characters, and could hide a line of the plan.
    """
    from fruits_assets.deliverables.escaping import visible  # noqa: PLC0415 - as above

    tables = [name for name in lake.tables() if name != "model_weights"]
    lines = [f"{len(plan.paths)} rows of the lake {lake.base}:"]
    lines += [f"  {visible(path)}" for path in sorted(plan.paths)]
    lines += [f"{len(plan.source)} files of the source:"]
    lines += [f"  {visible(path)}" for path in sorted(plan.source)]
    lines += ["Tables that are made without them, or withdrawn: " + ", ".join(tables)]
    return "\n".join(lines)


def _run_erasure(lake: Lake) -> None:
    from fruits_assets.erasure.job import gdpr_erasure, record  # noqa: PLC0415 - as above
    from fruits_assets.spark import interrupts  # noqa: PLC0415

    resources = _resources()
    with _instance() as instance, interrupts.heeded() as heard:
        result = gdpr_erasure.execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            resources={name: resources[name] for name in ("spark", "source")},
            instance=instance,
            raise_on_error=False,
        )
    if heard.received and not result.success:
        raise KeyboardInterrupt
    for event in result.all_events:
        if event.is_step_failure:
            failed = event.step_failure_data
            shown = failed.user_failure_data
            raise click.ClickException((shown and shown.description) or str(failed.error))
    figures = record(lake, result.run_id)
    click.echo(
        f"\nErased: {figures['images_erased']} rows of the lake and "
        f"{figures['source_files_erased']} files of the source. {figures['files_searched']} files "
        "were searched afterwards, and nothing was found. Seconds: "
        + ", ".join(f"{name} {value:.1f}" for name, value in figures["seconds"].items())
    )


def _instance() -> Any:
    """Dagster's storage: its records of older runs show thumbnails and names."""
    import dagster as dg  # noqa: PLC0415 - as above

    home = os.environ.get("DAGSTER_HOME") or str(Path.cwd() / ".dagster")
    if not Path(home).is_dir():
        click.echo(
            "DAGSTER_HOME is not set, and there is no .dagster here: records that Dagster keeps of "
            "earlier runs somewhere else are not erased.",
            err=True,
        )
        return dg.DagsterInstance.ephemeral()
    os.environ["DAGSTER_HOME"] = home
    return dg.DagsterInstance.get()


def _resources() -> Mapping[str, Any]:
    from fruits_assets.definitions import compose  # noqa: PLC0415 - as above

    return compose(Settings()).resources or {}


@main.command()
@_with_lake
def repair(lake: Lake) -> None:
    """Read the whole lake, remove what is damaged, and name what to make again."""
    from fruits_assets.lake import lease, retention  # noqa: PLC0415 - as above

    with lease.alone(lake.folder, f"repair {uuid.uuid4().hex[:8]}"):
        damaged = list(retention.damaged(lake))
        for one in damaged:
            click.echo(f"{one.table}: {one.uri}: {one.what}. It is removed.")
            lake.storage.remove([one.uri])
    if not damaged:
        click.echo(f"The lake {lake.base} is whole: every file is what was written.")
        return
    names = ", ".join(_in_order({one.table for one in damaged}))
    click.echo(
        f"\nMaterialise again, in this order: {names} (or all: make run, and make deliverables "
        "where they are named). What is whole is not computed again."
    )
    sys.exit(1)


def _in_order(names: Iterable[str]) -> list[str]:
    found = set(names)
    return [*(name for name in ORDER if name in found), *sorted(found - {*ORDER})]


@main.command()
@click.argument("source", required=False)
@click.option(
    "--labels",
    type=click.Choice(LABELS),
    default="parent",
    help="Which of nested folders is the label (docs/data.md).",
)
@click.option(
    "-n",
    "--files",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Examine so many files at most, evenly spread.",
)
def check(source: str | None, labels: Labels, files: int) -> None:
    """Report what a SOURCE holds, and what is odd about it. No lake is read or written.

    SOURCE is a folder, s3://bucket/prefix, an archive or a table of photos (docs/data.md); without
    it, the one of FRUITS_SOURCE is taken.
    """
    from fruits_assets.assets.places import Source  # noqa: PLC0415 - `--help` waits for nothing
    from fruits_assets.assets.raw_images import IngestConfig  # noqa: PLC0415 - as above
    from fruits_assets.deliverables.report import as_lines  # noqa: PLC0415 - as above
    from fruits_assets.sources.survey import report, survey  # noqa: PLC0415 - as above
    from fruits_assets.transforms.increment import evenly  # noqa: PLC0415 - as above

    try:
        settings = Settings(source=source) if source else Settings()
        place = Source(
            place=settings.source,
            follow_links=settings.follow_links,
            requester_pays=settings.requester_pays,
            inventory=settings.inventory or "",
            **settings.bucket_access(),
        )
        photos = place.photos()
        listing = place.list(recursive=True, labels=labels)
        chosen = evenly(listing.rows, files)
        rows = listing.files.take(chosen).to_pylist()
        click.echo(f"{listing.rows:,} files in {listing.root}; {len(rows):,} are examined.")
        found = list(survey(photos, rows, **IngestConfig().limits))
    except FruitsError as error:
        raise click.ClickException(str(error)) from error
    for line in as_lines(report(found, listing.kinds)):
        click.echo(line)


@main.command(hidden=True)
@_with_lake
def index(lake: Lake) -> None:
    """Print where the page of the deliverables lies."""
    from fruits_assets.deliverables.folder import index_uri  # noqa: PLC0415 - as above

    try:
        click.echo(index_uri(lake.folder))
    except DatasetError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
