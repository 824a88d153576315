"""A slide: a function that draws it, and the time that is spoken on it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from PIL import Image

from fruits_assets.deliverables.deck.canvas import Canvas
from fruits_assets.deliverables.deck.facts import Facts
from fruits_assets.deliverables.figures import THEME

Section = Literal["problem", "environment", "chain", "demo", "synthesis"]
SECTIONS: dict[Section, float] = {
    "problem": 3,
    "environment": 6,
    "chain": 6,
    "demo": 2,
    "synthesis": 3,
}
"""Parts of the defence, and their minutes."""


@dataclass(frozen=True)
class Show:
    """The facts to show, by whom and when.

    Attributes:
        facts: of the run.
        author: first and last name.
        place: where; may be empty.
        month: any day of the month.
    """

    facts: Facts
    author: str
    place: str
    month: date


@dataclass(frozen=True)
class Slide:
    """One slide.

    Attributes:
        name: of its texts.
        section: that it belongs to.
        minutes: that are spoken on it.
        draw: gives it title, content and notes.
    """

    name: str
    section: Section
    minutes: float
    draw: Callable[[Canvas, Show], None]


def slide(section: Section, minutes: float) -> Callable[[Callable[[Canvas, Show], None]], Slide]:
    """Declares a function to be a slide that is named as the function is."""
    return lambda draw: Slide(draw.__name__, section, minutes, draw)


PIXELS = 160
"""Side of a photo in a mosaic: thumbnails are 96 pixels large."""


def mosaic(photos: Sequence[np.ndarray], *, columns: int, rows: int, gap: int = 8) -> bytes:
    """JPEG of a grid of (h, w, 3) uint8 photos on white tiles; tiles without a photo stay empty."""
    step = PIXELS + gap
    sheet = Image.new("RGB", (columns * step - gap, rows * step - gap), THEME.paper)
    tile = Image.new("RGB", (PIXELS, PIXELS), THEME.tile)
    for index in range(columns * rows):
        left, top = index % columns * step, index // columns * step
        sheet.paste(tile, (left, top))
        if index < len(photos):
            photo = Image.fromarray(photos[index])
            scale = PIXELS / max(photo.size)
            size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
            photo = photo.resize(size, Image.Resampling.LANCZOS)
            inner = (left + (PIXELS - size[0]) // 2, top + (PIXELS - size[1]) // 2)
            sheet.paste(photo, inner)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
