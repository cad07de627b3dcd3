"""JPush, Report API v3: a record is a question, and its answer goes to the results topic.

One GET asks for up to 100 pushes, one POST for up to 1,000 devices of one push and day. A question that occurs twice in
a batch is sent once, and both get the answer. Queries change nothing at the vendor, so repeats are harmless.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.errors import Refusal
from connector.records import Answer, Item, QuestionShape
from connector.vendors import jpush_answers
from connector.vendors.answers import LogText
from connector.vendors.base import FieldKind, Limits, Request, Response, VendorEvent, VendorKind, Verdict
from connector.vendors.checks import LONG_MAX, LONG_MIN, Rules, json_bytes, rule_ids, rule_texts, type_name
from connector.vendors.jpush_answers import CODES, ReportQuery

_ENDPOINTS: Final = {"Received": "received", "MessageStatus": "status", "Messages": "messages", "Users": "users"}
"""The contract's questions and the API of each; a mapping's `kind` may be either."""

_KINDS: Final = (*_ENDPOINTS, *_ENDPOINTS.values())
_VIP: Final = frozenset({"messages", "users"})
MOST_DEVICES: Final = 1000
# China has one zone and no summer time, so a fixed offset is enough.
_SHANGHAI: Final = timezone(timedelta(hours=8))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CALENDAR: Final = range(253_402_214_400_000)
"""Record timestamps (ms) that have a day in every zone: 1970 up to the last day but one of the year 9999."""
# Patterns in addition to `strptime`, which also accepts 2014-6-1.
_STARTS: Final = {
    "HOUR": (re.compile(r"\d{4}-\d{2}-\d{2} \d{2}"), "%Y-%m-%d %H"),
    "DAY": (re.compile(r"\d{4}-\d{2}-\d{2}"), "%Y-%m-%d"),
    "MONTH": (re.compile(r"\d{4}-\d{2}"), "%Y-%m"),
}
_LONGEST: Final = {"HOUR": 24, "DAY": 60, "MONTH": 2}
_OLDEST_DAYS: Final = 60

RULES: Final[Mapping[str, str]] = {
    "kind.vip": "must be received or status, because the destination has vip: false",
    "msg_id.range": "must be 0 or more",
    "registration_ids.required": "must have at least one id",
    "registration_ids.type": "must be a list of strings that are not empty",
    "registration_ids.count": f"must have at most {MOST_DEVICES} ids",
    "date.format": "must be a day as yyyy-MM-dd",
    "date.required": "must be given where the record has no usable timestamp",
    "time_unit.value": "must be HOUR, DAY or MONTH",
    "start.format": "must be yyyy-MM-dd HH for HOUR, yyyy-MM-dd for DAY, yyyy-MM for MONTH",
    "start.past": "must be within the last 60 days: the vendor has no older figures",
    "duration.day": "must end within the day of start for HOUR: the vendor answers that day only",
    "duration.type": "must be a whole number, at least 1",
    "duration.range": "must be at most 24 for HOUR (one day), 60 for DAY, 2 for MONTH (60 days)",
}
"""What each local rule allows."""

_PREFIX: Final = b"msg_ids="


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
    results_topic: str = Field(min_length=1, description="The topic that answers are written to.")
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
        self._questions = Questions(Rules("jpush_report", RULES, settings.rules), vip=settings.vip)
        self.clock_ahead = 0
        plain = ("Received", "Messages") if settings.vip else ("Received",)
        groups = tuple((f"connector.events.{name}", _ENDPOINTS[name]) for name in plain)
        self.shape = QuestionShape("id", "query", "msg_id", groups, ReportQuery)
        self._log_text = LogText(secret, basic)
        self._base = settings.base_url.rstrip("/")
        self._auth = {"Authorization": f"Basic {basic}"}
        self._records = settings.batch.records or settings.documented.records
        self._bytes = settings.batch.bytes or settings.documented.bytes

    def group(self, event: VendorEvent) -> Hashable:
        """Return the endpoint; for status also the push and the day, because a request is about one of each."""
        try:
            endpoint, fields = self._questions.endpoint_and_fields(event)
            if endpoint != "status":
                return endpoint
            return (endpoint, self._questions.msg_id(fields), self._questions.day(fields, event.timestamp))
        except Refusal as refusal:
            _attach_result(refusal, event, max(0, event.timestamp))
            raise

    def limits(self, group: Hashable) -> Limits:
        """Return the limits of one request: a GET counts the bytes of its query, users takes one question."""
        if isinstance(group, tuple):
            prefix, suffix = _status_body_parts(group)
            # Counted in devices, not in questions: an item's weight is the number of its devices.
            return Limits(MOST_DEVICES, self._bytes, len(prefix) + len(suffix), 1)
        if group == "users":
            # A request has one period. Equal questions still share it, because a repeated merge key adds no weight.
            return Limits(1, self._bytes, 0, 1)
        return Limits(self._records, self._bytes, len(_PREFIX), 1)

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the question and return its part of the query or body; equal questions have the same merge key."""
        try:
            return self._encoded(event, now)
        except Refusal as refusal:
            _attach_result(refusal, event, now)
            raise

    def _encoded(self, event: VendorEvent, now: int) -> Item:
        endpoint, fields = self._questions.endpoint_and_fields(event)
        query_id = _query_id(event)
        if endpoint == "users":
            text = self._questions.users_query(fields, now)
            return Item(text.encode(), 1, text, None, ReportQuery(query_id, endpoint, None, (), now))
        msg_id = self._questions.msg_id(fields)
        if endpoint != "status":
            return Item(b"%d" % msg_id, 1, msg_id, None, ReportQuery(query_id, endpoint, msg_id, (), now))
        ids = self._questions.devices(fields)
        # Without the brackets, which are in the body's prefix and suffix: several questions are joined to one list.
        body = json_bytes("jpush_report", ids)[1:-1]
        # With the rule off, a question may have more devices than a request allows. Capped at a full request, it is
        # sent alone, and the vendor judges it.
        return Item(
            body, max(1, min(len(ids), MOST_DEVICES)), ids, None, ReportQuery(query_id, endpoint, msg_id, ids, now)
        )

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the query of one batch, each distinct question once."""
        # A dictionary keeps the first place of each key, so the body is as long as the batch was counted.
        joined = b",".join({item.merge_key: item.body for item in items}.values())
        if isinstance(group, tuple):
            prefix, suffix = _status_body_parts(group)
            headers = {**self._auth, "Content-Type": "application/json"}
            return Request("POST", f"{self._base}/status/message", headers, prefix + joined + suffix)
        if group == "users":
            return Request("GET", f"{self._base}/users?{joined.decode()}", self._auth)
        path = f"{group}/detail" if self._settings.detail else group
        return Request("GET", f"{self._base}/{path}?{(_PREFIX + joined).decode()}", self._auth)

    def ended(self, item: Item, code: str | None, message: str) -> Answer | None:
        """Return the `refused` result of a question that became a dead letter without an answer."""
        question = item.context
        return jpush_answers.refused_result(question, code, message) if isinstance(question, ReportQuery) else None

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means, with a result for each question; status 4 is asked again up to three times."""
        return jpush_answers.verdict(response, group, items, asked, self._log_text)


def _query_id(event: VendorEvent) -> str:
    name = event.fields.get("id")
    return event.identity if name is None else str(name)


def _attach_result(refusal: Refusal, event: VendorEvent, now: int) -> None:
    """Give a local refusal a result for the results topic, like a refusal by the vendor."""
    endpoint, msg_id = _subject(event)
    question = ReportQuery(_query_id(event), endpoint, msg_id, (), now)
    refusal.answers = (jpush_answers.refused_result(question, refusal.code, refusal.message),)


def _status_body_parts(group: tuple[Any, ...]) -> tuple[bytes, bytes]:
    """Return the parts of a status query's body before and after the devices."""
    _, msg_id, day = group
    prefix = b'{"msg_id":%d,"registration_ids":[' % msg_id
    return prefix, b"]}" if day is None else b'],"date":' + json_bytes("jpush_report", day) + b"}"


def _subject(event: VendorEvent) -> tuple[str, int | None]:
    """Return the endpoint and the push of a question; for an invalid one, what is known of them."""
    name, fields = _kind_and_fields(event)
    msg_id = fields.get("msg_id")
    known = type(msg_id) is int and LONG_MIN <= msg_id <= LONG_MAX
    return _ENDPOINTS.get(name, name), msg_id if known else None


def _kind_and_fields(event: VendorEvent) -> tuple[str, Mapping[str, Any]]:
    """Return a question's kind and fields, from the contract's `query` or from a mapping's flat fields."""
    query = event.fields.get("query")
    if isinstance(query, tuple) and len(query) == 2 and isinstance(query[1], Mapping):
        return str(query[0]).rpartition(".")[2], query[1]
    return str(event.fields.get("kind")), event.fields


class Questions:
    """Reads questions from events and checks them; `vip`: the VIP interfaces may be asked."""

    __slots__ = ("_rules", "_vip")

    def __init__(self, rules: Rules, *, vip: bool) -> None:
        self._rules = rules
        self._vip = vip

    def endpoint_and_fields(self, event: VendorEvent) -> tuple[str, Mapping[str, Any]]:
        """Return the endpoint and the question's fields."""
        name, fields = _kind_and_fields(event)
        endpoint = _ENDPOINTS.get(name, name)
        if name not in _KINDS:
            message = f"kind must be one of {', '.join(_KINDS)}"
            raise Refusal("invalid", "jpush_report.kind.value", message, field="kind")
        if endpoint in _VIP and not self._vip:
            self._rules.broken("kind.vip", endpoint)
        return endpoint, fields

    def msg_id(self, fields: Mapping[str, Any]) -> int:
        """Return the push's id. Without a valid id there is nothing to ask, so this rule cannot be switched off."""
        value = fields.get("msg_id")
        if type(value) is not int or not LONG_MIN <= value <= LONG_MAX:
            message = f"msg_id must be a whole number of 64 bits; it is {type_name(value)}"
            raise Refusal("invalid", "jpush_report.msg_id.type", message, field="msg_id")
        if value < 0:
            self._rules.broken("msg_id.range", "negative")
        return value

    def devices(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the question's devices, each once."""
        value = fields.get("registration_ids")
        if not value:
            self._rules.broken("registration_ids.required", type_name(value) if value is None else "empty")
            return ()
        if not isinstance(value, list | tuple) or not all(isinstance(member, str) and member for member in value):
            self._rules.broken("registration_ids.type", type_name(value))
            return tuple(str(member) for member in value) if isinstance(value, list | tuple) else (str(value),)
        ids = tuple(dict.fromkeys(value))
        if len(ids) > MOST_DEVICES:
            self._rules.broken("registration_ids.count", f"a list of {len(ids)}")
        return ids

    def day(self, fields: Mapping[str, Any], timestamp: int) -> str | None:
        """Return the day of a question. The vendor's default, the day of the request, would be wrong for a late one."""
        value = fields.get("date")
        if isinstance(value, date):
            return value.isoformat()[:10]
        if value is not None:
            if not isinstance(value, str) or not _is_time(value, "DAY"):
                self._rules.broken("date.format", type_name(value))
            return str(value)
        if timestamp not in _CALENDAR:
            self._rules.broken("date.required", type_name(value))
            return None
        # The record's day, not today: the vendor's default would change the day of a question that is asked late.
        return _day_in_shanghai(timestamp).isoformat()

    def _check_period(self, start: str, unit: str, duration: int, now: int) -> None:
        """Refuse a period that begins more than 60 days ago, and hours that reach into the next day.

        A month counts by its last day: the vendor has figures of a month that ended within 60 days. One more day is
        allowed, because the vendor's clock and day may differ; the vendor judges the rest.
        """
        begin = datetime.strptime(start, _STARTS[unit][1]).replace(tzinfo=_SHANGHAI)
        first = begin.date()
        if unit == "MONTH":
            # Four days after the 28th is always the next month; the day before its first is this month's last.
            first = (first.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        if now in _CALENDAR and (_day_in_shanghai(now) - first).days > _OLDEST_DAYS + 1:
            self._rules.broken("start.past", f"{start}")
        if unit == "HOUR" and begin.hour + duration > 24:
            self._rules.broken("duration.day", f"{duration} from {start}")

    def users_query(self, fields: Mapping[str, Any], now: int) -> str:
        """Return the query string of a question about users; `now` is in epoch milliseconds."""
        unit, start, duration = fields.get("time_unit"), fields.get("start"), fields.get("duration")
        known = isinstance(unit, str) and unit in _STARTS
        if not known:
            self._rules.broken("time_unit.value", type_name(unit))
        if not isinstance(start, str) or (known and not _is_time(start, str(unit))):
            self._rules.broken("start.format", type_name(start))
        if type(duration) is not int or duration < 1:
            self._rules.broken("duration.type", type_name(duration))
        elif known and duration > _LONGEST[str(unit)]:
            self._rules.broken("duration.range", f"{duration}")
        elif known and isinstance(start, str) and _is_time(start, str(unit)):
            self._check_period(start, str(unit), duration, now)
        try:
            return f"time_unit={quote(str(unit))}&start={quote(str(start))}&duration={duration}"
        except UnicodeEncodeError:
            raise Refusal("invalid", "jpush_report.event.text", "start must be valid Unicode", field="start") from None


def _day_in_shanghai(timestamp: int) -> date:
    return (_EPOCH + timedelta(milliseconds=timestamp)).astimezone(_SHANGHAI).date()


def _is_time(text: str, unit: str) -> bool:
    pattern, form = _STARTS[unit]
    # `\d` matches the digits of other scripts too.
    if pattern.fullmatch(text) is None or not text.isascii():
        return False
    try:
        datetime.strptime(text, form).replace(tzinfo=_SHANGHAI)
    except ValueError:
        return False
    return True


KIND: Final = VendorKind(
    name="jpush_report",
    settings=JPushReportSettings,
    build=JPushReport,
    codes=CODES,
    schema="connector.events.JPushReportQuery",
    fields={
        "id": FieldKind("string"),
        "kind": FieldKind("string", required=True, values=_KINDS, meaning=f"What is asked: {', '.join(_KINDS)}."),
        "msg_id": FieldKind("long", meaning="The push's id; for every kind but Users."),
        "registration_ids": FieldKind("strings", meaning="MessageStatus: the devices, 1 to 1,000."),
        "date": FieldKind("string", meaning="MessageStatus: the day of the push, yyyy-MM-dd."),
        "time_unit": FieldKind("string", values=tuple(_STARTS), meaning=f"Users: {', '.join(_STARTS)}."),
        "start": FieldKind(
            "string", meaning="Users: where the time begins, in the form of its unit, such as 2026-11-29."
        ),
        "duration": FieldKind("long", meaning="Users: how many of the unit."),
    },
    rules=rule_ids("jpush_report", RULES),
    rule_texts=rule_texts("jpush_report", RULES),
)
