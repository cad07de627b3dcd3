"""Quick Audience, Event Reporting 3.0: `POST /openapi/cloud/event/detail/receive`, a form with a JSON array as text.

Each attempt is signed with its own time. Success is HTTP 200 and `success` true. The vendor does not publish what an
errorCode means. The destination's `codes:` can give meanings; any other code is believed only with evidence.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from secrets import token_hex
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from orjson import Fragment
from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.records import Item
from connector.vendors.answers import LogText, json_value, request_id, verdict_of_status, verdict_of_unknown_body
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
    VendorEvent,
    VendorKind,
    Verdict,
)
from connector.vendors.checks import (
    LONG_MAX,
    LONG_MIN,
    Rules,
    json_bytes,
    rule_ids,
    rule_texts,
    scalar_or_same,
    type_name,
)

OPTIONAL: Final = ("organizationId", "workspaceId", "entityId", "comeFrom", "eventChannel")
REQUIRED: Final = ("customerId", "eventCode")
STRINGS: Final = (*((name, True) for name in REQUIRED), *((name, False) for name in OPTIONAL))
"""The string parameters, and whether an event needs them."""
ID_PARTS: Final = ("customerId", "idMapping")

RULES: Final[Mapping[str, str]] = {
    **{f"{name}.required": "must be given and not be empty" for name in REQUIRED},
    **{f"{name}.type": "must be a string" for name in (*REQUIRED, *OPTIONAL)},
    "entityId.required": "must be given for an entity that is not a person",
    "eventTime.required": "must be given",
    "eventTime.type": "must be a point in time, in epoch milliseconds of 64 bits",
    "isOrder.value": 'must be "0" or "1"',
    "extendAttributes.type": "must be an object",
    "extendAttributes.value": "must have values that can be written as text",
    "customerIdList.type": "must be a list of objects",
    **{f"customerIdList.{name}.required": "must be given and not be empty" for name in ID_PARTS},
    **{f"customerIdList.{name}.type": "must be a string" for name in ID_PARTS},
}

CODES: Final[Mapping[str, CodeMeaning]] = {
    "http_401": CodeMeaning("The signature or the account was refused.", "Check access_key, access_secret and app_id."),
    "http_403": CodeMeaning(
        "The app may not write to this organization.", "Check access_id and the app's permissions."
    ),
}
"""The document lists no errorCode, so only statuses have a meaning here."""

# Matches `sign` as in signature or SignatureInvalid, but not as in design or assign.
_ACCOUNT: Final = re.compile(r"(?<!de)(?<!as)sign|access|auth|permission|forbidden|app_?id|timestamp", re.IGNORECASE)
_EVENT: Final = re.compile(r"event|entity|customer|attribute|mapping|param", re.IGNORECASE)
_BOUNDARY_BYTES: Final = 16


class QuickAudienceSettings(DestinationSettings):
    """An organization at Quick Audience, and the app that may write to it."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20)

    vendor: Literal["quick_audience"] = Field(description="The vendor's name.")
    base_url: str = Field(description="Scheme and host of the customer's own endpoint.")
    app_id: str = Field(min_length=1, description="The app's id on the open platform (appId).")
    access_key: str = Field(min_length=1, description="The app's access key (accessKey).")
    access_secret: SecretStr = Field(min_length=1, description="The app's secret; signs each request, is never sent.")
    access_id: str = Field(pattern=r"^[^\r\n]+$", description="The organization's or tenant's id (accessId).")
    organization_id: str | None = Field(
        default=None, min_length=1, description="The organizationId of events without one; unset: access_id."
    )
    entity: bool = Field(
        default=False, description="Events are about entities that are not persons: entityId is needed."
    )


class QuickAudience:
    """One organization at Quick Audience."""

    def __init__(self, settings: QuickAudienceSettings) -> None:
        documented, batch = settings.documented, settings.batch
        self._settings = settings
        self._secret = settings.access_secret.get_secret_value()
        self._organization = settings.organization_id or settings.access_id
        self._rules = Rules("quick_audience", RULES, settings.rules)
        self._log_text = LogText(self._secret, settings.access_key)
        self._url = f"{settings.base_url.rstrip('/')}/openapi/cloud/event/detail/receive"
        # Only the length matters here: every attempt has another boundary of the same length.
        prefix, suffix = form_parts(settings.access_id, "0" * 2 * _BOUNDARY_BYTES)
        self.clock_ahead = 0
        self.shape = Shape(
            (
                ShapeField("organizationId", "text", "default", self._organization),
                *(
                    ShapeField(
                        name, "text", "needed" if required or (name == "entityId" and settings.entity) else "left_out"
                    )
                    for name, required in STRINGS
                    if name != "organizationId"
                ),
                ShapeField("eventTime", "long"),
                ShapeField("isOrder", "text", "left_out", choices=("0", "1")),
                ShapeField("extendAttributes", "texts", "left_out"),
                ShapeField("customerIdList", "empty", "left_out"),
            )
        )
        self._limits = Limits(
            batch.records or documented.records,
            batch.bytes or documented.bytes,
            len(prefix) + len(suffix),
            1,
        )

    def group(self, event: VendorEvent) -> Hashable:
        """Return None: all events share one endpoint."""
        return None

    def limits(self, group: Hashable) -> Limits:
        """Return the limits of one request; the form's own bytes count."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the event and return it as a member of the list."""
        fields, rules = event.fields, self._rules
        datum: dict[str, Any] = {"organizationId": self._organization}
        for name, required in STRINGS:
            value = fields.get(name)
            # An empty id counts as missing, and the default that is already in `datum` stays.
            if value == "" and name == "organizationId":
                continue
            if not value or type(value) is not str:
                value = self._checked_string(name, value, required=required)
            if value is not None:
                datum[name] = value
        if not fields.get("entityId") and (event.entity or self._settings.entity):
            rules.broken("entityId.required", type_name(fields.get("entityId")))
        time = scalar_or_same(fields.get("eventTime"))
        if type(time) is not int or not LONG_MIN <= time <= LONG_MAX:
            rules.broken("eventTime.required" if time is None else "eventTime.type", type_name(time))
        if time is not None:
            datum["eventTime"] = time
        order = fields.get("isOrder")
        if order is not None:
            # A mapped schema may have a boolean or a number; the document wants the strings "0" and "1".
            order = str(int(order)) if isinstance(order, int) else order
            if order not in ("0", "1"):
                rules.broken("isOrder.value", type_name(order))
            datum["isOrder"] = order
        if fields.get("extendAttributes"):
            datum["extendAttributes"] = _attributes_as_text(fields["extendAttributes"], rules)
        if fields.get("customerIdList"):
            datum["customerIdList"] = self._checked_ids(fields["customerIdList"])
        return Item(json_bytes("quick_audience", datum))

    def _checked_string(self, name: str, value: Any, *, required: bool) -> Any:
        value = scalar_or_same(value)
        if value is None or (required and value == ""):
            if required:
                self._rules.broken(f"{name}.required", type_name(value))
        elif type(value) is not str:
            self._rules.broken(f"{name}.type", type_name(value))
        return value

    def _checked_ids(self, ids: Any) -> Any:
        if not isinstance(ids, list | tuple) or not all(isinstance(member, Mapping) for member in ids):
            self._rules.broken("customerIdList.type", type_name(ids))
            return ids
        parts = [
            {name: self._checked_string(f"customerIdList.{name}", member.get(name), required=True) for name in ID_PARTS}
            for member in ids
        ]
        return [{name: value for name, value in member.items() if value is not None} for member in parts]

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the form of one batch, signed for `now`. Only query parameters are signed, with their raw values."""
        settings, boundary = self._settings, token_hex(_BOUNDARY_BYTES)
        prefix, suffix = form_parts(settings.access_id, boundary)
        # `timestamp` is now and is signed, so a retry needs a signature of its own.
        query = {"appId": settings.app_id, "timestamp": str(now), "accessKey": settings.access_key}
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Authorization": signature({**query, "accessSecret": self._secret}),
        }
        # Signed raw, then encoded once; the transport sends the URL
        # unchanged. Encoding twice would break the signature.
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        body = b"".join((prefix, b",".join([item.body for item in items]), suffix))
        return Request("POST", f"{self._url}?{text}", headers, body)

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means. `success` true with `data` false is not an acceptance."""
        log_text, answer = self._log_text, json_value(response, "gb18030")
        fields = answer if isinstance(answer, dict) else {}
        rid = log_text(fields.get("traceId")) or request_id(response.headers)
        given = fields.get("errorCode")
        code = log_text(str(given)) if isinstance(given, str | int) and given != "" else ""
        reason = log_text(f"errorCode {code or 'missing'}: {log_text(fields.get('errorDesc'))}")
        success = fields.get("success")
        verdict = verdict_of_status(response, log_text, code=code or None, message=reason if code else "")
        if verdict is not None:
            return replace(verdict, request_id=rid)
        # Faults also come with 200, so `success` decides; and it must be the JSON `true`, not a text.
        if success is True and response.status == 200:
            # `data` null counts as accepted. False contradicts `success`, so neither is believed.
            if fields.get("data") in (False, "false"):
                return Retry("success with data false: neither accepted nor refused", request_id=rid)
            return Accepted(request_id=rid)
        if success is not False:
            return verdict_of_unknown_body(response, log_text)
        # No list of codes is published. If a wrong signature were blamed on records, it would drain the topic into dead
        # letters.
        if is_of_the_account(code):
            return Misconfigured(code, reason, request_id=rid)
        return Refused(code or f"http_{response.status}", reason, documented=False, request_id=rid)


def form_parts(access_id: str, boundary: str) -> tuple[bytes, bytes]:
    """Return the parts of the form before and after the events; their lengths are the same for every boundary.

    The boundary is random, so that no event can contain it. A fixed one would have to be searched for in the events,
    which could be made slow. The part has a charset, because without one it may be read as ISO-8859-1.
    """
    delimiter = b"--" + boundary.encode()
    part = delimiter + b'\r\nContent-Disposition: form-data; name="%b"\r\n'
    part += b"Content-Type: text/plain; charset=UTF-8\r\n\r\n"
    account = (part % b"accessId") + access_id.encode() + b"\r\n"
    return account + (part % b"eventMessageModelListJson") + b"[", b"]\r\n" + delimiter + b"--\r\n"


def signature(values: Mapping[str, str]) -> str:
    """Return the lower-case MD5 of `name=value` joined by `&` in the order of the names (Open Platform API)."""
    text = "&".join(f"{name}={values[name]}" for name in sorted(values))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def is_of_the_account(code: str) -> bool:
    """Return whether an errorCode's words are about the account. If they are about an event too, evidence is needed.

    The vendor publishes no list of codes, so the words in the code decide, but never an event's text.
    """
    return _ACCOUNT.search(code) is not None and _EVENT.search(code) is None


def _attributes_as_text(given: Any, rules: Rules) -> Any:
    """Return an event's attributes as strings, the only type the vendor accepts; other values become JSON text."""
    if type(given) is Fragment:
        return given
    if not isinstance(given, Mapping):
        rules.broken("extendAttributes.type", type_name(given))
        return given
    texts = {name: value for name, value in given.items() if type(value) is str}
    for name, value in given.items():
        # Nearly all values are strings, and those need no check.
        if name in texts:
            continue
        shown = value if isinstance(value, Mapping | list | tuple) else scalar_or_same(value)
        if not _is_finite(shown):
            rules.broken("extendAttributes.value", "an object with NaN or infinity")
        if isinstance(shown, bytes):
            rules.broken("extendAttributes.value", "an object with bytes")
        if shown is not None:
            texts[name] = shown if type(shown) is str else json_bytes("quick_audience", shown).decode()
    return texts


def _is_finite(value: object) -> bool:
    """Return whether no number in a value, at any depth, is NaN or infinite: JSON would show null instead."""
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    # NaN - NaN and infinity - infinity are NaN, which equals nothing.
    return not isinstance(value, float) or value - value == 0


KIND: Final = VendorKind(
    name="quick_audience",
    settings=QuickAudienceSettings,
    build=QuickAudience,
    codes=CODES,
    as_json=frozenset({"extendAttributes"}),
    schema="connector.events.QuickAudienceEvent",
    fields={
        **{name: FieldKind("string", required=name in REQUIRED) for name in (*REQUIRED, *OPTIONAL)},
        "eventTime": FieldKind("millis", required=True),
        "isOrder": FieldKind("any"),
        "extendAttributes": FieldKind("string_map"),
        "customerIdList": FieldKind("string_records"),
    },
    rules=rule_ids("quick_audience", RULES),
    rule_texts=rule_texts("quick_audience", RULES),
)
