"""Decodes records to events, in every form in which a value can name its schema (`connector.codec.frames`).

`decode` is the hot path and never waits: if a writer's schema is not known yet, it raises `SchemaUnavailable`, and
`resolve` asks the registry. Every fault of a payload becomes a `Refusal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import structlog

from connector.clock import Clock
from connector.codec.frames import (
    SCHEMA_HEADERS,
    SINGLE_LENGTH,
    SINGLE_OBJECT,
    WIRE_LENGTH,
    WIRE_MAGIC,
    SchemaKey,
    frame,
    key_frame,
)
from connector.codec.reader import Broken, Mismatch, items_of, questions_of, read_run, reader_of
from connector.codec.registry import NotRegistered, Registry, RegistryTrouble
from connector.codec.schemas import (
    RECORDS,
    Contracts,
    Schema,
    SchemaFault,
    canonical_form,
    named_types,
    self_contained,
)
from connector.errors import ConnectorError, Refusal, SchemaUnavailable, StartupError, counted
from connector.recent import Recent
from connector.records import UNREADABLE_HEADERS, DecodedKey, Event, QuestionShape, Record
from connector.tasks import internal_refusal

UNKNOWN_SECONDS: Final = 10.0
"""How long the registry is asked again for an id that it does not know: its replicas may lag behind."""

_FORGET_SECONDS: Final = 60.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_CROWD: Final = 16
"""How many schemas may be resolved at once before each is asked for less often."""
_MOST_KNOWN: Final = 500
"""How many answers of the registry are remembered: at least this many, at most twice as many, of about 14 kB each."""
_MOST_MAKERS: Final = 16
"""For one schema: its makers, one for each destination that takes it."""
_SHOWN: Final = 300

_SECONDS: Final = {"connector.events.MyTrackerEvent": "eventTimestamp"}
"""Fields of the contract that hold seconds as a plain number."""

_NOT_A_RECORD: Final = "the schema is not a record, so its values are not events"
_UNREADABLE: Final = (
    "the headers cannot be read, because the name of one is not UTF-8; the dead letter has the key and the value, but "
    "not the headers"
)
_log = structlog.get_logger()

Trouble = Callable[[str | None], None]
ItemMaker = Callable[..., list[Any]]
Read = Callable[[bytes, int], tuple[Any, int]]
"""Decodes the payload at an index; returns the datum and the index after it. Raises anything."""


@dataclass(frozen=True, slots=True)
class Writer:
    """A writer's schema, ready to decode."""

    name: str
    read: Read
    tree: Any
    _makers: dict[Hashable, ItemMaker | None] = field(default_factory=dict)

    def maker(self, shape: Hashable, mapping: Hashable = None) -> ItemMaker | None:
        """Return the compiled maker of items of a vendor's `Shape`, or None if the schema does not allow one.

        `mapping` is the route's `ShapeMapping` of a schema that is not the vendor's own.
        """
        key = shape, mapping
        if key not in self._makers:
            # A reload rebuilds vendors and routes. Makers for the old ones must not be kept.
            if len(self._makers) >= _MOST_MAKERS:
                self._makers.clear()
            if isinstance(shape, QuestionShape):
                self._makers[key] = questions_of(self.read, shape) if mapping is None else None
            else:
                self._makers[key] = items_of(self.read, shape, mapping)
        return self._makers[key]


class Unreadable(NamedTuple):
    """A schema that cannot be an event's. The registry may be asked again at `until` (monotonic seconds).

    `tree` is set if the schema itself is valid: a key may still use it.
    """

    code: str
    message: str
    until: float | None = None
    tree: Any = None


@dataclass(frozen=True, slots=True)
class UnionSchema:
    """A writer's schema that is a union at its top: several types of events in one topic."""

    branches: tuple[Writer | Unreadable, ...]
    tree: Any


class Decoder:
    """Decodes values of every accepted form.

    `schemas` are known without a registry, in addition to the contract's. `plain` names, by topic, the schema of plain
    values; the constructor raises `StartupError` if it is unknown. `as_json` are fields, as (full name of the schema,
    field), whose values no route reads: their maps may come as `orjson.Fragment`. `keys`: a route reads the records'
    keys, so a key that names a schema is decoded too. `on_trouble` receives the reason while the registry gives no
    usable answer, and None once it does again.
    """

    def __init__(
        self,
        contracts: Contracts,
        *,
        clock: Clock,
        registry: Registry | None = None,
        schemas: Iterable[Schema] = (),
        plain: Mapping[str, str] | None = None,
        as_json: Iterable[tuple[str, str]] = (),
        keys: bool = False,
        on_trouble: Trouble = lambda _message: None,
    ) -> None:
        self._contracts = contracts
        self._registry = registry
        self._clock = clock
        self._keys = keys
        self._key_reads: Recent[SchemaKey, Read] = Recent(_MOST_KNOWN)
        self._plain = dict(plain or {})
        self._as_json = frozenset(as_json)
        self._on_trouble = on_trouble
        self._known: dict[SchemaKey, Writer | UnionSchema | Unreadable] = {}
        """The schemas that are known from the start. They are never forgotten."""
        self._answers: Recent[SchemaKey, Writer | UnionSchema | Unreadable] = Recent(_MOST_KNOWN, self._forget_prefixes)
        """What the registry has answered. Bounded, because any bytes after a zero look like an id: there may be
        millions."""
        self._by_prefix: dict[bytes, Writer] = {}
        """The schemas that a value's first bytes identify: the known ones, and the answers of the young generation."""
        self._requests: dict[SchemaKey, asyncio.Task[None]] = {}
        self._troubles: dict[SchemaKey, str] = {}
        self._registry_proven = False
        self._known_unknown: Recent[SchemaKey, float] = Recent(_MOST_KNOWN)
        for schema in (*contracts.schemas.values(), *schemas):
            writer = self._found(schema)
            self._known[SchemaKey("fingerprint", schema.fingerprint)] = writer
            if schema.name is not None:
                self._known[SchemaKey("name", schema.name)] = writer
        self._forget_prefixes()
        for topic, name in self._plain.items():
            if SchemaKey("name", name) not in self._known:
                raise StartupError(f"schemas.plain.{topic}: unknown schema {name}; add its file to schemas.files")

    def look_into(self, as_json: Iterable[tuple[str, str]], *, keys: bool) -> None:
        """Decode for other routes from now on; `as_json` and `keys` are as in the constructor."""
        self._keys = keys
        if frozenset(as_json) == self._as_json:
            return
        self._as_json = frozenset(as_json)
        self._known = {key: self._again(found) for key, found in self._known.items()}
        # The answers stay. They are still right, and the registry may be down now.
        self._answers.change(self._again)
        self._forget_prefixes()

    def _again(self, found: Writer | UnionSchema | Unreadable) -> Writer | UnionSchema | Unreadable:
        """Return a new decoding of the same schema, for the current routes."""
        if isinstance(found, Writer):
            return self._writer(found.name, found.tree)
        return self._choice(found.tree) if isinstance(found, UnionSchema) else found

    def decode(self, records: list[Record]) -> list[Event | Refusal | SchemaUnavailable]:
        """Return the outcome of each record: what `event` returns or raises.

        The leading plain records, which are nearly all, go through compiled code in one call.
        """
        # Compiled code goes by a value's first bytes only. Where a topic has plain values, those bytes mean nothing.
        events = [] if self._plain else read_run(records, self._by_prefix, Event)
        decoded: list[Event | Refusal | SchemaUnavailable] = [*events]
        if self._keys:
            decoded = [self._with_key(record, event) for record, event in zip(records, events, strict=False)]
        for record in records[len(decoded) :]:
            try:
                decoded.append(self.event(record))
            except (Refusal, SchemaUnavailable) as error:
                # It is kept for longer than this call, so its traceback is dropped: the frames hold every record of the
                # poll.
                decoded.append(error.bare())
        return decoded

    def plain(self, record: Record) -> tuple[bytes, Writer] | None:
        """Return the value's first bytes and the writer that they name; None if they alone do not decide."""
        value = record.value or b""
        # A header may name a schema that takes precedence over the first bytes.
        if record.headers or record.topic in self._plain:
            return None
        for length in (WIRE_LENGTH, SINGLE_LENGTH):
            if (writer := self._by_prefix.get(value[:length])) is not None:
                return value[:length], writer
        return None

    def event(self, record: Record) -> Event:
        """Return the event in a record whose value is not null.

        Raises `Refusal` for a fault of the record or of its writer's schema, and `SchemaUnavailable` if that schema is
        not known yet: `resolve` its key, then decode again.
        """
        value = record.value or b""
        try:
            writer, start = self._find(record, value)
        except ConnectorError:
            raise
        except Exception as error:  # noqa: BLE001 - no content of a record may end a run or break a tool
            raise internal_refusal(error, "decoded") from None
        try:
            datum, end = writer.read(value, start)
        except Exception as error:  # noqa: BLE001 - a broken payload raises anything
            raise _refusal(error, writer.name, frame(record, self._plain)[0]) from None
        # The reader stops where the schema ends. A value of another schema often reads well, but has bytes left.
        if end != len(value):
            raise Refusal(
                "decode",
                "decode.trailing_bytes",
                _left_over(len(value) - end, writer.name),
            )
        event = Event(writer.name, datum)
        return self._keyed(record, event) if self._keys else event

    def _with_key(self, record: Record, event: Event) -> Event | SchemaUnavailable:
        try:
            return self._keyed(record, event)
        except SchemaUnavailable as error:
            return error

    def _keyed(self, record: Record, event: Event) -> Event:
        """Return the event with its decoded key, if the key names a schema. Raises `SchemaUnavailable` as `event` does.

        A fault of the key does not refuse the record by itself. It is kept, and only a route that reads the key
        refuses.
        """
        try:
            named = key_frame(record)
            if named is None:
                return event
            schema, start = named
            key = record.key or b""
            datum, end = self._key_read(schema)(key, start)
        except Refusal as refusal:
            found = DecodedKey(None, f"the key cannot be decoded: {refusal.message}")
        except SchemaUnavailable:
            raise
        except Exception:  # noqa: BLE001 - a broken key raises anything, and so does a schema that is not valid Avro
            found = DecodedKey(None, f"the key is not valid Avro for schema {schema}")
        else:
            rest = len(key) - end
            fault = _left_over(rest, "the key") if rest else None
            found = DecodedKey(datum, fault)
        return Event(event.schema, event.datum, found)

    def _key_read(self, name: SchemaKey) -> Read:
        """Return the decoding of a key's schema, which may be any type. Raises as `event` does for a value's schema."""
        read = self._key_reads.get(name)
        if read is None:
            found = self._answer(name)
            if found is None or found.tree is None:
                raise self._no_schema(name, found if isinstance(found, Unreadable) else None)
            # Not resolved to a contract schema of that name: a key may be any type, and routes read it as it was
            # written.
            read = reader_of(found.tree)
            self._key_reads.put(name, read)
        return read

    def peek(self, record: Record) -> str | None:
        """Return the full name of a record's schema without decoding; None if it is unknown or has no name."""
        try:
            key, start = frame(record, self._plain)
            found = self._answer(key)
            if isinstance(found, UnionSchema):
                found, _ = _chosen(found, record.value or b"", start, key)
        except Exception:  # noqa: BLE001 - whatever it is, decoding the record finds it again and refuses the record
            return None
        return found.name if isinstance(found, Writer) else None

    def schema_of(self, record: Record) -> tuple[Any, int]:
        """Return the writer's schema of a record (parsed JSON) and the index of its datum. Raises as `decode` does."""
        writer, start = self._find(record, record.value or b"")
        return writer.tree, start

    async def resolve(self, key: object) -> None:
        """Return once `decode` has an answer for the key of a `SchemaUnavailable`; a refusal is an answer too.

        Waits as long as the registry gives no usable answer. Concurrent callers share one request. May be cancelled.
        """
        if not isinstance(key, SchemaKey) or self._registry is None:
            raise TypeError(f"{key!r} is not a key of this decoder")
        request = self._requests.get(key)
        if request is None:
            request = asyncio.create_task(self._ask_until_answered(self._registry, key))
            self._requests[key] = request
            request.add_done_callback(lambda _: self._requests.pop(key, None))
        # The request is shared: one cancelled caller must not end it for the others.
        await asyncio.shield(request)

    def abandon(self, key: object) -> None:
        """Stop asking for a schema: a pending `resolve` of it is cancelled. No effect if there is none."""
        if isinstance(key, SchemaKey) and (request := self._requests.get(key)) is not None:
            request.cancel()

    async def close(self) -> None:
        """Stop asking the registry."""
        requests = list(self._requests.values())
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    def _find(self, record: Record, value: bytes) -> tuple[Writer, int]:
        """Return a record's writer and the index of its datum. Uses the value's first bytes if they are enough."""
        headers = record.headers
        # One of the lost headers might have named the schema.
        if headers is UNREADABLE_HEADERS:
            raise Refusal("decode", "decode.headers", _UNREADABLE)
        # Nearly every record gets its writer here, by a look-up of 5 or 10 bytes, without a frame or a key.
        if not (headers and any(name in SCHEMA_HEADERS for name, _ in headers)) and record.topic not in self._plain:
            writer = self._by_prefix.get(value[:WIRE_LENGTH])
            if writer is not None:
                return writer, WIRE_LENGTH
            writer = self._by_prefix.get(value[:SINGLE_LENGTH])
            if writer is not None:
                return writer, SINGLE_LENGTH
        key, start = frame(record, self._plain)
        found = self._answer(key)
        if isinstance(found, UnionSchema):
            return _chosen(found, value, start, key)
        if isinstance(found, Writer):
            self._know_prefix(key, found)
            return found, start
        raise self._no_schema(key, found)

    def _answer(self, key: SchemaKey) -> Writer | UnionSchema | Unreadable | None:
        """Return the known answer for a schema, or None if the registry has to be asked."""
        return self._known.get(key) or self._answers.get(key)

    def _remember(self, key: SchemaKey, found: Writer | UnionSchema | Unreadable) -> None:
        """Remember an answer of the registry."""
        self._answers.put(key, found)
        # It was compiled from the previous answer.
        self._key_reads.pop(key)

    def _know_prefix(self, key: SchemaKey, found: Writer | UnionSchema | Unreadable) -> None:
        if isinstance(found, Writer):
            if isinstance(key.value, int):
                self._by_prefix[WIRE_MAGIC + key.value.to_bytes(4, "big")] = found
            elif isinstance(key.value, bytes):
                self._by_prefix[SINGLE_OBJECT + key.value] = found

    def _forget_prefixes(self) -> None:
        """Forget which first bytes stand for which answer. Those still in use are looked up and remembered again."""
        self._by_prefix.clear()
        for key, found in self._known.items():
            self._know_prefix(key, found)

    def _no_schema(self, key: SchemaKey, found: Unreadable | None) -> Refusal | SchemaUnavailable:
        """Return the exception to raise for a key without a known schema."""
        # An unknown id is refused for a minute without asking. Then one record asks again: it may be registered by now.
        if found is not None and (found.until is None or self._clock.now() < found.until):
            return Refusal("decode", found.code, found.message)
        # The registry is not asked for a fingerprint: Confluent's API has no such look-up.
        if key.kind == "fingerprint":
            where = "list the files of schemas for single-object encoding in schemas.files"
            return Refusal("decode", "decode.schema_unknown", f"no known schema has {key}; {where}")
        if self._registry is None:
            message = f"the value names schema {key}, but no schema_registry is configured"
            return Refusal("decode", "decode.schema_unknown", message)
        return SchemaUnavailable(key)

    async def _ask_until_answered(self, registry: Registry, key: SchemaKey) -> None:
        """Ask until there is an answer, with exponential back-off."""
        began = self._clock.now()
        pause = _FIRST_PAUSE
        try:
            while (answer := await self._ask(registry, key, began)) is None:
                left = began + UNKNOWN_SECONDS - self._clock.now()
                if pause == _FIRST_PAUSE and key not in self._troubles:
                    _log.info("registry.unknown_schema", schema=str(key), seconds=UNKNOWN_SECONDS)
                # A topic of another format yields many unknown ids at once. Each of them is asked for only once more,
                # when its time is over.
                wait = left if len(self._requests) > _CROWD else min(pause, left)
                await self._clock.sleep(wait if left > 0 else pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._remember(key, answer)
        finally:
            self._report_trouble(key, None)

    async def _ask(self, registry: Registry, key: SchemaKey, began: float) -> Writer | UnionSchema | Unreadable | None:
        """Return what the registry's answer means for the key, or None if it has to be asked again."""
        try:
            if isinstance(key.value, int):
                schema = await registry.by_id(key.value)
            else:
                schema = await registry.by_guid(str(key.value))
        except SchemaFault as fault:
            self._registry_proven = True
            return Unreadable(fault.code, f"schema {key}: {fault}")
        except NotRegistered as unknown:
            return self._unknown(key, str(unknown), began)
        except RegistryTrouble as trouble:
            self._report_trouble(key, str(trouble))
            return None
        self._registry_proven = True
        self._known_unknown.pop(key)
        return self._found(schema)

    def _unknown(self, key: SchemaKey, message: str, began: float) -> Unreadable | None:
        """Refuse an unknown id only after `UNKNOWN_SECONDS`, and only if this registry has resolved another one.

        Otherwise it may be the wrong registry, and every record would be refused.
        """
        now = self._clock.now()
        # A producer may write with an id that the registry's replica of this request does not have yet.
        if now - began < UNKNOWN_SECONDS and key not in self._known_unknown:
            return None
        if not self._registry_proven:
            self._report_trouble(key, f"{message}, nor any other id so far; check schema_registry.url")
            return None
        self._known_unknown.put(key, now)
        # It may be registered later, so one record asks again once in `_FORGET_SECONDS`.
        return Unreadable("decode.schema_unknown", message, now + _FORGET_SECONDS)

    def _report_trouble(self, key: SchemaKey, message: str | None) -> None:
        """Report that the registry's trouble has begun, changed or ended, over all keys that are being resolved."""
        before = next(iter(self._troubles.values()), None)
        if message is None:
            self._troubles.pop(key, None)
        else:
            self._troubles[key] = message
        # Log one line when the trouble begins and one when it ends, however many ids are asked for in between.
        after = next(iter(self._troubles.values()), None)
        if after != before:
            if after is None:
                _log.info("registry.recovered")
            else:
                _log.warning("registry.waiting", message=after)
            self._on_trouble(after)

    def _found(self, schema: Schema) -> Writer | UnionSchema | Unreadable:
        """Return the decoding of a schema: a record, or a top-level union of records."""
        if schema.name is not None:
            return self._writer(schema.name, schema.tree)
        if not isinstance(schema.tree, list):
            return Unreadable("decode.schema_mismatch", _NOT_A_RECORD, tree=schema.tree)
        return self._choice(schema.tree)

    def _choice(self, tree: Any) -> UnionSchema:
        types = named_types(tree)
        return UnionSchema(tuple(self._branch(branch, types) for branch in tree), tree)

    def _branch(self, branch: Any, types: Mapping[str, Any]) -> Writer | Unreadable:
        tree = self_contained(branch, types)
        if isinstance(tree, dict) and tree["type"] in RECORDS:
            return self._writer(tree["name"], tree)
        return Unreadable("decode.schema_mismatch", "the value is a branch of its schema that is not a record")

    def _writer(self, name: str, tree: Any) -> Writer | Unreadable:
        contract = self._contracts.schemas.get(name)
        try:
            if contract is None:
                read = reader_of(tree, as_json=self._as_json)
            else:
                # Logical types of the contract schemas stay numbers: vendors want epoch numbers, and objects are slow.
                wanted = _with_seconds(name, contract.tree)
                reader = None if _reads_alike(tree, contract.tree) else wanted
                read = reader_of(tree, reader, tagged=True, as_json=self._as_json, logical=False)
        except Mismatch as error:
            return Unreadable("decode.schema_mismatch", f"{name} cannot be read with the connector's schema: {error}")
        except Exception as error:  # noqa: BLE001 - a schema of the registry may have any content
            return Unreadable("decode.schema_invalid", f"schema {name} is not valid Avro: {type(error).__name__}")
        return Writer(name, read, tree)


def _left_over(rest: int, of: str) -> str:
    return f"{counted(rest, 'byte')} {'is' if rest == 1 else 'are'} left after {of}; perhaps another schema wrote it"


def _chosen(choice: UnionSchema, value: bytes, start: int, key: SchemaKey) -> tuple[Writer, int]:
    """Return which record of a top-level union the value is, and the index of its datum."""
    try:
        # A union is written as the branch's number, a long, in front of its datum.
        index, start = _BRANCH(value, start)
        # A negative number is refused too: Python would count it from the end.
        found = choice.branches[index if index >= 0 else len(choice.branches)]
    except (Broken, IndexError):
        message = f"not valid Avro for schema {key}: a union branch that does not exist"
        raise Refusal("decode", "decode.payload", message) from None
    if isinstance(found, Unreadable):
        raise Refusal("decode", found.code, f"schema {key}: {found.message}")
    return found, start


_BRANCH: Final[Read] = reader_of("long")


def _reads_alike(tree: Any, contract: Any) -> bool:
    return canonical_form(tree, also=("logicalType",)) == canonical_form(contract, also=("logicalType",))


def _with_seconds(name: str, tree: Any) -> Any:
    """Return a contract's tree with plain numbers of seconds marked, so that a writer's timestamp is converted."""
    seconds = _SECONDS.get(name)
    if seconds is None:
        return tree
    marked = ["null", {"type": "long", "logicalType": "seconds"}]
    fields = [{**field, "type": marked} if field["name"] == seconds else field for field in tree["fields"]]
    return {**tree, "fields": fields}


def _refusal(error: Exception, name: str, key: SchemaKey) -> Refusal:
    """Return the refusal for a decoding error. It contains no value, because the reader's own messages contain none."""
    if isinstance(error, Mismatch):
        message = f"{name} ({key}) cannot be read with the connector's schema of that name: {str(error)[:_SHOWN]}"
        return Refusal("decode", "decode.schema_mismatch", message)
    if isinstance(error, Broken):
        reason = str(error)
    elif isinstance(error, UnicodeDecodeError):
        reason = "a string is not UTF-8"
    else:
        reason = f"{type(error).__name__} while decoding"
    return Refusal("decode", "decode.payload", f"not valid Avro for {name} ({key}): {reason}")
