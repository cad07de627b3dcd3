"""The level of the log changes while the process runs, and at debug a sample of records is followed."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from connector.config.loader import LogSettings
from connector.telemetry import logs
from connector.telemetry.logs import LogSample
from tests.unit.delivery.delivery_rig import Rig, played
from tests.unit.pipeline.pipeline_rig import PipelineRig


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged, from level info on; the process's logging is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure(LogSettings(), stream)
    yield stream
    logs.configure(LogSettings(), stream)
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def seen(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines since the last call."""
    assert logs.flush()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    stream.seek(0)
    stream.truncate()
    return lines


def test_the_level_changes_for_everybody(stream: io.StringIO) -> None:
    """A logger made before obeys the new level, a library's too, and the change is told at the more talkative one.

    Kills: a level that only loggers made later have.
    """
    log, library = structlog.get_logger(), logging.getLogger("library")
    log.debug("unseen")
    logs.set_level("debug", 7)
    log.debug("seen.now")
    library.warning("seen too")
    logs.set_level("error")
    log.warning("unseen.again")
    found = seen(stream)
    assert [line["event"] for line in found] == ["log.level", "seen.now", "seen too", "log.level"]
    assert (found[0]["was"], found[0]["now"], found[0]["sample"]) == ("info", "debug", 7)
    assert logs.level() == "error"


def test_signals_go_up_by_one_and_back_at_once(stream: io.StringIO) -> None:
    """One level more ends at debug; back is the level of the configuration, wherever one is."""
    logs.configure(LogSettings(level="error"), stream)
    levels = []
    for _ in range(4):
        logs.more()
        levels.append(logs.level())
    assert levels == ["warning", "info", "debug", "debug"]
    logs.as_configured()
    assert logs.level() == "error"


@pytest.mark.parametrize(("level", "every", "says"), [("loud", None, "debug, info, warning, error"), ("info", 0, "1")])
def test_a_wrong_wish_changes_nothing(stream: io.StringIO, level: str, every: int | None, says: str) -> None:
    """An unknown level or an impossible sample is refused in words, and all stays as it was."""
    with pytest.raises(ValueError, match=says):
        logs.set_level(level, every)
    assert (logs.level(), logs.sample.every, seen(stream)) == ("info", 100, [])


@given(st.integers(1, 50), st.text(max_size=5), st.integers(0, 99), st.integers(0, 2**62))
def test_a_record_is_followed_everywhere_or_nowhere(every: int, topic: str, partition: int, offset: int) -> None:
    """The choice depends on the record alone; one in one is every record. Kills: drawing again at each step."""
    one, other = LogSample(), LogSample()
    one.every = other.every = every
    assert one.takes(topic, partition, offset) == other.takes(topic, partition, offset)
    one.every = 1
    assert one.takes(topic, partition, offset)


def test_a_sample_is_about_one_in_so_many() -> None:
    """Of many records a share of 1/every is followed, and of many requests exactly."""
    sample = LogSample()
    sample.every = 10
    assert 800 < sum(sample.takes("events", 3, offset) for offset in range(10_000)) < 1200
    assert sum(sample.takes_next() for _ in range(1000)) == 100


def test_a_followed_record_is_seen_in_its_steps(stream: io.StringIO) -> None:
    """At debug, with a sample of one, a record is seen decoded and delivered, its request ended; at info nothing is.

    Kills: following at any level; a line with content.
    """

    @played
    async def play() -> None:
        rig = PipelineRig()
        rig.source.produce(b"d", b"d")
        async with rig.running():
            await rig.until(lambda: len(rig.to["d"].done) == 2)
        delivery = Rig()
        async with delivery.running():
            delivery.offer(range(2))
            await delivery.done()

    play()
    assert [line for line in seen(stream) if line["level"] == "debug"] == []
    logs.set_level("debug", 1)
    play()
    found = [line for line in seen(stream) if line["event"].startswith(("record.", "request."))]
    steps = ["record.decoded", "record.decoded", "request.ended", "record.delivered", "record.delivered"]
    assert [line["event"] for line in found] == steps
    assert {line["offset"] for line in found if "offset" in line} == {0, 1}
    assert found[0]["schema"] == "model.Event"
    request = next(line for line in found if line["event"] == "request.ended")
    assert (request["verdict"], request["records"], request["http_status"]) == ("accepted", 2, 200)
