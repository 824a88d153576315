"""Figures are small PNG files that depend on their data and survive any label."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import numpy as np
import pytest
from PIL import Image, ImageColor

from fruits_assets.deliverables import figures
from fruits_assets.deliverables.figures import (
    LIMIT,
    MOST_PHOTOS,
    MOST_REJECTED,
    THEME,
    class_bar_chart,
    component_scatter,
    contact_sheet,
    rejected_sheet,
    scree_plot,
)

HOSTILE = [
    None,
    "",
    " \n\t ",
    "x" * 200,
    "W" * 200,
    "\N{RED APPLE} apple \N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}",
    "P\N{LATIN SMALL LETTER E WITH CIRCUMFLEX}che d\N{LATIN SMALL LETTER E WITH ACUTE}nude\u0301e",
    "$x$",
    r"$\frac{$",
    "a\nb\r\nc",
    "\N{CJK UNIFIED IDEOGRAPH-82F9}\N{ARABIC LETTER MEEM}",
    "\udcff\x00\N{RIGHT-TO-LEFT OVERRIDE}evil",
    "z" + "\N{COMBINING ACUTE ACCENT}" * 50,
    "_^{}%#&\\",
]
Counts = dict[str | None, dict[str | None, int]]
SHARES = np.array([0.5, 0.25, 0.125, 0.0625, 0.03])


def opened(png: bytes) -> np.ndarray:
    """The pixels of a figure, after what holds for all of them has been checked."""
    assert len(png) < LIMIT
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    assert "transparency" not in image.info
    assert 400 <= image.width <= 2 * THEME.width
    assert 100 <= image.height <= 2400
    pixels = np.asarray(image.convert("RGB"))
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == ImageColor.getrgb(THEME.paper)).all()
    return pixels


def count(pixels: np.ndarray, colour: str | tuple[int, ...], *, tolerance: int = 3) -> int:
    """Number of pixels of nearly that colour."""
    rgb = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    distance = np.abs(pixels.astype(np.int16) - np.array(rgb, np.int16)).max(axis=2)
    return int((distance <= tolerance).sum())


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures of one shape differ by more than shades of the palette."""
    return bool((np.abs(one.astype(np.int16) - other).max(axis=2) > 60).any())


def is_calm(pixels: np.ndarray) -> bool:
    """Whether a figure only says, in the middle, that there is nothing to show."""
    height, width = pixels.shape[:2]
    middle = pixels[height * 2 // 5 : height * 3 // 5, width * 2 // 5 : width * 3 // 5]
    return count(middle, THEME.muted) > 100


def classes(number: int) -> list[str]:
    return [f"Fruit {index:03d}" for index in range(number)]


def clusters(number: int, *, size: int) -> tuple[np.ndarray, list[str | None]]:
    """Points of ``number`` classes of ``size`` images each, and their labels."""
    random = np.random.default_rng(7)
    centres = random.normal(0, 6, (number, 2)).repeat(size, axis=0)
    return centres + random.normal(0, 0.5, centres.shape), list(np.repeat(classes(number), size))


def solid(colour: tuple[int, ...], *, height: int = 20, width: int = 20) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_import_leaves_matplotlib_alone():
    code = "import sys, fruits_assets.deliverables.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_threads_draw_what_one_thread_draws():
    draw = [
        lambda: class_bar_chart({"a": {"Training": 3}, "b": {"Training": 2, "Test": 1}}),
        lambda: scree_plot(SHARES, chosen=2, target=0.8),
        lambda: component_scatter(*clusters(12, size=9), explained=None),
        lambda: rejected_sheet([("a.jpg", "empty", "0 bytes")], 1),
    ]
    alone = [function() for function in draw]
    with ThreadPoolExecutor(4) as pool:
        together = [future.result() for future in [pool.submit(function) for function in draw * 2]]
    assert together == alone * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "unlabelled"),
        ("", "(empty)"),
        (" \n ", "(empty)"),
        ("a\nb\t c", "a b c"),
        ("$x$", "$x$"),
        ("e\u0301", "\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("\N{RED APPLE} apple", "\ufffd apple"),
        ("\udcff", "\ufffd"),
        ("a\x00\N{RIGHT-TO-LEFT OVERRIDE}b", "ab"),
        ("z" + "\N{COMBINING ACUTE ACCENT}" * 50, "\N{LATIN SMALL LETTER Z WITH ACUTE}"),
    ],
)
def test_name_is_one_line_of_glyphs_that_exist(text: str | None, expected: str):
    assert figures._name(text) == expected


def test_long_text_is_elided_to_the_width_asked_for():
    card = figures._Card("", "", source="", height=100)
    text = "Training/" + "very long folder/" * 30 + "7_100.jpg"
    middle, end = card.fit(text, 200), card.fit(text, 200, head=1)
    assert middle.startswith("Training/")
    assert middle.endswith("7_100.jpg")
    assert end.startswith("Training/very long folder/")
    assert end.endswith("…")
    for elided in (middle, end):
        assert 180 < card.text_width(elided, size=9) <= 200
    assert card.fit("7_100.jpg", 200) == "7_100.jpg"


class TestClassBarChart:
    """Bars follow the counts, however many classes and however they are called."""

    @pytest.mark.parametrize("number", [1, 12, 131, pytest.param(500, marks=pytest.mark.slow)])
    def test_any_number_of_classes(self, number: int):
        opened(class_bar_chart({name: {"Training": 400, "Test": 99} for name in classes(number)}))

    def test_hostile_labels(self):
        opened(class_bar_chart({label: {label: 5, "Test": 2} for label in HOSTILE}))

    def test_bars_are_as_long_as_the_counts(self):
        counts: Counts = {"a": {"Training": 600, "Test": 100}, "b": {"Training": 300, "Test": 200}}
        pixels = opened(class_bar_chart(counts))
        training, test = (count(pixels, colour) for colour in THEME.series[:2])
        assert training / test == pytest.approx(3, rel=0.1)

    def test_single_split_is_not_explained(self):
        plain = opened(class_bar_chart({"Apple": {"Training": 5}}))
        split = opened(class_bar_chart({"Apple": {"Training": 5, "Test": 4}}))
        assert count(plain[:, :90], THEME.series[0]) == 0
        assert count(split[:, :90], THEME.series[0]) > 100

    def test_order_of_the_mapping_does_not_matter(self):
        counts: Counts = {"a": {"Training": 5}, None: {"Training": 5}, "b": {"Training": 7}}
        charts = {class_bar_chart(dict(items)) for items in permutations(counts.items())}
        assert len(charts) == 1

    def test_smaller_classes_share_a_line(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(figures, "MOST_CLASSES", 9)

        def chart(number: int, *, rest: int) -> np.ndarray:
            counts: Counts = {name: {None: 9} for name in classes(9)}
            counts.update({f"rest {index}": {None: rest} for index in range(number)})
            return opened(class_bar_chart(counts))

        assert chart(1000, rest=1).shape == chart(2, rest=1).shape
        assert len(chart(0, rest=1)) < len(chart(1, rest=1))
        assert differ(*(chart(2, rest=rest)[-130:] for rest in (1, 8)))

    def test_empty(self):
        assert is_calm(opened(class_bar_chart({})))
        opened(class_bar_chart({"a": {}, "b": {"Test": 0}}))


class TestContactSheet:
    """All photos are there, in their colours and proportions, in a small file."""

    def test_every_photo_is_there_once(self):
        colours = [(r, g, 128) for r in (0, 80, 160, 240) for g in (0, 90, 180)]
        pixels = opened(contact_sheet([(solid(colour), "a") for colour in colours]))
        areas = [count(pixels, colour, tolerance=6) for colour in colours]
        assert min(areas) > 10_000
        assert max(areas) < 1.1 * min(areas)

    def test_captions_are_drawn(self):
        one, other = (contact_sheet([(solid((9, 9, 9)), name)]) for name in ("apple", "pear"))
        assert differ(opened(one), opened(other))

    def test_proportions_are_kept(self):
        pixels = opened(contact_sheet([(solid((200, 0, 0), height=50, width=100), "a")]))
        rows, columns = np.nonzero((np.abs(pixels.astype(int) - (200, 0, 0)) <= 6).all(axis=2))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(2, rel=0.02)

    def test_no_more_than_the_first_photos(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(figures, "MOST_PHOTOS", 12)
        black, red = (solid((0, 0, 0)), "a"), (solid((255, 0, 0)), "b")
        assert count(opened(contact_sheet([black] * 11 + [red])), "#ff0000") > 100
        assert count(opened(contact_sheet([black] * 12 + [red] * 9)), "#ff0000") == 0

    def test_as_many_photos_as_there_may_be(self):
        photo = (solid((255, 0, 0)), "a")
        opened(contact_sheet([photo] * MOST_PHOTOS))

    def test_noise_is_shrunk_until_it_fits(self):
        noise = np.random.default_rng(7).integers(0, 256, (15, 100, 100, 3), dtype=np.uint8)
        assert opened(contact_sheet([(photo, "a") for photo in noise])).shape[1] < 2 * THEME.width

    @pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3000, 2000)])
    def test_any_size(self, shape: tuple[int, int]):
        opened(contact_sheet([(solid((0, 120, 0), height=shape[0], width=shape[1]), "a")]))

    def test_hostile_captions(self):
        opened(contact_sheet([(solid((0, 120, 0)), label) for label in HOSTILE]))

    @pytest.mark.parametrize(
        "photo",
        [
            np.zeros((4, 4, 3)),
            np.zeros((4, 4), dtype=np.uint8),
            np.zeros((4, 4, 4), dtype=np.uint8),
            np.zeros((0, 4, 3), dtype=np.uint8),
        ],
    )
    def test_not_a_photo(self, photo: np.ndarray):
        with pytest.raises(ValueError, match=r"photo 1 has shape .* expected \(height, width, 3\)"):
            contact_sheet([(solid((0, 0, 0)), "a"), (photo, "b")])

    def test_empty(self):
        assert is_calm(opened(contact_sheet([])))


class TestRejectedSheet:
    """A row for every rejected file, and a number for those not shown."""

    row = ("Training/Apple/7_100.jpg", "truncated", "12 bytes are missing")

    def test_every_cell_is_drawn(self):
        whole = opened(rejected_sheet([self.row], 1))
        assert count(whole, THEME.alert) > 50
        for column in range(3):
            cells: list[str] = list(self.row)
            cells[column] = "other"
            assert differ(opened(rejected_sheet([(cells[0], cells[1], cells[2])], 1)), whole)

    def test_rows_end_and_the_others_are_counted(self):
        heights = [
            len(opened(rejected_sheet([self.row] * rows, total)))
            for rows, total in [(1, 1), (2, 2), (2, 3), (MOST_REJECTED, 999), (999, 999)]
        ]
        assert heights[0] < heights[1] < heights[2] < heights[3] == heights[4]
        assert differ(*(opened(rejected_sheet([self.row], total))[-130:] for total in (2, 3)))

    def test_share_of_the_files_found(self):
        sheets = {rejected_sheet([self.row], 1, found=found) for found in (None, 10, 100)}
        assert len(sheets) == 3

    def test_nothing_rejected(self):
        calm = opened(rejected_sheet([], 0))
        assert is_calm(calm)
        assert differ(calm, opened(rejected_sheet([], 0, found=131)))

    def test_hostile_cells(self):
        opened(rejected_sheet([(text or "", text or "", text or "") for text in HOSTILE], 99))

    def test_total_is_too_small(self):
        with pytest.raises(ValueError, match="2 rejected files were given, but the total is 1"):
            rejected_sheet([self.row] * 2, 1)


class TestScreePlot:
    """The number of components chosen and the target are where the shares put them."""

    @pytest.mark.parametrize(
        "number",
        [
            *(1, 2, 50, 51, 1280),
            *(pytest.param(number, marks=pytest.mark.slow) for number in (15, 162)),
        ],
    )
    def test_any_number_of_components(self, number: int):
        shares = 1 / np.arange(1, number + 1)
        for chosen in {1, number // 2 + 1, number}:
            opened(scree_plot(shares / shares.sum(), chosen=chosen, target=0.95))

    def test_more_is_marked_when_more_is_chosen(self):
        for shares in (SHARES, np.full(80, 1 / 80)):
            plots = [opened(scree_plot(shares, chosen=k, target=None)) for k in (1, 3, 5)]
            middle = len(plots[0]) * 6 // 10
            for panels in ([plot[:middle] for plot in plots], [plot[middle:] for plot in plots]):
                marked = [count(panel, THEME.series[0]) for panel in panels]
                assert marked[0] < marked[1] < marked[2]

    def test_target_is_drawn_where_it_is(self):
        assert count(opened(scree_plot(SHARES, chosen=2, target=None)), THEME.alert) == 0
        rows = []
        for target in (0.25, 0.5, 0.75):
            pixels = opened(scree_plot(SHARES, chosen=4, target=target)).astype(int)
            line = (np.abs(pixels - ImageColor.getrgb(THEME.alert)).max(axis=2) <= 9).sum(axis=1)
            rows.append(line.argmax())
        assert rows[0] - rows[1] == pytest.approx(rows[1] - rows[2], abs=2)
        assert rows[0] - rows[1] > 50

    def test_target_that_was_missed_is_told(self):
        assert "short" not in figures._kept_sentence(2, 0.95 - 1e-15, target=0.95)
        assert figures._kept_sentence(1, 0.7, target=0.95) == (
            "1 component keeps 70% of the variance, short of the target of 95%"
        )

    @pytest.mark.parametrize(
        ("shares", "chosen", "message"),
        [
            ([], 1, "non-empty vector"),
            ([[0.5, 0.5]], 1, "non-empty vector"),
            ([0.5, np.nan], 1, "finite"),
            ([0.5, -0.1], 1, "at least 0"),
            ([0.9, 0.9], 1, "at most 1"),
            ([0.5, 0.5], 0, "expected 1 to 2 components"),
            ([0.5, 0.5], 3, "expected 1 to 2 components"),
        ],
    )
    def test_not_a_scree(self, shares: list[float], chosen: int, message: str):
        with pytest.raises(ValueError, match=message):
            scree_plot(np.array(shares), chosen=chosen, target=None)


class TestComponentScatter:
    """Points are at their place and in the colour of their class, names do not overlap."""

    @pytest.mark.parametrize(
        ("number", "size"),
        [
            *((1, 1), (3, 60), (15, 40), (131, 152)),
            pytest.param(500, 2, marks=pytest.mark.slow),
        ],
    )
    def test_any_number_of_classes(self, number: int, size: int):
        opened(component_scatter(*clusters(number, size=size), explained=(0.2, 0.1)))

    def test_every_class_has_its_colour(self):
        points, labels = clusters(3, size=60)
        pixels = opened(component_scatter(points, labels, explained=None))
        legend = pixels[:, pixels.shape[1] * 3 // 4 :]
        for colour in THEME.series[:3]:
            assert count(legend, colour) > 50
        assert count(pixels, THEME.series[3]) == 0

    def test_points_are_where_they_are(self):
        points = np.array([[-1.0, -1], [-1, -1], [1, 1]])
        pixels = opened(component_scatter(points, ["a", "a", "b"], explained=None)).astype(int)
        plot = pixels[160:1100, 120:1200]
        where = [
            np.argwhere(np.abs(plot - ImageColor.getrgb(colour)).max(axis=2) < 60).mean(axis=0)
            for colour in THEME.series[:2]
        ]
        down, right = where[1] - where[0]
        assert down < -500, "PC2 rises upwards"
        assert right == pytest.approx(-down, rel=0.03), "both components have the same scale"

    def test_many_classes_are_named_on_the_plot(self):
        points, labels = clusters(9, size=20)
        renamed = [str(label).replace("Fruit", "Berry") for label in labels]
        one, other = (
            opened(component_scatter(points, x, explained=None)) for x in (labels, renamed)
        )
        assert differ(one, other)

    def test_shares_of_the_variance_are_written(self):
        points, labels = clusters(3, size=5)
        titles = {
            component_scatter(points, labels, explained=explained)
            for explained in (None, (0.3, 0.1), (0.3, 0.2), (0.4, 0.1))
        }
        assert len(titles) == 4

    def test_unlabelled_images_are_grey(self):
        points, _ = clusters(3, size=20)
        pixels = opened(component_scatter(points, [None] * 60, explained=None))
        assert np.ptp(pixels, axis=2).max() < 40

    def test_hostile_labels(self):
        points, _ = clusters(len(HOSTILE), size=1)
        opened(component_scatter(points, HOSTILE, explained=(0, 0)))
        opened(component_scatter(points[:6], HOSTILE[:6], explained=(0, 0)))

    @pytest.mark.parametrize("scale", [0, 1e-12, 1e12])
    def test_any_scale(self, scale: float):
        points, labels = clusters(12, size=4)
        opened(component_scatter(scale * points, labels, explained=None))

    def test_empty(self):
        assert is_calm(opened(component_scatter(np.empty((0, 2)), [], explained=None)))

    def test_not_points(self):
        with pytest.raises(ValueError, match=r"shape \(3, 2\) for 2 labels"):
            component_scatter(np.zeros((3, 2)), ["a", "b"], explained=None)
        with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
            component_scatter(np.zeros((2, 3)), ["a", "b"], explained=None)
        with pytest.raises(ValueError, match="expected finite points"):
            component_scatter(np.array([[0, np.nan]]), ["a"], explained=None)

    def test_names_do_not_overlap(self):
        random = np.random.default_rng(7)
        places = random.uniform((40, 80), (640, 480), (131, 2))
        boxes = figures._name_boxes(
            places, random.uniform(20, 130, 131), 10, within=(30, 70, 620, 420)
        )
        found = np.array([box for box in boxes if box is not None])
        assert 60 < len(found) < 131
        assert (found[:, :2] >= (30, 70)).all()
        assert (found[:, 2:] <= (650, 490)).all()
        for index, (left, top, right, bottom) in enumerate(found):
            others = np.delete(found, index, axis=0)
            beside = (others[:, 0] >= right) | (others[:, 2] <= left)
            above_or_below = (others[:, 1] >= bottom) | (others[:, 3] <= top)
            assert (beside | above_or_below).all()
            covered = (places > (left, top)).all(axis=1) & (places < (right, bottom)).all(axis=1)
            assert not covered.any()
