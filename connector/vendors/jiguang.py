"""Jiguang Growth, Report User Event: `POST /smartop/api/v1/events/report`, a JSON object with up to 100 events.

One bad event fails the whole batch, and the error list has no index, only the offending values: they find the
suspects. The same (project, appKey, itime, cuid, randomId) counts once at the vendor, so `randomId` is always filled.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, SecretStr

from connector.config import DestinationSettings, DocumentedLimits
from connector.records import Item
from connector.vendors import jiguang_answers
from connector.vendors.answers import Words
from connector.vendors.base import FieldKind, Limits, Request, Response, Vendor, VendorEvent, VendorKind, Verdict
from connector.vendors.checks import LONG_MAX, LONG_MIN, Rules, epoch_millis, json_bytes, kind, rule_ids, scalar
from connector.vendors.jiguang_rules import RULES

_FUTURE_MS: Final = 5 * 60 * 1000
_PAST_MS: Final = 366 * 24 * 3600 * 1000
_TEXTS: Final = {str}
_INFINITY: Final = float("inf")


class JiguangSettings(DestinationSettings):
    """An account at Jiguang Growth: a project, and an API data source of it."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20, requests_per_second=100)

    vendor: Literal["jiguang"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://growth.jiguang.cn", description="Scheme and host of the API.")
    project_id: str = Field(min_length=1, description="The project's id, the user name of HTTP Basic.")
    project_secret: SecretStr = Field(min_length=1, description="The project's secret, the password of HTTP Basic.")
    app_key: str = Field(min_length=1, description="The appKey of the API data source.")


class Jiguang:
    """One project at Jiguang Growth."""

    def __init__(self, settings: JiguangSettings) -> None:
        secret = settings.project_secret.get_secret_value()
        basic = b64encode(f"{settings.project_id}:{secret}".encode()).decode()
        self._settings = settings
        self._rules = Rules("jiguang", RULES, settings.rules)
        self._expires = self._rules.on("itime.past")
        self._words = Words(secret, basic, settings.app_key)
        self._url = f"{settings.base_url.rstrip('/')}/smartop/api/v1/events/report"
        self._headers = {"Content-Type": "application/json", "Authorization": f"Basic {basic}"}
        self._prefix = b'{"appKey":' + json_bytes("jiguang", settings.app_key) + b',"data":['
        documented, batch = settings.documented, settings.batch
        self._limits = Limits(
            batch.records or documented.records, batch.bytes or documented.bytes, len(self._prefix) + 2, 1
        )

    def group(self, event: VendorEvent) -> Hashable:
        """Return None: all events share one endpoint."""
        return None

    def limits(self, group: Hashable) -> Limits:
        """Return what one request may hold."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the event and return it as a member of `data`."""
        get = event.fields.get
        cuid, name, itime, properties = get("cuid"), get("eventName"), get("itime"), get("properties")
        if type(cuid) is not int or not LONG_MIN <= cuid <= LONG_MAX:
            self._not_long("cuid", cuid)
        if type(name) is not str or not name:
            self._rules.broken("eventName.type" if name and type(name) is not str else "eventName.required", kind(name))
        if type(itime) is datetime and itime.tzinfo is not None:
            itime = epoch_millis(itime)
        if type(itime) is not int or not now - _PAST_MS <= itime <= now + _FUTURE_MS:
            self._odd_time(itime, now)
        random_id = get("randomId") or event.dedup_id
        if type(random_id) is not str:
            self._rules.broken("randomId.type", kind(random_id))
        datum = {"cuid": cuid, "eventName": name, "itime": itime, "randomId": random_id}
        if properties:
            if type(properties) is dict:
                properties = self._properties(properties)
            else:
                self._rules.broken("properties.type", kind(properties))
            if properties:
                datum["properties"] = properties
        if cuid is None or name is None or itime is None:
            datum = {field: value for field, value in datum.items() if value is not None}
        expires = itime + _PAST_MS if self._expires and type(itime) is int else None
        # Once for each event: past the slower `__new__` of named tuples.
        item: Item = tuple.__new__(Item, (json_bytes("jiguang", datum), 1, None, expires, None))
        return item

    def _properties(self, properties: dict[str, Any]) -> dict[str, Any]:
        """Return the properties that are sent; the common kinds pass without a copy: every event comes this way."""
        if "" in properties:
            self._rules.broken("properties.name", "an empty name")
        odd = []
        lowest, highest, infinity = LONG_MIN, LONG_MAX, _INFINITY
        for name, value in properties.items():
            sort = type(value)
            if sort is str or sort is bool:
                continue
            if sort is int:
                if lowest <= value <= highest:
                    continue
            elif sort is float:
                if -infinity < value < infinity:
                    continue
            elif sort is list and set(map(type, value)) <= _TEXTS:
                continue
            odd.append(name)
        if not odd:
            return properties
        plain = dict(properties)
        for name in odd:
            value = self._plain(plain[name])
            if value is None:
                del plain[name]
            else:
                plain[name] = value
        return plain

    def _plain(self, value: Any) -> Any:
        """Return a property of an uncommon kind as it is sent; None leaves it out."""
        if isinstance(value, list | tuple):
            if not all(isinstance(element, str) for element in value):
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
        if isinstance(value, int) and not LONG_MIN <= value <= LONG_MAX:
            self._rules.broken("properties.range", "a larger whole number")
        return value

    def _not_long(self, field: str, value: object) -> None:
        larger = type(value) is int
        self._rules.broken(
            f"{field}.required" if value is None else f"{field}.type",
            "a larger whole number" if larger else kind(value),
        )

    def _odd_time(self, itime: Any, now: int) -> None:
        if type(itime) is not int or not LONG_MIN <= itime <= LONG_MAX:
            self._not_long("itime", itime)
        elif itime > now + _FUTURE_MS:
            self._rules.broken("itime.future", "later")
        else:
            self._rules.broken("itime.past", "earlier, or not in milliseconds")

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the report of one batch."""
        body = b"".join((self._prefix, b",".join([item.body for item in items]), b"]}"))
        return Request("POST", self._url, self._headers, body)

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means; only `code` 0 with a 2xx is success."""
        return jiguang_answers.read(response, items, self._settings.codes, self._words)


def _build(settings: JiguangSettings) -> Vendor:
    return Jiguang(settings)


KIND: Final = VendorKind(
    name="jiguang",
    settings=JiguangSettings,
    build=_build,
    reads_codes=True,
    schema="connector.events.JiguangUserEvent",
    fields={
        "cuid": FieldKind("long", required=True),
        "eventName": FieldKind("string", required=True),
        "itime": FieldKind("millis", required=True),
        "randomId": FieldKind("string"),
        "properties": FieldKind("map"),
    },
    rules=rule_ids("jiguang", RULES),
)
