"""Encodes what the connector writes in its contract schemas: results and receipts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

import structlog
from fastavro import parse_schema, schemaless_writer

from connector.clock import Clock
from connector.codec.frames import SINGLE_OBJECT, WIRE_MAGIC
from connector.codec.reader import writer_of
from connector.codec.registry import Registry, RegistryRefused, RegistryTrouble
from connector.codec.schemas import Contracts, Schema
from connector.errors import FatalError

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0

_log = structlog.get_logger()

Trouble = Callable[[str | None], None]
Write = Callable[[Any], bytes]


def compile_write(schema: Any, head: bytes = b"") -> Write:
    """Return a function that encodes data of the schema behind `head`. A field with a default may be missing.

    Raises `ValueError` for a schema that Avro does not allow. The function raises it for a datum of a wrong type.
    """
    try:
        parsed = parse_schema(schema)
    except Exception as error:  # noqa: BLE001 - fastavro lets KeyError and others through
        raise ValueError(f"{type(error).__name__}: {error}") from None

    native = writer_of(schema)

    def write(datum: Any) -> bytes:
        if native is not None:
            try:
                return head + native(datum)
            except Exception:  # noqa: BLE001, S110 - fastavro writes or refuses it below
                pass
        stream = BytesIO(head)
        stream.seek(len(head))
        schemaless_writer(stream, parsed, datum, strict_allow_default=True)
        return stream.getvalue()

    return write


class Encoder:
    """Encodes what the connector writes in its contract schemas.

    With a registry: Confluent's wire format, the schema registered as `<topic>-value`. Without: single-object encoding.
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
        self._writes: dict[tuple[str, str], Write] = {}
        """By topic and schema."""
        self._single: dict[str, Write] = {}
        self._registering = asyncio.Lock()

    async def writer(self, topic: str, schema_name: str) -> Write:
        """Return what encodes the values of a topic. Waits as long as the registry gives no usable answer.

        Raises `FatalError` if the registry refuses the schema. The function raises `ValueError` for a datum that does
        not match the schema.
        """
        write = self._writes.get((topic, schema_name))
        if write is None:
            # Hundreds of first answers may arrive at once. One of them registers the schema for all.
            async with self._registering:
                write = self._writes.get((topic, schema_name))
                if write is None:
                    schema = self._contracts.schemas[schema_name]
                    head = SINGLE_OBJECT + schema.fingerprint
                    if self._registry is not None:
                        schema_id = await self._register(self._registry, f"{topic}-value", schema)
                        head = WIRE_MAGIC + schema_id.to_bytes(4, "big")
                    write = self._writes[topic, schema_name] = compile_write(schema.tree, head)
        return write

    def single_object(self, schema_name: str, datum: object) -> bytes:
        """Return the value in single-object encoding. Raises `ValueError` for a datum that does not match."""
        write = self._single.get(schema_name)
        if write is None:
            schema = self._contracts.schemas[schema_name]
            write = self._single[schema_name] = compile_write(schema.tree, SINGLE_OBJECT + schema.fingerprint)
        return write(datum)

    async def _register(self, registry: Registry, subject: str, schema: Schema) -> int:
        pause, troubled = _FIRST_PAUSE, False
        while True:
            try:
                schema_id = await registry.register(subject, schema)
            except RegistryRefused as error:
                raise FatalError(str(error)) from None
            except RegistryTrouble as error:
                troubled = True
                # No limit of attempts, as in the decoder: the records' offsets stay uncommitted while the registry is
                # down.
                _log.warning("registry.waiting", message=str(error))
                self._on_trouble(str(error))
                await self._clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if troubled:
                    self._on_trouble(None)
                return schema_id
