"""The simulated MyTracker: each rule of the parameter table at its edge, and each documented error."""

import json
from typing import Any

import pytest

from connector.testing.faults import Call
from connector.testing.mytracker import MyTrackerApi
from connector.testing.simulator import Reply


def ask(sets: object, method: str = "customEventBatch", **changes: Any) -> Reply:
    """Return the answer to a well-signed request; `changes` spoil the path, query, headers, body or the account."""
    api = MyTrackerApi(**changes.get("account", {}))
    body = changes.get("body", json.dumps(sets).encode())
    query = changes.get("query", (("idApp", "666"),))
    token = changes.get("token", api.token)
    path = changes.get("path", f"/v1/{method}/")
    return api.answer(Call(1, 0.0, 0.0, changes.get("verb", "POST"), path, query, {"authorization": token}, body))


def custom(**parameters: Any) -> dict[str, Any]:
    """Return a valid custom event with some parameters set."""
    return {"customUserId": "1", "customEventName": "n", **parameters}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("eventTimestamp", [946674000, "4294967295"], [946673999, 4294967296, "", "1.5", 1e9, None]),
        ("customUserId", ["a", "я" * 1024], ["", "a" * 1025, 1]),
        ("ipv4", ["1" * 15], ["1" * 16]),
        ("ipv6", ["1" * 45], ["1" * 46]),
        ("idGender", [0, "2"], [3, -1, True]),
        ("age", [0, "128"], [129, -1]),
        ("connectionType", [0, 2], [3]),
        ("bluetoothEnabled", [0, 2], [3]),
        ("adTrackingEnabled", [0, 1], [2]),
        ("adBlocker", ["0", "1"], [2]),
        *[
            (name, ["x" * 36], ["x" * 35, "x" * 37])
            for name in ("instanceId", "idfa", "iosVendorId", "gaid", "appSetId")
        ],
        ("androidId", ["0" * 16], ["0" * 15, "0" * 17]),
        ("lvid", ["0" * 32], ["0" * 31, "0" * 33]),
        ("userAgent", ["u" * 2048], ["u" * 2049]),
        ("vkPlatform", ["mobile_ipad"], ["desktop", ""]),
        ("customEventName", ["я" * 255], ["", "a" * 256]),
        ("customEventParams", [{}, {"я" * 255: '"' * 255}], [{"a": ""}, {"": "a"}, {"a" * 256: "a"}, {"a": 1}, []]),
        ("unheardOf", [], ["x"]),
    ],
)
def test_each_parameter_at_its_edge_and_one_past_it(name: str, good: list[object], bad: list[object]) -> None:
    """What the table allows is accepted, and one past it refuses the whole batch without a detail."""
    for value in good:
        assert ask([custom(**{name: value})]).status == 200, value
    for value in bad:
        reply = ask([custom(), custom(**{name: value})])
        assert (reply.status, json.loads(reply.body), reply.events) == (400, {"error": "Bad Request"}, ()), value


@pytest.mark.parametrize(
    ("method", "own"), [("registration", {}), ("login", {}), ("customEvent", {"customEventName": "n"})]
)
def test_required_parameters(method: str, own: dict[str, str]) -> None:
    """Registration and login need the user; a custom event needs its name, and the user or a device."""
    device = {"lvid": "0" * 32}
    assert ask({"customUserId": "1", **own}, method).status == 200
    assert ask({**device, **own}, method).status == (200 if method == "customEvent" else 400)
    assert ask(own, method).status == 400
    assert ask(device, "customEvent").status == 400


def test_vk_parameters_come_together() -> None:
    """A registration in VK Mini Apps names the user and the platform, or neither."""
    vk = {"customPlatformUserId": "12345", "vkPlatform": "desktop_web"}
    assert ask({"customUserId": "1", **vk}, "registration").status == 200
    for name, value in vk.items():
        assert ask({"customUserId": "1", name: value}, "login").status == 400


@pytest.mark.parametrize(("sets", "status"), [(1, 200), (20, 200), (21, 400), (0, 400)])
def test_at_most_twenty_sets(sets: int, status: int) -> None:
    """A batch holds one to twenty sets."""
    reply = ask([custom()] * sets)
    assert (reply.status, len(reply.events)) == (status, sets if status == 200 else 0)


def test_the_body_at_its_limit() -> None:
    """10,000 bytes are taken and one more is not, counted in bytes of UTF-8."""
    body = json.dumps(
        [custom(customEventParams={f"{n:03}": "я" * 220}) for n in range(18)], ensure_ascii=False
    ).encode()
    body += b" " * (10_000 - len(body))
    assert len(body) == 10_000
    assert ask(None, body=body).status == 200
    assert ask(None, body=body + b" ").status == 413


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"body": b""}, 400, "Empty post data"),
        ({"body": b"[{"}, 400, "Bad json"),
        ({"path": "/v2/customEventBatch/"}, 400, "Bad api version"),
        ({"path": "/v1/purchase/"}, 404, "Method not found"),
        ({"path": "/v1/customEventBatch"}, 404, "Method not found"),
        ({"verb": "GET"}, 404, "Method not found"),
        ({"token": "other"}, 403, "Forbidden"),
        ({"query": (("idApp", "667"),)}, 403, "Forbidden"),
        ({"query": ()}, 403, "Forbidden"),
    ],
)
def test_each_documented_error(changes: dict[str, Any], status: int, text: str) -> None:
    """The status and the text are the document's."""
    reply = ask([custom()], **changes)
    assert (reply.status, json.loads(reply.body)) == (status, {"error": text})


def test_internal_error_is_the_documents() -> None:
    """A 500 on demand has the document's body."""
    assert json.loads(MyTrackerApi().failed(500).body) == {"error": "Internal Server Error"}


def test_success_is_written_with_a_cyrillic_letter() -> None:
    """Code that compares the message with a Latin OK is caught."""
    assert json.loads(ask([custom()]).body)["message"] == "\N{CYRILLIC CAPITAL LETTER O}K"
