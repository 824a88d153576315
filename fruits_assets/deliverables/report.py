"""The report on a source as people read it: Markdown for the UI, lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fruits_assets.deliverables.escaping import markdown_table, visible
from fruits_assets.sources.survey import ACCEPTED, Cell, Section, Surveyed, extension, report
from fruits_assets.storage.snapshot import Snapshot
from fruits_assets.transforms.increment import evenly

REPORTED = 20_000
"""Files of a report, at most: of more, an even sample."""
REPORTED_PARTS = 64
"""Parts of each table that a sample is taken from, at most."""


def of_lake(raw: Snapshot) -> list[Section]:
    """The report on what the last run found, from its tables. Raises DatasetError."""
    rejected = raw.siblings["rejected_images"]
    total = raw.rows + rejected.rows
    share = min(1.0, REPORTED / max(1, total))
    columns = ["path", "bytes", "split", "label", "format", "sha256"]
    files = [
        Surveyed(path, size, split, label, kind, ACCEPTED, digest)
        for path, size, split, label, kind, digest in _rows(raw, columns, share)
    ]
    files += [
        Surveyed(path, size, None, None, extension(path), reason)
        for path, size, reason in _rows(rejected, ["path", "bytes", "reason"], share)
    ]
    found = report(files, raw.figures.get("passed_over", {}))
    if share == 1:
        return found
    return [Section("An even sample", ("files", "of"), [(len(files), total)]), *found]


def _rows(snapshot: Snapshot, columns: Sequence[str], share: float) -> Iterator[tuple[Any, ...]]:
    """A share of the rows, evenly from all parts, or from some of them where there are many."""
    files = snapshot.files
    if share < 1:
        files = [files[i] for i in evenly(len(files), REPORTED_PARTS)]
        share = min(1.0, share * snapshot.rows / max(1, sum(file.rows for file in files)))
    for file, table in snapshot.only(files).pieces(columns):
        chosen = pa.array(evenly(file.rows, round(share * file.rows)), pa.int64())
        some = table.take(chosen)
        yield from zip(*(some[name].to_pylist() for name in columns), strict=True)


def as_markdown(sections: Sequence[Section]) -> str:
    """Tables under headings. Names are strangers': they are shown as they are, and do nothing."""
    parts = (f"### {it.title}\n\n{markdown_table(it.head, it.rows)}" for it in sections)
    return "\n\n".join(parts)


def as_lines(sections: Sequence[Section]) -> Iterator[str]:
    """Lines for a terminal, in columns. Names are strangers', and a terminal obeys some letters."""
    for section in sections:
        yield ""
        yield section.title
        shown = [section.head, *([_text(cell) for cell in row] for row in section.rows)]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        numbers = [isinstance(cell, int | float) for cell in section.rows[0]]
        for line in shown:
            cells = (
                cell.rjust(width) if number else cell.ljust(width)
                for cell, width, number in zip(line, widths, numbers, strict=True)
            )
            yield f"  {'  '.join(cells)}".rstrip()


def _text(cell: Cell) -> str:
    if isinstance(cell, str):
        return visible(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3g}"
