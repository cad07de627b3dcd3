"""Every limit of the documents' tables: its edge is accepted, one past it is refused here and would be there.

The limits are written down here once more from the documents, so that no table is held against itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from connector.errors import Refusal
from connector.vendors.base import Accepted, Refused

Connect = Callable[..., Awaitable[Any]]

NOW: Final = 1_700_000_000_000
DAY: Final = 24 * 3600 * 1000

NUMBERS: Final = {
    "eventTimestamp": (946_674_000, 4_294_967_295),
    "idGender": (0, 2),
    "age": (0, 128),
    "connectionType": (0, 2),
    "bluetoothEnabled": (0, 2),
    "adTrackingEnabled": (0, 1),
    "adBlocker": (0, 1),
}
LONGEST: Final = {"customUserId": 1024, "ipv4": 15, "ipv6": 45, "userAgent": 2048, "customEventName": 255}
EXACT: Final = {
    **dict.fromkeys(("instanceId", "idfa", "iosVendorId", "gaid", "appSetId"), 36),
    "androidId": 16,
    "lvid": 32,
}
PLATFORMS: Final = (
    *("desktop_web", "mobile_web", "mobile_android", "mobile_android_messenger"),
    *("mobile_ipad", "mobile_iphone", "mobile_iphone_messenger"),
)

GOOD: Final[list[dict[str, Any]]] = [
    *({name: value} for name, edges in NUMBERS.items() for value in edges),
    *({name: character * most} for name, most in LONGEST.items() for character in ("x", "名", '"', "😀")),
    *({name: character * length} for name, length in EXACT.items() for character in ("0", "я")),
    *({"customEventParams": {name: value}} for name in ("n", "名" * 255) for value in ("v", '"' * 255)),
    *({"vkPlatform": platform, "customPlatformUserId": "1"} for platform in PLATFORMS),
    {"customEventParams": {str(number): "v" for number in range(500)}},
]
BAD: Final[list[tuple[str, dict[str, Any]]]] = [
    *((f"{name}.range", {name: most + 1}) for name, (_, most) in NUMBERS.items()),
    *((f"{name}.range", {name: least - 1}) for name, (least, _) in NUMBERS.items() if name != "age"),
    *((f"{name}.length", {name: "名" * (most + 1)}) for name, most in LONGEST.items()),
    *((f"{name}.length", {name: "0" * (length + more)}) for name, length in EXACT.items() for more in (-1, 1)),
    ("customEventName.length", {"customEventName": ""}),
    ("customEventParams.value", {"customEventParams": {"n": '"名' * 128}}),
    ("customEventParams.value", {"customEventParams": {"n": ""}}),
    ("customEventParams.name", {"customEventParams": {"名" * 256: "v"}}),
    ("customEventParams.name", {"customEventParams": {"": "v"}}),
    ("vkPlatform.value", {"vkPlatform": "mobile_windows", "customPlatformUserId": "1"}),
]


def _event(changes: dict[str, Any]) -> dict[str, Any]:
    return {"method": "customEvent", "customUserId": "u", "customEventName": "n", **changes}


async def test_every_edge_of_mytrackers_table_is_accepted(connect: Connect) -> None:
    """Each least and greatest value and length passes here and there, whatever its characters take in bytes."""
    wire = await connect("mytracker", event_time="receipt")
    for changes in GOOD:
        assert isinstance(await wire.deliver(_event(changes)), Accepted), changes
    assert wire.simulator.accepted == [_event(changes) for changes in GOOD]


@pytest.mark.parametrize(("rule", "changes"), BAD, ids=[f"{rule}-{number}" for number, (rule, _) in enumerate(BAD)])
async def test_one_past_an_edge_of_mytrackers_table_is_refused(
    rule: str, changes: dict[str, Any], connect: Connect
) -> None:
    """It is refused here under its rule and never sent; with the rule off the vendor refuses it as well."""
    wire = await connect("mytracker")
    with pytest.raises(Refusal) as caught:
        await wire.deliver(_event(changes))
    assert caught.value.code == f"mytracker.{rule}"
    assert wire.simulator.stats()["requests"] == 0
    lenient = await connect("mytracker", rules={f"mytracker.{rule}": "off"})
    assert isinstance(await lenient.deliver(_event(changes)), Refused)


@pytest.mark.parametrize("itime", [NOW + 300_000, NOW, NOW - 365 * DAY])
async def test_an_itime_at_jiguangs_limits_is_accepted(itime: int, connect: Connect) -> None:
    """Five minutes ahead and a year ago pass."""
    wire = await connect("jiguang", wall=NOW / 1000)
    assert isinstance(await wire.deliver({"cuid": 1, "eventName": "e", "itime": itime}), Accepted)


@pytest.mark.parametrize(
    ("itime", "rule"), [(NOW + 300_001, "future"), (NOW - 366 * DAY - 1, "past"), (NOW // 1000, "past")]
)
async def test_an_itime_past_jiguangs_limits_is_refused(itime: int, rule: str, connect: Connect) -> None:
    """A millisecond later, more than 366 days ago, and seconds in place of milliseconds: refused here, and there."""
    wire = await connect("jiguang", wall=NOW / 1000)
    event = {"cuid": 1, "eventName": "e", "itime": itime}
    with pytest.raises(Refusal) as caught:
        await wire.deliver(event)
    assert caught.value.code == f"jiguang.itime.{rule}"
    lenient = await connect("jiguang", wall=NOW / 1000, rules={f"jiguang.itime.{rule}": "off"})
    verdict = await lenient.deliver(event)
    assert isinstance(verdict, Refused)
    assert (verdict.code, set(verdict.suspects)) == ("4104", {0})


async def test_between_the_vendors_year_and_ours_the_vendor_judges(connect: Connect) -> None:
    """An event of 365 to 366 days ago is sent, because a year may have 366; the answer names it."""
    wire = await connect("jiguang", wall=NOW / 1000)
    verdict = await wire.deliver({"cuid": 1, "eventName": "e", "itime": NOW - 365 * DAY - 1})
    assert isinstance(verdict, Refused)
    assert (verdict.code, verdict.documented, set(verdict.suspects)) == ("4104", True, {0})


@pytest.mark.parametrize(("count", "accepted"), [(1, True), (1000, True), (1001, False)])
async def test_a_thousand_devices_and_one_more(count: int, accepted: bool, connect: Connect) -> None:
    """A question of up to a thousand devices is one request; one of more is refused here, and there."""
    fields = {"msg_id": 1, "registration_ids": [f"r{number}" for number in range(count)], "date": "2023-11-14"}
    question = {"query": ("connector.events.MessageStatus", fields)}
    wire = await connect("jpush_report")
    if accepted:
        assert isinstance(await wire.deliver(question), Accepted)
        return
    with pytest.raises(Refusal) as caught:
        await wire.deliver(question)
    assert caught.value.code == "jpush_report.registration_ids.count"
    lenient = await connect("jpush_report", rules={"jpush_report.registration_ids.count": "off"})
    verdict = await lenient.deliver(question)
    assert isinstance(verdict, Refused)
    assert verdict.code == "3002"
