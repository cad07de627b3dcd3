"""Every sample of the vendors' documents: requests that are accepted, answers that are produced and read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from connector.errors import Refusal
from connector.testing import Call, Fault, QuickAudienceApi
from connector.testing.quick_audience import PATH, sign
from connector.vendors.base import Accepted, Misconfigured, Refused

Connect = Callable[..., Awaitable[Any]]
Sample = Callable[[str], Any]

JUNE_2022 = 1_654_076_421.0
JUNE_2014 = 1_402_600_000.0


async def served(wire: Any, body: Any) -> None:
    """Let the simulator answer the next request with a sample, whatever it is asked."""
    wire.simulator.plan.arm(Fault("status", status=200, body=json.dumps(body, ensure_ascii=False), times=1))


async def test_jiguangs_report_arrives_as_it_was_written(connect: Connect, sample: Sample) -> None:
    """Both sample events are accepted unchanged, except the randomId that the second one lacks."""
    report = sample("jiguang-report.json")
    wire = await connect("jiguang", wall=JUNE_2022, app_key=report["appKey"], account={"app_key": report["appKey"]})
    assert isinstance(await wire.deliver(*report["data"]), Accepted)
    first, second = wire.simulator.accepted
    assert first == report["data"][0]
    assert len(second.pop("randomId")) == 36
    assert second == report["data"][1]


async def test_jiguangs_answers_are_produced(connect: Connect, sample: Sample) -> None:
    """The simulator's success, single and multiple errors are the document's, byte for byte as JSON."""
    wire = await connect("jiguang")
    good = {"cuid": 1, "eventName": "e", "itime": wire.now}
    group, items = wire.items([good])
    bad = replace(items[0], body=b'{"cuid":1,"eventName":"e","itime":1676875}')
    wrong = await connect("jiguang", app_key="other")
    answers = [
        await asked.transport.send(asked.vendor.request(group, batch, asked.now), 5)
        for asked, batch in ((wire, items), (wrong, items), (wire, [bad, bad]))
    ]
    names = ("jiguang-ok.json", "jiguang-single-error.json", "jiguang-multiple-errors.json")
    assert [json.loads(answer.body) for answer in answers] == [sample(name) for name in names]


async def test_jiguangs_answers_are_read(connect: Connect, sample: Sample) -> None:
    """The three sample answers are an acceptance, a misconfiguration, and a refusal for its record codes."""
    wire = await connect("jiguang")
    verdicts = []
    for name in ("jiguang-ok.json", "jiguang-single-error.json", "jiguang-multiple-errors.json"):
        await served(wire, sample(name))
        verdicts.append(await wire.deliver({"cuid": 1, "eventName": "e", "itime": wire.now}))
    assert isinstance(verdicts[0], Accepted)
    assert isinstance(verdicts[1], Misconfigured)
    assert isinstance(verdicts[2], Refused)
    assert (verdicts[2].code, verdicts[2].documented) == ("4104", True)


def test_quick_audiences_curl_command_is_accepted(sample: Sample) -> None:
    """The sample request, with its empty list and its fields in their order, is answered as the sample says."""
    api = QuickAudienceApi(
        app_id="673198870988276864",
        access_key="ec22d92d8dd142b8b39b23b39bc8b39c",
        access_id="480002d3-bdc8-4244-9e20-c2d04c711583",
    )
    query = {"appId": api.app_id, "timestamp": "1708235644862", "accessKey": api.access_key}
    boundary = "------------------------d74496d66958873e"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="eventMessageModelListJson"\r\n\r\n[]\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="accessId"\r\n\r\n{api.access_id}\r\n--{boundary}--\r\n'
    ).encode()
    headers = {
        "authorization": sign(query, api.access_secret),
        "content-type": f"multipart/form-data; boundary={boundary}",
    }
    reply = api.answer(Call(1, 0.0, 1_708_235_645.0, "POST", PATH, tuple(query.items()), headers, body))
    expected = sample("quick_audience-ok.json")
    assert {**json.loads(reply.body), "traceId": expected["traceId"]} == expected


async def test_quick_audience_accepts_every_documented_field(connect: Connect, sample: Sample) -> None:
    """An event with every field of the document's model is accepted unchanged, and the sample answer is read."""
    wire = await connect("quick_audience")
    model = {
        "organizationId": "480002d3-bdc8-4244-9e20-c2d04c711583",
        "workspaceId": "w",
        "customerId": "c",
        "entityId": "car",
        "eventCode": "buy",
        "eventTime": 1_708_235_644_862,
        "extendAttributes": {"колір": '"красный"\n', "n": "1"},
        "customerIdList": [{"customerId": "139****0000", "idMapping": "MOBILE"}],
        "isOrder": "1",
    }
    assert isinstance(await wire.deliver(model), Accepted)
    assert wire.simulator.accepted == [model]
    await served(wire, sample("quick_audience-ok.json"))
    verdict = await wire.deliver(model)
    assert isinstance(verdict, Accepted)
    assert verdict.request_id == "ff0f996e-6c63-412d-a4cd-acf5d00775cd"


def typed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample's parameters in the contract schema's types: its numbers are written as text."""
    numbers = {"eventTimestamp", "idGender", "age", "connectionType", "bluetoothEnabled", "adTrackingEnabled"}
    return {name: int(value) if name in {*numbers, "adBlocker"} else value for name, value in parameters.items()}


@pytest.mark.parametrize("method", ["registration", "login", "customEvent"])
async def test_mytrackers_batches_arrive(method: str, connect: Connect, sample: Sample) -> None:
    """Each method's sample batch is accepted at that method's address, unchanged."""
    wire = await connect("mytracker", event_time="receipt")
    sets = sample(f"mytracker-{method}Batch.json")
    assert isinstance(await wire.deliver(*({"method": method, **each} for each in sets)), Accepted)
    assert wire.simulator.accepted == [{"method": method, **each} for each in sets]
    assert wire.simulator.served[0].path == f"/v1/{method}Batch/"


async def test_mytrackers_example_query_arrives(connect: Connect, sample: Sample) -> None:
    """The example of a custom event is accepted, its numbers as numbers."""
    wire = await connect("mytracker")
    example = typed(sample("mytracker-customEvent.json"))
    assert isinstance(await wire.deliver({"method": "customEvent", **example}), Accepted)
    assert wire.simulator.accepted == [{"method": "customEvent", **example}]
    await served(wire, sample("mytracker-ok.json"))
    assert isinstance(await wire.deliver({"method": "customEvent", **example}), Accepted)


async def test_mytrackers_parameter_table_arrives_but_for_its_own_mistake(connect: Connect, sample: Sample) -> None:
    """Every sample value of the table passes; androidId breaks the table's own rule, which can be switched off."""
    parameters = {"method": "registration", **typed(sample("mytracker-parameters.json"))}
    wire = await connect("mytracker")
    with pytest.raises(Refusal) as caught:
        wire.items([parameters])
    assert (caught.value.code, caught.value.field) == ("mytracker.androidId.length", "androidId")
    lenient = await connect(
        "mytracker", account={"unchecked": ["androidId"]}, rules={"mytracker.androidId.length": "off"}
    )
    assert isinstance(await lenient.deliver(parameters), Accepted)
    assert lenient.simulator.accepted == [parameters]


JPUSH = [
    (
        [("Received", {"msg_id": 1613113584}), ("Received", {"msg_id": 1229760629})],
        "/v3/received?msg_ids=1613113584,1229760629",
        "jpush_report-received.json",
    ),
    ([("Messages", {"msg_id": 269978303})], "/v3/messages?msg_ids=269978303", "jpush_report-messages.json"),
    (
        [("Users", {"time_unit": "DAY", "start": "2014-06-10", "duration": 3})],
        "/v3/users?time_unit=DAY&start=2014-06-10&duration=3",
        "jpush_report-users.json",
    ),
]


@pytest.mark.parametrize(("queries", "address", "answer"), JPUSH)
async def test_jpushs_questions_are_asked_as_written_and_its_answers_kept(
    queries: list[tuple[str, dict[str, Any]]], address: str, answer: str, connect: Connect, sample: Sample
) -> None:
    """The address is the document's, the simulator answers in the document's form, and raw keeps each figure."""
    wire = await connect("jpush_report", wall=JUNE_2014)
    events = [{"query": (f"connector.events.{name}", fields)} for name, fields in queries]
    request = wire.request(events)
    assert (request.method, request.url) == ("GET", wire.simulator.url + address)
    produced = json.loads((await wire.transport.send(request, 5)).body)
    expected = sample(answer)
    assert _shape(produced) == _shape(expected)
    await served(wire, expected)
    verdict = await wire.deliver(*events)
    assert isinstance(verdict, Accepted)
    assert [each.datum["status"] for each in verdict.answers] == ["found"] * len(events)
    whole = expected if isinstance(expected, list) else [expected]
    assert [json.loads(each.datum["raw"]) for each in verdict.answers] == whole


def _shape(answer: Any) -> Any:
    """Return an answer's keys, without figures: of a list the first member's."""
    if isinstance(answer, list):
        return [_shape(each) for each in answer[:1]]
    return {name: _shape(value) for name, value in answer.items()} if isinstance(answer, dict) else ...


async def test_jpushs_status_sample_with_the_id_that_it_swaps(connect: Connect, sample: Sample) -> None:
    """The question is sent as written; the id that the sample answers without being asked is not taken for another."""
    wire = await connect("jpush_report", wall=JUNE_2014)
    question = sample("jpush_report-status-question.json")
    query = {"query": ("connector.events.MessageStatus", {**question, "date": None})}
    request = wire.request([query])
    assert request.method == "POST"
    assert {**json.loads(request.body or b""), "date": None} == {**question, "date": None}
    assert isinstance(await wire.deliver(query), Accepted)
    await served(wire, sample("jpush_report-status.json"))
    verdict = await wire.deliver(query)
    assert isinstance(verdict, Accepted)
    told = {"1506bfd3a7c568d4761": "missing", "02078f0f1b8": 2, "0207870a9b8": 2}
    assert verdict.answers[0].datum["answer"] == told


async def test_jpushs_error_sample(connect: Connect, sample: Sample) -> None:
    """A wrong credential is answered as in the document, and read as one."""
    wire = await connect("jpush_report", master_secret="wrong")
    event = {"query": ("connector.events.Received", {"msg_id": 1})}
    response = await wire.transport.send(wire.request([event]), 5)
    assert (response.status, json.loads(response.body)) == (401, sample("jpush_report-error.json"))
    verdict = await wire.deliver(event)
    assert isinstance(verdict, Misconfigured)
    assert verdict.code == "3001"
