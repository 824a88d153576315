"""Names of the deliverables' files."""

import re
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from fruits_assets.assets.authorship import Authorship


@pytest.mark.parametrize(
    ("last_name", "first_name", "expected"),
    [
        ("Nom", "Prénom", "Nom_Prenom_3_presentation_112026.pptx"),
        ("Mureșan", "Ana María", "Muresan_Ana-Maria_3_presentation_112026.pptx"),
        ("../etc/passwd", "a\\b", "etc-passwd_a-b_3_presentation_112026.pptx"),
        ("", "王", "Nom_Prenom_3_presentation_112026.pptx"),
    ],
)
def test_files_are_named_as_the_brief_asks(last_name, first_name, expected):
    authorship = Authorship(last_name=last_name, first_name=first_name, month="2026-11")
    assert authorship.file_name("3_presentation", "pptx") == expected


def test_the_month_is_the_current_one_by_default():
    before = datetime.now(UTC).strftime("%Y-%m")
    found = f"{Authorship().date:%Y-%m}"
    assert found in {before, datetime.now(UTC).strftime("%Y-%m")}
    assert re.search(
        r"_(0[1-9]|1[0-2])20\d\d\.ipynb$", Authorship().file_name("1_notebook", "ipynb")
    )


def test_what_a_log_keeps_names_nobody():
    authorship = Authorship(last_name="Quince", first_name="Anna", place="Rouen", month="2026-11")
    kept = f"{authorship.params} {authorship.digest('1_notebook')}"
    assert not re.search("quince|anna|rouen", kept, re.IGNORECASE)


@pytest.mark.parametrize("field", ["last_name", "first_name", "place", "month"])
def test_another_authorship_is_another_version(field):
    changed = Authorship(**{"month": "2026-11", field: "2026-12" if field == "month" else "Other"})
    before = Authorship(month="2026-11")
    assert changed.params != before.params
    assert (changed.digest("1_notebook") == before.digest("1_notebook")) == (field == "place")


def test_an_impossible_month_is_refused():
    with pytest.raises(ValidationError, match="2026-13"):
        Authorship(month="2026-13")
