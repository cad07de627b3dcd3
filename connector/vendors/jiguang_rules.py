"""Jiguang's local rules: what its document demands of an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RULES: Final[Mapping[str, str]] = {
    "cuid.required": "must be given",
    "cuid.type": "must be a whole number of 64 bits",
    "eventName.required": "must be given and not be empty",
    "eventName.type": "must be text",
    "itime.required": "must be given",
    "itime.type": "must be a point in time, in epoch milliseconds of 64 bits",
    "itime.future": "must not be later than 5 minutes from now",
    "itime.past": "must not be earlier than 366 days ago (the vendor's limit is one year)",
    "randomId.type": "must be text",
    "properties.type": "must be an object",
    "properties.name": "must have names that are not empty",
    "properties.number": "must not hold NaN or infinity, which JSON has no form for",
    "properties.range": "must hold whole numbers of 64 bits",
    "properties.list": "must hold lists of text only",
    "properties.nested": "must not hold nested objects",
    "properties.value": "must hold text, numbers, booleans, points in time or lists of text",
}
