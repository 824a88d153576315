"""Problem and data: three minutes."""

from __future__ import annotations

from collections.abc import Sequence

from fruits_assets.deliverables.deck.canvas import (
    ACCENT,
    CONTENT,
    HEIGHT,
    MARGIN,
    PALE,
    WIDTH,
    Box,
    Canvas,
    Line,
    bullets,
)
from fruits_assets.deliverables.deck.charts import Series, bars
from fruits_assets.deliverables.deck.facts import Facts
from fruits_assets.deliverables.deck.slide import Show, mosaic, slide
from fruits_assets.deliverables.figures import THEME

MOST_CLASSES = 12
"""Bars there is room for."""
COVER = Box(7.55, 0, WIDTH - 7.55, HEIGHT)


@slide("problem", 0.5)
def title(canvas: Canvas, show: Show) -> None:
    """Who, where, when, and what it is about."""
    t, room = canvas.t, 6.3
    canvas.bar(Box(MARGIN, 2.02, 1.1, 0.09), ACCENT)
    canvas.place_title(Box(MARGIN, 2.25, room, 1.75), t("title.title"), size=38)
    month = t("month", name=t(f"month.{show.month.month}"), year=str(show.month.year))
    when = f"{canvas.fit(show.place, 3.6, size=16)}, {month}" if show.place.strip() else month
    canvas.place_subtitle(
        Box(MARGIN, 4.1, room, 2.2),
        Line(t("title.subtitle"), 18, colour=THEME.muted),
        Line(canvas.fit(show.author, room, size=18, bold=True), 18, bold=True, before=26),
        Line(when, 16, colour=THEME.muted, before=4),
    )
    photos, labels = zip(*show.facts.thumbnails[:30], strict=True)
    alt = t("title.alt", labels=", ".join(sorted({canvas.fit(one, 2) for one in labels})))
    canvas.picture(COVER, mosaic(photos, columns=5, rows=6), alt)
    canvas.say(t("title.notes", author=show.author))


@slide("problem", 1)
def problem(canvas: Canvas, _: Show) -> None:
    """The needs of the start-up, and the task."""
    t = canvas.t
    canvas.title(t("problem.title"))
    upper, lower = CONTENT.cut(4.2)
    left, right = upper.columns(5, 7)
    canvas.headed(
        left,
        t("problem.need"),
        *bullets(*(t(f"problem.need.{index}") for index in (1, 2, 3)), size=19, before=16),
    )
    for index, box in enumerate(right.rows(1, 1, 1, gap=0.18), start=1):
        number, words = box.columns(1, 9, gap=0)
        canvas.card(box)
        canvas.text(
            number, Line(str(index), 30, bold=True, colour=ACCENT), align="center", anchor="middle"
        )
        canvas.text(
            words,
            Line(t(f"problem.goal.{index}"), 17, bold=True),
            Line(t(f"problem.goal.{index}.how"), 14, colour=THEME.muted, before=3),
            anchor="middle",
            margin=0.1,
        )
    canvas.card(
        lower,
        Line(t("problem.deliverables"), 15, bold=True, colour=ACCENT),
        Line(t("problem.deliverables.list"), 15, before=2),
        fill=PALE,
        border=None,
        anchor="middle",
    )
    canvas.say(t("problem.notes"))


@slide("problem", 1.5)
def data(canvas: Canvas, show: Show) -> None:
    """Counts, classes and a contact sheet."""
    t, facts = canvas.t, show.facts
    canvas.title(t("data.title", images=facts.images, classes=facts.classes, kind=t(_kind(facts))))
    upper, lower = CONTENT.cut(0.95)
    width, height, same = facts.size
    size = t("data.size" if same else "data.size.median", width=width, height=height)
    numbers = (
        (t("number", value=facts.images), t("data.images", files=facts.files_found)),
        (t("number", value=facts.classes), _unlabelled(canvas, facts)),
        (size, t("data.size.what" if same else "data.size.median.what")),
        (t("data.megabytes", value=facts.megabytes), t("data.megabytes.what")),
    )
    for box, (value, caption) in zip(upper.columns(1, 1, 1, 1), numbers, strict=True):
        canvas.figure(box, value, caption)
    left, right = lower.columns(7, 5)
    _class_chart(canvas, left, facts)
    _contact_sheet(canvas, right, facts)
    canvas.say(
        t(f"data.notes.{facts.origin}", images=facts.images, classes=facts.classes),
        facts.pipeline.raw,
    )


def _kind(facts: Facts) -> str:
    return f"data.kind.{facts.origin}"


def _unlabelled(canvas: Canvas, facts: Facts) -> str:
    if facts.unlabelled:
        return canvas.t("data.classes.unlabelled", count=facts.unlabelled)
    return canvas.t("data.classes")


def _class_chart(canvas: Canvas, box: Box, facts: Facts) -> None:
    t = canvas.t
    totals = {label: sum(splits.values()) for label, splits in facts.counts.items()}
    ranked = sorted(totals, key=lambda label: (-totals[label], label is None, label or ""))
    shown, rest = ranked[:MOST_CLASSES], ranked[MOST_CLASSES:]
    splits = list(facts.splits)
    colours = dict(
        zip(splits, (ACCENT, THEME.series[1], THEME.series[2], THEME.rest), strict=False)
    )
    names = {
        split: t("data.no_split") if split is None else canvas.fit(split, 2) for split in splits
    }
    head, foot = 0.36, 0.5 if rest else 0
    canvas.text(Box(box.left, box.top, box.width, head), Line(t("data.chart"), 15, bold=True))
    labels = [f"{canvas.fit(label, 2.1)} ({t('number', value=totals[label])})" for label in shown]
    bars(
        canvas,
        Box(box.left, box.top + head, box.width, box.height - head - foot),
        labels,
        [
            Series(names[split], [facts.counts[one].get(split, 0) for one in shown], colours[split])
            for split in splits
        ],
        alt=t("data.chart.alt", shown=len(shown), all=len(ranked)),
        gap=45 if len(shown) > 6 else 120,
    )
    if rest:
        canvas.text(
            Box(box.left, box.bottom - foot, box.width, foot),
            Line(
                _others(canvas, [totals[label] for label in rest]),
                13,
                colour=THEME.muted,
            ),
            anchor="middle",
        )


def _others(canvas: Canvas, counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    if least == most:
        return canvas.t("data.others.even", classes=len(counts), images=sum(counts), most=most)
    values = {"classes": len(counts), "images": sum(counts), "least": least, "most": most}
    return canvas.t("data.others", **values)


def _contact_sheet(canvas: Canvas, box: Box, facts: Facts) -> None:
    t, head = canvas.t, 0.36
    canvas.text(Box(box.left, box.top, box.width, head), Line(t("data.sheet"), 15, bold=True))
    columns, rows = 6, 4
    photos, labels = zip(*facts.thumbnails[: columns * rows], strict=True)
    width = min(box.width, (box.height - head) * columns / rows)
    alt = t("title.alt", labels=", ".join(sorted({canvas.fit(one, 2) for one in labels})))
    picture = Box(box.left, box.top + head, width, width * rows / columns)
    canvas.picture(picture, mosaic(photos, columns=columns, rows=rows), alt)
