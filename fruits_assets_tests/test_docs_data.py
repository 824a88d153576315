"""The tables of docs/data.md are those of the code: names, columns, types, files and figures."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest
from deltalake import Schema

from fruits_assets import transforms
from fruits_assets.definitions import ASSETS
from fruits_assets.storage.parquet import FILES_SCHEMA
from fruits_assets.transforms.pca import DRIFT, measure_drift
from fruits_assets.transforms.transform import Transform
from fruits_assets_tests.conftest import REPOSITORY, Pipeline

PAGE = REPOSITORY / "docs" / "data.md"
PLAIN_FOLDER = "deliverables"
"""The one asset that is not a table."""
BY_HAND = ("model_weights", "notebook", "presentation")
"""Tables of files that the Dagster host makes, without a transform."""
FILES, FIGURES = "Tables of files", "Tables of figures"
COLUMNS = ["column", "type", "unit", "meaning"]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _rows(section: str, head: Sequence[str]) -> list[list[str]]:
    """The rows of the table of a section that begins with a line, without backticks."""
    lines = section.replace("`", "").splitlines()
    start = next(number for number, line in enumerate(lines) if _cells(line) == list(head))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(_cells(line))
    return rows


def _sections() -> Mapping[str, str]:
    """Heading below *Tables*, without backticks -> what stands below it."""
    text = PAGE.read_text().partition("\n## Tables\n")[2]
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {"": parts[0], **{heading.strip("`"): section for heading, section in found.items()}}


SECTIONS = _sections()


def _section(table: str) -> str:
    """What describes the columns of a table."""
    if table in SECTIONS:
        return SECTIONS[table]
    (found,) = [it for name, it in SECTIONS.items() if name and f"`{table}`" in _named(it)]
    return found


def _named(section: str) -> str:
    """The line before the first table of a section: the tables that it describes."""
    return section.partition("|")[0]


def _written() -> dict[str, pa.Schema]:
    """Every table that the pipeline writes, with its schema."""
    found: dict[str, pa.Schema] = dict.fromkeys(BY_HAND, FILES_SCHEMA)
    for module in pkgutil.iter_modules(transforms.__path__):
        if module.name != "__main__":
            there = vars(importlib.import_module(f"{transforms.__name__}.{module.name}"))
            for value in there.values():
                if isinstance(value, Transform):
                    found |= value.outputs
    return found


WRITTEN = _written()


def _types(schema: pa.Schema) -> list[tuple[str, str]]:
    """Name and type of each column, as the page says it."""
    found = []
    for field in Schema.from_arrow(schema).fields:
        kind = field.type
        element = getattr(kind, "element_type", None)
        name = f"array<{element.type}>" if element else str(getattr(kind, "type", kind))
        found.append((field.name, f"{name} or null" if field.nullable else name))
    return found


def test_every_table_is_in_the_index() -> None:
    rows = _rows(SECTIONS[""], ["table", "a row is", "what it is for"])
    names = [name for row in rows for name in re.findall(r"\w+", re.sub(r"\(.*?\)", "", row[0]))]
    assert sorted(names) == sorted(WRITTEN)
    assets = {key.to_user_string() for asset in ASSETS for key in asset.keys}
    assert assets <= {*names, PLAIN_FOLDER}


@pytest.mark.parametrize("table", sorted(WRITTEN))
def test_columns_are_those_of_the_schema(table: str) -> None:
    rows = _rows(_section(table), COLUMNS)
    assert [(name, kind) for name, kind, *_ in rows] == _types(WRITTEN[table])
    assert all(meaning for *_, meaning in rows)


def test_a_finished_lake_holds_the_tables_of_the_page(finished: tuple[Pipeline, Any]) -> None:
    lake = finished[0].lake
    files = _by_table(_rows(SECTIONS[FILES], ["table", "file", "what is in it"]))
    figures = _by_table(_rows(SECTIONS[FIGURES], ["table", "name", "unit", "meaning"]))
    names = lake.tables()
    assert {"raw_images", "pca_features", "recognition", "_inspection"} <= {*names}
    for name in names:
        snapshot = lake.current(name)
        assert _types(snapshot.schema) == _types(WRITTEN[name]), name
        if name in files:
            assert sorted(files[name]) == sorted(snapshot.names())
        if name in figures:
            assert figures[name] == snapshot.arrow(["name"])["name"].to_pylist()
    code = inspect.getsource(measure_drift.function)
    assert figures[DRIFT] == re.findall(r'^        "(\w+)": ', code, re.MULTILINE)


def _by_table(rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Table -> second cells of its rows; a row without a table belongs to the one before."""
    found: dict[str, list[str]] = {}
    table = ""
    for first, second, *_ in rows:
        table = first or table
        found.setdefault(table, []).append(second)
    return found
