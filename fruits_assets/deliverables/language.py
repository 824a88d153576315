"""The words and numbers of the figures, in English or in French."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Language:
    """How a language writes what figures say.

    Attributes:
        thousands: between groups of three digits.
        decimal: before the fraction.
        percent: after a percentage.
        phrases: of the language, by their English: with the same {names} in them.
    """

    thousands: str
    decimal: str
    percent: str
    phrases: Mapping[str, str] = field(default_factory=dict)

    def number(self, value: float, digits: int = 0) -> str:
        """With so many digits after the decimal mark."""
        whole, _, fraction = f"{value:,.{digits}f}".partition(".")
        return whole.replace(",", self.thousands) + (fraction and self.decimal + fraction)

    def say(self, english: str, **values: str) -> str:
        """A phrase of this language, with values for the {names} in it."""
        return self.phrases.get(english, english).format(**values)


ENGLISH = Language(",", ".", "%")
# Narrow no-break spaces stand between thousands and before a percent sign, no-break spaces before
# a colon: a line never breaks there.
FRENCH = Language(
    "\u202f",
    ",",
    "\u202f%",
    {
        "image": "image",
        "images": "images",
        "photo": "photo",
        "photos": "photos",
        "file": "fichier",
        "files": "fichiers",
        "class": "classe",
        "classes": "classes",
        "smaller class": "classe plus petite",
        "smaller classes": "classes plus petites",
        "component": "composante",
        "components": "composantes",
        "No image yet": "Pas encore d’image",  # noqa: RUF001 - French
        "No photo yet": "Pas encore de photo",
        "No file was rejected": "Aucun fichier rejeté",
        "All {files} could be read": "{files} lus, sans exception",
        "{files} of {found} found ({share})": "{files} sur {found} trouvés ({share})",
        "Path": "Chemin",
        "Reason": "Motif",
        "Detail": "Détail",
        "and {count} more": "et {count} autres",
        "The first {count} of {photos}": "Les {count} premières de {photos}",
        "and {classes} with {images} in all": "et {classes}, avec {images} en tout",
        "{images} in {classes}": "{images} dans {classes}",
        "{sentence}, {count} unlabelled": "{sentence}, dont {count} sans classe",
        "{sentence}; there is room for {count} names": (
            "{sentence} ; il y a la place de {count} noms"
        ),
        "unlabelled": "sans classe",
        "(empty)": "(vide)",
        "no split": "sans jeu",
        "{name}: {count}": "{name}\u00a0: {count}",
        "k = {count}: {share}": "k = {count}\u00a0: {share}",
        "target {share}": "visée {share}",
        "{components} keeps {share} of the variance": "{components} garde {share} de la variance",
        "{components} keep {share} of the variance": "{components} gardent {share} de la variance",
        "{sentence}, short of the target of {share}": (
            "{sentence}, en deçà des {share} qui étaient visés"
        ),
        "{component} ({share} of the variance)": "{component} ({share} de la variance)",
        "Cumulative share of the variance": "Part cumulée de la variance",
        "Share of each component": "Part de chaque composante",
        "Principal component": "Composante principale",
        "Principal component (logarithmic scale)": "Composante principale (échelle logarithmique)",
        "Source: {source}": "Source\u00a0: {source}",
    },
)

_spoken: ContextVar[Language] = ContextVar("spoken", default=ENGLISH)


@contextlib.contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Figures that are drawn meanwhile, in this thread, are in a language."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def say(english: str, **values: str) -> str:
    """A phrase of the language that is spoken."""
    return _spoken.get().say(english, **values)


def whole(value: int) -> str:
    """A whole number, in the language that is spoken."""
    return _spoken.get().number(value)


def percent(share: float) -> str:
    """A share as a percentage of at most three digits, in the language that is spoken."""
    language = _spoken.get()
    return f"{100 * share:.3g}".replace(".", language.decimal) + language.percent
