"""The Dagster UI in a real browser, as a person uses it: look, launch, look again.

Screenshots are left in `artifacts/ui`. One of them, `asset_graph.png`, is that of the README: to
take it anew, run this and copy it to `docs/images`.
"""

import contextlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from fruits_assets.assets.raw_images import IngestConfig
from fruits_assets.checks import CHECKS
from fruits_assets.definitions import ASSETS, DELIVERABLES
from fruits_assets_tests.ui import REPOSITORY, environment_of, graphql, served

pytestmark = pytest.mark.slow

SCREENSHOTS = REPOSITORY / "artifacts" / "ui"
WAIT, RUN = 60_000, 540_000
"""Milliseconds that the page and the run may take, on a busy machine."""
LOCATION = "/locations/__repository__@fruits_assets.definitions"
GROUPS = {
    spec.key.to_user_string(): spec.group_name
    for it in (*ASSETS, *DELIVERABLES)
    for spec in it.specs
}
"""By asset."""
PLACES = """() => {
  const within = (a, b) =>
    a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
  const named = (selector) => [...document.querySelectorAll(selector)].map((it) => [
    [...it.querySelectorAll("*")].find((one) => !one.childElementCount && one.textContent)
      ?.textContent, it.getBoundingClientRect()]).filter(([name]) => name);
  const groups = named("foreignObject.group");
  return Object.fromEntries(named("foreignObject:not(.group)").map(([name, box]) =>
    [name, groups.find(([, around]) => within(box, around))?.[0]]).sort());
}"""
"""Asset -> the group that the graph draws it in."""
LAUNCH = """mutation { launchRun(executionParams: {
  selector: {repositoryLocationName: "fruits_assets.definitions",
             repositoryName: "__repository__", jobName: "gdpr_erasure"},
  runConfigData: {ops: {erase: {config: {paths: ["no/such.jpg"]}}}}
}) { __typename } }"""
ATTACKS = """async ([ui, query]) => {
  const address = `${ui}/graphql?query=${encodeURIComponent(query)}`;
  const body = JSON.stringify({query});
  const json = {"Content-Type": "application/json"};
  const loaded = (tag, set) => new Promise((resolve) => {
    const it = Object.assign(document.createElement(tag), set);
    it.onload = it.onerror = () => resolve(`${tag} ended`);
    document.body.append(it);
  });
  const submitted = (set) => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), {name: `frame${Math.random()}`});
    const form = Object.assign(document.createElement("form"), {target: frame.name, ...set});
    const field = {type: "hidden", name: "query", value: query};
    form.append(Object.assign(document.createElement("input"), field));
    document.body.append(frame, form);
    frame.onload = () => resolve("form ended");
    form.submit();
  });
  const fetched = (where, how) => fetch(where, how).then((it) => it.type, (error) => error.name);
  const socket = () => new Promise((resolve) => {
    const it = new WebSocket(`${ui.replace("http", "ws")}/graphql`, "graphql-ws");
    it.onopen = () => resolve("socket open");
    it.onerror = () => resolve("socket refused");
  });
  return {
    image: await loaded("img", {src: address}),
    script: await loaded("script", {src: address}),
    frame: await loaded("iframe", {src: address}),
    get_form: await submitted({method: "get", action: `${ui}/graphql`}),
    form: await submitted({method: "post", action: address}),
    text_form: await submitted({method: "post", action: address, enctype: "text/plain"}),
    get: await fetched(address, {mode: "no-cors", credentials: "include"}),
    post: await fetched(`${ui}/graphql`, {method: "POST", mode: "no-cors", body}),
    asked: await fetched(`${ui}/graphql`, {method: "POST", headers: json, body}),
    beacon: navigator.sendBeacon(address, body),
    socket: await socket(),
  };
}"""
"""Whatever a page can send to another origin; none of it may raise the number of runs."""
ASKED = """async (query) => (await fetch("/graphql", {
  method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({query})
})).json()"""


@pytest.fixture(scope="module")
def address(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the UI, as `make ui` starts it."""
    folder = tmp_path_factory.mktemp("ui")
    environment = environment_of(photos, folder)
    with served(environment=environment, log=folder / "log") as port:
        graphql(port, "{ version }")
        yield f"http://localhost:{port}"


@contextlib.contextmanager
def visit(browser: Browser, url: str, *, theme: Any = "light", **context: Any) -> Iterator[Page]:
    """A page of the UI, on which nothing may fail."""
    wrong: list[str] = []
    context = {"viewport": {"width": 1600, "height": 1000}, **context}
    with contextlib.closing(browser.new_context(color_scheme=theme, **context)) as own:
        page = own.new_page()
        page.set_default_timeout(WAIT)
        page.on("console", lambda it: wrong.extend([it.text] if it.type == "error" else []))
        page.on("pageerror", lambda error: wrong.append(f"raised: {error}"))
        page.on("response", lambda it: wrong.extend([it.url] if it.status >= 400 else []))
        page.goto(url)
        yield page
    assert not wrong


@pytest.fixture(scope="module", params=["127.0.0.1", "localhost"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """A page of another site, and one of another port of the same site."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title><body></body>")

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - named by http.server

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://{request.param}:{server.server_address[1]}"
        server.shutdown()


def _runs(address: str) -> int:
    port = int(address.rpartition(":")[2])
    return graphql(port, "{ runsOrError { ... on Runs { count } } }")["runsOrError"]["count"]


def test_a_page_of_another_origin_launches_nothing(address: str, elsewhere: str, browser: Browser):
    before, answers = _runs(address), []
    with contextlib.closing(browser.new_context()) as context:
        context.on("response", lambda it: answers.append((it.url, it.status)))
        page = context.new_page()
        page.goto(elsewhere)
        done = page.evaluate(ATTACKS, [address, LAUNCH])
        with page.expect_popup() as opened:
            page.evaluate("(url) => void window.open(url)", f"{address}/graphql?query={LAUNCH}")
        opened.value.wait_for_load_state()
        page.wait_for_function("() => document.readyState === 'complete'")
    assert _runs(address) == before
    assert (done["asked"], done["socket"]) == ("TypeError", "socket refused")
    refused = [status for url, status in answers if url.startswith(address)]
    assert len(refused) >= 9
    assert set(refused) == {403}


def test_a_page_of_the_ui_launches_what_others_could_not(address: str, browser: Browser):
    before = _runs(address)
    with visit(browser, address) as page:
        launched = page.evaluate(ASKED, LAUNCH)
    assert launched == {"data": {"launchRun": {"__typename": "LaunchRunSuccess"}}}
    assert _runs(address) == before + 1


@pytest.fixture(scope="module")
def materialized(address: str, browser: Browser) -> str:
    """Address of the UI, in which somebody has clicked on "Materialize all" and has waited."""
    with visit(browser, f"{address}/asset-groups") as page:
        page.get_by_role("button", name="Materialize all").click()
        page.get_by_role("link", name="View", exact=True).click()
        ended = page.get_by_text("Success", exact=True).or_(page.get_by_text("Failure", exact=True))
        ended.first.wait_for(timeout=RUN)
        page.get_by_text("RUN_SUCCESS").or_(page.get_by_text("RUN_FAILURE")).first.wait_for()
        page.screenshot(path=SCREENSHOTS / "run.png")
        assert page.get_by_text("Failure", exact=True).count() == 0
    return address


def graph(page: Page) -> dict[str, str | None]:
    """Expands all groups of the asset graph; asset -> the group that it is drawn in."""
    page.locator("foreignObject").first.wait_for()
    page.keyboard.press("Alt+e")
    declared = dict(sorted(GROUPS.items()))
    with contextlib.suppress(PlaywrightTimeoutError):
        page.wait_for_function(
            f"declared => JSON.stringify(({PLACES})()) === JSON.stringify(declared)", arg=declared
        )
    return page.evaluate(PLACES)


def test_the_graph_shows_every_asset_in_its_group(address: str, browser: Browser):
    with visit(browser, f"{address}/asset-groups") as page:
        assert graph(page) == GROUPS


def test_the_graph_turns_green(
    materialized: str, browser: Browser, capsys: pytest.CaptureFixture[str]
):
    every = len(GROUPS) - 1
    retina = {"viewport": {"width": 1640, "height": 1300}, "device_scale_factor": 2}
    with visit(browser, f"{materialized}/asset-groups", **retina) as page:
        assert graph(page) == GROUPS
        page.locator("foreignObject [style*='accent-green']").nth(every).wait_for()
        Image.open(io.BytesIO(page.screenshot(clip=_around(page)))).quantize(64).save(
            SCREENSHOTS / "asset_graph.png", optimize=True
        )
    larger = {"viewport": {"width": 3600, "height": 2600}}
    with visit(browser, f"{materialized}/asset-groups", **larger) as page:
        assert graph(page) == GROUPS
        materialized_ones = page.locator("foreignObject").get_by_text("Materialized", exact=True)
        materialized_ones.nth(every).wait_for()
        page.screenshot(path=SCREENSHOTS / "asset_graph_large.png", clip=_around(page))
    with capsys.disabled():
        print(f"\nscreenshots: {SCREENSHOTS}")  # noqa: T201 - for whoever runs the tests


def _around(page: Page) -> Any:
    """The part of the page that the groups cover, with a margin."""
    boxes = [it.bounding_box() for it in page.locator("foreignObject.group").all()]
    left, top = (min(it[name] for it in boxes if it) - 8 for name in ("x", "y"))
    right, bottom = (
        max(it[start] + it[length] for it in boxes if it) + 8
        for start, length in (("x", "width"), ("y", "height"))
    )
    seen, toolbar = page.viewport_size, page.get_by_role("button", name="Materialize all")
    above = toolbar.bounding_box()
    assert seen
    assert above
    assert above["y"] + above["height"] < top, "the graph is cut off above"
    assert bottom < seen["height"], "the graph is cut off below"
    assert right < seen["width"], "the graph is cut off on the right"
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


@pytest.mark.parametrize("place", ["/asset-groups", f"{LOCATION}/jobs/fruits_job"])
def test_a_launchpad_has_defaults_without_errors_and_descriptions(
    place: str, address: str, browser: Browser
):
    with visit(browser, address + place) as page:
        launch = page.get_by_role("button", name="Materialize all")
        launch.locator("xpath=following::button[1]").click()
        page.get_by_text("Open launchpad").click()
        page.get_by_text("No errors", exact=True).wait_for()
        page.get_by_text("No missing config", exact=True).wait_for()
        page.get_by_text("max_rejected").first.click()
        description = IngestConfig.model_fields["max_rejected"].description or ""
        page.get_by_text(description).first.wait_for()
        page.screenshot(path=SCREENSHOTS / f"launchpad_{place.rpartition('/')[2]}.png")


@pytest.mark.parametrize("asset", sorted(GROUPS))
def test_every_check_is_green(asset: str, materialized: str, browser: Browser):
    specs = [one for it in (*CHECKS, *ASSETS, *DELIVERABLES) for one in it.check_specs]
    declared = sorted(one.name for one in specs if one.asset_key.to_user_string() == asset)
    with visit(browser, f"{materialized}/assets/{asset}?view=checks") as page:
        if not declared:
            page.get_by_text("No checks").first.wait_for()
            return
        page.get_by_text(f"Checks ({len(declared)})").wait_for()
        for name in declared:
            page.get_by_text(name, exact=True).first.wait_for()
        page.get_by_text("Succeeded", exact=True).nth(len(declared) - 1).wait_for()
        page.get_by_text("Latest execution").wait_for()
        page.screenshot(path=SCREENSHOTS / f"checks_{asset}.png")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("asset", "pictures"),
    [
        ("raw_images", ["images_per_class", "contact_sheet"]),
        ("rejected_images", ["rejected_files"]),
        ("pca_model", ["scree_plot"]),
        ("pca_features", ["map_of_the_photos"]),
    ],
)
def test_pictures_are_rendered(
    asset: str,
    pictures: list[str],
    theme: str,
    materialized: str,
    browser: Browser,
):
    with visit(browser, f"{materialized}/assets/{asset}", theme=theme) as page:
        for name in pictures:
            row = page.get_by_role("row").filter(has=page.get_by_text(name, exact=True))
            row.get_by_text("[Show Markdown]").click()
            dialog = page.get_by_role("dialog")
            picture = dialog.locator("img")
            picture.wait_for()
            page.wait_for_function("it => it.complete", arg=picture.element_handle())
            assert picture.evaluate("it => it.naturalWidth") == 1000
            assert _is_dark(dialog) == (theme == "dark")
            page.screenshot(path=SCREENSHOTS / f"{name}_{theme}.png")
            page.keyboard.press("Escape")
            dialog.wait_for(state="detached")


def _is_dark(dialog: Locator) -> bool:
    """Whether its title stands on a dark ground."""
    with Image.open(io.BytesIO(dialog.screenshot())) as shown:
        return float(np.asarray(shown.convert("L"))[12, -30]) < 128
