"""The list of dead letters with its filters, and the confirmation of an action on some of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from connector.console import charts
from connector.console.advice import for_cause
from connector.console.columns import DeadLetterRow
from connector.console.formatting import count
from connector.console.index import PLACE, KindCount, Query, TimeBuckets
from connector.console.masking import Mask
from connector.console.queries import ANY, LIST, MOST_CONDITIONS, RATE, address, query_fields, time_field
from connector.console.rendering import Notice
from connector.console.search import Search
from connector.dead_letters.export import FORMATS
from connector.dead_letters.replay import MAX_REPLAYS
from connector.errors import counted
from connector.vendors import explained

PAGE_SIZE: Final = 50
"""Dead letters on one page."""
FILTERS: Final = {"cause": "Cause", "destination": "Destination", "code": "Code", "topic": "Topic"}
"""The filters that offer the existing values."""
CHOICES: Final = 200
"""Values that one filter offers, at most."""
ACTIONS: Final = {"recheck": "Re-check", "replay": "Replay", "discard": "Discard", "export": "Export"}
"""The actions on dead letters, and the labels of their buttons."""

_MEANING: Final = {
    "recheck": "Each one is decoded, routed and checked by today's rules. Nothing is sent and nothing changes.",
    "replay": "Each one is checked by today's rules first. Those that would fail again are kept back, with the reason. "
    "The others go to the group's replay topic, for the destination that failed, with the same dedup id. The same "
    "Kafka transaction marks them as replayed.",
    "discard": "Each one is marked as discarded and no longer shown. Nothing is deleted: “also resolved” shows them "
    "for as long as Kafka keeps the topic.",
    "export": "Keys, values and headers are written to a file, without what console.mask names.",
}
_MOST_KINDS: Final = 20


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the rows found: `first` is the number of its first row, `total` how many match in all."""

    query: Query
    rows: Sequence[DeadLetterRow]
    first: int
    total: int
    choices: Mapping[str, Sequence[tuple[str, int]]]
    buckets: TimeBuckets | None
    trouble: str | None = None
    left: int = 0
    read: int = 0
    foreign: int = 0
    search: Search | None = None


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """A filter with the values it offers: value, label, whether it is chosen."""

    name: str
    title: str
    options: Sequence[tuple[str, str, bool]]


class Field(NamedTuple):
    """A filter to type into: its name in the URL, title, value, input type, and placeholder."""

    name: str
    title: str
    value: str
    type: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ListRow:
    """One dead letter in the list. `key` is None for a record without a key."""

    id: str
    failed_at: float
    cause: str
    code: str
    destination: str
    topic: str
    key: str | None
    message: str
    replays: int
    state: str


@dataclass(frozen=True, slots=True)
class ListView:
    """Everything that the list shows."""

    notice: Notice | None
    choices: Sequence[FilterOptions]
    fields: Sequence[Field]
    other_filters: Sequence[tuple[str, str]]
    resolved: bool
    chart: charts.Chart | None
    legend: Sequence[charts.LegendEntry]
    rows: Sequence[ListRow]
    total: int
    actions: Sequence[tuple[str, str, str]]
    """Action, label, and address for all that match."""
    empty: str
    range: str
    newer: str | None
    older: str | None


def list_view(listing: Listing, mask: Mask) -> ListView:
    """Return the view of one page."""
    query, where = listing.query, dict(listing.query.where)
    chart, legend = _chart(listing)
    last, number = listing.first + len(listing.rows), listing.first // PAGE_SIZE
    return ListView(
        notice=_notice(listing),
        choices=[
            _choice(name, title, listing.choices.get(name, ()), where.get(name)) for name, title in FILTERS.items()
        ],
        fields=_fields(query),
        other_filters=[(name, value) for name, value in query.where if name not in (*FILTERS, *PLACE)],
        resolved=query.resolved,
        chart=chart,
        legend=legend,
        rows=[_row(row, mask) for row in listing.rows],
        total=listing.total,
        actions=[(action, name, address("/confirm", query, action=action)) for action, name in ACTIONS.items()],
        empty="No unresolved dead letters." if query == Query() else "No matching dead letters.",
        range=f"{listing.first + 1:,} to {last:,} of {listing.total:,}",
        newer=address(LIST, query, page=number) if number else None,
        older=address(LIST, query, page=number + 2) if last < listing.total else None,
    )


def _notice(listing: Listing) -> Notice | None:
    if listing.trouble:
        return Notice("warn", f"Dead letters cannot be read: {listing.trouble}")
    if listing.left:
        return Notice("calm", f"Still reading: {listing.read:,} dead letters so far, {listing.left:,} offsets to go.")
    search = listing.search
    if search is not None and search.trouble:
        return Notice("warn", f"The search broke off: {search.trouble}. Reload the page to search again.")
    if search is not None:
        return Notice("calm", f"Searching: {listing.total:,} found so far; {search.read:,} of {search.total:,} read.")
    if listing.foreign:
        is_or_are = "is not a dead letter" if listing.foreign == 1 else "are not dead letters"
        return Notice("calm", f"{counted(listing.foreign, 'record')} of the topic {is_or_are} and not shown.")
    return None


def _fields(query: Query) -> list[Field]:
    where = dict(query.where)
    conditions = [
        Field("where", "Header or event field", text, "search", "header.trace=… or event.user.id=…")
        for text in (*query.conditions, "")[:MOST_CONDITIONS]
    ]
    return [
        Field("key", "Key", query.key or "", "search", "exact match"),
        *conditions,
        Field("contains", "Text in key or value", query.contains or "", "search", "exact bytes"),
        Field("partition", "Origin partition", where.get("partition", ""), "number"),
        Field("offset", "Origin offset", where.get("offset", ""), "number"),
        Field("since", "From (UTC)", _second(query.since), "datetime-local"),
        Field("until", "To (UTC)", _second(query.until), "datetime-local"),
    ]


def _choice(name: str, title: str, offered: Sequence[tuple[str, int]], chosen: str | None) -> FilterOptions:
    values = list(offered[:CHOICES])
    if chosen is not None and chosen not in dict(values):
        values.append((chosen, 0))
    options = [(value, f"{value or 'none'} ({number:,})", value == chosen) for value, number in values]
    return FilterOptions(name, title, [(ANY, "any", False), *options])


def _second(millis: int | None) -> str:
    return "" if millis is None else time_field(millis // 1000 * 1000)


def _chart(listing: Listing) -> tuple[charts.Chart | None, list[charts.LegendEntry]]:
    data = listing.buckets
    if data is None or not data.counts:
        return None, []
    causes = sorted(data.counts, key=lambda cause: (-sum(data.counts[cause]), cause))
    number = len(data.counts[causes[0]])

    def href(since: int, until: int) -> str:
        return address(LIST, replace(listing.query, since=since, until=until, ids=frozenset()))

    chart = charts.bar_chart(data, causes, data.start + data.width * number, href=href if number > 1 else None)
    return chart, charts.legend(causes, [count(sum(data.counts[cause])) for cause in causes], causes=True)


def _row(row: DeadLetterRow, mask: Mask) -> ListRow:
    return ListRow(
        id=row.id,
        failed_at=row.failed_at / 1000,
        cause=row.cause,
        code=row.code,
        destination=row.destination,
        topic=row.topic,
        key=mask.listed_key(row.key),
        message=mask.listed_message(row.cause, row.field, explained(row.vendor, row.code, row.message)),
        replays=row.replays,
        state=row.state,
    )


@dataclass(frozen=True, slots=True)
class ConfirmationRow:
    """Dead letters of one kind in a confirmation."""

    number: int
    cause: str
    code: str
    destination: str
    first: float
    meaning: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The confirmation of an action: which action, on how many dead letters, of which kinds."""

    action: str
    name: str
    total: int
    fault: str | None
    meaning: str
    kinds: Sequence[ConfirmationRow]
    fields: Sequence[tuple[str, str]]
    back: str
    options: bool
    rate: str
    max_replays: int
    formats: Sequence[tuple[str, str]] = ()

    @property
    def button(self) -> str:
        """The label of the button that starts it."""
        return f"{self.name} {counted(self.total, 'dead letter')}"


def question(action: str, query: Query, kinds: Sequence[KindCount], fault: str | None = None) -> Confirmation:
    """Return the confirmation of an action on the dead letters that a query finds."""
    return Confirmation(
        action=action,
        name=ACTIONS[action],
        total=sum(kind.dead_letters for kind in kinds),
        fault=fault,
        meaning=_MEANING[action],
        kinds=[
            ConfirmationRow(
                kind.dead_letters,
                kind.cause,
                kind.code,
                kind.destination,
                kind.first / 1000,
                for_cause(kind.cause).meaning,
            )
            for kind in kinds[:_MOST_KINDS]
        ],
        fields=query_fields(query),
        back=address(LIST, query),
        options=action in ("replay", "recheck"),
        rate=f"{RATE:g}",
        max_replays=MAX_REPLAYS,
        formats=[(form, name) for form, (name, _) in FORMATS.items()] if action == "export" else (),
    )
