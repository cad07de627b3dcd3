"""Acme: `POST /events`, up to 50 JSON objects, one on each line."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import ClassVar, Final, Literal

from pydantic import Field, SecretStr

from connector.config import DestinationSettings, DocumentedLimits
from connector.records import Item
from connector.vendors.answers import LogText, json_value, verdict_of_status, verdict_of_unknown_body
from connector.vendors.base import (
    Accepted,
    CodeMeaning,
    FieldKind,
    Limits,
    Refused,
    Request,
    Response,
    VendorEvent,
    VendorKind,
    Verdict,
)
from connector.vendors.checks import Rules, json_bytes, rule_ids, rule_texts, type_name

RULES: Final = {
    "name.required": "must be given",
    "amount.type": "must be a whole number",
    "amount.range": "must be at most 1000",
}


class AcmeSettings(DestinationSettings):
    """An account at Acme."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=50, bytes=65_536, requests_per_second=10)

    vendor: Literal["acme"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://api.acme.example", description="Scheme and host of the API.")
    token: SecretStr = Field(min_length=1, description="The API token.")


class Acme:
    """One account at Acme."""

    def __init__(self, settings: AcmeSettings) -> None:
        token = settings.token.get_secret_value()
        documented, batch = settings.documented, settings.batch
        self._url = f"{settings.base_url}/events"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-ndjson"}
        self._rules = Rules("acme", RULES, settings.rules)
        self._log_text = LogText(token)
        # No prefix, no suffix, a line break between two items.
        self._limits = Limits(batch.records or documented.records, batch.bytes or documented.bytes, 0, 1)

    def group(self, event: VendorEvent) -> Hashable:
        """One endpoint, so all events share requests."""
        return None

    def limits(self, group: Hashable) -> Limits:
        """Return the limits of one request."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check the documented rules, then encode once. `dedup_id` is the same for every attempt."""
        fields = {name: value for name, value in event.fields.items() if value is not None}
        amount = fields.get("amount", 0)
        if not fields.get("name"):
            self._rules.broken("name.required", type_name(fields.get("name")))
        if type(amount) is not int:
            self._rules.broken("amount.type", type_name(amount))
        elif amount > 1000:
            self._rules.broken("amount.range", f"{amount}")
        return Item(json_bytes("acme", {"id": event.dedup_id, **fields}))

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return one attempt's request; a vendor that signs requests signs here."""
        return Request("POST", self._url, self._headers, b"\n".join(item.body for item in items))

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Read `{"ok": true}`, or 422 with `{"ok": false, "line": n, "why": text}`."""
        verdict = verdict_of_status(response, self._log_text)
        answer = json_value(response)
        if verdict is not None or not isinstance(answer, dict):
            return verdict or verdict_of_unknown_body(response, self._log_text)
        if answer.get("ok") is True and response.status == 200:
            return Accepted()
        line = answer.get("line")
        if response.status == 422 and type(line) is int and 0 <= line < len(items):
            return Refused("422", self._log_text(answer.get("why")), suspects=frozenset({line}))
        return verdict_of_unknown_body(response, self._log_text)


KIND: Final = VendorKind(
    name="acme",
    settings=AcmeSettings,
    build=Acme,
    schema="com.acme.Event",
    fields={"name": FieldKind("string", required=True), "amount": FieldKind("long")},
    rules=rule_ids("acme", RULES),
    rule_texts=rule_texts("acme", RULES),
    codes={"422": CodeMeaning("A line is invalid.", "Correct the event.")},
)
