"""The deck's languages: a table of texts each, and how numbers are written."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from fruits_assets.deliverables.deck import texts_en, texts_fr
from fruits_assets.deliverables.deck.measure import plain

Code = Literal["fr", "en"]
NBSP = "\N{NO-BREAK SPACE}"
UNIT = re.compile(r"(?<=[0-9}]) (?=(s|min|h|Mo|MB|ko|kB|px|EUR|USD|jours|days)\b|€)")
"""The space between a number and its unit, where no line may end."""


@dataclass(frozen=True)
class Language:
    """Texts by key, with numbers written as the language does.

    A text names its values in braces, with one of these formats: `n` (a whole number), `f1` (a
    number with so many decimals), `p1` (a share, as a percentage with so many decimals), `t`
    (minutes), `s` (text of any origin, on one line). A value is never taken for a text.

    Attributes:
        tag: BCP 47.
        texts: by key.
        thousands: separator.
        decimal: separator.
        percent: sign, with the space before it.
        french: whether French typography is due: apostrophes, and spaces that do not break.
    """

    tag: str
    texts: Mapping[str, str]
    thousands: str
    decimal: str
    percent: str
    french: bool

    @classmethod
    def of(cls, code: Code) -> Self:
        """One of the two."""
        if code == "fr":
            return cls("fr-FR", texts_fr.TEXTS, NBSP, ",", f"{NBSP}%", french=True)
        return cls("en-GB", texts_en.TEXTS, ",", ".", "%", french=False)

    def __call__(self, key: str, **values: Any) -> str:
        """The text of a key, with its values. Raises KeyError if there is none, or one lacks."""
        text = UNIT.sub(NBSP, self.texts[key])
        return _Formatter(self).vformat(_typeset(text) if self.french else text, (), values)

    def number(self, value: float, decimals: int = 0) -> str:
        """With separators."""
        text = f"{value:,.{decimals}f}"
        return text.translate({ord(","): self.thousands, ord("."): self.decimal})

    def share(self, value: float, decimals: int = 0) -> str:
        """A share of 1 as a percentage."""
        return self.number(100 * value, decimals) + self.percent

    def duration(self, minutes: float) -> str:
        """`1 min 30`."""
        whole, seconds = divmod(round(60 * minutes), 60)
        parts = ([f"{whole}{NBSP}min"] if whole or not seconds else []) + (
            [f"{seconds:02d}" if whole else f"{seconds}{NBSP}s"] if seconds else []
        )
        return NBSP.join(parts)


class _Formatter(string.Formatter):
    def __init__(self, language: Language) -> None:
        self._language = language

    def format_field(self, value: Any, format_spec: str) -> str:
        kind, decimals = format_spec[:1], int(format_spec[1:] or 0)
        match kind:
            case "n" | "f":
                return self._language.number(value, decimals)
            case "p":
                return self._language.share(value, decimals)
            case "t":
                return self._language.duration(value)
            case "s":
                return plain(str(value))
        raise ValueError(f"a text has a value without a format: {format_spec!r}")


def _typeset(text: str) -> str:
    """French typography."""
    text = text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}")
    text = re.sub(r" ([:;?!»])", NBSP + r"\1", text)
    return text.replace("« ", f"«{NBSP}")
