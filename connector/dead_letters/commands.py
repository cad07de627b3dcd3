"""What `connector dlq` does: dead letters listed, counted, shown and exported, for people and for programs."""

from __future__ import annotations

import base64
import heapq
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final

from rich.console import Console
from rich.progress import Progress

from connector.codec.container_file import write_dead_letters
from connector.config.loader import Settings
from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.reader import DeadLetterEntry, Resolution, Survey, parse_resolution, read_dead_letters
from connector.errors import ConnectorError
from connector.kafka.topic_reader import TopicReader
from connector.records import NO_TIMESTAMP, Record

Records = Callable[[str], Iterator[Record]]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAMED: Final = 5
_SHORTEST: Final = 8


class DeadLetterNotFound(ConnectorError):
    """No dead letter has the id, or several begin with it; the message says which."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many letters of one cause, code and destination there are, and when the first and the last of them failed."""

    cause: str
    code: str | None
    destination: str | None
    dead_letters: int
    first: int
    last: int

    def as_json(self) -> dict[str, Any]:
        """Return what `stats --json` prints."""
        return {
            "cause": self.cause,
            "code": self.code,
            "destination": self.destination,
            "letters": self.dead_letters,
            "first_failed_at": moment(self.first),
            "last_failed_at": moment(self.last),
        }


@dataclass(frozen=True, slots=True)
class History:
    """One letter, every letter about the same event (itself included, the oldest first), and their resolutions."""

    dead_letter: DeadLetterEntry
    dead_letters: tuple[DeadLetterEntry, ...]
    resolutions: tuple[Resolution, ...]
    cluster_id: str


class Archive:
    """The dead letters of one configuration's group. `records` reads the topic anew, each time it is called."""

    def __init__(self, records: Records, cluster_id: str) -> None:
        self._records = records
        self._cluster_id = cluster_id
        self._survey: Survey | None = None

    @property
    def survey(self) -> Survey:
        """What the topic holds; read once, when it is first asked for."""
        if self._survey is None:
            self._survey = Survey.of(self._records("looking for what is resolved"))
        return self._survey

    def dead_letters(self, wanted: Filter, *, resolved: bool = False) -> Iterator[DeadLetterEntry]:
        """Yield the letters that are wanted, as they stand in the topic."""
        survey = self.survey
        return read_dead_letters(self._records("reading dead letters"), survey, wanted, resolved=resolved)

    def newest(self, wanted: Filter, limit: int, *, resolved: bool = False) -> tuple[list[DeadLetterEntry], int]:
        """Return the `limit` letters that failed last, the newest first, and how many are wanted in all."""
        heap: list[tuple[int, int, DeadLetterEntry]] = []
        count = 0
        for dead_letter in self.dead_letters(wanted, resolved=resolved):
            count += 1
            entry = (dead_letter.facts.failed_at, -count, dead_letter)
            if len(heap) < limit:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)
        return [dead_letter for _, _, dead_letter in sorted(heap, reverse=True)], count

    def stats(self, wanted: Filter, *, resolved: bool = False) -> list[Count]:
        """Return how many letters of each cause, code and destination there are, the most first."""
        counts: dict[tuple[str, str | None, str | None], list[int]] = {}
        for dead_letter in self.dead_letters(wanted, resolved=resolved):
            facts = dead_letter.facts
            at = facts.failed_at
            one = counts.setdefault((facts.cause, facts.code, facts.destination), [0, at, at])
            one[0], one[1], one[2] = one[0] + 1, min(one[1], at), max(one[2], at)
        found = [Count(*kind, *numbers) for kind, numbers in counts.items()]
        return sorted(found, key=lambda one: (-one.dead_letters, one.cause, one.code or "", one.destination or ""))

    def find(self, identity: str) -> History:
        """Return the letter with this id, or whose id alone begins with it (8 characters or more), and its history.

        Raises `LetterNotFound`.
        """
        found: dict[str, DeadLetterEntry] = {}
        for dead_letter in self.dead_letters(Filter(), resolved=True):
            if dead_letter.facts.id == identity:
                found = {identity: dead_letter}
                break
            if len(identity) >= _SHORTEST and len(found) < _NAMED and dead_letter.facts.id.startswith(identity):
                found[dead_letter.facts.id] = dead_letter
        if len(found) != 1:
            raise DeadLetterNotFound(
                f"several dead letters have ids that begin so: {', '.join(found)}"
                if found
                else f"no dead letter has the id {identity}; `connector dlq list --all` shows all ids"
            )
        (dead_letter,) = found.values()
        same = Filter({"dedup-id": frozenset({dead_letter.facts.dedup_id})})
        about = sorted(self.dead_letters(same, resolved=True), key=lambda one: one.facts.failed_at)
        ids = {one.facts.id for one in about}
        said = (parse_resolution(record) for record in self._records("reading its history"))
        resolutions = {one: None for one in said if one is not None and one.dead_letter in ids}
        return History(dead_letter, tuple(about), tuple(resolutions), self._cluster_id)


@contextmanager
def open_archive(settings: Settings) -> Iterator[Archive]:
    """Open the dead-letter topic; on a terminal standard error shows how far a reading is. Raises `StartupError`."""
    quiet = not sys.stderr.isatty()
    with (
        TopicReader(settings.kafka, settings.dead_letter_topic) as reader,
        Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress,
    ):

        def records(what: str) -> Iterator[Record]:
            task = progress.add_task(what, total=reader.total)
            yield from reader.records(lambda done, total: progress.update(task, completed=done, total=total))
            progress.remove_task(task)

        yield Archive(records, reader.cluster_id)


def facts_json(dead_letter: DeadLetterEntry) -> dict[str, Any]:
    """Return what `list --json` prints of a letter: what its headers say, without key and value."""
    facts = dead_letter.facts
    return {
        "id": facts.id,
        "state": dead_letter.state,
        "cause": facts.cause,
        "code": facts.code,
        "field": facts.field,
        "message": facts.message,
        "vendor": facts.vendor,
        "destination": facts.destination,
        "http_status": facts.http_status,
        "request_id": facts.request_id,
        "attempts": facts.attempts,
        "first_attempt": None if facts.first_attempt is None else moment(facts.first_attempt),
        "failed_at": moment(facts.failed_at),
        "origin": {"topic": facts.origin.topic, "partition": facts.origin.partition, "offset": facts.origin.offset},
        "origin_timestamp": None if facts.origin_timestamp == NO_TIMESTAMP else moment(facts.origin_timestamp),
        "dedup_id": facts.dedup_id,
        "group": facts.group,
        "replays": facts.replays,
        "edited": list(facts.edited),
    }


def record_json(dead_letter: DeadLetterEntry) -> dict[str, Any]:
    """Return what `export` writes as one JSON line: the headers' facts, and the record as it came, in base64."""
    return {
        **facts_json(dead_letter),
        "key": _base64(dead_letter.record.key),
        "value": _base64(dead_letter.record.value),
        "headers": [{"name": name, "value": _base64(value)} for name, value in dead_letter.facts.original],
    }


def export(dead_letters: Iterable[DeadLetterEntry], out: IO[bytes], form: str) -> int:
    """Write letters as `jsonl` or `avro`, one by one; return how many."""
    count = 0

    def counted() -> Iterator[DeadLetterEntry]:
        nonlocal count
        for dead_letter in dead_letters:
            count += 1
            yield dead_letter

    if form == "avro":
        write_dead_letters(out, (_avro(dead_letter) for dead_letter in counted()))
    else:
        for dead_letter in counted():
            out.write(json.dumps(record_json(dead_letter), ensure_ascii=False).encode(errors="replace") + b"\n")
    return count


def moment(millis: int) -> str:
    """Return epoch milliseconds as ISO 8601 in UTC; as a number where no calendar reaches."""
    try:
        text = (_EPOCH + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds")
    except OverflowError:
        return str(millis)
    return text.replace("+00:00", "Z")


def _avro(dead_letter: DeadLetterEntry) -> Mapping[str, Any]:
    facts: ParsedDeadLetter = dead_letter.facts
    return {
        **{name: getattr(facts, name) for name in ("id", "cause", "message", "dedup_id", "group", "failed_at")},
        **{name: getattr(facts, name) for name in ("replays", "attempts", "code", "field", "vendor", "destination")},
        **{name: getattr(facts, name) for name in ("request_id", "first_attempt", "http_status")},
        **{f"origin_{name}": value for name, value in facts.origin._asdict().items()},
        "origin_timestamp": None if facts.origin_timestamp == NO_TIMESTAMP else facts.origin_timestamp,
        "resolved": None if dead_letter.state == "open" else dead_letter.state,
        "edited": list(facts.edited),
        "key": dead_letter.record.key,
        "value": dead_letter.record.value,
        "headers": [{"name": name, "value": value} for name, value in facts.original],
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
