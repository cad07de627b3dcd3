"""Quick Audience's event model: the fields that are text, the local rules that follow, and codes of the account."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

OPTIONAL: Final = ("organizationId", "workspaceId", "entityId", "comeFrom", "eventChannel")
REQUIRED: Final = ("customerId", "eventCode")
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

CONFIGURATION: Final = re.compile(r"sign|access|auth|permission|forbidden|appid|timestamp", re.IGNORECASE)
"""Words of an errorCode (the vendor's vocabulary, never an event's text) that speak of the account."""
