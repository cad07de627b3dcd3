"""JPush, Report API v3: a record is a question, and its answer goes to the results topic.

Up to 100 pushes are asked for in one GET, up to 1,000 devices of one push and day in one POST. A question asked twice
in a batch is sent once and answered to each; queries change nothing at the vendor, so repeats are harmless.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.errors import Refusal
from connector.records import Item
from connector.vendors import jpush_answers
from connector.vendors.answers import Words
from connector.vendors.base import FieldKind, Limits, Request, Response, Vendor, VendorEvent, VendorKind, Verdict
from connector.vendors.checks import Rules, json_bytes, rule_ids
from connector.vendors.jpush_questions import MOST_DEVICES, RULES, Question, Questions, about

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
        self._questions = Questions(Rules("jpush_report", RULES, settings.rules), vip=settings.vip)
        self._words = Words(secret, basic)
        self._base = settings.base_url.rstrip("/")
        self._auth = {"Authorization": f"Basic {basic}"}
        self._records = settings.batch.records or settings.documented.records
        self._bytes = settings.batch.bytes or settings.documented.bytes

    def group(self, event: VendorEvent) -> Hashable:
        """Return the endpoint; for status also the push and the day, which one request has once."""
        try:
            endpoint, fields = self._questions.asked(event)
            if endpoint != "status":
                return endpoint
            return (endpoint, self._questions.msg_id(fields), self._questions.day(fields, event.timestamp))
        except Refusal as refusal:
            _tell(refusal, event, max(0, event.timestamp))
            raise

    def limits(self, group: Hashable) -> Limits:
        """Return what one request may hold: for a GET the query's bytes are counted, for users it is one question."""
        if isinstance(group, tuple):
            prefix, suffix = _frame(group)
            return Limits(MOST_DEVICES, self._bytes, len(prefix) + len(suffix), 1)
        if group == "users":
            return Limits(1, self._bytes, 0, 1)
        return Limits(self._records, self._bytes, len(_PREFIX), 1)

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the question and return its part of the query or body, under a key that equal questions share."""
        try:
            return self._encoded(event, now)
        except Refusal as refusal:
            _tell(refusal, event, now)
            raise

    def _encoded(self, event: VendorEvent, now: int) -> Item:
        endpoint, fields = self._questions.asked(event)
        query_id = _query_id(event)
        if endpoint == "users":
            text = self._questions.users(fields)
            return Item(text.encode(), 1, text, None, Question(query_id, endpoint, None, (), now))
        msg_id = self._questions.msg_id(fields)
        if endpoint != "status":
            return Item(b"%d" % msg_id, 1, msg_id, None, Question(query_id, endpoint, msg_id, (), now))
        ids = self._questions.devices(fields)
        body = json_bytes("jpush_report", ids)[1:-1]
        return Item(
            body, max(1, min(len(ids), MOST_DEVICES)), ids, None, Question(query_id, endpoint, msg_id, ids, now)
        )

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


def _query_id(event: VendorEvent) -> str:
    name = event.fields.get("id")
    return event.identity if name is None else str(name)


def _tell(refusal: Refusal, event: VendorEvent, now: int) -> None:
    """Have a local refusal answered on the results topic, like one of the vendor's own."""
    endpoint, msg_id = about(event)
    question = Question(_query_id(event), endpoint, msg_id, (), now)
    refusal.answers = (jpush_answers.refused_locally(question, refusal),)


def _frame(group: tuple[Any, ...]) -> tuple[bytes, bytes]:
    """Return what stands before and after the devices of a status query."""
    _, msg_id, day = group
    prefix = b'{"msg_id":%d,"registration_ids":[' % msg_id
    return prefix, b"]}" if day is None else b'],"date":' + json_bytes("jpush_report", day) + b"}"


def _build(settings: JPushReportSettings) -> Vendor:
    return JPushReport(settings)


KIND: Final = VendorKind(
    name="jpush_report",
    settings=JPushReportSettings,
    build=_build,
    reads_codes=True,
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
