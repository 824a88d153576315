"""The page that people open: what is delivered, in figures, and the photos to browse.

It is a folder of static files that needs no server and asks no other machine for anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fruits_assets.deliverables.escaping import visible
from fruits_assets.deliverables.figures import THEME
from fruits_assets.deliverables.texts import TEXTS, Language, size

INDEX = "index.html"
FOLDER = Path(__file__).with_name("gallery")
TEMPLATES = (INDEX, "page.css")
SCRIPTS = ("photos.js", "map.js", "page.js")
FILES = (*TEMPLATES, *SCRIPTS)
"""Files of the page itself, beside the gallery's data and pictures."""


@dataclass(frozen=True)
class Link:
    """A file of the folder.

    Attributes:
        name: of the file.
        bytes: its size.
        sha256: of its content, hexadecimal.
        text: what one does with it.
    """

    name: str
    bytes: int
    sha256: str
    text: str = ""


@dataclass(frozen=True)
class Card:
    """A deliverable, by the name of its texts, and its files."""

    name: str
    links: Sequence[Link]


@dataclass(frozen=True)
class Fact:
    """A figure of the run, its name, and a note on it."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """The content of the page; any text may be a stranger's.

    Attributes:
        language: of all words.
        author: first and last name.
        month: of the presentation, in words.
        place: of the presentation; left out where empty.
        cards: the deliverables.
        facts: headline figures of the run.
        sampled: that not all photos are shown; empty where they are.
        versions: of the data, by asset.
        attribution: whose photos they are; left out where empty.
    """

    language: Language
    author: str
    month: str
    place: str
    cards: Sequence[Card]
    facts: Sequence[Fact]
    sampled: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    attribution: str = ""

    def files(self) -> dict[str, bytes]:
        """Name -> content of the page, its style and its scripts."""
        # Only who writes the page waits for it.
        from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

        environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["visible"] = visible
        environment.filters["size"] = lambda count: size(count, self.language)
        texts = TEXTS[self.language]
        values: dict[str, Any] = {"page": self, "texts": texts, "theme": THEME, "scripts": SCRIPTS}
        rendered = {
            name: environment.get_template(f"{name}.jinja").render(values).encode()
            for name in TEMPLATES
        }
        return rendered | {name: (FOLDER / name).read_bytes() for name in SCRIPTS}
