"""Model vendors: the simulators' judgement of content, without sockets, behind faults of time and of the network."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from connector.config.loader import DestinationSettings
from connector.delivery.isolation import OWN_QUOTA_AFTER
from connector.errors import TransportError
from connector.testing.faults import Call
from connector.testing.jiguang import JiguangApi
from connector.testing.loop import START, WALL
from connector.testing.mytracker import MyTrackerApi
from connector.testing.simulator import AcceptedEvent, Api, Reply
from connector.vendors.base import Request, Response
from tests.simulation.broker import ModelSource
from tests.simulation.facts import INSTANT, Acceptance, Epoch
from tests.simulation.oracle import Oracle
from tests.simulation.scenario import REFUSE, Planned, Scenario, method_of

STRANGERS: Final = 10**9
"""Users from this number on do not exist at the vendor."""

BLAMED: Final = "4105"
"""The code of a vendor that blames every record for a while; what any other code refuses never passes."""
QUIET: Final = 1.0
"""Seconds for which a vendor that throttles wants to be left alone; no destination caps a wait below it."""

ODD_WISHES: Final = (
    *("0", "-1", "-0000", "0.0", "soon", "", "NaN", "inf", "1e9", "99999999999999999999", "+0", "0x10", "２"),
    *(
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "1 Jan 1970 00:00 -0000",
        "Thu, 01 Jan 1970 00:00:00",
        "Thu, 01 Jan 2099 00:00:00 GMT",
    ),
)
"""Values of `Retry-After` that ask for no wait, or are none."""

VENDOR_FAULTS: Final = (
    *("unconnected", "cut", "cut_after", "surplus_after", "hang", "hang_after", "late"),
    *("status_500", "status_503", "status_504", "status_502_after", "throttled", "garbage", "garbage_after"),
)
"""What may go wrong with one request; `_after` is after the vendor accepted it."""
_AFTER: Final = "_after"

Meant = dict[int, tuple[Planned, Epoch]]
"""The records of a request by the serials that its events show, each with the epoch for which it is."""


@dataclass(slots=True)
class Sent:
    """One request as it left a member."""

    at: float
    member: str
    records: int


@dataclass(slots=True)
class ModelVendor:
    """One account: what it accepts is told to the oracle, what it is asked is kept."""

    name: str
    settings: DestinationSettings
    scenario: Scenario
    oracle: Oracle
    records: Sequence[Planned]
    random: Random
    now: Callable[[], float]
    stormy: bool = True
    """Whether faults still happen."""
    poisonous: bool = True
    """Whether what is poison still fails, and what a firewall dislikes is still denied."""
    sent: list[Sent] = field(default_factory=list)
    api: Api = field(init=False)
    secrets: int = 0
    """How often the account's secrets were rotated."""
    _wishes: int = 0
    _slowness: Random = field(init=False)
    _limits_poison: bool = field(init=False)
    """Whether it answers 429 for what is poison, as if its user had a quota, instead of failing."""

    def __post_init__(self) -> None:
        """Open the account."""
        self._slowness = Random(f"slow {self.scenario.seed} {self.name}")
        self._limits_poison = Random(f"quota {self.scenario.seed} {self.name}").random() < 0.5
        if self.settings.vendor == "mytracker":
            self.api = MyTrackerApi(largest_body=min(10_000, self.scenario.server_limit * 2))
        else:
            known = {name: {"note": "string"} for name in ("open", "odd", "walled", "poison")}
            if self.name != "alpha":
                known["missing"] = {"note": "string"}
            self.api = JiguangApi(
                events=known, knows_cuid=lambda cuid: cuid < STRANGERS, largest_body=self.scenario.server_limit
            )

    def fault(self) -> str | None:
        """Return what goes wrong with a request that comes now."""
        if not self.stormy:
            return None
        now = self.now() - START
        for begin, end, name, kind in self.scenario.weather.windows:
            if kind == "baffling" and not self.scenario.roomy:
                continue
            if kind == "blaming" and self.settings.storm == "off":
                continue
            if name == self.name and begin <= now < end:
                self.oracle.saw(f"window: {kind}")
                return {
                    "down": self.random.choice(("unconnected", "status_503")),
                    "throttle": "throttled",
                    "gateway": "status_502",
                }.get(kind, kind)
        if self.random.random() >= self.scenario.weather.request:
            return None
        kind = self.random.choice(VENDOR_FAULTS)
        self.oracle.saw(f"answer: {kind}")
        return kind

    def latency(self) -> float:
        """Return how long the vendor takes to judge a request, or to answer."""
        if self.stormy and self.scenario.unusual.slow == self.name:
            self.oracle.saw("a slow destination")
            return self._slowness.uniform(1.0, 4.0)
        if self.stormy and self.random.random() < self.scenario.weather.slow:
            self.oracle.saw("slow answer")
            return self.random.uniform(0.5, 30.0)
        return self.random.choice((0.001, 0.01, 0.05, 0.4, 1.0))

    def _blaming(self) -> Reply:
        """Refuse everything by a code that the vendor documents as the record's fault."""
        if self.settings.vendor == "mytracker":
            return Reply(400, b'{"error": "Bad Request"}', "refused")
        return Reply(200, b'{"code": %s, "msg": "?"}' % BLAMED.encode(), "refused")

    def judge(self, request: Request, number: int, kind: str | None = None) -> Reply:
        """Return the account's answer to a request's content; `kind` is a fault of `fault` that judges."""
        parts = urlsplit(request.url)
        body = request.body or b""
        headers = {name.lower(): value for name, value in request.headers.items()}
        query = tuple(parse_qsl(parts.query))
        call = Call(number, self.now(), self.now() - START + WALL, request.method, parts.path, query, headers, body)
        if kind == "blaming":
            return self._blaming()
        if b'"eventName":"odd"' in body:
            return Reply(200, b'{"code": 4999, "msg": "?"}', "refused")
        if self.poisonous and b'"eventName":"walled"' in body:
            self.oracle.saw("403 for one record")
            return Reply(403, b"<html>Forbidden</html>", "refused", content_type="text/html")
        if self.poisonous and b'"eventName":"poison"' in body:
            if self._limits_poison:
                self.oracle.saw("429 for one record")
                return self.api.throttled(self._wish())
            self.oracle.saw("5xx for one record")
            return Reply(500, b"", "failed", headers={"Retry-After": self._wish()})
        if b'"customUserId":"bad' in body:
            return Reply(400, b'{"error": "Bad Request"}', "refused")
        reply = self.api.answer(call)
        if reply.verdict == "refused" and not self.scenario.hints and reply.body.startswith(b"{"):
            return replace(reply, body=_without_words(reply.body))
        return reply

    def failed(self, kind: str) -> Response:
        """Return the answer to a failure of the network or of the vendor itself."""
        reply = {
            "throttled": lambda: self.api.throttled(self._wish()),
            "credential": self.api.refused_credential,
        }.get(kind)
        if reply is not None:
            return answer_of(reply())
        if kind == "baffling":
            # Each window has a code of its own: the same one again, others accepted between, would be evidence.
            code = 4900 + sum(begin <= self.now() - START for begin, *_ in self.scenario.weather.windows)
            return Response(200, {"content-type": "application/json"}, b'{"code": %d, "msg": "?"}' % code)
        if kind.startswith("garbage"):
            return Response(200, {"content-type": "text/html"}, b"<html>hello</html>")
        return answer_of(self.api.failed(int(kind.split("_")[1])))

    def _wish(self) -> str:
        """Return how long the vendor wants to be left alone; half of the time in a form that says nothing of use."""
        self._wishes += 1
        odd = Random(f"{self.scenario.seed} {self.name} {self._wishes}")
        return odd.choice(ODD_WISHES) if odd.random() < 0.5 else f"{QUIET:g}"

    def take(
        self, events: Sequence[AcceptedEvent], meant: Meant, late: bool = False
    ) -> list[tuple[Planned, Acceptance]]:
        """Accept events for good, `late` where no one waits for the answer any more."""
        taken = []
        for one in events:
            planned, epoch = meant[serial_of(one.event)]
            dedup_id = one.event.get("randomId")
            if one.event.get("method", method_of(planned)) != method_of(planned):
                self.oracle.fail(f"{planned.topic}[{planned.partition}]@{planned.offset} is no {one.event['method']}")
            accepted = self.oracle.accepts(planned, self.name, epoch, dedup_id, self.now(), late=late)
            taken.append((planned, accepted))
        return taken

    def serials(self, body: bytes) -> list[int]:
        """Return the records of a request."""
        content = orjson.loads(body)
        return [serial_of(one) for one in (content["data"] if isinstance(content, dict) else content)]


class ModelTransport:
    """One member's way to one vendor. `step` says whether the member still lives."""

    def __init__(
        self, vendor: ModelVendor, source: ModelSource, step: Callable[[str], bool], secrets: Callable[[], int]
    ) -> None:
        self._vendor = vendor
        self._secrets = secrets
        self._source = source
        self._step = step
        self._quiet_until = 0.0
        self._throttled_alone: Counter[int] = Counter()
        self._throttled = 0
        self._throttled_since = vendor.now()
        self.in_flight = 0

    async def send(self, request: Request, timeout: float) -> Response:
        """Bring a request to the vendor, or not; return its answer, or not."""
        vendor, oracle = self._vendor, self._vendor.oracle
        if not self._step("alive"):
            # Nothing that a dead member sends reaches anybody, so nothing of it is judged.
            raise TransportError("dead", unknown_outcome=True)
        body = request.body or b""
        serials = vendor.serials(body)
        meant = self._check(serials, body)
        deliveries = {(planned.serial, vendor.name) for planned, _ in meant.values()}
        vendor.sent.append(Sent(vendor.now(), self._source.name, len(serials)))
        for planned, epoch in meant.values():
            oracle.sent[self._source.name, planned.serial, vendor.name].append((vendor.now(), epoch))
        self.in_flight += 1
        if self.in_flight > vendor.settings.max_in_flight:
            oracle.fail(f"{vendor.name}: {self.in_flight} requests in flight")
        try:
            async with asyncio.timeout(timeout):
                response = await self._exchange(request, meant, timeout)
        except TimeoutError:
            oracle.unknown |= deliveries
            raise TransportError("no answer in time", unknown_outcome=True) from None
        except TransportError as error:
            if error.unknown_outcome:
                oracle.unknown |= deliveries
            raise
        else:
            if response.status in (502, 504):
                oracle.unknown |= deliveries
            return response
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        """Nothing is open."""

    def _check(self, serials: Sequence[int], body: bytes) -> Meant:
        """Judge what is sent; return which records it is, and for which epochs."""
        vendor, limits = self._vendor, self._vendor.settings.batch
        if vendor.name in self._source.held:
            vendor.oracle.fail(f"{vendor.name}: a request although an operator holds it")
        documented = vendor.settings.documented
        if self._quiet_until - QUIET + INSTANT < vendor.now() < self._quiet_until - INSTANT:
            vendor.oracle.fail(f"{vendor.name}: a request comes sooner than the vendor asked for")
        if len(serials) > (limits.records or documented.records):
            vendor.oracle.fail(f"{vendor.name}: {len(serials)} records in one request")
        if len(body) > (limits.bytes or documented.bytes):
            vendor.oracle.fail(f"{vendor.name}: {len(body)} bytes in one request")
        meant: Meant = {}
        for serial in serials:
            planned = vendor.oracle.replays.meant(vendor.records[serial], vendor.name, self._source)
            partition = (planned.topic, planned.partition)
            if not self._source.has(partition, ever=True):
                vendor.oracle.fail(f"{vendor.name}: {planned.where} is sent by who never had its partition")
            epoch = self._source.epoch_of(partition)
            meant[serial] = planned, epoch
            began = epoch.ended if epoch.ended is not None else epoch.drain_began
            if began is not None and vendor.now() - began > INSTANT:
                vendor.oracle.fail(f"{vendor.name}: {planned.where} is sent after its partition began to leave")
            vendor.oracle.sends(planned, vendor.name, epoch, meant)
        return meant

    async def _exchange(self, request: Request, meant: Meant, timeout: float) -> Response:
        vendor = self._vendor
        fault = vendor.fault()
        if self._secrets() != vendor.secrets:
            vendor.oracle.saw("a rotated secret")
            fault = "credential"
        # What throttles answers at once, so that only the waits between requests bound their number.
        await asyncio.sleep(INSTANT if fault == "throttled" else vendor.latency())
        if not self._step("send"):
            raise TransportError("dead", unknown_outcome=True)
        if fault == "unconnected":
            raise TransportError("no connection", unknown_outcome=False)
        if fault == "late":
            events = vendor.judge(request, len(vendor.sent)).events
            asyncio.get_running_loop().call_later(timeout + 1.0, vendor.take, events, meant, True)
            fault = "hang"
        taken: list[tuple[Planned, Acceptance]] = []
        reply: Reply | None = None
        if fault in (None, "blaming") or str(fault).endswith(_AFTER):
            reply = vendor.judge(request, len(vendor.sent), fault)
            if reply.verdict == "refused" and len(meant) > 1:
                vendor.oracle.saw("a refused batch")
            if fault == "blaming" and len(meant) == 1:
                vendor.oracle.blamed.update((planned.serial, vendor.name) for planned, _ in meant.values())
            taken = vendor.take(reply.events, meant)
        if not self._step("judged"):
            raise TransportError("dead", unknown_outcome=True)
        response = await self._answer(fault, reply)
        if not self._step("answered"):
            raise TransportError("dead", unknown_outcome=True)
        # A batch with a record that gets a 403 is denied for that one's sake, several times before it is halved.
        walled = any(planned.kind == "walled" for planned, _ in meant.values())
        if fault is None and reply is not None and reply.verdict == "refused" and not walled:
            for planned, epoch in meant.values():
                if planned.fates.get(vendor.name) == REFUSE:
                    vendor.oracle.refuses(planned, vendor.name, epoch, alone=len(meant) == 1)
        if fault is None:
            at = int((vendor.now() - START + WALL) * 1000)
            for planned, one in taken:
                one.answered = vendor.now()
                if planned.first is None:
                    vendor.oracle.settled[self._source.name, vendor.name].append((at, None))
        self._judge_throttle(response, meant)
        if fault in (None, "blaming", "baffling"):
            vendor.oracle.judged[self._source.name, vendor.name].append(vendor.now())
        return response

    def _judge_throttle(self, response: Response, meant: Meant) -> None:
        """Raise where a vendor that throttles everything is asked again and again, whatever it says of the wait."""
        vendor, now = self._vendor, self._vendor.now()
        if response.status != 429:
            self._throttled_since, self._throttled = now, 0
            return
        if len(meant) == 1:
            self._throttled_alone.update(meant.keys())
        # A record that was throttled alone as often as that may have a quota of its own, and no wish about others.
        own = len(meant) == 1 and all(self._throttled_alone[serial] >= OWN_QUOTA_AFTER for serial in meant)
        if response.headers.get("retry-after") == f"{QUIET:g}" and not own:
            self._quiet_until = now + QUIET
        self._throttled += 1
        rounds = 12 + 8 * (now - self._throttled_since) / vendor.settings.retry.max
        if self._throttled > vendor.settings.max_in_flight * rounds:
            vendor.oracle.fail(f"{vendor.name}: {self._throttled} requests in a row while it throttles")

    async def _answer(self, fault: str | None, reply: Reply | None) -> Response:
        if fault is not None and fault.startswith("hang"):
            await asyncio.Event().wait()
        await asyncio.sleep(INSTANT if fault == "throttled" else self._vendor.latency())
        if fault is not None and fault.startswith(("cut", "surplus")):
            raise TransportError("the connection broke", unknown_outcome=True)
        return answer_of(reply) if fault in (None, "blaming") and reply is not None else self._vendor.failed(str(fault))


def judge_rate(vendor: ModelVendor, doubles: Sequence[tuple[float, float]]) -> None:
    """Raise where a second held more requests than the limit and one for each member, unless one was put out then."""
    limit, times = vendor.settings.rate, vendor.sent
    if limit is None:
        return
    first = 0
    for index, one in enumerate(times):
        while one.at - times[first].at >= 1.0:
            first += 1
        members = {sent.member for sent in times[first : index + 1]}
        if any(begin - 1 <= one.at <= end + 1.5 for begin, end in doubles):
            continue
        if index - first + 1 > limit + len(members):
            vendor.oracle.fail(f"{vendor.name}: {index - first + 1} requests in a second, the limit is {limit}")


def answer_of(reply: Reply) -> Response:
    """Return a simulator's reply as a transport would."""
    headers = {name.lower(): value for name, value in reply.headers.items()}
    return Response(reply.status, {"content-type": reply.content_type, **headers}, reply.body)


def serial_of(event: dict[str, Any]) -> int:
    """Return the number of the record that an event was made of."""
    if "cuid" in event:
        return int(event["cuid"]) % STRANGERS
    return int(event["customUserId"].lstrip("ubad"))


def _without_words(body: bytes) -> bytes:
    answer = orjson.loads(body)
    if "code" in answer:
        answer["msg"] = "no"
        for entry in answer.get("data") or ():
            entry["msg"] = "no"
    return orjson.dumps(answer)
