"""The vendors, one file for each API. Pure: no clock, no I/O, no asyncio.

`kinds` is the registry: the four built-in vendors, and those that other distributions register by an entry point.
`code_meaning` and `explained` explain a vendor's codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from connector.errors import ConfigFault, ConfigurationError
from connector.vendors import jiguang, jpush_report, mytracker, quick_audience
from connector.vendors.base import CodeMeaning, VendorKind

ENTRY_POINTS = "connector.vendors"

# Imported, not found by scanning, so that the type checker and the layer test see each of them.
_BUILT_IN: tuple[VendorKind, ...] = (
    jiguang.KIND,
    quick_audience.KIND,
    mytracker.KIND,
    jpush_report.KIND,
)


def kinds(others: Iterable[EntryPoint] | None = None) -> dict[str, VendorKind]:
    """Return every vendor by name. `others` are entry points that refer to a `VendorKind`; None: the installed ones.

    Raises `ConfigurationError` with every entry point that cannot be loaded, is not a `VendorKind`, or has the name of
    another vendor.
    """
    found = {kind.name: kind for kind in _BUILT_IN}
    faults = []
    for point in entry_points(group=ENTRY_POINTS) if others is None else others:
        path = f"entry point {point.name} of {ENTRY_POINTS}"
        try:
            kind = point.load()
        except Exception as error:  # noqa: BLE001 -- another distribution's code may raise anything
            faults.append(ConfigFault(path, f"{point.value} cannot be loaded: {type(error).__name__}: {error}"))
            continue
        if not isinstance(kind, VendorKind):
            faults.append(ConfigFault(path, f"{point.value} is a {type(kind).__name__}; it must be a VendorKind"))
        elif kind.name in found:
            faults.append(ConfigFault(path, f"there are two vendors named {kind.name}; uninstall one of them"))
        else:
            found[kind.name] = kind
    if faults:
        raise ConfigurationError(faults)
    return dict(sorted(found.items()))


def code_meaning(vendor: str | None, code: str | None, message: str = "") -> CodeMeaning | None:
    """Return what a vendor's code means and what to do about it; None if its document does not say.

    `message` is the vendor's own text: some vendors give one code several meanings, and only the text tells them apart.
    """
    if vendor is None or code is None:
        return None
    known = _codes_by_vendor().get(vendor, {})
    text = message.casefold()
    for key, meaning in known.items():
        name, _, words = key.partition(" ")
        # "http_400 Bad json" is more precise than "http_400", so keys with words are checked first.
        if words and name == code and words.casefold() in text:
            return meaning
    return known.get(code)


def explained(vendor: str | None, code: str | None, message: str) -> str:
    """Return a vendor's text with its code explained in front: "4101: The event … The vendor's text: …".

    Idempotent. The text is unchanged if no document explains the code.
    """
    meaning = code_meaning(vendor, code, message)
    if meaning is None or meaning.meaning in message:
        return message
    own = message.removeprefix(f"code {code}: ").strip()
    return f"{code}: {meaning.meaning} {meaning.solution}" + (f" The vendor's text: {own}" if own else "")


@cache
def _codes_by_vendor() -> dict[str, Mapping[str, CodeMeaning]]:
    try:
        return {name: kind.codes for name, kind in kinds().items()}
    except ConfigurationError:  # an explanation must not fail because another distribution's vendor is broken
        return {kind.name: kind.codes for kind in _BUILT_IN}
