"""MyTracker, S2S import of events: `POST /v1/<method>Batch/?idApp=`, a bare JSON array of up to 20 sets, 10,000 bytes.

A batch holds one method. One bad set fails the whole batch without a word about which. There is no event id: a repeat
after an unknown outcome may count twice.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.errors import Refusal
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
    Vendor,
    VendorEvent,
    VendorKind,
    Verdict,
)
from connector.vendors.checks import Rules, epoch_millis, json_bytes, kind, plain, rule_ids
from connector.vendors.mytracker_parameters import DEVICES, METHODS, NUMBERS, PLATFORMS, RULES, TEXTS


class MyTrackerSettings(DestinationSettings):
    """An app at MyTracker."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=20, bytes=10_000)

    vendor: Literal["mytracker"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://tracker-s2s.my.com", description="Scheme and host of the API.")
    id_app: int = Field(gt=0, description="The app's id (idApp).")
    token: SecretStr = Field(min_length=1, description="The S2S token, sent as the Authorization header as it is.")


class MyTracker:
    """One app at MyTracker."""

    def __init__(self, settings: MyTrackerSettings) -> None:
        token = settings.token.get_secret_value()
        documented, batch = settings.documented, settings.batch
        self._settings = settings
        self._rules = Rules("mytracker", RULES, settings.rules)
        self._words = Words(token)
        self._base = f"{settings.base_url.rstrip('/')}/v1/"
        self._headers = {"Content-Type": "application/json", "Authorization": token}
        self._limits = Limits(batch.records or documented.records, batch.bytes or documented.bytes, 2, 1)

    def group(self, event: VendorEvent) -> Hashable:
        """Return the method: a batch holds one. An unknown method has no address, so no setting lets it pass."""
        method = event.fields.get("method")
        if method not in METHODS:
            message = f"method must be one of {', '.join(METHODS)}"
            raise Refusal("invalid", "mytracker.method.value", message, field="method")
        return str(method)

    def limits(self, group: Hashable) -> Limits:
        """Return what one request may hold."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check every parameter of the document's table and return the set."""
        fields = event.fields
        datum: dict[str, Any] = {}
        for name, value in fields.items():
            if value is None:
                continue
            if (lengths := TEXTS.get(name)) is not None:
                datum[name] = self._text(name, value, *lengths)
            elif (bounds := NUMBERS.get(name)) is not None:
                datum[name] = self._number(name, value, *bounds)
        params = fields.get("customEventParams")
        if params:
            datum["customEventParams"] = self._params(params)
        self._together(datum, str(self.group(event)))
        return Item(json_bytes("mytracker", datum))

    def _number(self, name: str, value: Any, least: int | None, most: int) -> Any:
        if type(value) is datetime and value.tzinfo is not None:
            value = epoch_millis(value) // 1000
        if type(value) is not int:
            self._rules.broken(f"{name}.type", kind(value))
        elif value > most or (least is not None and value < least):
            self._rules.broken(f"{name}.range", "greater" if value > most else "less")
        return value

    def _text(self, name: str, value: Any, shortest: int, longest: int | None) -> Any:
        if type(value) is not str and type(value := plain(value)) is not str:
            self._rules.broken(f"{name}.type", kind(value))
        elif longest is not None and not shortest <= len(value) <= longest:
            self._rules.broken(f"{name}.length", f"text of {len(value)} characters")
        elif name == "vkPlatform" and value not in PLATFORMS:
            self._rules.broken("vkPlatform.value", "another text")
        return value

    def _params(self, params: Any) -> Any:
        if not isinstance(params, Mapping):
            self._rules.broken("customEventParams.type", kind(params))
            return params
        kept = {
            name: value if type(value) is str else plain(value) for name, value in params.items() if value is not None
        }
        for name, value in kept.items():
            if type(value) is not str:
                self._rules.broken("customEventParams.type", f"an object that holds {kind(value)}")
            elif not 1 <= len(value) <= 255:
                self._rules.broken("customEventParams.value", f"an object with a value of {len(value)} characters")
            if not 1 <= len(name) <= 255:
                self._rules.broken("customEventParams.name", f"an object with a name of {len(name)} characters")
        return kept

    def _together(self, datum: dict[str, Any], method: str) -> None:
        """Check the rules that look at several parameters: who is meant, which method, VK's pair."""
        missing = "null or missing"
        if method == "customEvent":
            if datum.keys().isdisjoint(("customUserId", *DEVICES)):
                self._rules.broken("customUserId.identifier", f"{missing}, as they all are")
            if "customEventName" not in datum:
                self._rules.broken("customEventName.required", missing)
            return
        if "customUserId" not in datum:
            self._rules.broken("customUserId.required", missing)
        for name in ("customEventName", "customEventParams"):
            if name in datum:
                self._rules.broken(f"{name}.method", f"given for {method}")
        if ("vkPlatform" in datum) != ("customPlatformUserId" in datum):
            self._rules.broken("vkPlatform.together", "given without the other one")

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the import of one batch."""
        url = f"{self._base}{quote(str(group))}Batch/?idApp={self._settings.id_app}"
        return Request("POST", url, self._headers, b"[" + b",".join([item.body for item in items]) + b"]")

    def probe(self) -> Request:
        """Return the question whether the token is the app's; 403 where it is not (the vendor's PHP SDK)."""
        return Request("POST", f"{self._base}test-app-access?idApp={self._settings.id_app}", self._headers, b"true")

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means. The words of `message` are not compared: the document's OK is half Cyrillic."""
        verdict = by_status(response, self._words, self._settings.codes)
        if verdict is not None:
            return verdict
        answer, rid = parsed(response.body), request_id(response.headers)
        error = answer.get("error") if isinstance(answer, dict) else None
        if response.status < 300 and isinstance(answer, dict) and "message" in answer and error is None:
            return Accepted(request_id=rid)
        if response.status != 400 or not isinstance(error, str):
            return unread(response, self._words, self._settings.codes)
        code, reason = "http_400", self._words(f"HTTP 400: {error}")
        if error.casefold() in _OUR_FAULT:
            return Misconfigured(code, reason, request_id=rid)
        if code in self._settings.codes:
            return by_setting(self._settings.codes[code], code, reason, request_id=rid)
        return Refused(code, reason, documented=error.casefold() == "bad request", request_id=rid)


_OUR_FAULT: Final = frozenset({"empty post data", "bad json", "bad api version"})
"""What the vendor says of a request that was built wrongly: no record can mend it."""


def _build(settings: MyTrackerSettings) -> Vendor:
    return MyTracker(settings)


KIND: Final = VendorKind(
    name="mytracker",
    settings=MyTrackerSettings,
    build=_build,
    reads_codes=True,
    schema="connector.events.MyTrackerEvent",
    fields={
        "method": FieldKind("string", required=True),
        **{name: FieldKind("seconds" if name == "eventTimestamp" else "long") for name in NUMBERS},
        **{name: FieldKind("string") for name in TEXTS},
        "customEventParams": FieldKind("string_map"),
    },
    rules=rule_ids("mytracker", RULES),
)
