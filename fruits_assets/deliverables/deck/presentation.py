"""The deck: its slides in order, its theme, and the file."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from fruits_assets.deliverables.deck import chain, closing, environment, opening
from fruits_assets.deliverables.deck.canvas import (
    ACCENT,
    CONTENT,
    FONT,
    FOOTER,
    HEIGHT,
    MARGIN,
    NUMBER,
    SMALLEST,
    TITLE,
    WIDTH,
    Box,
    Canvas,
    Line,
    footed,
    place,
    rgb,
)
from fruits_assets.deliverables.deck.language import Code, Language
from fruits_assets.deliverables.deck.measure import plain
from fruits_assets.deliverables.deck.slide import SECTIONS, Show, Slide
from fruits_assets.deliverables.figures import THEME

if TYPE_CHECKING:
    from pptx.presentation import Presentation

SLIDES: tuple[Slide, ...] = (
    opening.title,
    opening.problem,
    opening.data,
    environment.architecture,
    environment.services,
    environment.gdpr,
    environment.costs,
    chain.assets,
    chain.ingest,
    chain.broadcast,
    chain.pca,
    chain.recognition,
    closing.demonstration,
    closing.throughput,
    closing.reliability,
    closing.limits,
)
MINUTES = sum(SECTIONS.values())
COVER, TITLE_ONLY = 0, 5
"""Layouts of python-pptx's template."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can say."""


@dataclass(frozen=True)
class Deck:
    """A presentation.

    Attributes:
        content: of the `.pptx` file: the same bytes for the same show.
        titles: title and minutes of each slide.
    """

    content: bytes
    titles: tuple[tuple[str, float], ...]


def build(show: Show, code: Code) -> Deck:
    """The deck of a run in one of the languages."""
    from pptx import Presentation  # noqa: PLC0415 - only decks wait for it

    language = Language.of(code)
    deck = Presentation()
    _set_up(deck, language, show)
    start, titles = 0.0, []
    for number, slide in enumerate(SLIDES):
        layout = deck.slide_layouts[0 if number == 0 else 1]
        canvas = Canvas(deck.slides.add_slide(layout), language)
        slide.draw(canvas, show)
        if number:
            _frame(canvas, slide, show)
        times = {"minutes": slide.minutes, "start": start, "end": start + slide.minutes}
        canvas.notes(f"{language('spoken', **times)}\n\n{canvas.spoken}")
        start += slide.minutes
        shape = canvas.slide.shapes.title
        titles.append((shape.text_frame.text if shape else "", slide.minutes))
    buffer = io.BytesIO()
    deck.save(buffer)
    return Deck(_steady(buffer.getvalue(), month=show.month), tuple(titles))


def _frame(canvas: Canvas, slide: Slide, show: Show) -> None:
    """Name of the part above the title; below, where we are, whose deck it is, and its number."""
    t = canvas.t
    section = t(f"section.{slide.section}").upper()
    canvas.text(Box(MARGIN, 0.3, 9, 0.28), Line(section, 12, bold=True, colour=ACCENT))
    left, unit = MARGIN, (WIDTH - 2 * MARGIN - 0.08 * (len(SECTIONS) - 1)) / MINUTES
    for name, minutes in SECTIONS.items():
        colour = ACCENT if name == slide.section else THEME.hairline
        canvas.bar(Box(left, 6.87, minutes * unit, 0.05), colour)
        left += minutes * unit + 0.08
    month = t("month", name=t(f"month.{show.month.month}"), year=str(show.month.year))
    footed(canvas, t("footer", author=show.author, month=month))


def _set_up(deck: Presentation, language: Language, show: Show) -> None:
    """Size, theme, the two layouts that are used, and what the file says of itself."""
    from pptx.util import Inches  # noqa: PLC0415 - only decks wait for it

    deck.slide_width, deck.slide_height = Inches(WIDTH), Inches(HEIGHT)
    for index, layout in reversed([*enumerate(deck.slide_layouts)]):
        if index not in {COVER, TITLE_ONLY}:
            deck.slide_layouts.remove(layout)
    _recolour(deck)
    deck.slide_master.background.fill.solid()
    deck.slide_master.background.fill.fore_color.rgb = rgb(THEME.paper)
    for owner in (deck.slide_master, *deck.slide_layouts):
        for shape in owner.placeholders:
            _lay_out(shape, language)
    properties = deck.core_properties
    properties.title, properties.author = language("title.title"), plain(show.author)[:255]
    properties.language, properties.subject = language.tag, language("title.subtitle")
    properties.last_modified_by, properties.revision, properties.keywords = "", 1, ""
    properties.comments = ""


def _lay_out(shape: Any, language: Language) -> None:
    """Places a placeholder of master or layout on the wide page, in the deck's fonts."""
    kind = shape.element.nvSpPr.nvPr.find("{*}ph").get("type")
    if kind == "dt":
        shape.element.getparent().remove(shape.element)
        return
    boxes = {"ftr": FOOTER, "sldNum": NUMBER, "title": TITLE, "ctrTitle": TITLE}
    place(shape, boxes.get(kind, CONTENT))
    body = shape.element.txBody.bodyPr
    for name in ("lIns", "rIns", "tIns", "bIns"):
        body.set(name, "0")
    body.set("anchor", "ctr" if kind in {"ftr", "sldNum"} else "t")
    for autofit in list(body):
        body.remove(autofit)
    if kind in {"ftr", "sldNum"}:
        _small_print(shape, "l" if kind == "ftr" else "r", language)


def _small_print(shape: Any, align: str, language: Language) -> None:
    from pptx.oxml.ns import qn  # noqa: PLC0415 - only decks wait for it

    style = shape.element.txBody.find(qn("a:lstStyle"))
    for child in list(style):
        style.remove(child)
    level = style.makeelement(qn("a:lvl1pPr"), {"algn": align})
    run = level.makeelement(
        qn("a:defRPr"), {"sz": str(round(100 * SMALLEST)), "lang": language.tag}
    )
    fill = run.makeelement(qn("a:solidFill"), {})
    fill.append(fill.makeelement(qn("a:srgbClr"), {"val": THEME.muted.removeprefix("#").upper()}))
    run.append(fill)
    level.append(run)
    style.append(level)


COLOURS: Mapping[str, str] = {
    "dk1": THEME.ink,
    "lt1": THEME.tile,
    "dk2": THEME.muted,
    "lt2": THEME.paper,
    "hlink": ACCENT,
    "folHlink": THEME.series[7],
    **{f"accent{index + 1}": colour for index, colour in enumerate(THEME.series[:6])},
}
"""Colours of the theme, which PowerPoint offers for whatever is added to the deck."""


def _recolour(deck: Presentation) -> None:
    """Gives the deck's theme its colours and fonts."""
    from pptx.opc.constants import RELATIONSHIP_TYPE  # noqa: PLC0415 - only decks wait for it
    from pptx.opc.oxml import serialize_part_xml  # noqa: PLC0415
    from pptx.opc.package import Part  # noqa: PLC0415
    from pptx.oxml import parse_xml  # noqa: PLC0415
    from pptx.oxml.ns import qn  # noqa: PLC0415

    old = deck.slide_master.part.part_related_by(RELATIONSHIP_TYPE.THEME)
    theme: Any = parse_xml(old.blob)
    for name, colour in COLOURS.items():
        (slot,) = theme.iterfind(f".//{{*}}clrScheme/{{*}}{name}")
        for child in list(slot):
            slot.remove(child)
        value = colour.removeprefix("#").upper()
        slot.append(slot.makeelement(qn("a:srgbClr"), {"val": value}))
    for latin in theme.iterfind(".//{*}fontScheme/*/{*}latin"):
        latin.set("typeface", FONT)
    for named in (theme, *theme.iterfind(".//{*}clrScheme"), *theme.iterfind(".//{*}fontScheme")):
        named.set("name", "Fruits!")
    package = deck.part.package
    new = Part(old.partname, old.content_type, package, serialize_part_xml(theme))
    for owner in (deck.part, deck.slide_master.part):
        for name, relation in [*owner.rels.items()]:
            if relation.reltype == RELATIONSHIP_TYPE.THEME:
                owner.rels.pop(name)
        owner.relate_to(new, RELATIONSHIP_TYPE.THEME)


WRITTEN = re.compile(rb"(<dcterms:(created|modified)[^>]*>)[^<]*")


def _steady(content: bytes, *, month: date) -> bytes:
    """A package, and the workbooks in it, as if it were written when the month began."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w") as new,
    ):
        for name in old.namelist():
            member = old.read(name)
            if name.endswith(".xlsx"):
                member = _steady(member, month=month)
            elif name == "docProps/core.xml":
                member = WRITTEN.sub(rb"\g<1>%b" % f"{month:%Y-%m}-01T00:00:00Z".encode(), member)
            new.writestr(zipfile.ZipInfo(name, EPOCH), member, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
