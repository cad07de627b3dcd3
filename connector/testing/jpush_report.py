"""JPush's "Report API v3", as strict as its document.

From the vendor's other public pages: the newer `/detail` forms, the limit of 2,400 requests a minute with its headers
and code 2002, and code 3002 for a wrong parameter. The figures follow from the ids, so that tests can check an answer.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta, timezone
from hmac import compare_digest
from typing import Any, Final

import orjson

from connector.testing.faults import Call
from connector.testing.simulator import AcceptedEvent, Reply, json_reply

BASE: Final = "/v3"
LARGEST_IDS: Final = 100
LARGEST_REGISTRATIONS: Final = 1000

_MSG_ID: Final = re.compile(r"[0-9]{1,19}")
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_UNITS: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "HOUR": (re.compile(r"\d{4}-\d{2}-\d{2} \d{2}"), "%Y-%m-%d %H"),
    "DAY": (_DATE, "%Y-%m-%d"),
    "MONTH": (re.compile(r"\d{4}-\d{2}"), "%Y-%m"),
}
_SHANGHAI: Final = timezone(timedelta(hours=8))
_MESSAGES: Final[Mapping[int, str]] = {
    10: "Internal System Error",
    2002: "Rate limit exceeded",
    2003: "Not authorized to use this interface",
    3001: "Basic authentication failed",
    3002: "Parameter error",
    3004: "Parameter value of Time_unit does not match start's",
    3005: "Only support user information within 60 days",
}


def _error_reply(status: int, code: int, verdict: str = "refused", headers: Mapping[str, str] | None = None) -> Reply:
    body = {"error": {"code": code, "message": _MESSAGES[code]}}
    return json_reply(status, body, verdict, headers=headers or {})


@dataclass(slots=True)
class JPushReportApi:
    """One application's statistics.

    `missing` msg_ids are left out of answers. `statuses` gives a registration id's status (otherwise 0), `abnormal`
    how often it is answered 4 before, and `absent` ids are left out. Without `vip`, /messages and /users are refused,
    and so are the endpoints in `forbidden`. Entries of `odd_ids` have a null msg_id, and with `flat_errors` an error is
    at top level, as some servers of the vendor answer. `minute_limit` requests are admitted in a minute, which begins
    with its first request.
    """

    name = "jpush_report"

    app_key: str = "7d431e42dfa6a6d693ac2d04"
    # 24 letters and digits: the vendor's client for Java refuses any other form.
    master_secret: str = "simulatedMasterSecret000"
    results_topic: str = "jpush-results"
    vip: bool = True
    forbidden: Collection[str] = ()
    flat_errors: bool = False
    odd_ids: Collection[int] = ()
    missing: Collection[int] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    absent: Collection[str] = ()
    abnormal: dict[str, int] = field(default_factory=dict)
    minute_limit: int = 2400
    limit_header: str = "X-Rate-Limit-Limit"
    _minute: float = field(default=float("-inf"), init=False)
    _used: int = field(default=0, init=False)

    def destination(self, url: str) -> dict[str, Any]:
        """Return the settings of a destination for this application."""
        return {
            "vendor": self.name,
            "base_url": url + BASE,
            "app_key": self.app_key,
            "master_secret": self.master_secret,
            "results_topic": self.results_topic,
        }

    def refused_credential(self) -> Reply:
        """Return the document's own sample of an error."""
        return _error_reply(401, 3001, "credential")

    def throttled(self, retry_after: str | None) -> Reply:
        """Return 429 with code 2002."""
        return _error_reply(429, 2002, "throttled", {} if retry_after is None else {"Retry-After": retry_after})

    def failed(self, status: int) -> Reply:
        """Return code 10 for 500; for other statuses a proxy's body, which is not JSON."""
        if status == 500:
            return _error_reply(500, 10, "status_500")
        return Reply(status, b"<html>upstream</html>", f"status_{status}", content_type="text/html")

    def answer(self, call: Call) -> Reply:
        """Answer the question, with how many more may be asked in this minute."""
        if call.at - self._minute >= 60:
            self._minute, self._used = call.at, 0
        self._used += 1
        left = max(0, self.minute_limit - self._used)
        reply = self._answer(call) if self._used <= self.minute_limit else self.throttled(None)
        if self.flat_errors and reply.status >= 400 and reply.body.startswith(b"{"):
            reply = replace(reply, body=orjson.dumps(orjson.loads(reply.body).get("error")))
        rate = {
            self.limit_header: str(self.minute_limit),
            "X-Rate-Limit-Remaining": str(left),
            "X-Rate-Limit-Reset": str(max(1, round(60 - (call.at - self._minute)))),
        }
        return replace(reply, headers={**reply.headers, **rate})

    def _answer(self, call: Call) -> Reply:
        expected = "Basic " + b64encode(f"{self.app_key}:{self.master_secret}".encode()).decode()
        if not compare_digest(call.headers.get("authorization", "").encode(), expected.encode()):
            return self.refused_credential()
        endpoint = call.path.removeprefix(BASE + "/")
        if endpoint in self.forbidden:
            return _error_reply(403, 2003, "credential")
        match call.method, endpoint:
            case "GET", "received" | "received/detail" | "messages" | "messages/detail":
                if endpoint.startswith("messages") and not self.vip:
                    return _error_reply(403, 2003, "credential")
                return self._by_id(endpoint, call)
            case "POST", "status/message":
                return self._status(call)
            case "GET", "users":
                return self._users(call) if self.vip else _error_reply(403, 2003, "credential")
        return Reply(404, b"<html>404 Not Found</html>", "not_found", content_type="text/html")

    def _by_id(self, endpoint: str, call: Call) -> Reply:
        names = [name for name, _ in call.query]
        ids = call.query[0][1].split(",") if names == ["msg_ids"] else []
        if not 1 <= len(ids) <= LARGEST_IDS or not all(_MSG_ID.fullmatch(each) for each in ids):
            return replace(_error_reply(400, 3002), records=len(ids))
        known = [each for each in dict.fromkeys(map(int, ids)) if each not in self.missing]
        body = [{**_FIGURES[endpoint](each), **({"msg_id": None} if each in self.odd_ids else {})} for each in known]
        asked = [AcceptedEvent({"endpoint": endpoint, "msg_id": int(each)}) for each in ids]
        return json_reply(200, body, "accepted", events=asked, records=len(ids), content_type="application/json")

    def _status(self, call: Call) -> Reply:
        if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _error_reply(400, 3002)
        try:
            question = orjson.loads(call.body)
        except ValueError:
            return _error_reply(400, 3002)
        if not _is_status_question(question):
            return _error_reply(400, 3002)
        ids = question["registration_ids"]
        if not 1 <= len(ids) <= LARGEST_REGISTRATIONS:
            return replace(_error_reply(400, 3002), records=len(ids))
        body = {each: {"status": self._status_of(each)} for each in ids if each not in self.absent}
        asked = AcceptedEvent({"endpoint": "status/message", **question})
        return json_reply(200, body, "accepted", events=[asked], records=len(ids))

    def _status_of(self, registration_id: str) -> int:
        if self.abnormal.get(registration_id, 0) > 0:
            self.abnormal[registration_id] -= 1
            return 4
        return self.statuses.get(registration_id, 0)

    def _users(self, call: Call) -> Reply:
        question = dict(call.query)
        if sorted(name for name, _ in call.query) != ["duration", "start", "time_unit"]:
            return _error_reply(400, 3002)
        unit, start = question["time_unit"], question["start"]
        if unit not in _UNITS or not re.fullmatch(r"[1-9]\d{0,3}", question["duration"]):
            return _error_reply(400, 3002)
        duration = int(question["duration"])
        pattern, form = _UNITS[unit]
        try:
            begin = datetime.strptime(start, form).replace(tzinfo=_SHANGHAI) if pattern.fullmatch(start) else None
        except ValueError:
            begin = None
        if begin is None:
            return _error_reply(400, 3004)
        times = _times(unit, begin, duration)
        if not _within_60_days(unit, begin, duration, call.wall):
            return _error_reply(400, 3005)
        items = [{"time": time, **({"android": {"active": n}} if n else {})} for n, time in enumerate(times)]
        body = {"time_unit": unit, "start": start, "duration": duration, "items": items}
        asked = AcceptedEvent({"endpoint": "users", "time_unit": unit, "start": start, "duration": duration})
        return json_reply(200, body, "accepted", events=[asked], records=1)


def _is_status_question(question: object) -> bool:
    if not isinstance(question, dict) or question.keys() - {"msg_id", "registration_ids", "date"}:
        return False
    msg_id, ids, day = question.get("msg_id"), question.get("registration_ids"), question.get("date", "2014-06-10")
    if not isinstance(msg_id, int) or isinstance(msg_id, bool) or not isinstance(ids, list):
        return False
    return all(isinstance(each, str) and each for each in ids) and isinstance(day, str) and _is_date(day)


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _times(unit: str, begin: datetime, duration: int) -> list[str]:
    """Return the items' times; for hours only those of the same day, as the document says."""
    form = _UNITS[unit][1]
    if unit == "HOUR":
        return [(begin + timedelta(hours=n)).strftime(form) for n in range(min(duration, 24 - begin.hour))]
    if unit == "DAY":
        return [(begin + timedelta(days=n)).strftime(form) for n in range(duration)]
    months = [begin.year * 12 + begin.month - 1 + n for n in range(duration)]
    return [f"{month // 12:04d}-{month % 12 + 1:02d}" for month in months]


def _within_60_days(unit: str, begin: datetime, duration: int, wall: float) -> bool:
    """Return whether the whole period is in the last 60 days; a month counts by its last day."""
    today = datetime.fromtimestamp(wall, UTC).astimezone(_SHANGHAI).date()
    if unit == "MONTH":
        months_ago = (today.year * 12 + today.month) - (begin.year * 12 + begin.month)
        return months_ago <= 2 and duration <= 2
    return today - begin.date() <= timedelta(days=60) and duration <= (60 if unit == "DAY" else 60 * 24)


def _received(msg_id: int) -> dict[str, object]:
    sent = msg_id % 1000
    return {
        "msg_id": str(msg_id),
        "android_received": sent,
        "ios_apns_sent": sent + 1,
        "ios_apns_received": sent // 2,
        "ios_msg_received": sent // 3,
        "wp_mpns_sent": None,
    }


def _received_detail(msg_id: int) -> dict[str, object]:
    sent = msg_id % 1000
    return {
        "msg_id": str(msg_id),
        "jpush_received": sent,
        "android_pns_sent": sent + 1,
        "android_pns_received": sent // 2,
        "ios_apns_sent": sent + 2,
        "ios_apns_received": sent // 3,
        "ios_msg_received": None,
        "wp_mpns_sent": None,
    }


def _messages(msg_id: int) -> dict[str, object]:
    sent = msg_id % 1000
    return {
        "android": {"received": sent, "target": sent + 4, "online_push": sent, "click": None, "msg_click": None},
        "ios": {
            "apns_sent": sent,
            "apns_target": sent,
            "apns_received": sent // 2,
            "click": None,
            "target": sent + 10,
            "received": sent + 8,
        },
        "winphone": {"mpns_target": 100, "mpns_sent": 100, "click": 100},
        "msg_id": str(msg_id),
    }


def _messages_detail(msg_id: int) -> dict[str, object]:
    sent = msg_id % 1000
    return {
        "msg_id": str(msg_id),
        "jpush": {"target": sent + 4, "online_push": sent, "received": sent, "click": None, "msg_click": None},
        "android_pns": {"pns_target": sent, "pns_sent": sent, "pns_received": sent // 2, "pns_click": None},
        "ios": {"apns_target": sent, "apns_sent": sent, "apns_received": sent // 2, "apns_click": None},
    }


_FIGURES: Final = {
    "received": _received,
    "received/detail": _received_detail,
    "messages": _messages,
    "messages/detail": _messages_detail,
}
