"""Hold, release and skip from the page: a question first, then audited, then sent to the members that it concerns."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from connector.console.members import destinations, read_response
from tests.unit.console.console_site import Site, running


class Member:
    """A member's port: notes what it is asked to do, and answers as a member does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.address = ""

    async def act(self, request: web.Request) -> web.Response:
        """Note an action, and answer."""
        self.asked.append((request.method, request.path_qs, request.headers.get("Authorization")))
        if request.path.endswith("/skip"):
            return web.json_response({"state": "refused", "error": "there is no such record"}, status=409)
        if request.path.startswith("/destinations/away"):
            raise web.HTTPFound("http://127.0.0.1:9/elsewhere")
        return web.json_response({"destination": "jg", "state": "held"})


@asynccontextmanager
async def member() -> AsyncIterator[Member]:
    """Run a member's port."""
    found = Member()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", found.act)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """Something that keeps cookies as a browser does."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


def know(site: Site, *members: Member, owner: Member) -> None:
    """Have the console know these members, all with two destinations; one of them owns orders[1]."""
    sampler = site.console._state.sampler
    for task in site.console._tasks:
        task.cancel()
    flowing = {name: {"state": "flowing"} for name in ("jg", "away")}
    for each in members:
        partition = {"topic": "orders/eu", "partition": 1}
        status = {"destinations": flowing, "partitions": [partition] if each is owner else []}
        sampler.responses = [*sampler.responses, read_response(each.address, status)]
        sampler.targets[each.address] = (URL(each.address), None)
    sampler.destinations = destinations([], sampler.responses)


async def confirm(browser: aiohttp.ClientSession, site: Site, query: dict[str, str]) -> dict[str, str]:
    """Return the fields of the question's form."""
    async with browser.get(f"{site.url}/members/confirm", params=query) as answer:
        text = await answer.text()
        assert answer.status == 200, text
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text))


async def post(browser: aiohttp.ClientSession, site: Site, fields: dict[str, str]) -> tuple[int, str]:
    """Answer the question, and return what comes of it."""
    async with browser.post(f"{site.url}/members/actions", data=fields) as answer:
        return answer.status, await answer.text()


async def test_hold_reaches_every_member_after_it_is_audited(browser: aiohttp.ClientSession) -> None:
    """Each member that has the destination is asked, with the members' token, and the page shows each answer."""
    async with member() as one, member() as two, running(Site([], server_token="member-token")) as site:
        know(site, one, two, owner=one)
        fields = await confirm(browser, site, {"action": "hold", "destination": "jg"})
        assert one.asked == []
        status, text = await post(browser, site, fields)
        assert (status, text.count("now held")) == (200, 2)
        assert one.asked == two.asked == [("POST", "/destinations/jg/hold", "Bearer member-token")]
        (record,) = map(json.loads, site.audit.records)
        assert (record["action"], record["destination"], record["who"]) == ("hold", "jg", "anonymous (127.0.0.1)")


async def test_probe_reaches_the_members_after_a_question(browser: aiohttp.ClientSession) -> None:
    """The question says what is sent; the form is audited and goes to every member of the destination."""
    site = Site([])
    async with member() as one, running(site):
        know(site, one, owner=one)
        fields = await confirm(browser, site, {"action": "probe", "destination": "jg"})
        assert (await post(browser, site, fields))[0] == 200
        assert [path for _, path, _ in one.asked] == ["/destinations/jg/probe"]
        (record,) = map(json.loads, site.audit.records)
        assert (record["action"], record["destination"]) == ("probe", "jg")


async def test_skip_asks_the_owner_only(browser: aiohttp.ClientSession) -> None:
    """The member that owns the partition is asked, and its refusal is shown in its own words.

    Kills: a topic's name that changes the path.
    """
    place = {"topic": "orders/eu", "partition": "1", "offset": "1204"}
    async with member() as one, member() as two, running(Site([])) as site:
        know(site, one, two, owner=two)
        fields = await confirm(browser, site, {"action": "skip", "destination": "jg", **place})
        status, text = await post(browser, site, fields)
        assert (status, "there is no such record" in text, one.asked) == (502, True, [])
        assert two.asked == [("POST", "/records/orders%2Feu/1/1204/skip?destination=jg", None)]


async def test_nothing_is_done_without_form_audit_or_role(browser: aiohttp.ClientSession) -> None:
    """Without its CSRF token, without an audit record, or with the role `look`, no member is asked.

    Kills: an action that is sent before it is recorded.
    """
    async with member() as one, running(Site([])) as site:
        know(site, one, owner=one)
        fields = await confirm(browser, site, {"action": "release", "destination": "jg"})
        assert (await post(browser, site, {**fields, "csrf": "0" * 64}))[0] == 403
        site.audit.broken = True
        assert (await post(browser, site, fields))[0] == 503
        assert one.asked == []
        for wrong in ({"action": "stop"}, {"destination": "x"}, {"action": "skip"}, {"action": "skip", "offset": "x"}):
            assert (await post(browser, site, {**fields, **wrong}))[0] == 400
        assert one.asked == []
    async with member() as one, running(Site([], tokens={"look": "look-look-look"})) as site:
        know(site, one, owner=one)
        bearer = {"Authorization": "Bearer look-look-look"}
        for method, path in (("GET", "confirm?action=hold&destination=jg"), ("POST", "actions")):
            async with browser.request(method, f"{site.url}/members/{path}", headers=bearer) as answer:
                assert answer.status == 403
        assert one.asked == []


async def test_redirect_of_a_member_is_not_followed(browser: aiohttp.ClientSession) -> None:
    """The members' token goes to the members only."""
    async with member() as one, running(Site([], server_token="member-token")) as site:
        know(site, one, owner=one)
        fields = await confirm(browser, site, {"action": "hold", "destination": "away"})
        status, text = await post(browser, site, fields)
        assert (status, "HTTP 302" in text) == (502, True)
