"""`connector explain` prints a record's progress and outcomes, and nothing in it can command a terminal."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from connector.cli.explain import explanation_json, show
from connector.config.loader import KafkaSettings
from connector.dead_letters.headers import resolution, to_headers
from connector.dead_letters.inspection import Inspection, Preparation
from connector.dead_letters.origins import about, dead_letters_about
from connector.errors import StartupError
from connector.kafka import topic_reader
from connector.kafka.topic_reader import TopicReader
from connector.operations.explain import Explanation, FoundReceipt, group_progress
from connector.operations.offsets import PartitionState
from connector.pipeline.offset_map import FinishedMap, Runs
from connector.records import DeadLetter, Position, Record

AT = Position("t", 0, 12)
RECORD = Record("t", 0, 12, 1_790_000_000_000, b"\x1b[2Jkey", b"v", (("h", None), ("[bold]", b"x")))
STATE = PartitionState("t", 0, 10, 0, 50, FinishedMap(Runs((20, 30)), {"a": Runs((12, 13))}))


def explanation(**changes: Any) -> Explanation:
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
        "finished": (group_progress("g", STATE, 12, 1),),
        "dead_letters": (),
        "resolutions": (),
        "replays": (),
        "receipts": (FoundReceipt(receipt, AT),),
        "origin": None,
        "notes": (),
    }
    return Explanation(**{**values, **changes})


@pytest.mark.parametrize(
    ("offset", "by", "destinations"),
    [(9, "committed", ()), (10, None, ()), (12, None, ("a",)), (20, "map", ()), (29, "map", ()), (30, None, ())],
)
def test_committed_offset_and_map_say_whether_a_record_is_finished(
    offset: int, by: str | None, destinations: tuple[str, ...]
) -> None:
    """Below the committed offset all is finished, at it nothing, above it what the map says, wholly or in part."""
    found = group_progress("g", STATE, offset, 0)
    assert (found.by, found.destinations) == (by, destinations)


def test_a_group_without_an_offset_has_finished_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a committed offset nothing counts as finished."""
    state = PartitionState("t", 0, None, 0, 50, FinishedMap())
    assert group_progress("g", state, 0, 0).by is None
    show([explanation(finished=(group_progress("g", state, 0, 0),), receipts=None)])
    out = capsys.readouterr().out
    assert "has not committed anything in this partition yet (no member runs)" in out
    assert "receipts.topic is not set" in out


def test_show_has_every_part_and_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Key, event, both destinations, offset, receipt and its trace id are shown; escapes and markup are only text."""
    show([explanation(notes=("topic x does not exist",))])
    text = capsys.readouterr().out
    for part in (
        *("\\x1b[2Jkey", "[bold]: x", "h: null", '"x": "[red]"', '{"x":1}', "not sent, r.x: too long"),
        *(
            "finished for a only; the committed offset is 10 (members running: 1)",
            "accepted by a",
            "HTTP 200, request trace-9",
        ),
        *("batch batch-1 of 7 records, attempt 2", "Note: topic x does not exist"),
    ):
        assert part in text
    assert "\x1b" not in text
    row = explanation_json(explanation())
    assert [destination["finished"] for destination in row["destinations"]] == [True, False]
    assert row["receipts"][0]["delivered_at"] == "1970-01-01T00:00:00.000Z"


def test_a_destinations_own_group_decides_for_it() -> None:
    """If a destination has run alone, its own group says whether the record is finished, not the common one."""
    own = PartitionState("t", 0, 5, 0, 50, FinishedMap())
    row = explanation_json(explanation(finished=(group_progress("g", STATE, 12, 0), group_progress("g.a", own, 12, 0))))
    assert [destination["finished"] for destination in row["destinations"]] == [False, False]


def test_dead_letters_are_found_by_their_first_origin() -> None:
    """Of all dead letters and replays those of the record are found, each id once, with their resolutions."""
    dead_letter = DeadLetter(RECORD, "refused", "4101", "no", 5.0, "dedup", destination="a")
    headers = to_headers(dead_letter, group="g")
    other = to_headers(
        DeadLetter(replace(RECORD, partition=1), "refused", "4101", "no", 5.0, "other", destination="a"), group="g"
    )
    stored = [Record("dlq", 0, n, 0, b"k", b"v", tuple(each)) for n, each in enumerate((other, headers, headers))]
    (found, *_), _ = dead_letters_about(stored, AT)
    done = Record("dlq", 0, 9, 0, b"k", None, tuple(resolution(found.facts.id, "replayed", 6000)))
    dead_letters, resolutions = dead_letters_about([*stored, done, done], AT)
    assert [(entry.facts.id, entry.state) for entry in dead_letters] == [(found.facts.id, "replayed")]
    assert len(resolutions) == 1
    assert [record.offset for record, _ in about(stored, AT)] == [1, 2]
    assert dead_letters_about(stored, AT._replace(offset=13)) == ([], [])


def test_a_dead_letters_code_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """The meaning and solution of the vendor's code follow its own text."""
    dead_letter = DeadLetter(RECORD, "refused", "4101", "不存在", 5.0, "dedup", vendor="jiguang", destination="a")
    stored = Record("dlq", 0, 1, 0, b"k", b"v", tuple(to_headers(dead_letter, group="g")))
    found, _ = dead_letters_about([stored], AT)
    show([explanation(dead_letters=tuple(found))])
    text = " ".join(capsys.readouterr().out.split())
    assert "The event does not exist at Jiguang. Create it there or correct eventName." in text


def test_an_unreachable_broker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no broker answers, the error names the address."""
    monkeypatch.setattr(topic_reader, "_TIMEOUT", 0.5)
    settings = KafkaSettings(topics=["t"], group_id="g", client={"bootstrap.servers": "127.0.0.1:1"})
    with TopicReader(settings) as reader, pytest.raises(StartupError, match=r"no Kafka broker at 127\.0\.0\.1:1"):
        reader.topics()
