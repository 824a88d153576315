"""Who presents the results, where and when: said once, for all deliverables."""

import hashlib
import json
import re
import unicodedata
from datetime import UTC, date, datetime
from typing import Literal

import dagster as dg
from pydantic import Field, field_validator

Deliverable = Literal["1_notebook", "2_images", "3_presentation"]
"""The deliverables that the brief asks for, as file names have them."""


class Authorship(dg.ConfigurableResource):
    """The author on the deliverables and in the names of their files."""

    last_name: str = Field(
        default="Nom", description="Last name of the author; files are named after it."
    )
    first_name: str = Field(
        default="Prénom", description="First name of the author; files are named after it."
    )
    place: str = Field(default="", description="Place of the presentation; left out where empty.")
    month: str = Field(
        default="",
        description="Month of the presentation, as YYYY-MM; the current month where empty.",
    )

    @field_validator("month")
    @classmethod
    def _is_a_month(cls, month: str) -> str:
        if month:
            datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        return month

    @property
    def date(self) -> date:
        """First day of the month of the presentation."""
        if not self.month:
            return datetime.now(UTC).date().replace(day=1)
        return datetime.strptime(self.month, "%Y-%m").replace(tzinfo=UTC).date()

    @property
    def author(self) -> str:
        """First and last name."""
        return f"{self.first_name} {self.last_name}".strip()

    @property
    def params(self) -> dict[str, str]:
        """Parameters of a version that was made for this author, without any name.

        Parameters of a recipe stay in the log of its table, which is never cleaned.
        """
        said = [self.last_name, self.first_name, self.place, f"{self.date:%Y-%m}"]
        return {"authorship": _digest(said)}

    def digest(self, deliverable: Deliverable) -> str:
        """Changes with the name of a deliverable's files: 16 hexadecimal digits."""
        return _digest([self.file_name(deliverable, "")])

    def file_name(self, deliverable: Deliverable, extension: str) -> str:
        """`Nom_Prenom_3_presentation_112026.pptx`: ASCII letters, digits and hyphens only."""
        names = (_plain(self.last_name) or "Nom", _plain(self.first_name) or "Prenom")
        return f"{'_'.join(names)}_{deliverable}_{self.date:%m%Y}.{extension}"


def _digest(said: list[str]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _plain(name: str) -> str:
    """A name without accents, spaces and whatever a file name should not hold."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub("[^A-Za-z0-9]+", "-", letters).strip("-")
