"""The vendors that the tests of all vendors try, and valid events of each. A new vendor adds a line to two tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from connector.testing import SIMULATORS, Api
from connector.vendors import kinds
from connector.vendors.base import VendorKind
from tests.contract import acme_vendor
from tests.contract.acme_api import AcmeApi

# The vendor that docs/vendors.md shows is tried like the others, so that what people copy is right.
KINDS: Final[Mapping[str, VendorKind]] = {"acme": acme_vendor.KIND, **kinds(others=[])}
APIS: Final[Mapping[str, Callable[..., Api]]] = {"acme": AcmeApi, **SIMULATORS}

ITIME = 1_700_000_000_000
EXAMPLES: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "acme": lambda n: {"name": str(n), "amount": 5},
    "jiguang": lambda n: {"cuid": n, "eventName": "e", "itime": ITIME, "properties": {"p": "x"}},
    "jpush_report": lambda n: {"query": ("connector.events.Received", {"msg_id": n})},
    "mytracker": lambda n: {"method": "customEvent", "customEventName": "n", "customUserId": str(n)},
    "quick_audience": lambda n: {"customerId": str(n), "eventCode": "e", "eventTime": ITIME},
}
"""The nth valid event of each vendor; all of one vendor go into one group and are equally long for 100 <= n < 1000."""

_WIDE = 'я"\\n\u0001😀'
"""Characters whose JSON takes more bytes than the text has, so that a size in characters would be found out."""

PADDING: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "acme": lambda n: {"name": _WIDE + "x" * n},
    "jiguang": lambda n: {**EXAMPLES["jiguang"](1), "properties": {"p": _WIDE + "x" * n}},
    "mytracker": lambda n: {**EXAMPLES["mytracker"](1), "userAgent": _WIDE + "x" * n},
    "quick_audience": lambda n: {**EXAMPLES["quick_audience"](1), "extendAttributes": {"p": _WIDE + "x" * n}},
}
"""An event that is n bytes longer than that of n = 0; a JPush question has no such part."""
