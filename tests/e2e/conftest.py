"""A real browser for the tests of the console. Without it they are skipped, or fail if CI=true."""

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
    """Chromium for one module. Its driver uses this thread's event loop, so no async test may run meanwhile."""
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
    """A new browser tab. The test fails if the page reports an error, such as a violation of the content policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    # The browser reports deliberate refusals (401, 403, 404) as errors, too.
    assert [one for one in complaints if not one.startswith("Failed to load resource")] == []
