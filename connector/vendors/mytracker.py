"""MyTracker, S2S import of events: `POST /v1/<method>Batch/?idApp=`, a bare JSON array of up to 20 sets, 10,000 bytes.

A batch has one method. One bad set fails the whole batch, and the answer does not say which one. There is no event id:
a request repeated after an unknown outcome may count twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from connector.config.loader import DestinationSettings, DocumentedLimits
from connector.errors import Refusal, counted
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
    Shape,
    ShapeField,
    ShapeGroup,
    VendorEvent,
    VendorKind,
    Verdict,
)
from connector.vendors.checks import Rules, epoch_millis, json_bytes, rule_ids, rule_texts, scalar_or_same, type_name

METHODS: Final = ("registration", "login", "customEvent")
DEVICES: Final = ("instanceId", "lvid", "gaid", "androidId", "appSetId", "idfa", "iosVendorId")
PLATFORMS: Final = (
    "desktop_web",
    "mobile_web",
    "mobile_android",
    "mobile_android_messenger",
    "mobile_ipad",
    "mobile_iphone",
    "mobile_iphone_messenger",
)

NUMBERS: Final[Mapping[str, tuple[int | None, int]]] = {
    "eventTimestamp": (946_674_000, 4_294_967_295),
    "idGender": (0, 2),
    "age": (None, 128),
    "connectionType": (0, 2),
    "bluetoothEnabled": (0, 2),
    "adTrackingEnabled": (0, 1),
    "adBlocker": (0, 1),
}
"""The least and the greatest value; the document gives `age` no minimum."""

STRINGS: Final[Mapping[str, tuple[int, int | None]]] = {
    "customUserId": (1, 1024),
    "ipv4": (0, 15),
    "ipv6": (0, 45),
    "instanceId": (36, 36),
    "idfa": (36, 36),
    "iosVendorId": (36, 36),
    "gaid": (36, 36),
    "appSetId": (36, 36),
    "androidId": (16, 16),
    "lvid": (32, 32),
    "userAgent": (0, 2048),
    "customPlatformUserId": (0, None),
    "vkPlatform": (0, None),
    "customEventName": (1, 255),
}
"""The least and the greatest length in characters (code points)."""


def _range_text(least: int | None, most: int) -> str:
    return f"must be at most {most}" if least is None else f"must be {least} to {most}"


def _length_text(least: int, most: int) -> str:
    if least == most:
        return f"must have exactly {most} characters"
    return f"must have {least} to {most} characters" if least else f"must have at most {most} characters"


RULES: Final[Mapping[str, str]] = {
    "customUserId.required": "must be given for registration and login",
    "customUserId.identifier": f"or one of {', '.join(DEVICES)} must be given for customEvent",
    **{f"{name}.type": "must be a whole number" for name in NUMBERS},
    **{f"{name}.range": _range_text(*bounds) for name, bounds in NUMBERS.items()},
    **{f"{name}.type": "must be a string" for name in STRINGS},
    **{f"{name}.length": _length_text(least, most) for name, (least, most) in STRINGS.items() if most is not None},
    "vkPlatform.value": f"must be one of {', '.join(PLATFORMS)}",
    "vkPlatform.together": "and customPlatformUserId must be given together",
    "customEventName.required": "must be given for customEvent",
    "customEventParams.type": "must be an object of strings",
    "customEventParams.name": "must have names of 1 to 255 characters",
    "customEventParams.value": "must have values of 1 to 255 characters",
}
"""What each local rule allows: the document's parameter table."""

CODES: Final[Mapping[str, CodeMeaning]] = {
    "http_400": CodeMeaning(
        "A parameter breaks a rule of MyTracker; its answer does not say which.",
        "Compare the event with MyTracker's parameter table and correct its mapping.",
    ),
    "http_400 Empty post data": CodeMeaning(
        "The request's body was empty.", "Check for a proxy that drops bodies, and base_url."
    ),
    "http_400 Bad json": CodeMeaning(
        "The request's body was not valid JSON.", "Check for a proxy that changes bodies, and base_url."
    ),
    "http_400 Bad api version": CodeMeaning("MyTracker does not support this API version.", "Check base_url."),
    "http_403": CodeMeaning("The token is invalid or belongs to another app.", "Check token and id_app."),
    "http_404": CodeMeaning("The API has no such method.", "Check base_url."),
    "http_500": CodeMeaning(
        "MyTracker had an internal error.", "Wait: the request is retried. Ask MyTracker if it lasts."
    ),
}
"""The document's status codes, each with its meaning and solution."""

_SENT: Final = (*STRINGS, *list(NUMBERS)[1:], "customEventParams", "eventTimestamp")
"""The parameters in the order in which they are sent: the one that may be added is the last."""

_VK_USER: Final = "customPlatformUserId"
_CUSTOM_EVENT_ONLY: Final = ("customEventName", "customEventParams")
_GROUPS: Final = (
    *(
        ShapeGroup(name, (frozenset({"customUserId"}),), frozenset({*_CUSTOM_EVENT_ONLY, "vkPlatform", _VK_USER}))
        for name in METHODS[:2]
    ),
    ShapeGroup("customEvent", (frozenset({"customUserId", *DEVICES}), frozenset({"customEventName"}))),
)
_MOST_PARAM: Final = 255
# The document's range for eventTimestamp, in seconds. A timestamp outside would fail the whole batch.
_TIMESTAMPS: Final = range(946_674_000, 4_294_967_296)

_REQUEST_ERRORS: Final = frozenset({"empty post data", "bad json", "bad api version"})
"""Errors of the request itself: no record can cause them."""


def _shape_fields(*, dated: bool) -> tuple[ShapeField, ...]:
    """Return the fields of plain events; `dated`: an event without a time gets its record's."""
    fields = []
    for name in _SENT:
        if name in STRINGS:
            least, most = STRINGS[name]
            choices = PLATFORMS if name == "vkPlatform" else ()
            fields.append(ShapeField(name, "text", "left_out", choices=choices, least=least, most=most))
        elif name in NUMBERS:
            missing: Any = "record_seconds" if dated and name == "eventTimestamp" else "left_out"
            fields.append(ShapeField(name, "long", missing, least=NUMBERS[name][0], most=NUMBERS[name][1]))
        else:
            fields.append(ShapeField(name, "texts", "left_out", most=_MOST_PARAM))
    return tuple(fields)


class MyTrackerSettings(DestinationSettings):
    """An app at MyTracker."""

    documented: ClassVar[DocumentedLimits] = DocumentedLimits(records=20, bytes=10_000)

    vendor: Literal["mytracker"] = Field(description="The vendor's name.")
    base_url: str = Field(default="https://tracker-s2s.my.com", description="Scheme and host of the API.")
    id_app: int = Field(gt=0, description="The app's id (idApp).")
    token: SecretStr = Field(min_length=1, description="The S2S token, sent unchanged in the Authorization header.")
    event_time: Literal["record", "receipt"] = Field(
        default="record",
        description="An event without eventTimestamp gets its record's timestamp (`record`); with `receipt` the vendor "
        "takes the time of receipt, which is wrong for a retry, a backlog or a replay.",
    )


class MyTracker:
    """One app at MyTracker."""

    def __init__(self, settings: MyTrackerSettings) -> None:
        token = settings.token.get_secret_value()
        documented, batch = settings.documented, settings.batch
        self._query = f"?idApp={settings.id_app}"
        self._rules = Rules("mytracker", RULES, settings.rules)
        self._dates_events = settings.event_time == "record"
        self._dropped: Counter[str] = Counter()
        self.clock_ahead = 0
        self.shape = Shape(_shape_fields(dated=self._dates_events), group="method", groups=_GROUPS)
        self._log_text = LogText(token)
        self._base = f"{settings.base_url.rstrip('/')}/v1/"
        self._headers = {"Content-Type": "application/json", "Authorization": token}
        self._limits = Limits(batch.records or documented.records, batch.bytes or documented.bytes, 2, 1)

    def group(self, event: VendorEvent) -> Hashable:
        """Return the method: a batch has only one. An unknown method has no URL, so no setting allows it."""
        method = event.fields.get("method")
        if method not in METHODS:
            message = f"method must be one of {', '.join(METHODS)}"
            raise Refusal("invalid", "mytracker.method.value", message, field="method")
        return str(method)

    def limits(self, group: Hashable) -> Limits:
        """Return the limits of one request."""
        return self._limits

    def encode(self, event: VendorEvent, now: int) -> Item:
        """Check every parameter of the document's table and return the set."""
        fields, method = event.fields, str(self.group(event))
        superfluous = self._superfluous(fields, method)
        datum: dict[str, Any] = {}
        # `method` is not among them: it is part of the URL. The document has no null, so such parameters are left out.
        for name in _SENT:
            value = fields.get(name)
            if value is None or name in superfluous:
                continue
            if (lengths := STRINGS.get(name)) is not None:
                datum[name] = self._checked_string(name, value, *lengths)
            elif (bounds := NUMBERS.get(name)) is not None:
                datum[name] = self._checked_number(name, value, *bounds)
            elif value:
                datum[name] = self._checked_params(value)
        self._check_combination(datum, method)
        body = json_bytes("mytracker", datum)
        # Without a time the vendor uses the time of receipt, which is wrong for a retry, a backlog or a replay.
        if self._dates_events and "eventTimestamp" not in datum and event.timestamp // 1000 in _TIMESTAMPS:
            dated = b'%b,"eventTimestamp":%d}' % (body[:-1], event.timestamp // 1000)
            # Do not add it if the event only fits without it: a wrong time is better than a dead letter. Nor to `{}`,
            # which is possible with rules switched off: there is no member to put a comma after.
            if len(body) > 2 and len(dated) + self._limits.overhead <= self._limits.bytes:
                body = dated
        return Item(body)

    def _checked_number(self, name: str, value: Any, least: int | None, most: int) -> Any:
        if type(value) is datetime and value.tzinfo is not None:
            value = epoch_millis(value) // 1000
        # `type`, because a boolean is an int in Python.
        if type(value) is not int:
            self._rules.broken(f"{name}.type", type_name(value))
        elif value > most or (least is not None and value < least):
            self._rules.broken(f"{name}.range", f"{value}")
        return value

    def _checked_string(self, name: str, value: Any, shortest: int, longest: int | None) -> Any:
        if type(value) is not str and type(value := scalar_or_same(value)) is not str:
            self._rules.broken(f"{name}.type", type_name(value))
        # Code points. The document counts "characters"; its own sample
        # breaks one of the lengths, so each rule has a switch.
        elif longest is not None and not shortest <= len(value) <= longest:
            self._rules.broken(f"{name}.length", f"a string of {counted(len(value), 'character')}")
        elif name == "vkPlatform" and value not in PLATFORMS:
            self._rules.broken("vkPlatform.value", "another string")
        return value

    def _checked_params(self, params: Any) -> Any:
        if not isinstance(params, Mapping):
            self._rules.broken("customEventParams.type", type_name(params))
            return params
        kept = {
            name: value if type(value) is str else scalar_or_same(value)
            for name, value in params.items()
            if value is not None
        }
        for name, value in kept.items():
            if type(value) is not str:
                self._rules.broken("customEventParams.type", f"an object that holds {type_name(value)}")
            elif not 1 <= len(value) <= _MOST_PARAM:
                self._rules.broken("customEventParams.value", f"an object with a value of {len(value)} characters")
            if not 1 <= len(name) <= _MOST_PARAM:
                self._rules.broken("customEventParams.name", f"an object with a name of {len(name)} characters")
        return kept

    def _superfluous(self, fields: Mapping[str, Any], method: str) -> Sequence[str]:
        """Return the parameters to leave out, and count them: because of them the method would refuse the whole batch.

        An empty `customUserId` identifies no one. It is left out too if a device is given.
        """
        if method != "customEvent":
            found = [name for name in _CUSTOM_EVENT_ONLY if fields.get(name) is not None]
        elif fields.get("customUserId") == "" and any(fields.get(name) is not None for name in DEVICES):
            found = ["customUserId"]
        else:
            return ()
        # Counted here and fetched by delivery, because a vendor knows no metrics.
        self._dropped.update(found)
        return found

    def take_dropped(self) -> Mapping[str, int]:
        """Return how many parameters were dropped since the last call, by name."""
        dropped, self._dropped = self._dropped, Counter()
        return dropped

    def _check_combination(self, datum: dict[str, Any], method: str) -> None:
        """Check the rules about several parameters: an identifier, the method's own parameters, VK's pair."""
        missing = "null or missing"
        if method == "customEvent":
            if datum.keys().isdisjoint(("customUserId", *DEVICES)):
                self._rules.broken("customUserId.identifier", "an event without any of them")
            if "customEventName" not in datum:
                self._rules.broken("customEventName.required", missing)
            return
        if "customUserId" not in datum:
            self._rules.broken("customUserId.required", missing)
        if ("vkPlatform" in datum) != ("customPlatformUserId" in datum):
            self._rules.broken("vkPlatform.together", "given alone")

    def request(self, group: Hashable, items: Sequence[Item], now: int) -> Request:
        """Return the import of one batch."""
        # Used for a single set too: the document's method for one set would only be a second form of the same request.
        url = f"{self._base}{quote(str(group))}Batch/{self._query}"
        return Request("POST", url, self._headers, b"[" + b",".join([item.body for item in items]) + b"]")

    def probe(self) -> Request:
        """Return the request that checks the token: 403 if it is not the app's (from the vendor's PHP SDK)."""
        return Request("POST", f"{self._base}test-app-access{self._query}", self._headers, b"true")

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return what the answer means. `message` is not compared: the document's OK has a Cyrillic letter."""
        verdict = verdict_of_status(response, self._log_text)
        if verdict is not None:
            return verdict
        # A Russian vendor's gateway may answer in Windows' Cyrillic encoding.
        answer, rid = json_value(response, "cp1251"), request_id(response.headers)
        error = answer.get("error") if isinstance(answer, dict) else None
        if response.status < 300 and isinstance(answer, dict) and "message" in answer and error is None:
            return Accepted(request_id=rid)
        if response.status != 400 or not isinstance(error, str):
            return verdict_of_unknown_body(response, self._log_text)
        reason, known = self._log_text(f"HTTP 400: {error}"), error.strip().casefold()
        # Fixed texts of the document. A record cannot cause them, because every body is built from valid JSON items.
        if known in _REQUEST_ERRORS:
            return Misconfigured("http_400", reason, request_id=rid, of_request=True)
        # Only "Bad Request" is documented as a parameter's fault. Any other text needs evidence.
        return Refused("http_400", reason, documented=known == "bad request", request_id=rid)


KIND: Final = VendorKind(
    name="mytracker",
    settings=MyTrackerSettings,
    build=MyTracker,
    codes=CODES,
    schema="connector.events.MyTrackerEvent",
    fields={
        "method": FieldKind("string", required=True),
        **{name: FieldKind("seconds" if name == "eventTimestamp" else "long") for name in NUMBERS},
        **{name: FieldKind("string") for name in STRINGS},
        "customEventParams": FieldKind("string_map"),
    },
    rules=rule_ids("mytracker", RULES),
    rule_texts=rule_texts("mytracker", RULES),
)
