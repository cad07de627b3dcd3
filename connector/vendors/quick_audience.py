"""Quick Audience, Event Reporting 3.0: `POST /openapi/cloud/event/detail/receive`, a form with a JSON array as text.

Each attempt is signed with its own time. Success is HTTP 200 and `success` true. What an errorCode means is not
published: the destination's `codes:` says it, and what it does not say is believed on evidence only.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.records import Item
from connector.vendors.answers import Words, by_setting, by_status, parsed, request_id, unread
from connector.vendors.base import (
    Accepted,
    FieldKind,
    Limits,
    Misconfigured,
    Refused,
    Request,
    Response,
    Retry,
    VendorEvent,
    VendorKind,
    Verdict,
)
from connector.vendors.checks import LONG_MAX, LONG_MIN, Rules, json_bytes, kind, plain, rule_ids
from connector.vendors.quick_audience_form import form, form_around, signature
from connector.vendors.quick_audience_model import (
    ID_PARTS,
    OPTIONAL,
    REQUIRED,
    RULES,
    TEXTS,
    attributes,
    is_of_the_account,
)


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
        self._words = Words(self._secret, settings.access_key)
        self._url = f"{settings.base_url.rstrip('/')}/openapi/cloud/event/detail/receive"
        shape = form(settings.access_id)
        self._limits = Limits(
            batch.records or documented.records,
            batch.bytes or documented.bytes,
            len(shape.prefix) + len(shape.suffix),
            1,
        )

    def group(self, event: VendorEvent) -> Hashable:
        """Return None: all events share one endpoint."""
        return None

    def limits(self, group: Hashable) -> Limits:
        """Return what one request may hold, the form's own bytes counted."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the event and return it as a member of the list."""
        fields, rules = event.fields, self._rules
        datum: dict[str, Any] = {"organizationId": self._organization}
        for name, required in TEXTS:
            value = fields.get(name)
            if not value or type(value) is not str:
                value = self._text(name, value, required=required)
            if value is not None:
                datum[name] = value
        if not fields.get("entityId") and (event.entity or self._settings.entity):
            rules.broken("entityId.required", kind(fields.get("entityId")))
        time = plain(fields.get("eventTime"))
        if type(time) is not int or not LONG_MIN <= time <= LONG_MAX:
            rules.broken("eventTime.required" if time is None else "eventTime.type", kind(time))
        if time is not None:
            datum["eventTime"] = time
        order = fields.get("isOrder")
        if order is not None:
            order = str(int(order)) if isinstance(order, int) else order
            if order not in ("0", "1"):
                rules.broken("isOrder.value", kind(order))
            datum["isOrder"] = order
        if fields.get("extendAttributes"):
            datum["extendAttributes"] = attributes(fields["extendAttributes"], rules)
        if fields.get("customerIdList"):
            datum["customerIdList"] = self._ids(fields["customerIdList"])
        return Item(json_bytes("quick_audience", datum))

    def _text(self, name: str, value: Any, *, required: bool) -> Any:
        value = plain(value)
        if value is None or (required and value == ""):
            if required:
                self._rules.broken(f"{name}.required", kind(value))
        elif type(value) is not str:
            self._rules.broken(f"{name}.type", kind(value))
        return value

    def _ids(self, ids: Any) -> Any:
        if not isinstance(ids, list | tuple) or not all(isinstance(member, Mapping) for member in ids):
            self._rules.broken("customerIdList.type", kind(ids))
            return ids
        parts = [
            {name: self._text(f"customerIdList.{name}", member.get(name), required=True) for name in ID_PARTS}
            for member in ids
        ]
        return [{name: value for name, value in member.items() if value is not None} for member in parts]

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the form of one batch, signed for `now`. Only query parameters are signed, with their raw values."""
        settings, joined = self._settings, b",".join([item.body for item in items])
        shape = form_around(settings.access_id, joined)
        query = {"appId": settings.app_id, "timestamp": str(now), "accessKey": settings.access_key}
        headers = {
            "Content-Type": f"multipart/form-data; boundary={shape.boundary.decode()}",
            "Authorization": signature({**query, "accessSecret": self._secret}),
        }
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return Request("POST", f"{self._url}?{text}", headers, shape.prefix + joined + shape.suffix)

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means. `success` true with `data` false is no acceptance."""
        words, codes, answer = self._words, self._settings.codes, parsed(response.body)
        fields = answer if isinstance(answer, dict) else {}
        rid = words(fields.get("traceId")) or request_id(response.headers)
        given = fields.get("errorCode")
        code = words(str(given)) if isinstance(given, str | int) and given != "" else ""
        reason = words(f"errorCode {code or 'missing'}: {words(fields.get('errorDesc'))}")
        if code in codes and fields.get("success") is not True:
            return by_setting(codes[code], code, reason, request_id=rid)
        verdict = by_status(response, words, codes, code=code or None, said=reason if code else "")
        if verdict is not None:
            return replace(verdict, request_id=rid)
        success = fields.get("success")
        if success is True and response.status == 200:
            if fields.get("data") in (False, "false"):
                return Retry("success with data false: neither accepted nor refused", request_id=rid)
            return Accepted(request_id=rid)
        if success is not False:
            return unread(response, words, codes)
        if is_of_the_account(code):
            return Misconfigured(code, reason, request_id=rid)
        return Refused(code or f"http_{response.status}", reason, documented=False, request_id=rid)


KIND: Final = VendorKind(
    name="quick_audience",
    settings=QuickAudienceSettings,
    build=QuickAudience,
    reads_codes=True,
    as_json=frozenset({"extendAttributes"}),
    schema="connector.events.QuickAudienceEvent",
    fields={
        **{name: FieldKind("string", required=name in REQUIRED) for name in (*REQUIRED, *OPTIONAL)},
        "eventTime": FieldKind("millis", required=True),
        "isOrder": FieldKind("any"),
        "extendAttributes": FieldKind("string_map"),
        "customerIdList": FieldKind("records"),
    },
    rules=rule_ids("quick_audience", RULES),
)
