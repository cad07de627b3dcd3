"""No action without token, form and name, and every action is in the audit log before it begins."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from structlog.testing import capture_logs

from connector.config.loader import ConsoleSettings
from connector.console.application import Console
from connector.console.security import HEADERS, SignInGuard, _source, demand_token, host_allowed
from connector.dead_letters.replay import Order, Step
from connector.errors import StartupError
from connector.telemetry.listener import most_connections
from tests.unit.console.console_site import Site, running
from tests.unit.dead_letters.test_dead_letter_reader import dead

TOKEN = "open-sesame-2026"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    """An open console with three dead letters."""
    async with running(Site([dead(number) for number in range(3)])) as started:
        yield started


@pytest.fixture
async def guarded() -> AsyncIterator[Site]:
    """A console with a token."""
    async with running(Site([dead(1)], token=TOKEN, hosts=["console.example.com"])) as started:
        yield started


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """Something that keeps cookies as a browser does."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def question(browser: aiohttp.ClientSession, site: Site, action: str = "discard") -> dict[str, str]:
    """Return the fields of the form that asks before an action on all dead letters."""
    while True:
        async with browser.get(f"{site.url}/confirm?action={action}") as answer:
            text = await answer.text()
        if "nothing to do" not in text:
            return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text))


async def post(browser: aiohttp.ClientSession, site: Site, fields: dict[str, str], **headers: str) -> tuple[int, str]:
    """Post a form and return what comes of it."""
    async with browser.post(f"{site.url}/jobs", data=fields, headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text()


async def test_a_form_without_its_token_is_refused_and_nothing_is_done(
    site: Site, browser: aiohttp.ClientSession
) -> None:
    """No CSRF token, a made-up one, another session's, or a request that says it is of another site: 403, nothing done.

    Kills: a POST that is taken by its cookie alone.
    """
    fields = await question(browser, site)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as other:
        strange = await question(other, site)
    wrong: list[dict[str, str]] = [
        {**fields, "csrf": ""},
        {**fields, "csrf": "0" * 64},
        {**fields, "csrf": strange["csrf"]},
        {name: value for name, value in fields.items() if name != "csrf"},
    ]
    for form in wrong:
        assert (await post(browser, site, form))[0] == 403
    assert (await post(browser, site, fields, Origin="http://evil.example"))[0] == 403
    assert (await post(browser, site, fields, **{"Sec-Fetch-Site": "cross-site"}))[0] == 403
    assert site.replays.orders == []
    assert site.audit.records == []
    assert (await post(browser, site, fields, Origin=site.url))[0] == 303


async def test_what_cannot_be_audited_is_not_done(site: Site, browser: aiohttp.ClientSession) -> None:
    """The audit record stands before the action begins, with who, what and how many; without it nothing happens.

    Kills: an action that begins before its audit record is written.
    """
    site.audit.broken = True
    fields = await question(browser, site)
    status, text = await post(browser, site, fields)
    assert (status, "the audit topic is gone" in text, site.replays.orders) == (503, True, [])
    site.audit.broken = False
    assert (await post(browser, site, fields))[0] == 303
    (record,) = map(json.loads, site.audit.records)
    assert (record["action"], record["dead_letters"], record["who"]) == ("discard", 3, "anonymous (127.0.0.1)")
    assert {"at", "job", "filter", "force", "edited"} <= record.keys()


async def test_the_number_that_was_confirmed_is_the_number_that_is_meant(
    site: Site, browser: aiohttp.ClientSession
) -> None:
    """If more or fewer dead letters match by now, the question is asked again."""
    fields = await question(browser, site)
    status, text = await post(browser, site, {**fields, "expected": "2"})
    assert (status, "has changed since the question" in text, site.replays.orders) == (200, True, [])


async def test_a_foreign_name_gets_nothing(guarded: Site, browser: aiohttp.ClientSession) -> None:
    """A Host that is neither an address nor a configured name is refused, whatever else is right (DNS rebinding)."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    for host, status in (("rebound.example", 421), ("console.example.com", 200), ("127.0.0.1:1", 200)):
        async with browser.get(f"{guarded.url}/dead-letters", headers={**bearer, "Host": host}) as answer:
            assert (answer.status, "Dead letters" in await answer.text()) == (status, status == 200), host


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        *(("127.0.0.1:8090", True), ("[::1]:8090", True), ("localhost", True), ("10.1.2.3", True)),
        *(("console.example.com:443", True), ("CONSOLE.example.com", True), ("", False), ("evil.example", False)),
        *(("127.0.0.1.evil.example", False), ("localhost.evil.example", False), ("a@localhost:x", False)),
        *(("[::1", False), ("localhost:port", False)),
    ],
)
def test_names_by_which_the_page_may_be_reached(header: str, allowed: bool) -> None:
    """Addresses and localhost always, names only where they are configured."""
    assert host_allowed(header, ["console.example.com"]) is allowed


@pytest.mark.parametrize(
    "path", ["/", "/dead-letters", "/dead-letters/x", "/jobs", "/jobs/1", "/confirm?action=replay", "/nope"]
)
async def test_without_the_token_every_page_is_the_form(
    guarded: Site, browser: aiohttp.ClientSession, path: str
) -> None:
    """Nothing but the form is shown to who has not signed in, and to a program nothing at all."""
    async with browser.get(guarded.url + path, headers={"Sec-Fetch-Mode": "navigate"}) as answer:
        assert str(answer.url).endswith("/sign-in")
        assert "refused" not in await answer.text()
    async with browser.get(guarded.url + path, headers={"Sec-Fetch-Mode": "cors"}) as answer:
        assert answer.status == 401
    async with browser.get(guarded.url + path, headers={"Authorization": f"Bearer {TOKEN}x"}) as answer:
        assert str(answer.url).endswith("/sign-in")


async def test_a_program_with_the_token_needs_no_form(guarded: Site, browser: aiohttp.ClientSession) -> None:
    """`Authorization: Bearer` is enough to see and to act: no browser sends it for another site."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    fields = {"action": "recheck", "cause": "refused"}
    async with browser.post(f"{guarded.url}/jobs", data=fields, headers=bearer, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/jobs/1")
    assert json.loads(guarded.audit.records[0])["who"] == "bearer (127.0.0.1)"


async def sign_in(browser: aiohttp.ClientSession, site: Site, token: str, **headers: str) -> int:
    """Fill in the form, and return the status of its answer."""
    async with browser.get(f"{site.url}/sign-in", headers=headers) as answer:
        found = re.search(r'name="csrf" value="(\w+)"', await answer.text())
    assert found is not None
    form = {"csrf": found[1], "token": token, "name": "Noor"}
    url = f"{site.url}/sign-in"
    async with browser.post(url, data=form, headers=headers, allow_redirects=False) as answer:
        return answer.status


BEHIND_PROXY: dict[str, Any] = {"proxy": {"addresses": ["127.0.0.1"], "user_header": "X-User", "act": ["noor"]}}
"""A console behind a proxy at this machine, which reports who asks and from where."""


async def test_wrong_tokens_of_one_source_stop_that_source_only(browser: aiohttp.ClientSession) -> None:
    """After ten wrong tokens, by form or by header, the right one has to wait; another source signs in at once.

    Kills: a limit that everyone shares, guesses by header that are not counted.
    """
    async with running(Site([dead(1)], token=TOKEN, **BEHIND_PROXY)) as site:
        for number in range(5):
            guess = {"Authorization": f"Bearer wrong-{number}", "X-Forwarded-For": "10.0.0.9"}
            async with browser.get(f"{site.url}/", headers={**guess, "Sec-Fetch-Mode": "cors"}) as answer:
                assert answer.status == 401
        bad = {"X-Forwarded-For": "10.9.9.9, 10.0.0.9"}
        assert [await sign_in(browser, site, "wrong-token", **bad) for _ in range(5)] == [401] * 5
        assert await sign_in(browser, site, TOKEN, **bad) == 429
        right = {"Authorization": f"Bearer {TOKEN}", **bad}
        async with browser.get(f"{site.url}/", headers=right) as answer:
            assert answer.status == 429
        assert site.console._state.guard.wrong_tokens == 10
        assert await sign_in(browser, site, TOKEN, **{"X-Forwarded-For": "10.0.0.8"}) == 303


async def test_a_replay_outlives_the_sign_in_that_started_it(browser: aiohttp.ClientSession) -> None:
    """It goes on when its person signs out, shows nothing to a stranger, and keeps who started it.

    Kills: a job that ends with a session, a page of it that needs none.
    """
    site, gate = Site([dead(1)], token=TOKEN), asyncio.Event()
    all_at_once = site.replays.replay

    async def gated(order: Order) -> AsyncGenerator[Step, None]:
        yield Step((), 0, 1)
        await gate.wait()
        async for step in all_at_once(order):
            yield step

    site.replays.replay = gated  # type: ignore[method-assign]  # one that lasts as long as the test wants
    async with running(site):
        assert await sign_in(browser, site, TOKEN) == 303
        async with browser.get(f"{site.url}/confirm?action=replay") as answer:
            (csrf, *_) = re.findall(r'name="csrf" value="(\w+)"', await answer.text())
        form = {"csrf": csrf, "action": "replay", "expected": "1"}
        async with browser.post(f"{site.url}/jobs", data=form, allow_redirects=False) as answer:
            assert answer.status == 303, await answer.text()
        async with browser.post(f"{site.url}/sign-out", data={"csrf": csrf}, allow_redirects=False) as answer:
            assert answer.status == 303
        async with browser.get(f"{site.url}/jobs/1") as answer:
            assert "Replay 1" not in await answer.text()
        gate.set()
        assert await sign_in(browser, site, TOKEN) == 303
        async with browser.get(f"{site.url}/jobs/1") as answer:
            text = await answer.text()
    assert "1 of 1 dead letter replayed" in text
    assert "Started by Noor" in text


async def test_what_a_visitor_writes_in_front_of_the_proxys_header_counts_for_nothing() -> None:
    """A proxy may add a header of its own behind a visitor's: the last one is the source, and two names are none.

    Kills: the first of two headers, by which a visitor picks a name, and a new source for each guess.
    """
    async with running(Site([dead(1)], token=TOKEN, **BEHIND_PROXY)) as site, aiohttp.ClientSession() as visitor:
        for number in range(11):
            lines = [("X-Forwarded-For", f"10.1.1.{number}"), ("X-Forwarded-For", "10.0.0.9")]
            wrong = CIMultiDict([*lines, ("Authorization", "Bearer wrong"), ("Sec-Fetch-Mode", "cors")])
            async with visitor.get(f"{site.url}/", headers=wrong) as answer:
                assert answer.status == (401 if number < 10 else 429)
        names = CIMultiDict([("X-User", "noor"), ("X-User", "kim")])
        async with visitor.get(f"{site.url}/dead-letters", headers=names) as answer:
            assert str(answer.url).endswith("/sign-in")


@pytest.mark.parametrize(
    ("written", "source"),
    [
        *(("10.0.0.9", "10.0.0.9"), ("10.0.0.9:4711", "10.0.0.9"), ("::ffff:10.0.0.9", "10.0.0.9")),
        *(
            ("2001:db8::1", "2001:db8::/64"),
            ("[2001:db8::2]:4711", "2001:db8::/64"),
            ("[2001:db8::3]", "2001:db8::/64"),
        ),
        ("unknown", "unknown"),
    ],
)
def test_an_address_is_one_source_however_a_proxy_writes_it(written: str, source: str) -> None:
    """With its port it is no new source for each guess; IPv4 addresses written as IPv6 are not all the same."""
    assert _source(written) == source


async def test_visits_do_not_end_a_session(guarded: Site, browser: aiohttp.ClientSession) -> None:
    """A thousand visits without a token keep nothing, so a person who signs in stays signed in.

    Kills: a session that is kept for each visit.
    """
    assert await sign_in(browser, guarded, TOKEN) == 303
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as stranger:
        for _ in range(40):
            async with stranger.get(f"{guarded.url}/sign-in") as answer:
                assert answer.status == 200
    assert len(guarded.console._state.guard._sessions) == 1
    async with browser.get(f"{guarded.url}/dead-letters") as answer:
        assert "Sign out Noor" in await answer.text()


async def test_a_program_behind_the_proxy_without_cookies_takes_no_memory(browser: aiohttp.ClientSession) -> None:
    """A monitor that the proxy names keeps no cookie, and ends no one's session however often it asks.

    Kills: a session that is kept for each request that comes without its cookie.
    """
    async with running(Site([dead(1)], token=TOKEN, **BEHIND_PROXY)) as site:
        assert await sign_in(browser, site, TOKEN) == 303
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as monitor:
            for _ in range(40):
                async with monitor.get(f"{site.url}/healthz", headers={"X-User": "kim"}) as answer:
                    assert answer.status == 200
                async with monitor.get(f"{site.url}/jobs", headers={"X-User": "kim"}) as answer:
                    assert "Sign out kim" in await answer.text()
        assert len(site.console._state.guard._sessions) == 1


async def test_a_form_behind_the_proxy_is_of_its_person_only() -> None:
    """What the proxy's person was asked counts for this person and browser, whatever cookie another one plants.

    Kills: a CSRF token of the cookie alone.
    """
    fields: dict[str, dict[str, str]] = {}
    async with running(Site([dead(1)], **BEHIND_PROXY)) as site, aiohttp.ClientSession() as visitor:
        own = {"Cookie": "connector-console=" + "a" * 32}
        for name in ("noor", "kim"):
            async with visitor.get(f"{site.url}/jobs", headers={**own, "X-User": name}) as answer:
                found = re.search(r'name="csrf" value="(\w+)"', await answer.text())
            assert found is not None
            fields[name] = {"csrf": found[1], "action": "discard"}
        for name, status in (("kim", 403), ("noor", 303)):
            headers = {**own, "X-User": "noor"}
            url = f"{site.url}/jobs"
            async with visitor.post(url, data=fields[name], headers=headers, allow_redirects=False) as answer:
                assert answer.status == status


async def test_a_name_that_is_no_text_gets_a_page() -> None:
    """Bytes of a header that are not UTF-8 are shown as question marks. Kills: a page that fails for one name."""
    async with running(Site([dead(1)], **BEHIND_PROXY)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.console.port)
        writer.write(b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User: k\xffm\r\nConnection: close\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert said.startswith(b"HTTP/1.1 200")
    assert b"Sign out k?m" in said


async def test_no_route_changes_anything_for_who_may_only_look() -> None:
    """Every route that is not read with GET or HEAD demands the role `act`, and all but three demand a sign-in.

    Kills: a route that is added without its check.
    """
    tokens = {"look": "look-look-look", "act": "act-act-act-act"}
    async with running(Site([dead(1)], tokens=tokens)) as site, aiohttp.ClientSession() as visitor:
        assert site.console._listener is not None
        routes = [
            (route.method, re.sub(r"\{[^}]*\}", "1", route.resource.canonical))
            for route in site.console._listener._runner.app.router.routes()
            if route.resource is not None
        ]
        changing = {path for method, path in routes if method not in ("GET", "HEAD")}
        assert changing == {"/jobs", "/jobs/1/stop", "/members/actions", "/sign-in", "/sign-out"}
        for method, path in routes:
            for role, headers in (("look", {"Authorization": f"Bearer {tokens['look']}"}), ("none", {})):
                url = site.url + path
                async with visitor.request(method, url, headers=headers, allow_redirects=False) as answer:
                    open_to_all = path in ("/healthz", "/static/1", "/sign-in")
                    if role == "none" and not open_to_all:
                        assert answer.status in (303, 401), (method, path)
                        assert answer.headers.get("Location", "/sign-in") == "/sign-in"
                    elif path in changing and method == "POST" and not path.startswith("/sign-"):
                        assert answer.status == 403, (method, path)
        assert site.audit.records == []


@pytest.mark.parametrize("path", ["/jobs", "/jobs/1/stop", "/members/actions", "/sign-in", "/sign-out"])
async def test_a_body_that_is_no_form_is_refused(site: Site, browser: aiohttp.ClientSession, path: str) -> None:
    """It is the client's fault, and no bug of a page. Kills: an error in the log for each request of a stranger."""
    form, parts = "application/x-www-form-urlencoded", "multipart/form-data"
    bodies = [(b"--x\r\n\r\n", f"{parts}; boundary=x"), (b"x", parts), (b"a=b", f"{form}; charset=nope")]
    with capture_logs() as logged:
        for body, kind in bodies:
            headers = {"Content-Type": kind}
            async with browser.post(site.url + path, data=body, headers=headers) as answer:
                assert answer.status == 400
    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_who_may_only_look_cannot_act(browser: aiohttp.ClientSession) -> None:
    """The token of the role `look` shows every page without its buttons, and whatever it asks to be done is refused.

    Kills: a role that only hides the buttons.
    """
    tokens = {"look": "look-look-look", "act": "act-act-act-act"}
    async with running(Site([dead(1)], tokens=tokens)) as site:
        assert await sign_in(browser, site, tokens["look"]) == 303
        async with browser.get(f"{site.url}/dead-letters") as answer:
            text = await answer.text()
            assert "Dead letters" in text
            assert "Discard" not in text
        async with browser.get(f"{site.url}/confirm?action=discard") as answer:
            assert answer.status == 403
        bearer = {"Authorization": f"Bearer {tokens['look']}"}
        for headers in ({}, bearer):
            async with browser.post(f"{site.url}/jobs", data={"action": "discard"}, headers=headers) as answer:
                assert answer.status == 403
        assert site.replays.orders == []
        bearer = {"Authorization": f"Bearer {tokens['act']}"}
        url = f"{site.url}/jobs"
        async with browser.post(url, data={"action": "discard"}, headers=bearer, allow_redirects=False) as answer:
            assert answer.status == 303


async def test_a_trusted_proxy_signs_people_in(browser: aiohttp.ClientSession) -> None:
    """The proxy's header names the person, and the configuration who of them may act; without it no one is in."""
    async with running(Site([dead(1)], **BEHIND_PROXY)) as site:
        for name, button in (("noor", True), ("kim", False)):
            async with browser.get(f"{site.url}/dead-letters", headers={"X-User": name}) as answer:
                text = await answer.text()
                assert (f"Sign out {name}" in text, "Discard" in text) == (True, button)
    async with running(Site([dead(1)], **BEHIND_PROXY)) as site, aiohttp.ClientSession() as other:
        answer = await other.get(f"{site.url}/dead-letters")
        assert str(answer.url).endswith("/sign-in")


async def test_the_header_of_any_other_address_signs_no_one_in(browser: aiohttp.ClientSession) -> None:
    """Only the proxy's own addresses are believed, and without `console.proxy` no header is."""
    elsewhere: dict[str, Any] = {"proxy": {"addresses": ["10.1.0.0/16"], "user_header": "X-User", "act": ["noor"]}}
    for settings in (elsewhere, {"token": TOKEN}):
        async with running(Site([dead(1)], **settings)) as site:
            answer = await browser.get(f"{site.url}/dead-letters", headers={"X-User": "noor"})
            assert str(answer.url).endswith("/sign-in")


async def test_an_open_console_is_closed_behind_a_proxy(site: Site, browser: aiohttp.ClientSession) -> None:
    """Without a token the console serves this machine, not clients of a proxy on it."""
    for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Via"):
        async with browser.get(f"{site.url}/", headers={name: "10.0.0.9"}) as answer:
            assert answer.status == 403, name


@pytest.mark.parametrize(
    ("version", "host", "status"),
    [("1.0", "127.0.0.1", 403), ("1.1", "203.0.113.7", 403), ("1.1", "[::1]:8090", 200), ("1.1", "localhost", 200)],
)
async def test_an_open_console_is_closed_behind_a_proxy_that_adds_no_header(
    site: Site, version: str, host: str, status: int
) -> None:
    """A proxy shows itself by HTTP/1.0, which none of today's browsers speaks, or by the Host under which it is known.

    Kills: a list of headers alone.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", site.console.port)
    writer.write(f"GET /jobs HTTP/{version}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert int(said.split()[1]) == status


async def test_every_answer_ties_the_browsers_hands(site: Site, browser: aiohttp.ClientSession) -> None:
    """Pages, files, refusals and what is not there carry the same strict headers, and no inline script or style."""
    for path in (
        "/",
        "/dead-letters",
        "/static/console.js",
        "/static/nope",
        "/healthz",
        "/nope",
        "/jobs/7",
        "/dead-letters?since=x",
    ):
        async with browser.get(site.url + path) as answer:
            text = await answer.text()
            for name, value in HEADERS.items():
                if name != "Cache-Control":
                    assert answer.headers.get(name) == value, (path, name)
            assert "style=" not in text
            assert not re.search(r"<script(?! src=\"/static/)|<style|\son\w+=", text), path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


async def test_failures_have_the_headers_and_name_no_software(
    site: Site, browser: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure outside every page, and a malformed request, get the strict headers and no version.

    Kills: a console that does not use the shared listener; headers that only a middleware sets.
    """

    def fail(*_: object) -> None:
        raise RuntimeError("hidden")

    port = site.console.port
    with monkeypatch.context() as broken, capture_logs() as logged:
        broken.setattr(SignInGuard, "_identify", fail)
        async with browser.get(site.url) as answer:
            found = answer.status, "hidden" in await answer.text(), answer.headers["Server"]
            strict = {name: answer.headers.get(name) for name in HEADERS} == dict(HEADERS)
    assert (found, strict) == ((500, False, "connector"), True)
    assert [line["event"] for line in logged] == ["port.failed"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nAuthorization: Bearer s3cret\r\nbroken\x00line\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert b" 400 " in said.partition(b"\r\n")[0]
    assert b"Server: connector\r\n" in said
    assert b"s3cret" not in said
    assert HEADERS["Content-Security-Policy"].encode() in said


async def test_a_crowd_of_half_open_requests_does_not_block_the_page(
    site: Site, browser: aiohttp.ClientSession
) -> None:
    """More connections than the port may have leave it usable. Kills: a console without a bound of connections."""
    crowd = []
    for _ in range(most_connections() + 20):
        crowd.append(await asyncio.open_connection("127.0.0.1", site.console.port))
        crowd[-1][1].write(b"GET / HTTP/1.1\r\nHost:")
    async with browser.get(f"{site.url}/healthz") as answer:
        assert answer.status == 200
    assert await asyncio.wait_for(crowd[0][0].read(), 5) == b""
    for _, writer in crowd:
        writer.close()


async def test_the_session_cookie_is_of_no_use_to_others(guarded: Site, browser: aiohttp.ClientSession) -> None:
    """No script reads it, no other site sends it, and signing in changes it."""
    async with browser.get(f"{guarded.url}/sign-in") as answer:
        found = re.search(r'name="csrf" value="(\w+)"', await answer.text())
        before = answer.cookies["connector-console"]
    assert found is not None
    assert (before["httponly"], before["samesite"], before["path"]) == (True, "Strict", "/")
    form = {"csrf": found[1], "token": TOKEN, "name": "Noor"}
    async with browser.post(f"{guarded.url}/sign-in", data=form, allow_redirects=False) as answer:
        assert answer.status == 303
        assert answer.cookies["connector-console"].value != before.value
    async with browser.get(f"{guarded.url}/dead-letters") as answer:
        assert "Sign out Noor" in await answer.text()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "console.internal"])
def test_no_other_machine_gets_a_page_without_a_token(host: str) -> None:
    """Any address but this machine's own demands a token, with a sentence that says how to set one."""
    with pytest.raises(StartupError, match="console.tokens has no token: set one"):
        demand_token(host, {})
    with pytest.raises(StartupError, match="other machines can reach"):
        Site([], host=host)
    demand_token(host, {"look": TOKEN})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_this_machine_needs_none(host: str) -> None:
    """Loopback is open to everyone on this machine."""
    demand_token(host, {})


def test_a_short_token_is_refused() -> None:
    """A token of less than eight characters is a fault of the configuration."""
    with pytest.raises(ValueError, match="token"):
        ConsoleSettings.model_validate({"token": "short"})


async def test_a_port_in_use_is_said(site: Site) -> None:
    """A second console on the same port does not start and says why."""
    second: Any = Site([], port=site.console.port)
    assert isinstance(second.console, Console)
    with pytest.raises(StartupError, match="is in use by another process"):
        await second.console.start()
