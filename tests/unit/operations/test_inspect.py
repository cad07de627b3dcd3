"""Dead letters are checked by today's rules, and a schema that is gone concerns only the records that name it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connector.codec.registry import NotRegistered, RegistryTrouble
from connector.codec.schemas import Schema
from connector.dead_letters.filters import parse_where
from connector.dead_letters.headers import parse, to_headers
from connector.dead_letters.reader import DeadLetterEntry
from connector.errors import StartupError
from connector.operations import inspect
from connector.operations.events import matching_events
from connector.operations.inspect import DeadLetterExaminer
from connector.records import DeadLetter, Record
from tests.unit.operations.test_preview import configured, value

WIRE = b"\x00\x00\x00\x00\x4d"
"""Confluent's wire format with schema id 77."""


class ModelRegistry:
    """A registry that knows no schema, or does not answer."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.asked: list[int] = []

    async def by_id(self, schema_id: int) -> Schema:
        """Fail."""
        self.asked.append(schema_id)
        raise self._error

    async def close(self) -> None:
        """Do nothing."""


@pytest.fixture(params=[NotRegistered("the registry does not know schema id 77")])
def model_registry(request: pytest.FixtureRequest) -> ModelRegistry:
    """A registry that fails with the given error."""
    return ModelRegistry(request.param)


@pytest.fixture
def examiner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_registry: ModelRegistry) -> DeadLetterExaminer:
    """An examiner that asks this registry; made here, because reading the configuration blocks."""
    monkeypatch.setattr(inspect, "open_registry", lambda _settings: model_registry)
    monkeypatch.setattr(inspect, "SCHEMA_SECONDS", 0.2)
    return DeadLetterExaminer(configured(tmp_path, sections={"schema_registry": {"url": "http://unused"}}), "cluster")


def dead(content: bytes, number: int = 0) -> DeadLetterEntry:
    """Return a dead letter with this value."""
    record = Record("t", 0, number, 1_700_000_000_000, b"k", content, ())
    headers = tuple(to_headers(DeadLetter(record, "refused", "4103", "no", 5.0, "d", destination="jg"), group="g"))
    facts = parse(headers)
    assert facts is not None
    return DeadLetterEntry(Record("g.dead-letters", 0, number, 0, b"k", content, headers), facts, "open")


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        (["event.cuid=1"], True),
        (["event.cuid=2"], False),
        (["event.cuid=2", "event.cuid=1"], True),
        (["event.eventName=see", "event.properties.n=1"], True),
        (["event.eventName=see", "event.properties.m=1"], False),
        (["event.properties.m=", "event.randomId="], True),
        (["event.eventName.x="], True),
        (["event.eventName.x=see"], False),
    ],
)
def test_dead_letters_are_selected_by_fields_of_their_events(
    tmp_path: Path, conditions: list[str], *, found: bool
) -> None:
    """The event is decoded as in a run; one that cannot be decoded never matches."""
    entry = dead(value(1))
    with matching_events(configured(tmp_path), parse_where(conditions)) as wanted:
        assert wanted.matches(entry.facts, entry.record) is found
        broken = dead(b"junk")
        assert not wanted.matches(broken.facts, broken.record)


async def test_an_unknown_schema_keeps_back_its_dead_letter_only(
    examiner: DeadLetterExaminer, model_registry: ModelRegistry
) -> None:
    """The registry's "unknown" is an answer at once, asked for once; other dead letters pass.

    Kills: waiting for a schema that is gone, which broke off every replay.
    """
    async with examiner as found:
        for number in range(3):
            kept = await found.judge(dead(WIRE + b"x", number))
            assert kept is not None
            assert (kept.code, kept.reason) == ("decode.schema_unknown", "the registry does not know schema id 77")
        assert await found.judge(dead(value(1))) is None
        inspection = await found.inspect(dead(WIRE + b"x"))
    assert model_registry.asked == [77]
    assert "schema id 77" in (inspection.fault or "")


@pytest.mark.parametrize("model_registry", [RegistryTrouble("HTTP 503")], indirect=True)
async def test_a_registry_that_does_not_answer_ends_the_replay(examiner: DeadLetterExaminer) -> None:
    """While the registry is away nothing is known about the record; the error names the schema."""
    async with examiner as found:
        with pytest.raises(StartupError, match="77"):
            await found.judge(dead(WIRE + b"x"))


@pytest.mark.promise("P14")
@pytest.mark.parametrize("step", ["decoded", "routed", "prepared"])
async def test_an_unexpected_exception_is_shown_as_what_a_run_makes_of_it(
    examiner: DeadLetterExaminer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A fault of ours, or of a vendor's module, over one record is its refusal in every tool, as in a run.

    Kills: `dlq show`, `explain`, `tap`, the console's page and a whole replay that end with a traceback for one record.
    """

    def broken(*_: object) -> Any:
        raise ZeroDivisionError("a record's value")

    preparer = examiner._preparer
    if step == "decoded":
        monkeypatch.setattr(examiner._decoder, "_find", broken)
    elif step == "routed":
        monkeypatch.setattr(preparer, "routes", SimpleNamespace(route=broken))
        monkeypatch.setattr(inspect, "reroute", broken)
    else:
        monkeypatch.setattr(preparer._vendors["jg"], "encode", broken)
    entry = dead(value(1))
    shown, of_record = (
        await examiner.inspect(entry),
        await examiner.inspect_record(entry.facts.first_record(entry.record)),
    )
    judged = await examiner.judge(entry)
    await examiner.close()
    for found in (shown, of_record):
        assert "ZeroDivisionError at line" in str(found)
        assert f"while the record was {step}" in str(found)
        assert "a record's value" not in str(found)
    assert judged is not None
    assert "internal.ZeroDivisionError" in str(judged)
