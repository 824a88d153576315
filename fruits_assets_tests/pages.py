"""The pages of documentation, as data: fenced blocks, headings, links, and what is in between."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fruits_assets_tests.conftest import REPOSITORY

NEEDS_AWS = "*Needs AWS.*"
MEASUREMENT = "*A measurement: takes minutes.*"
OTHER_PACKAGES = "*Needs packages that the project does not install.*"
MARKERS = (NEEDS_AWS, MEASUREMENT, OTHER_PACKAGES)
"""Paragraphs that say of the block below them that no test runs it."""
PAGES = (
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    REPOSITORY / "THIRD_PARTY_NOTICES.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
)
FENCE = re.compile(
    rf"^(?:(?P<marker>{'|'.join(map(re.escape, MARKERS))})\n\n)?"
    r"```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
ASSIGNMENT = re.compile(r"(?:[A-Z_]+=\S* )*")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: file that it stands in.
        language: of its fence; empty for what is only shown.
        text: between the fences.
        marker: the paragraph above it, if it is one of `MARKERS`.
    """

    page: Path
    language: str
    text: str
    marker: str | None

    def __str__(self) -> str:
        """Where it is, for people."""
        return f"{self.page.name}: {self.text[:60]!r}"

    @property
    def commands(self) -> list[str]:
        """Of a block of shell: its lines without comments and the variables before them."""
        if self.language not in {"sh", "bash"}:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [found for line in lines if (found := bare(line))]


def bare(command: str) -> str:
    """A command without its comment, the variables set for it and superfluous blanks."""
    text = re.sub(r"(^|\s)#.*", "", command)
    return ASSIGNMENT.sub("", " ".join(text.split()), count=1)


def words(command: str) -> list[str]:
    """A command as the shell would hand it over."""
    return shlex.split(command)


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [
        Block(page, it["language"], it["text"], it["marker"])
        for it in FENCE.finditer(page.read_text())
    ]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def quoted(page: Path) -> Iterator[str]:
    """What stands in `backticks`, on one line each."""
    for found in re.finditer(r"`([^`]+)`", prose(page)):
        yield " ".join(found[1].split())


def links(page: Path) -> Iterator[str]:
    """Targets of links and pictures."""
    text = re.sub(r"`[^`]*`", "", prose(page))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """What its headings are called in links, as GitHub names them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {f"{name}-{n}" if n else name for name, last in found.items() for n in range(last + 1)}
