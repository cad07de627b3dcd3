"""The simulated Quick Audience: its form, its signature, its event model."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.testing.faults import Call
from connector.testing.quick_audience import PATH, QuickAudienceApi, read_form, sign
from connector.testing.simulator import Reply

NOW = 1_708_235_644_862


def form(fields: list[tuple[str, bytes]], boundary: bytes = b"b") -> bytes:
    """Return a multipart body of text fields."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (boundary, name.encode(), content)
        for name, content in fields
    ]
    return b"".join(parts) + b"--%s--\r\n" % boundary


def ask(api: QuickAudienceApi, events: object, **changes: Any) -> Reply:
    """Return the answer to a well-signed request; `changes` spoil its parts."""
    parameters = {"appId": api.app_id, "timestamp": str(NOW), "accessKey": api.access_key, **changes.get("query", {})}
    fields = changes.get(
        "fields", [("eventMessageModelListJson", json.dumps(events).encode()), ("accessId", api.access_id.encode())]
    )
    headers = {
        "authorization": changes.get("signature") or sign(parameters, api.access_secret),
        "content-type": changes.get("content_type", "multipart/form-data; boundary=b"),
    }
    body = changes.get("body") or form(fields)
    return api.answer(Call(7, 0.0, NOW / 1000, "POST", PATH, tuple(parameters.items()), headers, body))


def event(**fields: Any) -> dict[str, Any]:
    """Return a valid event with some fields set; one set to ... is left out."""
    whole = {"organizationId": "o", "customerId": "c", "eventCode": "e", "eventTime": NOW, **fields}
    return {name: value for name, value in whole.items() if value is not ...}


def test_signature_vector() -> None:
    """The signature of the known parameters is the one computed by hand from the vendor's rule."""
    parameters = {"accessKey": "xxxx", "appId": "tttt", "timestamp": "1708235644862"}
    assert sign(parameters, "yyyy") == "482898c9c725580c190c4df6b806f59e"


def test_an_accepted_list_is_answered_as_in_the_document() -> None:
    """The answer has the document's five properties and a traceId of its own."""
    reply = ask(QuickAudienceApi(), [event(), event(extendAttributes={"k": "v"}, isOrder="1", workspaceId="w")])
    answer = json.loads(reply.body)
    assert len(answer.pop("traceId")) == 36
    assert answer == {"data": True, "errorCode": None, "errorDesc": None, "success": True}
    assert len(reply.events) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"organizationId": ...},
        {"customerId": ""},
        {"eventCode": 5},
        {"eventTime": ...},
        {"eventTime": str(NOW)},
        {"eventTime": 1.5},
        {"eventTime": True},
        {"extendAttributes": {"k": 1}},
        {"extendAttributes": {"k": None}},
        {"extendAttributes": []},
        {"customerIdList": [{"customerId": "c"}]},
        {"customerIdList": [{"customerId": "c", "idMapping": ""}]},
        {"customerIdList": {}},
        {"isOrder": 1},
        {"isOrder": "2"},
        {"workspaceId": 1},
        {"unheardOf": "x"},
    ],
)
def test_one_wrong_event_refuses_the_whole_list(wrong: dict[str, Any]) -> None:
    """An event that is not the model's is refused with HTTP 200 and success false."""
    reply = ask(QuickAudienceApi(), [event(), event(**wrong)])
    answer = json.loads(reply.body)
    assert (reply.status, answer["success"], answer["errorCode"], reply.events) == (200, False, "PARAM_ERROR", ())
    assert next(iter(wrong)) in answer["errorDesc"]


def test_a_non_human_entity_needs_its_id() -> None:
    """An entityId is required where the entity is not a person."""
    api = QuickAudienceApi(entity=True)
    assert json.loads(ask(api, [event()]).body)["success"] is False
    assert json.loads(ask(api, [event(entityId="car")]).body)["success"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": "0" * 32},
        {"query": {"appId": "other"}},
        {"query": {"accessKey": "other"}},
        {"query": {"timestamp": str(NOW - 900_001)}},
        {"query": {"timestamp": str(NOW + 900_001)}},
    ],
)
def test_what_is_wrong_with_the_credential(changes: dict[str, Any]) -> None:
    """A signature, key, application or time that does not hold is 401, and nothing is accepted."""
    reply = ask(QuickAudienceApi(), [event()], **changes)
    assert (reply.status, reply.verdict, reply.events) == (401, "credential", ())


@pytest.mark.parametrize(
    "changes",
    [
        {"content_type": "application/json"},
        {"content_type": "multipart/form-data"},
        {"content_type": "multipart/form-data; boundary=other"},
        {"fields": [("accessId", b"480002d3-bdc8-4244-9e20-c2d04c711583")]},
        {"fields": [("accessId", b"another"), ("eventMessageModelListJson", b"[]")]},
        {"fields": [("accessId", b"\xff"), ("eventMessageModelListJson", b"[]")]},
        {"fields": [("accessId", b"a"), ("accessId", b"a"), ("eventMessageModelListJson", b"[]")]},
        {"fields": [("accessId", b"480002d3-bdc8-4244-9e20-c2d04c711583"), ("eventMessageModelListJson", b"{}")]},
        {"fields": [("accessId", b"480002d3-bdc8-4244-9e20-c2d04c711583"), ("eventMessageModelListJson", b"[")]},
        {"body": form([("accessId", b"a")])[:-4]},
        {"body": b"\r\n" + form([("accessId", b"a")])},
        {"body": form([("accessId", b"a")]) + b"more"},
        {"query": {"timestamp": "now"}},
        {"query": {"more": "1"}},
    ],
)
def test_a_request_that_is_not_the_documents(changes: dict[str, Any]) -> None:
    """A form, field or query parameter that is wrong, doubled or missing is refused."""
    reply = ask(QuickAudienceApi(), [event()], **changes)
    assert json.loads(reply.body)["errorCode"] == "PARAM_ERROR"
    assert reply.events == ()


def test_limits_are_those_that_are_set() -> None:
    """The unpublished limits of records and bytes are options, judged at their edge."""
    api = QuickAudienceApi(largest_batch=2)
    assert json.loads(ask(api, [event()] * 2).body)["success"] is True
    assert json.loads(ask(api, [event()] * 3).body)["errorCode"] == "LIMIT_EXCEEDED"
    api.largest_body = len(form([("eventMessageModelListJson", b"[]"), ("accessId", api.access_id.encode())]))
    assert ask(api, []).status == 200
    assert ask(api, [[]]).status == 413


def test_error_codes_on_demand() -> None:
    """Each errorCode that a customer might see can be shown for an event code of choice."""
    api = QuickAudienceApi(refusals={"bad": "E-77"}, event_codes={"e"}, error_codes={"event": "E-1"})
    assert json.loads(ask(api, [event(), event(eventCode="bad")]).body)["errorCode"] == "E-77"
    assert json.loads(ask(api, [event(eventCode="x")]).body)["errorCode"] == "E-1"


@given(
    fields=st.dictionaries(st.sampled_from(["a", "b", "accessId"]), st.text(max_size=40), min_size=1),
    boundary=st.text("abcXYZ0189-_", min_size=1, max_size=70).filter(lambda text: not text.endswith(" ")),
)
def test_a_form_reads_as_it_was_written(fields: dict[str, str], boundary: str) -> None:
    """Whatever text the fields hold, line breaks and dashes included, comes out unchanged."""
    encoded = [(name, text.encode()) for name, text in fields.items()]
    if any(b"--" + boundary.encode() in content for _, content in encoded):
        return
    assert read_form(f"multipart/form-data; boundary={boundary}", form(encoded, boundary.encode())) == fields
