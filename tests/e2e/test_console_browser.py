"""The console's page in a real Chromium, as the person on call uses it."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from connector.testing.broker import EmbeddedBroker
from tests.e2e import console_stage as stage
from tests.integration.events import datum_bytes, event, single_object

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LETTERS = f"{stage.GROUP}.dead-letters"
REPLAYS = f"{stage.GROUP}.replay"
AUDIT = f"{stage.GROUP}.audit"
TOKEN = "open-sesame-2026"


LOOK = """(() => {
  const now = document.activeElement, bar = now.querySelector("rect.bar");
  const mark = bar ? getComputedStyle(bar).stroke : getComputedStyle(now).outlineStyle;
  return [mark === "none" ? "" : now.tagName, now.name, now.type];
})()"""
"""The element in focus, its tag only where it is marked; its name and kind."""


class Site(NamedTuple):
    """A broker, the members' port, and two consoles: an open one, and one with token, mask and audit topic."""

    broker: EmbeddedBroker
    members: stage.Members
    url: str
    guarded: str

    def add(self, *dead_letters: Any) -> None:
        """Write dead letters."""
        stage.produce(self.broker.bootstrap, LETTERS, dead_letters)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything that runs for this module's tests."""
    members = stage.Members()
    told = "HTTP 401, the credential was refused"
    more = {"cause": "misconfigured", "code": "2002", "message": told, "next_probe": stage.moment(-300)}
    members.say("jiguang-prod", "held", since=stage.moment(7800), **more)
    members.say("quick-audience")
    members.say("tracker", in_flight=2)
    guard = {"token": TOKEN, "mask": ["properties.page", "$key", "$header.phone"], "audit_topic": AUDIT}
    with EmbeddedBroker() as broker:
        for topic in ("user-events", LETTERS, REPLAYS, AUDIT):
            broker.create(topic)
        stage.produce(broker.bootstrap, LETTERS, stage.mixed(120, seconds=40_000))
        plain = stage.configuration(broker.bootstrap, members.url)
        guarded = stage.configuration(broker.bootstrap, members.url, host="0.0.0.0", **guard)
        with stage.consoles(tmp_path_factory.mktemp("site"), plain, guarded) as (url, other):
            yield Site(broker, members, url, other)
    members.close()


def until_shown(tab: Page, address: str, text: str) -> None:
    """Load a page until it shows a text: Kafka's news take a moment to arrive."""
    deadline = time.monotonic() + stage.WAIT_SECONDS
    while True:
        tab.goto(address)
        if text in tab.content():
            return
        assert time.monotonic() < deadline, f"{address} does not show {text!r}: {tab.locator('main').inner_text()}"
        time.sleep(0.1)


def sign_in(tab: Page, site: Site, token: str = TOKEN) -> None:
    """Fill in the form of the guarded console."""
    tab.goto(f"{site.guarded}/")
    tab.get_by_label("Your name, for the audit log").fill("Noor")
    tab.get_by_label("Token").fill(token)
    tab.get_by_role("button", name="Sign in").click()


def test_a_person_finds_a_cause_opens_a_record_replays_it_and_sees_it_resolved(site: Site, tab: Page) -> None:
    """From the first page to a replayed record: what is wrong, since when, what to do, and then it is done."""
    mine = [stage.dead_letter(90_001 + one, code="4199", message="[4199] not known here") for one in range(2)]
    site.add(*mine)
    until_shown(tab, site.url, "4199")
    assert re.match(
        r"jiguang-prod is held \(misconfigured\) since \d\d:\d\d UTC, for 2 h 10 min", tab.locator("h1").inner_text()
    )
    card = tab.locator("article").inner_text()
    for part in (
        "2002",
        "HTTP 401, the credential was refused",
        "WHAT TO DO",
        "A secret from a file is read at each probe",
    ):
        assert part in card

    row = tab.locator("table.kinds tr", has_text="4199")
    row.get_by_role("link").click()
    assert tab.locator("tbody tr").count() == 2
    tab.locator("tbody tr", has_text="user-90001").get_by_role("link").click()
    page = tab.locator("main").inner_text()
    for part in (
        "[4199] not known here",
        "The vendor refused this record when it was sent alone",
        '"cuid": 10090001',
        "4bf92f35",
    ):
        assert part in page
    fragment = json.loads(tab.get_by_label("The fragment of a request to jiguang-prod").inner_text())
    assert (fragment["cuid"], fragment["properties"]["page"]) == (10090001, "/90001")
    dead_letter = tab.url

    tab.get_by_role("link", name="Replay").click()
    assert tab.locator("h1").inner_text() == "Replay 1 dead letter?"
    tab.get_by_role("button", name="Replay 1 dead letter").click()
    tab.get_by_text("1 of 1 dead letter replayed").wait_for()
    tab.locator("h1 .chip", has_text="done").wait_for()
    until_shown(tab, dead_letter, "This dead letter was replayed")
    tab.goto(f"{site.url}/dead-letters?code=4199")
    assert "user-90001" not in tab.content()
    assert "user-90002" in tab.content()
    tab.goto(f"{site.url}/dead-letters?code=4199&all=1")
    assert tab.locator("tr.resolved").count() == 1
    replayed = stage.read_topic(site.broker.bootstrap, REPLAYS)
    sent = [dict(message.headers()) for message in replayed if message.key() == b"user-90001"]
    assert [(one["dlq-replays"], one["dlq-destination"]) for one in sent] == [(b"1", b"jiguang-prod")]


def test_what_would_fail_again_is_kept_back_with_its_reason(site: Site, tab: Page) -> None:
    """A replay of several keeps back those that break today's rules, says why, and replays the others."""
    broken = single_object(datum_bytes(event(91_000, eventName="")))
    good = [stage.dead_letter(91_001 + one, code="4198") for one in range(3)]
    site.add(*good, stage.dead_letter(91_000, code="4198", value=broken))
    until_shown(tab, f"{site.url}/dead-letters?code=4198", "1 to 4 of 4")
    tab.locator(".group", has_text="All 4 matching").get_by_role("link", name="Replay").click()
    tab.get_by_role("button", name="Replay 4 dead letters").click()
    tab.get_by_text("3 of 4 dead letters replayed, 1 kept back").wait_for()
    assert "jiguang.eventName.required" in tab.locator("main").inner_text()
    until_shown(tab, f"{site.url}/dead-letters?code=4198", "1 to 1 of 1")


def test_discarded_dead_letters_are_hidden_and_exported_ones_are_whole(site: Site, tab: Page) -> None:
    """Only ticked dead letters are discarded; a full export has the exact bytes of each record, resolved or not."""
    mine = [stage.dead_letter(92_000 + one, code="4197") for one in range(3)]
    site.add(*mine)
    until_shown(tab, f"{site.url}/dead-letters?code=4197", "1 to 3 of 3")
    tab.locator("tr", has_text="user-92001").get_by_role("checkbox").check()
    tab.locator(".group", has_text="Selected").get_by_role("button", name="Discard").click()
    tab.get_by_role("button", name="Discard 1 dead letter").click()
    tab.get_by_text("1 of 1 dead letter discarded").wait_for()
    until_shown(tab, f"{site.url}/dead-letters?code=4197", "1 to 2 of 2")

    tab.goto(f"{site.url}/dead-letters?code=4197&all=1")
    tab.locator(".group", has_text="All 3 matching").get_by_role("link", name="Export").click()
    with tab.expect_download() as started:
        tab.get_by_role("button", name="Export 3 dead letters").click()
    rows = [json.loads(line) for line in Path(started.value.path()).read_text(encoding="utf-8").splitlines()]
    assert {base64.b64decode(row["key"]): base64.b64decode(row["value"]) for row in rows} == {
        key: value for key, value, _ in mine
    }
    assert sorted(row["state"] for row in rows) == ["discarded", "open", "open"]
    assert all(row["headers"] == [{"name": "trace", "value": base64.b64encode(b"4bf92f35").decode()}] for row in rows)
    tab.get_by_text("3 of 3 dead letters exported").wait_for()


def test_dead_letters_are_found_by_header_event_field_text_and_time(site: Site, tab: Page) -> None:
    """What is typed into the page's filters leaves exactly what matches, also several at once; masked is refused.

    Kills: a filter that is dropped from the address, a list that shows everything while it is not searched yet.
    """
    now = time.time()
    kinds = ((b"a", "/x", 30), (b"b", "/x", 30), (b"a", "/y", 30), (b"a", "/x", 9000))
    for number, (trace, page, age) in enumerate(kinds, 96_000):
        value = single_object(datum_bytes(event(number, properties={"page": page, "note": f"note-{number}-礼"})))
        own: Any = {"value": value, "headers": (("trace", trace),), "failed_at": now - age}
        site.add(stage.dead_letter(number, code="4193", **own))
    everything = f"{site.url}/dead-letters?code=4193"
    until_shown(tab, everything, "1 to 4 of 4")

    def filtered(name: str, text: str, *wanted: int) -> None:
        tab.locator(f"form.filters input[name={name}]").last.fill(text)
        tab.get_by_role("button", name="Filter").click()
        until_shown(tab, tab.url, f"1 to {len(wanted)} of {len(wanted)}")
        keys = tab.locator("tbody td.key").all_inner_texts()
        assert sorted(keys) == [f"user-{number}" for number in wanted]

    filtered("where", "header.trace=a", 96_000, 96_002, 96_003)
    filtered("where", "event.properties.page=/x", 96_000, 96_003)
    filtered("until", stage.moment(3600)[:19], 96_003)
    tab.goto(everything)
    filtered("contains", "note-96002-礼", 96_002)
    tab.goto(everything)
    filtered("since", stage.moment(3600)[:19], 96_000, 96_001, 96_002)

    sign_in(tab, site)
    for name, text in (("where", "event.properties.page=/x"), ("where", "header.phone=1"), ("contains", "/x")):
        tab.goto(f"{site.guarded}/dead-letters")
        tab.locator(f"form.filters input[name={name}]").last.fill(text)
        tab.get_by_role("button", name="Filter").click()
        told = tab.locator("main").inner_text()
        assert "cannot be searched for, because console.mask hides" in told
        assert "user-96" not in told


def test_a_payload_of_script_is_shown_and_never_run(site: Site, tab: Page) -> None:
    """Markup in a key, a header, a message, a code or an event stands on the page as text.

    Kills: a text that is put into a page without being escaped.
    """
    evil = '<script>window.hit = 1</script><img src=x onerror="window.hit = 1">\''
    value = single_object(datum_bytes(event(93_000, properties={"page": evil})))
    given: dict[str, Any] = {
        "code": f"4196{evil}",
        "message": evil,
        "key": evil.encode(),
        "value": value,
        "field": evil,
    }
    site.add(stage.dead_letter(93_000, headers=((evil, evil.encode()),), request_id=evil, **given))
    mine = f"/dead-letters?field={evil.replace('<', '%3C').replace('=', '%3D')}"
    until_shown(tab, site.url + mine, "4196")
    for address in ("/", "/dead-letters", "/dead-letters?cause=refused"):
        tab.goto(site.url + address)
        assert tab.locator("main script, main img").count() == 0
    tab.goto(site.url + mine)
    tab.locator("tbody a").first.click()
    tab.get_by_role("heading", name="The original record").wait_for()
    assert tab.locator("main").inner_text().count(evil) >= 5
    assert tab.locator("script").count() == 1
    assert tab.locator("main img").count() == 0
    assert tab.evaluate("window.hit") is None


def test_a_wrong_token_shows_nothing_and_the_right_one_is_audited(site: Site, tab: Page) -> None:
    """Who has no token sees the form only, whatever they ask for; who has it acts by name, in log and audit topic."""
    tab.goto(f"{site.guarded}/dead-letters")
    assert tab.url.endswith("/sign-in")
    sign_in(tab, site, "open-sesame-2025")
    assert "Wrong token." in tab.content()
    assert tab.context.request.get(f"{site.guarded}/dead-letters", headers={"Sec-Fetch-Mode": "cors"}).status == 401
    refused = tab.context.request.get(f"{site.guarded}/jobs", headers={"Authorization": "Bearer wrong-token"})
    assert "dead letter" not in refused.text()
    sign_in(tab, site)
    tab.get_by_role("button", name="Sign out Noor").wait_for()
    tab.goto(f"{site.guarded}/confirm?action=recheck&cause=gave_up")
    tab.get_by_role("button", name=re.compile("Re-check")).click()
    tab.locator("h1 .chip", has_text="done").wait_for()
    tab.get_by_role("button", name="Sign out Noor").click()
    tab.goto(f"{site.guarded}/")
    assert tab.url.endswith("/sign-in")
    said = [json.loads(message.value()) for message in stage.read_topic(site.broker.bootstrap, AUDIT)]
    assert {"sign_in", "recheck"} <= {one["action"] for one in said}
    assert all(one["who"].startswith("Noor (") for one in said)


def test_masked_fields_are_neither_shown_nor_exported(site: Site, tab: Page) -> None:
    """What console.mask names is in no page and no export: not in the event, the fragment, the key or the message."""
    secret = "+86 138 0000 0000"
    value = single_object(datum_bytes(event(94_000, properties={"page": secret, "city": "Shanghai"})))
    message = f"[4195] page {secret} is refused"
    headers = (("phone", b"13800000000"), ("copy", secret.encode()))
    hidden = stage.dead_letter(94_000, code="4195", key=b"k-94000", value=value, message=message, headers=headers)
    broken = stage.dead_letter(
        94_001, code="4195", cause="decode", value=b"broken " + secret.encode(), message="broken"
    )
    site.add(hidden, broken)
    sign_in(tab, site)
    until_shown(tab, f"{site.guarded}/dead-letters?code=4195", "1 to 2 of 2")
    assert "k-94000" not in tab.content()
    assert secret not in tab.content()
    for number in range(2):
        tab.goto(f"{site.guarded}/dead-letters?code=4195")
        tab.locator("tbody a").nth(number).click()
        tab.get_by_role("heading", name="The original record").wait_for()
        shown = tab.content()
        for text in (secret, "k-94000", "k-94001", "13800000000", "+86%20138"):
            assert text not in shown
    tab.goto(f"{site.guarded}/confirm?action=export&code=4195")
    with tab.expect_download() as started:
        tab.get_by_role("button", name="Export 2 dead letters").click()
    text = Path(started.value.path()).read_text(encoding="utf-8")
    for one in (
        secret,
        "k-94000",
        "13800000000",
        base64.b64encode(value).decode(),
        base64.b64encode(b"k-94000").decode(),
    ):
        assert one not in text
    rows = {row["cause"]: row for row in map(json.loads, text.splitlines())}
    assert rows["refused"]["event"]["properties"] == {"page": "•••", "city": "Shanghai"}
    assert rows["decode"]["event"] is None


def test_everything_can_be_done_by_keyboard(site: Site, tab: Page) -> None:
    """Tab, space and enter are enough to tick and check a dead letter; the focus is always visible."""
    site.add(stage.dead_letter(95_000, code="4194"))
    until_shown(tab, f"{site.url}/dead-letters?code=4194", "1 to 1 of 1")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    seen = []
    for _ in range(80):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate(LOOK))
        if seen[-1][1:] == ["id", "checkbox"]:
            break
    assert seen[-1][1:] == ["id", "checkbox"]
    assert [one for one in seen if not one[0]] == []
    tab.keyboard.press("Space")
    while tab.evaluate("document.activeElement.value") != "recheck":
        tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="Re-check 1 dead letter?").wait_for()
    while tab.evaluate("document.activeElement.textContent") != "Re-check 1 dead letter":
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    tab.get_by_text("1 of 1 dead letter would be accepted").wait_for()


def test_times_are_shown_in_the_readers_zone_on_demand(site: Site, browser: Browser) -> None:
    """One button turns every time into the reader's own zone, on each page, and back; UTC is what comes first."""
    context = browser.new_context(timezone_id="Asia/Shanghai")
    try:
        page = context.new_page()
        page.goto(f"{site.url}/dead-letters")
        times = page.locator("table time.at")
        before = times.first.inner_text()
        assert before.endswith(" UTC")
        page.get_by_role("button", name="Local time").click()
        assert all(text.endswith(" +08:00") for text in times.all_inner_texts())
        page.goto(f"{site.url}/")
        assert re.search(r"since \d\d:\d\d \+08:00, for 2 h", page.locator("h1").inner_text())
        page.get_by_role("button", name="UTC").click()
        assert re.search(r"since \d\d:\d\d UTC, for 2 h", page.locator("h1").inner_text())
    finally:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone_in_light_and_dark(site: Site, browser: Browser, scheme: Any) -> None:
    """On a phone no page is wider than the screen, and the colours follow the system's."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    try:
        page = context.new_page()
        for address in ("/", "/dead-letters", "/confirm?action=replay&cause=refused", "/jobs", "/members"):
            page.goto(site.url + address)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, address
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        levels = [int(number) for number in re.findall(r"\d+", ground)]
        assert (sum(levels[:3]) < 3 * 64) is (scheme == "dark"), ground
    finally:
        context.close()
