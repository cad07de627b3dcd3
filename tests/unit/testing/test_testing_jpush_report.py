"""The simulated JPush Report API: its questions, its limits, its errors."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from connector.testing.faults import Call
from connector.testing.jpush_report import JPushReportApi
from connector.testing.simulator import Reply

WALL = datetime(2014, 6, 13, 2, tzinfo=UTC).timestamp()


def ask(api: JPushReportApi, verb: str, path: str, query: dict[str, str] | None = None, **changes: Any) -> Reply:
    """Return the answer to a question with the account's own credential."""
    credential = base64.b64encode(f"{api.app_key}:{api.master_secret}".encode()).decode()
    headers = {"authorization": f"Basic {credential}", "content-type": "application/json", **changes.get("headers", {})}
    body = json.dumps(changes["json"]).encode() if "json" in changes else changes.get("body", b"")
    pairs = tuple((query or {}).items())
    return api.answer(Call(1, changes.get("at", 0.0), WALL, verb, path, pairs, headers, body))


def code(reply: Reply) -> int:
    """Return the code of an error, whose form is the document's."""
    error = json.loads(reply.body)["error"]
    assert error.keys() == {"code", "message"}
    return int(error["code"])


@pytest.mark.parametrize("endpoint", ["received", "received/detail", "messages", "messages/detail"])
@pytest.mark.parametrize(("ids", "status"), [(1, 200), (100, 200), (101, 400)])
def test_at_most_a_hundred_ids(endpoint: str, ids: int, status: int) -> None:
    """A hundred ids are answered, quoted as text, and 101 are not."""
    asked = ",".join(str(n) for n in range(ids))
    reply = ask(JPushReportApi(), "GET", f"/v3/{endpoint}", {"msg_ids": asked})
    assert reply.status == status
    if status == 200:
        assert [each["msg_id"] for each in json.loads(reply.body)] == asked.split(",")


@pytest.mark.parametrize("ids", ["", "a", "1,,2", "-1", "1 ", "1" * 20])
def test_ids_that_are_none(ids: str) -> None:
    """What is not a list of numbers is a wrong parameter."""
    assert code(ask(JPushReportApi(), "GET", "/v3/received", {"msg_ids": ids})) == 3002


def test_unknown_ids_are_left_out_and_repeated_ones_answered_once() -> None:
    """An id that the application never sent is simply not in the answer."""
    reply = ask(JPushReportApi(missing={2}), "GET", "/v3/received", {"msg_ids": "1,2,1,3"})
    assert [each["msg_id"] for each in json.loads(reply.body)] == ["1", "3"]


@pytest.mark.parametrize(
    "question",
    [
        {"registration_ids": ["a"]},
        {"msg_id": "1", "registration_ids": ["a"]},
        {"msg_id": 1},
        {"msg_id": 1, "registration_ids": []},
        {"msg_id": 1, "registration_ids": "a"},
        {"msg_id": 1, "registration_ids": ["a", 1]},
        {"msg_id": 1, "registration_ids": ["a"] * 1001},
        {"msg_id": 1, "registration_ids": ["a"], "date": "2014-6-1"},
        {"msg_id": 1, "registration_ids": ["a"], "date": "2014-02-30"},
        {"msg_id": 1, "registration_ids": ["a"], "date": None},
        {"msg_id": 1, "registration_ids": ["a"], "Data": "2014-06-10"},
        [],
    ],
)
def test_a_status_question_that_is_wrong(question: object) -> None:
    """Types, limits and the date's form are those of the document."""
    assert code(ask(JPushReportApi(), "POST", "/v3/status/message", json=question)) == 3002


def test_statuses_and_what_is_abnormal_for_a_while() -> None:
    """Each id has its status, 4 as often as asked for, and an absent id is left out."""
    api = JPushReportApi(statuses={"b": 2}, abnormal={"c": 1}, absent={"d"})
    question = {"msg_id": 1, "registration_ids": ["a", "b", "c", "d"], "date": "2014-06-10"}
    first, second = (json.loads(ask(api, "POST", "/v3/status/message", json=question).body) for _ in range(2))
    assert first == {"a": {"status": 0}, "b": {"status": 2}, "c": {"status": 4}}
    assert second["c"] == {"status": 0}
    thousand = {"msg_id": 1, "registration_ids": [str(n) for n in range(1000)]}
    assert len(json.loads(ask(api, "POST", "/v3/status/message", json=thousand).body)) == 1000


@pytest.mark.parametrize(
    ("unit", "start", "duration", "outcome"),
    [
        ("DAY", "2014-06-10", "3", ["2014-06-10", "2014-06-11", "2014-06-12"]),
        ("HOUR", "2014-06-11 22", "5", ["2014-06-11 22", "2014-06-11 23"]),
        ("MONTH", "2014-05", "2", ["2014-05", "2014-06"]),
        ("DAY", "2014-06", "1", 3004),
        ("HOUR", "2014-06-11", "1", 3004),
        ("MONTH", "2014-06-11", "1", 3004),
        ("DAY", "2014-06-31", "1", 3004),
        ("DAY", "2014-04-14", "60", 60),
        ("DAY", "2014-04-13", "1", 3005),
        ("DAY", "2014-06-10", "61", 3005),
        ("MONTH", "2014-03", "1", 3005),
        ("WEEK", "2014-06-10", "1", 3002),
        ("DAY", "2014-06-10", "0", 3002),
        ("DAY", "2014-06-10", "x", 3002),
    ],
)
def test_user_statistics(unit: str, start: str, duration: str, outcome: list[str] | int) -> None:
    """Each unit has its own format of start; the range is at most 60 days, in hours one day."""
    reply = ask(JPushReportApi(), "GET", "/v3/users", {"time_unit": unit, "start": start, "duration": duration})
    if reply.status != 200:
        assert code(reply) == outcome
        return
    times = [item["time"] for item in json.loads(reply.body)["items"]]
    assert outcome in (times, len(times))


def test_credentials_and_permissions() -> None:
    """A wrong secret is 401 with 3001; without the VIP contract only the VIP endpoints are 2003."""
    wrong = ask(JPushReportApi(), "GET", "/v3/received", {"msg_ids": "1"}, headers={"authorization": "Basic eA=="})
    assert (wrong.status, code(wrong)) == (401, 3001)
    plain = JPushReportApi(vip=False)
    assert code(ask(plain, "GET", "/v3/messages", {"msg_ids": "1"})) == 2003
    assert code(ask(plain, "GET", "/v3/users", {})) == 2003
    assert ask(plain, "GET", "/v3/received", {"msg_ids": "1"}).status == 200


def test_an_address_without_its_version_is_not_found() -> None:
    """A base address without /v3 is answered 404, and not in JSON."""
    reply = ask(JPushReportApi(), "GET", "/received", {"msg_ids": "1"})
    assert (reply.status, reply.content_type) == (404, "text/html")


def test_the_rate_headers_count_down_and_the_limit_ends_with_the_minute() -> None:
    """Each answer says how many are left; one too many is 429 with 2002 until the minute is over."""
    api = JPushReportApi(minute_limit=2)
    replies = [ask(api, "GET", "/v3/received", {"msg_ids": "1"}, at=at) for at in (0.0, 20.0, 59.9, 60.0)]
    assert [reply.status for reply in replies] == [200, 200, 429, 200]
    assert code(replies[2]) == 2002
    assert [reply.headers["X-Rate-Limit-Remaining"] for reply in replies] == ["1", "0", "0", "1"]
    assert [reply.headers["X-Rate-Limit-Reset"] for reply in replies] == ["60", "40", "1", "60"]
    assert replies[0].headers["X-Rate-Limit-Limit"] == "2"
