"""Every state of the page in light, dark and on a phone: nothing is clipped, and the documents show it.

`make screenshots` (SCREENSHOTS=write) writes docs/screenshots; without it the pictures are only taken and checked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from connector.testing.broker import EmbeddedBroker
from tests.e2e import console_stage as stage
from tools.servers import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER: Final = ROOT / "docs" / "screenshots"
PAGE: Final = ROOT / "docs" / "console-states.md"
LETTERS: Final = f"{stage.GROUP}.dead-letters"
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"viewport": {"width": 1000, "height": 620}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1000, "height": 620}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 780}, "color_scheme": "light", "is_mobile": True},
}
CLIPPED: Final = """() => [...document.querySelectorAll("main *, body > header *")].filter((each) => {
  const box = each.getBoundingClientRect();
  const scrolls = each.closest(".scroll, .source, svg");
  return box.width > 0 && box.height > 0 && !scrolls && box.right > document.documentElement.clientWidth + 1;
}).map((each) => each.tagName + "." + each.className + ": " + each.textContent.slice(0, 60))"""
"""Elements that reach over the right edge, without those that scroll by themselves."""
REFUSED: Final = "HTTP 401, the credential was refused: appKey 或者项目 id 无效"


def _hold(cause: str, message: str, **more: Any) -> dict[str, Any]:
    """Return a hold as /status has it."""
    blank = {"code": None, "since": stage.moment(1500), "next_probe": stage.moment(-42), "set_aside": None}
    return {**blank, "cause": cause, "message": message, **more}


def _delivers(members: stage.Members) -> None:
    for name in ("jiguang-prod", "quick-audience", "tracker"):
        members.say(name, in_flight=2)


def _held(members: stage.Members, *holds: dict[str, Any]) -> None:
    worst = holds[0]
    members.say("jiguang-prod", "held", **{key: worst[key] for key in worst if key != "set_aside"}, holds=list(holds))


def _credential(members: stage.Members) -> None:
    _held(members, _hold("misconfigured", REFUSED, code="4100"))


def _outage(members: stage.Members) -> None:
    _held(members, _hold("outage", "HTTP 503 for five batches, none accepted between", code="http_503"))


def _storm(members: stage.Members) -> None:
    message = (
        "too many of the last records are refused with 4101 (事件不存在: page_view_v2); probable cause: the vendor "
        "does not know the event yet. Register it, run `connector release jiguang-prod`, or set storm: off"
    )
    _held(members, _hold("storm", message, code="4101", set_aside=1250))


def _several(members: stage.Members) -> None:
    storm = _hold("storm", "too many records are refused with 4101 (事件不存在)", code="4101", set_aside=310)
    by_hand = _hold("operator", "held by an operator", next_probe=None, since=stage.moment(300))
    _held(members, _hold("misconfigured", REFUSED, code="4100"), storm, by_hand)


def _waiting(members: stage.Members) -> None:
    record = {
        "topic": "user-events",
        "partition": 1,
        "offset": 1204,
        "since": stage.moment(1300),
        "attempts": 17,
        "reason": "HTTP 500 服务器内部错误",
    }
    members.say("jiguang-prod", "retrying", message="user-events[1]@1204 waits alone", waiting=[record])


def _kafka_down(members: stage.Members) -> None:
    members.reasons = ["broker: all brokers are down (kafka:9092/bootstrap: Connection refused)"]


def _no_partitions(members: stage.Members) -> None:
    members.reasons = ["may not read the group growth: grant READ on it"]
    members.partitions = []


def _faulty_file(members: stage.Members) -> None:
    members.config_fault = "The configuration has 1 fault: routes[0].to[1]: unknown destination 'trakcer' (line 31)"


class State(NamedTuple):
    """A state of the page: its words, what members say, and a text that the page shows then."""

    title: str
    arrange: Callable[[stage.Members], None]
    shown: str
    path: str = "/"


STATES: Final = {
    "delivers": State("All destinations deliver", _delivers, "All 3 destinations deliver"),
    "credential": State("A credential is wrong", _credential, "jiguang-prod is held (misconfigured)"),
    "outage": State("A vendor does not answer", _outage, "jiguang-prod is held (outage)"),
    "storm": State("A storm", _storm, "jiguang-prod is held (storm)"),
    "several": State("Several holds at once", _several, "3 holds"),
    "waiting": State("A record waits alone", _waiting, "waits alone"),
    "kafka-down": State("Kafka is down", _kafka_down, "Kafka is not reachable"),
    "no-partitions": State("A member gets no partitions", _no_partitions, "No member is ready"),
    "reload": State("A reload failed", _faulty_file, "The configuration is faulty"),
    "timeline": State("The last 24 hours", _delivers, "delivers again", "/timeline"),
}


class Site(NamedTuple):
    """The members' port and the console."""

    members: stage.Members
    url: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A console with some dead letters and one member. Without a Chinese font vendors' words would be boxes."""
    listed = (
        subprocess.run(["fc-list", ":lang=zh"], capture_output=True, check=False) if shutil.which("fc-list") else None
    )
    if listed is not None and not listed.stdout:
        pytest.skip("no Chinese font: run tools/install_browser.sh as root")
    members = stage.Members()
    _delivers(members)
    members.events = list(_events())
    with EmbeddedBroker() as broker:
        for topic in ("user-events", LETTERS, f"{stage.GROUP}.replay"):
            broker.create(topic)
        stage.produce(broker.bootstrap, LETTERS, stage.mixed(60, seconds=40_000))
        settings = stage.configuration(broker.bootstrap, members.url)
        with stage.consoles(tmp_path_factory.mktemp("screenshots"), settings) as (url,):
            yield Site(members, url)
    members.close()


def _events() -> Iterator[dict[str, Any]]:
    """Yield what happened in a night."""
    told: tuple[tuple[int, str, dict[str, Any]], ...] = (
        (9000, "connector.started", {"version": "0.1.0"}),
        (8990, "partitions.assigned", {"partitions": ["user-events[0]", "user-events[1]", "user-events[2]"]}),
        (5400, "destination.state", {"destination": "jiguang-prod", "state": "held", "cause": "misconfigured",
                                     "code": "4100", "message": REFUSED}),
        (5100, "config.reloaded", {"applied": ["destinations.jiguang-prod.project_secret"], "left": []}),
        (5099, "destination.state", {"destination": "jiguang-prod", "state": "flowing", "was": "held"}),
        (2400, "storm.began", {"destination": "tracker", "cause": "refused", "code": "http_400", "dead_letters": 250,
                               "message": "too many of the last records are refused"}),
        (1800, "storm.ended", {"destination": "tracker", "cause": "refused", "code": "http_400", "records": 812}),
        (600, "record.skip_by_operator", {"topic": "user-events", "partition": 1, "offset": 1204, "state": "skipped"}),
        (120, "replay.read", {"records": 250}),
    )  # fmt: skip
    for number, (ago, name, fields) in enumerate(told):
        yield {"id": f"r-{number}", "at": stage.moment(ago), "member": "growth-0:8080", "event": name, **fields}


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_whole_on_every_screen(name: str, site: Site, browser: Browser, tmp_path: Path) -> None:
    """In light, dark and on a phone the headline is in sight and nothing reaches over the edge.

    Kills: a word, a command or a table that a phone cuts off; a state that no picture shows.
    """
    state, members = STATES[name], site.members
    members.reasons, members.partitions, members.config_fault = [], stage.OWNED, None
    _delivers(members)
    state.arrange(members)
    folder = FOLDER if os.environ.get("SCREENSHOTS") == "write" else tmp_path
    folder.mkdir(exist_ok=True)
    for look, options in LOOKS.items():
        context = browser.new_context(**options)
        context.set_default_timeout(30_000)
        try:
            tab = context.new_page()
            _until_shown(tab, site.url + state.path, state.shown)
            assert tab.evaluate(CLIPPED) == [], look
            assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), look
            file = folder / f"{name}-{look}.jpg"
            tab.screenshot(path=file, type="jpeg", quality=60)
        finally:
            context.close()
        assert 3_000 < file.stat().st_size < 120_000


def _until_shown(tab: Page, address: str, text: str) -> None:
    """Load a page until it shows a text."""
    deadline = time.monotonic() + stage.WAIT_SECONDS
    while True:
        tab.goto(address)
        if text in tab.inner_text("body"):
            return
        assert time.monotonic() < deadline, f"{address} does not show {text!r}: {tab.inner_text('main')[:600]}"
        time.sleep(0.2)


def test_the_documents_show_every_state() -> None:
    """docs/console-states.md has a heading and three pictures for each state, and every picture exists and is small."""
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"\]\(screenshots/([a-z-]+)-(light|dark|phone)\.jpg\)", text)
    assert sorted(shown) == sorted((name, look) for name in STATES for look in LOOKS)
    assert [state.title for state in STATES.values() if f"## {state.title}\n" not in text] == []
    sizes = {file.name: file.stat().st_size for file in FOLDER.glob("*.jpg")}
    assert sizes.keys() == {f"{name}-{look}.jpg" for name in STATES for look in LOOKS}
    assert sum(sizes.values()) < 2_000_000


def page() -> str:
    """Return the page with the pictures of every state."""
    lines = [
        "# What the console shows in each state",
        "",
        "Made by `make screenshots` in Chromium: light, dark, and on a phone. The first sentence names the worst",
        "problem; below is what to do. See [console.md](console.md) for how to read it.",
        "",
    ]
    for name, state in STATES.items():
        lines += [f"## {state.title}", ""]
        lines += [f"![{state.title}, {look}](screenshots/{name}-{look}.jpg)" for look in LOOKS]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
