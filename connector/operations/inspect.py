"""Inspects dead letters and records by today's configuration: decodes, routes and prepares them as for a request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Self

from msgspec import structs

from connector.clock import SystemClock
from connector.codec import editing
from connector.codec.decoder import Decoder
from connector.codec.frames import SchemaKey
from connector.codec.registry import NotRegistered
from connector.codec.schemas import known_schemas, load_contracts, own_schemas
from connector.config.loader import Loaded, Settings
from connector.console.masking import Mask, MaskedRecord, cover
from connector.dead_letters.inspection import Inspection, Preparation
from connector.dead_letters.reader import DeadLetterEntry
from connector.dead_letters.replay import Edit, Kept
from connector.errors import ConnectorError, Refusal, SchemaUnavailable, StartupError
from connector.operations.prepare import Preparer, plain, skip_reason
from connector.records import Event, Record
from connector.routing.compiler import reads_keys
from connector.routing.table import Routed, reroute
from connector.runtime.checks import open_registry
from connector.tasks import refusing

SCHEMA_SECONDS: Final = 15.0
"""How long the registry is asked for a schema; it is asked again for an unknown id in the first ten of them."""


async def inspect(loaded: Loaded, dead_letter: DeadLetterEntry, cluster_id: str) -> Inspection:
    """Inspect one dead letter for a person; see `DeadLetterExaminer.inspect` and `without_hashed`."""
    async with DeadLetterExaminer(loaded, cluster_id) as examiner:
        return without_hashed(await examiner.inspect(dead_letter), loaded.settings, dead_letter.record)


def without_hashed(inspection: Inspection, settings: Settings, record: Record) -> Inspection:
    """Return the inspection without the plain values of hashed fields, wherever they occur."""
    mask = Mask(settings.hashed_paths)
    if not mask or inspection.schema is None:
        return inspection
    shown = MaskedRecord.of(None, inspection, mask, record)
    hidden = shown.hidden
    return replace(
        inspection,
        event=shown.event,
        fault=inspection.fault and cover(inspection.fault, hidden),
        preparations=tuple(
            replace(each, fragment=each.fragment and cover(each.fragment, hidden)) for each in inspection.preparations
        ),
        hidden=hidden,
    )


class DeadLetterExaminer:
    """Decodes and routes records by today's configuration and checks the local rules; an asynchronous context manager.

    The constructor raises `ConfigurationError` and `StartupError` if the configuration cannot be used.
    """

    def __init__(self, loaded: Loaded, cluster_id: str) -> None:
        settings = loaded.settings
        own = own_schemas(loaded)
        self._cluster_id = cluster_id
        self._registry = None if settings.schema_registry is None else open_registry(settings.schema_registry)
        self._decoder = Decoder(
            load_contracts(),
            clock=SystemClock(),
            registry=self._registry,
            schemas=own,
            plain=settings.schemas.plain,
            keys=reads_keys(settings),
        )
        self._unknown: dict[SchemaKey, str] = {}
        self._preparer = Preparer(settings, known_schemas(own), cluster_id)

    async def __aenter__(self) -> Self:
        """Return the examiner."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the registry client."""
        await self.close()

    async def close(self) -> None:
        """Close the registry client."""
        await self._decoder.close()
        if self._registry is not None:
            await self._registry.close()

    async def inspect(self, dead_letter: DeadLetterEntry) -> Inspection:
        """Return a dead letter's event, and what would be sent to its destination today.

        A dead letter without a destination (it was never decoded or routed) is routed again. Nothing is sent, and
        nothing is raised: if the record cannot be decoded, that is the inspection's `fault`.
        """
        try:
            event = await self._event(dead_letter)
        except ConnectorError as error:
            return Inspection(None, None, str(error), ())
        shown = plain(event.datum)
        try:
            routed = self._routed(event, dead_letter)
        except Refusal as refusal:
            # A dead letter of a destination is shown as that destination's problem, even if a route refuses it now.
            destination = dead_letter.facts.destination
            if destination is None:
                return Inspection(event.schema, shown, str(refusal), ())
            return Inspection(event.schema, shown, None, (Preparation(destination, reason=refusal.message),))
        prepared = tuple(self._preparer.prepared(each, _now()) for each in routed)
        return Inspection(event.schema, shown, None, prepared, skipped=skip_reason(routed))

    async def decode(self, dead_letter: DeadLetterEntry) -> Inspection:
        """Return only a dead letter's event, or why there is none."""
        try:
            event = await self._event(dead_letter)
        except ConnectorError as error:
            return Inspection(None, None, str(error), ())
        return Inspection(event.schema, plain(event.datum), None, ())

    async def inspect_record(self, record: Record) -> Inspection:
        """Return the event of a source record, and what each of its destinations would be sent today.

        Nothing is sent, and nothing is raised: if the record cannot be decoded, that is the inspection's `fault`.
        """
        try:
            event = await self._decoded(record)
        except ConnectorError as error:
            return Inspection(None, None, str(error), (), code=error.code if isinstance(error, Refusal) else None)
        return self._preparer.inspect(event, record, _now())

    async def judge(self, dead_letter: DeadLetterEntry) -> Kept | None:
        """Return why a dead letter would fail again; None if at least one destination would be sent it.

        Raises `ConnectorError` if the registry does not answer.
        """
        try:
            routed = self._routed(await self._event(dead_letter), dead_letter)
        except Refusal as refusal:
            return Kept(refusal.code, refusal.message)
        found = [self._preparer.prepared(each, _now()) for each in routed]
        if not found:
            return Kept("route.skipped", f"it would be skipped today: {skip_reason(routed)}")
        # One destination is enough: a dead letter without a destination goes to each that its routes name.
        if any(preparation.reason is None for preparation in found):
            return None
        return Kept(found[0].rule or "", found[0].reason or "")

    async def edit(self, dead_letter: DeadLetterEntry, edits: Sequence[Edit]) -> DeadLetterEntry | Kept:
        """Return the dead letter with values of its event changed, in the same schema; or why that is impossible.

        Raises as `judge` does.
        """
        try:
            # Decoded only to raise its refusals: bytes that do not decode cannot be changed at a path.
            await self._event(dead_letter)
            tree, start = self._decoder.schema_of(dead_letter.facts.first_record(dead_letter.record))
            value = editing.edit(dead_letter.record.value or b"", start, tree, edits)
        except Refusal as refusal:
            return Kept("edit", f"the event cannot be decoded, so it cannot be changed: {refusal.message}")
        except ValueError as error:
            return Kept("edit", str(error))
        return dead_letter._replace(record=structs.replace(dead_letter.record, value=value))

    def event_of_known_schema(self, record: Record) -> Event:
        """Return the event of a source record. Raises `Refusal` or `SchemaUnavailable`."""
        return self._decoder.event(record)

    async def event(self, record: Record) -> Event:
        """Return the event of a source record. Raises `Refusal`, or `ConnectorError` if its schema is not known."""
        return await self._decoded(record)

    async def _event(self, dead_letter: DeadLetterEntry) -> Event:
        """Return the event. Raises `Refusal`, or `ConnectorError` if its schema cannot be fetched."""
        return await self._decoded(dead_letter.facts.first_record(dead_letter.record))

    async def _decoded(self, record: Record) -> Event:
        try:
            return self._decoder.event(record)
        except SchemaUnavailable as error:
            await self._refuse_unknown(error.key)
            try:
                await asyncio.wait_for(self._decoder.resolve(error.key), SCHEMA_SECONDS)
            except TimeoutError:
                raise StartupError(
                    f"the registry did not answer for schema {error.key} within {SCHEMA_SECONDS:g} s"
                ) from None
        return self._decoder.event(record)

    async def _refuse_unknown(self, key: object) -> None:
        """Raise `Refusal` for a schema that the registry does not know.

        A run waits for such a schema, because it may be registered a moment later. Here the record failed long ago, and
        one deleted schema must not stop the replay of all other dead letters.
        """
        if self._registry is None or not isinstance(key, SchemaKey):
            return
        if key not in self._unknown:
            try:
                if isinstance(key.value, int):
                    await asyncio.wait_for(self._registry.by_id(key.value), SCHEMA_SECONDS)
                else:
                    await asyncio.wait_for(self._registry.by_guid(str(key.value)), SCHEMA_SECONDS)
            except NotRegistered as error:
                self._unknown[key] = str(error)
            except (ConnectorError, ValueError, TimeoutError):
                return  # `resolve` asks again, and knows what to make of it
        if key in self._unknown:
            raise Refusal("decode", "decode.schema_unknown", self._unknown[key])

    def _routed(self, event: Event, dead_letter: DeadLetterEntry) -> Sequence[Routed]:
        first = dead_letter.facts.first_record(dead_letter.record)
        with refusing("routed"):
            return reroute(self._preparer.routes, event, first, dead_letter.facts, self._cluster_id)


def _now() -> int:
    return int(SystemClock().wall() * 1000)
