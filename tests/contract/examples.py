"""Valid events of each vendor. A new vendor adds a line to each table, and the tests of all vendors try it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ITIME = 1_700_000_000_000
EXAMPLES: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "jiguang": lambda n: {"cuid": n, "eventName": "e", "itime": ITIME, "properties": {"p": "x"}},
    "jpush_report": lambda n: {"query": ("connector.events.Received", {"msg_id": n})},
    "mytracker": lambda n: {"method": "customEvent", "customEventName": "n", "customUserId": str(n)},
    "quick_audience": lambda n: {"customerId": str(n), "eventCode": "e", "eventTime": ITIME},
}
"""The nth valid event of each vendor; all of one vendor go into one group and are equally long for 100 <= n < 1000."""

_WIDE = 'я"\\n\u0001😀'
"""Characters whose JSON takes more bytes than the text has, so that a size in characters would be found out."""

PADDING: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "jiguang": lambda n: {**EXAMPLES["jiguang"](1), "properties": {"p": _WIDE + "x" * n}},
    "mytracker": lambda n: {**EXAMPLES["mytracker"](1), "userAgent": _WIDE + "x" * n},
    "quick_audience": lambda n: {**EXAMPLES["quick_audience"](1), "extendAttributes": {"p": _WIDE + "x" * n}},
}
"""An event that is n bytes longer than that of n = 0; a JPush question has no such part."""
