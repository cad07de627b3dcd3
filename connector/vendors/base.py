"""What a vendor is: the protocol, and the values it speaks in. Pure: no clock, no I/O, no asyncio.

A vendor turns an event into an item, items into a request, and an answer into a verdict. Everything else
(batching, pacing, retrying, isolating, dead letters, offsets) is done for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

from msgspec import Struct

from connector.config.loader import DestinationSettings
from connector.records import Answer, Item, uuid5_text

DESTINATION: Final = "destination"


class VendorEvent(Struct, frozen=True, gc=False):
    """An event in the vendor's own fields: shaped as its contract schema, or as a route's mapping made it.

    `timestamp` is the record's, in epoch milliseconds (-1: none). `identity` is the event's own id where it has one,
    else the cluster id and the record's position; it never changes for a record. `entity` is the route's word that the
    event is about a non-human entity. `first_dedup_id` is set where the record is replayed: the id it always had.
    """

    fields: Mapping[str, Any]
    identity: str
    timestamp: int = -1
    entity: bool = False
    first_dedup_id: str | None = None

    @property
    def dedup_id(self) -> str:
        """The UUIDv5 that stays the same for every attempt, restart and replay of this event."""
        return uuid5_text(self.identity) if self.first_dedup_id is None else self.first_dedup_id


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold: `records` by weight, `bytes` of the whole body.

    The body's size is `overhead` (prefix and suffix) + the items' bytes + `separator` between each two of them.
    """

    records: int
    bytes: int
    overhead: int
    separator: int


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `url` is final: encoded once, passed on as it is."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """One whole HTTP answer; the names of `headers` are lower-case. `body` is cut at the transport's cap."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """Every item was accepted, but for those in `again` (indexes), whose answer was not final and who are asked again.

    `answers`, one for each item that is not in `again`, in the items' order (or none at all), are produced and
    acknowledged before the outcome counts. `rate` is what the vendor's headers said.
    """

    answers: Sequence[Answer] = ()
    again: frozenset[int] = frozenset()
    request_id: str | None = None
    rate: RateHint | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The batch was refused for what is in it. `suspects` are the items (indexes) that the answer's words name.

    `documented` tells whether the vendor documents `code` as a record's fault; where not, a refusal is believed
    only on evidence. `answers` tells a question's refusal to the results topic, once it was refused alone.
    """

    code: str
    reason: str
    suspects: frozenset[int] = frozenset()
    documented: bool = True
    request_id: str | None = None
    answers: Sequence[Answer] = ()


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The request was larger than the vendor takes; `limit` names what: `bytes` (413) or `records`."""

    code: str
    reason: str
    limit: Literal["bytes", "records"] = "bytes"
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too many requests; `after` is the vendor's own wish in seconds, where it states one."""

    reason: str
    after: float | None = None
    code: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The answer says nothing about the records: a 5xx, or a body that is not what the vendor documents.

    `unknown_outcome` where the vendor may have accepted the batch (502, 504).
    """

    reason: str
    after: float | None = None
    code: str | None = None
    unknown_outcome: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A credential, address or permission is wrong, no record is. `scope` is `DESTINATION` or the group refused."""

    code: str
    reason: str
    scope: Hashable = DESTINATION
    request_id: str | None = None


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
        """Return which requests the event may share: one group, one endpoint. Never raises but `Refusal`."""
        ...

    def limits(self, group: Hashable) -> Limits:
        """Return what one request of the group may hold, the destination's own settings considered."""
        ...

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check every documented rule and return the event as bytes. `now` is epoch milliseconds.

        Raises `Refusal` with cause `invalid` and a rule's id as code.
        """
        ...

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the request for one batch, signed for this attempt. The body is as long as `limits` says."""
        ...

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means. `asked` counts how often these items were in `Accepted.again` before."""
        ...


@runtime_checkable
class Probed(Protocol):
    """A vendor that can be asked whether it takes the credential, without an event; what `check --online` looks for.

    Optional: a vendor has this method only where its API has such a question. `read` tells a refused credential from
    the answer; any other 2xx is taken as well.
    """

    def probe(self) -> Request:
        """Return the question."""
        ...


@dataclass(frozen=True, slots=True)
class VendorKind:
    """A vendor as the registry knows it; what an entry point of the group `connector.vendors` names.

    `settings` is its settings model and `build` makes the vendor of them. `schema` is the full name of its contract
    schema and `fields` gives, for the fields a route may map, what each wants. `rules` are the ids of the local checks,
    each of which `rules:` may switch off. `reads_codes` says that `read` heeds the destination's `codes:` by itself;
    for other vendors delivery does it. `as_json` are fields of the schema whose map `encode` also takes as an
    `orjson.Fragment`: written already, of named texts, truths, whole and finite numbers and lists of texts, at least
    one. Where no route looks into such a field it comes so, which spares reading and writing each value.
    """

    name: str
    settings: type[DestinationSettings]
    build: Callable[[Any], Vendor]
    schema: str
    fields: Mapping[str, FieldKind]
    rules: frozenset[str] = field(default_factory=frozenset)
    reads_codes: bool = False
    as_json: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FieldKind:
    """What a vendor wants in one field of a mapping.

    `type`: `string` (numbers and booleans become text), `long`, `boolean`, `millis` and `seconds` (points in time as
    integers), `map` (values in JSON's types: nested records stay, times become epoch milliseconds), `strings` (a list
    of strings), `string_map` (values as text, what is no scalar as JSON text), `records` (a list of records) or `any`.
    """

    type: Literal["string", "long", "boolean", "millis", "seconds", "map", "strings", "string_map", "records", "any"]
    required: bool = False
