"""MyTracker's parameters as its document's table has them, and the local rules that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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
"""The least and the greatest value; the document gives `age` no least one."""

TEXTS: Final[Mapping[str, tuple[int, int | None]]] = {
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


def _range(least: int | None, most: int) -> str:
    return f"must be at most {most}" if least is None else f"must be {least} to {most}"


def _length(least: int, most: int) -> str:
    if least == most:
        return f"must have exactly {most} characters"
    return f"must have {least} to {most} characters" if least else f"must have at most {most} characters"


RULES: Final[Mapping[str, str]] = {
    "customUserId.required": "must be given for registration and login",
    "customUserId.identifier": f"or one of {', '.join(DEVICES)} must be given for customEvent",
    **{f"{name}.type": "must be a whole number" for name in NUMBERS},
    **{f"{name}.range": _range(*bounds) for name, bounds in NUMBERS.items()},
    **{f"{name}.type": "must be text" for name in TEXTS},
    **{f"{name}.length": _length(least, most) for name, (least, most) in TEXTS.items() if most is not None},
    "vkPlatform.value": f"must be one of {', '.join(PLATFORMS)}",
    "vkPlatform.together": "and customPlatformUserId must be given together",
    "customEventName.required": "must be given for customEvent",
    "customEventName.method": "is a parameter of customEvent only",
    "customEventParams.method": "is a parameter of customEvent only",
    "customEventParams.type": "must be an object of text",
    "customEventParams.name": "must have names of 1 to 255 characters",
    "customEventParams.value": "must have values of 1 to 255 characters",
}
