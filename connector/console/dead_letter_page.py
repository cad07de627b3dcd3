"""One dead letter in full: why, what to do, the event, what would be sent today, what happened before. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from connector.console.advice import for_cause
from connector.console.frame import ACTIONS, Frame, chip, code, notice, page, table
from connector.console.markup import Child, Html, tag
from connector.console.masking import HIDDEN, VENDORS_WORDS, Mask, cover
from connector.console.table import Row
from connector.console.words import moment, plural, time_tag
from connector.dead_letters.headers import ParsedDeadLetter
from connector.dead_letters.inspection import Inspection
from connector.dead_letters.reader import DeadLetterEntry


@dataclass(frozen=True, slots=True)
class Shown:
    """A letter with everything that is known of it; `letter` is None where Kafka keeps its record no more."""

    row: Row
    dead_letter: DeadLetterEntry | None
    inspection: Inspection | None
    trouble: str | None
    same_event: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Masked:
    """An event as it may be shown, and the texts that are to be hidden elsewhere; `unread`: show nothing raw."""

    event: Any
    hidden: tuple[str, ...]
    unread: bool

    @classmethod
    def of(cls, inspection: Inspection | None, mask: Mask) -> Masked:
        """Hide what the mask names. Where an event cannot be read, nobody can say what its bytes hold."""
        if inspection is None or inspection.schema is None:
            return cls(None, (), mask.events)
        event, hidden = mask.apply(inspection.event)
        return cls(event, hidden, unread=False)

    def text(self, text: str) -> str:
        """Return a text without what is hidden."""
        return cover(text, self.hidden)


def render(frame: Frame, at: Shown, mask: Mask) -> str:
    """Return the page."""
    row, masked = at.row, Masked.of(at.inspection, mask)
    advice = for_cause(row.cause)
    state = chip(row.state, "warn" if row.state == "open" else "good")
    resolved = None
    if row.state != "open":
        when = "" if not row.resolved_at else f" at {moment(row.resolved_at / 1000)} UTC"
        resolved = notice("good", f"This letter was {row.state}{when}.")
    return page(
        frame,
        f"Dead letter {row.id[:8]}",
        "/letters",
        tag("h1", row.cause, " ", row.code, f" · {row.destination}" if row.destination else None, " ", state),
        resolved,
        tag(
            "section",
            tag("h2", "What happened"),
            tag("p", _message(at, mask, masked), class_="said"),
            tag("p", advice.meaning),
            tag("div", tag("h4", "What to do"), tag("p", advice.action), class_="todo"),
            _actions(row),
            class_="card",
        ),
        _facts(frame, at, mask, masked),
        None if at.trouble is None else notice("warn", at.trouble),
        _event(at, masked),
        *_today(at, masked),
        _history(at),
        _record(at, mask, masked),
    )


def _message(at: Shown, mask: Mask, masked: Masked) -> str:
    if mask.names_field(at.row.field) and not masked.hidden:
        return f"{at.row.field} is hidden, and with it what was said of its value"
    if masked.unread and at.row.cause in VENDORS_WORDS:
        return "hidden: console.mask names fields, and without the event nobody can say whether these words hold one"
    return masked.text(at.row.message or "nothing was said")


def _actions(row: Row) -> Child:
    if row.state != "open":
        return None
    links = [
        tag(
            "a",
            name,
            href=f"/confirm?action={action}&id={row.id}",
            class_="button danger" if action == "discard" else "button main" if action == "replay" else "button",
        )
        for action, name in ACTIONS.items()
    ]
    return tag("p", *(part for link in links for part in (link, " ")), class_="tools")


def _facts(frame: Frame, at: Shown, mask: Mask, masked: Masked) -> Html:
    """Return what the letter's headers say."""
    row = at.row
    facts: list[tuple[str, Child]] = [("Failed at", [time_tag(row.failed_at / 1000, frame.now), " UTC"])]
    facts.append(("Destination", row.destination or "none yet"))
    if row.vendor:
        facts.append(("Vendor", row.vendor))
    if row.field:
        facts.append(("Field", code(row.field)))
    if at.dead_letter is not None:
        facts += _more(frame, at.dead_letter.facts)
    facts.append(("Id", code(row.id)))
    facts.append(("Key", _key(at, mask, masked)))
    grid = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts]
    return tag("section", tag("h2", "Facts"), tag("dl", *grid, class_="facts wide"))


def _more(frame: Frame, facts: ParsedDeadLetter) -> list[tuple[str, Child]]:
    """Return what only the record itself tells."""
    origin = f"{facts.origin.topic}, partition {facts.origin.partition}, offset {facts.origin.offset}"
    found: list[tuple[str, Child]] = [("Came from", origin)]
    if facts.http_status is not None:
        found.append(("Vendor's answer", f"HTTP {facts.http_status}"))
    if facts.request_id:
        found.append(("Vendor's request id", code(facts.request_id)))
    if facts.attempts:
        first: Child = None
        if facts.first_attempt is not None:
            first = [", the first ", time_tag(facts.first_attempt / 1000, frame.now), " UTC"]
        found.append(("Sent", [plural(facts.attempts, "time"), first]))
    found.append(("Replays before", str(facts.replays)))
    found.append(("Dedup id", code(facts.dedup_id)))
    return found


def _key(at: Shown, mask: Mask, masked: Masked) -> Child:
    key = at.row.key if at.dead_letter is None else at.dead_letter.record.key
    if key is None:
        return "none"
    return HIDDEN if mask.key else code(masked.text(key.decode(errors="backslashreplace")))


def _event(at: Shown, masked: Masked) -> Html:
    """Return the decoded event."""
    found = at.inspection
    body: list[Child] = []
    if found is not None and found.schema is not None:
        text = json.dumps(masked.event, ensure_ascii=False, indent=2)
        body = [tag("p", "Schema ", code(found.schema)), _source(text, "The decoded event")]
    if found is not None and found.fault is not None:
        body.append(notice("warn", masked.text(found.fault)))
    if not body:
        body.append(tag("p", "It cannot be shown now.", class_="empty"))
    return tag("section", tag("h2", "The event"), *body)


def _today(at: Shown, masked: Masked) -> list[Child]:
    """Return what would be sent to each destination by today's rules."""
    parts: list[Child] = []
    for one in () if at.inspection is None else at.inspection.preparations:
        if one.reason is None:
            said: Child = notice(
                "good", "By today's rules it would be sent. Only the vendor can tell whether it accepts."
            )
        else:
            rule: Child = ["breaks ", code(one.rule), ": "] if one.rule else None
            said = notice("warn", "It would fail again: ", rule, masked.text(one.reason))
        fragment = None
        if one.fragment is not None:
            fragment = _source(masked.text(one.fragment), f"The fragment of a request to {one.destination}")
        parts.append(tag("section", tag("h2", f"Exactly what {one.destination} would be sent today"), said, fragment))
    return parts


def _history(at: Shown) -> Html:
    """Return every letter about the same event, and what became of each."""
    lines: list[tuple[int, Child]] = []
    for one in at.same_event:
        mine = " (this letter)" if one.id == at.row.id else ""
        where = f" for {one.destination}" if one.destination else ""
        link = one.id[:8] if mine else tag("a", one.id[:8], href=f"/letters/{one.id}")
        lines.append((one.failed_at, ["dead-lettered", where, ": ", one.cause, " ", one.code, ", ", link, mine]))
        if one.state != "open":
            lines.append((one.resolved_at or one.failed_at, [one.state, " ", link, mine]))
    rows = [
        tag("li", tag("time", f"{moment(at_ / 1000)} UTC"), " ", what)
        for at_, what in sorted(lines, key=lambda line: line[0])
    ]
    return tag("section", tag("h2", "History of this event"), tag("ol", *rows, class_="history"))


def _record(at: Shown, mask: Mask, masked: Masked) -> Child:
    """Return the record as it came: its headers, and its bytes."""
    if at.dead_letter is None:
        return None
    record = at.dead_letter.record
    rows = [
        tag("tr", tag("td", code(name)), tag("td", _header(name, value, mask, masked)))
        for name, value in at.dead_letter.facts.original
    ]
    headers: Child = tag("p", "The record came without headers.", class_="empty")
    if rows:
        headers = table(["Header", "Value"], rows, label="The record's own headers")
    value = record.value or b""
    raw: Child = tag("p", "Hidden: console.mask names fields of events, and these are all of them.", class_="empty")
    if not mask.events:
        raw = _source(_dump(value), "The record's bytes")
    return tag(
        "section",
        tag("h2", "The record as it came"),
        headers,
        tag("details", tag("summary", f"Value, {plural(len(value), 'byte')}"), raw),
    )


def _header(name: str, value: bytes | None, mask: Mask, masked: Masked) -> Child:
    if value is None:
        return tag("span", "null", class_="dim")
    if mask.header(name):
        return HIDDEN
    return tag("code", masked.text(value.decode(errors="backslashreplace")))


def _source(text: str, label: str) -> Html:
    return tag("pre", tag("code", text), class_="source", tabindex="0", role="region", aria_label=label)


def _dump(value: bytes, limit: int = 4096) -> str:
    """Return bytes as a table of hexadecimal numbers and letters."""
    lines = []
    for at in range(0, min(len(value), limit), 16):
        row = value[at : at + 16]
        dead_letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:06x}  {row.hex(' '):<47}  {dead_letters}")
    if len(value) > limit:
        lines.append(f"… {len(value) - limit:,} bytes more; connector dlq export writes all")
    return "\n".join(lines)
