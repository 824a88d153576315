"""Native charts, editable in PowerPoint, in the deck's colours and sizes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fruits_assets.deliverables.deck.canvas import FONT, SMALLEST, Box, Canvas, described, rgb
from fruits_assets.deliverables.escaping import cell
from fruits_assets.deliverables.figures import THEME

LINK = re.compile(r"[a-z]+:", re.IGNORECASE)
"""How a cell begins that XlsxWriter writes as a link."""
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Values of one kind.

    Attributes:
        name: in the legend.
        values: one per category.
        colour: of its bars.
        labels: at the end of the bars, one per category; none without any.
        colours: of the bars one by one, instead of `colour`.
    """

    name: str
    values: Sequence[float]
    colour: str
    labels: Sequence[str] = ()
    colours: Sequence[str] = ()


@dataclass(frozen=True)
class Marks:
    """Points of an XY chart.

    Attributes:
        name: in the legend.
        points: x and y.
        colour: of line or markers.
        marker: its size in points; 0 for none.
        width: of the line through them in points; 0 for none.
        dashed: whether that line is.
    """

    name: str
    points: Points
    colour: str
    marker: int = 0
    width: float = 0
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """How an axis is shown: a title, a format of its numbers ("" for none), limits and steps."""

    title: str = ""
    number_format: str = ""
    low: float | None = None
    high: float | None = None
    step: float | None = None
    grid: bool = False


def bars(
    canvas: Canvas,
    box: Box,
    categories: Sequence[str],
    series: Sequence[Series],
    *,
    alt: str,
    gap: int = 45,
    size: float = SMALLEST,
    high: float | None = None,
) -> None:
    """Horizontal bars, the first category above.

    One series has its labels beyond the ends of its bars; several are stacked, and have a legend.
    """
    from pptx.chart.data import CategoryChartData  # noqa: PLC0415 - only decks wait for it
    from pptx.enum.chart import XL_CHART_TYPE, XL_LABEL_POSITION  # noqa: PLC0415

    data = CategoryChartData()
    data.categories = [_inert(category) for category in categories]
    for one in series:
        data.add_series(_inert(one.name), one.values)
    stacked = len(series) > 1
    kind = XL_CHART_TYPE.BAR_STACKED if stacked else XL_CHART_TYPE.BAR_CLUSTERED
    chart = _chart(canvas, box, kind, data, alt=alt, size=size)
    _legend(chart, shown=stacked)
    plot = chart.plots[0]
    plot.gap_width, plot.overlap = gap, 100
    chart.category_axis.reverse_order = True
    _axis(chart.category_axis, Axis(number_format="General"), size=size)
    _ticks(chart.category_axis, outside=False)
    _every_label(chart.category_axis)
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)]
    # Labels beyond the ends of the bars need room there.
    limit = high or (1.05 if stacked else 1.3) * max(totals, default=1) or 1
    _axis(chart.value_axis, Axis(low=0, high=limit), size=size)
    chart.value_axis.visible = False
    for one, drawn in zip(series, plot.series, strict=True):
        _fill(drawn.format, one.colour)
        for index, colour in enumerate(one.colours):
            _fill(drawn.points[index].format, colour)
        for index, text in enumerate(one.labels):
            label = _label(drawn.points[index], text, THEME.ink, size=size)
            label.position = XL_LABEL_POSITION.OUTSIDE_END


def xy(
    canvas: Canvas,
    box: Box,
    marks: Sequence[Marks],
    *,
    across: Axis,
    up: Axis,
    alt: str,
    legend: bool,
    size: float = SMALLEST,
) -> None:
    """Curves and clouds of points."""
    from pptx.chart.data import XyChartData  # noqa: PLC0415 - only decks wait for it
    from pptx.enum.chart import XL_CHART_TYPE  # noqa: PLC0415

    data = XyChartData()
    for one in marks:
        series = data.add_series(_inert(one.name))
        for x, y in one.points:
            series.add_data_point(x, y)
    chart = _chart(canvas, box, XL_CHART_TYPE.XY_SCATTER, data, alt=alt, size=size)
    _legend(chart, shown=legend)
    for axis, wanted in ((chart.category_axis, across), (chart.value_axis, up)):
        _axis(axis, wanted, size=size)
    for one, drawn in zip(marks, chart.plots[0].series, strict=True):
        _mark(drawn, one)


def _inert(text: str) -> str:
    """A label that the chart's workbook takes for text, not for a formula or a link."""
    return f" {text}" if LINK.match(text) else cell(text)


def _chart(canvas: Canvas, box: Box, kind: Any, data: Any, *, alt: str, size: float) -> Any:
    from pptx.util import Inches, Pt  # noqa: PLC0415 - only decks wait for it

    left, top = Inches(box.left), Inches(box.top)
    width, height = Inches(box.width), Inches(box.height)
    frame: Any = canvas.slide.shapes.add_chart(kind, left, top, width, height, data)
    described(frame, alt)
    chart = frame.chart
    chart.font.size, chart.font.name = Pt(size), FONT
    chart.font.color.rgb = rgb(THEME.ink)
    chart.has_title = False
    return chart


def _legend(chart: Any, *, shown: bool) -> None:
    from pptx.enum.chart import XL_LEGEND_POSITION  # noqa: PLC0415 - only decks wait for it

    chart.has_legend = shown
    if shown:
        chart.legend.include_in_layout = False
        chart.legend.position = XL_LEGEND_POSITION.TOP


def _axis(axis: Any, wanted: Axis, *, size: float) -> None:
    from pptx.enum.chart import XL_TICK_LABEL_POSITION  # noqa: PLC0415 - only decks wait for it
    from pptx.util import Pt  # noqa: PLC0415

    axis.has_major_gridlines = wanted.grid
    if wanted.grid:
        axis.major_gridlines.format.line.color.rgb = rgb(THEME.hairline)
    axis.format.line.color.rgb = rgb(THEME.rest)
    _ticks(axis, outside=bool(wanted.number_format))
    # At the edge of the chart, wherever zero is.
    axis.tick_label_position = XL_TICK_LABEL_POSITION.LOW
    if wanted.number_format:
        axis.tick_labels.number_format = wanted.number_format
        axis.tick_labels.number_format_is_linked = False
        axis.tick_labels.font.size = Pt(size)
        axis.tick_labels.font.color.rgb = rgb(THEME.muted)
    else:
        axis.tick_label_position = XL_TICK_LABEL_POSITION.NONE
    axis.minimum_scale, axis.maximum_scale = wanted.low, wanted.high
    axis.major_unit = wanted.step
    axis.has_title = bool(wanted.title)
    if wanted.title:
        paragraph = axis.axis_title.text_frame.paragraphs[0]
        paragraph.text = wanted.title
        font = paragraph.runs[0].font
        font.size, font.bold, font.color.rgb = Pt(size), False, rgb(THEME.muted)


def _every_label(axis: Any) -> None:
    """Names every bar, even if they are close to each other."""
    from pptx.oxml.ns import qn  # noqa: PLC0415 - only decks wait for it

    element = axis._element  # noqa: SLF001 - python-pptx has no such setting
    skip = element.makeelement(qn("c:tickLblSkip"), {"val": "1"})
    element.insert_element_before(skip, "c:tickMarkSkip", "c:noMultiLvlLbl", "c:extLst")


def _ticks(axis: Any, *, outside: bool) -> None:
    from pptx.enum.chart import XL_TICK_MARK  # noqa: PLC0415 - only decks wait for it

    axis.major_tick_mark = XL_TICK_MARK.OUTSIDE if outside else XL_TICK_MARK.NONE
    axis.minor_tick_mark = XL_TICK_MARK.NONE


def _mark(drawn: Any, one: Marks) -> None:
    from pptx.enum.chart import XL_MARKER_STYLE  # noqa: PLC0415 - only decks wait for it
    from pptx.enum.dml import MSO_LINE  # noqa: PLC0415
    from pptx.util import Pt  # noqa: PLC0415

    drawn.smooth = False
    if one.width:
        drawn.format.line.color.rgb, drawn.format.line.width = rgb(one.colour), Pt(one.width)
        if one.dashed:
            drawn.format.line.dash_style = MSO_LINE.DASH
    else:
        drawn.format.line.fill.background()
    drawn.marker.style = XL_MARKER_STYLE.CIRCLE if one.marker else XL_MARKER_STYLE.NONE
    if one.marker:
        drawn.marker.size = one.marker
        _fill(drawn.marker.format, one.colour)
        drawn.marker.format.line.fill.background()


def _fill(form: Any, colour: str) -> None:
    form.fill.solid()
    form.fill.fore_color.rgb = rgb(colour)


def _label(point: Any, text: str, colour: str, *, size: float) -> Any:
    from pptx.util import Pt  # noqa: PLC0415 - only decks wait for it

    label = point.data_label
    paragraph = label.text_frame.paragraphs[0]
    run = paragraph.add_run()
    run.text = text
    run.font.size, run.font.color.rgb = Pt(size), rgb(colour)
    return label
