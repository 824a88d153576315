"""How the notebook shows things: French numbers, escaped text, pictures, errors as sentences."""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruits_assets.core.errors import FruitsError

if TYPE_CHECKING:
    from types import TracebackType

    from IPython.core.interactiveshell import InteractiveShell

NARROW_SPACE = "\u202f"
"""Before a percent sign and between thousands: a line never breaks there."""
PICTURE_WIDTH = 800
"""Pixels: pictures have twice as many, for dense screens."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 0) -> str:
    """`1 234,5`."""
    return f"{value:,.{digits}f}".replace(",", NARROW_SPACE).replace(".", ",")


def percent(share: float, digits: int = 1) -> str:
    """A share in 0..1 as `95,1 %`."""
    return f"{number(100 * share, digits)}{NARROW_SPACE}%"


def power_of_ten(value: float) -> str:
    """`3,8 × 10⁻⁷`, and `0` where it is exactly that."""
    if not value:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.replace('.', ',')} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


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
    """A table: whole numbers are set in the French way, text as it is, whatever it holds."""
    told = [[number(it) if isinstance(it, int) else str(it) for it in row] for row in rows]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_align(it)}>{html.escape(text)}</td>" for it, text in zip(row, line, strict=True)
        )
        + "</tr>"
        for row, line in zip(rows, told, strict=True)
    )
    markup = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return Page(markup, "\n".join(" | ".join(line) for line in [list(columns), *told]))


def _align(value: object) -> str:
    return ' style="text-align: right"' if isinstance(value, int) else ""


def facts(pairs: Mapping[str, object]) -> Page:
    """A table of names and values."""
    return table(["", ""], [[name, value] for name, value in pairs.items()])


def picture(png: bytes, description: str) -> Any:
    """A figure, with the words for those who do not see it."""
    from IPython.display import Image  # noqa: PLC0415 - a notebook has it, other readers need not

    return Image(png, format="png", width=PICTURE_WIDTH, alt=description)


def source_code(thing: Any) -> Any:
    """The very code that runs, coloured: nothing in the notebook repeats it."""
    import inspect  # noqa: PLC0415 - with the next one, only where code is shown

    from IPython.display import Code  # noqa: PLC0415

    return Code(inspect.getsource(thing), language="python")


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
    """What processes started meanwhile say on stderr goes into a file for as long as they live.

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
