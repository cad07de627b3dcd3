"""A vendor's API on a local port: serves its answers, counts requests, and produces faults on demand.

The vendor's own behaviour is in an `Api`, a pure function from a call to a reply; HTTP, counts and faults are here. A
running simulator is controlled over HTTP: `/_simulator/faults`, `/_simulator/accepted`, `/_simulator/stats`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Protocol, Self
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from connector.clock import Clock, SystemClock
from connector.testing.faults import Call, Fault, FaultPlan, parse_fault

_LARGEST_REQUEST: Final = 64 * 2**20
_SURPLUS_SECONDS: Final = 0.005
_RIGHT_ANSWERS: Final = frozenset({"content_type", "encoding", "surplus", "truncate"})
"""Effects that change how an answer is sent, and not the answer."""
_PROXY_PAGE: Final = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An accepted event, and its deduplication key (None: it has none)."""

    event: dict[str, Any]
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The vendor's answer and its effect: `events` were accepted, `records` is how many the request had."""

    status: int
    body: bytes
    verdict: str
    events: Sequence[AcceptedEvent] = ()
    records: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=UTF-8"


def json_reply(status: int, body: object, verdict: str, **more: Any) -> Reply:
    """Return a reply whose body is `body` as JSON."""
    return Reply(status, orjson.dumps(body), verdict, **more)


class Api(Protocol):
    """One vendor's account as its document describes it. May keep state; does no I/O and never raises."""

    name: str

    def answer(self, call: Call) -> Reply:
        """Return the vendor's answer to any request."""
        ...

    def refused_credential(self) -> Reply:
        """Return the answer to a wrong credential."""
        ...

    def throttled(self, retry_after: str | None) -> Reply:
        """Return the answer to a request over the rate limit."""
        ...

    def failed(self, status: int) -> Reply:
        """Return the answer to an internal failure, with the document's body if it gives one."""
        ...

    def destination(self, url: str) -> dict[str, Any]:
        """Return the settings of a destination for this account at `url`."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """One served request. `at` is epoch seconds; `fault` is the effect that applied."""

    number: int
    at: float
    method: str
    path: str
    bytes: int
    records: int
    accepted: int
    status: int | None
    verdict: str
    fault: str | None


class Simulator:
    """An HTTP server of one `Api` on a local port, in the running event loop.

    `accepted` and `served` hold everything since the start; `keep=False` only counts, for long runs.
    """

    def __init__(
        self,
        api: Api,
        *,
        faults: Iterable[Fault] = (),
        plan: FaultPlan | None = None,
        requests_per_second: int | None = None,
        clock: Clock | None = None,
        log: Path | None = None,
        keep: bool = True,
    ) -> None:
        self.api = api
        self.plan = plan or FaultPlan()
        self.plan.arm(*faults)
        self.accepted: list[dict[str, Any]] = []
        self.served: list[Served] = []
        self.requests_per_second = requests_per_second
        self._clock = clock or SystemClock()
        self._log_path = log
        self._log_lock = asyncio.Lock()
        self._log_fails = asyncio.Event()
        self._log_failed: OSError | None = None
        self._keep = keep
        self._keys: set[Hashable] = set()
        self._counts: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._last_second: deque[float] = deque()
        self._admitted: deque[float] = deque()
        self._peaks: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._judged = asyncio.Event()
        self._judged_count = 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 is any free one. `url` is the address. Raises `OSError` if the port is in use."""
        app = web.Application(client_max_size=_LARGEST_REQUEST)
        app.router.add_route("*", "/_simulator/{what}", self._control)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        self._stopping.clear()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        bound_host, bound_port = runner.addresses[0][:2]
        self.url = f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

    async def serve(self) -> NoReturn:
        """Serve until cancelled. Raises `OSError` with the file's name once the log cannot be written."""
        await self._log_fails.wait()
        raise self._log_failed or OSError

    async def stop(self) -> None:
        """Stop listening and reset hanging connections; the counts stay readable."""
        self._stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        """Start on a free local port."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    async def until_served(self, requests: int) -> None:
        """Wait until this many requests were handled since the start; their answers may not be sent yet."""
        while self._judged_count < requests:
            self._judged.clear()
            await self._judged.wait()

    def stats(self) -> dict[str, Any]:
        """Return the counts since the start; `max_per_second` is the most requests in any sliding second."""
        return {
            "vendor": self.api.name,
            "requests": self._counts["requests"],
            "accepted": self._counts["accepted"],
            "duplicates": self._counts["duplicates"],
            "distinct": self._counts["accepted"] - self._counts["duplicates"],
            "max_per_second": self._peaks["per_second"],
            "max_in_flight": self._peaks["in_flight"],
            "largest_body": self._peaks["bytes"],
            "largest_batch": self._peaks["records"],
            "verdicts": dict(sorted(self._verdicts.items())),
        }

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        at = self._clock.now()
        self._counts["requests"] += 1
        number = self._counts["requests"]
        over = self._count_second(at)
        self._counts["in_flight"] += 1
        self._peak("in_flight", self._counts["in_flight"])
        try:
            call = await self._read(request, number, at)
            return await self._act(request, call, over=over)
        finally:
            self._counts["in_flight"] -= 1

    async def _read(self, request: web.Request, number: int, at: float) -> Call:
        body = await request.read()
        path, _, query = request.raw_path.partition("?")
        return Call(
            number=number,
            at=at,
            wall=self._clock.wall(),
            method=request.method,
            path=unquote(path),
            query=tuple(parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
        )

    async def _act(self, request: web.Request, call: Call, *, over: bool) -> web.StreamResponse:
        faults = self.plan.choose(call)
        shown = next((fault for fault in faults if fault.effect != "latency"), None)
        late = [fault for fault in faults if fault.effect == "latency"]
        for fault in late:
            if not fault.after:
                await self._clock.sleep(fault.seconds)
        reply = self._reply(call, shown, over=over)
        await self._record(call, reply, shown or (late[0] if late else None))
        for fault in late:
            if fault.after:
                await self._clock.sleep(fault.seconds)
        return await self._send(request, reply, shown)

    def _reply(self, call: Call, fault: Fault | None, *, over: bool) -> Reply | None:
        """Return the reply to the client (None: none), with the accepted events if the vendor acted."""
        if over:
            return self.api.throttled(None)
        if fault is None or fault.effect in _RIGHT_ANSWERS:
            return self.api.answer(call)
        did = self.api.answer(call) if fault.after else None
        shown = self._shown(fault)
        if shown is None:
            return did
        if did is None:
            return shown
        return Reply(shown.status, shown.body, did.verdict, did.events, did.records, shown.headers, shown.content_type)

    def _shown(self, fault: Fault) -> Reply | None:
        retry = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
        match fault.effect:
            case "status" if fault.status == 429 and fault.body is None:
                return self.api.throttled(fault.retry_after)
            case "status" if fault.body is None:
                failed = self.api.failed(fault.status)
                return replace(failed, headers={**failed.headers, **retry})
            case "status":
                return Reply(fault.status, (fault.body or "").encode(), f"status_{fault.status}", headers=retry)
            case "garbage":
                return Reply(200, (fault.body or _PROXY_PAGE).encode(), "garbage", content_type="text/html")
            case "credential":
                return self.api.refused_credential()
            case "too_large":
                return Reply(413, b"Request Entity Too Large", "too_large", content_type="text/plain")
            case _:
                return None

    async def _send(self, request: web.Request, reply: Reply | None, fault: Fault | None) -> web.StreamResponse:
        effect = fault.effect if fault is not None else None
        if effect == "hang":
            await self._stopping.wait()
        if reply is None or effect in {"cut", "hang"}:
            _reset(request)
            return web.Response(status=500)
        content_type = "text/plain" if effect == "content_type" else reply.content_type
        headers = {**reply.headers, "Content-Type": content_type}
        if effect == "truncate":
            return await _send_half(request, reply, headers)
        body = reply.body
        if fault is not None and effect == "encoding":
            body = body.decode().encode(fault.body or "gbk")
        elif effect == "surplus":
            _send_surplus(request, reply)
        return web.Response(status=reply.status, body=body, headers=headers)

    async def _record(self, call: Call, reply: Reply | None, fault: Fault | None) -> None:
        events = reply.events if reply is not None else ()
        verdict = reply.verdict if reply is not None else "unanswered"
        records = reply.records if reply is not None else 0
        self._verdicts[verdict] += 1
        self._counts["accepted"] += len(events)
        self._counts["duplicates"] += self._count_duplicates(events)
        self._peak("bytes", len(call.body))
        self._peak("records", records)
        served = Served(
            number=call.number,
            at=call.wall,
            method=call.method,
            path=call.path,
            bytes=len(call.body),
            records=records,
            accepted=len(events),
            status=reply.status if reply is not None else None,
            verdict=verdict,
            fault=fault.effect if fault is not None else None,
        )
        if self._keep:
            self.served.append(served)
            self.accepted.extend(each.event for each in events)
        self._judged_count += 1
        self._judged.set()
        if self._log_path is not None:
            line = orjson.dumps(served, option=orjson.OPT_SERIALIZE_DATACLASS)[:-1]
            line += b',"events":' + orjson.dumps([each.event for each in events]) + b"}\n"
            async with self._log_lock:
                try:
                    await asyncio.to_thread(_append, self._log_path, line)
                except OSError as error:
                    # An error of a failed write does not name the file.
                    self._log_failed = OSError(error.errno, error.strerror, str(self._log_path))
                    self._log_fails.set()

    def _count_duplicates(self, events: Sequence[AcceptedEvent]) -> int:
        duplicates = 0
        for each in events:
            if each.key is None:
                continue
            duplicates += each.key in self._keys
            self._keys.add(each.key)
        return duplicates

    def _count_second(self, at: float) -> bool:
        """Count the request in the last second; return whether it is over the limit."""
        for window in (self._last_second, self._admitted):
            while window and at - window[0] >= 1.0:
                window.popleft()
        self._last_second.append(at)
        self._peak("per_second", len(self._last_second))
        if self.requests_per_second is not None and len(self._admitted) >= self.requests_per_second:
            return True
        self._admitted.append(at)
        return False

    def _peak(self, name: str, value: int) -> None:
        self._peaks[name] = max(self._peaks[name], value)

    async def _control(self, request: web.Request) -> web.Response:
        match request.match_info["what"], request.method:
            case "stats", "GET":
                return _json(self.stats())
            case "accepted", "GET":
                return _json(self.accepted)
            case "served", "GET":
                return _json(self.served)
            case "faults", "GET":
                return _json(self.plan.describe())
            case "faults", "DELETE":
                self.plan.clear()
                return _json(self.plan.describe())
            case "faults", "POST":
                return await self._arm(request)
        return _json({"error": "use GET stats, accepted or served, or GET, POST or DELETE faults"}, status=404)

    async def _arm(self, request: web.Request) -> web.Response:
        try:
            data = orjson.loads(await request.read())
            faults = [parse_fault(each) for each in (data if isinstance(data, list) else [data])]
        except ValueError as error:
            return _json({"error": str(error)}, status=400)
        self.plan.arm(*faults)
        return _json(self.plan.describe())


def _json(data: object, status: int = 200) -> web.Response:
    body = orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS, default=str)
    return web.Response(status=status, body=body + b"\n", content_type="application/json")


def _reset(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _send_surplus(request: web.Request, reply: Reply) -> None:
    """Send the answer once more, a moment after the right one: it looks like an acceptance of the next request."""
    transport = request.transport
    head = (
        f"HTTP/1.1 {reply.status} OK\r\nContent-Type: {reply.content_type}\r\nContent-Length: {len(reply.body)}\r\n\r\n"
    )
    if transport is not None:
        loop = asyncio.get_running_loop()
        loop.call_later(_SURPLUS_SECONDS, _write_if_open, transport, head.encode() + reply.body)


def _write_if_open(transport: asyncio.WriteTransport, data: bytes) -> None:
    if not transport.is_closing():
        transport.write(data)


async def _send_half(request: web.Request, reply: Reply, headers: Mapping[str, str]) -> web.StreamResponse:
    """Announce the whole body, send half of it, and reset the connection."""
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = len(reply.body)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(reply.body[: len(reply.body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _append(path: Path, line: bytes) -> None:
    with path.open("ab") as file:
        file.write(line)
