"""MyTracker's S2S "Import events", as strict as its document.

Three enumerations are missing in the document's text (bluetoothEnabled, adTrackingEnabled, adBlocker); they are taken
from the vendor's PHP SDK. Options set what the document leaves open: how many bytes 10Kb are, and the answer to a
larger body.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final

import orjson

from connector.testing.faults import Call
from connector.testing.simulator import AcceptedEvent, Reply, json_reply

METHODS: Final = ("registration", "login", "customEvent")
LARGEST_BATCH: Final = 20
DEVICE_IDS: Final = ("instanceId", "lvid", "gaid", "androidId", "appSetId", "idfa", "iosVendorId")
VK_PLATFORMS: Final = (
    "desktop_web",
    "mobile_web",
    "mobile_android",
    "mobile_android_messenger",
    "mobile_ipad",
    "mobile_iphone",
    "mobile_iphone_messenger",
)

PROBE: Final = "/v1/test-app-access"

_PATH: Final = re.compile(r"/(v\d+)/([A-Za-z]+)/")
_NUMBER: Final = re.compile(r"\d{1,19}")


def _number(lowest: int, highest: int) -> Callable[[object], bool]:
    """Accept a number between the two, as a JSON number or a string (the document's samples have strings)."""

    def check(value: object) -> bool:
        if isinstance(value, str):
            return _NUMBER.fullmatch(value) is not None and lowest <= int(value) <= highest
        return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest

    return check


def _text(shortest: int, longest: int) -> Callable[[object], bool]:
    """Accept a string with a length in this range (code points)."""
    return lambda value: isinstance(value, str) and shortest <= len(value) <= longest


def _parameters(value: object) -> bool:
    name_or_value = _text(1, 255)
    return isinstance(value, dict) and all(name_or_value(key) and name_or_value(each) for key, each in value.items())


_RULES: Final[Mapping[str, Callable[[object], bool]]] = {
    "eventTimestamp": _number(946674000, 4294967295),
    "customUserId": _text(1, 1024),
    "ipv4": _text(0, 15),
    "ipv6": _text(0, 45),
    "idGender": _number(0, 2),
    "age": _number(0, 128),
    "connectionType": _number(0, 2),
    "bluetoothEnabled": _number(0, 2),
    "instanceId": _text(36, 36),
    "adTrackingEnabled": _number(0, 1),
    "idfa": _text(36, 36),
    "iosVendorId": _text(36, 36),
    "gaid": _text(36, 36),
    "appSetId": _text(36, 36),
    "androidId": _text(16, 16),
    "lvid": _text(32, 32),
    "adBlocker": _number(0, 1),
    "userAgent": _text(0, 2048),
    "customPlatformUserId": lambda value: isinstance(value, str),
    "vkPlatform": lambda value: value in VK_PLATFORMS,
}
_CUSTOM_EVENT_RULES: Final[Mapping[str, Callable[[object], bool]]] = {
    **_RULES,
    "customEventName": _text(1, 255),
    "customEventParams": _parameters,
}


@dataclass(slots=True)
class MyTrackerApi:
    """One application. The rules of `unchecked` parameters are not applied (a sample in the document breaks one)."""

    name = "mytracker"

    id_app: int = 666
    token: str = "simulated-token"
    largest_body: int = 10_000
    too_large_status: int = 413
    unchecked: Collection[str] = ()

    def destination(self, url: str) -> dict[str, Any]:
        """Return the settings of a destination for this application."""
        return {"vendor": self.name, "base_url": url, "id_app": self.id_app, "token": self.token}

    def refused_credential(self) -> Reply:
        """Return 403, the token is not validated or not suitable for the application."""
        return _error_reply(403, "Forbidden", "credential")

    def throttled(self, retry_after: str | None) -> Reply:
        """Return 429; neither a limit nor its answer is published."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return Reply(429, b"Too Many Requests", "throttled", headers=headers, content_type="text/plain")

    def failed(self, status: int) -> Reply:
        """Return the documented internal error, or another status with a body that is not documented."""
        if status == 500:
            return _error_reply(500, "Internal Server Error", "status_500")
        return Reply(status, b"", f"status_{status}", content_type="text/plain")

    def answer(self, call: Call) -> Reply:
        """Accept all sets of parameters, or refuse all if one of them breaks a rule."""
        if call.path.rstrip("/") == PROBE and call.method == "POST":
            return self._probe(call)
        path = _PATH.fullmatch(call.path)
        if path is not None and path[1] != "v1":
            return _error_reply(400, "Bad api version", "refused")
        method = path[2].removesuffix("Batch") if path is not None else ""
        if path is None or method not in METHODS or call.method != "POST":
            return _error_reply(404, "Method not found", "not_found")
        if not self._may(call):
            return self.refused_credential()
        if not call.body:
            return _error_reply(400, "Empty post data", "refused")
        if len(call.body) > self.largest_body:
            return _error_reply(self.too_large_status, "Request Entity Too Large", "too_large")
        try:
            body = orjson.loads(call.body)
        except ValueError:
            return _error_reply(400, "Bad json", "refused")
        if not path[2].endswith("Batch"):
            body = [body]
        if not isinstance(body, list) or not body:
            return _error_reply(400, "Bad Request", "refused")
        if len(body) > LARGEST_BATCH or not all(self._is_valid(method, each) for each in body):
            return _error_reply(400, "Bad Request", "refused", records=len(body))
        events = [AcceptedEvent({"method": method, **each}) for each in body]
        # The O is Cyrillic, as in the document.
        return json_reply(200, {"message": "ОK"}, "accepted", events=events, records=len(body))

    def _may(self, call: Call) -> bool:
        token = call.headers.get("authorization", "")
        return compare_digest(token.encode(), self.token.encode()) and call.query == (("idApp", str(self.id_app)),)

    def _probe(self, call: Call) -> Reply:
        """Answer whether the token is the app's; the method is from the vendor's PHP SDK, its body is `true`."""
        if not self._may(call):
            return self.refused_credential()
        if call.body != b"true":
            return _error_reply(400, "Bad Request", "refused")
        return json_reply(200, {"message": "ОK"}, "probed")

    def _is_valid(self, method: str, parameters: object) -> bool:
        if not isinstance(parameters, dict):
            return False
        rules = _CUSTOM_EVENT_RULES if method == "customEvent" else _RULES
        for name, value in parameters.items():
            if name not in rules or not (name in self.unchecked or rules[name](value)):
                return False
        if method == "customEvent":
            return "customEventName" in parameters and any(name in parameters for name in ("customUserId", *DEVICE_IDS))
        together = ("customPlatformUserId" in parameters) == ("vkPlatform" in parameters)
        return "customUserId" in parameters and together


def _error_reply(status: int, text: str, verdict: str, records: int = 0) -> Reply:
    return json_reply(status, {"error": text}, verdict, records=records)
