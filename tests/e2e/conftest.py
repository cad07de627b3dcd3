"""A real browser for the tests of the page; where it is missing they skip with one line, and fail where CI=true."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.console_stage import CHROMIUM, FLAGS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one module: while it runs its driver has this thread's event loop, so no async test may run."""
    if shutil.which(CHROMIUM) is None:
        fault = f"no browser at {CHROMIUM}: run tools/install_browser.sh as root, or set CHROMIUM"
        if os.environ.get("CI") == "true":
            pytest.fail(fault, pytrace=False)
        pytest.skip(fault)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- its import takes a third of a second

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A fresh browser tab; whatever a page complains about, such as a broken content policy, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    # What is refused on purpose (401, 403, 404) is an error to the browser's console, too.
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []
