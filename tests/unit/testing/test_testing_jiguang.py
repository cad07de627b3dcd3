"""The simulated Jiguang: each rule and each error of its document."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from connector.testing.faults import Call
from connector.testing.jiguang import LARGEST_BODY, PATH, JiguangApi
from connector.testing.simulator import Reply

NOW = 1_700_000_000_000
DAY = 24 * 60 * 60 * 1000


def ask(api: JiguangApi, data: object, *, body: bytes | None = None, **headers: str) -> Reply:
    """Return the answer to a report of `data` with the account's own credential."""
    credential = base64.b64encode(f"{api.project_id}:{api.project_secret}".encode()).decode()
    sent = {"authorization": f"Basic {credential}", "content-type": "application/json", **headers}
    content = body if body is not None else json.dumps({"appKey": api.app_key, "data": data}).encode()
    return api.answer(Call(1, 0.0, NOW / 1000, "POST", PATH, (), sent, content))


def event(**fields: Any) -> dict[str, Any]:
    """Return a valid event with some fields set; one set to ... is left out."""
    whole = {"cuid": 1, "eventName": "e", "itime": NOW, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def refusal(reply: Reply) -> list[tuple[int, str]]:
    """Return the errors of an answer, of the single or of the multiple form."""
    assert reply.events == ()
    answer = json.loads(reply.body)
    errors = answer["data"] if answer["code"] == 4000 else [answer]
    return [(error["code"], error["msg"]) for error in errors]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"cuid": "1"}, (4001, "cuid 字段类型错误")),
        ({"cuid": True}, (4001, "cuid 字段类型错误")),
        ({"cuid": 1.0}, (4001, "cuid 字段类型错误")),
        ({"cuid": 2**63}, (4001, "cuid 字段类型错误")),
        ({"eventName": 5}, (4001, "eventName 字段类型错误")),
        ({"itime": str(NOW)}, (4001, "itime 字段类型错误")),
        ({"randomId": 7}, (4001, "randomId 字段类型错误")),
        ({"properties": []}, (4001, "properties 字段类型错误")),
        ({"cuid": ...}, (4004, "cuid 字段不能为空")),
        ({"eventName": ""}, (4004, "eventName 字段不能为空")),
        ({"itime": None}, (4004, "itime 字段不能为空")),
        ({"itime": 1676875}, (4104, "itime 1676875 时间戳超出合理范围")),
        ({"properties": {"p": {"nested": 1}}}, (4105, "p 属性值类型应为 any")),
        ({"properties": {"p": None}}, (4105, "p 属性值类型应为 any")),
        ({"properties": {"p": [1]}}, (4105, "p 属性值类型应为 any")),
    ],
)
def test_one_wrong_field_is_one_error_and_refuses_the_whole_batch(
    wrong: dict[str, Any], error: tuple[int, str]
) -> None:
    """A single error is answered in the single form, and the good event next to it is not accepted."""
    reply = ask(JiguangApi(), [event(), event(**wrong)])
    assert refusal(reply) == [error]
    assert json.loads(reply.body)["code"] == error[0]


@pytest.mark.parametrize(("offset", "accepted"), [(300_000, 1), (300_001, 0), (-365 * DAY, 1), (-365 * DAY - 1, 0)])
def test_itime_at_the_edges_of_its_window(offset: int, accepted: int) -> None:
    """Five minutes ahead and one year back are inside, a millisecond more is not."""
    assert len(ask(JiguangApi(), [event(itime=NOW + offset)]).events) == accepted


@pytest.mark.parametrize(("records", "accepted"), [(1, 1), (100, 100), (101, 0)])
def test_at_most_a_hundred_records(records: int, accepted: int) -> None:
    """101 records are 4002 on data itself."""
    reply = ask(JiguangApi(), [event()] * records)
    assert len(reply.events) == accepted
    assert accepted or refusal(reply) == [(4002, "data 字段数组大小超出范围")]


def test_several_errors_are_listed_without_an_index() -> None:
    """Every error of every record is in the list, in order, and nothing says which record it was."""
    reply = ask(JiguangApi(), [event(itime=5), event(), event(cuid="x", itime=5)])
    assert json.loads(reply.body)["msg"] == "请求有多个错误,请在data中查看错误码列表"
    assert [code for code, _ in refusal(reply)] == [4104, 4001, 4104]


def test_events_attributes_and_users_that_do_not_exist() -> None:
    """4101, 4102 and 4103 name the event, the attribute and the cuid."""
    api = JiguangApi(events={"e": {"n": "number"}}, disabled=[("e", "old")], knows_cuid=lambda cuid: cuid < 100)
    assert refusal(ask(api, [event(eventName="x")])) == [(4101, "事件 x 不存在")]
    assert refusal(ask(api, [event(properties={"old": 1})])) == [(4102, "事件 e 的属性 old 不存在或已停用")]
    assert refusal(ask(api, [event(cuid=100)])) == [(4103, "cuid 100 对应的用户不存在")]
    assert len(ask(api, [event(properties={"unheard_of": {}})]).events) == 1
    api.ignore_unknown_attributes = False
    assert [code for code, _ in refusal(ask(api, [event(properties={"unheard_of": 1})]))] == [4102]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("string", ["", "a"], [1, True]),
        ("number", [1, 1.5, -3], ["1", True]),
        ("bool", [True, False, 0, 1, "true", "false", "0", "1"], [2, "yes", 0.5]),
        (
            "datetime",
            [1698168389000, "20231025", "2023-10-25", "20231025_235959", "2023-10-25 23:59:59"],
            ["20231325", "2023-10-25T00:00:00", "2023", True, 1.5],
        ),
        ("list", [[], ["a", "b"]], [["a", 1], "a"]),
    ],
)
def test_attribute_values_have_their_types(kind: str, good: list[object], bad: list[object]) -> None:
    """4105 for a value that is not of the attribute's type, in each of the five types."""
    api = JiguangApi(events={"e": {"p": kind}})
    for value in good:
        assert len(ask(api, [event(properties={"p": value})]).events) == 1, value
    for value in bad:
        assert refusal(ask(api, [event(properties={"p": value})])) == [(4105, f"p 属性值类型应为 {kind}")], value


def test_lengths_where_they_are_set() -> None:
    """4003 for a string and 4002 for a list longer than the account allows."""
    api = JiguangApi(lengths={"randomId": 3, "tags": 1})
    assert refusal(ask(api, [event(randomId="abcd")])) == [(4003, "randomId 字段长度超出范围")]
    assert refusal(ask(api, [event(properties={"tags": ["a", "b"]})])) == [(4002, "tags 字段数组大小超出范围")]


@pytest.mark.parametrize(
    ("change", "status", "verdict"),
    [
        (lambda _: {"authorization": "Basic x"}, 401, "credential"),
        (lambda _: {"content-type": "text/plain"}, 415, "refused"),
        (lambda _: {"body": b"{"}, 200, "refused"),
        (lambda _: {"body": b'{"appKey":"a","data":[NaN]}'}, 200, "refused"),
        (lambda _: {"body": b" " * (LARGEST_BODY + 1)}, 413, "too_large"),
        (lambda api: {"body": json.dumps({"appKey": "other", "data": [event()]}).encode()}, 200, "credential"),
        (lambda api: {"body": json.dumps({"appKey": api.app_key, "data": []}).encode()}, 200, "refused"),
    ],
)
def test_a_request_that_is_wrong_as_a_whole(
    change: Callable[[JiguangApi], dict[str, Any]], status: int, verdict: str
) -> None:
    """Credential, media type, JSON, size and appKey are judged before any record."""
    api = JiguangApi()
    reply = ask(api, [event()], **change(api))
    assert (reply.status, reply.verdict, reply.events) == (status, verdict, ())


def test_what_counts_as_the_same_event() -> None:
    """The document's five values make a repetition; without a randomId nothing is one."""
    same = ask(JiguangApi(), [event(randomId="r"), event(randomId="r", eventName="other"), event(randomId="s")])
    first, second, third = (each.key for each in same.events)
    assert first == second != third
    assert [each.key for each in ask(JiguangApi(), [event(), event(randomId="")]).events] == [None, None]
