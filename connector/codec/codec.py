"""The decoder and the encoder: records to events, answers to values, by whatever says what schema is meant.

`decode` is the hot path and never waits: where a writer's schema is not known yet it raises `SchemaUnavailable`, and
`resolve` asks for it. Every fault of a payload, whatever the engine raises, is a `Refusal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import structlog

from connector.clock import Clock
from connector.codec.contracts import Contracts
from connector.codec.engine import MISMATCH, Read, Write, compile_read, compile_write, first_events
from connector.codec.guard import Guard, TooManySteps
from connector.codec.registry import NotRegistered, Registry, RegistryRefused, RegistryTrouble
from connector.codec.schemas import Schema, SchemaFault, without_logical_types
from connector.codec.wire import (
    SCHEMA_HEADER,
    SINGLE_LENGTH,
    SINGLE_OBJECT,
    WIRE_LENGTH,
    WIRE_MAGIC,
    SchemaKey,
    frame,
)
from connector.errors import FatalError, Refusal, SchemaUnavailable, StartupError
from connector.records import Event, Record

UNKNOWN_SECONDS: Final = 10.0
"""How long an id that the registry does not know is asked for again: a registry's replicas may lag behind."""

_FORGET_SECONDS: Final = 60.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
_SHOWN: Final = 300

_log = structlog.get_logger()

Trouble = Callable[[str | None], None]


@dataclass(frozen=True, slots=True)
class Writer:
    """A writer's schema, ready to decode."""

    name: str
    read: Read
    guard: Guard | None
    tree: Any


class Unreadable(NamedTuple):
    """Why nothing is decoded with a schema; `until` (monotonic seconds) is when it may be asked for again."""

    code: str
    message: str
    until: float | None = None


class Decoder:
    """Decodes values of every accepted form (see `wire`).

    `schemas` are known without a registry, beside the contract's. `plain` names, by topic, the schema of values without
    any header; the constructor raises `StartupError` where it names an unknown one. `as_json` are fields, as (full name
    of the schema, field), that nobody looks into: their maps may come as `orjson.Fragment`. `on_trouble` is told why
    the registry gives no usable answer, and None when it does again.
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
        on_trouble: Trouble = lambda _message: None,
    ) -> None:
        self._contracts = contracts
        self._registry = registry
        self._clock = clock
        self._plain = dict(plain or {})
        self._as_json = frozenset(as_json)
        self._on_trouble = on_trouble
        self._known: dict[SchemaKey, Writer | Unreadable] = {}
        self._by_prefix: dict[bytes, Writer] = {}
        self._flights: dict[SchemaKey, asyncio.Task[None]] = {}
        self._troubles: dict[SchemaKey, str] = {}
        self._registry_proven = False
        self._asked_in_vain: set[SchemaKey] = set()
        for schema in (*contracts.schemas.values(), *schemas):
            writer = self._writer(schema)
            self._know(SchemaKey("fingerprint", schema.fingerprint), writer)
            if schema.name is not None:
                self._know(SchemaKey("name", schema.name), writer)
        for topic, name in self._plain.items():
            if SchemaKey("name", name) not in self._known:
                raise StartupError(f"schemas.plain.{topic}: no known schema is {name}; add its file to schemas.files")

    def decode(self, records: list[Record]) -> list[Event | Refusal | SchemaUnavailable]:
        """Return what became of each record: what `event` returns or raises.

        The first ones that are what nearly all are go through compiled code at once.
        """
        decoded: list[Event | Refusal | SchemaUnavailable] = []
        if not self._plain:
            decoded += first_events(records, self._by_prefix, Event)
        for record in records[len(decoded) :]:
            try:
                decoded.append(self.event(record))
            except (Refusal, SchemaUnavailable) as error:
                decoded.append(error)
        return decoded

    def event(self, record: Record) -> Event:
        """Return the event in a record whose value is not null.

        Raises `Refusal` for a fault of the record or of its writer's schema, and `SchemaUnavailable` where that schema
        is not known yet: `resolve` its key, then decode again.
        """
        value = record.value or b""
        writer, start = self._find(record, value)
        try:
            if writer.guard is not None:
                writer.guard.check(value[start:])
            datum, end = writer.read(value, start)
        except Exception as error:  # noqa: BLE001 - a broken payload raises anything
            raise _refusal(error, writer.name, frame(record, self._plain)[0]) from None
        if end != len(value):
            raise Refusal(
                "decode",
                "decode.trailing_bytes",
                f"{len(value) - end} bytes are left over after the datum of {writer.name}: another schema's?",
            )
        return Event(writer.name, datum)

    def peek(self, record: Record) -> str | None:
        """Return the full name of a record's schema without decoding; None where it is not known, or there is none."""
        try:
            key, _ = frame(record, self._plain)
        except Refusal:
            return None
        writer = self._known.get(key)
        return writer.name if isinstance(writer, Writer) else None

    def schema_of(self, record: Record) -> tuple[Any, int]:
        """Return the writer's schema of a record (parsed JSON) and where its datum begins. Raises as `decode` does."""
        writer, start = self._find(record, record.value or b"")
        return writer.tree, start

    async def resolve(self, key: object) -> None:
        """Return when `decode` has an answer for the key of a `SchemaUnavailable`, be it a refusal.

        Waits for ever while the registry gives no usable answer. Several callers share one request. May be cancelled.
        """
        if not isinstance(key, SchemaKey) or self._registry is None:
            raise TypeError(f"{key!r} is no key of this decoder")
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(self._registry, key))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        await asyncio.shield(flight)

    def abandon(self, key: object) -> None:
        """Ask no more for a schema: who awaits its `resolve` is cancelled. Nothing where it is not asked for."""
        if isinstance(key, SchemaKey) and (flight := self._flights.get(key)) is not None:
            flight.cancel()

    async def close(self) -> None:
        """Stop asking the registry."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _find(self, record: Record, value: bytes) -> tuple[Writer, int]:
        """Return a record's writer and where its datum begins; by the value's first bytes, where those decide."""
        headers = record.headers
        if not (headers and any(name == SCHEMA_HEADER for name, _ in headers)) and record.topic not in self._plain:
            writer = self._by_prefix.get(value[:WIRE_LENGTH])
            if writer is not None:
                return writer, WIRE_LENGTH
            writer = self._by_prefix.get(value[:SINGLE_LENGTH])
            if writer is not None:
                return writer, SINGLE_LENGTH
        key, start = frame(record, self._plain)
        found = self._known.get(key)
        return (found if isinstance(found, Writer) else self._look_again(key, found)), start

    def _know(self, key: SchemaKey, found: Writer | Unreadable) -> None:
        self._known[key] = found
        if isinstance(found, Writer):
            if isinstance(key.value, int):
                self._by_prefix[WIRE_MAGIC + key.value.to_bytes(4, "big")] = found
            elif isinstance(key.value, bytes):
                self._by_prefix[SINGLE_OBJECT + key.value] = found

    def _look_again(self, key: SchemaKey, found: Unreadable | None) -> Writer:
        """Raise what a key without a writer means."""
        if found is not None and (found.until is None or self._clock.now() < found.until):
            raise Refusal("decode", found.code, found.message)
        if key.kind == "fingerprint":
            raise Refusal(
                "decode",
                "decode.schema_unknown",
                f"no known schema has {key}; schemas for single-object encoding come from schemas.files",
            )
        if self._registry is None:
            raise Refusal(
                "decode", "decode.schema_unknown", f"the value names schema {key}, and no schema_registry is configured"
            )
        raise SchemaUnavailable(key)

    async def _fly(self, registry: Registry, key: SchemaKey) -> None:
        """Ask until there is an answer, with longer and longer pauses."""
        began = self._clock.now()
        pause = _FIRST_PAUSE
        try:
            while (answer := await self._ask(registry, key, began)) is None:
                await self._clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            self._know(key, answer)
        finally:
            self._tell(key, None)

    async def _ask(self, registry: Registry, key: SchemaKey, began: float) -> Writer | Unreadable | None:
        """Return what the registry's answer means for the key; None where it has to be asked again."""
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
            self._tell(key, str(trouble))
            return None
        self._registry_proven = True
        self._asked_in_vain.discard(key)
        return self._writer(schema)

    def _unknown(self, key: SchemaKey, message: str, began: float) -> Unreadable | None:
        """Refuse an unknown id only after a while, and only where this registry has resolved another one.

        Else it may be the wrong registry, and every record would be refused.
        """
        now = self._clock.now()
        if now - began < UNKNOWN_SECONDS and key not in self._asked_in_vain:
            return None
        if not self._registry_proven:
            self._tell(key, f"{message}, nor any other that was asked for: is schema_registry.url the right one?")
            return None
        self._asked_in_vain.add(key)
        # It may be registered later; then once in a while one record finds out.
        return Unreadable("decode.schema_unknown", message, now + _FORGET_SECONDS)

    def _tell(self, key: SchemaKey, message: str | None) -> None:
        """Report a change of what is wrong with the registry, over all keys that are asked for."""
        before = next(iter(self._troubles.values()), None)
        if message is None:
            self._troubles.pop(key, None)
        else:
            self._troubles[key] = message
        after = next(iter(self._troubles.values()), None)
        if after != before:
            if after is None:
                _log.info("registry.recovered")
            else:
                _log.warning("registry.waiting", message=after)
            self._on_trouble(after)

    def _writer(self, schema: Schema) -> Writer | Unreadable:
        if schema.name is None:
            return Unreadable("decode.schema_mismatch", "the schema is no record; an event is one")
        contract = self._contracts.schemas.get(schema.name)
        try:
            if contract is None:
                read = compile_read(schema.tree, as_json=self._as_json)
            else:
                # Logical types of our own schemas stay numbers: vendors want epoch numbers, and objects cost.
                tree = without_logical_types(schema.tree)
                reader = None if schema.canonical == contract.canonical else without_logical_types(contract.tree)
                read = compile_read(tree, reader, tagged=True, as_json=self._as_json)
        except ValueError as error:
            return Unreadable("decode.schema_invalid", f"schema {schema.name} is not allowed by Avro: {error}")
        return Writer(schema.name, read, Guard(schema.tree) if schema.guarded else None, schema.tree)


def _refusal(error: Exception, name: str, key: SchemaKey) -> Refusal:
    """Return what an engine's error means; its text is shown only where it is about schemas: others may hold values."""
    if isinstance(error, MISMATCH):
        said = str(error)[:_SHOWN]
        message = f"the writer's {name} ({key}) cannot be read with the connector's: {said}"
        return Refusal("decode", "decode.schema_mismatch", message)
    if isinstance(error, TooManySteps):
        return Refusal("decode", "decode.payload", f"the datum of {name} ({key}) is refused: {error}")
    message = f"the value is no datum of {name} ({key}): {type(error).__name__} while decoding"
    return Refusal("decode", "decode.payload", message)


class Encoder:
    """Encodes what the connector writes in its contract schemas.

    With a registry: Confluent's wire format, the schema registered as `<topic>-value`; without: single-object encoding.
    """

    def __init__(
        self,
        contracts: Contracts,
        *,
        clock: Clock,
        registry: Registry | None = None,
        on_trouble: Trouble = lambda _message: None,
    ) -> None:
        self._contracts = contracts
        self._registry = registry
        self._clock = clock
        self._on_trouble = on_trouble
        self._writes: dict[str, tuple[bytes, Write]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._registering = asyncio.Lock()

    async def encode(self, topic: str, schema_name: str, datum: object) -> bytes:
        """Return the value for a topic. Waits for ever while the registry gives no usable answer.

        Raises `FatalError` where the registry refuses the schema, `ValueError` for a datum that is not the schema's.
        """
        if self._registry is None:
            return self.single_object(schema_name, datum)
        schema_id = self._ids.get((topic, schema_name))
        if schema_id is None:
            # The first answers come by the hundred: one of them asks the registry for all.
            async with self._registering:
                schema_id = self._ids.get((topic, schema_name))
                if schema_id is None:
                    schema = self._contracts.schemas[schema_name]
                    schema_id = await self._register(self._registry, f"{topic}-value", schema)
                    self._ids[topic, schema_name] = schema_id
        return WIRE_MAGIC + schema_id.to_bytes(4, "big") + self._datum(schema_name, datum)[1]

    def single_object(self, schema_name: str, datum: object) -> bytes:
        """Return the value in single-object encoding. Raises `ValueError` for a datum that is not the schema's."""
        fingerprint, body = self._datum(schema_name, datum)
        return SINGLE_OBJECT + fingerprint + body

    def _datum(self, schema_name: str, datum: object) -> tuple[bytes, bytes]:
        found = self._writes.get(schema_name)
        if found is None:
            schema = self._contracts.schemas[schema_name]
            found = self._writes[schema_name] = schema.fingerprint, compile_write(schema.tree)
        return found[0], found[1](datum)

    async def _register(self, registry: Registry, subject: str, schema: Schema) -> int:
        pause, troubled = _FIRST_PAUSE, False
        while True:
            try:
                schema_id = await registry.register(subject, schema)
            except RegistryRefused as error:
                raise FatalError(str(error)) from None
            except RegistryTrouble as error:
                troubled = True
                _log.warning("registry.waiting", message=str(error))
                self._on_trouble(str(error))
                await self._clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if troubled:
                    self._on_trouble(None)
                return schema_id
