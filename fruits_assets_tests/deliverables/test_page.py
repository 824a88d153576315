"""The page in a real browser, from a folder: no server, no request, no error, with any labels."""

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from fruits_assets.lake.lake import Lake
from fruits_assets_tests.browser import Opener
from fruits_assets_tests.conftest import Pipeline
from fruits_assets_tests.stand_ins import hand_over

pytestmark = pytest.mark.slow

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>".replace("/", "\N{FRACTION SLASH}"),
    "\"><svg onload=alert(3)> 'single' `back`",  # a backslash separates folders
    "two\nlines",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "{n} $& {{ 7 * 7 }}",
    "Pomme d'été \N{RED APPLE}",
]


def _folder(pipeline: Pipeline, target: Path, **config: Any) -> str:
    """The deliverables, copied to where nothing of the lake is beside them."""
    assert hand_over(pipeline, config=config).success
    return str(shutil.copytree(Path(pipeline.lake.base, "deliverables"), target))


@pytest.fixture(scope="module")
def sent(finished, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of the page."""
    folder = tmp_path_factory.mktemp("sent")
    base = shutil.copytree(finished[0].lake.base, folder / "lake")
    pipeline = Pipeline(Lake.at(str(base)), finished[0].source)
    return f"file://{_folder(pipeline, folder / 'it')}/index.html"


@pytest.fixture(scope="module")
def hostile(_model_lake: Path, session: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same of photos with labels and paths that mean harm."""
    folder = tmp_path_factory.mktemp("hostile")
    for i, label in enumerate(HOSTILE):
        for split in ("Training", "Test"):
            (folder / "photos" / split / label).mkdir(parents=True)
            picture = Image.new("RGB", (40, 30), (30 * i, 200, 20 if split == "Test" else 60))
            picture.save(folder / "photos" / split / label / f"{i}<b>'\".png")
    base = shutil.copytree(_model_lake, folder / "lake")
    pipeline = Pipeline(Lake.at(str(base)), folder / "photos")
    assert pipeline.run().success
    attribution = "<script>alert(4)</script>\N{RIGHT-TO-LEFT OVERRIDE}"
    config = {"attribution": attribution, "language": "en"}
    return f"file://{_folder(pipeline, folder / 'it', deliverables=config)}/index.html"


@pytest.fixture(scope="module", autouse=True)
def _made_before_the_browser_starts(sent: str, hostile: str) -> None:
    """See `browser`."""


@pytest.fixture
def page(sent: str, opened: Opener) -> Iterator[Page]:
    """The page of the drawn photos, ready, on a wide screen."""
    with opened(sent, viewport={"width": 1280, "height": 1000}) as page:
        expect(page.locator("html")).to_have_attribute("data-ready", re.compile(r"\d+"))
        page.locator("#map").scroll_into_view_if_needed()
        yield page


def _place(page: Page, photo: int) -> dict[str, float]:
    """Where a photo is in the window, from its components and the extent of all of them."""
    return page.evaluate(
        """(photo) => {
            const { x, y } = new Photos(GALLERY, {});
            const box = document.querySelector("#map canvas").getBoundingClientRect();
            const [west, east] = [Math.min(...x), Math.max(...x)];
            const [south, north] = [Math.min(...y), Math.max(...y)];
            const scale = Math.min(
                (box.width - 88) / (east - west), (box.height - 88) / (north - south));
            return {
                x: box.left + box.width / 2 + (x[photo] - (west + east) / 2) * scale,
                y: box.top + box.height / 2 - (y[photo] - (south + north) / 2) * scale,
            };
        }""",
        photo,
    )


def _farthest(page: Page) -> int:
    """The photo on the right edge of the map: no other one lies before it."""
    return page.evaluate(
        "(() => { const { x } = new Photos(GALLERY, {}); return x.indexOf(Math.max(...x)); })()"
    )


def _said_of(page: Page, photo: int) -> dict[str, Any]:
    return page.evaluate(
        """(photo) => {
            const photos = new Photos(GALLERY, {});
            return {
                label: photos.label(photo), split: photos.split(photo), path: photos.path(photo),
                neighbours: photos.neighbours(photo).map((near) => near.photo),
                training: photos.training(photo).photo,
                tile: photos.tile(photo, 64).style.backgroundPosition,
            };
        }""",
        photo,
    )


def _choose(page: Page, photo: int) -> None:
    place = _place(page, photo)
    page.mouse.click(place["x"], place["y"])


def _pixels(page: Page) -> bytes:
    """The drawing, once it is complete."""
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => drawn()))")
    return page.locator("#map").screenshot()


def test_it_opens_from_a_folder_without_a_request_or_an_error(page: Page):
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    expect(page.get_by_role("heading", level=1)).to_have_text("Fruits\u202f!")
    expect(page.locator("#matching")).to_have_text("90 photos sur 90")
    expect(page.get_by_role("link", name=re.compile("notebook_.*html"))).to_be_visible()
    expect(page.locator("#no-data")).to_be_hidden()


def test_hovering_shows_the_thumbnail(page: Page):
    photo = _farthest(page)
    expect(page.locator("#tip")).to_be_hidden()
    place = _place(page, photo)
    page.mouse.move(place["x"], place["y"])
    said = _said_of(page, photo)
    expect(page.locator("#tip")).to_contain_text(said["label"])
    expect(page.locator("#tip .tile")).to_have_css("background-position", said["tile"])
    page.mouse.move(5, 5)
    expect(page.locator("#tip")).to_be_hidden()


def test_a_click_shows_the_photo_and_its_neighbours(page: Page):
    photo = _farthest(page)
    _choose(page, photo)
    said = _said_of(page, photo)
    panel = page.locator("#panel")
    expect(panel.locator("dd")).to_have_text([said["label"], said["split"], said["path"]])
    buttons = panel.locator(".near button")
    expect(buttons).to_have_count(8)
    shown = [int(button.get_attribute("data-photo") or "") for button in buttons.all()]
    assert shown == said["neighbours"]
    teacher = _said_of(page, said["training"])
    same = teacher["label"] == said["label"]
    text = "a la même étiquette" if same else "a une autre étiquette"
    expect(panel.locator(".verdict")).to_contain_text(text)
    expect(page.locator("#live")).to_contain_text(said["path"])


def test_a_click_on_a_neighbour_goes_there(page: Page):
    photo = _farthest(page)
    _choose(page, photo)
    neighbour = _said_of(page, photo)["neighbours"][2]
    page.locator(".near button").nth(2).click()
    path = _said_of(page, neighbour)["path"]
    expect(page.locator("#panel dd").nth(2)).to_have_text(path)
    expect(page.locator("#selected")).to_be_focused()


def test_the_search_filters_map_and_list(page: Page):
    label, *_ = page.evaluate("GALLERY.labels")
    page.locator("#list summary").click()
    expect(page.locator("#rows tr")).to_have_count(25)
    page.locator("#search").fill(label.upper())
    expect(page.locator("#matching")).to_have_text("6 photos sur 90")
    expect(page.locator("#rows tr td:nth-child(2)")).to_have_text([label] * 6)
    expect(page.locator("#pages")).to_have_text("Photos 1 à 6 sur 6")
    page.locator("#search").fill("nowhere")
    expect(page.locator("#matching")).to_contain_text("Aucune étiquette")
    expect(page.locator("#rows tr")).to_have_count(0)
    page.locator("#clear").click()
    expect(page.locator("#search")).to_have_value("")
    expect(page.locator("#matching")).to_have_text("90 photos sur 90")


def test_the_search_has_all_labels_to_choose_from(page: Page):
    options = page.locator("#labels option")
    shown = [option.get_attribute("value") for option in options.all()]
    assert shown == page.evaluate("GALLERY.labels")


def test_the_legend_puts_a_class_forward(page: Page):
    before = _pixels(page)
    banana = page.locator("#groups button", has_text="Banana")
    banana.click()
    expect(banana).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#matching")).to_have_text("6 photos sur 90")
    assert _pixels(page) != before
    banana.click()
    expect(page.locator("#matching")).to_have_text("90 photos sur 90")


def test_the_map_zooms_and_pans(page: Page):
    page.mouse.move(400, 500)
    whole = _pixels(page)
    page.locator('[data-map="zoom_in"]').click()
    near = _pixels(page)
    page.locator('[data-map="pan_left"]').click()
    aside = _pixels(page)
    assert len({whole, near, aside}) == 3
    page.locator('[data-map="fit"]').click()
    page.mouse.move(5, 5)
    box = page.locator("#map").bounding_box()
    assert box
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -300)
    wheeled = _pixels(page)
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 260, steps=4)
    page.mouse.up()
    assert len({whole, wheeled, _pixels(page)}) == 3
    expect(page.locator("#panel dd")).to_have_count(0)  # who drags does not choose


def test_the_wheel_scrolls_the_page_where_the_map_is_whole(page: Page):
    expect(page.locator("#gallery")).to_be_in_viewport()
    box = page.locator("#map").bounding_box()
    assert box
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.wheel(0, 700)
    expect(page.locator("#gallery")).not_to_be_in_viewport()


def test_everything_works_from_the_keyboard(page: Page):
    page.locator("#thumbnails").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#map")).to_be_focused()
    page.keyboard.press("ArrowRight")
    first = page.locator("#live").text_content()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    said = _said_of(page, _farthest(page))
    expect(page.locator("#live")).to_contain_text(said["path"])
    expect(page.locator("#tip")).to_contain_text(said["label"])
    assert first
    assert said["path"] not in first
    page.keyboard.press("Enter")
    expect(page.locator("#panel dd").nth(2)).to_have_text(said["path"])
    whole = _pixels(page)
    page.keyboard.press("+")
    assert _pixels(page) != whole
    page.keyboard.press("0")
    page.keyboard.press("Escape")
    expect(page.locator("#panel dd")).to_have_count(0)
    for press in ("Shift+ArrowLeft", "Shift+ArrowDown", "-"):
        before = _pixels(page)
        page.keyboard.press(press)
        assert _pixels(page) != before, press


def test_the_focus_is_seen(page: Page):
    page.locator("#search").focus()
    stops = []
    for _ in range(6):
        page.keyboard.press("Tab")
        stops.append(
            page.evaluate(
                """() => {
                    const style = getComputedStyle(document.activeElement);
                    return [document.activeElement.id || document.activeElement.dataset.map,
                        style.outlineStyle, parseFloat(style.outlineWidth)];
                }"""
            )
        )
    assert [name for name, *_ in stops] == [
        "thumbnails",  # the button that shows all has nothing to do yet
        "map",
        "pan_up",
        "pan_left",
        "fit",
        "pan_right",
    ]
    assert {(style, width) for _, style, width in stops} == {("solid", 3)}


def test_a_photo_can_be_chosen_from_the_list(page: Page):
    page.locator("#list summary").click()
    page.locator("#next").click()
    row = page.locator("#rows tr").nth(3)
    path = row.locator(".path").text_content() or ""
    row.get_by_role("button", name=f"Choisir {path}").click()
    expect(page.locator("#panel dd").nth(2)).to_have_text(path)
    expect(page.locator("#rows tr").nth(3)).to_have_attribute("aria-current", "true")
    expect(page.locator("#pages")).to_have_text("Photos 26 à 50 sur 90")


def test_the_variance_is_plotted_and_said(page: Page):
    count = page.evaluate("GALLERY.components")
    expect(page.locator("#scree-text")).to_contain_text(f"{count} composantes gardent")
    expect(page.get_by_role("img", name=re.compile("Variance gardée"))).to_be_visible()
    expect(page.locator("#scree-plot .k")).to_contain_text(f"k = {count}")


def test_controls_have_names(page: Page):
    _choose(page, _farthest(page))
    page.locator("#list summary").click()
    for role in ("button", "link", "textbox", "searchbox", "combobox", "checkbox", "table"):
        for one in page.get_by_role(role).all():  # type: ignore[arg-type]
            expect(one).to_have_accessible_name(re.compile(r"\S") if role != "table" else "")
    expect(page.locator("#map")).to_have_accessible_name("Carte des photos")
    expect(page.locator("#map")).to_have_accessible_description(re.compile("Flèches"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_light_or_dark_narrow_or_wide(sent: str, opened: Opener, scheme: str, width: int):
    with opened(sent, viewport={"width": width, "height": 800}, color_scheme=scheme) as page:
        expect(page.locator("html")).to_have_attribute("data-ready", re.compile(r"\d+"))
        page.locator("#list summary").click()
        page.locator("#rows button").first.click()
        expect(page.locator(".near button")).to_have_count(8)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", paper)))
        assert (brightness > 600) == (scheme == "light")


def test_a_change_of_scheme_changes_the_colours(page: Page):
    before = _pixels(page)
    apple = page.locator("#groups path").nth(7)
    colour = apple.get_attribute("fill")
    page.emulate_media(color_scheme="dark")
    expect(apple).not_to_have_attribute("fill", str(colour))
    assert _pixels(page) != before


def test_colours_are_seen_on_a_dark_page(sent: str, opened: Opener):
    with opened(sent, color_scheme="dark") as page:
        expect(page.locator("html")).to_have_attribute("data-ready", re.compile(r"\d+"))
        contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) == 15
    assert min(contrasts) >= 3


CONTRASTS = """() => {
            const light = (css) => {
                const [r, g, b] = css.match(/\\d+/g).map((value) => {
                    const c = value / 255;
                    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
            };
            const tile = light(getComputedStyle(document.getElementById("map")).backgroundColor);
            return [...document.querySelectorAll("#groups path")]
                .map((path) => light(getComputedStyle(path).fill) / tile);
        }
"""
"""Contrast of the colours of the legend with the map."""


def test_a_label_that_means_harm_does_none(hostile: str, opened: Opener):
    with opened(hostile, viewport={"width": 1280, "height": 1000}) as page:
        expect(page.locator("#matching")).to_have_text("14 of 14 photos")
        page.locator("#list summary").click()
        for row in range(14):
            page.locator("#rows button").nth(row).click()
            expect(page.locator(".near button")).to_have_count(8)
        shown = {cell.text_content() for cell in page.locator("#rows td:nth-child(2)").all()}
        hidden = str.maketrans("\n\N{RIGHT-TO-LEFT OVERRIDE}", "\ufffd\ufffd")
        assert shown == {label.translate(hidden) for label in HOSTILE}
        assert page.locator("img, b, main script, footer script, [onload], [onerror]").count() == 0
        for label in HOSTILE:
            page.locator("#search").fill(label.translate(hidden))
            expect(page.locator("#matching")).to_have_text("2 of 14 photos")
        page.locator("#search").fill("$& {n} <b>")
        expect(page.locator("#matching")).to_have_text("No label contains “$& {n} <b>”.")
        footer = page.locator("footer").text_content() or ""
        assert footer.strip() == "<script>alert(4)</script>\ufffd"


def test_it_may_not_run_or_ask_for_anything_else(sent: str, opened: Opener, tmp_path: Path):
    folder = Path(shutil.copytree(Path(sent.removeprefix("file://")).parent, tmp_path / "it"))
    index = folder / "index.html"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x.png"
        harm = f'<script>document.title = "run"</script><img src="{address}" alt="">'
        index.write_text(index.read_text().replace("<header>", f"{harm}<header>"))
        with opened(index.as_uri(), complaint="Content Security Policy") as page:
            expect(page.locator("html")).to_have_attribute("data-ready", re.compile(r"\d+"))
            expect(page).not_to_have_title("run")
        with pytest.raises(BlockingIOError):  # nobody has come
            server.accept()


def test_without_its_data_it_says_so(sent: str, opened: Opener, tmp_path: Path):
    shutil.copytree(Path(sent.removeprefix("file://")).parent, tmp_path / "it")
    (tmp_path / "it" / "gallery.js").unlink()
    index = tmp_path / "it" / "index.html"
    with opened(index.as_uri(), complaint="ERR_FILE_NOT_FOUND") as page:
        expect(page.locator("#no-data")).to_be_visible()
        expect(page.locator("#explorer")).to_be_hidden()


def test_the_deliverables_are_there_without_javascript(sent: str, opened: Opener):
    with opened(sent, java_script_enabled=False) as page:
        expect(page.locator(".card a")).to_have_count(4)
        expect(page.locator("#explorer")).to_be_hidden()
        expect(page.locator("noscript")).to_be_visible()
