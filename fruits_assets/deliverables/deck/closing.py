"""Demonstration, synthesis and critical review: five minutes."""

from __future__ import annotations

from fruits_assets.deliverables.deck.benchmark import PROJECT, Benchmark
from fruits_assets.deliverables.deck.canvas import (
    ACCENT,
    CONTENT,
    PALE,
    WHITE,
    Box,
    Canvas,
    Line,
    bullets,
)
from fruits_assets.deliverables.deck.charts import Series, bars
from fruits_assets.deliverables.deck.facts import Facts, libraries
from fruits_assets.deliverables.deck.slide import Show, slide
from fruits_assets.deliverables.figures import THEME

FAULTS = ("killed", "worker", "image", "store", "disk", "twins", "damage")


@slide("demo", 2)
def demonstration(canvas: Canvas, _: Show) -> None:
    """Four commands, and what is seen after each."""
    t = canvas.t
    canvas.title(t("demonstration.title"))
    for index, box in enumerate(CONTENT.rows(1, 1, 1, 1, gap=0.2), start=1):
        canvas.card(box)
        number, command, words = box.columns(0.8, 4.6, 7, gap=0.1)
        canvas.text(
            number, Line(str(index), 28, bold=True, colour=ACCENT), align="center", anchor="middle"
        )
        canvas.card(
            Box(command.left, command.top + 0.18, command.width, command.height - 0.36),
            Line(t(f"demonstration.{index}.command"), 14, bold=True, colour=WHITE, code=True),
            fill=THEME.ink,
            border=None,
            anchor="middle",
        )
        canvas.text(
            words,
            Line(t(f"demonstration.{index}"), 16, bold=True),
            Line(t(f"demonstration.{index}.seen"), 14, colour=THEME.muted, before=3),
            anchor="middle",
            margin=0.15,
        )
    canvas.say(t("demonstration.notes"))


@slide("synthesis", 1)
def throughput(canvas: Canvas, show: Show) -> None:
    """Against the notebook that the intern left."""
    t, facts = canvas.t, show.facts
    measured = facts.benchmark
    upper, lower = CONTENT.cut(3.4)
    if measured is None:
        canvas.title(t("throughput.title.missing"))
        canvas.missing(upper, t("throughput.missing"), t("throughput.missing.what"))
    else:
        canvas.title(t("throughput.title", times=measured.times))
        _rates(canvas, upper, measured)
    left, middle, right = lower.columns(1, 1, 1)
    inference = facts.inference
    canvas.headed(
        left,
        t("throughput.run"),
        Line(
            t(
                "throughput.run.what",
                rate=inference["images_per_second"],
                count=inference["inferences"],
            ),
            14,
            before=4,
        ),
    )
    canvas.headed(middle, t("throughput.why"), Line(t("throughput.why.what"), 14, before=4))
    canvas.headed(
        right,
        t("throughput.published"),
        Line(t("throughput.published.what"), 14, before=4),
        colour=THEME.alert,
    )
    canvas.say(t("throughput.notes"), facts.pipeline.features, *([measured] if measured else []))


def _rates(canvas: Canvas, box: Box, measured: Benchmark) -> None:
    t = canvas.t
    heading, chart = box.cut(0.4, gap=0.05)
    size = "throughput.chart.quick" if measured.is_quick else "throughput.chart"
    canvas.text(heading, Line(t(size, photos=measured.size), 15, bold=True), anchor="middle")
    names = list(measured.rates)
    bars(
        canvas,
        chart,
        [_bar_name(canvas, measured, name) for name in names],
        [
            Series(
                t("throughput.rate"),
                [measured.rates[name] for name in names],
                ACCENT,
                [t("throughput.label", rate=measured.rates[name]) for name in names],
                colours=[ACCENT if name == PROJECT else THEME.rest for name in names],
            )
        ],
        alt=t("throughput.alt", times=measured.times),
        size=14,
        high=1.6 * max(measured.rates.values()),
    )


def _bar_name(canvas: Canvas, measured: Benchmark, contender: str) -> str:
    name, size = canvas.t(f"throughput.{contender}"), measured.worker_bytes[contender]
    return canvas.t("throughput.bar", name=name, megabytes=size / 1e6) if size else name


@slide("synthesis", 1)
def reliability(canvas: Canvas, _: Show) -> None:
    """Faults, and what happens then."""
    t = canvas.t
    canvas.title(t("reliability.title"))
    table, below = CONTENT.cut(4.5, gap=0.15)
    rows = [[t(f"reliability.{name}"), t(f"reliability.{name}.what")] for name in FAULTS]
    canvas.table(table, (3, 9), [[t("reliability.fault"), t("reliability.kept")], *rows])
    canvas.text(below, Line(t("reliability.tried"), 14, colour=THEME.muted), anchor="middle")
    canvas.say(t("reliability.notes"))


@slide("synthesis", 1)
def limits(canvas: Canvas, show: Show) -> None:
    """Limits, next steps, and whose work this stands on."""
    t, facts = canvas.t, show.facts
    canvas.title(t("limits.title"))
    upper, lower = CONTENT.cut(4.0)
    left, right = upper.columns(1, 1)
    canvas.headed(
        left, t("limits.limits"), *bullets(*_limits(canvas, facts), size=16), colour=THEME.alert
    )
    canvas.headed(
        right,
        t("limits.next"),
        *bullets(*(t(f"limits.next.{i}") for i in range(1, 6)), size=16, before=10),
    )
    versions = ", ".join(f"{name} {version}" for name, version in libraries().items())
    canvas.card(
        lower,
        Line(t("limits.sources"), 13, bold=True, colour=ACCENT),
        Line(t(f"limits.sources.{facts.origin}"), 12),
        Line(t("limits.sources.model"), 12),
        Line(t("limits.sources.libraries", versions=versions), 12),
        fill=PALE,
        border=None,
        anchor="middle",
    )
    canvas.say(t("limits.notes"), facts.pipeline.raw)


def _limits(canvas: Canvas, facts: Facts) -> list[str]:
    """Those of the data at hand, then those of everything."""
    t = canvas.t
    split = len([name for name in facts.splits if name]) > 1
    mixed = t("limits.duplicates", count=facts.duplicates) if split else t("limits.no_splits")
    return [
        *([t(f"limits.data.{facts.origin}")] if split or facts.origin == "drawn" else []),
        t("limits.white", share=facts.on_white) if facts.on_white >= 0.5 else t("limits.scenes"),
        mixed,
        t("limits.scale", images=facts.images),
        t("limits.cloud") if facts.bill_eur is None else t("limits.cloud.ran"),
    ]
