"""Writes the table of keys in docs/configuration.md, docs/metrics.md, and the configuration's JSON Schema.

`make docs` runs it, and a test checks that it was run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from connector.config.reference import json_schema, reference
from connector.telemetry.metrics import DEFINITIONS, PREFIX, Definition
from connector.vendors import kinds

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs" / "configuration.md"
METRICS = ROOT / "docs" / "metrics.md"
SCHEMA = ROOT / "connector.schema.json"

_BEGIN = "<!-- Made by tools/reference.py from the models' descriptions. -->\n"
_END = "<!-- End of what is made. -->\n"


def configuration(text: str) -> str:
    """Return the page with its generated tables up to date. The text around them stays."""
    # Only this project's vendors: those of other packages have their own documentation.
    tables = reference({name: kind.settings for name, kind in kinds(others=[]).items()})
    pattern = re.compile(f"{re.escape(_BEGIN)}.*?{re.escape(_END)}", re.DOTALL)
    if not pattern.search(text):
        raise ValueError("docs/configuration.md lacks the comment lines around its generated tables")
    return pattern.sub(lambda _: f"{_BEGIN}\n{tables}\n{_END}", text)


def schema() -> str:
    """Return the JSON Schema of the configuration, as `connector schema` prints it with this project's vendors."""
    known = json_schema({name: kind.settings for name, kind in kinds(others=[]).items()})
    return json.dumps(known, ensure_ascii=False, indent=2) + "\n"


def metrics() -> str:
    """Return the page of all metrics."""
    rows = "\n".join(map(_row, DEFINITIONS))
    return (
        "# Metrics\n\n"
        "`/metrics` of a running member serves these metrics in Prometheus' text format. Each member counts its own\n"
        "work, so sum over the group. `make docs` writes this page from `connector/telemetry/metrics.py`.\n\n"
        "| metric | kind | labels | meaning | unit |\n|---|---|---|---|---|\n"
        f"{rows}\n\n"
        "Buckets of the histograms:\n\n"
        + "\n".join(
            f"- `{PREFIX}{each.name}`: {', '.join(f'{bound:g}' for bound in each.buckets)}"
            for each in DEFINITIONS
            if each.buckets
        )
        + "\n"
    )


def _row(metric: Definition) -> str:
    """Return the table row of one metric."""
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    values = f" ({metric.known_values})" if metric.values else ""
    return f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels}{values} | {metric.meaning} | {metric.unit} |"


def main() -> None:
    """Write the pages and the schema."""
    CONFIGURATION.write_text(configuration(CONFIGURATION.read_text(encoding="utf-8")), encoding="utf-8")
    METRICS.write_text(metrics(), encoding="utf-8")
    SCHEMA.write_text(schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
