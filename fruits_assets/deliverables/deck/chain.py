"""The chain: six minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fruits_assets.deliverables.deck.canvas import (
    ACCENT,
    CONTENT,
    GAP,
    PALE,
    PALE_ALERT,
    SECOND,
    WHITE,
    Box,
    Canvas,
    Line,
    bullets,
)
from fruits_assets.deliverables.deck.charts import Axis, Marks, Series, bars, xy
from fruits_assets.deliverables.deck.facts import Facts
from fruits_assets.deliverables.deck.slide import Show, slide
from fruits_assets.deliverables.figures import THEME
from fruits_assets.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from pptx.shapes.base import BaseShape

MOST_POINTS = 700
"""Points of a cloud that PowerPoint draws at once."""
MOST_NAMED = 7
"""Classes that have a colour of their own."""
CURVE_POINTS = 120
SMALL_BYTES = 100_000
"""Sizes below it are shown in kilobytes."""


@slide("chain", 1)
def assets(canvas: Canvas, show: Show) -> None:
    """The asset graph, with what each asset holds now."""
    t, facts = canvas.t, show.facts
    canvas.title(t("assets.title"))
    graph, below = CONTENT.cut(4.0)
    _graph(canvas, graph, facts)
    for box, name in zip(below.columns(1, 1), ("address", "checks"), strict=True):
        canvas.card(
            box,
            Line(t(f"assets.{name}"), 14, bold=True, colour=ACCENT),
            Line(t(f"assets.{name}.what"), 13, before=2),
            fill=PALE,
            border=None,
            anchor="middle",
        )
    canvas.say(t("assets.notes"), *facts.pipeline)


def _graph(canvas: Canvas, box: Box, facts: Facts) -> None:
    t, of = canvas.t, facts.pipeline
    columns = [one.rows(1, 1, 1, gap=0.2) for one in box.columns(1, 1, 1, 1, 1, gap=0.4)]
    photos = _outside(canvas, columns[0][1], t("assets.source"), t("assets.source.what"))
    origin = _outside(canvas, columns[0][2], t("assets.weights"), t("assets.weights.what"))
    cells = {
        "rejected": (1, 0, t("assets.files", count=facts.rejected.total)),
        "raw": (1, 1, t("assets.photos", count=facts.images)),
        "weights": (
            1,
            2,
            t("assets.model", alpha=facts.model["alpha"], size=facts.model["image_size"]),
        ),
        "features": (2, 1, t("assets.features", count=facts.inference["features_per_image"])),
        "pca_model": (3, 0, t("assets.components", count=facts.pca["components"])),
        "pca_features": (4, 1, t("assets.projected", count=facts.pca["components"])),
    }
    nodes = {
        name: _asset(canvas, columns[column][row], vars(of)[name], headline)
        for name, (column, row, headline) in cells.items()
    }
    shown = _outside(canvas, columns[4][2], t("assets.shown"), t("assets.shown.what"))
    for start, end, elbow in (
        (photos, nodes["raw"], False),
        (photos, nodes["rejected"], True),
        (origin, nodes["weights"], False),
        (nodes["raw"], nodes["features"], False),
        (nodes["weights"], nodes["features"], True),
        (nodes["features"], nodes["pca_model"], True),
        (nodes["features"], nodes["pca_features"], False),
    ):
        canvas.link(start, end, colour=ACCENT, elbow=elbow)
    canvas.link(
        nodes["pca_model"], nodes["pca_features"], ("right", "top"), colour=ACCENT, elbow=True
    )
    canvas.link(nodes["pca_features"], shown, ("bottom", "top"), colour=THEME.muted, dashed=True)


def _asset(canvas: Canvas, box: Box, dataset: Snapshot, headline: str) -> BaseShape:
    small = dataset.bytes < SMALL_BYTES
    key, unit = ("assets.made.small", 1e3) if small else ("assets.made", 1e6)
    made = canvas.t(key, size=dataset.bytes / unit, seconds=dataset.commit.seconds)
    return canvas.card(
        box,
        Line(dataset.name, 14, bold=True),
        Line(headline, 13, before=2),
        Line(made, 12, colour=THEME.muted, before=2),
        border=ACCENT,
        align="center",
        anchor="middle",
        margin=0.05,
    )


def _outside(canvas: Canvas, box: Box, name: str, what: str) -> BaseShape:
    return canvas.card(
        box,
        Line(name, 14, bold=True, colour=THEME.muted),
        Line(what, 12, colour=THEME.muted, before=2),
        fill=THEME.paper,
        border=THEME.rest,
        align="center",
        anchor="middle",
        margin=0.05,
        dashed=True,
    )


@slide("chain", 1)
def ingest(canvas: Canvas, show: Show) -> None:
    """Every file ends in one of two tables."""
    t, facts = canvas.t, show.facts
    rejected = facts.rejected
    title = "ingest.title" if rejected.total else "ingest.title.none"
    canvas.title(t(title, files=facts.files_found, rejected=rejected.total))
    left, right = CONTENT.columns(7, 5, gap=0.4)
    flow, rules = left.cut(2.75)
    _flow(canvas, flow, facts)
    canvas.headed(
        rules, t("ingest.rules"), *bullets(*(t(f"ingest.rule.{i}") for i in (1, 2, 3)), size=16)
    )
    _reasons(canvas, right, facts)
    canvas.say(t("ingest.notes"), facts.pipeline.raw, facts.pipeline.rejected)


def _flow(canvas: Canvas, box: Box, facts: Facts) -> None:
    t = canvas.t
    start, middle, end = box.columns(1, 1.3, 1.3, gap=0.5)
    tall = box.height * 0.62
    top = box.top + (box.height - tall) / 2
    found = _step(
        canvas,
        Box(start.left, top, start.width, tall),
        t("number", value=facts.files_found),
        t("ingest.found"),
        fill=WHITE,
    )
    examined = _step(
        canvas,
        Box(middle.left, top, middle.width, tall),
        t("ingest.examined"),
        t("ingest.examined.what"),
        fill=WHITE,
    )
    accepted, rejected = end.rows(1, 1, gap=0.35)
    raw = _step(canvas, accepted, t("number", value=facts.images), t("ingest.accepted"), fill=PALE)
    refused = _step(
        canvas,
        rejected,
        t("number", value=facts.rejected.total),
        t("ingest.rejected"),
        fill=PALE_ALERT,
        border=SECOND,
    )
    canvas.link(found, examined, colour=ACCENT)
    canvas.link(examined, raw, colour=ACCENT, elbow=True)
    canvas.link(examined, refused, colour=SECOND, elbow=True)


def _step(
    canvas: Canvas, box: Box, value: str, what: str, *, fill: str, border: str = ACCENT
) -> BaseShape:
    return canvas.card(
        box,
        Line(value, 17, bold=True),
        Line(what, 13, colour=THEME.muted, before=2),
        fill=fill,
        border=border,
        align="center",
        anchor="middle",
        margin=0.08,
    )


def _reasons(canvas: Canvas, box: Box, facts: Facts) -> None:
    t, rejected = canvas.t, facts.rejected
    if not rejected.total:
        canvas.headed(
            box,
            t("ingest.none", files=facts.files_found),
            Line(t("ingest.none.what"), 16, before=8),
            *bullets(*(t(f"reason.{name}") for name in REASONS), size=16, before=10),
        )
        return
    heading, rest = box.cut(0.4, gap=0.05)
    chart, examples = rest.cut(3.1)
    canvas.text(heading, Line(t("ingest.reasons"), 15, bold=True), anchor="middle")
    names = [t(f"reason.{name}") for name in rejected.reasons]
    bars(
        canvas,
        chart,
        names,
        [
            Series(
                t("ingest.rejected"),
                list(rejected.reasons.values()),
                SECOND,
                [t("number", value=count) for count in rejected.reasons.values()],
            )
        ],
        alt=t("ingest.reasons.alt"),
        gap=60,
    )
    room = examples.width - 0.4
    canvas.headed(
        examples,
        t("ingest.examples"),
        *(Line(canvas.fit(path, room, size=13), 13, before=3) for path, _ in rejected.examples),
        colour=THEME.alert,
    )


REASONS = (
    "empty",
    "not_an_image",
    "unsupported_format",
    "truncated",
    "corrupt",
    "too_large",
    "unreadable",
)
"""As `rejected_images` has them."""


@slide("chain", 1.5)
def broadcast(canvas: Canvas, show: Show) -> None:
    """One model per worker process, against one per task."""
    t, facts = canvas.t, show.facts
    canvas.title(t("broadcast.title"))
    panels, below = CONTENT.cut(4.3)
    left, right = panels.columns(1, 1, gap=0.35)
    _every_task_builds(canvas, left)
    _one_per_process(canvas, right, facts)
    numbers = (
        (t("broadcast.megabytes", megabytes=facts.model_bytes / 1e6), "broadcast.file"),
        (t("broadcast.error", error=_power(facts.model["relative_error"])), "broadcast.keras"),
        (t("number", value=facts.inference["features_per_image"]), "broadcast.features"),
    )
    for box, (value, key) in zip(below.columns(1, 1, 1), numbers, strict=True):
        number, words = box.columns(2, 3.2, gap=0.15)
        canvas.text(
            number, Line(value, 24, bold=True, colour=ACCENT), anchor="middle", align="right"
        )
        canvas.text(words, Line(t(key), 13, colour=THEME.muted), anchor="middle")
    canvas.say(t("broadcast.notes"), facts.pipeline.weights, facts.pipeline.features)


def _power(value: float) -> str:
    """`4e-7`."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _panel(
    canvas: Canvas, box: Box, key: str, *, colour: str, driver: str
) -> tuple[BaseShape, Box]:
    t = canvas.t
    canvas.card(box, border=colour)
    inner = box.inset(0.2)
    heading, rest = inner.cut(0.36, gap=0.12)
    canvas.text(heading, Line(t(key), 16, bold=True, colour=colour), anchor="middle")
    top, bottom = rest.cut(0.75, gap=0.5)
    shape = canvas.card(
        Box(top.left + top.width * 0.14, top.top, top.width * 0.72, top.height),
        Line(t("broadcast.driver"), 14, bold=True),
        Line(driver, 13, colour=THEME.muted),
        fill=PALE if colour == ACCENT else PALE_ALERT,
        border=colour,
        align="center",
        anchor="middle",
        margin=0.06,
    )
    return shape, bottom


def _every_task_builds(canvas: Canvas, box: Box) -> None:
    t, colour = canvas.t, THEME.alert
    driver, rest = _panel(
        canvas, box, "broadcast.intern", colour=colour, driver=t("broadcast.intern.driver")
    )
    tasks, words = rest.cut(1.05, gap=0.1)
    for index, part in enumerate(tasks.columns(1, 1, 1, 1, gap=0.12), start=1):
        name = t("broadcast.task", number=index) if index < 4 else t("broadcast.task.last")
        node = canvas.card(
            part,
            Line(name, 13, bold=True),
            Line(t("broadcast.task.builds"), 12, colour=THEME.muted),
            border=colour,
            align="center",
            anchor="middle",
            margin=0.04,
        )
        canvas.link(driver, node, ("bottom", "top"), colour=colour)
    canvas.text(words, Line(t("broadcast.intern.what"), 14), anchor="middle")


def _one_per_process(canvas: Canvas, box: Box, facts: Facts) -> None:
    t = canvas.t
    driver, rest = _panel(
        canvas,
        box,
        "broadcast.project",
        colour=ACCENT,
        driver=t("broadcast.project.driver", megabytes=facts.model_bytes / 1e6),
    )
    workers, words = rest.cut(1.05, gap=0.1)
    for index, part in enumerate(workers.columns(1, 1, gap=0.25), start=1):
        node = canvas.card(
            part,
            Line(t("broadcast.worker", number=index), 13, bold=True),
            Line(t("broadcast.worker.model"), 13, bold=True, colour=ACCENT),
            Line(t(f"broadcast.worker.{index}"), 12, colour=THEME.muted),
            fill=PALE,
            border=ACCENT,
            align="center",
            anchor="middle",
            margin=0.06,
        )
        canvas.link(driver, node, ("bottom", "top"), colour=ACCENT)
    canvas.text(words, Line(t("broadcast.project.what"), 14), anchor="middle")


@slide("chain", 1.5)
def pca(canvas: Canvas, show: Show) -> None:
    """How many components, and what the first two see."""
    t, facts = canvas.t, show.facts
    found = facts.pca
    canvas.title(
        t(
            "pca.title",
            components=found["components"],
            features=found["features"],
            kept=found["explained_variance"],
        )
    )
    charts, below = CONTENT.cut(4.5, gap=0.1)
    left, right = charts.columns(1, 1, gap=0.35)
    _curve(canvas, left, facts)
    _cloud(canvas, right, facts)
    split = t("pca.all") if found["fitted_on"] == "all" else canvas.fit(found["fitted_on"], 2)
    seconds = facts.pipeline.pca_model.commit.seconds
    canvas.text(
        below,
        Line(
            t("pca.how", images=found["images"], split=split, seconds=seconds),
            13,
            colour=THEME.muted,
        ),
        anchor="middle",
    )
    canvas.say(t("pca.notes"), facts.pipeline.pca_model, facts.pipeline.pca_features)


def _headed_chart(canvas: Canvas, box: Box, heading: str) -> Box:
    head, rest = box.cut(0.36, gap=0.04)
    canvas.text(head, Line(heading, 15, bold=True), anchor="middle")
    return rest


def _curve(canvas: Canvas, box: Box, facts: Facts) -> None:
    t, chosen, asked = canvas.t, facts.pca["components"], facts.pca["n_components"]
    cumulative = np.cumsum(facts.components.spectrum)
    last = max(2, min(len(cumulative), 3 * chosen))
    steps = np.unique(np.linspace(1, last, CURVE_POINTS).astype(int))
    kept = float(cumulative[chosen - 1])
    curve = [
        (0.0, 0.0),
        *((float(k), min(1.0, float(cumulative[k - 1]))) for k in steps if k <= len(cumulative)),
    ]
    marks = [Marks(t("pca.cumulative"), curve, ACCENT, width=2.5)]
    if asked < 1:
        ends = [(0.0, asked), (float(last), asked)]
        marks.append(Marks(t("pca.target", share=asked), ends, THEME.alert, width=1.5, dashed=True))
    point = t("pca.chosen", components=chosen)
    marks.append(
        Marks(point, [(float(chosen), 0.0), (float(chosen), kept)], THEME.ink, marker=7, width=1.25)
    )
    xy(
        canvas,
        _headed_chart(canvas, box, t("pca.curve")),
        marks,
        across=Axis(t("pca.components"), "0", low=0, high=last),
        up=Axis("", "0%", low=0, high=1, step=0.2, grid=True),
        alt=t("pca.curve.alt", components=chosen, kept=kept),
        legend=True,
    )


def _cloud(canvas: Canvas, box: Box, facts: Facts) -> None:
    t = canvas.t
    points, labels = facts.points
    step = -(-len(points) // MOST_POINTS)
    points, labels = points[::step], labels[::step]
    rows: dict[str | None, list[int]] = {}
    for index, label in enumerate(labels):
        rows.setdefault(label, []).append(index)
    clouds = {label: points[indices] for label, indices in rows.items()}
    named = _apart({label: cloud for label, cloud in clouds.items() if label is not None})
    others = [cloud for label, cloud in clouds.items() if label not in named]
    marks = [
        Marks(canvas.fit(label, 1.7), _pairs(clouds[label]), _colour(index), marker=6)
        for index, label in enumerate(named)
    ]
    if others:
        # First, so that it lies below the classes that have names.
        other = t("pca.others") if named else t("unlabelled")
        marks.insert(0, Marks(other, _pairs(np.concatenate(others)), "#cfd3d9", marker=5))
    ratio = [*facts.components.explained_variance_ratio.tolist(), 0.0]
    heading = "pca.cloud.some" if others and named else "pca.cloud"
    xy(
        canvas,
        _headed_chart(canvas, box, t(heading, named=len(named), shown=len(points))),
        marks,
        across=Axis(t("pca.axis", number=1, share=ratio[0])),
        up=Axis(t("pca.axis", number=2, share=ratio[1])),
        alt=t("pca.cloud.alt"),
        legend=True,
    )


def _colour(index: int) -> str:
    return THEME.series[index % len(THEME.series)]


def _pairs(cloud: np.ndarray) -> list[tuple[float, float]]:
    return [(round(float(x), 4), round(float(y), 4)) for x, y in cloud]


def _apart(clouds: Mapping[str, np.ndarray]) -> Sequence[str]:
    """A few classes that lie far from each other: each the farthest from those chosen before."""
    names = sorted(clouds, key=lambda name: (-len(clouds[name]), name))
    if len(names) <= MOST_NAMED + 1:
        return names
    medians = np.array([np.median(clouds[name], axis=0) for name in names])
    centre = np.median(medians, axis=0)
    chosen = [int(np.linalg.norm(medians - centre, axis=1).argmax())]
    while len(chosen) < MOST_NAMED:
        nearest = np.linalg.norm(medians[:, None] - medians[chosen][None], axis=2).min(axis=1)
        chosen.append(int(nearest.argmax()))
    return [names[index] for index in sorted(chosen)]


@slide("chain", 1)
def recognition(canvas: Canvas, show: Show) -> None:
    """The accuracy that the reduction costs."""
    t, facts = canvas.t, show.facts
    found = facts.recognition
    if found is None:
        canvas.title(t("recognition.title.missing"))
        upper, lower = CONTENT.cut(2.4)
        canvas.missing(upper, t("recognition.missing"), t("recognition.missing.what"))
    else:
        canvas.title(t("recognition.title", share=found.components, test=found.test))
        upper, lower = CONTENT.cut(2.75)
        names = (
            t("recognition.components", count=facts.pca["components"]),
            t("recognition.features", count=facts.pca["features"]),
        )
        shares = (found.components, found.features)
        bars(
            canvas,
            upper,
            names,
            [
                Series(
                    t("recognition.accuracy"),
                    shares,
                    ACCENT,
                    [t("recognition.share", share=share) for share in shares],
                    colours=(ACCENT, THEME.rest),
                )
            ],
            alt=t("recognition.alt", components=found.components, features=found.features),
            size=16,
            gap=50,
            high=1.18,
        )
    left, right = lower.columns(1, 1, gap=GAP)
    canvas.headed(left, t("recognition.how"), Line(t("recognition.how.what"), 17, before=4))
    canvas.headed(
        right,
        t("recognition.care"),
        Line(t(f"recognition.care.{facts.origin if found else 'none'}"), 17, before=4),
        colour=THEME.alert,
    )
    canvas.say(t("recognition.notes"), facts.pipeline.features, facts.pipeline.pca_features)
