"""The page docs/testing.md is true: its tests exist, in the tier that it says, for every page.

Names and marks of tests are read from their files with `ast`; nothing is collected or run. A mark
on a parameter, such as a second S3 server, does not count: the fast tier runs the test without it.
"""

import ast
import os.path
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from fruits_assets_tests.conftest import REPOSITORY
from fruits_assets_tests.pages import links

TESTS = REPOSITORY / "fruits_assets_tests"
PAGE = REPOSITORY / "docs" / "testing.md"
WITHOUT_PROMISES = {
    "CHANGELOG.md": "repeats what the other pages promise",
    "CONTRIBUTING.md": "rules for whoever changes the project, not promises to its users",
    "THIRD_PARTY_NOTICES.md": "licences, which test_docs.py compares with those of the packages",
    "docs/choices.md": "reasons; its figures are those of performance.md and library.md",
    "docs/testing.md": "the page with the tables",
}
"""Page without a table -> why it needs none."""
NO_PROMISE: Mapping[str, str] = {}
"""Tests that are marked `slow` but prove no promise -> why they exist."""
SECTION = "\n## Promises\n"
HEADING = re.compile(r"### \[[^\]]+\]\(([^)]+\.md)\)")
HEAD = ("| promise | proved by | tier |", "|---|---|---|")
ROW = re.compile(r"\| ([^|]+) \| (`[^`|]+`(?:, `[^`|]+`)?) \| (fast|slow) \|")
FAST, SLOW = "fast", "slow"

Marked = Mapping[str, str | None]
"""Test -> what carries its mark `slow`: its file, its class or itself; None if nothing does."""


@dataclass(frozen=True)
class Row:
    """A promise and its proof.

    Attributes:
        promise: one sentence.
        tests: one or two names, relative to the folder of the tests.
        tier: the one that the page says.
    """

    promise: str
    tests: Sequence[str]
    tier: str

    @classmethod
    def of(cls, line: str) -> "Row":
        """Reads a line of a table. Raises ValueError if it is not such a row."""
        found = ROW.fullmatch(line)
        if not found:
            raise ValueError(f"not a row of a promise, one or two tests and a tier: {line}")
        return cls(found[1], re.findall(r"`([^`]+)`", found[2]), found[3])


Tables = Mapping[str, Sequence[Row]]
"""Page, relative to the repository -> the rows of its table."""


def read_tables(text: str) -> Tables:
    """The tables of a text that lies in `docs`. Raises ValueError for a line out of place."""
    found: dict[str, list[Row]] = {}
    rows: list[Row] | None = None
    for line in text.partition(SECTION)[2].splitlines():
        if line.startswith("#"):
            heading = HEADING.fullmatch(line)
            page = os.path.normpath(f"docs/{heading[1]}") if heading else ""
            if not heading or page in found:
                raise ValueError(f"not the heading of one page, linked: {line}")
            rows = found[page] = []
        elif line.startswith("|") and line not in HEAD:
            if rows is None:
                raise ValueError(f"a row below no page: {line}")
            rows.append(Row.of(line))
    return found


def declared(source: str, file: str) -> Marked:
    """All tests of a file, by their names in the tables.

    Args:
        source: of the file.
        file: its path, relative to the folder of the tests.
    """
    tree = ast.parse(source)
    marks = [mark for node in tree.body if isinstance(node, ast.Assign) for mark in _marks(node)]
    return _tests(tree.body, file, file if _is_slow(marks) else None)


def _marks(assigned: ast.Assign) -> Sequence[ast.expr]:
    """The marks of a whole file, if this statement assigns them."""
    if [ast.unparse(target) for target in assigned.targets] != ["pytestmark"]:
        return []
    value = assigned.value
    return value.elts if isinstance(value, ast.List | ast.Tuple) else [value]


def _tests(body: Sequence[ast.stmt], place: str, marked: str | None) -> Marked:
    found: dict[str, str | None] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{place}::{node.name}"
            own = marked or (name if _is_slow(node.decorator_list) else None)
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                found |= _tests(node.body, name, own)
            elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[name] = own
    return found


def _is_slow(marks: Iterable[ast.expr]) -> bool:
    return "pytest.mark.slow" in map(ast.unparse, marks)


def _rows(tables: Tables) -> Iterator[Row]:
    for rows in tables.values():
        yield from rows


def missing_tests(tables: Tables, tests: Marked) -> list[str]:
    """Names in the tables that no test has."""
    return [name for row in _rows(tables) for name in row.tests if name not in tests]


def wrong_tiers(tables: Tables, tests: Marked) -> list[str]:
    """Rows that name a test of another tier than they say."""
    return [
        f"{row.promise} {name} is not {row.tier}"
        for row in _rows(tables)
        for name in row.tests
        if name in tests and (SLOW if tests[name] else FAST) != row.tier
    ]


def repeated(tables: Tables) -> list[str]:
    """Promises that are listed twice, whatever their case and punctuation."""
    count = Counter(" ".join(re.findall(r"\w+", row.promise.lower())) for row in _rows(tables))
    return [promise for promise, times in count.items() if times > 1]


def without_a_promise(tables: Tables, tests: Marked) -> list[str]:
    """Files, classes and tests that are marked `slow`, and of which no row names a test."""
    named = {tests.get(name) for row in _rows(tables) for name in row.tests}
    return sorted({marked for marked in tests.values() if marked} - named)


def wrong_pages(tables: Tables, linked: Iterable[str]) -> tuple[list[str], list[str]]:
    """Pages that lack a table, and tables of pages that need none or that nobody links."""
    expected = {*linked} - WITHOUT_PROMISES.keys()
    found = {page for page, rows in tables.items() if rows}
    return sorted(expected - found), sorted(tables.keys() - expected)


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Those of the page."""
    return read_tables(PAGE.read_text())


@pytest.fixture(scope="module")
def tests() -> Marked:
    """All tests of the project."""
    found: dict[str, str | None] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        found |= declared(file.read_text(), file.relative_to(TESTS).as_posix())
    return found


def test_every_test_that_the_page_names_exists(tables: Tables, tests: Marked) -> None:
    assert missing_tests(tables, tests) == []


def test_every_tier_is_the_one_that_the_page_says(tables: Tables, tests: Marked) -> None:
    assert wrong_tiers(tables, tests) == []


def test_no_promise_is_listed_twice(tables: Tables) -> None:
    assert repeated(tables) == []


def test_whatever_is_slow_proves_a_promise(tables: Tables, tests: Marked) -> None:
    told = "give each a row in docs/testing.md, or make it fast"
    assert without_a_promise(tables, tests) == sorted(NO_PROMISE), told


def test_every_page_has_a_table(tables: Tables) -> None:
    readme = REPOSITORY / "README.md"
    linked = {it.partition("#")[0] for it in links(readme) if not it.startswith("http")}
    pages = {readme.name, *(it for it in linked if it.endswith(".md"))}
    assert WITHOUT_PROMISES.keys() <= pages
    assert wrong_pages(tables, pages) == ([], [])


# What is wrong is reported: made-up pages and tests


QUICK = """
import pytest

def helper(): ...

def test_quick(): ...

@pytest.mark.parametrize("one", [1])
@pytest.mark.slow
def test_patient(one): ...

class TestGroup:
    def test_quick(self): ...

    @pytest.mark.slow
    def test_patient(self): ...

    def helper(self): ...

@pytest.mark.slow
class TestPatient:
    def test_one(self): ...

    def test_two(self): ...
"""
PATIENT = """
import pytest

pytestmark = {marks}

def test_one(): ...

def test_two(): ...
"""
EXISTING = {
    **declared(QUICK, "a/test_quick.py"),
    **declared(PATIENT.format(marks="pytest.mark.slow"), "test_patient.py"),
}


def made_up(*rows: str, page: str = "../README.md") -> Tables:
    """A page with one table."""
    return read_tables("\n".join(["# A page", SECTION, f"### [it]({page})", "", *HEAD, *rows]))


def row(promise: str, *names: str, tier: str = FAST) -> str:
    """A line of a table."""
    return f"| {promise} | {', '.join(f'`{name}`' for name in names)} | {tier} |"


def test_marks_are_found_on_tests_classes_and_files() -> None:
    assert EXISTING == {
        "a/test_quick.py::test_quick": None,
        "a/test_quick.py::test_patient": "a/test_quick.py::test_patient",
        "a/test_quick.py::TestGroup::test_quick": None,
        "a/test_quick.py::TestGroup::test_patient": "a/test_quick.py::TestGroup::test_patient",
        "a/test_quick.py::TestPatient::test_one": "a/test_quick.py::TestPatient",
        "a/test_quick.py::TestPatient::test_two": "a/test_quick.py::TestPatient",
        "test_patient.py::test_one": "test_patient.py",
        "test_patient.py::test_two": "test_patient.py",
    }


@pytest.mark.parametrize(
    ("marks", "slow"),
    [
        ("[pytest.mark.usefixtures('a'), pytest.mark.slow]", True),
        ("(pytest.mark.slow,)", True),
        ("pytest.mark.skipif(True, reason='pytest.mark.slow')", False),
        ("[pytest.mark.usefixtures('slow')]", False),
    ],
)
def test_files_may_have_several_marks(marks: str, *, slow: bool) -> None:
    found = declared(PATIENT.format(marks=marks), "test_it.py")
    assert set(found.values()) == {"test_it.py" if slow else None}


def test_a_row_is_read_as_it_is_written() -> None:
    line = row("Photos `a` stay.", "a/test_b.py::test_c", "test_d.py::TestE::test_f", tier=SLOW)
    found = made_up(line, page="emr.md")
    tests = ["a/test_b.py::test_c", "test_d.py::TestE::test_f"]
    assert found == {"docs/emr.md": [Row("Photos `a` stay.", tests, SLOW)]}


@pytest.mark.parametrize(
    "line",
    [
        "| Photos stay. | `test_a.py::test_b` | medium |",
        "| Photos stay. | `test_a.py::test_b` |",
        "| Photos stay. | test_a.py::test_b | fast |",
        "| Photos stay. |  | fast |",
        row("Photos stay.", "test_a.py::test_b", "test_a.py::test_c", "test_a.py::test_d"),
        "### README",
        "### [another](../README.md)",
    ],
)
def test_a_line_that_is_no_row_is_reported(line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        made_up(line)


def test_a_missing_test_is_reported() -> None:
    names = ("a/test_quick.py::test_quick", "a/test_quick.py::helper", "test_gone.py::test_quick")
    found = made_up(row("One.", *names[:2]), row("Two.", names[2]))
    assert missing_tests(found, EXISTING) == [*names[1:]]


@pytest.mark.parametrize(
    ("names", "tier", "wrong"),
    [
        (["a/test_quick.py::test_quick"], FAST, []),
        (["a/test_quick.py::test_quick"], SLOW, ["a/test_quick.py::test_quick"]),
        (["a/test_quick.py::test_patient", "test_patient.py::test_one"], SLOW, []),
        (
            ["a/test_quick.py::test_quick", "a/test_quick.py::TestGroup::test_patient"],
            FAST,
            ["a/test_quick.py::TestGroup::test_patient"],
        ),
        (
            ["a/test_quick.py::TestPatient::test_one", "a/test_quick.py::TestGroup::test_quick"],
            SLOW,
            ["a/test_quick.py::TestGroup::test_quick"],
        ),
        (["test_patient.py::test_two"], FAST, ["test_patient.py::test_two"]),
    ],
)
def test_a_wrong_tier_is_reported(names: list[str], tier: str, wrong: list[str]) -> None:
    found = wrong_tiers(made_up(row("It stays.", *names, tier=tier)), EXISTING)
    assert found == [f"It stays. {name} is not {tier}" for name in wrong]


def test_a_promise_that_is_there_twice_is_reported() -> None:
    rows = [row(it, "test_patient.py::test_one") for it in ("One stays.", "`one` stays", "Two.")]
    assert repeated(made_up(*rows)) == ["one stays"]


def test_a_slow_test_without_a_promise_is_reported() -> None:
    every = [
        "a/test_quick.py::TestGroup::test_patient",
        "a/test_quick.py::TestPatient",
        "a/test_quick.py::test_patient",
        "test_patient.py",
    ]
    assert without_a_promise(made_up(row("A.", "a/test_quick.py::test_quick")), EXISTING) == every
    named = ("a/test_quick.py::TestPatient::test_two", "test_patient.py::test_one")
    left = without_a_promise(made_up(row("A.", *named, tier=SLOW)), EXISTING)
    assert left == [every[0], every[2]]


def test_a_missing_page_and_one_too_many_are_reported() -> None:
    found = {**made_up(row("A.", "test_a.py::test_b")), **made_up(page="emr.md")}
    linked = ["README.md", "CHANGELOG.md"]
    assert wrong_pages(found, linked) == ([], ["docs/emr.md"])
    assert wrong_pages(found, [*linked, "docs/s3.md"]) == (["docs/s3.md"], ["docs/emr.md"])
    assert wrong_pages(found, [*linked, "docs/emr.md"]) == (["docs/emr.md"], []), "it is empty"
    changes = made_up(page="../CHANGELOG.md")
    assert wrong_pages(changes, linked) == (["README.md"], ["CHANGELOG.md"])
