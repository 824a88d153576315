"""How much room text takes, so that none is ever larger than its box.

Widths are those of DejaVu Sans, which Matplotlib brings along: it is wider than Arial and than all
that stands in for Arial, so that what fits here fits everywhere.
"""

from __future__ import annotations

import math
import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

LINE_HEIGHT = 1.2
"""In units of the size of the letters."""
_SIZE = 100
_LONGEST = 300
"""Characters that are worth measuring: no line of a slide has so many."""


@cache
def _font(*, bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib as mpl  # noqa: PLC0415 - only decks wait for it

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), _SIZE)


@cache
def _width(text: str, *, bold: bool) -> float:
    return _font(bold=bold).getlength(text) / _SIZE


def width(text: str, *, size: float, bold: bool = False) -> float:
    """Width of one line, in the unit of `size`."""
    return _width(text, bold=bold) * size


def line_count(text: str, *, room: float, size: float, bold: bool = False) -> int:
    """Lines that a paragraph takes when it is wrapped at words, and longer words where need be.

    Args:
        text: of the paragraph; a newline begins another line.
        room: width of a line, in points.
        size: of the letters, in points.
        bold: their weight.
    """
    lines = 0
    for line in text.split("\n"):
        lines += 1
        used = 0.0
        for word in line.split(" "):
            own = width(word, size=size, bold=bold)
            needed = own + (width(" ", size=size, bold=bold) if used else 0)
            if used + needed <= room:
                used += needed
                continue
            lines += bool(used)
            used = own
            if own > room:  # broken between letters, of which the last line may lack one
                broken = math.ceil(own / max(1.0, room - size))
                lines, used = lines + broken - 1, room
    return lines


def elided(text: str, *, room: float, size: float, bold: bool = False) -> str:
    """The text, or as much of its beginning and end as takes one line of `room` points."""
    tries = min(len(text), _LONGEST)
    if len(text) == tries and width(text, size=size, bold=bold) <= room:
        return text
    low, high, fits = 0, tries, "…"
    while low < high:
        kept = (low + high + 1) // 2
        front = math.ceil(kept / 2)
        short = text[:front].rstrip() + "…" + text[len(text) - kept + front :].lstrip()
        if width(short, size=size, bold=bold) <= room:
            fits, low = short, kept
        else:
            high = kept - 1
    return fits


def plain(text: str) -> str:
    """Any text on one line, as XML can hold it: without control characters and piles of marks."""
    kept = []
    for character in unicodedata.normalize("NFC", " ".join(text.split())):
        category = unicodedata.category(character)
        if category in {"Cc", "Cf", "Mn", "Me"}:
            continue
        # Lone surrogates, private and unassigned code points have no glyph, or no place in XML.
        kept.append("\ufffd" if category in {"Cs", "Cn", "Co"} else character)
    return "".join(kept)
