"""Prints results as a table for people and stores them as JSON lines for programs."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent / "results.jsonl"


def percentile(counts: Mapping[int, int], share: float) -> int:
    """Return the smallest value such that at least `share` of the counted values are at or below it.

    `counts` maps a value to its number of occurrences. Raises `ValueError` if it is empty.
    """
    wanted, seen = share * sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    raise ValueError("nothing was counted")


def table(heads: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Return a table: numbers aligned right, text aligned left, floats with one digit."""
    texts = [[_text(cell) for cell in row] for row in rows]
    columns = list(zip(*texts, strict=True))
    right = [all(cell == "" or cell[0].isdigit() or cell[0] == "-" for cell in column) for column in columns]
    widths = [max(map(len, (head, *column))) for head, column in zip(heads, columns, strict=True)]
    lines = []
    for line in (heads, *texts):
        cells = zip(line, widths, right, strict=True)
        padded = [cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in cells]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _text(cell: str | float) -> str:
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.1f}"


def keep(benchmark: str, conditions: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> None:
    """Append one line of JSON per finding: results, conditions, machine and time."""
    here = {"python": platform.python_version(), "cores": os.cpu_count(), "at": time.time()}
    with RESULTS.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"benchmark": benchmark, **conditions, **here, **one}) + "\n" for one in found)


def latest(benchmark: str, **wanted: Any) -> dict[str, Any] | None:
    """Return the newest result of a benchmark with these fields, or None."""
    if not RESULTS.exists():
        return None
    for line in reversed(RESULTS.read_text(encoding="utf-8").splitlines()):
        found: dict[str, Any] = json.loads(line)
        if found.get("benchmark") == benchmark and all(found.get(name) == value for name, value in wanted.items()):
            return found
    return None
