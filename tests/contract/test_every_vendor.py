"""What holds for every vendor, against its simulator and through the real transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from connector.errors import TransportError
from connector.testing import Fault
from connector.vendors.base import Accepted, Misconfigured, Refused, Retry, Throttled, TooLarge, Verdict
from tests.contract.examples import APIS, EXAMPLES, KINDS, PADDING

Connect = Callable[..., Awaitable[Any]]

VENDORS = sorted(KINDS)
CREDENTIALS = [
    (name, setting)
    for name in APIS
    for setting in APIS[name]().destination("http://x")
    if setting not in {"vendor", "base_url", "results_topic", "access_id"}
]
"""Each setting that a simulated account compares."""


def test_every_vendor_can_be_tried() -> None:
    """Each vendor of the registry has a simulator and an example here, so none is left out below."""
    assert set(VENDORS) == set(APIS)
    assert set(VENDORS) == set(EXAMPLES)


@pytest.mark.parametrize("name", VENDORS)
async def test_a_full_batch_is_accepted_and_arrives_whole(name: str, connect: Connect) -> None:
    """As many records as the vendor documents go in one request, and each of them arrives once."""
    wire = await connect(name)
    records = wire.settings.documented.records
    verdict = await wire.deliver(*(EXAMPLES[name](n) for n in range(100, 100 + records)))
    assert isinstance(verdict, Accepted)
    stats = wire.simulator.stats()
    assert (stats["requests"], stats["accepted"], stats["largest_batch"]) == (1, records, records)
    numbers = range(100, 100 + records)
    assert all(str(n) in map(str, event.values()) for n, event in zip(numbers, wire.simulator.accepted, strict=True))


@pytest.mark.parametrize("name", VENDORS)
async def test_one_record_too_many_blames_no_record_for_good(name: str, connect: Connect) -> None:
    """The vendor refuses more than it documents; the verdict cuts or halves the batch, and accepts nothing."""
    wire = await connect(name)
    group, items = wire.items([EXAMPLES[name](n) for n in range(100, 101 + wire.settings.documented.records)])
    assert len(items) > wire.vendor.limits(group).records
    verdict = await wire.send(group, items)
    assert isinstance(verdict, TooLarge | Refused)
    assert getattr(verdict, "suspects", frozenset()) == frozenset()
    assert wire.simulator.accepted == []


@pytest.mark.promise("P7")
@pytest.mark.parametrize("name", sorted(PADDING))
async def test_a_body_at_the_byte_limit_and_one_byte_more(name: str, connect: Connect) -> None:
    """The computed size is the real one to the byte: the limit is accepted, one byte more is cut as too large.

    Kills: an overhead or separator in a vendor's `limits` that is one off, and sizes counted in characters.
    """
    wire = await connect(name)
    group, (short,) = wire.items([PADDING[name](0)])
    limits = wire.vendor.limits(group)
    assert limits.bytes == wire.settings.documented.bytes
    assert limits.overhead + len(short.body) == len(wire.vendor.request(group, [short], wire.now).body or b"")
    sizes = _paddings(limits.bytes - limits.overhead, len(short.body), limits.separator)
    whole = wire.items([PADDING[name](size) for size in sizes])[1]
    assert isinstance(await wire.send(group, whole), Accepted)
    assert wire.simulator.stats()["largest_body"] == limits.bytes
    longer = wire.items([PADDING[name](size) for size in (sizes[0] + 1, *sizes[1:])])[1]
    verdict = await wire.send(group, longer)
    assert isinstance(verdict, TooLarge)
    assert verdict.limit == "bytes"
    assert len(wire.simulator.accepted) == len(whole)


def _paddings(room: int, shortest: int, separator: int) -> list[int]:
    """Return paddings, of at most 1,500 bytes or else of one event, that fill the room exactly."""
    if room > 20_000:
        return [room - shortest]
    count = room // (shortest + separator + 1_500) + 1
    spare = room - count * shortest - (count - 1) * separator
    return [spare // count + (n < spare % count) for n in range(count)]


ANSWERS: list[tuple[Fault, Callable[[Verdict], bool]]] = [
    (Fault("status", status=429, retry_after="7"), lambda v: isinstance(v, Throttled) and v.after == 7),
    (Fault("status", status=429), lambda v: isinstance(v, Throttled)),
    (Fault("status", status=500), lambda v: isinstance(v, Retry) and not v.unknown_outcome),
    (Fault("status", status=503, retry_after="3"), lambda v: isinstance(v, Retry) and v.after == 3),
    (Fault("status", status=502, after=True), lambda v: isinstance(v, Retry) and v.unknown_outcome),
    (Fault("status", status=504, after=True), lambda v: isinstance(v, Retry) and v.unknown_outcome),
    (Fault("status", status=500, body="<html>"), lambda v: isinstance(v, Retry)),
    (Fault("status", status=200, body=""), lambda v: isinstance(v, Retry)),
    (Fault("status", status=200, body="[]x"), lambda v: isinstance(v, Retry)),
    (Fault("status", status=302, body=""), lambda v: isinstance(v, Misconfigured)),
    (Fault("garbage"), lambda v: isinstance(v, Retry)),
    (Fault("credential"), lambda v: isinstance(v, Misconfigured)),
    (Fault("too_large", limit=-1), lambda v: isinstance(v, TooLarge) and v.limit == "bytes"),
    (Fault("content_type"), lambda v: isinstance(v, Accepted)),
]


@pytest.mark.promise("P5")
@pytest.mark.promise("P6")
@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize(("fault", "expected"), ANSWERS, ids=[str(fault.describe()) for fault, _ in ANSWERS])
async def test_no_answer_but_the_vendors_own_is_success_or_blame(
    name: str, fault: Fault, expected: Callable[[Verdict], bool], connect: Connect
) -> None:
    """Throttling, failures, proxies' pages and refused credentials are read as that, for every vendor alike.

    Kills: a 200 taken for success whatever its body, and a status above 400 taken for the records' fault.
    """
    wire = await connect(name)
    wire.simulator.plan.arm(fault)
    verdict = await wire.deliver(EXAMPLES[name](1))
    assert expected(verdict), verdict


@pytest.mark.parametrize("name", VENDORS)
@pytest.mark.parametrize("effect", ["cut", "truncate", "hang"])
async def test_an_answer_that_does_not_come_whole(name: str, effect: Any, connect: Connect) -> None:
    """A cut, a half answer and none at all are no verdict; what was written may have been accepted."""
    wire = await connect(name)
    wire.simulator.plan.arm(Fault(effect, after=True))
    group, items = wire.items([EXAMPLES[name](1)])
    with pytest.raises(TransportError) as caught:
        await wire.send(group, items, timeout=0.2)
    assert caught.value.unknown_outcome is (name != "jpush_report")
    assert wire.simulator.stats()["requests"] == 1


@pytest.mark.promise("P6")
@pytest.mark.parametrize(("name", "setting"), CREDENTIALS)
async def test_a_wrong_credential_is_never_a_records_fault(name: str, setting: str, connect: Connect) -> None:
    """Each part of the credential, when wrong, is the configuration's fault, and nothing arrives.

    Kills: code 4100 under HTTP 200, code 3001, or a 403 read as a refusal of the records.
    """
    wire = await connect(name, **{setting: 1 if setting == "id_app" else "wrong"})
    assert isinstance(await wire.deliver(EXAMPLES[name](1)), Misconfigured)
    assert wire.simulator.accepted == []


@pytest.mark.parametrize("name", VENDORS)
async def test_a_wrong_address_is_never_a_records_fault(name: str, connect: Connect) -> None:
    """A base address with a path too many or too few is the configuration's fault."""
    wire = await connect(name)
    wrong = await connect(name, base_url=wire.simulator.url + "/elsewhere")
    assert isinstance(await wrong.deliver(EXAMPLES[name](1)), Misconfigured)


@pytest.mark.promise("P4")
async def test_a_repeated_jiguang_event_is_recognised(connect: Connect) -> None:
    """The same event encoded twice carries the same randomId, so the vendor counts it once; another one does not.

    Kills: a randomId made up for each attempt, and one made of the event's fields alone.
    """
    wire = await connect("jiguang")
    for _ in range(2):
        await wire.deliver(EXAMPLES["jiguang"](1), EXAMPLES["jiguang"](1))
    stats = wire.simulator.stats()
    assert (stats["accepted"], stats["duplicates"]) == (4, 2)
