"""Jiguang Growth, Report User Event: `POST /smartop/api/v1/events/report`, a JSON object with up to 100 events.

One bad event fails the whole batch, and the error list has no index, only the offending values: they find the
suspects. The same (project, appKey, itime, cuid, randomId) counts once at the vendor, so `randomId` is always filled.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Hashable, Sequence
from typing import ClassVar, Final, Literal

from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.records import Item
from connector.vendors import jiguang_answers
from connector.vendors.answers import Words
from connector.vendors.base import FieldKind, Limits, Request, Response, Vendor, VendorEvent, VendorKind, Verdict
from connector.vendors.checks import Rules, json_bytes, rule_ids
from connector.vendors.jiguang_event import Events
from connector.vendors.jiguang_rules import RULES


class JiguangSettings(DestinationSettings):
    """An account at Jiguang Growth: a project, and an API data source of it."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=100, bytes=2**20, requests_per_second=100)

    vendor: Literal["jiguang"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://growth.jiguang.cn", description="Scheme and host of the API.")
    project_id: str = Field(min_length=1, description="The project's id, the user name of HTTP Basic.")
    project_secret: SecretStr = Field(min_length=1, description="The project's secret, the password of HTTP Basic.")
    app_key: str = Field(min_length=1, description="The appKey of the API data source.")


class Jiguang(Events):
    """One project at Jiguang Growth."""

    def __init__(self, settings: JiguangSettings) -> None:
        secret = settings.project_secret.get_secret_value()
        basic = b64encode(f"{settings.project_id}:{secret}".encode()).decode()
        self._settings = settings
        super().__init__(Rules("jiguang", RULES, settings.rules))
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
)
