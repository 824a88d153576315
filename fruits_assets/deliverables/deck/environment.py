"""The environment: six minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fruits_assets.deliverables.deck.canvas import (
    ACCENT,
    CONTENT,
    PALE,
    PALE_ALERT,
    SECOND,
    THIRD,
    WHITE,
    Box,
    Canvas,
    Line,
    bullets,
)
from fruits_assets.deliverables.deck.facts import PLAN_REGION, Facts
from fruits_assets.deliverables.deck.slide import Show, slide
from fruits_assets.deliverables.figures import THEME
from fruits_assets.storage.region import EU_REGIONS

if TYPE_CHECKING:
    from pptx.shapes.base import BaseShape

SECONDS_PER_MINUTE, SECONDS_PER_HOUR = 60, 3600


@slide("environment", 2)
def architecture(canvas: Canvas, show: Show) -> None:
    """Which part runs where, and what passes between."""
    t, place = canvas.t, show.facts.place
    canvas.title(t("architecture.title"))
    diagram, below = CONTENT.cut(4.5, gap=0.15)
    region = place.region or t("architecture.region.any", count=len(EU_REGIONS))
    canvas.card(diagram, fill=THEME.paper, border=ACCENT, dashed=True)
    inner = Box(diagram.left + 0.3, diagram.top + 0.55, diagram.width - 0.75, diagram.height - 0.85)
    canvas.text(
        Box(inner.left, diagram.top + 0.1, inner.width, 0.32),
        Line(t("architecture.eu", region=region), 14, bold=True, colour=ACCENT),
        anchor="middle",
    )
    _diagram(canvas, inner)
    where = (
        t("architecture.lake.bucket", region=place.region)
        if place.in_bucket
        else (t("architecture.lake.folder"))
    )
    canvas.text(below, Line(where, 14, colour=THEME.muted), anchor="middle")
    canvas.say(t("architecture.notes"), show.facts.pipeline.raw)


def _diagram(canvas: Canvas, box: Box) -> None:
    sources, host, cluster = box.columns(2.6, 3.2, 4.6, gap=0.95)
    photos, weights = (
        _node(canvas, part, f"architecture.{name}", fill=PALE)
        for part, name in zip(sources.rows(1.25, 1, gap=0.7), ("photos", "weights"), strict=True)
    )
    upper, lower = host.rows(1.25, 1, gap=0.7)
    dagster = _node(canvas, upper, "architecture.dagster", fill=WHITE)
    spark = _cluster(canvas, Box(cluster.left, cluster.top, cluster.width, upper.height))
    lake = Box(
        host.left - 0.15, lower.top - 0.1, cluster.right - host.left + 0.3, lower.height + 0.2
    )
    canvas.card(lake, fill=PALE, border=ACCENT)
    versions = _node(canvas, lower, "architecture.versions", fill=WHITE)
    data = _node(
        canvas,
        Box(cluster.left, lower.top, cluster.width, lower.height),
        "architecture.data",
        fill=WHITE,
    )
    between = Box(lower.right, lower.top, cluster.left - lower.right, lower.height)
    canvas.text(
        between,
        Line(canvas.t("architecture.lake"), 14, bold=True, colour=ACCENT),
        align="center",
        anchor="middle",
    )
    canvas.link(photos, dagster, colour=ACCENT)
    canvas.link(weights, dagster, colour=ACCENT, elbow=True)
    canvas.link(dagster, spark, colour=ACCENT)
    canvas.link(dagster, versions, ("bottom", "top"), colour=ACCENT, both=True)
    canvas.link(spark, data, ("bottom", "top"), colour=ACCENT, both=True)


def _cluster(canvas: Canvas, box: Box) -> BaseShape:
    t = canvas.t
    shape = canvas.card(box, fill=WHITE, border=ACCENT)
    heading, parts = box.inset(0.12).cut(0.34, gap=0.06)
    canvas.text(heading, Line(t("architecture.cluster"), 14, bold=True), anchor="middle")
    colours = (PALE, PALE, PALE_ALERT)
    names = ("primary", "core", "task")
    for part, name, fill in zip(parts.columns(1, 1, 1, gap=0.12), names, colours, strict=True):
        _node(canvas, part, f"architecture.{name}", fill=fill, margin=0.06)
    return shape


def _node(canvas: Canvas, box: Box, key: str, *, fill: str, margin: float = 0.1) -> BaseShape:
    return canvas.card(
        box,
        Line(canvas.t(key), 15, bold=True),
        Line(canvas.t(f"{key}.what"), 13, colour=THEME.muted, before=2),
        fill=fill,
        border=ACCENT,
        align="center",
        anchor="middle",
        margin=margin,
    )


@slide("environment", 1.5)
def services(canvas: Canvas, show: Show) -> None:
    """EMR, S3 and IAM: the part of each."""
    t = canvas.t
    canvas.title(t("services.title"))
    cards, below = CONTENT.cut(4.2)
    colours = (ACCENT, THIRD, SECOND)
    dark = (ACCENT, "#00684b", THEME.alert)
    for box, name, edge, colour in zip(
        cards.columns(1, 1, 1), ("emr", "s3", "iam"), colours, dark, strict=True
    ):
        canvas.headed(
            box,
            t(f"services.{name}"),
            Line(t(f"services.{name}.role"), 16, bold=True, before=4),
            *bullets(*(t(f"services.{name}.{index}") for index in (1, 2, 3, 4)), size=16, before=8),
            colour=colour,
            edge=edge,
        )
    tested = "services.tested" if show.facts.bill_eur is None else "services.ran"
    canvas.card(
        below, Line(t(tested), 15), fill=PALE_ALERT, border=None, anchor="middle", margin=0.2
    )
    canvas.say(t("services.notes"))


@slide("environment", 1.5)
def gdpr(canvas: Canvas, _: Show) -> None:
    """Measures for the GDPR, and those that are left to the operator."""
    t = canvas.t
    canvas.title(t("gdpr.title"))
    cards, below = CONTENT.cut(4.2)
    boxes = [box for row in cards.rows(1, 1, gap=0.2) for box in row.columns(1, 1, 1)]
    names = ("place", "minimal", "encryption", "access", "retention", "erasure")
    for box, name in zip(boxes, names, strict=True):
        canvas.headed(
            box,
            t(f"gdpr.{name}"),
            Line(t(f"gdpr.{name}.what", regions=len(EU_REGIONS)), 16, before=5),
        )
    canvas.card(
        below,
        Line(t("gdpr.operator"), 14),
        fill=PALE_ALERT,
        border=None,
        anchor="middle",
        margin=0.2,
    )
    canvas.say(t("gdpr.notes"))


@slide("environment", 1)
def costs(canvas: Canvas, show: Show) -> None:
    """The expected cost of a cluster, the cost of those that ran, and how it is kept low."""
    t, facts = canvas.t, show.facts
    canvas.title(t("costs.title", images=facts.images, eur=facts.plans[0].expected_eur))
    left, right = CONTENT.columns(7.6, 5)
    _plans(canvas, left, facts)
    upper, lower = right.cut(1.75)
    if facts.bill_eur is None:
        canvas.missing(upper, t("costs.bill.missing"), t("costs.bill.missing.what"))
    else:
        canvas.figure(upper, t("costs.eur", eur=facts.bill_eur), t("costs.bill"))
    canvas.headed(
        lower, t("costs.levers"), *bullets(*(t(f"costs.lever.{i}") for i in range(1, 6)), size=16)
    )
    canvas.say(t("costs.notes", region=facts.place.region or PLAN_REGION))


def _core_time(canvas: Canvas, seconds: float) -> str:
    if seconds < SECONDS_PER_MINUTE:
        return canvas.t("costs.core_seconds", seconds=seconds)
    if seconds < SECONDS_PER_HOUR:
        return canvas.t("costs.core_minutes", minutes=seconds / SECONDS_PER_MINUTE)
    return canvas.t("costs.core_hours", hours=seconds / SECONDS_PER_HOUR)


def _plans(canvas: Canvas, box: Box, facts: Facts) -> None:
    t = canvas.t
    heading, rest = box.cut(0.4, gap=0.05)
    table, notes = rest.cut(2.3, gap=0.2)
    canvas.text(heading, Line(t("costs.plan"), 16, bold=True, colour=ACCENT), anchor="middle")
    head = [t(f"costs.plan.{name}") for name in ("photos", "hours", "cores", "minutes", "eur")]
    rows = [
        [
            t("number", value=one.work.images),
            _core_time(canvas, one.core_seconds),
            t(
                "costs.cores.spot" if one.task_cores else "costs.cores",
                cores=one.cores,
                spot=one.task_cores,
            ),
            t("costs.minutes", minutes=one.expected_minutes),
            t("costs.eur", eur=one.expected_eur),
        ]
        for one in facts.plans
    ]
    canvas.table(table, (3.4, 3.2, 5.0, 2.2, 2.3), [head, *rows])
    canvas.text(
        notes,
        Line(t("costs.plan.region", region=facts.place.region or PLAN_REGION), 14),
        Line(t("costs.plan.assumed"), 14, colour=THEME.muted, before=6),
        Line(t("costs.published"), 14, before=10),
    )
