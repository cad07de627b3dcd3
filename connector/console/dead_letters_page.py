"""Dead letters as a histogram, filters and a table of fifty; and what is about to be done with some of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.console import charts
from connector.console.advice import for_cause
from connector.console.frame import (
    ACTIONS,
    Frame,
    address,
    chip,
    code,
    fields,
    hidden,
    notice,
    page,
    table,
    time_field,
)
from connector.console.index import Histogram, Kind, Query
from connector.console.markup import Child, Html, tag
from connector.console.masking import HIDDEN, VENDORS_WORDS, Mask
from connector.console.requests import RATE
from connector.console.table import Row
from connector.console.words import count, moment, plural, time_tag
from connector.dead_letters.replay import MAX_REPLAYS

PAGE: Final = 50
"""Letters on one page."""
FILTERS: Final = {"cause": "Cause", "destination": "Destination", "code": "Code", "topic": "Topic"}
"""The filters that offer what there is."""
CHOICES: Final = 200
"""Values that one filter offers, at most."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of letters: `first` is its first row's number, `total` how many fit, `choices` what filters offer."""

    query: Query
    rows: Sequence[Row]
    first: int
    total: int
    choices: Mapping[str, Sequence[tuple[str, int]]]
    histogram: Histogram | None
    trouble: str | None = None
    left: int = 0
    read: int = 0


def render(frame: Frame, at: Listing, mask: Mask) -> str:
    """Return the page."""
    return page(
        frame,
        "Dead letters",
        "/letters",
        tag("h1", "Dead letters"),
        _reading(at),
        _filters(at),
        _histogram(at),
        _table(at, mask) if at.rows else tag("p", _none(at), class_="empty"),
    )


def _reading(at: Listing) -> Child:
    if at.trouble:
        return notice("warn", f"Dead letters cannot be read: {at.trouble}")
    if at.left:
        return notice("calm", f"Still reading: {at.read:,} so far. Load the page again for all.")
    return None


def _none(at: Listing) -> str:
    if at.query == Query():
        return "No dead letter is open."
    return "No dead letter fits these filters."


def _filters(at: Listing) -> Html:
    """Return the form of all filters; it works without a script."""
    where = dict(at.query.where)
    parts = [_choice(name, title, at.choices.get(name, ()), where.get(name)) for name, title in FILTERS.items()]
    for name, title, value, kind, more in (
        ("key", "Key", at.query.key or "", "search", "exactly"),
        ("since", "From (UTC)", _minute(at.query.since), "datetime-local", None),
        ("until", "To (UTC)", _minute(at.query.until), "datetime-local", None),
    ):
        field = tag("input", id=f"f-{name}", name=name, type=kind, value=value, placeholder=more, step=_step(kind))
        parts.append(tag("p", tag("label", title, for_=f"f-{name}"), field))
    others = [hidden(name, value) for name, value in at.query.where if name not in FILTERS]
    tick = tag("input", type="checkbox", name="all", value="1", checked=at.query.resolved)
    return tag(
        "form",
        *parts,
        *others,
        tag("label", tick, " also resolved", class_="tick"),
        tag("p", tag("button", "Filter", class_="plain"), " ", tag("a", "Clear", href="/letters"), class_="go"),
        class_="filters",
        method="get",
        action="/letters",
        aria_label="Filters",
    )


def _choice(name: str, title: str, offered: Sequence[tuple[str, int]], chosen: str | None) -> Html:
    options = [tag("option", "any", value="*")]
    values = list(offered[:CHOICES])
    if chosen is not None and chosen not in dict(values):
        values.append((chosen, 0))
    for value, number in values:
        options.append(tag("option", f"{value or 'none'} ({number:,})", value=value, selected=value == chosen))
    return tag("p", tag("label", title, for_=f"f-{name}"), tag("select", *options, id=f"f-{name}", name=name))


def _step(kind: str) -> str | None:
    return "1" if kind == "datetime-local" else None


def _minute(millis: int | None) -> str:
    return "" if millis is None else time_field(millis // 1000 * 1000)


def _histogram(at: Listing) -> Child:
    data = at.histogram
    if data is None or not data.counts:
        return None
    causes = sorted(data.counts, key=lambda cause: (-sum(data.counts[cause]), cause))
    number = len(data.counts[causes[0]])

    def href(since: int, until: int) -> str:
        narrowed = Query(at.query.where, at.query.key, since, until, at.query.resolved)
        return address("/letters", narrowed)

    plot = charts.histogram(data, causes, data.start + data.width * number, href=href if number > 1 else None)
    legend = charts.legend(causes, [count(sum(data.counts[cause])) for cause in causes], charts.colour_of)
    return tag("figure", plot, legend, class_="panel")


def _table(at: Listing, mask: Mask) -> Html:
    """Return the rows, each with a box to tick, and what can be done with the ticked or with all that fit."""
    head: list[Child] = [
        tag("input", type="checkbox", data_all=True, aria_label="Tick all on this page"),
        *("Failed at (UTC)", "Cause and code", "Destination", "Key", "What happened"),
    ]
    rows = [_row(row, mask) for row in at.rows]
    ticked = [
        tag("button", name, name="action", value=action, class_="danger" if action == "discard" else None)
        for action, name in ACTIONS.items()
    ]
    every = [
        tag("a", name, href=address("/confirm", at.query, action=action), class_="button")
        for action, name in ACTIONS.items()
    ]
    bar = tag(
        "div",
        tag("span", "The ticked ones: ", *ticked, class_="group"),
        tag("span", f"All {at.total:,} that fit: ", *every, class_="group"),
        class_="tools",
    )
    form = tag(
        "form",
        hidden("ticked", "1"),
        bar,
        table(head, rows, label="Dead letters", class_="letters"),
        method="get",
        action="/confirm",
    )
    return tag("section", form, _pager(at))


def _row(row: Row, mask: Mask) -> Html:
    tick = tag("input", type="checkbox", name="id", value=row.id, aria_label=f"Tick {row.id[:8]}")
    state = None if row.state == "open" else chip(row.state, "calm")
    again = tag("span", f"replayed {row.replays}×", class_="sub") if row.replays else None
    return tag(
        "tr",
        tag("td", tick),
        tag("td", tag("a", moment(row.failed_at / 1000), href=f"/letters/{row.id}"), again, class_="nowrap"),
        tag("td", chip(row.cause, "cause"), " ", code(row.code) if row.code else None, " ", state),
        tag("td", row.destination or tag("span", row.topic, class_="dim")),
        tag("td", key_text(row.key, mask), class_="key"),
        tag("td", message_text(row, mask), class_="message"),
        class_=None if row.state == "open" else "resolved",
    )


def key_text(key: bytes | None, mask: Mask) -> Child:
    """Return a record's key as it may be shown."""
    if key is None:
        return tag("span", "none", class_="dim")
    return HIDDEN if mask.key else key.decode(errors="backslashreplace")


def message_text(row: Row, mask: Mask) -> str:
    """Return what happened, unless it may repeat the value of a hidden field: here no event is decoded to compare."""
    if mask.names_field(row.field):
        return f"{row.field} is hidden, and with it what was said of its value"
    if mask.events and row.cause in VENDORS_WORDS:
        return "the vendor's words are on the letter's own page"
    return row.message


def _pager(at: Listing) -> Html:
    last = at.first + len(at.rows)
    parts: list[Child] = [tag("span", f"{at.first + 1:,} to {last:,} of {at.total:,}")]
    number = at.first // PAGE
    if number:
        parts.append(tag("a", "Newer", href=address("/letters", at.query, page=number), rel="prev"))
    if last < at.total:
        parts.append(tag("a", "Older", href=address("/letters", at.query, page=number + 2), rel="next"))
    return tag("nav", *parts, class_="pager", aria_label="Pages of the table")


def confirm(frame: Frame, action: str, query: Query, kinds: Sequence[Kind], fault: str | None = None) -> str:
    """Return the question that stands before every action: what, with how many, of which kinds."""
    total = sum(kind.dead_letters for kind in kinds)
    name = ACTIONS[action]
    if not total:
        nothing = tag("p", "No open letter fits: somebody may have been quicker. ", tag("a", "Back", href="/letters"))
        return page(frame, name, "/letters", tag("h1", f"{name}: nothing to do"), nothing)
    rows = [
        tag(
            "tr",
            tag("td", count(kind.dead_letters), class_="number"),
            tag("td", chip(kind.cause, "cause"), " ", code(kind.code) if kind.code else None),
            tag("td", kind.destination or "none yet"),
            tag("td", time_tag(kind.first / 1000, frame.now, relative=True)),
            tag("td", for_cause(kind.cause).meaning, class_="advice"),
        )
        for kind in kinds[:20]
    ]
    carried = [hidden(field, value) for field, value in fields(query)]
    form = tag(
        "form",
        hidden("csrf", frame.csrf),
        hidden("action", action),
        hidden("expected", str(total)),
        *carried,
        *(_replay_options() if action in ("replay", "recheck") else ()),
        tag(
            "p",
            tag("button", f"{name} {plural(total, 'dead_letter')}", class_="danger" if action == "discard" else "main"),
            " ",
            tag("a", "Back", href=address("/letters", query)),
        ),
        method="post",
        action="/jobs",
        class_="confirm",
    )
    return page(
        frame,
        name,
        "/letters",
        tag("h1", f"{name} {plural(total, 'dead dead_letter')}?"),
        None if fault is None else notice("warn", fault),
        tag("p", _MEANS[action]),
        table(["Letters", "Cause and code", "Destination", "First", "What it means"], rows, label="What is meant"),
        form,
    )


_MEANS: Final = {
    "recheck": "Each is decoded, routed and checked by today's rules. Nothing is sent and nothing changes.",
    "replay": "Each is checked by today's rules first; what would fail again is kept back, with the reason. The others "
    "go to the group's replay topic, for the destination that failed, with the same dedup id, and are marked as "
    "replayed in the same Kafka transaction.",
    "discard": "Each is marked as discarded and hidden from now on. Nothing is deleted: “also resolved” shows them as "
    "long as Kafka keeps the topic.",
    "export": "Their keys, values and headers are written as JSON Lines, with what console.mask names left out.",
}


def _replay_options() -> list[Child]:
    """Return the fields of a replay that are seldom needed, closed at first."""
    edits = tag("textarea", id="f-edits", name="edits", rows="3", placeholder="properties.city=Shanghai", cols="40")
    force = tag("input", type="checkbox", name="force", value="1")
    return [
        tag(
            "details",
            tag("summary", "Options"),
            tag(
                "p",
                tag("label", "Change the event first, one field=value a line", for_="f-edits"),
                edits,
                class_="field",
            ),
            tag(
                "p",
                tag("label", "Letters a second, at most (0: as fast as Kafka takes them)", for_="f-rate"),
                tag("input", id="f-rate", name="rate", type="number", min="0", step="any", value=f"{RATE:g}"),
                class_="field",
            ),
            tag(
                "p",
                tag("label", "Keep back what was replayed so often already", for_="f-max"),
                tag("input", id="f-max", name="max_replays", type="number", min="1", value=str(MAX_REPLAYS)),
                class_="field",
            ),
            tag("label", force, " also what would fail again by today's rules", class_="tick"),
            open=False,
        )
    ]
