"""What happened is kept from the log's own events, at every log level, bounded and without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from connector.clock import SystemClock
from connector.config.loader import LogSettings
from connector.errors import StartupError
from connector.runtime import events as writing
from connector.runtime.events import write_events
from connector.telemetry import logs
from connector.telemetry.timeline import EVENTS, MOST, Timeline
from tools.log_events import MEANINGS

texts = st.text(st.characters(exclude_categories=()), max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
"""What a foreign server's JSON may hold: lone surrogates, numbers of any size."""


@pytest.fixture(autouse=True)
def _logging_is_put_back() -> Iterator[None]:
    """Undo what `configure` and `listen` do to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logs.listen(None)
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_every_event_of_the_timeline_is_one_of_the_log() -> None:
    """A name that is changed in the source cannot vanish from the timeline."""
    assert set(MEANINGS) >= EVENTS


@pytest.mark.parametrize("level", ["debug", "info", "error"])
def test_the_timeline_does_not_depend_on_the_log_level(level: str) -> None:
    """An event of level info is kept where only errors are written; other events and secrets are not.

    Kills: a timeline that is empty because the log is quiet; a listener before the redaction.
    """
    stream, timeline = io.StringIO(), Timeline("m")
    logs.configure(LogSettings.model_validate({"level": level, "format": "json"}), stream)
    logs.register_secrets(["s3cr3t-text"])
    logs.listen(timeline.note)
    log = structlog.get_logger()
    log.info("destination.state", destination="jg", state="held", message="refused s3cr3t-text")
    log.warning("batch.too_large", destination="jg")
    log.debug("partitions.assigned", partitions=["t[0]"])
    assert logs.flush()
    written = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert ("destination.state" in written) is (level != "error")
    found = timeline.events()
    assert [event["event"] for event in found][:1] == ["destination.state"]
    assert (found[0]["message"], found[0]["member"], found[0]["level"]) == ("refused ***", "m", "info")
    assert "batch.too_large" not in str(found)


def test_a_ring_is_bounded_and_its_ids_are_unique() -> None:
    """Of more events than fit the oldest are dropped; long texts and lists are cut; only a writer gets a queue."""
    timeline = Timeline("m")
    for number in range(MOST + 10):
        timeline.note({"event": "storm.began", "message": "x" * 5000, "partitions": list(range(500)), "number": number})
    found = timeline.events()
    assert (len(found), found[0]["number"]) == (MOST, 10)
    assert len({event["id"] for event in found}) == MOST
    assert max(len(event["message"]) for event in found) == 500
    assert len(found[0]["partitions"]) == 21
    assert not timeline.unwritten
    assert timeline.events(since=4e9) == []


@pytest.mark.promise("P14")
@given(json_values)
@example({"a\ud800": ["\ud800"], "b": 2**64})
@example({"message": "x" * 499 + "\ud83d\ude00"})
def test_whatever_an_event_holds_it_can_be_written(value: Any) -> None:
    """Texts with half of a character, and numbers beyond 64 bits, become plain JSON.

    Kills: one event that no topic and no page ever takes, and all events behind it.
    """
    timeline = Timeline("m", written=True)
    timeline.note({"event": "registry.waiting", "message": value})
    (event,) = timeline.unwritten
    assert orjson.loads(orjson.dumps(event, default=str))["event"] == "registry.waiting"


async def test_events_that_kafka_does_not_take_are_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each once, after the trouble, and the last ones at the end.

    Kills: an event that is dropped by one failed write; a stop that is not told.
    """
    monkeypatch.setattr(writing, "LOOK_SECONDS", 0.01)
    timeline, taken, failures = Timeline("m", written=True), asyncio.Queue[bytes](), [2]

    async def write(record: bytes) -> None:
        if failures[0]:
            failures[0] -= 1
            raise StartupError("no broker")
        taken.put_nowait(record)

    for number in range(3):
        timeline.note({"event": "storm.ended", "number": number})
    task = asyncio.create_task(write_events(timeline, write, SystemClock()))
    async with asyncio.timeout(5):
        found = [json.loads(await taken.get())["number"] for _ in range(3)]
        timeline.note({"event": "storm.ended", "number": 3})
        found.append(json.loads(await taken.get())["number"])
        timeline.note({"event": "connector.stopping", "number": 4})
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    found.append(json.loads(taken.get_nowait())["number"])
    assert (found, taken.empty(), task.cancelled()) == ([0, 1, 2, 3, 4], True, True)


async def test_a_stop_does_not_wait_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: a member that cannot end because its last events cannot be written."""
    monkeypatch.setattr(writing, "LAST_SECONDS", 0.01)
    timeline = Timeline("m", written=True)
    timeline.note({"event": "connector.stopping"})
    asked = asyncio.Event()

    async def write(_record: bytes) -> None:
        asked.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(write_events(timeline, write, SystemClock()))
    async with asyncio.timeout(5):
        await asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
