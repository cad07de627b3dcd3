"""The vendor interface: its protocol and the values it takes and returns. Pure: no clock, no I/O, no asyncio.

A vendor turns an event into an item, items into a request, and an answer into a verdict. Delivery does everything else:
batching, pacing, retrying, isolating, dead letters, offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

from connector.config.loader import DestinationSettings
from connector.records import Answer, Item, QuestionShape, uuid5_text

DESTINATION: Final = "destination"


class VendorEvent(Struct, frozen=True, gc=False):
    """An event in the vendor's own fields, from its contract schema or from a route's mapping.

    `timestamp` is the record's, in epoch milliseconds (-1: none). `identity` is the event's own id, or else the cluster
    id and the record's position; it never changes for a record. `entity` is true if the route says that the event is
    about a non-human entity. A replayed record keeps its dedup id in `first_dedup_id`.
    """

    fields: Mapping[str, Any]
    identity: str
    timestamp: int = -1
    entity: bool = False
    first_dedup_id: str | None = None

    @property
    def dedup_id(self) -> str:
        """A UUIDv5, the same for every attempt, restart and replay of this event."""
        # Computed on demand: most events have an id of their own, or go to a vendor without dedup ids.
        return uuid5_text(self.identity) if self.first_dedup_id is None else self.first_dedup_id


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one request: `records` by weight, `bytes` of the whole body.

    The body's size is `overhead` (prefix and suffix) + the items' bytes + `separator` between each two of them.
    """

    records: int
    bytes: int
    overhead: int
    separator: int


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `url` is percent-encoded already and is sent unchanged."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One complete HTTP answer; header names are lower-case. `body` is cut at the transport's cap."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """All items were accepted except those in `again` (indexes): their answer was not final, so they are asked again.

    `answers` holds one answer for each item that is not in `again`, in the items' order, or nothing at all. The items
    have their outcome once Kafka has acknowledged the answers, which are taken out of a list to be written. `rate` is
    the vendor's rate headers.
    """

    answers: Sequence[Answer] = ()
    again: frozenset[int] = frozenset()
    request_id: str | None = None
    rate: RateHint | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The batch was refused because of its content. `suspects` are the items (indexes) that the answer's message names.

    `documented`: the vendor documents `code` as a record's fault; any other refusal is believed only on evidence.
    `answers` are a question's results, produced once the question was refused alone. `errors` are the single errors if
    the answer lists several, so that `codes:` applies to each of them. `listed_by` is the code of an answer that only
    lists others: an action that `codes:` has for it applies to those listed codes for which it has none.
    """

    code: str
    reason: str
    suspects: frozenset[int] = frozenset()
    documented: bool = True
    request_id: str | None = None
    answers: Sequence[Answer] = ()
    errors: tuple[Refused, ...] = ()
    listed_by: str | None = None


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request was larger than the vendor accepts; `limit` is the exceeded limit: `bytes` (413) or `records`.

    `documented`: the vendor documents this answer for a single record that is too large. Otherwise it is believed only
    with evidence, because a gateway may answer 413 for any reason.
    """

    code: str
    reason: str
    limit: Literal["bytes", "records"] = "bytes"
    request_id: str | None = None
    documented: bool = False


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many requests; `after` is the wait in seconds that the vendor asks for, if any."""

    reason: str
    after: float | None = None
    code: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The answer says nothing about the records: a 5xx, or a body that is not what the vendor documents.

    `unknown_outcome`: the vendor may have accepted the batch (502, 504).
    """

    reason: str
    after: float | None = None
    code: str | None = None
    unknown_outcome: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A credential, an address, a permission or the form of the request is wrong. No record is at fault.

    `scope` is `DESTINATION`, the refused group, or its endpoint (`endpoint_of`). `of_request`: the vendor could not
    read the request itself (bad JSON, an empty body), so not even `codes:` makes it a record's fault.
    """

    code: str
    reason: str
    scope: Hashable = DESTINATION
    request_id: str | None = None
    of_request: bool = False


Verdict = Accepted | Refused | TooLarge | Throttled | Retry | Misconfigured

VERDICTS: Final[Mapping[type, str]] = {
    Accepted: "accepted",
    Refused: "refused",
    TooLarge: "too_large",
    Throttled: "throttled",
    Retry: "retry",
    Misconfigured: "misconfigured",
}
"""The verdicts' names in metrics and logs."""


@dataclass(frozen=True, slots=True)
class RateHint:
    """A vendor's rate headers: `remaining` requests until `reset` seconds from now."""

    remaining: int
    reset: float


class Vendor(Protocol):
    """One account at one vendor's API. Built from its settings; rebuilt when a secret is read again."""

    def group(self, event: VendorEvent) -> Hashable:
        """Return the event's group: only events of one group share a request. Raises only `Refusal`."""
        ...

    def limits(self, group: Hashable) -> Limits:
        """Return the limits of one request of the group, with the destination's own settings applied."""
        ...

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check every documented rule and return the event as bytes. `now` is epoch milliseconds.

        Raises `Refusal` with cause `invalid` and a rule's id as code.
        """
        ...

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the request for one batch, signed for this attempt. Its body's size is exactly that of `limits`."""
        ...

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means. `asked` counts how often these items were already in `Accepted.again`."""
        ...


class ShapeField(NamedTuple):
    """One field of a shape, with the same name in the contract schema and in the vendor's JSON.

    `kind`: a whole number of 64 bits, a string, a map (`json` with values of the `as_json` kind, `texts` with strings),
    or a list, which must be empty in a plain event. Null values of a map are left out. `least` and `most` bound the
    number, or the string's length in characters; with `most`, each name and value of `texts` must have 1 to `most`
    characters. `missing` says what null or an empty map means: the event is not plain, the field is left out, or
    something else is sent: the dedup id, `default`, or the record's timestamp in seconds if it is within the bounds. An
    empty string means the same, except that an event with an empty string in a field to leave out is not plain.
    `choices` are the only strings that a plain event may have. `timed` marks the time that `past` and `future` apply
    to.
    """

    name: str
    kind: Literal["long", "text", "json", "texts", "empty"]
    missing: Literal["needed", "left_out", "dedup_id", "default", "record_seconds"] = "needed"
    default: str = ""
    choices: tuple[str, ...] = ()
    timed: bool = False
    least: int | None = None
    most: int | None = None


class ShapeGroup(NamedTuple):
    """A group of plain events: they have at least one field of each set of `one_of`, and none of `without`."""

    name: str
    one_of: tuple[frozenset[str], ...] = ()
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shape:
    """How plain events of the contract schema become items; the fields are in the order of sending.

    The timed field must be at most `past` ms old and at most `future` ms ahead. `expires`: an item expires when it
    becomes older. `group` is the field with the event's group, one of `groups`; it is not sent. Without it, the group
    of all events is None. Everything that a shape does not cover is left to `encode`, which must give the same bytes
    for plain events.
    """

    fields: tuple[ShapeField, ...]
    past: int = 0
    future: int = 0
    expires: bool = False
    group: str = ""
    groups: tuple[ShapeGroup, ...] = ()

    def __hash__(self) -> int:
        """Hash only a part, because it is looked up for every run of records."""
        return hash((self.past, self.future, self.group))


class ShapeSource(NamedTuple):
    """Where a mapping takes a field from: a path of names. `type` is the `FieldKind`'s, `unit` that of a number."""

    field: str
    path: tuple[str, ...]
    type: str
    unit: Literal["ms", "s"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ShapeMapping:
    """A route's mapping with only plain paths and constants as sources, and the route's conditions.

    `identity` is the path of the event's own id. `conditions` are paths with the strings that the route accepts there.
    """

    sources: tuple[ShapeSource, ...]
    constants: tuple[tuple[str, Any], ...] = ()
    identity: tuple[str, ...] | None = None
    conditions: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = ()


@runtime_checkable
class Shaped(Protocol):
    """Optional: a vendor whose plain events compiled code can write directly from the record.

    `limits` are the same for all groups, and `encode` returns the same bytes for each plain event.
    """

    shape: Shape | QuestionShape
    clock_ahead: int
    """How many milliseconds the vendor's clock is ahead of ours, as set by `Timed.set_clock`."""


@runtime_checkable
class Probed(Protocol):
    """A vendor whose credential can be checked without sending an event; `check --online` uses it.

    Optional: a vendor has this method only if its API has such a request. `read` reports a refused credential; any
    other 2xx counts as accepted.
    """

    def probe(self) -> Request:
        """Return the request that checks the credential."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A query vendor: each question gets a result, even if it ends without an answer (too large, given up).

    Optional. If a refusal has `answers` of its own, those are written instead.
    """

    def ended(self, item: Item, code: str | None, message: str) -> Answer | None:
        """Return the result of a question that became a dead letter; None if the item is not known."""
        ...


@runtime_checkable
class Timed(Protocol):
    """Optional: a vendor with rules about the present time. It is given the vendor's clock if ours is wrong."""

    def set_clock(self, ahead: int) -> None:
        """Use the vendor's clock, which is `ahead` milliseconds ahead of ours (negative: behind; 0: ours is right)."""
        ...


@runtime_checkable
class Dropping(Protocol):
    """Optional: a vendor that leaves out parameters that the API does not accept. They are counted by name."""

    def take_dropped(self) -> Mapping[str, int]:
        """Return how many parameters were dropped since the last call, by name."""
        ...


def endpoint_of(group: Hashable) -> Hashable:
    """Return the endpoint of a group: a tuple's first element, else the group itself. A hold's scope may be one."""
    # A JPush request is about one push and day, so a group is ("status", 1613113584, "2026-11-20"). Its endpoint is
    # "status", and one hold covers all pushes.
    return group[0] if isinstance(group, tuple) and group else group


@dataclass(frozen=True, slots=True)
class VendorKind:
    """A vendor in the registry; an entry point of the group `connector.vendors` names one.

    `settings` is its settings model; `build` makes a vendor from them. `schema` is the full name of its contract
    schema. `fields` are the fields that a route may map, with the type of each. `rules` are the ids of the local
    checks, each of which `rules:` can switch off; `rule_texts` says what each allows. `codes` explains the vendor's
    documented codes to people; a key is a code, or a code, a space and words of the vendor's message.

    `as_json` are map fields of the schema that `encode` also accepts as an `orjson.Fragment`: JSON text with at least
    one entry, whose values are strings, booleans, finite numbers or lists of strings. A field comes in this form if no
    route reads it, which saves decoding and encoding each of its values.
    """

    name: str
    settings: type[DestinationSettings]
    build: Callable[[Any], Vendor]
    schema: str
    fields: Mapping[str, FieldKind]
    rules: frozenset[str] = field(default_factory=frozenset)
    codes: Mapping[str, CodeMeaning] = field(default_factory=dict)
    as_json: frozenset[str] = frozenset()
    rule_texts: Mapping[str, str] = field(default_factory=dict)


class CodeMeaning(NamedTuple):
    """What a vendor's code means and what to do about it, each a sentence for a person, from the vendor's document."""

    meaning: str
    solution: str


@dataclass(frozen=True, slots=True)
class FieldKind:
    """The type of one field of a mapping.

    `type`: `string` (numbers and booleans become strings), `long`, `boolean`, `millis` and `seconds` (points in time as
    integers), `map` (values in JSON's types: nested records stay, times become epoch milliseconds), `strings` (a list
    of strings), `string_map` (values as strings, objects and lists as JSON text), `records` (a list of records),
    `string_records` (a list of maps of strings) or `any`. `values` are the only strings allowed; empty: any. `meaning`
    describes the field if the contract schema has no such field.
    """

    type: Literal[
        "string",
        "long",
        "boolean",
        "millis",
        "seconds",
        "map",
        "strings",
        "string_map",
        "records",
        "string_records",
        "any",
    ]
    required: bool = False
    values: tuple[str, ...] = ()
    meaning: str = ""
