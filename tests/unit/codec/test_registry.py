"""Only a registry's own word about a schema says anything about a record; everything else waits."""

import asyncio
import json
import re
import uuid
from typing import Any

import orjson
import pytest
from confluent_kafka.schema_registry import RegisteredSchema, Rule, RuleSet, SchemaReference
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry.error import SchemaRegistryError
from structlog.testing import capture_logs

from connector.codec.decoder import UNKNOWN_SECONDS, Decoder, Unreadable
from connector.codec.encoder import Encoder, compile_write
from connector.codec.frames import SCHEMA_HEADER, SchemaKey
from connector.codec.registry import MOST_QUESTIONS, Registry, RegistryTrouble
from connector.codec.schemas import Contracts, load_contracts
from connector.errors import FatalError, Refusal, SchemaUnavailable
from connector.records import Event, Record
from connector.testing.clock import ManualClock

PLAIN = json.dumps({"type": "record", "name": "com.acme.A", "fields": [{"name": "n", "type": "int"}]})
HUGE = {"name": "f", "type": {"type": "fixed", "name": "F", "size": 10**23}}
WHERE = "http://user:secret@registry.test:8081/api"
GUID = "12345678-1234-5678-1234-567812345678"


class FakeClient:
    """A registry whose answers are schemas or exceptions, by id, GUID or (subject, version)."""

    def __init__(self, answers: dict[Any, Any]) -> None:
        self.answers = answers
        self.asked: list[Any] = []
        self.registered: list[str] = []
        self.now = self.most = self.cleared = 0
        self.gate: asyncio.Event | None = None

    async def _answer(self, key: Any) -> Any:
        self.asked.append(key)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.get(key, SchemaRegistryError(404, 40403, "Schema not found"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def get_schema(self, schema_id: int) -> RegistrySchema:
        """Answer for an id."""
        found: RegistrySchema = await self._answer(schema_id)
        return found

    async def get_schema_by_guid(self, guid: str) -> RegistrySchema:
        """Answer for a GUID."""
        found: RegistrySchema = await self._answer(guid)
        return found

    async def get_version(self, subject_name: str, version: int, deleted: bool = False) -> RegisteredSchema:
        """Answer for a subject's version."""
        schema = await self._answer((subject_name, version, "deleted") if deleted else (subject_name, version))
        return RegisteredSchema(subject=subject_name, version=version, schema_id=1, guid=None, schema=schema)

    async def clear_caches(self) -> None:
        """Count how often it is told to forget what it keeps."""
        self.cleared += 1

    async def get_subjects(self) -> list[str]:
        """Answer with every subject that has a newest version, unless subjects have an answer of their own."""
        if "subjects" in self.answers:
            await self._answer("subjects")
        return [key.removeprefix("latest ") for key in self.answers if str(key).startswith("latest ")]

    async def get_latest_version(self, subject_name: str) -> RegisteredSchema:
        """Answer for a subject's newest version."""
        schema = await self._answer(f"latest {subject_name}")
        return RegisteredSchema(subject=subject_name, version=1, schema_id=1, guid=None, schema=schema)

    async def register_schema(self, subject_name: str, schema: RegistrySchema) -> int:
        """Register under the id that the answers give for the subject."""
        found: int = await self._answer(subject_name)
        self.registered.append(subject_name)
        return found


class Bench:
    """A decoder on a fake registry and a manual clock, and what it said of the registry."""

    def __init__(self, answers: dict[Any, Any]) -> None:
        self.client = FakeClient(answers)
        self.clock = ManualClock()
        self.said: list[str | None] = []
        self.registry = Registry(self.client, WHERE)
        self.decoder = Decoder(Contracts({}), clock=self.clock, registry=self.registry, on_trouble=self.said.append)

    async def settle(self, record: Record) -> Any:
        """Decode, resolving what has to be, and return the event."""
        while True:
            try:
                return self.decoder.event(record)
            except SchemaUnavailable as missing:
                await self.decoder.resolve(missing.key)


def _record(schema_id: int, body: bytes = b"\x02") -> Record:
    return Record("events", 0, 0, 0, None, b"\0" + schema_id.to_bytes(4, "big") + body, ())


def _avro(text: str = PLAIN, *references: SchemaReference) -> RegistrySchema:
    return RegistrySchema(text, "AVRO", list(references))


async def test_a_schema_is_asked_for_once() -> None:
    """Ten records that wait for one id make one request, and later records none."""
    bench = Bench({1: _avro()})
    bench.client.gate = asyncio.Event()
    waiting = [asyncio.create_task(bench.settle(_record(1))) for _ in range(10)]
    await bench.clock.settle()
    bench.client.gate.set()
    events = await asyncio.gather(*waiting)
    assert {event.schema for event in events} == {"com.acme.A"}
    assert (await bench.settle(_record(1))).datum == {"n": 1}
    assert bench.client.asked == [1]


async def test_new_routes_apply_to_schemas_that_the_registry_answered_before() -> None:
    """After a reload a known schema decodes for the new routes, without asking the registry again.

    Kills: answers that go on decoding for the old routes, or that are forgotten while the registry may be down.
    """
    fields = [{"name": "m", "type": {"type": "map", "values": "string"}}]
    bench = Bench({1: _avro(json.dumps({"type": "record", "name": "com.acme.M", "fields": fields}))})
    bench.decoder.look_into({("com.acme.M", "m")}, keys=False)
    record = _record(1, b"\x02\x02a\x02b\x00")
    assert type((await bench.settle(record)).datum["m"]) is orjson.Fragment
    bench.decoder.look_into((), keys=False)
    (event,) = bench.decoder.decode([record])
    assert isinstance(event, Event)
    assert (event.datum, bench.client.asked) == ({"m": {"a": "b"}}, [1])


async def test_subjects_that_cannot_be_listed_are_trouble_with_its_reason() -> None:
    """The message names the registry and the answer. Kills: a message that shows an internal object."""
    bench = Bench({})
    bench.client.answers = SubjectsDown()
    with pytest.raises(RegistryTrouble, match=r"the registry at http://registry\.test:8081/api answers HTTP 503, code"):
        await bench.registry.subjects()


class SubjectsDown(dict[Any, Any]):
    """Answers of a registry that cannot list its subjects."""

    def __iter__(self) -> Any:
        """Raise what the client raises."""
        raise SchemaRegistryError(503, 50301, "leader is down")


async def test_the_header_form_is_resolved_by_guid() -> None:
    """A GUID in the header is asked for at the registry, and the whole value is the datum."""
    bench = Bench({GUID: _avro()})
    record = Record("events", 0, 0, 0, None, b"\x02", [(SCHEMA_HEADER, b"\1" + uuid.UUID(GUID).bytes)])
    assert (await bench.settle(record)).datum == {"n": 1}


async def test_references_are_resolved_through_each_other() -> None:
    """A schema that refers to one which refers to a third is read whole."""
    third = json.dumps({"type": "record", "name": "a.C", "fields": [{"name": "n", "type": "int"}]})
    second = json.dumps({"type": "record", "name": "a.B", "fields": [{"name": "c", "type": "a.C"}]})
    first = json.dumps({"type": "record", "name": "a.A", "fields": [{"name": "b", "type": "a.B"}]})
    bench = Bench(
        {
            1: _avro(first, SchemaReference("a.B", "b", 3)),
            ("b", 3): _avro(second, SchemaReference("a.C", "c", 1)),
            ("c", 1): _avro(third),
        }
    )
    assert (await bench.settle(_record(1))).datum == {"b": {"c": {"n": 1}}}


async def test_a_reference_that_was_soft_deleted_is_still_read() -> None:
    """Records outlive the subject that their schema refers to. Kills: every destination held for a deleted subject."""
    inner = json.dumps({"type": "record", "name": "a.B", "fields": [{"name": "n", "type": "int"}]})
    outer = json.dumps({"type": "record", "name": "a.A", "fields": [{"name": "b", "type": "a.B"}]})
    bench = Bench({1: _avro(outer, SchemaReference("a.B", "b", 1)), ("b", 1, "deleted"): _avro(inner)})
    bench.client.answers["b", 1] = SchemaRegistryError(404, 40401, "Subject 'b' not found")
    assert (await bench.settle(_record(1))).datum == {"b": {"n": 1}}


@pytest.mark.parametrize(
    "trouble",
    [
        SchemaRegistryError(401, 40101, "Unauthorized"),
        SchemaRegistryError(404, -1, "<html>not here</html>"),
        SchemaRegistryError(404, 404, "HTTP 404 Not Found"),
        SchemaRegistryError(503, 50301, "leader is down"),
        ConnectionError("refused"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
        RegistrySchema(None, "AVRO"),
    ],
    ids=["401", "html 404", "bare 404", "503", "down", "html 200", "json that is no schema"],
)
async def test_what_is_no_word_about_the_schema_holds_the_record(trouble: Any) -> None:
    """The record waits as long as the trouble lasts; its beginning and its end are logged once each."""
    bench = Bench({1: trouble})
    task = asyncio.create_task(bench.settle(_record(1)))
    await bench.clock.elapse(3600)
    assert not task.done()
    assert len(bench.said) == 1
    assert bench.said[0] is not None
    assert "registry.test:8081" in bench.said[0]
    assert "secret" not in bench.said[0]
    asked = len(bench.client.asked)
    assert asked < 3600 / 10
    bench.client.answers[1] = _avro()
    await bench.clock.elapse(60)
    assert (await task).datum == {"n": 1}
    assert bench.said[1:] == [None]


async def test_an_unknown_id_is_asked_for_again_before_it_is_refused() -> None:
    """A registry that resolved another id is asked for ten seconds; then the record is refused."""
    bench = Bench({1: _avro()})
    await bench.settle(_record(1))
    task = asyncio.create_task(bench.settle(_record(2)))
    await bench.clock.elapse(UNKNOWN_SECONDS - 1)
    assert not task.done()
    assert bench.client.asked.count(2) > 2
    await bench.clock.elapse(20)
    with pytest.raises(Refusal) as caught:
        await task
    assert caught.value.code == "decode.schema_unknown"
    assert bench.said == []


async def test_an_unknown_id_waits_ten_seconds_and_says_so() -> None:
    """The last question comes at ten seconds, not after the next pause, and one log line names what is waited for.

    Kills: a pause that goes past the deadline (15.5 s); a partition that stands without a word.
    """
    bench = Bench({1: _avro()})
    await bench.settle(_record(1))
    with capture_logs() as logged:
        task = asyncio.create_task(bench.settle(_record(2)))
        await bench.clock.elapse(UNKNOWN_SECONDS + 0.1)
    assert isinstance(task.exception(), Refusal)
    assert [(line["event"], line["schema"]) for line in logged] == [("registry.unknown_schema", "id 2")]


async def test_many_unknown_ids_cost_few_questions_and_little_memory() -> None:
    """500 values that begin with a zero ask twice each, four at a time, and the oldest refusals are forgotten.

    Kills: 3,000 questions, 500 at once; refusals that are kept for ever.
    """
    bench = Bench({1: _avro()})
    await bench.settle(_record(1))
    asked = len(bench.client.asked)
    tasks = [asyncio.create_task(bench.settle(_record(number))) for number in range(2, 502)]
    while not all(task.done() for task in tasks):
        await bench.clock.elapse(0.5)
    assert all(isinstance(task.exception(), Refusal) for task in tasks)
    assert bench.client.most <= MOST_QUESTIONS
    assert len(bench.client.asked) - asked <= 2 * 500 + 20
    for number in range(502, 2502):
        bench.decoder._remember(SchemaKey("id", number), Unreadable("decode.schema_unknown", "", None))
    assert len(bench.decoder._answers) <= 1000
    assert len(bench.decoder._known_unknown) <= 1000


async def test_thousands_of_schemas_are_not_all_remembered() -> None:
    """Of 3,000 schemas, of values and of keys, 1,000 at most are kept; one in use all the time is asked for once.

    Kills: schemas that are kept for ever, 14 kB each; forgetting by age instead of by use; a client that keeps all.
    """
    bench = Bench({number: _avro() for number in range(1, 3001)})
    decoder = Decoder(Contracts({}), clock=bench.clock, registry=bench.registry, keys=True)
    bench.decoder = decoder
    for number in range(2, 3001):
        for schema_id in (1, number):
            value = _record(schema_id).value
            event = await bench.settle(Record("events", 0, 0, 0, value, value, ()))
            assert (event.datum, event.key.datum) == ({"n": 1}, {"n": 1})
    assert (len(decoder._known), len(decoder._by_prefix) <= 500) == (0, True)
    assert len(decoder._answers) <= 1000
    assert len(decoder._key_reads) <= 1000
    assert bench.client.asked.count(1) == 1
    assert len(bench.client.asked) == 3000
    assert bench.client.cleared == 3000 // 500
    assert (await bench.settle(_record(2))).datum == {"n": 1}
    assert bench.client.asked.count(2) == 2


async def test_a_rotated_password_of_the_registry_is_read_again() -> None:
    """After a question that failed the secrets are read again; with new ones the next is asked by a new client.

    Kills: a registry that stays refused until the member is restarted.
    """
    refusing, good = FakeClient({1: SchemaRegistryError(401, 40101, "Unauthorized")}), FakeClient({1: _avro()})
    clients = iter([None, good])
    registry = Registry(refusing, WHERE, lambda: next(clients))
    for _ in range(2):
        with pytest.raises(RegistryTrouble):
            await registry.by_id(1)
    assert (await registry.by_id(1)).name == "com.acme.A"
    assert (len(refusing.asked), len(good.asked)) == (2, 1)


async def test_trouble_with_subjects_is_said_and_reads_the_password_again() -> None:
    """A list of subjects that is refused says why, and the next one is asked for with a rotated password.

    Kills: an error whose text is the question that was never asked.
    """
    refusing = FakeClient({"subjects": SchemaRegistryError(401, 40101, "Unauthorized")})
    registry = Registry(refusing, WHERE, lambda: FakeClient({"latest events-value": _avro()}))
    with pytest.raises(RegistryTrouble, match="HTTP 401, code 40101"):
        await registry.subjects()
    assert await registry.subjects() == ["events-value"]


async def test_an_id_that_is_known_late_is_not_refused() -> None:
    """An id that appears within the ten seconds is decoded."""
    bench = Bench({1: _avro()})
    await bench.settle(_record(1))
    task = asyncio.create_task(bench.settle(_record(2)))
    await bench.clock.elapse(5)
    bench.client.answers[2] = _avro()
    await bench.clock.elapse(10)
    assert (await task).datum == {"n": 1}


async def test_a_registry_that_knows_nothing_may_be_the_wrong_one() -> None:
    """Where no id was ever resolved nothing is refused: the record waits, and the message asks for the address."""
    bench = Bench({})
    task = asyncio.create_task(bench.settle(_record(2)))
    await bench.clock.elapse(600)
    assert not task.done()
    assert bench.said[-1] is not None
    assert "schema_registry.url" in bench.said[-1]
    bench.client.answers[2] = _avro()
    await bench.clock.elapse(60)
    assert (await task).datum == {"n": 1}


async def test_a_refused_id_is_asked_for_again_later() -> None:
    """After a minute one question finds out whether the id was registered meanwhile; it holds nothing up."""
    bench = Bench({1: _avro()})
    await bench.settle(_record(1))
    refused = asyncio.create_task(bench.settle(_record(2)))
    await bench.clock.elapse(30)
    assert isinstance(refused.exception(), Refusal)
    asked = len(bench.client.asked)
    with pytest.raises(Refusal):
        bench.decoder.event(_record(2))
    bench.clock.advance(61)
    with pytest.raises(Refusal):
        await bench.settle(_record(2))
    assert len(bench.client.asked) == asked + 1
    bench.client.answers[2] = _avro()
    bench.clock.advance(61)
    assert (await bench.settle(_record(2))).datum == {"n": 1}


def rule(kind: str, *, disabled: bool = False) -> RuleSet:
    """Return a schema's rules: one of a kind, as confluent-kafka's client gives it."""
    names = ("doc", "kind", "mode", "tags", "params", "expr", "on_success", "on_failure")
    one = Rule(name="hide-pii", type=kind, disabled=disabled, **dict.fromkeys(names))
    return RuleSet(migration_rules=None, domain_rules=[one])


@pytest.mark.parametrize(
    ("rules", "held"),
    [
        (rule("ENCRYPT"), True),
        (rule("ENCRYPT_PAYLOAD"), True),
        (rule("ENCRYPT", disabled=True), False),
        (rule("CEL"), False),
        (None, False),
    ],
    ids=["fields", "payload", "disabled", "another kind", "none"],
)
async def test_a_schema_with_an_encryption_rule_holds_and_names_it(rules: RuleSet | None, held: bool) -> None:
    """Values of such a schema contain ciphertext, so nothing is decoded with it.

    Kills: ciphertext sent as a user's id.
    """
    client = FakeClient({1: RegistrySchema(PLAIN, "AVRO", [], None, rules)})
    registry = Registry(client, WHERE)
    if not held:
        assert (await registry.by_id(1)).name == "com.acme.A"
        return
    with pytest.raises(RegistryTrouble, match="hide-pii"):
        await registry.by_id(1)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (RegistrySchema('{"type": "object"}', "JSON"), "decode.schema_invalid"),
        (_avro("<html>"), "decode.schema_invalid"),
        (_avro('"string"'), "decode.schema_mismatch"),
        (_avro(json.dumps({"type": "record", "name": "A", "fields": [HUGE]})), "decode.schema_invalid"),
    ],
    ids=["json schema", "no json", "no record", "beyond 64 bits"],
)
async def test_a_schema_that_cannot_be_used_refuses_its_records(answer: RegistrySchema, code: str) -> None:
    """What the registry holds under the id decides for every record with it, without another request."""
    bench = Bench({1: answer})
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            await bench.settle(_record(1))
        assert caught.value.code == code
    assert bench.client.asked == [1]


async def test_a_cancelled_wait_leaves_the_others_waiting() -> None:
    """Cancelling one of two that wait for an id does not cancel the question; close ends it."""
    bench = Bench({1: SchemaRegistryError(503, 50301, "down")})
    one, two = (asyncio.create_task(bench.settle(_record(1))) for _ in range(2))
    await bench.clock.settle()
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    bench.client.answers[1] = _avro()
    await bench.clock.elapse(5)
    assert (await two).datum == {"n": 1}
    bench.client.answers[3] = SchemaRegistryError(503, 50301, "down")
    three = asyncio.create_task(bench.settle(_record(3)))
    await bench.clock.settle()
    await bench.decoder.close()
    await asyncio.gather(three, return_exceptions=True)
    assert three.cancelled()


CONTRACTS = load_contracts()
RESULT = "connector.events.MyTrackerEvent"


def _encoder(answers: dict[Any, Any]) -> tuple[Encoder, Bench]:
    bench = Bench(answers)
    return Encoder(CONTRACTS, clock=bench.clock, registry=bench.registry, on_trouble=bench.said.append), bench


async def test_an_answer_is_written_in_the_wire_format_under_the_topics_subject() -> None:
    """The schema is registered once as `<topic>-value`, and the value begins with its id."""
    encoder, bench = _encoder({"results-value": 77})
    datum = {"method": "login", "customUserId": "u"}
    values = [(await encoder.writer("results", RESULT))(datum) for _ in range(2)]
    assert values[0] == values[1]
    assert values[0][:5] == b"\0\0\0\0\x4d"
    schema = CONTRACTS.schemas[RESULT]
    assert values[0][5:] == compile_write(schema.tree)(datum)
    assert bench.client.registered == ["results-value"]


async def test_answers_that_come_together_register_once() -> None:
    """A hundred first answers ask the registry once. Kills: a request for each, which a registry breaks under."""
    encoder, bench = _encoder({"results-value": 77})
    bench.client.gate = asyncio.Event()
    tasks = [asyncio.create_task(encoder.writer("results", RESULT)) for _ in range(100)]
    await asyncio.sleep(0)
    bench.client.gate.set()
    assert {write({"method": "login"})[:5] for write in await asyncio.gather(*tasks)} == {b"\0\0\0\0\x4d"}
    assert bench.client.registered == ["results-value"]


async def test_an_answer_waits_for_the_registry() -> None:
    """While the registry is down the answer waits, and is written when it is up."""
    encoder, bench = _encoder({"results-value": SchemaRegistryError(503, 50301, "down")})
    task = asyncio.create_task(encoder.writer("results", RESULT))
    await bench.clock.elapse(100)
    assert not task.done()
    bench.client.answers["results-value"] = 5
    await bench.clock.elapse(60)
    assert (await task)({"method": "login"})[:5] == b"\0\0\0\0\5"
    assert bench.said[-1] is None


async def test_an_incompatible_schema_is_a_persons_to_mend() -> None:
    """Where the subject holds something else the run ends with the subject's name, instead of waiting for ever."""
    encoder, _ = _encoder({"results-value": SchemaRegistryError(409, 409, "incompatible")})
    with pytest.raises(FatalError, match="results-value"):
        await encoder.writer("results", RESULT)


@pytest.mark.parametrize(
    ("url", "proxy", "where"),
    [
        ("http://u:p@a:8081/x", None, "http://a:8081/x"),
        ("http://u:p@a,https://u:p@b/y", None, "http://a, https://b/y"),
        ("http://a", "http://u:p@proxy:3128", "http://a (through the proxy http://proxy:3128)"),
    ],
)
async def test_messages_name_the_registry_and_its_proxy(url: str, proxy: str | None, where: str) -> None:
    """Each address is named, with the proxy that is used, and no password is.

    Kills: the second address of a list shown with its password; a refused connection without its proxy.
    """
    registry = Registry(FakeClient({1: OSError("refused")}), url, proxy=proxy)
    with pytest.raises(RegistryTrouble, match=re.escape(f"the registry at {where} gives no usable answer")):
        await registry.by_id(1)
