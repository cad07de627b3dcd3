"""Quick Audience's "Event Reporting API Specification 3.0", as strict as its document.

Options set what is unpublished: the largest batch and body, how far `timestamp` may be off, every errorCode, the status
of a refused signature. The signature follows the vendor's Open Platform description.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Final
from uuid import UUID

import orjson

from connector.testing.faults import Call
from connector.testing.simulator import AcceptedEvent, Reply, json_reply

PATH: Final = "/openapi/cloud/event/detail/receive"

_LONG: Final = range(-(2**63), 2**63)
_REQUIRED: Final = ("organizationId", "customerId", "eventCode")
_OPTIONAL: Final = ("workspaceId", "entityId", "isOrder", "comeFrom", "eventChannel")
_KNOWN: Final = {*_REQUIRED, *_OPTIONAL, "eventTime", "extendAttributes", "customerIdList"}
_PART_NAME: Final = re.compile(r'form-data; *name="([^"]*)"')
_BOUNDARY: Final = re.compile(
    r"multipart/form-data; *boundary=\"?([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\"?"
)

ERROR_CODES: Final[Mapping[str, str]] = {
    "parameter": "PARAM_ERROR",
    "signature": "SIGNATURE_ERROR",
    "expired": "TIMESTAMP_EXPIRED",
    "organization": "ORGANIZATION_ERROR",
    "event": "EVENT_NOT_EXIST",
    "limit": "LIMIT_EXCEEDED",
    "throttled": "FLOW_CONTROL",
    "internal": "SYSTEM_ERROR",
}
"""Invented, one for each kind of refusal: the vendor publishes none. `error_codes` overrides single ones."""


def sign(parameters: Mapping[str, str], access_secret: str) -> str:
    """Return the Authorization of a call: MD5 over the sorted query parameters and the secret, with raw values."""
    signed = {**parameters, "accessSecret": access_secret}
    text = "&".join(f"{name}={signed[name]}" for name in sorted(signed))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class _Malformed(Exception):
    """The request differs from the document; the message names the place."""


@dataclass(slots=True)
class QuickAudienceApi:
    """One application of one organization.

    `event_codes` are the events that exist (None: all), `refusals` gives the errorCode with which an event code is
    always refused, `entity` makes entityId required, `accepted_data` is the answer's `data` (the document's table calls
    it a string, its sample a boolean).
    """

    name = "quick_audience"

    app_id: str = "673198870988276864"
    access_key: str = "simulated-key"
    access_secret: str = "simulated-secret"
    access_id: str = "480002d3-bdc8-4244-9e20-c2d04c711583"
    event_codes: Collection[str] | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)
    error_codes: Mapping[str, str] = field(default_factory=dict)
    entity: bool = False
    window_seconds: float = 900.0
    largest_batch: int = 100
    largest_body: int = 2**20
    refused_status: int = 200
    credential_status: int = 401
    accepted_data: object = True

    def destination(self, url: str) -> dict[str, Any]:
        """Return the settings of a destination for this application."""
        return {
            "vendor": self.name,
            "base_url": url,
            "app_id": self.app_id,
            "access_key": self.access_key,
            "access_secret": self.access_secret,
            "access_id": self.access_id,
        }

    def refused_credential(self) -> Reply:
        """Return the answer to a wrong signature."""
        return self._refused("signature", "the signature does not match", 0, status=self.credential_status)

    def throttled(self, retry_after: str | None) -> Reply:
        """Return 429; neither a limit nor its answer is published."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return self._refused("throttled", "too many requests", 0, status=429, headers=headers)

    def failed(self, status: int) -> Reply:
        """Return an answer with another status than 200: the request failed."""
        return self._refused("internal", "system error", 0, status=status, verdict=f"status_{status}")

    def answer(self, call: Call) -> Reply:
        """Accept the whole list, or refuse the whole list for whatever is wrong in it."""
        if call.path != PATH or call.method != "POST":
            return Reply(404, b"Not Found", "not_found", content_type="text/plain")
        if len(call.body) > self.largest_body:
            return Reply(413, b"Request Entity Too Large", "too_large", content_type="text/plain")
        parameters = dict(call.query)
        if sorted(name for name, _ in call.query) != ["accessKey", "appId", "timestamp"]:
            return self._refused("parameter", "the query must be appId, timestamp and accessKey", call.number)
        signature = call.headers.get("authorization", "")
        known = parameters["appId"] == self.app_id and parameters["accessKey"] == self.access_key
        if not known or not compare_digest(signature.encode(), sign(parameters, self.access_secret).encode()):
            return self.refused_credential()
        if not re.fullmatch(r"\d{13}", parameters["timestamp"]):
            return self._refused("parameter", "timestamp must have 13 digits", call.number)
        if abs(call.wall - int(parameters["timestamp"]) / 1000) > self.window_seconds:
            return self._refused("expired", "timestamp has expired", call.number, status=self.credential_status)
        try:
            events = self._events(call)
            for index, event in enumerate(events):
                self._check(event, f"eventMessageModelList[{index}]")
        except _Malformed as error:
            return self._refused("parameter", str(error), call.number)
        return self._judge(events, call.number)

    def _judge(self, events: list[dict[str, Any]], number: int) -> Reply:
        records = len(events)
        if records > self.largest_batch:
            return self._refused("limit", f"at most {self.largest_batch} events", number, records=records)
        for event in events:
            code = event["eventCode"]
            if code in self.refusals:
                return self._refused(self.refusals[code], f"event {code} is refused", number, records=records)
            if self.event_codes is not None and code not in self.event_codes:
                return self._refused("event", f"event {code} does not exist", number, records=records)
        body = self._body(number, success=True, data=self.accepted_data)
        accepted = [AcceptedEvent(event) for event in events]
        return json_reply(200, body, "accepted", events=accepted, records=records)

    def _events(self, call: Call) -> list[dict[str, Any]]:
        fields = read_form(call.headers.get("content-type", ""), call.body)
        if sorted(fields) != ["accessId", "eventMessageModelListJson"]:
            raise _Malformed("the form must have the fields accessId and eventMessageModelListJson")
        if fields["accessId"] != self.access_id:
            raise _Malformed("accessId is not this application's organization")
        try:
            events = orjson.loads(fields["eventMessageModelListJson"])
        except ValueError as error:
            raise _Malformed("eventMessageModelListJson is not JSON") from error
        if not isinstance(events, list):
            raise _Malformed("eventMessageModelListJson is not an array")
        return events

    def _check(self, event: object, where: str) -> None:
        if not isinstance(event, dict):
            raise _Malformed(f"{where} must be an object")
        if unknown := sorted(event.keys() - _KNOWN):
            raise _Malformed(f"{where}: unknown field {unknown[0]}")
        for name in (*_REQUIRED, "entityId") if self.entity else _REQUIRED:
            if not isinstance(event.get(name), str) or not event[name]:
                raise _Malformed(f"{where}.{name} must be a string and not empty")
        for name in _OPTIONAL:
            if not isinstance(event.get(name), (str, type(None))):
                raise _Malformed(f"{where}.{name} must be a string")
        time = event.get("eventTime")
        if not isinstance(time, int) or isinstance(time, bool) or time not in _LONG:
            raise _Malformed(f"{where}.eventTime must be a Long")
        if event.get("isOrder") not in {None, "0", "1"}:
            raise _Malformed(f"{where}.isOrder must be 0 or 1")
        attributes = event.get("extendAttributes", {})
        if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
            raise _Malformed(f"{where}.extendAttributes must be a map of strings to strings")
        identities = event.get("customerIdList", [])
        if not isinstance(identities, list) or not all(_is_identity(each) for each in identities):
            raise _Malformed(f"{where}.customerIdList must have customerId and idMapping")

    def _refused(
        self,
        kind: str,
        reason: str,
        number: int,
        *,
        status: int | None = None,
        records: int = 0,
        verdict: str = "refused",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        code = {**ERROR_CODES, **self.error_codes}.get(kind, kind)
        body = self._body(number, success=False, data=False, code=code, description=reason)
        shown = {"signature": "credential", "expired": "credential", "throttled": "throttled"}.get(kind, verdict)
        return json_reply(status or self.refused_status, body, shown, records=records, headers=headers or {})

    def _body(
        self, number: int, *, success: bool, data: object, code: str | None = None, description: str | None = None
    ) -> dict[str, object]:
        trace = str(UUID(int=number, version=4))
        return {"data": data, "errorCode": code, "errorDesc": description, "success": success, "traceId": trace}


def _is_identity(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"customerId", "idMapping"}
        and all(isinstance(each, str) and each for each in value.values())
    )


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """Return the text fields of a multipart/form-data body, read strictly by RFC 2046 and RFC 7578."""
    match = _BOUNDARY.fullmatch(content_type)
    if match is None:
        raise _Malformed("Content-Type must be multipart/form-data with a boundary")
    delimiter = b"--" + match[1].encode()
    if not body.startswith(delimiter + b"\r\n"):
        raise _Malformed("the body does not begin with the boundary")
    *parts, end = (b"\r\n" + body).split(b"\r\n" + delimiter)
    if end not in {b"--", b"--\r\n"}:
        raise _Malformed("the body does not end with the closing boundary")
    fields: dict[str, str] = {}
    for part in parts[1:]:
        head, separator, content = part.partition(b"\r\n\r\n")
        if not separator or not head.startswith(b"\r\n"):
            raise _Malformed("a part has no headers")
        name = _part_name(head[2:])
        if name in fields:
            raise _Malformed(f"the field {name} occurs twice")
        try:
            fields[name] = content.decode()
        except UnicodeDecodeError as error:
            raise _Malformed(f"the field {name} is not UTF-8") from error
    return fields


def _part_name(head: bytes) -> str:
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "content-disposition" and (match := _PART_NAME.fullmatch(value.strip())):
            return match[1]
    raise _Malformed('a part has no Content-Disposition: form-data; name="..."')
