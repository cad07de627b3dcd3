"""Quick Audience's event model: its fields, the local rules that follow, attributes, and what a code is about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from orjson import Fragment

from connector.vendors.checks import Rules, json_bytes, kind, plain

OPTIONAL: Final = ("organizationId", "workspaceId", "entityId", "comeFrom", "eventChannel")
REQUIRED: Final = ("customerId", "eventCode")
TEXTS: Final = (*((name, True) for name in REQUIRED), *((name, False) for name in OPTIONAL))
"""The parameters that are text, and whether an event needs them."""
ID_PARTS: Final = ("customerId", "idMapping")

RULES: Final[Mapping[str, str]] = {
    **{f"{name}.required": "must be given and not be empty" for name in REQUIRED},
    **{f"{name}.type": "must be text" for name in (*REQUIRED, *OPTIONAL)},
    "entityId.required": "must be given for an entity that is not a person",
    "eventTime.required": "must be given",
    "eventTime.type": "must be a point in time, in epoch milliseconds of 64 bits",
    "isOrder.value": 'must be "0" or "1"',
    "extendAttributes.type": "must be an object",
    "extendAttributes.value": "must hold values that have a form as text",
    "customerIdList.type": "must be a list of objects",
    **{f"customerIdList.{name}.required": "must be given and not be empty" for name in ID_PARTS},
    **{f"customerIdList.{name}.type": "must be text" for name in ID_PARTS},
}

_ACCOUNT: Final = re.compile(r"(?<!de)(?<!as)sign|access|auth|permission|forbidden|app_?id|timestamp", re.IGNORECASE)
_EVENT: Final = re.compile(r"event|entity|customer|attribute|mapping|param", re.IGNORECASE)


def is_of_the_account(code: str) -> bool:
    """Tell whether an errorCode's own words speak of the account; one that speaks of an event as well needs evidence.

    No list is published, so only the vendor's vocabulary can tell, never an event's text.
    """
    return _ACCOUNT.search(code) is not None and _EVENT.search(code) is None


def attributes(given: Any, rules: Rules) -> Any:
    """Return an event's attributes as text, since the vendor takes no other: what is not text goes as its JSON."""
    if type(given) is Fragment:
        return given
    if not isinstance(given, Mapping):
        rules.broken("extendAttributes.type", kind(given))
        return given
    texts = {name: value for name, value in given.items() if type(value) is str}
    for name, value in given.items():
        if name in texts:
            continue
        one = value if isinstance(value, Mapping | list | tuple) else plain(value)
        if not finite(one):
            rules.broken("extendAttributes.value", "an object that holds NaN or infinity")
        if isinstance(one, bytes):
            rules.broken("extendAttributes.value", "an object that holds bytes")
        if one is not None:
            texts[name] = one if type(one) is str else json_bytes("quick_audience", one).decode()
    return texts


def finite(value: object) -> bool:
    """Tell whether no number in a value, however deep, is NaN or infinite: JSON text would hold a null in its place."""
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, float) or value - value == 0
