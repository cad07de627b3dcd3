"""Jiguang Growth, Report User Event: `POST /smartop/api/v1/events/report`, a JSON object with up to 100 events.

One bad event fails the whole batch. The error list has no indexes, only offending values, which lead to the suspects.
The same (project, appKey, itime, cuid, randomId) counts once at the vendor, so `randomId` is always filled.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import Any, ClassVar, Final, Literal, NamedTuple

import orjson
from orjson import Fragment
from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.records import Item, uuid5_text
from connector.vendors.answers import (
    LogText,
    code_number,
    json_value,
    request_id,
    verdict_of_status,
    verdict_of_unknown_body,
    whole_number,
)
from connector.vendors.base import (
    Accepted,
    CodeMeaning,
    FieldKind,
    Limits,
    Misconfigured,
    Refused,
    Request,
    Response,
    Retry,
    Shape,
    ShapeField,
    TooLarge,
    VendorEvent,
    VendorKind,
    Verdict,
)
from connector.vendors.checks import (
    LONG_MAX,
    LONG_MIN,
    Rules,
    epoch_millis,
    json_bytes,
    rule_ids,
    rule_texts,
    scalar,
    type_name,
)

# A year has 365 or 366 days. Use the longer one: an event that the vendor accepts must not be refused here.
PAST_MS: Final = 366 * 24 * 3600 * 1000
"""How old an event may be: the vendor's limit is one year."""
_FUTURE_MS: Final = 5 * 60 * 1000
_INFINITY: Final = float("inf")
# In the order in which `encode` writes them, because both must give the same bytes (a property test compares them).
_FIELDS: Final = (
    ShapeField("cuid", "long"),
    ShapeField("eventName", "text"),
    ShapeField("itime", "long", timed=True),
    ShapeField("randomId", "text", "dedup_id"),
    ShapeField("properties", "json", "left_out"),
)
_NAMES: Final = tuple(field.name for field in _FIELDS)
_field_values: Final = itemgetter(*_NAMES)

RULES: Final[Mapping[str, str]] = {
    "cuid.required": "must be given",
    "cuid.type": "must be a whole number of 64 bits",
    "eventName.required": "must be given and not be empty",
    "eventName.type": "must be a string",
    "itime.required": "must be given",
    "itime.type": "must be a point in time, in epoch milliseconds of 64 bits",
    "itime.future": "must be at most 5 minutes in the future",
    "itime.past": "must be at most 366 days old (the vendor's limit is one year)",
    "randomId.type": "must be a string",
    "properties.type": "must be an object",
    "properties.name": "must have names that are not empty",
    "properties.number": "must have finite numbers: JSON has neither NaN nor infinity",
    "properties.range": "must have whole numbers of 64 bits",
    "properties.list": "must have lists of strings only",
    "properties.nested": "must not have nested objects",
    "properties.value": "must have strings, numbers, booleans, points in time or lists of strings",
}
"""What each local rule allows: the document's own limits."""

CODES: Final[Mapping[str, CodeMeaning]] = {
    "4000": CodeMeaning("The request has several errors.", "See the error list in the answer's data."),
    "4001": CodeMeaning("A field has the wrong type.", "Correct the type of the field that the message names."),
    "4002": CodeMeaning(
        "A list has too many elements.", "Shorten the list that the message names; for data itself, send fewer events."
    ),
    "4003": CodeMeaning("A field is too long.", "Shorten the field that the message names."),
    "4004": CodeMeaning("A field is empty.", "Give the field that the message names a value."),
    "4100": CodeMeaning(
        "The appKey or the project id is invalid.",
        "Compare app_key and project_id with the API data source of this project at Jiguang.",
    ),
    "4101": CodeMeaning("The event does not exist at Jiguang.", "Create it there or correct eventName."),
    "4102": CodeMeaning(
        "The event has no such attribute at Jiguang, or it is disabled there.",
        "Create or enable the attribute there, or correct its name in properties.",
    ),
    "4103": CodeMeaning("There is no user with this cuid at Jiguang.", "Register the user there or correct cuid."),
    "4104": CodeMeaning(
        "itime is outside the accepted range: one year back to 5 minutes ahead.",
        "Send itime in milliseconds, within a year of the event.",
    ),
    "4105": CodeMeaning(
        "An attribute has a value of the wrong type.",
        "Send the type that the attribute has at Jiguang, or change the attribute there.",
    ),
    "empty_200": CodeMeaning(
        "The answer was 200 with an empty body, which the document allows as success.",
        "If this account answers successes so, set empty_200: accept; else look for a proxy.",
    ),
}
"""The document's error codes, each with its meaning and solution."""

# 4000 only says that a list follows, 4100 is about the account.
_RECORD_FAULTS: Final = frozenset(CODES) - {"4000", "4100", "empty_200"}
"""The codes that the document explains by what is in an event."""

# More errors, or longer messages, are ignored: hints only save requests, and reading them must stay cheap.
_MOST_ERRORS: Final = 200
_MOST_EMPTY: Final = 3
_MOST_BLANK: Final = 16
"""Bytes of white space that count as an empty body. An endless body is cut, and its end is not known."""
_MOST_SEARCHES: Final = 50_000
_MESSAGE_LIMIT: Final = 300

# A separate number: 1676875 in "itime 1676875 …", but not part of a word, a fraction or a longer number.
_NUMBER: Final = re.compile(r"(?<![A-Za-z0-9_.-])-?\d{1,20}(?![A-Za-z0-9_])")
_WORD: Final = re.compile(r"[A-Za-z0-9_]+")
# `data` itself, not `data[3].itime`: the latter is about one event.
_REQUEST_PART: Final = re.compile(r"(?<![A-Za-z0-9_.])(?:data|body)(?![A-Za-z0-9_.\[])")


class JiguangSettings(DestinationSettings):
    """An account at Jiguang Growth: a project, and an API data source of it."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20, requests_per_second=100)

    vendor: Literal["jiguang"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://growth.jiguang.cn", description="Scheme and host of the API.")
    project_id: str = Field(min_length=1, description="The project's id, the user name of HTTP Basic.")
    project_secret: SecretStr = Field(min_length=1, description="The project's secret, the password of HTTP Basic.")
    app_key: str = Field(min_length=1, description="The appKey of the API data source.")
    empty_200: Literal["retry", "accept"] = Field(
        default="retry",
        description="A 200 with an empty body, which the vendor's document allows as success: `accept` takes it as "
        "one, `retry` sends again and holds the destination after three in a row.",
    )


class Jiguang:
    """One project at Jiguang Growth."""

    def __init__(self, settings: JiguangSettings) -> None:
        secret = settings.project_secret.get_secret_value()
        basic = b64encode(f"{settings.project_id}:{secret}".encode()).decode()
        self._accepts_empty = settings.empty_200 == "accept"
        self._empty_answers = 0
        self.clock_ahead = 0
        self._rules: Rules = Rules("jiguang", RULES, settings.rules)
        self.shape = Shape(_FIELDS, PAST_MS, _FUTURE_MS, expires=self._rules.on("itime.past"))
        self._log_text = LogText(secret, basic, settings.app_key)
        self._url = f"{settings.base_url.rstrip('/')}/smartop/api/v1/events/report"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
        self._prefix = b'{"appKey":' + json_bytes("jiguang", settings.app_key) + b',"data":['
        documented, batch = settings.documented, settings.batch
        self._limits = Limits(
            batch.records or documented.records, batch.bytes or documented.bytes, len(self._prefix) + 2, 1
        )

    def set_clock(self, ahead: int) -> None:
        """Check `itime` by both clocks. Either may be wrong, so an event is refused only if both refuse it."""
        self.clock_ahead = ahead

    def group(self, event: VendorEvent) -> Hashable:
        """Return None: all events share one endpoint."""
        return None

    def limits(self, group: Hashable) -> Limits:
        """Return the limits of one request."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the event and return it as a member of `data`; `now` is in epoch milliseconds."""
        try:
            cuid, name, itime, random_id, properties = _field_values(event.fields)
        except KeyError:  # a route's mapping leaves out a field without a value
            cuid, name, itime, random_id, properties = map(event.fields.get, _NAMES)
        # `type` instead of `isinstance`, because True is an int, but not a user's id.
        if type(cuid) is not int or not LONG_MIN <= cuid <= LONG_MAX:
            self._refuse_number("cuid", cuid)
        if type(name) is not str or not name:
            self._rules.broken(
                "eventName.type" if name and type(name) is not str else "eventName.required", type_name(name)
            )
        if type(itime) is not int or not -_FUTURE_MS <= now + self.clock_ahead - itime <= PAST_MS:
            # There are three clocks: ours, the vendor's (or that of a proxy that sets `Date`), and the record's own
            # timestamp. Each may be wrong, and one wrong clock must not refuse every event.
            latest = max(now, now + self.clock_ahead, event.timestamp)
            itime = self._checked_time(itime, now + min(0, self.clock_ahead), latest)
        # Not `event.dedup_id`: calling the property costs as much as computing the id.
        random_id = random_id or event.first_dedup_id or uuid5_text(event.identity)
        if type(random_id) is not str:
            self._rules.broken("randomId.type", type_name(random_id))
        datum = {"cuid": cuid, "eventName": name, "itime": itime, "randomId": random_id}
        if type(properties) is Fragment:
            datum["properties"] = properties
        elif properties:
            if type(properties) is dict:
                properties = self._properties(properties)
            else:
                self._rules.broken("properties.type", type_name(properties))
            if properties:
                datum["properties"] = properties
        if cuid is None or name is None or itime is None:
            # Only if a rule is off. The document knows no null, so the key is left out.
            datum = {field: value for field, value in datum.items() if value is not None}
        # It is valid now, but a batch may be retried for days, so delivery checks it again, by our own clock.
        expires = itime + PAST_MS - min(0, self.clock_ahead) if self.shape.expires and type(itime) is int else None
        return Item(json_bytes("jiguang", datum), 1, None, expires)

    def _properties(self, properties: dict[str, Any]) -> dict[str, Any]:
        """Return the properties as they are sent; those of common types are not copied."""
        if "" in properties:
            self._rules.broken("properties.name", "an empty name")
        odd = [name for name, value in properties.items() if not _is_common(value)]
        if not odd:
            return properties
        plain = dict(properties)
        for name in odd:
            value = self._uncommon_property(plain[name])
            if value is None:
                del plain[name]
            else:
                plain[name] = value
        return plain

    def _uncommon_property(self, value: Any) -> Any:
        """Return a property of an uncommon type as it is sent; None leaves it out."""
        if isinstance(value, list):
            # One of strings only is common.
            self._rules.broken("properties.list", "a list with other elements")
            return value
        if isinstance(value, Mapping):
            self._rules.broken("properties.nested", "an object")
            return value
        try:
            value = scalar(value)
        except ValueError as error:
            self._rules.broken("properties.value", str(error))
            return value
        if isinstance(value, float) and not -_INFINITY < value < _INFINITY:
            self._rules.broken("properties.number", "NaN or infinity")
        if isinstance(value, int) and not _is_long(value):
            self._rules.broken("properties.range", "a whole number of more than 64 bits")
        return value

    def _refuse_number(self, field: str, value: object) -> None:
        larger = type(value) is int
        self._rules.broken(
            f"{field}.required" if value is None else f"{field}.type",
            "a whole number of more than 64 bits" if larger else type_name(value),
        )

    def _checked_time(self, itime: Any, earliest: int, latest: int) -> Any:
        """Return a time in the form to send. Refuses what is not a time, or too old or too far ahead by each clock."""
        if type(itime) is datetime and itime.tzinfo is not None:
            itime = epoch_millis(itime)
        if type(itime) is not int or not _is_long(itime):
            self._refuse_number("itime", itime)
        elif itime > latest + _FUTURE_MS:
            self._rules.broken("itime.future", "further ahead")
        elif itime < earliest - PAST_MS:
            self._rules.broken("itime.past", "older, or not in milliseconds")
        return itime

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the report of one batch."""
        body = b"".join((self._prefix, b",".join([item.body for item in items]), b"]}"))
        return Request("POST", self._url, self._headers, body)

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer `{"code", "msg", "data"?}` means; only `code` 0 with a 2xx is success."""
        # The vendor's texts are Chinese. A gateway in front of it may write them in China's own encoding, not UTF-8.
        answer = json_value(response, "gb18030")
        fields = answer if isinstance(answer, dict) else {}
        code = code_number(fields.get("code"))
        # The vendor answers faults with 200 too, so the status alone does not mean success; nor does code 0 with a 5xx.
        if code == 0 and 200 <= response.status < 300:
            self._empty_answers = 0
            return Accepted(request_id=request_id(response.headers))
        name = None if code is None or code == 0 else str(code)
        verdict = verdict_of_status(response, self._log_text, code=name, message=_text_field(fields, "msg"))
        if verdict is not None:
            return verdict
        rid = request_id(response.headers)
        if code is None:
            # "HTTP code 200 indicates successful reporting", says the document, and also that `code` is required.
            if response.status == 200 and len(response.body) <= _MOST_BLANK and not response.body.strip():
                return self._verdict_of_empty_200(rid)
            return verdict_of_unknown_body(response, self._log_text)
        if code == 0:
            return Retry(f"HTTP {response.status} with code 0: neither success nor failure", request_id=rid)
        error = _Error(str(code), _text_field(fields, "msg"))
        # A 4000 with an unreadable list is an error with an unknown cause, so it needs evidence.
        listed = _listed_errors(fields.get("data")) if error.code == "4000" else None
        return self._verdict_of_errors(listed or [error], items, rid, error.code if listed else None)

    def _verdict_of_empty_200(self, rid: str | None) -> Verdict:
        """Return the verdict of an empty 200.

        The document says both that a 200 is success, without answer parameters, and that `code` is required. A proxy
        may also answer like this. Only the user can know, so after three in a row a hold tells the user about the
        setting.
        """
        if self._accepts_empty:
            return Accepted(request_id=rid)
        self._empty_answers += 1
        reason = "HTTP 200 with an empty body; if this account answers successes so, set empty_200: accept"
        if self._empty_answers < _MOST_EMPTY:
            return Retry(reason, code="empty_200", request_id=rid)
        return Misconfigured("empty_200", reason, request_id=rid)

    def _verdict_of_errors(
        self, errors: Sequence[_Error], items: Sequence[Item], rid: str | None, listed_by: str | None
    ) -> Verdict:
        """Return the verdict of the most serious error: of the account, else of the request, else of records."""
        events = _Quotable([_quotable_event(item) for item in items])
        for error in errors:
            reason = self._reason(error)
            if error.code == "4100" or events.is_of_app_key(error):
                return Misconfigured(error.code, reason, request_id=rid)
            if events.is_of_request(error):
                # A single event cannot be too many, so something else is wrong with the request.
                if error.code == "4002" and len(items) > 1:
                    return TooLarge(error.code, reason, "records", rid)
                return Misconfigured(error.code, reason, request_id=rid, of_request=True)
        refusals = [
            Refused(
                error.code,
                self._reason(error),
                events.suspects(error),
                documented=error.code in _RECORD_FAULTS,
                request_id=rid,
                listed_by=listed_by,
            )
            for error in errors
        ]
        documented = [refusal for refusal in refusals if refusal.documented]
        first = (documented or refusals)[0]
        return Refused(
            first.code,
            first.reason,
            frozenset().union(*(refusal.suspects for refusal in refusals)),
            documented=bool(documented),
            request_id=rid,
            errors=tuple(refusals) if len(refusals) > 1 else (),
            listed_by=listed_by,
        )

    def _reason(self, error: _Error) -> str:
        return self._log_text(f"code {error.code}: {error.msg}")


class _Error(NamedTuple):
    """One error of an answer: its code as text, and the vendor's message."""

    code: str
    msg: str


class _QuotableEvent(NamedTuple):
    """The values of an event that an error's message may quote; None for a wrong type (its rule may be off)."""

    cuid: int | None
    itime: int | None
    name: str
    random_id: str
    properties: frozenset[str]


class _Quotable:
    """Finds the events whose values a message quotes.

    It builds an index from value to events once for an answer. Then it splits each message into words and looks each
    word up. So the work grows with the length of the answer plus the batch, not with their product.
    """

    def __init__(self, events: Sequence[_QuotableEvent]) -> None:
        self._by_cuid = _index((event.cuid,) for event in events)
        self._by_itime = _index((event.itime,) for event in events)
        self._by_name = _index((event.name,) for event in events)
        self._by_random_id = _index((event.random_id,) for event in events)
        self._by_property = _index(event.properties for event in events)
        # A name with non-word characters has to be searched for, but only if a part of it occurs at all.
        self._odd_names: defaultdict[str, list[str]] = defaultdict(list)
        for name in dict.fromkeys((*self._by_name, *self._by_property, *self._by_random_id)):
            if not _WORD.fullmatch(name):
                self._odd_names[max(_WORD.findall(name), key=len, default=name[:2])].append(name)
        self._searches_left = _MOST_SEARCHES

    def is_of_app_key(self, error: _Error) -> bool:
        """Return whether an error is about the request's appKey and not about a property of that name."""
        return (
            error.code in ("4001", "4003", "4004")
            and "appKey" in _WORD.findall(error.msg)
            and "appKey" not in self._by_property
        )

    def is_of_request(self, error: _Error) -> bool:
        """Return whether an error is about `data` or the body itself and not about a property of that name."""
        if error.code not in ("4001", "4002", "4004"):
            return False
        found = _REQUEST_PART.search(error.msg)
        return found is not None and found[0] not in self._by_property

    def suspects(self, error: _Error) -> frozenset[int]:
        """Return the events (indexes) whose values a message quotes. The code determines which values those can be."""
        numbers = {int(text) for text in _NUMBER.findall(error.msg)}
        # These two messages quote a number. Another event's id may be the same number, so look only at the code's own
        # field.
        if error.code == "4104":
            return _events_of(self._by_itime, numbers)
        if error.code == "4103":
            return _events_of(self._by_cuid, numbers)
        names = self._quoted_names(error.msg)
        by_event = _events_of(self._by_name, _longest(name for name in names if name in self._by_name))
        if error.code == "4101":
            return by_event
        by_attribute = _events_of(self._by_property, _longest(name for name in names if name in self._by_property))
        # Many events may have the attribute, while it is missing at the vendor only for the quoted event.
        if error.code == "4102" and by_event & by_attribute:
            return by_event & by_attribute
        if by_attribute or error.code in ("4102", "4105"):
            return by_attribute
        values = _events_of(self._by_itime, numbers) | _events_of(self._by_cuid, numbers)
        return values | _events_of(self._by_random_id, names) | by_event

    def _quoted_names(self, msg: str) -> set[str]:
        """Return the names that a message quotes as whole words."""
        # `_WORD` is ASCII. A Chinese name is indexed by its first two
        # characters, so each character and pair is looked up.
        words = set(_WORD.findall(msg))
        parts = words.union(msg, map("".join, pairwise(msg)))
        odd = [name for part in sorted(parts & self._odd_names.keys()) for name in self._odd_names[part]]
        odd = odd[: self._searches_left]
        self._searches_left -= len(odd)
        return words.union(name for name in odd if name in msg and _is_whole_word(msg, name))


def _text_field(fields: Mapping[str, Any], name: str) -> str:
    text = fields.get(name)
    return text if isinstance(text, str) else ""


def _listed_errors(data: object) -> list[_Error]:
    """Return the listed errors, each once: the vendor repeats an error for every event that has it."""
    found: dict[_Error, None] = {}
    for member in data if isinstance(data, list) else []:
        code = code_number(member.get("code")) if isinstance(member, dict) else None
        if code:
            found[_Error(str(code), _text_field(member, "msg")[:_MESSAGE_LIMIT])] = None
            if len(found) == _MOST_ERRORS:
                break
    return list(found)


def _quotable_event(item: Item) -> _QuotableEvent:
    try:
        # Parsed again, because items do not keep their datum: refusals are rare enough for that.
        event = orjson.loads(item.body)
    except ValueError:
        event = None
    fields = event if isinstance(event, dict) else {}
    properties = fields.get("properties")
    return _QuotableEvent(
        whole_number(fields.get("cuid")),
        whole_number(fields.get("itime")),
        _text_field(fields, "eventName"),
        _text_field(fields, "randomId"),
        frozenset(properties) if isinstance(properties, dict) else frozenset(),
    )


def _index(values_of_events: Iterable[Iterable[Any]]) -> Mapping[Any, set[int]]:
    """Return which events have each value, without empty and missing values, which no message can quote."""
    found: defaultdict[Any, set[int]] = defaultdict(set)
    for index, values in enumerate(values_of_events):
        for value in values:
            if value is not None and value != "":
                found[value].add(index)
    return dict(found)


def _events_of(index: Mapping[Any, set[int]], values: Iterable[Any]) -> frozenset[int]:
    return frozenset().union(*(index[value] for value in values if value in index))


def _is_whole_word(msg: str, name: str) -> bool:
    """Return whether the message has the name as a whole word."""
    start = msg.find(name)
    while start >= 0:
        before, after = msg[max(0, start - 1) : start], msg[start + len(name) : start + len(name) + 1]
        if not _WORD.fullmatch(before) and not _WORD.fullmatch(after):
            return True
        start = msg.find(name, start + 1)
    return False


def _longest(names: Iterable[str]) -> set[str]:
    """Return the names without those that are part of another one."""
    quoted = set(names)
    # "pay_failed" quotes `pay_failed`, not `pay`.
    return {name for name in quoted if not any(name != other and name in other for other in quoted)}


def _is_long(value: int) -> bool:
    """Return whether a whole number fits in 64 bits."""
    return LONG_MIN <= value <= LONG_MAX


def _is_common(value: object) -> bool:
    """Return whether a property is sent unchanged, as nearly all are: a string, boolean, number or list of strings."""
    value_type = type(value)
    if value_type is str or value_type is bool:
        return True
    if value_type is int:
        return _is_long(value)  # type: ignore[arg-type]  # its type was just compared
    if isinstance(value, float):
        return value_type is float and -_INFINITY < value < _INFINITY
    if value_type is list:
        return _are_strings(value)  # type: ignore[arg-type]  # as above
    return False


def _are_strings(values: list[object]) -> bool:
    return all(type(value) is str for value in values)


KIND: Final = VendorKind(
    name="jiguang",
    settings=JiguangSettings,
    build=Jiguang,
    codes=CODES,
    as_json=frozenset({"properties"}),
    schema="connector.events.JiguangUserEvent",
    fields={
        "cuid": FieldKind("long", required=True),
        "eventName": FieldKind("string", required=True),
        "itime": FieldKind("millis", required=True),
        "randomId": FieldKind("string"),
        "properties": FieldKind("map"),
    },
    rules=rule_ids("jiguang", RULES),
    rule_texts=rule_texts("jiguang", RULES),
)
