"""How the notebook shows things: French numbers, escaped text, pictures, errors as sentences."""

from __future__ import annotations

import ast
import contextlib
import html
import inspect
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruits_assets.core.errors import FruitsError
from fruits_assets.deliverables.language import FRENCH

if TYPE_CHECKING:
    from types import TracebackType

    from IPython.core.interactiveshell import InteractiveShell

PICTURE_WIDTH = 800
"""Pixels: pictures have twice as many, for dense screens."""
_NUMBER = re.compile(rf"[\d{FRENCH.thousands}]+(,\d+)?|-")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 0) -> str:
    """`1 234,5`."""
    return FRENCH.number(value, digits)


def percent(share: float, digits: int = 1) -> str:
    """A share in 0..1 as `95,1 %`."""
    return number(100 * share, digits) + FRENCH.percent


def power_of_ten(value: float) -> str:
    """`3,8·10⁻⁷`, and `0` where it is exactly that."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.replace('.', ',')}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


class Page:
    """A piece of HTML that a cell ends with, and its plain text where there is no HTML."""

    def __init__(self, markup: str, text: str) -> None:
        self._markup = markup
        self._text = text

    def _repr_html_(self) -> str:
        return self._markup

    def __repr__(self) -> str:
        return self._text


def sentence(text: str) -> Page:
    """A result, in words."""
    return Page(f'<p class="result">{html.escape(text)}</p>', text)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Page:
    """A table: columns of numbers are set in the French way, text as it is, whatever it holds."""
    told = [[number(it) if isinstance(it, int) else str(it) for it in row] for row in rows]
    right = [all(_NUMBER.fullmatch(line[i]) for line in told) for i in range(len(columns))]
    lines = [("th", list(columns)), *(("td", line) for line in told)]
    marked = [
        "".join(_cell(tag, text, right=aside) for text, aside in zip(line, right, strict=True))
        for tag, line in lines
    ]
    head, *body = (f"<tr>{cells}</tr>" for cells in marked)
    markup = f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
    return Page(markup, "\n".join(" | ".join(line) for _, line in lines))


def _cell(tag: str, text: str, *, right: bool) -> str:
    style = ' style="text-align: right"' if right else ""
    return f"<{tag}{style}>{html.escape(text)}</{tag}>"


def facts(values: Mapping[str, object]) -> Page:
    """A table of names and values."""
    rows = [(name, number(it) if isinstance(it, int) else str(it)) for name, it in values.items()]
    cells = "".join(
        f"<tr>{_cell('th', name, right=False)}{_cell('td', value, right=False)}</tr>"
        for name, value in rows
    )
    text = "\n".join(f"{name}: {value}" for name, value in rows)
    return Page(f'<table class="facts"><tbody>{cells}</tbody></table>', text)


def picture(png: bytes, description: str) -> Any:
    """A figure, with the words for those who do not see it."""
    from IPython.display import Image  # noqa: PLC0415 - a notebook has it, other readers need not

    return Image(png, format="png", width=PICTURE_WIDTH, alt=description)


def source_code(thing: Any) -> Page:
    """The very code that runs, without its docstrings: nothing in the notebook repeats it."""
    from pygments import highlight  # noqa: PLC0415 - as above
    from pygments.formatters import HtmlFormatter  # noqa: PLC0415
    from pygments.lexers import PythonLexer  # noqa: PLC0415

    code = _without_docstrings(textwrap.dedent(inspect.getsource(thing)))
    return Page(highlight(code, PythonLexer(), HtmlFormatter()), code)


def _without_docstrings(code: str) -> str:
    lines = code.splitlines(keepends=True)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            docstring = node.body[0]
            for line in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
                lines[line] = ""
    return "".join(lines)


def errors_as_sentences() -> None:
    """An error that is meant for people is shown as its sentence, without a stack of calls."""
    from IPython import get_ipython  # noqa: PLC0415

    def show(
        shell: InteractiveShell,
        kind: type[BaseException],
        error: BaseException,
        _: TracebackType,
        tb_offset: int | None = None,  # noqa: ARG001 - IPython's protocol
    ) -> None:
        shell._showtraceback(kind, error, [f"{kind.__name__}: {error}"])  # noqa: SLF001

    if shell := get_ipython():
        shell.set_custom_exc((FruitsError,), show)


@contextlib.contextmanager
def stderr_into(file: Path) -> Iterator[None]:
    """Sends the stderr of processes that are started meanwhile into a file, as long as they live.

    The JVM and Spark's workers are such: their warnings are no part of a report.
    """
    kept = os.dup(2)
    with file.open("ab") as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
