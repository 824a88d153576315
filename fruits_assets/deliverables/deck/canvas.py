"""A slide to draw on: boxes, text, cards, connectors and pictures, in inches on one grid."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from fruits_assets.deliverables.deck.measure import LINE_HEIGHT, elided, line_count, plain, width
from fruits_assets.deliverables.figures import THEME

if TYPE_CHECKING:
    from pptx.shapes.base import BaseShape
    from pptx.slide import Slide as PptxSlide

    from fruits_assets.deliverables.deck.language import Language
    from fruits_assets.lake.recipe import Versioned

WIDTH, HEIGHT = 13.333, 7.5
MARGIN = 0.6
GAP = 0.25
FONT, CODE_FONT = "Arial", "Courier New"
"""Both are in every PowerPoint, and LibreOffice has equals of theirs (Liberation)."""
SMALLEST = 12.0
"""Points: what is smaller is not read from the back of a room."""
ACCENT, SECOND, THIRD = THEME.series[0], THEME.series[4], THEME.series[2]
PALE = "#e8f1f8"
"""The accent, on paper."""
PALE_ALERT = "#faeee6"
WHITE = THEME.tile
POINTS = 72
Align = Literal["left", "center", "right"]
Anchor = Literal["top", "middle", "bottom"]
Side = Literal["top", "left", "bottom", "right"]
SIDES: dict[Side, int] = {"top": 0, "left": 1, "bottom": 2, "right": 3}


@dataclass(frozen=True)
class Box:
    """A rectangle of a slide, in inches."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.top + self.height

    def columns(self, *shares: float, gap: float = GAP) -> list[Box]:
        """Side by side, with widths in these proportions."""
        unit = (self.width - gap * (len(shares) - 1)) / sum(shares)
        boxes, left = [], self.left
        for share in shares:
            boxes.append(Box(left, self.top, share * unit, self.height))
            left += share * unit + gap
        return boxes

    def rows(self, *shares: float, gap: float = GAP) -> list[Box]:
        """One below the other, with heights in these proportions."""
        turned = Box(self.top, self.left, self.height, self.width).columns(*shares, gap=gap)
        return [Box(one.top, one.left, one.height, one.width) for one in turned]

    def cut(self, height: float, *, gap: float = GAP) -> tuple[Box, Box]:
        """An upper part of this height, and what is left below it."""
        below = self.top + height + gap
        return replace(self, height=height), replace(self, top=below, height=self.bottom - below)

    def inset(self, by: float) -> Box:
        """Smaller on all sides."""
        return Box(self.left + by, self.top + by, self.width - 2 * by, self.height - 2 * by)


CONTENT = Box(MARGIN, 1.5, WIDTH - 2 * MARGIN, 5.2)
"""Between title and footer."""


@dataclass(frozen=True)
class Line:
    """A paragraph.

    Attributes:
        text: of it.
        size: in points, at most; it shrinks to fit its box, down to `SMALLEST`.
        bold: its weight.
        colour: of its letters.
        bullet: whether it is an item of a list.
        before: space above it, in points.
        code: whether it is typed in a terminal.
    """

    text: str
    size: float = 15
    bold: bool = False
    colour: str = THEME.ink
    bullet: bool = False
    before: float = 0
    code: bool = False


def bullets(*texts: str, size: float = 15, before: float = 6) -> list[Line]:
    """Items of a list."""
    return [Line(text, size, bullet=True, before=before) for text in texts]


BULLET_INDENT = 0.2


class Canvas:
    """One slide."""

    def __init__(self, slide: PptxSlide, language: Language) -> None:
        self.slide = slide
        self.t = language
        self.spoken = ""

    def title(self, text: str) -> None:
        """The slide's title, in its placeholder."""
        shape = self.slide.shapes.title
        assert shape is not None  # noqa: S101 - every layout has one
        room = TITLE.width * POINTS
        sizes = (size for size in TITLE_SIZES if width(text, size=size, bold=True) <= room)
        self._write(shape, [Line(text, next(sizes, TITLE_SIZES[-1]), bold=True)])

    def notes(self, text: str) -> None:
        """The notes, which only the speaker sees."""
        frame = self.slide.notes_slide.notes_text_frame
        assert frame is not None  # noqa: S101 - every notes page has one
        frame.text = text

    def place_title(self, box: Box, text: str, *, size: float) -> None:
        """The title elsewhere and larger, as on a cover."""
        shape = self.slide.shapes.title
        assert shape is not None  # noqa: S101 - every layout has one
        place(shape, box)
        self._write(shape, self._fitted(box, [Line(text, size, bold=True)], margin=0))

    def place_subtitle(self, box: Box, *lines: Line) -> None:
        """Lines below the title of a cover, in its placeholder."""
        shape = self.slide.placeholders[1]
        place(shape, box)
        self._write(shape, self._fitted(box, lines, margin=0))

    def say(self, text: str, *sources: Versioned) -> None:
        """The words to speak on the slide, and the versions that its figures come from."""
        self.spoken = text
        if sources:
            versions = ", ".join(f"{one.name} {one.version}" for one in sources)
            self.spoken += "\n\n" + self.t("sources", versions=versions)

    def text(
        self,
        box: Box,
        *lines: Line,
        align: Align = "left",
        anchor: Anchor = "top",
        margin: float = 0,
    ) -> BaseShape:
        """Paragraphs without a background."""
        shape = self.slide.shapes.add_textbox(*_emu(box))
        return self._filled(shape, box, lines, align=align, anchor=anchor, margin=margin)

    def card(
        self,
        box: Box,
        *lines: Line,
        fill: str = WHITE,
        border: str | None = THEME.hairline,
        align: Align = "left",
        anchor: Anchor = "top",
        margin: float = 0.16,
        dashed: bool = False,
        rounded: float = 0.08,
    ) -> BaseShape:
        """Paragraphs on a rectangle with round corners of `rounded` inches."""
        from pptx.enum.dml import MSO_LINE  # noqa: PLC0415 - only decks wait for it
        from pptx.enum.shapes import MSO_SHAPE  # noqa: PLC0415

        shape = self.slide.shapes.add_shape(MSO_SHAPE.ROUNDED_RECTANGLE, *_emu(box))
        shape.adjustments[0] = rounded / min(box.width, box.height)
        _bare(shape)
        shape.fill.solid()
        shape.fill.fore_color.rgb = rgb(fill)
        if border is None:
            shape.line.fill.background()
        else:
            shape.line.color.rgb = rgb(border)
            shape.line.width = int(1.25 * 12700)
            if dashed:
                shape.line.dash_style = MSO_LINE.DASH
        return self._filled(shape, box, lines, align=align, anchor=anchor, margin=margin)

    def headed(
        self, box: Box, heading: str, *lines: Line, colour: str = ACCENT, edge: str = ""
    ) -> None:
        """A card with a heading, and an edge of its colour or of another one."""
        self.card(box, Line(heading, 16, bold=True, colour=colour), *lines, margin=0.2)
        self.bar(Box(box.left, box.top + 0.12, 0.07, box.height - 0.24), edge or colour)

    def figure(self, box: Box, value: str, caption: str, *, colour: str = ACCENT) -> None:
        """A number to remember, and what it is."""
        self.card(
            box,
            Line(value, 24, bold=True, colour=colour),
            Line(caption, 13, colour=THEME.muted),
            anchor="middle",
            margin=0.14,
        )

    def missing(self, box: Box, heading: str, text: str) -> None:
        """Says in words that a figure is not there, and how to get it."""
        self.card(
            box,
            Line(heading, 18, bold=True, colour=THEME.alert),
            Line(text, 15, before=6),
            fill=PALE_ALERT,
            border=THEME.alert,
            anchor="middle",
            margin=0.3,
            dashed=True,
        )

    def bar(self, box: Box, colour: str) -> None:
        """A filled rectangle that says nothing by itself."""
        from pptx.enum.shapes import MSO_SHAPE  # noqa: PLC0415 - only decks wait for it

        shape = self.slide.shapes.add_shape(MSO_SHAPE.RECTANGLE, *_emu(box))
        _bare(shape)
        shape.fill.solid()
        shape.fill.fore_color.rgb = rgb(colour)
        shape.line.fill.background()

    def link(
        self,
        start: BaseShape,
        end: BaseShape,
        sides: tuple[Side, Side] = ("right", "left"),
        *,
        colour: str = THEME.muted,
        both: bool = False,
        dashed: bool = False,
        elbow: bool = False,
    ) -> None:
        """An arrow that stays attached to both shapes when they are moved."""
        from pptx.enum.dml import MSO_LINE  # noqa: PLC0415 - only decks wait for it
        from pptx.enum.shapes import MSO_CONNECTOR  # noqa: PLC0415
        from pptx.oxml.ns import qn  # noqa: PLC0415

        kind = MSO_CONNECTOR.ELBOW if elbow else MSO_CONNECTOR.STRAIGHT
        ends = (*_side(start, sides[0]), *_side(end, sides[1]))
        connector = self.slide.shapes.add_connector(kind, *ends)
        connector.begin_connect(start, SIDES[sides[0]])
        connector.end_connect(end, SIDES[sides[1]])
        _bare(connector)
        connector.line.color.rgb = rgb(colour)
        connector.line.width = int(1.75 * 12700)
        if dashed:
            connector.line.dash_style = MSO_LINE.DASH
        line: Any = connector.line._get_or_add_ln()  # noqa: SLF001 - python-pptx has no arrow heads
        for end_name in ("a:headEnd", "a:tailEnd") if both else ("a:tailEnd",):
            line.append(line.makeelement(qn(end_name), {"type": "triangle"}))

    def picture(self, box: Box, png: bytes, alt: str) -> None:
        """A picture that fills the box, and what it shows for those who do not see it."""
        picture = self.slide.shapes.add_picture(io.BytesIO(png), *_emu(box))
        described(picture, alt)

    def table(self, box: Box, shares: Sequence[float], rows: Sequence[Sequence[str]]) -> None:
        """A table whose first row is its heading; all in one size, the largest that fits."""
        from pptx.enum.text import MSO_ANCHOR  # noqa: PLC0415 - only decks wait for it

        widths = [share / sum(shares) * box.width for share in shares]
        size = next(
            (size for size in (15, 14, 13) if sum(_row_heights(rows, widths, size)) <= box.height),
            SMALLEST,
        )
        heights = _row_heights(rows, widths, size)
        spare = max(0.0, min(0.12, (box.height - sum(heights)) / len(rows)))
        frame = self.slide.shapes.add_table(len(rows), len(widths), *_emu(box))
        table: Any = frame.table
        _plain_table(table)
        for column, inches in zip(table.columns, widths, strict=True):
            column.width = _inches(inches)
        for y, (row, height) in enumerate(zip(rows, heights, strict=True)):
            table.rows[y].height = _inches(height + spare)
            for x, text in enumerate(row):
                cell = table.cell(y, x)
                cell.margin_left = cell.margin_right = _inches(CELL_MARGIN)
                cell.margin_top = cell.margin_bottom = _inches(CELL_MARGIN / 2)
                cell.vertical_anchor = MSO_ANCHOR.MIDDLE
                cell.fill.solid()
                cell.fill.fore_color.rgb = rgb(THEME.ink if y == 0 else (WHITE, THEME.paper)[y % 2])
                bold, colour = y == 0 or x == 0, WHITE if y == 0 else THEME.ink
                self._write(cell, [Line(text, size, bold=bold, colour=colour)])
        frame.height = _inches(sum(heights) + spare * len(heights))

    def fit(
        self, text: str | None, room: float, *, size: float = SMALLEST, bold: bool = False
    ) -> str:
        """A label of any origin, on one line of so many inches."""
        name = self.t("unlabelled") if text is None else plain(text) or self.t("empty_label")
        return elided(name, room=room * POINTS, size=size, bold=bold)

    def _filled(
        self,
        shape: Any,
        box: Box,
        lines: Sequence[Line],
        *,
        align: Align,
        anchor: Anchor,
        margin: float,
    ) -> BaseShape:
        from pptx.enum.text import MSO_ANCHOR, MSO_AUTO_SIZE  # noqa: PLC0415 - only decks wait

        frame = shape.text_frame
        frame.word_wrap = True
        frame.auto_size = MSO_AUTO_SIZE.NONE
        frame.vertical_anchor = MSO_ANCHOR[anchor.upper()]
        frame.margin_left = frame.margin_right = _inches(margin)
        frame.margin_top = frame.margin_bottom = _inches(margin / 2)
        self._write(shape, self._fitted(box, lines, margin=margin), align=align)
        return shape

    @staticmethod
    def _fitted(box: Box, lines: Sequence[Line], *, margin: float) -> list[Line]:
        """The lines, shrunk in proportion until they fit the box or are as small as may be."""
        scaled = list(lines)
        for percent in range(100, 40, -4):
            scaled = [
                replace(
                    line,
                    size=max(SMALLEST, round(line.size * percent / 100, 1)),
                    before=line.before * percent / 100,
                )
                for line in lines
            ]
            if text_height(scaled, box.width - 2 * margin) <= box.height - margin:
                break
        return scaled

    def _write(self, shape: Any, lines: Sequence[Line], *, align: Align = "left") -> None:
        from pptx.enum.text import PP_ALIGN  # noqa: PLC0415 - only decks wait for it
        from pptx.util import Pt  # noqa: PLC0415

        frame = shape.text_frame
        for index, line in enumerate(lines):
            paragraph = frame.paragraphs[0] if index == 0 else frame.add_paragraph()
            paragraph.alignment = PP_ALIGN[align.upper()]
            paragraph.space_before = Pt(line.before if index else 0)
            if line.bullet:
                _bulleted(paragraph)
            run = paragraph.add_run()
            run.text = line.text
            font = run.font
            font.size, font.bold, font.color.rgb = Pt(line.size), line.bold, rgb(line.colour)
            if line.code:
                font.name = CODE_FONT
            run._r.get_or_add_rPr().set("lang", self.t.tag)  # noqa: SLF001 - for spell checkers


TITLE = Box(MARGIN, 0.6, WIDTH - 2 * MARGIN, 0.78)
FOOTER = Box(MARGIN, 6.98, 9.0, 0.3)
NUMBER = Box(WIDTH - MARGIN - 1.2, 6.98, 1.2, 0.3)
TITLE_SIZES = (26, 25, 24, 23, 22)
"""The largest that needs one line is taken, or the smallest, of which there is room for two."""
CELL_MARGIN = 0.1


def text_height(lines: Sequence[Line], room: float) -> float:
    """Inches that paragraphs take in a width of so many inches."""
    points = 0.0
    for index, line in enumerate(lines):
        inches = room - (BULLET_INDENT if line.bullet else 0)
        # A letter of Courier New is 0.6 of its size, which is less than a bold one of DejaVu takes.
        bold = line.bold or line.code
        count = line_count(line.text, room=inches * POINTS, size=line.size, bold=bold)
        points += count * line.size * LINE_HEIGHT + (line.before if index else 0)
    return points / POINTS


def _row_heights(
    rows: Sequence[Sequence[str]], widths: Sequence[float], size: float
) -> list[float]:
    return [
        CELL_MARGIN
        + max(
            text_height([Line(text, size, bold=y == 0 or x == 0)], width - 2 * CELL_MARGIN)
            for x, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for y, row in enumerate(rows)
    ]


def rgb(colour: str) -> Any:
    """A colour of python-pptx."""
    from pptx.dml.color import RGBColor  # noqa: PLC0415 - only decks wait for it

    return RGBColor.from_string(colour.removeprefix("#").upper())


def described(shape: Any, alt: str) -> None:
    """Gives a shape the text that screen readers read."""
    shape._element._nvXxPr.cNvPr.set("descr", plain(alt))  # noqa: SLF001 - no public way


def footed(canvas: Canvas, text: str) -> None:
    """Takes the footer and the slide number over from the layout, which does not show them."""
    tree = canvas.slide.shapes._spTree  # noqa: SLF001 - python-pptx leaves both out
    for placeholder in canvas.slide.slide_layout.placeholders:
        kind = placeholder.element.nvSpPr.nvPr.find("{*}ph").get("type")
        if kind not in {"ftr", "sldNum"}:
            continue
        element: Any = copy.deepcopy(placeholder.element)
        # An id that is there twice leads connectors astray.
        element.nvSpPr.cNvPr.set(
            "id", str(max(shape.shape_id for shape in canvas.slide.shapes) + 1)
        )
        for run in element.iter("{*}rPr", "{*}endParaRPr"):
            run.set("lang", canvas.t.tag)
        tree.append(element)
        if kind == "ftr":
            frame: Any = canvas.slide.shapes[-1]
            room = FOOTER.width * POINTS
            frame.text_frame.text = elided(plain(text), room=room, size=SMALLEST)


def _bare(shape: Any) -> None:
    """Without the shadows and gradients of the template's style."""
    for style in shape._element.findall("{*}style"):  # noqa: SLF001 - no public way
        shape._element.remove(style)  # noqa: SLF001


def _bulleted(paragraph: Any) -> None:
    from pptx.oxml.ns import qn  # noqa: PLC0415 - only decks wait for it

    properties = paragraph._p.get_or_add_pPr()  # noqa: SLF001 - python-pptx has no bullets
    properties.set("marL", str(_inches(BULLET_INDENT)))
    properties.set("indent", str(-_inches(BULLET_INDENT)))
    colour = properties.makeelement(qn("a:buClr"), {})
    colour.append(colour.makeelement(qn("a:srgbClr"), {"val": ACCENT.removeprefix("#").upper()}))
    properties.append(colour)
    properties.append(properties.makeelement(qn("a:buChar"), {"char": "•"}))


def _plain_table(table: Any) -> None:
    """Without the banding of the template: "No Style, No Grid"."""
    style = table._tbl.tblPr.find("{*}tableStyleId")  # noqa: SLF001 - no public way
    style.text = "{2D5ABB26-0587-4C30-8999-92F81FD0307C}"
    table.horz_banding = False


def _side(shape: BaseShape, side: Side) -> tuple[Any, Any]:
    """The middle of a side of a shape."""
    x = {"left": 0.0, "right": 1.0}.get(side, 0.5)
    y = {"top": 0.0, "bottom": 1.0}.get(side, 0.5)
    return shape.left + round(x * shape.width), shape.top + round(y * shape.height)


def place(shape: Any, box: Box) -> None:
    """Moves and sizes a shape."""
    shape.left, shape.top, shape.width, shape.height = _emu(box)


def _inches(inches: float) -> Any:
    from pptx.util import Inches  # noqa: PLC0415 - only decks wait for it

    return Inches(inches)


def _emu(box: Box) -> tuple[Any, Any, Any, Any]:
    left, top, width, height = (_inches(one) for one in (box.left, box.top, box.width, box.height))
    return left, top, width, height
