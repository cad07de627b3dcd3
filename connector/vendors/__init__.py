"""The vendors: one file for each API, pure values in, pure values out; no clock, no I/O, no asyncio ever enters.

`kinds` is the registry: the four built in, and those that other distributions register by an entry point.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from connector.errors import ConfigurationError, Fault
from connector.vendors import jiguang, jpush_report, mytracker, quick_audience
from connector.vendors.base import VendorKind

ENTRY_POINTS = "connector.vendors"

_BUILT_IN: tuple[VendorKind, ...] = (
    jiguang.KIND,
    quick_audience.KIND,
    mytracker.KIND,
    jpush_report.KIND,
)


def kinds(others: Iterable[EntryPoint] | None = None) -> dict[str, VendorKind]:
    """Return every vendor by its name. `others` are entry points that name a `VendorKind`; None: the installed ones.

    Raises `ConfigurationError` with every entry point that cannot be loaded, is not a `VendorKind`, or takes a name
    that is taken.
    """
    found = {kind.name: kind for kind in _BUILT_IN}
    faults = []
    for point in entry_points(group=ENTRY_POINTS) if others is None else others:
        path = f"entry point {point.name} of {ENTRY_POINTS}"
        try:
            kind = point.load()
        except Exception as error:  # noqa: BLE001 -- another distribution's code may raise anything
            faults.append(Fault(path, f"{point.value} cannot be loaded: {type(error).__name__}: {error}"))
            continue
        if not isinstance(kind, VendorKind):
            faults.append(Fault(path, f"{point.value} is a {type(kind).__name__}; it must be a VendorKind"))
        elif kind.name in found:
            faults.append(Fault(path, f"the vendor {kind.name} exists already; uninstall one of the two"))
        else:
            found[kind.name] = kind
    if faults:
        raise ConfigurationError(faults)
    return dict(sorted(found.items()))
