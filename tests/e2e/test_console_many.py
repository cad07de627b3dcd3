"""A hundred thousand dead letters in a real Kafka: the page answers at once, in pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e import console_stage as stage
from tools.servers import Kafka

if TYPE_CHECKING:
    from playwright.sync_api import Page

MANY = 100_000
FIRST_VIEW = 2.0
"""Seconds in which a page is to be seen: what the person on call is promised."""


@pytest.mark.timeout(300)
def test_a_hundred_thousand_dead_letters_stay_usable(
    kafka: Kafka, tab: Page, tmp_path: Path, fresh_name: Callable[[str], str]
) -> None:
    """Overview, list, filter, last page and one record are each seen within two seconds, fifty rows at a time."""
    group = fresh_name("many")
    topic, replay, source = f"{group}.dead-letters", f"{group}.replay", fresh_name("events")
    for name in (topic, replay, source):
        kafka.create_topic(name, 3)
    stage.produce(kafka.bootstrap, topic, stage.mixed(MANY))
    members = stage.Members()
    members.say("jiguang-prod")
    settings = stage.configuration(kafka.bootstrap, members.url)
    settings["kafka"] |= {"topics": [source], "group_id": group}
    with stage.consoles(tmp_path, settings) as (url,):
        seconds = {"while it reads": _seen(tab, f"{url}/", "h1")}
        deadline = time.monotonic() + 120
        while "of 100,000" not in tab.content():
            assert time.monotonic() < deadline, tab.locator("main").inner_text()[:500]
            time.sleep(1.0)
            tab.goto(f"{url}/dead-letters")
        seconds["overview"] = _seen(tab, f"{url}/", "table.kinds")
        seconds["list"] = _seen(tab, f"{url}/dead-letters", "table.dead-letters")
        assert tab.locator("tbody tr").count() == 50
        assert len(tab.content()) < 200_000
        seconds["filter"] = _seen(
            tab, f"{url}/dead-letters?cause=invalid&destination=tracker&since=6h", "table.dead-letters"
        )
        assert set(tab.locator("td .chip.cause").all_inner_texts()) == {"invalid"}
        seconds["last page"] = _seen(tab, f"{url}/dead-letters?page=2000", "table.dead-letters")
        assert "99,951 to 100,000 of 100,000" in tab.content()
        tab.locator("tbody a").first.click()
        address = tab.url
        seconds["record"] = _seen(tab, address, ".source")
        seconds["question"] = _seen(tab, f"{url}/confirm?action=replay&cause=refused", "form.confirm")
    members.close()
    assert {what: taken for what, taken in seconds.items() if taken > FIRST_VIEW} == {}


def _seen(tab: Page, address: str, what: str) -> float:
    """Return the seconds until a part of a page is seen: the best of three, because other tests run too."""
    taken = []
    for _ in range(3):
        began = time.monotonic()
        tab.goto(address, wait_until="commit")
        tab.locator(what).first.wait_for()
        taken.append(time.monotonic() - began)
        if taken[-1] < FIRST_VIEW:
            break
    return min(taken)
