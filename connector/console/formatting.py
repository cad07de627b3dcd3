"""Times, durations and numbers in human-readable form. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: `2 h 10 min`, `45 s`."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for length, unit in _UNITS:
        number, left = divmod(left, length)
        if number or (unit == "s" and not parts):
            parts.append(f"{number} {unit}")
        if parts and (len(parts) == 2 or not number):
            break
    return " ".join(parts)


def ago(at: float, now: float) -> str:
    """Return how long ago a time (epoch seconds) was, in its largest unit, or how soon it will be."""
    away = now - at
    if abs(away) < 1:
        return "now"
    length, unit = next((each for each in _UNITS if abs(away) >= each[0]), _UNITS[-1])
    number = int(abs(away) // length)
    return f"{number} {unit} ago" if away > 0 else f"in {number} {unit}"


def moment(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return epoch seconds as a date in UTC, or as a number if no calendar has the date."""
    try:
        at = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{seconds:.0f}"
    # The C library writes the year 1 as `1`, which is not ISO 8601.
    return at.strftime(form.replace("%Y", f"{at.year:04}"))


def iso(seconds: float) -> str:
    """Return epoch seconds as ISO 8601 in UTC, for the `datetime` attribute of an element."""
    return moment(seconds, "%Y-%m-%dT%H:%M:%SZ")


def count(number: float) -> str:
    """Return a whole number with thousands separators."""
    return f"{round(number):,}"


def short(number: float) -> str:
    """Return a number for an axis: 1.2k, 3M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.2g}" if abs(number) < 10 else f"{number:.0f}"
