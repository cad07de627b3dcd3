"""Writes the generated parts of documents: file map, tests of the promises, list of decisions, tables of the vendors.

`make docs` runs it, and a test checks that it was run. Comment lines mark the beginning and the end of each part.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from connector.vendors import kinds
from connector.vendors.base import VendorKind
from tools.source import ROOT, Module, compiled, modules

DESIGN: Final = Path("docs/design.md")
PROMISES: Final = Path("docs/promises.md")
DECISIONS: Final = Path("docs/decisions/README.md")
VENDORS: Final = Path("docs/vendors.md")
EXAMPLE: Final = Path("tests/contract")
"""Where the example of a vendor and its simulator are, so that the linter, the types and the tests see them."""
PACKAGES: Final = (
    *("", "cli", "demo", "operations", "runtime", "delivery", "pipeline", "routing", "console", "dead_letters"),
    *("kafka", "codec", "vendors", "testing", "config", "telemetry"),
)
"""The modules at the top of `connector/`, then its packages from the top floor down."""


class Proof(NamedTuple):
    """A test that is marked as proof of a promise."""

    promise: str
    path: Path
    test: str
    docstring: str


@cache
def proofs() -> tuple[Proof, ...]:
    """Return every test marked `promise`, once for each id in its mark. All tests are parsed for it, once."""
    found = []
    for module in modules("tests"):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.promise":
                        docstring = ast.get_docstring(node) or ""
                        found += [Proof(ast.literal_eval(i), module.path, node.name, docstring) for i in mark.args]
    return tuple(found)


def promised(text: str) -> list[str]:
    """Return the ids of the promises in the text of docs/promises.md."""
    return re.findall(r"^## (P\d+)\b", text, re.MULTILINE)


def file_map() -> str:
    """Return the list of modules, each with the first line of its docstring."""
    by_package: defaultdict[str, list[Module]] = defaultdict(list)
    for module in sorted([*modules("connector"), *compiled()], key=lambda module: module.path):
        by_package[module.path.parts[1] if len(module.path.parts) > 2 else ""].append(module)
    order = [*PACKAGES, *sorted(by_package.keys() - set(PACKAGES))]
    lines: list[str] = []
    for package in order:
        for module in by_package.get(package, ()):
            if module.path.name == "__init__.py":
                lines += ["", f"**`{module.path.parent}/`** {module.headline}", ""]
            else:
                lines.append(f"- `{module.path.relative_to(Path('connector', package))}`: {module.headline}")
    return "\n".join(lines).strip("\n")


def tests_of(promise: str) -> str:
    """Return the list of tests that prove a promise."""
    found = sorted({f"- `{proof.path}::{proof.test}`" for proof in proofs() if proof.promise == promise})
    return "\n".join(found)


def decisions() -> str:
    """Return the list of decisions, each with its title."""
    lines = []
    for path in sorted((ROOT / DECISIONS).parent.glob("[0-9]*.md")):
        heading = path.read_text(encoding="utf-8").partition("\n")[0]
        title = re.sub(r"^# (\d+\.? )?", "", heading)
        lines.append(f"- [{path.name[:4]}]({path.name}): {title}")
    return "\n".join(lines)


def settings_of(kind: VendorKind) -> str:
    """Return the table of a vendor's own settings."""
    fields = kind.settings.model_fields
    rows = [
        f"| `{name}` | {'required' if field.is_required() else _shown(field.default)} | {field.description} |"
        for name, field in ((name, fields[name]) for name in kind.settings.__annotations__ if name in fields)
    ]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def _shown(default: object) -> str:
    """Return a default as it is written in YAML."""
    return "unset" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def rules_of(kind: VendorKind) -> str:
    """Return the table of a vendor's local rules, each with the field that it is about and what it allows."""
    rows = [
        f"| `{rule}` | `{rule.partition('.')[2].rpartition('.')[0]}` {text} |" for rule, text in kind.rule_texts.items()
    ]
    return "\n".join(["| rule | requirement |", "|---|---|", *rows])


def vendors(text: str) -> str:
    """Return docs/vendors.md with the tables of every built-in vendor and the code of the example."""
    for kind in kinds(others=[]).values():
        text = replaced(text, f"settings of {kind.name}", settings_of(kind))
        text = replaced(text, f"rules of {kind.name}", rules_of(kind))
    for part in ("acme_vendor.py", "acme_api.py"):
        code = (ROOT / EXAMPLE / part).read_text(encoding="utf-8").rstrip()
        text = replaced(text, part, f"```python\n{code}\n```")
    return text


def replaced(text: str, part: str, content: str) -> str:
    """Return the text with new content between `<!-- part -->` and `<!-- end -->`."""
    begin, end = f"<!-- {part} -->\n", "<!-- end -->"
    if begin not in text:
        raise ValueError(f"the line {begin.strip()} is missing")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n\n{end}{after}" if content else f"{before}{begin}\n{end}{after}"


def current(document: Path, text: str) -> str:
    """Return the document's text with its generated parts up to date."""
    if document == DESIGN:
        return replaced(text, "map", file_map())
    if document == DECISIONS:
        return replaced(text, "list", decisions())
    if document == VENDORS:
        return vendors(text)
    for promise in promised(text):
        text = replaced(text, f"tests of {promise}", tests_of(promise))
    return text


def main() -> None:
    """Update every document that has generated parts."""
    for document in (DESIGN, PROMISES, DECISIONS, VENDORS):
        path = ROOT / document
        path.write_text(current(document, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
