"""Text of strangers (labels, paths, names) in what people open: it stays text.

Everything that is handed over or shown is written through one of these: a cell of a spreadsheet, a
line that is read, a cell of a Markdown table. Jinja and `html.escape` do the same for HTML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

FORMULA = r"""^(?:[\t\r\n]|[\pZ\pC\pM\p{Pi}\p{Pf}\p{Ps}\p{Sk}"']*[=+\-@\x{2212}])"""
"""How a cell begins that a spreadsheet may calculate (OWASP, "CSV Injection").

Signs of full and half width, small and raised ones are compared as the plain ones that they stand
for (NFKC). What stands before them may be dropped when the cell is read: spaces, characters that
cannot be seen, quotes; and braces begin an array formula.
"""
HIDDEN = (
    "\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f"
)
"""Control characters, those that turn the direction of what follows them, and those without width.

A class of a regular expression; `HIDDEN` of gallery/photos.js is the same. Joiners are not in it:
many scripts need them.
"""
_HIDDEN = re.compile(f"[{HIDDEN}]")
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+\-.!|~:^$]")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def cells(column: pa.Array) -> pa.Array:
    """Strings for a table that is opened with a spreadsheet.

    Those that it might take for a formula get an apostrophe before them, all others are unchanged.
    """
    plain = pc.utf8_normalize(column, form="NFKC")  # type: ignore[attr-defined]
    quoted = pc.binary_join_element_wise("'", column, "")  # type: ignore[attr-defined]
    return pc.if_else(pc.match_substring_regex(plain, FORMULA), quoted, column)  # type: ignore[attr-defined]


def cell(text: str) -> str:
    """One string, as `cells` would have it."""
    return cells(pa.array([text], pa.string()))[0].as_py()


def visible(text: str) -> str:
    """One line, with what cannot be seen but changes what is as U+FFFD."""
    return _HIDDEN.sub("\ufffd", text)


def visible_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(visible, text.split("\n")))


def markdown(text: str) -> str:
    """One line that Markdown shows as it is: no markup, no HTML, no link, no end of a cell."""
    return _MARKUP.sub(r"\\\g<0>", visible(text)).translate(_ENTITIES)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown. Columns that hold only numbers are set to the right."""
    numbers = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(heads))
    ]
    shown = [
        heads,
        ["---:" if number else "---" for number in numbers],
        *([_shown(it) for it in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else markdown(str(value))
