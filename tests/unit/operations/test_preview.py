"""A preview reports what a run would do: the same batches, refusals and pace, and nothing is sent."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from connector import vendors
from connector.cli.preview import preview_rows, show
from connector.codec.decoder import Decoder
from connector.codec.encoder import Encoder
from connector.codec.schemas import load_contracts
from connector.config.loader import Loaded, load
from connector.operations.preview import Preview, preview
from connector.operations.sample import RecordSample, Speed, arrivals, shares
from connector.records import NO_TIMESTAMP, Assigned, Record
from connector.testing import ManualClock
from connector.vendors.jiguang import PAST_MS

CONTRACTS = load_contracts()
ENCODER = Encoder(CONTRACTS, clock=ManualClock())
START = int(time.time() * 1000) - 60_000
DAY = 86_400_000


def configured(folder: Path, **changes: Any) -> Loaded:
    """Return a configuration with one account at Jiguang; `changes` are its further settings."""
    account = {"vendor": "jiguang", "project_id": "1", "project_secret": "s", "app_key": "k", **changes}
    sections = changes.pop("sections", {})
    account.pop("sections", None)
    content = {
        "kafka": {"topics": ["t"], "group_id": "g", "client": {"bootstrap.servers": "unused:9092"}},
        "destinations": {"jg": account},
        **sections,
    }
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    known = vendors.kinds()
    return load(
        path, {name: kind.settings for name, kind in known.items()}, rules={n: kind.rules for n, kind in known.items()}
    )


def value(number: int, **changes: Any) -> bytes:
    """Return an event of Jiguang's as a record's value."""
    event = {"cuid": number, "eventName": "see", "itime": START, "randomId": None, "properties": {"n": number}}
    return ENCODER.single_object("connector.events.JiguangUserEvent", {**event, **changes})


def record(offset: int, content: bytes | None = None, *, partition: int = 0, at: float = 0.0) -> Record:
    """Return a record that was written `at` seconds after the first."""
    content = value(offset) if content is None else content
    return Record("t", partition, offset, START + int(at * 1000), b"k", content, ())


def sample(*records: Record) -> RecordSample:
    """Return records as they would have been read."""
    numbers = sorted({one.partition for one in records} | {0})
    assigned = tuple(Assigned("t", number, 0, None, "") for number in numbers)
    decoder = Decoder(CONTRACTS, clock=ManualClock())
    return RecordSample("c", {"t": len(numbers)}, assigned, records, 0, decoder, {}, {})


def seen(folder: Path, *records: Record, speed: Speed = "topic", latency: float = 0.1, **changes: Any) -> Preview:
    """Return what a run would do with the records."""
    return preview(configured(folder, **changes).settings, sample(*records), speed, latency)


def test_every_record_is_sent_or_refused_or_skipped(tmp_path: Path) -> None:
    """Every record that is read is accounted for, with an example for each kind of refusal."""
    good = [record(n) for n in range(250)]
    bad = [record(250 + n, value(n, eventName="")) for n in range(3)]
    rest = [record(253, b"junk"), Record("t", 0, 254, START, None, None, ())]
    found = seen(tmp_path, *good, *bad, *rest)
    (sent,) = found.sent
    assert [(count, size > 0) for _, count, size in sent.requests] == [(100, True), (100, True), (50, True)]
    assert sent.closed_by == {"records": 2, "linger": 1}
    assert found.skipped == {"null_value": 1}
    assert [(one.destination, one.cause, one.records, one.example.offset) for one in found.refused] == [
        ("jg", "invalid", 3, 250),
        (None, "decode", 1, 253),
    ]
    assert json.loads(sent.examples[0])["cuid"] == 0
    assert sum(found.read.values()) == 255 == sent.records + 3 + 1 + 1


@pytest.mark.parametrize("count", [1, 23, 100, 101])
@pytest.mark.parametrize("speed", ["backlog", "topic", 7.0])
def test_the_last_records_are_sent_too(tmp_path: Path, count: int, speed: Speed) -> None:
    """However many records there are and however fast they arrive, the preview waits for the last batch."""
    found = seen(tmp_path, *(record(n, at=n / 10) for n in range(count)), speed=speed)
    assert found.sent[0].records == count
    assert found.took >= found.seconds + 0.1


def test_the_speed_decides_the_batches(tmp_path: Path) -> None:
    """Slow records go out by the linger, one or few at a time; a backlog fills every batch."""
    records = [record(n, at=n) for n in range(300)]
    slow = seen(tmp_path, *records, batch={"linger": "200ms"})
    assert slow.sent[0].closed_by == {"linger": 300}
    assert (slow.seconds, slow.sent[0].peak) == (299.0, 1)
    quick = seen(tmp_path, *records, speed=1000.0, batch={"linger": "100ms"})
    assert 3 <= len(quick.sent[0].requests) <= 5
    assert seen(tmp_path, *records, speed="backlog").sent[0].closed_by == {"records": 3}


def test_a_rate_limit_that_is_too_low_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If more arrives than the limit allows, the limit holds and the report says how late the last request is."""
    settings: dict[str, Any] = {"requests_per_second": 2, "batch": {"records": 1}}
    found = seen(tmp_path, *(record(n) for n in range(50)), speed=10.0, **settings)
    (sent,) = found.sent
    assert sent.peak <= 3
    assert found.took > 20
    show(found, 10.0)
    assert "jg does not keep up (its limit is 2 requests/s): its last request is 20" in capsys.readouterr().out


def test_what_would_hold_or_stop_a_run_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A storm, a configured hold and `unrouted: stop` do not end the preview; the report names them."""
    bad = [record(n, value(n, eventName="")) for n in range(40)]
    storm: dict[str, Any] = {"storm": {"share": 0.5, "records": 20}, "hold": True}
    found = seen(tmp_path, *bad, **storm)
    assert found.refused[0].records == 40
    assert (found.sent[0].storm, found.sent[0].held) == ("jiguang.eventName.required", True)
    junk = [record(n, b"junk") for n in range(40)]
    assert len(seen(tmp_path, *junk, **storm).storms) == 1
    query = ENCODER.single_object(
        "connector.events.MyTrackerEvent", {"method": "login", "customUserId": "u", "eventTimestamp": START // 1000}
    )
    stopped = seen(tmp_path, record(0, query), record(1), sections={"unrouted": "stop"})
    assert (stopped.would_stop, stopped.sent[0].records) == (True, 1)
    for each in (found, stopped):
        show(each, "topic")
    out = capsys.readouterr().out
    for part in ("too many break jiguang.eventName.required", "hold: true", "unrouted: stop would end the run"):
        assert part in out


def test_old_events_are_judged_as_of_now(tmp_path: Path) -> None:
    """Rules about age use the present time, not the virtual time that passes in the preview."""
    oldest = START - PAST_MS + DAY
    records = [record(n, value(n, itime=oldest), at=86_400.0 * n) for n in range(10)]
    found = seen(tmp_path, *records, record(10, value(10, itime=oldest - 2 * DAY)))
    assert (found.sent[0].records, found.seconds) == (10, 9 * 86_400.0)
    assert [one.example.offset for one in found.refused] == [10]


def test_json_lines_hold_the_same_numbers(tmp_path: Path) -> None:
    """The sample, each destination and each refusal is one line."""
    found = seen(tmp_path, *(record(n) for n in range(120)), record(120, b"junk"))
    sample_, sent, refused = (dict(row) for row in preview_rows(found, "topic"))
    assert (sample_["kind"], sample_["read"]) == ("sample", {"t": 121})
    assert (sent["kind"], sent["records"], sent["requests"]) == ("destination", 120, 2)
    assert sent["records_per_request"] == {"least": 20, "mean": 60.0, "most": 100}
    assert (refused["kind"], refused["code"], refused["example"]["offset"]) == ("refused", "decode.frame", 120)


def test_an_empty_sample_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty sample ends at once, and the message says where to find records."""
    found = seen(tmp_path)
    show(found, "topic")
    assert "--from earliest" in capsys.readouterr().out
    assert found.sent[0].requests == []


@given(st.dictionaries(st.tuples(st.just("t"), st.integers(0, 9)), st.integers(0, 50)), st.integers(0, 200))
def test_shares_are_as_even_as_possible(available: dict[tuple[str, int], int], wanted: int) -> None:
    """No partition gives more than it has, together they give what is wanted, and the shares differ by at most one."""
    taken = shares(available, wanted)
    assert taken.keys() == available.keys()
    assert all(0 <= taken[at] <= available[at] for at in available)
    assert sum(taken.values()) == min(wanted, sum(available.values()))
    short = [taken[at] for at in available if taken[at] < available[at]]
    assert max(taken.values(), default=0) - min(short, default=0) <= 1 or not short


TIMES = st.one_of(
    st.just(NO_TIMESTAMP),
    st.integers(0, 10_000),
    st.integers(0, 2**63 - 1),
    st.sampled_from([2**63 - 1, 253402300800000]),
)
"""Timestamps as producers write them, some with a clock that is far off or counts another unit."""


@given(
    st.lists(st.tuples(st.integers(0, 2), TIMES), max_size=30),
    st.sampled_from(["topic", "backlog", 3.0]),
)
def test_records_of_a_partition_come_in_order(drawn: list[tuple[int, int]], speed: Speed) -> None:
    """Whatever their timestamps say, no record is lost, early, or ahead of an earlier one of its partition."""
    counts: Counter[int] = Counter()
    records = []
    for partition, timestamp in drawn:
        records.append(Record("t", partition, counts[partition], timestamp, None, b"v", ()))
        counts[partition] += 1
    coming = arrivals(records, speed)
    assert sorted(one.position for _, one in coming) == sorted(one.position for one in records)
    assert [at for at, _ in coming] == sorted(at for at, _ in coming)
    assert all(at >= 0 for at, _ in coming)
    assert all(later - sooner <= DAY / 1000 + 0.001 for (sooner, _), (later, _) in pairwise(coming))
    for partition, count in counts.items():
        assert [one.offset for _, one in coming if one.partition == partition] == list(range(count))


@pytest.mark.promise("P14")
@pytest.mark.parametrize("speed", ["backlog", "topic", 7.0])
def test_no_timestamp_keeps_a_preview_from_its_end(tmp_path: Path, speed: Speed) -> None:
    """Not even one of a clock in nanoseconds, or none at all: the pause before it is shortened to a day.

    Kills: a preview that plays the pause of 292 million years before one record.
    """
    odd = [NO_TIMESTAMP, 0, START, START + 1, START * 1000, 2**63 - 1]
    records = [Record("t", 0, number, at, b"k", value(number), ()) for number, at in enumerate(odd)]
    found = seen(tmp_path, *records, speed=speed)
    assert found.sent[0].records == len(odd)
