"""A forecast as plain text, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from fruits_assets.spark.costs import LABELS
from fruits_assets.spark.forecast import Offer, Question, advise, offers

INDENT = " " * 13
"""Indent of the text below the lines of a size."""
WIDTH = 100


def lines(asked: Sequence[Question], *, items: bool) -> Iterator[str]:
    """One line for each place and size, the advice for each size, and on demand all items.

    Args:
        asked: one question for each size; they differ in their work alone.
        items: whether to show what each price is made of.
    """
    one = asked[0]
    kilobytes = 1e3 * one.work.megabytes / one.work.images
    yield f"\nFirst run, photos of {kilobytes:g} kB, {one.region}, {one.local_cores} cores here."
    yield f"EUR without tax, expected; prices of {one.prices.date}. run: all photos, from nothing."
    yield "month: while nobody works, photos and lake in S3. once: upload of the photos to S3.\n"
    yield (
        f"{'photos':>11}  {'where':<14} {'hours':>6} {'run':>9} {'at most':>9} "
        f"{'/million':>8} {'month':>8} {'once':>8}  refused by"
    )
    for question in asked:
        found = offers(question)
        yield from (_offered(question.work.images, offer) for offer in found)
        best, reason = advise(found)
        told = f"Take {best.where}: {reason}"
        yield textwrap.fill(told, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)
        yield from _itemised([offer for offer in found if offer.run]) if items else ()


def _offered(images: int, one: Offer) -> str:
    refused = ", ".join(refusal.setting for refusal in one.refusals)
    line = (
        f"{images:>11,}  {one.where:<14} {one.minutes / 60:>6,.1f} {one.run_eur:>9,.2f} "
        f"{one.most_eur:>9,.2f} {one.run_eur * 1e6 / images:>8,.2f} {one.standing_eur:>8,.2f} "
        f"{one.once_eur:>8,.2f}  {refused}"
    )
    return line.rstrip()


def _itemised(found: Sequence[Offer]) -> Iterator[str]:
    yield "\n" + " " * 50 + "".join(f"{one.where:>16}" for one in found)
    for kind, title in (("run", "run"), ("standing", "month"), ("once", "once")):
        for name, label in LABELS.items():
            eur = [getattr(one, kind).get(name, 0.0) for one in found]
            if any(eur):
                cells = "".join(f"{f'{value:,.4f}' if value else '-':>16}" for value in eur)
                yield f"{INDENT}{title:<6}{label:<31}{cells}"
    yield ""
