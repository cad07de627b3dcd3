"""Jiguang Growth's "Report User Event API", as strict as its document.

Options set what the document leaves open: the HTTP status of an error, the length of a year, and which events,
attributes and users exist.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Any, Final, TypeGuard

import orjson

from connector.testing.faults import Call
from connector.testing.simulator import AcceptedEvent, Reply, json_reply

PATH: Final = "/smartop/api/v1/events/report"
LARGEST_BATCH: Final = 100
LARGEST_BODY: Final = 2**20
"""The document gives no size; 1 MiB is assumed."""

_AHEAD_MS: Final = 5 * 60 * 1000
_DAY_MS: Final = 24 * 60 * 60 * 1000
_LONG: Final = range(-(2**63), 2**63)
_DATETIME_FORMATS: Final = (
    (re.compile(r"\d{8}"), "%Y%m%d"),
    (re.compile(r"\d{4}-\d{2}-\d{2}"), "%Y-%m-%d"),
    (re.compile(r"\d{8}_\d{6}"), "%Y%m%d_%H%M%S"),
    (re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}"), "%Y-%m-%d %H:%M:%S"),
)
_BOOLEANS: Final = (True, False, 0, 1, "true", "false", "0", "1")


@dataclass(frozen=True, slots=True)
class _ErrorReply:
    code: int
    msg: str


@dataclass(slots=True)
class JiguangApi:
    """One project with one API data source.

    `events` maps each event that exists to its attributes and their types (`string`, `number`, `bool`, `datetime`,
    `list`); None: every event exists and attributes are not looked up. An attribute that is not an event's is ignored,
    as the document says, unless `ignore_unknown_attributes` is off; one in `disabled`, a set of (event, attribute), is
    always 4102. `knows_cuid` returns whether a user exists. With `empty_success` a success is an empty 200, as the
    document allows. `lengths` are the longest strings (4003) and lists (4002) by field or attribute name.
    """

    name = "jiguang"

    project_id: str = "100102"
    project_secret: str = "simulated-secret"
    app_key: str = "96441e4d73207a6517abfbbc"
    events: Mapping[str, Mapping[str, str]] | None = None
    ignore_unknown_attributes: bool = True
    disabled: Collection[tuple[str, str]] = ()
    knows_cuid: Callable[[int], bool] | None = None
    lengths: Mapping[str, int] | None = None
    oldest_days: int = 365
    empty_success: bool = False
    error_status: int = 200
    largest_body: int = LARGEST_BODY

    def destination(self, url: str) -> dict[str, Any]:
        """Return the settings of a destination for this project."""
        return {
            "vendor": self.name,
            "base_url": url,
            "project_id": self.project_id,
            "project_secret": self.project_secret,
            "app_key": self.app_key,
        }

    def refused_credential(self) -> Reply:
        """Return 401 with the code of an invalid project or appKey."""
        return json_reply(401, {"code": 4100, "msg": "appKey 或者项目 id 无效"}, "credential")

    def throttled(self, retry_after: str | None) -> Reply:
        """Return 429; the document gives the limit (100 a second) but not the answer."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return Reply(429, b"Too Many Requests", "throttled", headers=headers, content_type="text/plain")

    def failed(self, status: int) -> Reply:
        """Return another status. The document has none, so the body is like that of a proxy."""
        return Reply(status, b"<html>upstream</html>", f"status_{status}", content_type="text/html")

    def answer(self, call: Call) -> Reply:
        """Accept the whole batch, or refuse the whole batch for whatever is wrong in it."""
        if call.path != PATH:
            return Reply(404, b"Not Found", "not_found", content_type="text/plain")
        if call.method != "POST":
            return Reply(405, b"Method Not Allowed", "not_found", content_type="text/plain")
        if len(call.body) > self.largest_body:
            return Reply(413, b"Request Entity Too Large", "too_large", content_type="text/plain")
        expected = "Basic " + b64encode(f"{self.project_id}:{self.project_secret}".encode()).decode()
        if not compare_digest(call.headers.get("authorization", "").encode(), expected.encode()):
            return self.refused_credential()
        if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return Reply(415, b"Unsupported Media Type", "refused", content_type="text/plain")
        try:
            report = orjson.loads(call.body)
        except ValueError:
            return self._refused([_ErrorReply(4001, "body 字段类型错误")], 0)
        return self._judge(report, call)

    def _judge(self, report: object, call: Call) -> Reply:
        if not isinstance(report, dict):
            return self._refused([_ErrorReply(4001, "body 字段类型错误")], 0)
        app_key, data = report.get("appKey"), report.get("data")
        records = len(data) if isinstance(data, list) else 0
        errors = _check(app_key, "appKey", str) + _check(data, "data", list)
        if errors or not isinstance(data, list):
            return self._refused(errors, records)
        if app_key != self.app_key:
            return self._refused([_ErrorReply(4100, "appKey 或者项目 id 无效")], records)
        if records > LARGEST_BATCH:
            return self._refused([_ErrorReply(4002, "data 字段数组大小超出范围")], records)
        now = int(call.wall * 1000)
        errors = [error for record in data for error in self._record(record, now)]
        if errors:
            return self._refused(errors, records)
        events = [AcceptedEvent(record, self._key(record)) for record in data]
        if self.empty_success:
            return Reply(200, b"", "accepted", events=events, records=records)
        return json_reply(200, {"code": 0, "msg": "ok"}, "accepted", events=events, records=records)

    def _refused(self, errors: list[_ErrorReply], records: int) -> Reply:
        listed = [{"code": error.code, "msg": error.msg} for error in errors]
        verdict = "credential" if errors[0].code == 4100 else "refused"
        if len(listed) == 1:
            return json_reply(self.error_status, listed[0], verdict, records=records)
        body = {"code": 4000, "msg": "请求有多个错误,请在data中查看错误码列表", "data": listed}
        return json_reply(self.error_status, body, verdict, records=records)

    def _key(self, record: Mapping[str, Any]) -> Hashable:
        """Return the vendor's deduplication key; without a randomId the vendor generates one, so nothing is equal."""
        if not record.get("randomId"):
            return None
        return (self.project_id, self.app_key, record["itime"], record["cuid"], record["randomId"])

    def _record(self, record: object, now: int) -> list[_ErrorReply]:
        if not isinstance(record, dict):
            return [_ErrorReply(4001, "data 字段类型错误")]
        cuid, name, itime = record.get("cuid"), record.get("eventName"), record.get("itime")
        errors = _check(cuid, "cuid", int) + _check(name, "eventName", str) + _check(itime, "itime", int)
        if "randomId" in record and not isinstance(record["randomId"], str):
            errors.append(_ErrorReply(4001, "randomId 字段类型错误"))
        for field in ("eventName", "randomId"):
            errors.extend(self._too_long(field, record.get(field)))
        if _is_long(itime) and not now - self.oldest_days * _DAY_MS <= itime <= now + _AHEAD_MS:
            errors.append(_ErrorReply(4104, f"itime {itime} 时间戳超出合理范围"))
        if _is_long(cuid) and self.knows_cuid is not None and not self.knows_cuid(cuid):
            errors.append(_ErrorReply(4103, f"cuid {cuid} 对应的用户不存在"))
        if isinstance(name, str) and name and self.events is not None and name not in self.events:
            errors.append(_ErrorReply(4101, f"事件 {name} 不存在"))
        if "properties" not in record:
            return errors
        properties = record["properties"]
        if not isinstance(properties, dict):
            return [*errors, _ErrorReply(4001, "properties 字段类型错误")]
        for attribute, value in properties.items():
            errors.extend(self._attribute(name if isinstance(name, str) else "", attribute, value))
        return errors

    def _attribute(self, event: str, attribute: str, value: object) -> list[_ErrorReply]:
        if (event, attribute) in self.disabled:
            return [_ErrorReply(4102, f"事件 {event} 的属性 {attribute} 不存在或已停用")]
        known = (self.events or {}).get(event)
        if known is not None and attribute not in known:
            if self.ignore_unknown_attributes:
                return []
            return [_ErrorReply(4102, f"事件 {event} 的属性 {attribute} 不存在或已停用")]
        wanted = known[attribute] if known is not None else "any"
        if not _ATTRIBUTE_TYPES[wanted](value):
            return [_ErrorReply(4105, f"{attribute} 属性值类型应为 {wanted}")]
        return self._too_long(attribute, value)

    def _too_long(self, field: str, value: object) -> list[_ErrorReply]:
        limit = (self.lengths or {}).get(field)
        if limit is None or not isinstance(value, (str, list)) or len(value) <= limit:
            return []
        if isinstance(value, list):
            return [_ErrorReply(4002, f"{field} 字段数组大小超出范围")]
        return [_ErrorReply(4003, f"{field} 字段长度超出范围")]


def _is_long(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value in _LONG


def _check(value: object, field: str, kind: type) -> list[_ErrorReply]:
    """Return 4004 for a missing or empty value, 4001 for one of another type."""
    if value is None or value in ("", []):
        return [_ErrorReply(4004, f"{field} 字段不能为空")]
    if not isinstance(value, kind) or (kind is int and not _is_long(value)):
        return [_ErrorReply(4001, f"{field} 字段类型错误")]
    return []


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_datetime(value: object) -> bool:
    if isinstance(value, str):
        return any(pattern.fullmatch(value) and _parses(value, form) for pattern, form in _DATETIME_FORMATS)
    return _is_long(value)


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)  # noqa: DTZ007 - only whether it is a date at all
    except ValueError:
        return False
    return True


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_ATTRIBUTE_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "bool": lambda value: isinstance(value, (bool, int, str)) and value in _BOOLEANS,
    "datetime": _is_datetime,
    "list": _is_list,
    "any": lambda value: isinstance(value, (str, bool, int, float)) or _is_list(value),
}
