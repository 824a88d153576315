"""Strangers' text stays text: in spreadsheets, on a line, in Markdown."""

import csv
import html
import io
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fruits_assets.deliverables.escaping import (
    HIDDEN,
    cell,
    cells,
    markdown_table,
    visible,
    visible_lines,
)
from fruits_assets.deliverables.gather import write_csv
from fruits_assets.deliverables.page import FOLDER
from fruits_assets.storage.parquet import vectors_array

SIGNS = [
    *"=+-@",
    *("\N{FULLWIDTH EQUALS SIGN}", "\N{FULLWIDTH PLUS SIGN}", "\N{FULLWIDTH HYPHEN-MINUS}"),
    *("\N{FULLWIDTH COMMERCIAL AT}", "\N{SMALL EQUALS SIGN}", "\N{SMALL PLUS SIGN}"),
    *("\N{SMALL HYPHEN-MINUS}", "\N{SMALL COMMERCIAL AT}", "\N{SUPERSCRIPT EQUALS SIGN}"),
    *("\N{SUBSCRIPT PLUS SIGN}", "\N{MINUS SIGN}"),
]
BEFORE = ["", " ", "   ", "\xa0", "\u3000", "\u200b", "\ufeff", "\x00", "\x0b", "\u202e"]
QUOTES = ["", '"', "'", '""', "“", "«", "` ", "'' "]
FORMULAS = [
    *(before + quote + sign + "1+1" for before in BEFORE for quote in QUOTES for sign in SIGNS),
    *("\t1", "\r1", "\n1", "\t", "\n=1", "{=1+1}", "(=1", "=cmd|' /C calc'!A0", "=", "-"),
]
TEXTS = [
    "a=1",
    "",
    "Apple-Red",
    "a +b",
    "1.5",
    "Training/Banana/1.jpg",
    "#REF!",
    "é",
    "a\n=1",
    None,
]


EVERY = [*map(chr, range(0x10000)), *map(chr, range(0xE0000, 0xE1000))]
"""Characters: the basic plane, and the tags."""


def test_what_a_spreadsheet_would_calculate_is_text() -> None:
    assert cells(pa.array(FORMULAS)).to_pylist() == [f"'{it}" for it in FORMULAS]
    assert [cell(it) for it in FORMULAS[:20]] == [f"'{it}" for it in FORMULAS[:20]]


def test_all_other_text_is_unchanged() -> None:
    assert cells(pa.array(TEXTS)).to_pylist() == TEXTS
    assert cells(pa.array([None], pa.string())).to_pylist() == [None]
    assert len(cells(pa.array([], pa.string()))) == 0


@given(st.text())
def test_no_cell_begins_as_a_formula(text: str) -> None:
    shown = unicodedata.normalize("NFKC", cell(text)).lstrip()
    assert not shown.startswith(("=", "+", "-", "@"))
    assert cell(text).removeprefix("'") == text.removeprefix("'") or cell(text) == f"'{text}"


def test_numbers_of_the_table_stay_numbers() -> None:
    numbers = np.array([[-1.5, 2.0], [-0.0, 1e-30]], np.float32)
    names = pa.array(["=1", "-1"])
    batch = pa.RecordBatch.from_arrays(
        [names, names, vectors_array(numbers)], names=["path", "label", "components"]
    )
    sink = io.BytesIO()
    write_csv(sink, [batch], components=2)
    head, *rows = csv.reader(io.StringIO(sink.getvalue().decode(), newline=""))
    assert head == ["path", "label", "pc_1", "pc_2"]
    assert [row[:2] for row in rows] == [["'=1", "'=1"], ["'-1", "'-1"]]
    np.testing.assert_array_equal(np.array([row[2:] for row in rows], np.float32), numbers)


@pytest.mark.parametrize(
    "character", ["\u202e", "\u061c", "\u2066", "\u200b", "\x1b", "\U000e0041"]
)
def test_what_cannot_be_seen_is_replaced(character: str) -> None:
    assert visible(f"gpj.{character}exe\n") == "gpj.\ufffdexe\ufffd"
    assert visible_lines(f"a{character}\nb") == "a\ufffd\nb"


def test_scripts_that_need_joiners_keep_them() -> None:
    for text in (
        "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}",
        "\u0645\u06cc\u200c\u062e\u0648",
        "pêche",
        "日本",
    ):
        assert visible(text) == text


def test_every_character_that_turns_the_direction_is_hidden() -> None:
    hidden = re.compile(f"[{HIDDEN}]")
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    found = [it for it in EVERY if unicodedata.bidirectional(it) in turning]
    assert len(found) == len(turning)
    assert all(map(hidden.fullmatch, [*found, "\u200e", "\u200f", "\u061c"]))


def test_the_page_hides_the_same_characters() -> None:
    (theirs,) = re.findall(r"const HIDDEN =\s+/\[(.+)\]/gu;", (FOLDER / "photos.js").read_text())
    theirs = re.sub(r"\\u\{?([0-9a-f]+)\}?", lambda it: chr(int(it[1], 16)), theirs)
    same = re.compile(f"[{HIDDEN}]"), re.compile(f"[{theirs}]")
    for character in EVERY:
        assert bool(same[0].match(character)) == bool(same[1].match(character)), hex(ord(character))


HOSTILE = [
    "<script>alert(1)</script>",
    "[a](javascript:alert(1))",
    "![a](https://example.org/pixel.png)",
    "a | b",
    "a\n\n# b",
    "`a` **b** ~~c~~ _d_",
    "https://example.org www.example.org me@example.org",
    "&lt;img src=x onerror=alert(1)&gt;",
    "\\| \\<b>",
    "$x$ {a} ^b^ <!-- c -->",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_it_as_it_is(text: str) -> None:
    render = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
    shown = render(markdown_table(["file", "bytes"], [[text, 1], ["b", 2]]))
    assert shown.count("<tr>") == 3
    assert shown.count("<td") == 4
    tags = set(re.findall(r"</?([a-z0-9]+)", shown))
    assert tags == {"table", "thead", "tbody", "tr", "th", "td"}
    (cell_of_text,) = re.findall(r"<td[^>]*>(.*)</td>\s*<td[^>]*>1</td>", shown)
    assert html.unescape(cell_of_text) == visible(text)


def test_columns_of_numbers_are_aligned() -> None:
    table = markdown_table(["", "slide", "minutes"], [[1, "a", 1.5], [1000, "b", 2.0]])
    assert table.splitlines() == [
        "|  | slide | minutes |",
        "| ---: | --- | ---: |",
        "| 1 | a | 1.5 |",
        "| 1,000 | b | 2 |",
    ]
