"""The command `connector tap`: follows the live topics and shows each record's way through today's configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli.common import (
    BAD_CONFIGURATION,
    DEFAULT_FILE,
    File,
    Json,
    begin,
    fail,
    in_loop,
    json_line,
    print_raw,
    refuse_unknown,
    say,
)
from connector.cli.completion import complete_destination, complete_topic
from connector.errors import counted

if TYPE_CHECKING:
    from connector.config.loader import Loaded
    from connector.console.masking import MaskedRecord
    from connector.operations.tap import Tapped, Wanted


def tap(
    *,
    config: File = DEFAULT_FILE,
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="Only this topic; repeatable.", autocompletion=complete_topic),
    ] = None,
    destination: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only records that go to this destination.", autocompletion=complete_destination
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=VALUE",
            help="Only records with this value. SOURCE is as in routes: a dotted path, $key or $header.NAME; "
            "repeatable. Several values of one source are alternatives; different sources must all match.",
        ),
    ] = None,
    sent: Annotated[bool, typer.Option("--sent", help="Show what each destination would be sent.")] = False,
    records: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop after N records. Default: follow until Ctrl-C.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow the live topics and show the way of each record: its route, bytes and refusals.

    It joins no group; nothing is sent or committed. What console.mask names or a route hashes is hidden.
    """
    from connector.operations.tap import Wanted

    pairs = [each.partition("=") for each in where or ()]
    if wrong := [source for source, equals, _ in pairs if not equals]:
        fail(f"--where must be SOURCE=VALUE, not {wrong[0]!r}", BAD_CONFIGURATION)
    try:
        wanted = Wanted([(source, value) for source, _, value in pairs], destination)
    except ValueError as error:
        fail(f"--where: {error}", BAD_CONFIGURATION)
    loaded = begin(config)
    refuse_unknown(loaded, destination)
    try:
        in_loop(_follow(loaded, topic or [], wanted, records, _Printer(loaded, sent=sent, as_json=as_json)))
    except KeyboardInterrupt:
        return


async def _follow(loaded: Loaded, only: list[str], wanted: Wanted, records: int | None, printer: _Printer) -> None:
    from connector.operations.tap import follow

    seen = 0
    async with aclosing(follow(loaded, only, wanted, _say_topics)) as found:
        async for tapped in found:
            printer.show(tapped)
            seen += 1
            if seen == records:
                return


def _say_topics(topics: Mapping[str, int]) -> None:
    names = ", ".join(f"{name} ({counted(count, 'partition')})" for name, count in topics.items())
    say(f"Following {names} from now on. Nothing is sent or committed. Ctrl-C stops.")


class _Printer:
    """Prints each record as soon as it arrives, and hides what `console.mask` names."""

    def __init__(self, loaded: Loaded, *, sent: bool, as_json: bool) -> None:
        from connector.console.masking import Mask

        self._mask = Mask([*loaded.settings.console.mask, *loaded.settings.hashed_paths])
        self._sent = sent
        self._as_json = as_json

    def show(self, tapped: Tapped) -> None:
        """Print one record."""
        from connector.console.masking import MaskedRecord

        masked = MaskedRecord.of(None, tapped.inspection, self._mask, tapped.record)
        if self._as_json:
            sys.stdout.write(json_line(self._json(tapped, masked)))
        else:
            for line in self._lines(tapped, masked):
                print_raw(line)
        sys.stdout.flush()

    def _lines(self, tapped: Tapped, masked: MaskedRecord) -> Iterator[str]:
        record, found = tapped.record, tapped.inspection
        key = masked.key(record.key)
        head = f"{_time(record.timestamp)} {record.position}"
        head += "" if key is None else f" key {key}"
        if found is None:
            yield f"{head}: null value, skipped"
            return
        if found.fault is not None:
            yield f"{head}: refused, {found.code or 'not decoded'}: {masked.fault(found.fault)}"
            return
        why = "" if found.skipped is None else f" ({found.skipped})"
        yield f"{head} {found.schema}{'' if found.preparations else f': nothing is sent{why}'}"
        for each in found.preparations:
            by = "by schema or target" if each.route is None else f"by routes[{each.route}]"
            if each.rule is not None:
                yield f"  {each.destination} {by}: refused, {each.rule}: {masked.text(each.reason or '')}"
            else:
                yield f"  {each.destination} {by}: {len((each.fragment or '').encode())} bytes"
                if self._sent:
                    yield f"    {masked.text(each.fragment or '')}"

    def _json(self, tapped: Tapped, masked: MaskedRecord) -> Mapping[str, Any]:
        record, found = tapped.record, tapped.inspection
        shown: dict[str, Any] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": masked.key(record.key),
        }
        if found is None:
            return {**shown, "skipped": "null_value"}
        fault = None if found.fault is None else {"code": found.code, "message": masked.fault(found.fault)}
        ways = [
            {
                "destination": each.destination,
                "route": each.route,
                "bytes": None if each.rule is not None else len((each.fragment or "").encode()),
                "refused": None
                if each.rule is None
                else {"code": each.rule, "message": masked.text(each.reason or "")},
                "sent": masked.text(each.fragment or "") if self._sent and each.rule is None else None,
            }
            for each in found.preparations
        ]
        return {**shown, "schema": found.schema, "skipped": found.skipped, "refused": fault, "destinations": ways}


def _time(millis: int) -> str:
    try:
        return datetime.fromtimestamp(millis / 1000, UTC).strftime("%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return "--:--:--"
