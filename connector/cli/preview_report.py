"""What `connector preview` prints: what each destination would be sent and refused, as tables or JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, TextIO

from rich.table import Table

from connector.cli.terminal import console_on, raw, safe
from connector.operations.preview import Preview, Refused, Sent
from connector.operations.sample import Speed

BEHIND: Final = 1.0
"""Seconds by which the last request may follow the last record without a word."""


def as_lines(seen: Preview, speed: Speed) -> Iterator[str]:
    """Yield one line for the sample (`kind` sample), one for each destination, one for each kind of refusal."""
    sample = {
        "kind": "sample",
        "speed": speed,
        "read": dict(seen.read),
        "left": seen.left,
        "skipped": dict(seen.skipped),
        "seconds": round(seen.seconds, 3),
        "took": round(seen.took, 3),
        "would_stop": seen.would_stop,
        "storms": list(seen.storms),
    }
    for row in (sample, *map(_sent_json, seen.sent), *map(_refused_json, seen.refused)):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def show(seen: Preview, speed: Speed, stream: TextIO | None = None) -> None:
    """Print what was read, what each destination would be sent, and what would be refused."""
    console = console_on(stream)
    for line in _headline(seen, speed):
        console.print(safe(line))
    if not any(seen.read.values()):
        return
    table = Table(title="Would be sent", title_justify="left", title_style="bold")
    for name in (
        "destination",
        "records",
        "requests",
        "records each",
        "bytes each",
        "closed by",
        "requests/s",
        "limit",
    ):
        table.add_column(name, justify="left" if name in ("destination", "closed by") else "right", overflow="fold")
    for one in seen.sent:
        table.add_row(*map(safe, _cells(one)))
    console.print(table)
    if seen.refused:
        table = Table(title="Would become dead letters", title_justify="left", title_style="bold")
        for name in ("records", "destination", "cause", "code", "why, and the first of them"):
            table.add_column(name, justify="right" if name == "records" else "left", overflow="fold")
        for each in seen.refused:
            cells = (str(each.records), each.destination or "-", each.cause, each.code or "-", _example(each))
            table.add_row(*map(safe, cells))
        console.print(table)
    for line in _warnings(seen, speed):
        console.print(safe(f"Note: {line}"))
    for one in seen.sent:
        if one.example is not None:
            console.print(f"\n[bold]The first event for {safe(one.destination)}[/bold]")
            raw(console, one.example)


def _headline(seen: Preview, speed: Speed) -> Iterator[str]:
    """Say what was read and at what pace it comes in."""
    topics = ", ".join(f"{topic} {count}" for topic, count in seen.read.items())
    yield f"{sum(seen.read.values())} records read ({topics}); nothing was sent, nothing committed."
    if not any(seen.read.values()):
        yield "There is nothing to read from there on; --from earliest or --from newest reads what is there."
        return
    pace = {
        "topic": f"at the pace of their own timestamps, over {_seconds(seen.seconds)}",
        "backlog": "all there at once, as after a long stop",
    }.get(str(speed), f"at {speed:g} records a second" if isinstance(speed, float) else "")
    yield f"They come in {pace}; all have their outcome after {_seconds(seen.took)}."
    if seen.left > 0:
        yield f"{seen.left} more offsets are there, beyond --records."
    if seen.skipped:
        yield "Skipped: " + ", ".join(f"{count} {reason}" for reason, count in seen.skipped.items()) + "."


def _warnings(seen: Preview, speed: Speed) -> Iterator[str]:
    """Say what a run would do beside sending and refusing."""
    if seen.would_stop:
        yield "unrouted: stop would end the run at the first of the records with route.unrouted"
    for storm in seen.storms:
        yield f"a run would hold intake instead of draining it (storm): {storm}"
    for one in seen.sent:
        if one.storm is not None:
            yield f"a run would hold {one.destination} instead of draining it: too many records break {one.storm}"
        if one.held:
            yield f"{one.destination} is held by its configuration (hold: true); a run sends it nothing"
        late = _late(one, seen)
        if speed != "backlog" and late > BEHIND:
            limit = "" if one.limit is None else f" (its limit is {one.limit:g} requests/s)"
            yield f"{one.destination} does not keep up{limit}: its last request goes out {_seconds(late)} late"


def _late(one: Sent, seen: Preview) -> float:
    return one.requests[-1][0] - seen.seconds if one.requests else 0.0


def _cells(one: Sent) -> tuple[str, ...]:
    """Return a destination's row."""
    records = [count for _, count, _ in one.requests]
    sizes = [size for _, _, size in one.requests]
    rate = f"{len(records) / max(one.seconds, 1.0):.1f}, peak {one.peak}" if records else "-"
    return (
        one.destination,
        str(one.records),
        str(len(records)),
        _spread(records),
        _spread(sizes),
        ", ".join(f"{by} {count}" for by, count in sorted(one.closed_by.items())) or "-",
        rate,
        "none" if one.limit is None else f"{one.limit:g}/s",
    )


def _spread(values: list[int]) -> str:
    """Return mean and most of what requests hold."""
    return f"{sum(values) / len(values):.1f}, most {max(values)}" if values else "-"


def _example(one: Refused) -> str:
    place = f"{one.example.topic}[{one.example.partition}]@{one.example.offset}"
    return f"{one.message} ({place}{'' if one.field is None else f', field {one.field}'})"


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 600
        else f"{seconds / 60:.0f} min"
        if seconds < 36_000
        else f"{seconds / 3600:.0f} h"
    )


def _sent_json(one: Sent) -> dict[str, Any]:
    records = [count for _, count, _ in one.requests]
    sizes = [size for _, _, size in one.requests]
    return {
        "kind": "destination",
        "destination": one.destination,
        "vendor": one.vendor,
        "records": one.records,
        "requests": len(records),
        "records_per_request": _stats(records),
        "bytes_per_request": _stats(sizes),
        "closed_by": dict(one.closed_by),
        "requests_per_second": round(len(records) / max(one.seconds, 1.0), 3),
        "peak_requests_per_second": one.peak,
        "limit_requests_per_second": one.limit,
        "seconds": round(one.seconds, 3),
        "storm": one.storm,
        "held": one.held,
        "example": one.example,
    }


def _stats(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    return {"least": min(values), "mean": round(sum(values) / len(values), 2), "most": max(values)}


def _refused_json(one: Refused) -> dict[str, Any]:
    return {
        "kind": "refused",
        "destination": one.destination,
        "cause": one.cause,
        "code": one.code,
        "field": one.field,
        "records": one.records,
        "message": one.message,
        "example": one.example._asdict(),
    }
