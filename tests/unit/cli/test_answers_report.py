"""What `explain` tells: how far a group is with a record, in words that are true, and no terminal is commanded."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from msgspec.structs import replace

from connector.cli.explain_report import as_json, show
from connector.config.loader import KafkaSettings
from connector.dead_letters.headers import resolution, to_headers
from connector.dead_letters.origins import about, dead_letters_about
from connector.errors import StartupError
from connector.kafka import offset_reader
from connector.kafka.offset_reader import OffsetReader
from connector.operations.explain import Explanation, Receipt, how_far
from connector.operations.inspect import Inspection, Preparation
from connector.operations.offsets import PartitionState
from connector.pipeline.offset_map import FinishedMap, Runs
from connector.records import DeadLetter, Position, Record

AT = Position("t", 0, 12)
RECORD = Record("t", 0, 12, 1_790_000_000_000, b"\x1b[2Jkey", b"v", (("h", None), ("[bold]", b"x")))
STATE = PartitionState("t", 0, 10, 0, 50, FinishedMap(Runs((20, 30)), {"a": Runs((12, 13))}))


def told(**changes: Any) -> Explanation:
    """Return an explanation of a delivered record."""
    inspection = Inspection(
        "s.E", {"x": "[red]"}, None, (Preparation("a", "d", '{"x":1}'), Preparation("b", rule="r.x", reason="too long"))
    )
    receipt = {
        "id": "batch-1",
        "group": "g",
        "destination": "a",
        "vendor": "v",
        "positions": [],
        "records": 7,
        "delivered_at": 0,
        "first_attempt": None,
        "attempts": 2,
        "http_status": 200,
        "request_id": "trace-9",
    }
    values: dict[str, Any] = {
        "position": AT,
        "record": RECORD,
        "missing": None,
        "inspection": inspection,
        "finished": (how_far("g", STATE, 12, 1),),
        "dead_letters": (),
        "resolutions": (),
        "replays": (),
        "receipts": (Receipt(receipt, AT),),
        "origin": None,
        "notes": (),
    }
    return Explanation(**{**values, **changes})


@pytest.mark.parametrize(
    ("offset", "by", "destinations"),
    [(9, "committed", ()), (10, None, ()), (12, None, ("a",)), (20, "map", ()), (29, "map", ()), (30, None, ())],
)
def test_the_offset_and_the_map_say_whether_a_record_is_finished(
    offset: int, by: str | None, destinations: tuple[str, ...]
) -> None:
    """Below the committed offset all is finished, at it nothing, above it what the map says, whole or in part."""
    found = how_far("g", STATE, offset, 0)
    assert (found.by, found.destinations) == (by, destinations)


def test_a_group_without_an_offset_has_finished_nothing() -> None:
    """Where nothing is committed nothing is claimed."""
    state = PartitionState("t", 0, None, 0, 50, FinishedMap())
    assert how_far("g", state, 0, 0).by is None
    out = io.StringIO()
    show(told(finished=(how_far("g", state, 0, 0),), receipts=None), out)
    assert "has committed nothing of this partition yet (no member runs)" in out.getvalue()
    assert "receipts.topic is not set" in out.getvalue()


def test_the_story_has_every_part_and_commands_no_terminal() -> None:
    """Key, event, both destinations, offset, receipt and its trace id are shown; escapes and markup are only text."""
    out = io.StringIO()
    show(told(notes=("topic x does not exist",)), out)
    text = out.getvalue()
    for part in (
        *("\\x1b[2Jkey", "[bold]: x", "h: null", '"x": "[red]"', '{"x":1}', "not sent, r.x: too long"),
        *("finished for a only; committed is 10 (members running: 1)", "accepted by a", "HTTP 200, request trace-9"),
        *("batch batch-1 of 7 records, attempt 2", "Note: topic x does not exist"),
    ):
        assert part in text
    assert "\x1b" not in text
    line = json.loads(as_json(told()))
    assert [one["finished"] for one in line["destinations"]] == [True, False]
    assert line["receipts"][0]["delivered_at"] == "1970-01-01T00:00:00.000Z"


def test_a_destinations_own_group_decides_for_it() -> None:
    """Where a destination has run alone its own group says whether it is finished, not the common one."""
    own = PartitionState("t", 0, 5, 0, 50, FinishedMap())
    line = json.loads(as_json(told(finished=(how_far("g", STATE, 12, 0), how_far("g.a", own, 12, 0)))))
    assert [one["finished"] for one in line["destinations"]] == [False, False]


def test_dead_letters_are_found_by_their_first_origin() -> None:
    """Of all letters and replays those of the record are taken, each id once, with what resolved them."""
    dead_letter = DeadLetter(RECORD, "refused", "4101", "no", 5.0, "dedup", destination="a")
    headers = to_headers(dead_letter, group="g")
    other = to_headers(
        DeadLetter(replace(RECORD, partition=1), "refused", "4101", "no", 5.0, "other", destination="a"), group="g"
    )
    stored = [Record("dlq", 0, n, 0, b"k", b"v", tuple(one)) for n, one in enumerate((other, headers, headers))]
    (found, *_), _ = dead_letters_about(lambda: stored, AT)
    done = Record("dlq", 0, 9, 0, b"k", None, tuple(resolution(found.facts.id, "replayed", 6000)))
    dead_letters, resolutions = dead_letters_about(lambda: [done, *stored, done], AT)
    assert [(one.facts.id, one.state) for one in dead_letters] == [(found.facts.id, "replayed")]
    assert len(resolutions) == 1
    assert [record.offset for record, _ in about(stored, AT)] == [1, 2]
    assert dead_letters_about(lambda: stored, AT._replace(offset=13)) == ([], [])


def test_a_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a record while no broker answers is told the address."""
    monkeypatch.setattr(offset_reader, "_TIMEOUT", 0.5)
    settings = KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "127.0.0.1:1"})
    with OffsetReader(settings) as reader, pytest.raises(StartupError, match=r"no Kafka broker at 127\.0\.0\.1:1"):
        reader.topics()
