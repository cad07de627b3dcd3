"""The port says how a member is, and takes actions from those who may act."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import aiohttp
import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import capture_logs

from connector.clock import SystemClock
from connector.errors import StartupError
from connector.operations.member import ActionRefused, act, skip
from connector.pipeline.skips import SkipResult
from connector.records import Position
from connector.runtime.http import Server
from connector.runtime.member import Check, Member
from connector.runtime.reload import Reloaded
from connector.telemetry import logs
from connector.telemetry.metrics import Metrics


class FakeMember(Member):
    """A member with one destination."""

    def __init__(self) -> None:
        super().__init__("g", SystemClock(), 22.0)
        self.well = Check(ok=True)
        self.state = "flowing"
        self.skipped: list[tuple[str, int, int, str | None]] = []

    def health(self) -> Check:
        """Return what a test wants."""
        return self.well

    def readiness(self) -> Check:
        """Return the wanted result, with a held destination as an additional reason."""
        return Check(self.well.ok, [*self.well.reasons, "one is held"])

    def status(self) -> Mapping[str, Any]:
        """Return the one destination."""
        return {"destinations": {"one": {"state": self.state, "cause": None}}, "group": "g", "version": "1"}

    async def hold(self, name: str) -> None:
        """Hold the destination; any other name is a KeyError."""
        {"one": None}[name]
        self.state = "held"

    async def release(self, name: str) -> int:
        """Release the destination; any other name is a KeyError."""
        {"one": None}[name]
        self.state = "flowing"
        return 7

    async def probe(self, name: str) -> None:
        """Probe the destination; any other name is a KeyError."""
        {"one": None}[name]
        self.state = "probing"

    async def skip(self, position: Position, destination: str | None) -> SkipResult:
        """Skip offset 1, promise to skip 2, and refuse any other; a destination but `one` is a KeyError."""
        if destination is not None:
            {"one": None}[destination]
        self.skipped.append((*position, destination))
        states: dict[int, Literal["skipped", "pending"]] = {1: "skipped", 2: "pending"}
        return SkipResult(states.get(position.offset, "refused"), f"offset {position.offset}")


@pytest.fixture
def member() -> FakeMember:
    """The member that the server shows."""
    return FakeMember()


@pytest.fixture
async def server(member: FakeMember) -> AsyncIterator[Server]:
    """A server with the token `the-token` on a free port."""
    server = Server(host="127.0.0.1", ports=[0], token=SecretStr("the-token"), metrics=Metrics(), member=member)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def open_server(member: FakeMember) -> AsyncIterator[Server]:
    """A server without a token on a free port."""
    server = Server(host="127.0.0.1", ports=[0], token=None, metrics=Metrics(), member=member)
    await server.start()
    yield server
    await server.stop()


TOKEN_TEXT = SecretStr("the-token")
TOKEN = {"Authorization": "Bearer the-token"}


async def ask(server: Server, method: str, path: str, **headers: str) -> tuple[int, str, Mapping[str, str]]:
    """Return status, body and headers of an answer."""
    url = f"http://127.0.0.1:{server.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_metrics(server: Server) -> None:
    """/metrics is Prometheus' text format."""
    status, body, headers = await ask(server, "GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE connector_requests_total counter" in body


async def test_health_and_readiness(server: Server, member: FakeMember) -> None:
    """A well member answers 200, another 503 with its reasons; reasons of a well one do not fail it."""
    assert (await ask(server, "GET", "/healthz"))[0] == 200
    status, body, _ = await ask(server, "GET", "/readyz")
    assert (status, json.loads(body)) == (200, {"ok": True, "reasons": ["one is held"]})
    member.well = Check(ok=False, reasons=["not polled for 60 s"])
    status, body, _ = await ask(server, "GET", "/healthz")
    assert (status, json.loads(body)) == (503, {"ok": False, "reasons": ["not polled for 60 s"]})
    assert (await ask(server, "GET", "/readyz"))[0] == 503


@pytest.mark.promise("P14")
async def test_half_a_character_breaks_no_page(server: Server, member: FakeMember) -> None:
    """The message of a registry or a proxy may hold a lone surrogate: /status and /readyz show a question mark.

    Kills: a status that answers 500 for as long as a hold lasts.
    """
    message = "HTTP 503, code 1: a\ud800b"
    member.well = Check(ok=False, reasons=[message])
    status, body, _ = await ask(server, "GET", "/readyz")
    assert (status, json.loads(body)["reasons"][0]) == (503, "HTTP 503, code 1: a?b")


async def test_status_is_json_with_nulls(server: Server) -> None:
    """/status is the member's own, nothing left out, and not cached."""
    status, body, headers = await ask(server, "GET", "/status")
    assert status == 200
    assert json.loads(body)["destinations"] == {"one": {"state": "flowing", "cause": None}}
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/status"])
async def test_pages_are_read_only(server: Server, path: str) -> None:
    """GET and HEAD alone are taken."""
    status, body, _ = await ask(server, "HEAD", path)
    assert (status, body) == (200, "")
    for method in ("POST", "PUT", "DELETE"):
        assert (await ask(server, method, path))[0] == 405


async def test_actions_from_this_machine(open_server: Server, member: FakeMember) -> None:
    """Without a token a client on this machine holds and releases, and gets the new state."""
    status, body, _ = await ask(open_server, "POST", "/destinations/one/hold")
    assert (status, json.loads(body)["state"], member.state) == (200, "held", "held")
    status, body, _ = await ask(open_server, "POST", "/destinations/one/release")
    assert (status, json.loads(body)["state"], member.state) == (200, "flowing", "flowing")
    assert json.loads(body)["released"] == 7


async def test_a_configured_token_is_demanded_from_everyone(server: Server, member: FakeMember) -> None:
    """Loopback too needs the token once there is one; with it any caller may act. Kills: trusting a local proxy."""
    assert (await ask(server, "POST", "/destinations/one/hold"))[0] == 403
    assert member.state == "flowing"
    assert (await ask(server, "POST", "/destinations/one/hold", **TOKEN, Host="x.example", Via="1.1 x"))[0] == 200


@pytest.mark.parametrize(("offset", "status", "state"), [(1, 200, "skipped"), (2, 202, "pending"), (3, 409, "refused")])
async def test_a_record_is_skipped(
    open_server: Server, member: FakeMember, offset: int, status: int, state: str
) -> None:
    """The result of a skip is shown by the status, the state and a message; a local caller needs no token."""
    answer = await ask(open_server, "POST", f"/records/a.b-c/7/{offset}/skip?destination=one")
    assert (answer[0], json.loads(answer[1])["state"]) == (status, state)
    assert f"offset {offset}" in answer[1]
    assert member.skipped == [("a.b-c", 7, offset, "one")]


async def test_a_skip_needs_a_place_and_the_right(open_server: Server, member: FakeMember) -> None:
    """A place that is none, an unknown destination, a GET and a relayed request without the token skip nothing."""
    assert (await ask(open_server, "POST", "/records/t/x/1/skip"))[0] == 404
    assert (await ask(open_server, "POST", "/records/t/0/-1/skip"))[0] == 404
    assert (await ask(open_server, "POST", "/records/t/0/1/skip?destination=two"))[0] == 404
    assert (await ask(open_server, "GET", "/records/t/0/1/skip"))[0] == 405
    assert (await ask(open_server, "POST", "/records/t/0/1/skip", Origin="x"))[0] == 403
    assert member.skipped == []


async def test_a_probe_is_an_action_like_the_others(open_server: Server, member: FakeMember) -> None:
    """From this machine, or with the token; an unknown destination is 404."""
    assert (await ask(open_server, "POST", "/destinations/one/probe", Origin="x"))[0] == 403
    assert (await ask(open_server, "POST", "/destinations/two/probe"))[0] == 404
    assert member.state == "flowing"
    status, body, _ = await ask(open_server, "POST", "/destinations/one/probe")
    assert (status, json.loads(body)["state"]) == (200, "probing")


async def test_a_reload_answers_what_came_of_it(open_server: Server, member: FakeMember) -> None:
    """What is applied and left as JSON, a fault as 422 with its text; no one from elsewhere reloads."""
    asked: list[str] = []

    async def reload(by: str) -> Reloaded:
        asked.append(by)
        return Reloaded(["unrouted"], ["kafka.group_id"]) if len(asked) == 1 else Reloaded(error="routes[0]: wrong")

    member.reload = reload
    assert (await ask(open_server, "POST", "/reload", Origin="x"))[0] == 403
    assert (await ask(open_server, "GET", "/reload"))[0] == 405
    assert asked == []
    status, body, _ = await ask(open_server, "POST", "/reload")
    assert (status, json.loads(body)) == (200, {"applied": ["unrouted"], "left": ["kafka.group_id"]})
    status, body, _ = await ask(open_server, "POST", "/reload")
    assert (status, json.loads(body)) == (422, {"error": "routes[0]: wrong"})


async def test_events_are_read_as_the_status_is(open_server: Server, member: FakeMember) -> None:
    """From a time on, not by a stranger's page. Kills: a second page that DNS rebinding can read."""
    member.timeline.note({"event": "connector.started", "version": "1"})
    status, body, _ = await ask(open_server, "GET", "/events?since=1")
    assert (status, [each["event"] for each in json.loads(body)["events"]]) == (200, ["connector.started"])
    assert json.loads((await ask(open_server, "GET", "/events?since=99999999999999"))[1]) == {"events": []}
    assert (await ask(open_server, "GET", "/events?since=x"))[0] == 400
    assert (await ask(open_server, "GET", "/events", Host="rebound.example.com"))[0] == 403


async def test_another_token_holds_at_once(server: Server, member: FakeMember) -> None:
    """After a reload the new token is demanded, and the old one opens nothing."""
    server.use(SecretStr("another-token"), ["new.example.com"])
    assert (await ask(server, "POST", "/destinations/one/hold", **TOKEN))[0] == 403
    new = {"Authorization": "Bearer another-token"}
    assert (await ask(server, "POST", "/destinations/one/hold", **new))[0] == 200
    assert (await ask(server, "GET", "/status", Host="new.example.com"))[0] == 200


async def test_an_unknown_destination_is_told(open_server: Server) -> None:
    """404 names what there is."""
    status, body, _ = await ask(open_server, "POST", "/destinations/two/hold")
    assert status == 404
    assert "it has: one" in json.loads(body)["error"]


async def test_an_action_by_get_is_refused(server: Server, member: FakeMember) -> None:
    """A link that is followed changes nothing."""
    assert (await ask(server, "GET", "/destinations/one/hold"))[0] == 405
    assert member.state == "flowing"


@pytest.mark.parametrize(
    "header",
    [
        *("Origin", "Sec-Fetch-Site", "Referer", "Cookie", "X-Forwarded-For", "X-Real-IP", "Forwarded", "Via"),
        *("X-Request-Id", "Cf-Connecting-Ip", "X-Envoy-Internal"),
    ],
)
async def test_a_relayed_action_needs_a_token(open_server: Server, member: FakeMember, header: str) -> None:
    """What came through a browser or a proxy is not from this machine, whatever its address.

    Kills: a list of known headers, which the next proxy does not use.
    """
    assert (await ask(open_server, "POST", "/destinations/one/hold", **{header: "x"}))[0] == 403
    assert member.state == "flowing"


@pytest.mark.parametrize("host", ["connector.example.com", "127.0.0.1.example.com", "192.0.2.1:8080", "connector"])
async def test_an_action_for_another_host_is_refused(open_server: Server, member: FakeMember, host: str) -> None:
    """A Host that is not loopback came by a name that someone else pointed here, or through a proxy."""
    assert (await ask(open_server, "POST", "/destinations/one/hold", Host=host))[0] == 403
    assert member.state == "flowing"
    for own in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        assert (await ask(open_server, "POST", "/destinations/one/hold", Host=own))[0] == 200


async def test_an_action_by_http_1_0_is_refused(open_server: Server, member: FakeMember) -> None:
    """A proxy that adds no header at all speaks HTTP/1.0 by default."""
    said = await converse(open_server, b"POST /destinations/one/hold HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert said.startswith(b"HTTP/1.0 403")
    assert member.state == "flowing"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("127.0.0.1:8080", 200), ("10.1.2.3", 200), ("[fe80::1]:8080", 200), ("localhost", 200), ("connector", 200)),
        *(("connector-0.connector.kafka.svc:8080", 200), ("c.kafka.svc.cluster.local", 200), ("own.example.com", 200)),
        *(("rebound.example.com", 403), ("127.0.0.1.example.com", 403), ("connector.dev", 403), ("svc.evil", 403)),
    ],
)
async def test_status_is_not_read_under_a_strangers_name(member: FakeMember, host: str, status: int) -> None:
    """A page of a domain that was pointed to this address reads nothing; addresses and local names are served."""
    server = Server(
        host="127.0.0.1",
        ports=[0],
        token=SecretStr("the-token"),
        metrics=Metrics(),
        member=member,
        hosts=["own.example.com"],
    )
    await server.start()
    try:
        assert (await ask(server, "GET", "/status", Host=host))[0] == status
        assert (await ask(server, "GET", "/status", Host=host, **TOKEN))[0] == 200
    finally:
        await server.stop()


async def converse(server: Server, sent: bytes) -> bytes:
    """Send bytes to the port and return all that comes back until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


async def test_every_response_has_the_security_headers(
    open_server: Server, member: FakeMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages, 404, 405, 500 and the answer to a malformed request; none names the software's version.

    Kills: headers only on what a handler returns; a traceback or the request's own text in a response or the log.
    """

    def fail() -> Check:
        raise RuntimeError("hidden")

    monkeypatch.setattr(member, "health", fail)
    with capture_logs() as failed:
        found = {path: await ask(open_server, "GET", path) for path in ("/status", "/metrics", "/none", "/healthz")}
    assert [line["event"] for line in failed] == ["port.failed"]
    assert {path: status for path, (status, _, _) in found.items()} == {
        "/status": 200,
        "/metrics": 200,
        "/none": 404,
        "/healthz": 500,
    }
    for _, body, headers in found.values():
        assert headers["Server"] == "connector"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "hidden" not in body
    with capture_logs() as logged:
        said = await converse(open_server, b"GET / HTTP/1.1\r\nAuthorization: Bearer s3cret\r\nbroken\x00line\r\n\r\n")
    assert said.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"Server: connector\r\n" in said
    assert b"nosniff" in said
    assert b"s3cret" not in said
    assert "s3cret" not in str(logged)


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer ", "Bearer", "Basic the-token", "the-token", "Bearer ÿ"])
async def test_a_wrong_token_is_refused(server: Server, member: FakeMember, given: str) -> None:
    """Anything but the token itself is refused, and the answer does not repeat it."""
    status, body, _ = await ask(server, "POST", "/destinations/one/hold", Authorization=given)
    assert status == 403
    assert "the-token" not in body
    assert member.state == "flowing"


async def test_without_a_token_none_fits(member: FakeMember) -> None:
    """Where no token is set, an empty one opens nothing."""
    server = Server(host="127.0.0.1", ports=[0], token=None, metrics=Metrics(), member=member)
    await server.start()
    try:
        status, _, _ = await ask(server, "POST", "/destinations/one/hold", Authorization="Bearer ", Origin="x")
        assert status == 403
    finally:
        await server.stop()


async def test_a_taken_port_is_named(server: Server, member: FakeMember) -> None:
    """A port in use is a StartupError that names the setting, and nothing stays open."""
    other = Server(host="127.0.0.1", ports=[server.port], token=None, metrics=Metrics(), member=member)
    with pytest.raises(StartupError, match=rf"server\.port: 127\.0\.0\.1:{server.port} is in use"):
        await other.start()
    await other.stop()


async def test_a_foreign_address_is_named(member: FakeMember) -> None:
    """An address that is not this machine's is a StartupError that names the setting."""
    server = Server(host="192.0.2.1", ports=[0], token=None, metrics=Metrics(), member=member)
    with pytest.raises(StartupError, match=r"server\.host: cannot listen on 192\.0\.2\.1"):
        await server.start()


async def test_the_level_of_the_log(open_server: Server) -> None:
    """An action like the others: from loopback or with the token; the answer to a wrong value says what is allowed."""
    level = logging.getLogger().level
    try:
        status, body, _ = await ask(open_server, "POST", "/log/debug?sample=5")
        assert (status, json.loads(body)) == (200, {"level": "debug", "sample": 5})
        assert (await ask(open_server, "POST", "/log/info", Origin="x"))[0] == 403
        assert logs.level() == "debug"
        for path in ("/log/loud", "/log/info?sample=0", "/log/info?sample=x"):
            assert (await ask(open_server, "POST", path))[0] == 400
        assert (await ask(open_server, "GET", "/log/info"))[0] == 405
    finally:
        logs.set_level("info", 100)
        logging.getLogger().setLevel(level)
        structlog.reset_defaults()


async def test_stopped_twice(server: Server) -> None:
    """Stopping again, or without a start, is nothing."""
    await server.stop()
    await server.stop()


async def test_the_callers_half(server: Server, member: FakeMember) -> None:
    """`act` takes an action at a running member and returns the state; a refusal has the member's message."""
    url = f"http://127.0.0.1:{server.port}/"
    assert (await asyncio.to_thread(act, "hold", "one", url, TOKEN_TEXT))[:2] == ("held", 0)
    assert (await asyncio.to_thread(act, "release", "one", url, TOKEN_TEXT))[:2] == ("flowing", 7)
    assert member.state == "flowing"
    assert await asyncio.to_thread(skip, Position("t/x", 0, 1), "one", url, TOKEN_TEXT) == "offset 1"
    assert await asyncio.to_thread(skip, Position("t", 0, 2), None, url, TOKEN_TEXT) == "offset 2"
    assert member.skipped == [("t/x", 0, 1, "one"), ("t", 0, 2, None)]
    with pytest.raises(ActionRefused, match="offset 3"):
        await asyncio.to_thread(skip, Position("t", 0, 3), None, url, TOKEN_TEXT)
    with pytest.raises(ActionRefused, match="it has: one"):
        await asyncio.to_thread(act, "hold", "t/wo", url, TOKEN_TEXT)
    with pytest.raises(ActionRefused, match="server.token"):
        await asyncio.to_thread(act, "hold", "one", url, SecretStr("wrong-token"))
    await server.stop()
    with pytest.raises(ActionRefused, match="no member answers at"):
        await asyncio.to_thread(act, "hold", "one", url, None)
    with pytest.raises(ActionRefused, match="http://host:port"):
        await asyncio.to_thread(act, "hold", "one", "file:///etc/hostname", None)
