"""Figures of the data and of its principal components, as PNG files held in memory.

Plain data in, PNG bytes out: no Dagster, no Spark, no file. Every figure is an opaque card on its
own background, so that it reads the same on a light page, a dark one and a slide, and is smaller
than ``LIMIT`` bytes. Only Matplotlib's object interface is used: nothing global is touched, and
figures may be drawn from several threads at once.

Labels are arbitrary text. They are never parsed as mathematics, control characters and stacked
marks are dropped, a character without a glyph becomes U+FFFD, and what is too long is elided in the
middle.

Lengths are in points (1/72 inch), x to the right and y downwards from the upper left corner of the
card; a point is two pixels of the PNG, or fewer where the file would be too large.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageColor

from fruits_assets.deliverables.language import percent, say, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

LIMIT = 300_000
"""Bytes that every figure stays under."""

MOST_CLASSES = 150
"""Classes that a figure names one by one: the largest ones."""

MOST_PHOTOS = 144
"""Photos in a contact sheet."""

MOST_REJECTED = 20
"""Rows in a sheet of rejected files."""


@dataclass(frozen=True)
class Theme:
    """Colours, marks and sizes that all figures share.

    The series are Okabe and Ito's colours (https://jfly.uni-koeln.de/color/) without black and
    yellow, which is too faint on paper, and with two dark ones of Paul Tol's
    (https://personal.sron.nl/~pault/): told apart with any colour vision, the more so as
    each comes with its own marker.
    """

    paper: str = "#faf9f6"
    tile: str = "#ffffff"
    ink: str = "#22272e"
    muted: str = "#626b78"
    hairline: str = "#e0ddd5"
    rest: str = "#a3a9b2"
    alert: str = "#b34700"
    series: tuple[str, ...] = (
        "#0072b2",
        "#e69f00",
        "#009e73",
        "#cc79a7",
        "#d55e00",
        "#56b4e9",
        "#882255",
        "#332288",
    )
    markers: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X", "p")
    font: str = "DejaVu Sans"
    width: float = 800
    margin: float = 32
    header: float = 80
    footer: float = 40

    @property
    def inner(self) -> float:
        """Width between the margins, in points."""
        return self.width - 2 * self.margin

    def mark(self, index: int) -> tuple[str, str]:
        """Colour and marker of the ``index``-th class: 64 pairs, then again from the first."""
        colours = len(self.series)
        marker = (index + index // colours) % len(self.markers)
        return self.series[index % colours], self.markers[marker]


THEME = Theme()


def class_bar_chart(
    counts: Mapping[str | None, Mapping[str | None, int]],
    *,
    title: str = "Images per class",
    source: str = "raw_images",
) -> bytes:
    """Bars of the number of images of each class, stacked by split, largest class first.

    Args:
        counts: ``counts[label][split]`` images; the label None is drawn as "unlabelled", the
            split None as "no split". With a single split the bars are plain.
        title: Heading of the card.
        source: Asset that the numbers come from, named at the foot of the card.

    Returns:
        A PNG. Beyond ``MOST_CLASSES`` classes, the smaller ones are summed up in a line of text;
        without any class, the card says so.
    """
    if not counts:
        return _calm(title, say("No image yet"), source=source)
    totals = {label: sum(splits.values()) for label, splits in counts.items()}
    ranked = sorted(totals, key=lambda label: (-totals[label], label is None, label or ""))
    shown, rest = ranked[:MOST_CLASSES], ranked[MOST_CLASSES:]
    by_split: Counter[str | None] = Counter()
    for splits in counts.values():
        by_split.update(splits)
    colours = _split_colours(by_split)

    columns = 1 if len(shown) <= 20 else 2 if len(shown) <= 60 else 3
    rows = math.ceil(len(shown) / columns)
    row_height = (20, 16, 14)[columns - 1]
    legend_height = 22 if len(colours) > 1 else 0
    top = THEME.header + legend_height
    rest_height = 24 if rest else 0
    card = _Card(
        title,
        _images_and_classes(totals),
        source=source,
        height=top + rows * row_height + rest_height + THEME.footer,
    )
    if len(colours) > 1:
        _draw_split_legend(card, by_split, colours=colours)
    gap = 28
    width = (THEME.inner - gap * (columns - 1)) / columns
    largest = max(1, *totals.values())
    size = _row_text_size(row_height)
    names = {label: card.fit(_name(label), 0.42 * width, size=size) for label in shown}
    name_width = max(card.text_width(name, size=size) for name in names.values()) + 10
    for index, label in enumerate(shown):
        column, row = divmod(index, rows)
        _draw_class_row(
            card,
            (THEME.margin + column * (width + gap), top + row * row_height, width, row_height),
            name=names[label],
            name_width=name_width,
            parts=[(counts[label].get(split, 0), colour) for split, colour in colours.items()],
            largest=largest,
        )
    if rest:
        images = sum(totals[label] for label in rest)
        card.text(
            (THEME.margin, top + rows * row_height + 14),
            say(
                "and {classes} with {images} in all",
                classes=_plural(len(rest), "smaller class", "smaller classes"),
                images=_plural(images, "image"),
            ),
            size=9,
            colour=THEME.muted,
        )
    return card.png()


def contact_sheet(
    photos: Sequence[tuple[np.ndarray, str | None]],
    *,
    title: str = "A sample of the photos",
    source: str = "raw_images",
) -> bytes:
    """A grid of photos with their captions, in the order given.

    Args:
        photos: Pairs of a uint8 RGB array of shape (height, width, 3), of any size, and a caption
            (None: "unlabelled").
        title: Heading of the card.
        source: Asset that the photos come from, named at the foot of the card.

    Returns:
        A PNG of at most ``MOST_PHOTOS`` photos, which says how many were left out; without any
        photo, the card says so.

    Raises:
        ValueError: If an array is not a uint8 RGB image with at least one pixel.
    """
    if not photos:
        return _calm(title, say("No photo yet"), source=source)
    for index, (photo, _) in enumerate(photos):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise ValueError(
                f"photo {index} has shape {photo.shape} and type {photo.dtype}, "
                "expected (height, width, 3) and uint8"
            )
    shown = photos[:MOST_PHOTOS]
    columns = min(12, max(4, math.ceil(math.sqrt(1.6 * len(shown)))))
    gap, caption_height = (14, 24) if columns <= 6 else (8, 16)
    side = (THEME.inner - gap * (columns - 1)) / columns
    rows = math.ceil(len(shown) / columns)
    everything = _plural(len(photos), "photo")
    card = _Card(
        title,
        everything
        if len(shown) == len(photos)
        else say("The first {count} of {photos}", count=whole(len(shown)), photos=everything),
        source=source,
        height=THEME.header + rows * (side + caption_height) + THEME.footer,
    )
    for index, (photo, caption) in enumerate(shown):
        row, column = divmod(index, columns)
        left = THEME.margin + column * (side + gap)
        top = THEME.header + row * (side + caption_height)
        card.photo((left, top, side), photo)
        size = 9 if columns <= 6 else 6.5
        text = card.fit(_name(caption), side, size=size)
        card.text((left + side / 2, top + side + size), text, size=size, align="center")
    return card.png()


def rejected_sheet(
    rejected: Sequence[tuple[str, str, str]],
    total: int,
    *,
    found: int | None = None,
    title: str = "Rejected files",
    source: str = "rejected_images",
) -> bytes:
    """A table of files that could not be used, and why.

    Args:
        rejected: (path, reason, detail) of rejected files, in the order to show; the first few
            are enough.
        total: Number of files rejected in all, at least ``len(rejected)``.
        found: Number of files found in the source, rejected or not, where known.
        title: Heading of the card.
        source: Asset that the rows come from, named at the foot of the card.

    Returns:
        A PNG of at most ``MOST_REJECTED`` rows, with the number of those not shown; with
        ``total`` 0, the card says that no file was rejected.

    Raises:
        ValueError: If ``total`` is smaller than the number of rows given.
    """
    if total < len(rejected):
        raise ValueError(f"{len(rejected)} rejected files were given, but the total is {total}")
    if not total:
        read = "" if found is None else _plural(found, "file")
        detail = read and say("All {files} could be read", files=read)
        return _calm(title, say("No file was rejected"), detail=detail, source=source)
    files = _plural(total, "file")
    if found is not None:
        files = say(
            "{files} of {found} found ({share})",
            files=files,
            found=whole(found),
            share=percent(total / found),
        )
    shown = rejected[:MOST_REJECTED]
    more = total - len(shown)
    row_height = 21
    card = _Card(
        title,
        files,
        source=source,
        height=THEME.header + (len(shown) + 1 + bool(more)) * row_height + THEME.footer,
    )
    lefts = (THEME.margin, THEME.margin + 320, THEME.margin + 450)
    widths = (305, 115, THEME.inner - 450)
    baseline = THEME.header + 8
    for left, heading in zip(lefts, (say("Path"), say("Reason"), say("Detail")), strict=True):
        card.text((left, baseline), heading, size=9, colour=THEME.muted)
    for row, cells in enumerate(shown, start=1):
        y = baseline + row * row_height
        card.rule(y - row_height / 2)
        for left, width, cell, colour, head in zip(
            lefts, widths, cells, (THEME.ink, THEME.alert, THEME.ink), (0.4, 0.5, 1), strict=True
        ):
            card.text((left, y), card.fit(_clean(cell), width, head=head), colour=colour)
    if more:
        y = baseline + (len(shown) + 1) * row_height
        card.rule(y - row_height / 2)
        told = say("and {count} more", count=whole(more))
        card.text((THEME.margin, y), told, size=9, colour=THEME.muted)
    return card.png()


def scree_plot(
    explained_variance_ratio: np.ndarray,
    *,
    chosen: int,
    target: float | None,
    title: str = "Variance kept by the principal components",
    source: str = "pca_model",
) -> bytes:
    """Share of the variance by component, above it the cumulative share, and the number chosen.

    Args:
        explained_variance_ratio: Float array of shape (n,), largest first: the share of the total
            variance, in 0..1, of every component known, kept or not. Above 50 components the
            horizontal axis is logarithmic.
        chosen: Number k of components kept, in 1..n.
        target: Share of the variance asked for, in 0..1, or None if a number of components was.
        title: Heading of the card.
        source: Asset that the numbers come from, named at the foot of the card.

    Returns:
        A PNG.

    Raises:
        ValueError: If the shares are not a non-empty vector of non-negative finite numbers with a
            sum of at most 1, or ``chosen`` is not one of its components.
    """
    shares = np.asarray(explained_variance_ratio, dtype=np.float64)
    if shares.ndim != 1 or not shares.size:
        raise ValueError(f"expected a non-empty vector of variance shares, found {shares.shape}")
    if not np.isfinite(shares).all() or shares.min() < 0 or shares.sum() > 1 + 1e-6:
        raise ValueError(
            "expected finite variance shares, each at least 0, with a sum of at most 1"
        )
    if not 1 <= chosen <= len(shares):
        raise ValueError(f"chosen is {chosen}, expected 1 to {len(shares)} components")
    cumulative = np.cumsum(shares)
    kept = float(cumulative[chosen - 1])
    card = _Card(title, _kept_sentence(chosen, kept, target=target), source=source, height=580)
    left, top = THEME.margin + 40, THEME.header + 18
    width = THEME.inner - 40 - (66 if target is not None else 8)
    upper = card.axes((left, top, width, 220))
    lower = card.axes((left, top + 270, width, 130))
    _draw_cumulative(upper, cumulative, chosen=chosen)
    _draw_shares(lower, shares, chosen=chosen)
    for axes in (upper, lower):
        _component_axis(axes, shares)
        axes.yaxis.set_major_formatter(lambda share, _: percent(share))
    if target is not None:
        upper.axhline(target, color=THEME.alert, linewidth=1, linestyle=(0, (4, 3)))
        y = top + 220 * (1 - target / upper.get_ylim()[1])
        label = say("target {share}", share=percent(target))
        card.text((left + width + 8, y), label, size=8.5, colour=THEME.alert)
    card.text((left, top - 14), say("Cumulative share of the variance"), bold=True)
    card.text((left, top + 256), say("Share of each component"), bold=True)
    name = say("Principal component")
    if _is_long(shares):
        name = say("Principal component (logarithmic scale)")
    card.text((left + width / 2, top + 430), name, colour=THEME.muted, align="center")
    return card.png()


def component_scatter(
    points: np.ndarray,
    labels: Sequence[str | None],
    *,
    explained: tuple[float, float] | None,
    title: str = "Images in the plane of the first two components",
    source: str = "pca_features",
) -> bytes:
    """Images in the plane of two principal components, coloured by class, at one scale.

    Up to eight classes are named in a legend. More are named next to one of their images, the one
    nearest to their median, as far as the names fit without overlap; the card says how many did.

    Args:
        points: Finite float array of shape (n, 2): PC1 and PC2 of every image.
        labels: n classes; None is drawn in grey as "unlabelled".
        explained: Shares of the variance of PC1 and PC2, in 0..1, where known.
        title: Heading of the card.
        source: Asset that the points come from, named at the foot of the card.

    Returns:
        A PNG; without any point, the card says so.

    Raises:
        ValueError: If the points are not finite pairs, one for every label.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.shape != (len(labels), 2):
        raise ValueError(f"found points of shape {points.shape} for {len(labels)} labels")
    if not np.isfinite(points).all():
        raise ValueError("expected finite points, found a NaN or an infinity")
    if not len(points):
        return _calm(title, say("No image yet"), source=source)
    classes = _group(points, labels)
    named = [name for name in classes if name is not None]
    marks = {name: THEME.mark(index) for index, name in enumerate(named)} | {
        None: (THEME.rest, "o")
    }
    legend = 0 < len(named) <= len(THEME.series)
    width, height = THEME.inner - 40 - (170 if legend else 0), 470
    box = (THEME.margin + 40, THEME.header, width, height)
    limits = _equal_limits(points, width=width, height=height)
    places = {} if legend else _class_places(classes, box=box, limits=limits)

    card = _Card(title, "", source=source, height=THEME.header + height + 44 + THEME.footer)
    axes = card.axes(box)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    _draw_points(axes, classes, marks=marks, faint=bool(places))
    sentence = _images_and_classes({name: len(members) for name, members in classes.items()})
    if legend:
        _draw_class_legend(card, classes, marks=marks, left=box[0] + width + 18)
    elif places:
        named_count = _draw_class_names(card, places, marks=marks, box=box)
        if named_count < len(named):
            sentence = say(
                "{sentence}; there is room for {count} names",
                sentence=sentence,
                count=whole(named_count),
            )
    card.subtitle(sentence)
    _draw_component_titles(card, box=box, explained=explained)
    return card.png()


class _Card:
    """A titled sheet of paper to draw on, in points."""

    def __init__(self, title: str, subtitle: str, *, source: str, height: float) -> None:
        # Matplotlib takes a good part of a second to import: only those who draw pay for it.
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415

        self.height = height
        self._figure = Figure(figsize=(THEME.width / 72, height / 72), dpi=144)
        self._figure.set_facecolor(THEME.paper)
        self._canvas = FigureCanvasAgg(self._figure)
        self.page = self._figure.add_axes((0, 0, 1, 1))
        # Above all axes, so that text and names lie on the points; without a background.
        self.page.set_zorder(1)
        self.page.set_axis_off()
        self.page.set_xlim(0, THEME.width)
        self.page.set_ylim(height, 0)
        self.page.autoscale(enable=False)
        self.text(
            (THEME.margin, 34), self.fit(_clean(title), THEME.inner, size=16), size=16, bold=True
        )
        self.subtitle(subtitle)
        footer = self.fit(say("Source: {source}", source=_clean(source)), THEME.inner, size=8)
        self.text((THEME.margin, height - 18), footer, size=8, colour=THEME.muted)

    def subtitle(self, text: str) -> None:
        """Write the line under the title."""
        self.text((THEME.margin, 57), text, size=10.5, colour=THEME.muted)

    def text(
        self,
        position: tuple[float, float],
        text: str,
        *,
        size: float = 9,
        colour: str = THEME.ink,
        align: str = "left",
        bold: bool = False,
        **style: Any,
    ) -> None:
        """Write one line, vertically centred on ``position``."""
        style = {"va": "center_baseline", "zorder": 5} | style
        self.page.text(
            *position,
            text,
            fontsize=size,
            color=colour,
            ha=align,
            fontweight="bold" if bold else "normal",
            fontfamily=THEME.font,
            parse_math=False,
            **style,
        )

    def text_width(self, text: str, *, size: float) -> float:
        """Width of a line in points."""
        from matplotlib.font_manager import FontProperties  # noqa: PLC0415

        font = FontProperties(family=THEME.font, size=size)
        pixels, _, _ = self._canvas.get_renderer().get_text_width_height_descent(
            text, font, ismath=False
        )
        return pixels * 72 / self._figure.dpi

    def fit(self, text: str, width: float, *, size: float = 9, head: float = 0.5) -> str:
        """The text, or as much of its beginning (share ``head``) and end as is ``width`` wide."""
        # Longer text cannot fit, and is not worth measuring.
        fits, tries = "…", min(len(text), 300)
        if len(text) <= tries and self.text_width(text, size=size) <= width:
            return text
        low, high = 0, tries
        while low < high:
            kept = (low + high + 1) // 2
            front = math.ceil(kept * head)
            elided = text[:front].rstrip() + "…" + text[len(text) - kept + front :].lstrip()
            if self.text_width(elided, size=size) <= width:
                fits, low = elided, kept
            else:
                high = kept - 1
        return fits

    def rule(self, y: float) -> None:
        """Draw a hairline from margin to margin."""
        ends = [THEME.margin, THEME.width - THEME.margin]
        self.page.plot(ends, [y, y], color=THEME.hairline, linewidth=0.8)

    def bar(self, box: tuple[float, float, float, float], colour: str) -> None:
        """Fill a rectangle (left, top, width, height)."""
        left, top, width, height = box
        self.page.barh(
            top, width, left=left, height=height, align="edge", color=colour, linewidth=0
        )

    def photo(self, box: tuple[float, float, float], photo: np.ndarray) -> None:
        """Fit an (h, w, 3) uint8 image into a square tile (left, top, side)."""
        left, top, side = box
        outline = ([left, left + side, left + side, left], [top, top, top + side, top + side])
        self.page.fill(*outline, facecolor=THEME.tile, edgecolor=THEME.hairline, linewidth=0.8)
        pixels = 2 * side / max(photo.shape[:2])
        height, width = (max(1, round(length * pixels)) for length in photo.shape[:2])
        scaled = Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS)
        x, y = left + (side - width / 2) / 2, top + (side - height / 2) / 2
        extent = (x, x + width / 2, y + height / 2, y)
        self.page.imshow(scaled, extent=extent, aspect="auto", zorder=2)

    def axes(self, box: tuple[float, float, float, float]) -> Axes:
        """Axes with a light grid in the rectangle (left, top, width, height)."""
        left, top, width, height = box
        bottom = self.height - top - height
        axes = self._figure.add_axes(
            (
                left / THEME.width,
                bottom / self.height,
                width / THEME.width,
                height / self.height,
            ),
            facecolor=THEME.paper,
        )
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(THEME.rest)
        axes.grid(color=THEME.hairline, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(
            which="both",
            length=0,
            labelsize=8.5,
            labelcolor=THEME.muted,
            labelfontfamily=THEME.font,
        )
        return axes

    def png(self) -> bytes:
        """The card as a PNG with a palette, at the highest resolution that is small enough."""
        while True:
            self._canvas.draw()
            encoded = _palette_png(np.asarray(self._canvas.buffer_rgba())[..., :3])
            if len(encoded) < LIMIT:
                return encoded
            # The size of the file goes with the area, roughly: hence the square root and the 0.95.
            self._figure.set_dpi(self._figure.dpi * 0.95 * math.sqrt(LIMIT / len(encoded)))


def _palette_png(pixels: np.ndarray) -> bytes:
    """A PNG with at most 256 colours of a (height, width, 3) uint8 array.

    The palette covers the colours rather than the pixels: one blueberry on a sheet of apples, or a
    few marks on much paper, keep their own. It is found on a sixth of the lines and columns, some
    twenty times faster. Dithering looks no better and makes photos half as large again.
    """
    image = Image.fromarray(pixels)
    sample = image.resize((image.width // 6, image.height // 6), Image.Resampling.NEAREST)
    palette = sample.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)
    indexed = image.quantize(palette=palette, dither=Image.Dither.NONE)
    # The palette only comes close to the paper, whose index is in the corner: make it the same on
    # all cards, and the same as on a slide behind them.
    colours = np.array(indexed.getpalette()).reshape(-1, 3)
    colours[np.asarray(indexed)[0, 0]] = ImageColor.getrgb(THEME.paper)
    indexed.putpalette(colours.ravel().tolist())
    file = io.BytesIO()
    indexed.save(file, "PNG")  # `optimize` takes three times as long and saves 3 %
    return file.getvalue()


def _calm(title: str, message: str, *, source: str, detail: str = "") -> bytes:
    """A card for when there is nothing to show, which is not an error."""
    card = _Card(title, detail, source=source, height=220)
    card.text((THEME.width / 2, 118), message, size=15, colour=THEME.muted, align="center")
    return card.png()


@cache
def _drawable() -> frozenset[str]:
    """Characters that the font can draw, in both of its weights."""
    from matplotlib.font_manager import FontProperties, findfont, get_font  # noqa: PLC0415

    normal, bold = (
        get_font(findfont(FontProperties(family=THEME.font, weight=weight))).get_charmap()
        for weight in ("normal", "bold")
    )
    return frozenset(map(chr, normal.keys() & bold.keys()))


def _clean(text: str) -> str:
    """The text on one line, in glyphs that exist: the rest becomes U+FFFD, marks are dropped."""
    kept = []
    for character in unicodedata.normalize("NFC", " ".join(text.split())):
        category = unicodedata.category(character)
        # Joiners, variation selectors, direction overrides and piles of accents have no place of
        # their own on a line: they would only distort their neighbours.
        if category in {"Cc", "Cf", "Mn", "Me"}:
            continue
        kept.append(character if character in _drawable() else "\ufffd")
    return "".join(kept)


def _name(label: str | None) -> str:
    """The name of a class on a card."""
    return say("unlabelled") if label is None else _clean(label) or say("(empty)")


def _plural(count: int, noun: str, plural: str = "") -> str:
    return f"{whole(count)} {say(noun if count == 1 else plural or noun + 's')}"


def _images_and_classes(totals: Mapping[str | None, int]) -> str:
    classes = len(totals.keys() - {None})
    sentence = _plural(sum(totals.values()), "image")
    if classes:
        named = _plural(classes, "class", "classes")
        sentence = say("{images} in {classes}", images=sentence, classes=named)
    if None in totals:
        unlabelled = whole(totals[None])
        sentence = say("{sentence}, {count} unlabelled", sentence=sentence, count=unlabelled)
    return sentence


def _split_colours(by_split: Mapping[str | None, int]) -> dict[str | None, str]:
    """A colour for every split, the largest first, in the order of the stack."""
    splits = sorted(by_split, key=lambda split: (split is None, -by_split[split], split or ""))
    return {
        split: THEME.rest if split is None and len(splits) > 1 else THEME.mark(index)[0]
        for index, split in enumerate(splits)
    }


def _draw_split_legend(
    card: _Card, by_split: Mapping[str | None, int], *, colours: Mapping[str | None, str]
) -> None:
    width = THEME.inner / max(4, len(colours))
    for index, (split, colour) in enumerate(colours.items()):
        left = THEME.margin + index * width
        card.bar((left, THEME.header - 2, 9, 9), colour)
        name = say("no split") if split is None else _name(split)
        told = say("{name}: {count}", name=name, count=whole(by_split[split]))
        card.text((left + 14, THEME.header + 3), card.fit(told, width - 22))


def _row_text_size(height: float) -> float:
    return 7.5 if height < 16 else 9


def _draw_class_row(
    card: _Card,
    box: tuple[float, float, float, float],
    *,
    name: str,
    name_width: float,
    parts: Iterable[tuple[int, str]],
    largest: int,
) -> None:
    """One class: its name, a bar of (number, colour) parts on the scale of ``largest``, a total."""
    left, top, width, height = box
    size, middle = _row_text_size(height), top + height / 2
    card.text((left, middle), name, size=size)
    unit = (width - name_width - 5.5 * size) / largest
    total, x = 0, left + name_width
    for number, colour in parts:
        card.bar((x, top + 0.15 * height, number * unit, 0.7 * height), colour)
        total, x = total + number, x + number * unit
    card.text((x + 5, middle), whole(total), size=size, colour=THEME.muted)


def _kept_sentence(chosen: int, kept: float, *, target: float | None) -> str:
    sentence = say(
        "{components} keeps {share} of the variance"
        if chosen == 1
        else "{components} keep {share} of the variance",
        components=_plural(chosen, "component"),
        share=percent(kept),
    )
    # The last digits of a sum are rounding, not a target that was missed.
    if target is not None and kept < target - 1e-9:
        sentence = say(
            "{sentence}, short of the target of {share}", sentence=sentence, share=percent(target)
        )
    return sentence


def _is_long(shares: np.ndarray) -> bool:
    """Whether there are too many components for a bar each: they need a logarithmic axis."""
    return len(shares) > 50


def _draw_cumulative(axes: Axes, cumulative: np.ndarray, *, chosen: int) -> None:
    count, long = len(cumulative), _is_long(cumulative)
    components = np.arange(1, count + 1)
    style: dict[str, Any] = {"marker": "" if long else "o", "markersize": 4, "linewidth": 2.2}
    accent, kept = THEME.series[0], cumulative[:chosen]
    axes.plot(components, cumulative, color=THEME.rest, **style)
    axes.plot(components[:chosen], kept, color=accent, **style)
    axes.fill_between(components[:chosen], kept, color=accent, alpha=0.12, linewidth=0)
    axes.plot([chosen, chosen], [0, kept[-1]], color=accent, linewidth=1)
    axes.plot([chosen], [kept[-1]], color=accent, marker="o", markersize=9, mec=THEME.paper)
    # Under a rising curve there is room at the foot of the line, on the side of the middle.
    far = math.log(chosen) > 0.6 * math.log(count) if long else chosen > 0.6 * count
    axes.annotate(
        say("k = {count}: {share}", count=whole(chosen), share=percent(float(kept[-1]))),
        (chosen, 0.05),
        xytext=(-7 if far else 7, 0),
        textcoords="offset points",
        ha="right" if far else "left",
        fontsize=10,
        fontweight="bold",
        fontfamily=THEME.font,
        color=accent,
    )
    axes.set_ylim(0, 1.06)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])


def _draw_shares(axes: Axes, shares: np.ndarray, *, chosen: int) -> None:
    components = np.arange(1, len(shares) + 1)
    if _is_long(shares):
        axes.plot(components, shares, color=THEME.rest, linewidth=2.2)
        axes.fill_between(components, shares, color=THEME.rest, alpha=0.3, linewidth=0)
        axes.plot(components[:chosen], shares[:chosen], color=THEME.series[0], linewidth=2.2)
        axes.fill_between(
            components[:chosen], shares[:chosen], color=THEME.series[0], alpha=0.3, linewidth=0
        )
    else:
        colours = [THEME.series[0] if i <= chosen else THEME.rest for i in components]
        axes.bar(components, shares, color=colours, width=0.8)
    axes.set_ylim(0, max(float(shares.max()), 1e-9) * 1.08)
    axes.locator_params(axis="y", nbins=5)


def _component_axis(axes: Axes, shares: np.ndarray) -> None:
    """Number the components: linearly while there are few, logarithmically when many."""
    count = len(shares)
    if _is_long(shares):
        axes.set_xscale("log")
        steps = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
        ticks = [tick for tick in steps if tick <= count]
        axes.set_xlim(0.9, count * 1.05)
    else:
        step = math.ceil(count / 15)
        ticks = sorted({1, *range(step, count + 1, step)})
        axes.set_xlim(0.4, count + 0.6)
    axes.set_xticks(ticks, [whole(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(visible=False, axis="x")


def _group(points: np.ndarray, labels: Sequence[str | None]) -> dict[str | None, np.ndarray]:
    """The points of every class, the largest class first and the unlabelled before all."""
    rows: dict[str | None, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    order = sorted(rows, key=lambda name: (name is not None, -len(rows[name]), name or ""))
    return {name: points[rows[name]] for name in order}


def _equal_limits(
    points: np.ndarray, *, width: float, height: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits of x and y around the points, with the same unit per length on both axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    unit = max((high - low) / (width, height)) * 1.08 or 1 / width
    middle = (low + high) / 2
    (left, bottom), (right, top) = (
        middle + sign * unit * np.array((width, height)) / 2 for sign in (-1, 1)
    )
    return (float(left), float(right)), (float(bottom), float(top))


def _class_places(
    classes: Mapping[str | None, np.ndarray],
    *,
    box: tuple[float, float, float, float],
    limits: tuple[tuple[float, float], tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    """Where on the card to name the largest classes: at the image nearest to their median."""
    left, top, width, height = box
    (x_low, x_high), (y_low, y_high) = limits
    places = {}
    named = ((name, members) for name, members in classes.items() if name is not None)
    for name, members in islice(named, MOST_CLASSES):
        distances = np.linalg.norm(members - np.median(members, axis=0), axis=1)
        x, y = members[distances.argmin()]
        places[name] = (
            left + width * (x - x_low) / (x_high - x_low),
            top + height * (y_high - y) / (y_high - y_low),
        )
    return places


def _draw_points(
    axes: Axes,
    classes: Mapping[str | None, np.ndarray],
    *,
    marks: Mapping[str | None, tuple[str, str]],
    faint: bool,
) -> None:
    count = sum(map(len, classes.values()))
    area = float(np.clip(9000 / count, 5, 36))
    opacity = float(np.clip(2000 / count, 0.35, 0.85)) * (0.7 if faint else 1)
    for name, members in classes.items():
        colour, marker = marks[name]
        axes.scatter(*members.T, s=area, c=colour, marker=marker, alpha=opacity, linewidths=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")


def _draw_class_legend(
    card: _Card,
    classes: Mapping[str | None, np.ndarray],
    *,
    marks: Mapping[str | None, tuple[str, str]],
    left: float,
) -> None:
    for row, name in enumerate(sorted(classes, key=lambda name: name is None)):
        y = THEME.header + 12 + 32 * row
        colour, marker = marks[name]
        card.page.plot([left], [y], color=colour, marker=marker, markersize=8, mew=0)
        right = THEME.width - THEME.margin
        card.text((left + 12, y), card.fit(_name(name), right - left - 12))
        images = _plural(len(classes[name]), "image")
        card.text((left + 12, y + 12), images, size=8, colour=THEME.muted)


def _draw_class_names(
    card: _Card,
    places: Mapping[str, tuple[float, float]],
    *,
    marks: Mapping[str | None, tuple[str, str]],
    box: tuple[float, float, float, float],
) -> int:
    """Name the classes near their places where there is room; the number of those named."""
    size = 8.5 if len(places) <= 40 else 7
    names = {name: card.fit(_name(name), 130, size=size) for name in places}
    widths = [card.text_width(text, size=size) + 4 for text in names.values()]
    boxes = _name_boxes(np.array(list(places.values())), np.array(widths), size + 3, within=box)
    for (name, (x, y)), found in zip(places.items(), boxes, strict=True):
        colour, marker = marks[name]
        card.page.plot(
            [x], [y], color=colour, marker=marker, markersize=7, mec=THEME.paper, mew=0.8, zorder=4
        )
        if found is None:
            continue
        left, top, right, bottom = found
        end = [np.clip(x, left, right)], [np.clip(y, top, bottom)]
        card.page.plot([x, *end[0]], [y, *end[1]], color=THEME.muted, linewidth=0.6, zorder=3)
        card.text(
            ((left + right) / 2, (top + bottom) / 2),
            names[name],
            size=size,
            align="center",
            bbox={"facecolor": THEME.paper, "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        )
    return sum(found is not None for found in boxes)


def _name_boxes(
    places: np.ndarray,
    widths: np.ndarray,
    height: float,
    *,
    within: tuple[float, float, float, float],
) -> list[np.ndarray | None]:
    """Boxes near the places that overlap neither each other nor a place, nor leave ``within``.

    Args:
        places: Float array of shape (n, 2), x and y in points.
        widths: Float array of shape (n,), the widths of the boxes.
        height: Height of every box.
        within: Rectangle (left, top, width, height).

    Returns:
        For every place, in order, the (left, top, right, bottom) of its box, the nearest free one
        on rings around the place; None where all are taken.
    """
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    radii = 4 * 1.3 ** np.arange(12)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    left, top = within[:2]
    right, bottom = left + within[2], top + within[3]
    taken = np.hstack([places - 3, places + 3])
    found: list[np.ndarray | None] = []
    for place, width in zip(places, widths, strict=True):
        half = np.array([width, height]) / 2
        # A box touches its ring from outside, so that wide names are no further than short ones.
        centres = np.vstack([place + ring * (half + radius) for radius in radii])
        boxes = np.hstack([centres - half, centres + half])
        inside = (boxes >= (left, top, -np.inf, -np.inf)) & (
            boxes <= (np.inf, np.inf, right, bottom)
        )
        apart = (boxes[:, None, :2] >= taken[:, 2:]) | (boxes[:, None, 2:] <= taken[:, :2])
        free = np.flatnonzero(inside.all(axis=1) & np.all(apart.any(axis=2), axis=1))
        found.append(boxes[free[0]] if len(free) else None)
        if len(free):
            taken = np.vstack([taken, boxes[free[0]]])
    return found


def _draw_component_titles(
    card: _Card,
    *,
    box: tuple[float, float, float, float],
    explained: tuple[float, float] | None,
) -> None:
    left, top, width, height = box
    first, second = (
        ("PC1", "PC2")
        if explained is None
        else (
            say("{component} ({share} of the variance)", component=f"PC{i}", share=percent(share))
            for i, share in enumerate(explained, 1)
        )
    )
    below, beside = (left + width / 2, top + height + 30), (left - 40, top + height / 2)
    card.text(below, first, colour=THEME.muted, align="center")
    card.text(beside, second, colour=THEME.muted, align="center", rotation=90, va="center")
