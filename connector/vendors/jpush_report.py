"""JPush, Report API v3: a record is a question, and its answer goes to the results topic.

Up to 100 pushes are asked for in one GET, up to 1,000 devices of one push and day in one POST. A question asked twice
in a batch is sent once and answered to each; queries change nothing at the vendor, so repeats are harmless.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from connector.config import DestinationSettings, DocumentedLimits
from connector.errors import Refusal
from connector.records import NO_TIMESTAMP, Item
from connector.vendors import jpush_answers
from connector.vendors.answers import Words
from connector.vendors.base import FieldKind, Limits, Request, Response, Vendor, VendorEvent, VendorKind, Verdict
from connector.vendors.checks import LONG_MAX, LONG_MIN, Rules, json_bytes, kind, rule_ids
from connector.vendors.jpush_answers import Question

_ENDPOINTS: Final = {"Received": "received", "MessageStatus": "status", "Messages": "messages", "Users": "users"}
"""The contract's questions, and the API each asks; a mapping's `kind` may be either."""

_VIP: Final = frozenset({"messages", "users"})
_IDS: Final = 1000
_SHANGHAI: Final = timezone(timedelta(hours=8))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PREFIX: Final = b"msg_ids="
_STARTS: Final = {
    "HOUR": ("yyyy-MM-dd HH", re.compile(r"\d{4}-\d{2}-\d{2} \d{2}"), "%Y-%m-%d %H"),
    "DAY": ("yyyy-MM-dd", re.compile(r"\d{4}-\d{2}-\d{2}"), "%Y-%m-%d"),
    "MONTH": ("yyyy-MM", re.compile(r"\d{4}-\d{2}"), "%Y-%m"),
}
_LONGEST: Final = {"HOUR": 24, "DAY": 60, "MONTH": 2}

RULES: Final[Mapping[str, str]] = {
    "kind.vip": "must be received or status: the destination says vip: false",
    "msg_id.range": "must not be negative",
    "registration_ids.required": "must hold at least one id",
    "registration_ids.type": "must be a list of text that is not empty",
    "registration_ids.count": f"must hold at most {_IDS} ids",
    "date.format": "must be a day as yyyy-MM-dd",
    "date.required": "must be given where the record has no timestamp",
    "time_unit.value": "must be HOUR, DAY or MONTH",
    "start.format": "must be yyyy-MM-dd HH for HOUR, yyyy-MM-dd for DAY, yyyy-MM for MONTH",
    "duration.type": "must be a whole number, at least 1",
    "duration.range": "must be at most 24 for HOUR (one day), 60 for DAY, 2 for MONTH (60 days)",
}


class JPushReportSettings(DestinationSettings):
    """An application at JPush."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20, requests_per_second=40)

    vendor: Literal["jpush_report"] = Field(description="The vendor's name.")
    base_url: str = Field(
        default="https://report.jpush.cn/v3",
        description="The API's address with its path; in Beijing https://bjapi.push.jiguang.cn/v3/report.",
    )
    app_key: str = Field(min_length=1, description="The application's appKey, the user name of HTTP Basic.")
    master_secret: SecretStr = Field(min_length=1, description="Its master secret, the password of HTTP Basic.")
    results_topic: str = Field(min_length=1, description="The topic that the answers are written to.")
    detail: bool = Field(default=False, description="Ask the newer /received/detail and /messages/detail.")
    vip: bool = Field(
        default=True, description="False: refuse questions to the VIP interfaces (messages, users) locally."
    )


class JPushReport:
    """One application at JPush."""

    def __init__(self, settings: JPushReportSettings) -> None:
        secret = settings.master_secret.get_secret_value()
        basic = b64encode(f"{settings.app_key}:{secret}".encode()).decode()
        self._settings = settings
        self._rules = Rules("jpush_report", RULES, settings.rules)
        self._words = Words(secret, basic)
        self._base = settings.base_url.rstrip("/")
        self._auth = {"Authorization": f"Basic {basic}"}
        self._records = settings.batch.records or settings.documented.records
        self._bytes = settings.batch.bytes or settings.documented.bytes

    def group(self, event: VendorEvent) -> Hashable:
        """Return the endpoint; for status also the push and the day, which one request has once."""
        endpoint, fields = self._asked(event)
        if endpoint != "status":
            return endpoint
        return (endpoint, self._msg_id(fields), self._date(fields, event.timestamp))

    def limits(self, group: Hashable) -> Limits:
        """Return what one request may hold: for a GET the query's bytes are counted, for users it is one question."""
        if isinstance(group, tuple):
            prefix, suffix = _frame(group)
            return Limits(_IDS, self._bytes, len(prefix) + len(suffix), 1)
        if group == "users":
            return Limits(1, self._bytes, 0, 1)
        return Limits(self._records, self._bytes, len(_PREFIX), 1)

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the question and return its part of the query or body, under a key that equal questions share."""
        endpoint, fields = self._asked(event)
        name = event.fields.get("id")
        query_id = event.identity if name is None else str(name)
        if endpoint == "users":
            text = self._users(fields)
            return Item(text.encode(), 1, text, None, Question(query_id, endpoint, None, (), now))
        msg_id = self._msg_id(fields)
        if endpoint != "status":
            return Item(b"%d" % msg_id, 1, msg_id, None, Question(query_id, endpoint, msg_id, (), now))
        ids = self._ids(fields)
        body = json_bytes("jpush_report", ids)[1:-1]
        return Item(body, max(1, min(len(ids), _IDS)), ids, None, Question(query_id, endpoint, msg_id, ids, now))

    def _asked(self, event: VendorEvent) -> tuple[str, Mapping[str, Any]]:
        """Return the endpoint and the question's fields, out of the contract's `query` or a mapping's flat fields."""
        fields = event.fields
        name, query = fields.get("kind"), fields.get("query")
        if isinstance(query, tuple) and len(query) == 2:
            name, fields = str(query[0]).rpartition(".")[2], query[1]
        endpoint = _ENDPOINTS.get(str(name), str(name))
        if endpoint not in _ENDPOINTS.values():
            message = f"kind must be one of {', '.join([*_ENDPOINTS, *_ENDPOINTS.values()])}"
            raise Refusal("invalid", "jpush_report.kind.value", message, field="kind")
        if endpoint in _VIP and not self._settings.vip:
            self._rules.broken("kind.vip", endpoint)
        return endpoint, fields

    def _msg_id(self, fields: Mapping[str, Any]) -> int:
        """Return the push's id; without one there is nothing to ask, so no setting lets another value pass."""
        value = fields.get("msg_id")
        if type(value) is not int or not LONG_MIN <= value <= LONG_MAX:
            message = f"msg_id must be a whole number of 64 bits; it is {kind(value)}"
            raise Refusal("invalid", "jpush_report.msg_id.type", message, field="msg_id")
        if value < 0:
            self._rules.broken("msg_id.range", "negative")
        return value

    def _ids(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the question's devices, each once."""
        value = fields.get("registration_ids")
        if not value:
            self._rules.broken("registration_ids.required", kind(value) if value is None else "empty")
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(member, str) and member for member in value):
            self._rules.broken("registration_ids.type", kind(value))
            return tuple(str(member) for member in value) if isinstance(value, list | tuple) else (str(value),)
        ids = tuple(dict.fromkeys(value))
        if len(ids) > _IDS:
            self._rules.broken("registration_ids.count", f"a list of {len(ids)}")
        return ids

    def _date(self, fields: Mapping[str, Any], timestamp: int) -> str | None:
        """Return the day asked about; the vendor's default is the request's own day, which a late question misses."""
        value = fields.get("date")
        if isinstance(value, date):
            return value.isoformat()[:10]
        if value is not None:
            if not isinstance(value, str) or not _is_time(value, "DAY"):
                self._rules.broken("date.format", kind(value))
            return str(value)
        if timestamp == NO_TIMESTAMP:
            self._rules.broken("date.required", kind(value))
            return None
        return (_EPOCH + timedelta(milliseconds=timestamp)).astimezone(_SHANGHAI).date().isoformat()

    def _users(self, fields: Mapping[str, Any]) -> str:
        unit, start, duration = fields.get("time_unit"), fields.get("start"), fields.get("duration")
        known = isinstance(unit, str) and unit in _STARTS
        if not known:
            self._rules.broken("time_unit.value", kind(unit))
        if not isinstance(start, str) or (known and not _is_time(start, str(unit))):
            self._rules.broken("start.format", kind(start))
        if type(duration) is not int or duration < 1:
            self._rules.broken("duration.type", kind(duration))
        elif known and duration > _LONGEST[str(unit)]:
            self._rules.broken("duration.range", "greater")
        try:
            return f"time_unit={quote(str(unit))}&start={quote(str(start))}&duration={duration}"
        except UnicodeEncodeError:
            raise Refusal("invalid", "jpush_report.event.text", "start is not valid Unicode", field="start") from None

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the query of one batch, each distinct question once."""
        joined = b",".join({item.merge_key: item.body for item in items}.values())
        if isinstance(group, tuple):
            prefix, suffix = _frame(group)
            headers = {**self._auth, "Content-Type": "application/json"}
            return Request("POST", f"{self._base}/status/message", headers, prefix + joined + suffix)
        if group == "users":
            return Request("GET", f"{self._base}/users?{joined.decode()}", self._auth)
        path = f"{group}/detail" if self._settings.detail else group
        return Request("GET", f"{self._base}/{path}?{(_PREFIX + joined).decode()}", self._auth)

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means, with a result for each question; status 4 is asked again up to three times."""
        return jpush_answers.read(response, group, items, asked, self._settings.codes, self._words)


def _frame(group: tuple[Any, ...]) -> tuple[bytes, bytes]:
    """Return what stands before and after the devices of a status query."""
    _, msg_id, day = group
    prefix = b'{"msg_id":%d,"registration_ids":[' % msg_id
    return prefix, b"]}" if day is None else b'],"date":' + json_bytes("jpush_report", day) + b"}"


def _is_time(text: str, unit: str) -> bool:
    _, pattern, form = _STARTS[unit]
    if pattern.fullmatch(text) is None or not text.isascii():
        return False
    try:
        datetime.strptime(text, form).replace(tzinfo=_SHANGHAI)
    except ValueError:
        return False
    return True


def _build(settings: JPushReportSettings) -> Vendor:
    return JPushReport(settings)


KIND: Final = VendorKind(
    name="jpush_report",
    settings=JPushReportSettings,
    build=_build,
    schema="connector.events.JPushReportQuery",
    fields={
        "id": FieldKind("string"),
        "kind": FieldKind("string", required=True),
        "msg_id": FieldKind("long"),
        "registration_ids": FieldKind("strings"),
        "date": FieldKind("string"),
        "time_unit": FieldKind("string"),
        "start": FieldKind("string"),
        "duration": FieldKind("long"),
    },
    rules=rule_ids("jpush_report", RULES),
)
