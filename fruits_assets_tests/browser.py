"""A real browser: the system's Chromium, and pages that may fail in nothing."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
Opener = Callable[..., contextlib.AbstractContextManager[Page]]


@pytest.fixture(name="browser", scope="module")
def browser_fixture() -> Iterator[Browser]:
    """For the tests of a module.

    Playwright's event loop runs as long as this lives, and asyncio has no other beside it: what
    Dagster is to make for these tests must be made before, by an autouse fixture of the module.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"there is no browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        # In a container, Chromium has no right to a sandbox of its own.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(name="opened")
def opened_fixture(browser: Browser) -> Opener:
    """Opens a page from a file: it may ask for files only, and complain of nothing.

    Or, with `complaint`, of that.
    """

    @contextlib.contextmanager
    def opened(uri: str, *, complaint: str = "", **context: Any) -> Iterator[Page]:
        wrong: list[str] = []
        with contextlib.closing(browser.new_context(**context)) as own:
            page = own.new_page()
            page.on("console", lambda said: wrong.append(f"{said.type}: {said.text}"))
            page.on("pageerror", lambda error: wrong.append(f"raised: {error}"))
            page.on("requestfailed", lambda it: wrong.append(f"not loaded: {it.url}"))
            page.on("request", lambda it: wrong.extend(_elsewhere(it.url)))
            page.goto(uri)
            yield page
        if complaint:
            assert complaint in "\n".join(wrong)
        else:
            assert not wrong

    return opened


def _elsewhere(url: str) -> list[str]:
    return [] if url.startswith("file:") else [f"asked: {url}"]
