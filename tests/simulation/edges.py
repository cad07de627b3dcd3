"""The simulated edges other than broker and vendors: a registry, a quick decoder, the dead-letter topic."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import Any, Final, cast

from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry.error import SchemaRegistryError

from connector.codec.decoder import Decoder, Unreadable, Writer
from connector.codec.encoder import Encoder
from connector.codec.schemas import Contracts, Schema, load_contracts
from connector.errors import ConnectorError, Refusal, SchemaUnavailable
from connector.records import Event, Headers, Item, Record
from connector.testing.loop import LoopClock
from connector.vendors.base import Vendor, VendorEvent, VendorKind
from tests.simulation.facts import Epochs
from tests.simulation.oracle import Oracle
from tests.simulation.unusual import BUG

USED: Final = ("JiguangUserEvent", "MyTrackerEvent", "QuickAudienceEvent")


class QuickSchema(Schema):
    """A schema whose fingerprint is made once: each member of each world asks for it."""

    @cached_property
    def fingerprint(self) -> bytes:
        """The same as the schema's own."""
        return super().fingerprint


CONTRACTS: Final = Contracts(
    {
        name: QuickSchema(schema.name, schema.tree)
        for name, schema in load_contracts().schemas.items()
        if name.rpartition(".")[2] in USED
    }
)
ENCODER: Final = Encoder(CONTRACTS, clock=LoopClock())
NAMES: Final = tuple(sorted(CONTRACTS.schemas))
_WRITERS: dict[tuple[str, str, frozenset[tuple[str, str]]], Writer | Unreadable] = {}


class QuickDecoder(Decoder):
    """The decoder, which compiles each schema once for all members of all worlds: half of a world's time else."""

    def _writer(self, name: str, tree: Any) -> Writer | Unreadable:
        known = name, json.dumps(tree), self._as_json
        writer = _WRITERS.get(known)
        if writer is None:
            writer = _WRITERS[known] = super()._writer(name, tree)
        return writer

    def decode(self, records: list[Record]) -> list[Event | Refusal | SchemaUnavailable]:
        """Decode, and raise an unexpected error where one of the records is made for that."""
        if any(name == BUG for record in records for name, _ in record.headers):
            raise ZeroDivisionError
        return super().decode(records)


def with_bug(kind: VendorKind) -> VendorKind:
    """Return a vendor whose preparation of one event raises an unexpected error."""

    def built(settings: Any) -> Vendor:
        vendor: Any = kind.build(settings)
        encode = vendor.encode

        def encode_or_raise(event: VendorEvent, now: int) -> Item:
            if event.fields.get("eventName") == BUG:
                raise ZeroDivisionError
            return cast("Item", encode(event, now))

        vendor.encode = encode_or_raise
        return cast("Vendor", vendor)

    return replace(kind, build=built)


class ModelRegistry:
    """A registry that knows the contract schemas by their place in `NAMES`, and is down now and then."""

    def __init__(self, is_down: Callable[[], bool], saw: Callable[[str], None]) -> None:
        self._is_down = is_down
        self._saw = saw

    async def get_schema(self, schema_id: int) -> RegistrySchema:
        """Return a schema, an error that it is not known, or nothing that a registry would say."""
        await asyncio.sleep(0.02)
        if self._is_down():
            self._saw("registry down")
            raise SchemaRegistryError(503, 50301, "down")
        if schema_id > len(NAMES):
            raise SchemaRegistryError(404, 40403, "Schema not found")
        return RegistrySchema(CONTRACTS.schemas[NAMES[schema_id - 1]].text, "AVRO")


class ModelProducer:
    """Writes dead letters, or not, or says that it did not."""

    def __init__(
        self, source: Epochs, oracle: Oracle, random: Random, step: Callable[[str], bool], fails: Callable[[], bool]
    ) -> None:
        self._source = source
        self._oracle = oracle
        self._random = random
        self._step = step
        self._fails = fails

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> object:
        """Store a dead letter."""
        self._oracle.begins(self._source, headers)
        if not self._step("letter"):
            await asyncio.Event().wait()
        await asyncio.sleep(self._random.choice((0.001, 0.05, 0.5, 2.0)))
        if not self._step("letter arrives"):
            await asyncio.Event().wait()
        fault = self._fails()
        written = None
        if not fault or self._random.random() < 0.3:
            now = asyncio.get_running_loop().time()
            written = self._oracle.dead_letter(key, value, headers, self._source, now)
        if not self._step("lettered"):
            await asyncio.Event().wait()
        if written is not None and not fault:
            written.answered = asyncio.get_running_loop().time()
        if fault:
            self._oracle.saw("a dead letter failed" if written is None else "a dead letter's acknowledgement was lost")
            raise ConnectorError("the topic did not take the record")
        return None
