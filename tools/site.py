"""Hooks of mkdocs.yml: pages that are not in docs/, generated references, and links that lead out of the site.

`make site` builds the documents as a site; the same pages read well in the repository itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

import typer
from mkdocs.structure.files import File, Files

from connector.cli.main import app
from connector.vendors import kinds
from tools.source import ROOT

OUTSIDE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "avro/README.md": "avro.md",
    "helm/README.md": "helm.md",
}
"""Pages of the repository that are not in docs/, and what they are called in the site."""

API: Final = """# Python API

What other projects may build on. Everything else may change at any time.

## Tests with simulated vendors and an embedded broker

::: connector.testing

## A vendor of your own

[A complete example](vendors.md#a-vendor-of-your-own) shows how the parts work together.

::: connector.vendors.base

::: connector.vendors.checks
    options: {members: [Rules, rule_ids, rule_texts, type_name, scalar, scalar_or_same, epoch_millis, json_bytes]}

::: connector.vendors.answers
    options:
      members: [LogText, json_value, verdict_of_status, verdict_of_unknown_body, request_id, retry_after, rate_hint]

::: connector.config
    options: {members: [DestinationSettings, DocumentedLimits]}

::: connector.records
    options: {members: [Item, Answer]}

::: connector.errors.Refusal

## Run the connector inside your own program

::: connector.runtime.app.serve

::: connector.config.loader.load

::: connector.vendors.kinds

::: connector.telemetry.logs.configure
"""


def commands() -> str:
    """Return the reference of all commands: what each does, its arguments and options."""
    intro = (
        "Every command reads the configuration file given with `-c`. Exit codes: 0 done, 1 failed, "
        "2 bad usage or faulty configuration."
    )
    return "\n".join(["# Commands", "", intro, "", *_described(typer.main.get_command(app), "connector")])


def _described(command: Any, name: str) -> Iterator[str]:
    """Yield the lines about one command; of a group, those about each of its commands."""
    for child, each in getattr(command, "commands", {}).items():
        yield from _described(each, f"{name} {child}")
    if hasattr(command, "commands"):
        return
    yield from (f"## `{name}`", "", command.help or "", "", "| argument or option | meaning |", "|---|---|")
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            shown = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(parameter.opts)
            yield f"| `{shown}` | {' '.join((parameter.help or '').split())} |"
    yield ""


def codes() -> str:
    """Return the reference of every vendor's local rules and of the codes that its document lists."""
    lines = [
        "# Rules and codes",
        "",
        "`rules:` switches a local rule off by its id; `codes:` overrides what a vendor's code means.",
        "",
    ]
    for name, kind in kinds(others=[]).items():
        lines += [
            f"## `{name}`",
            "",
            "Local rules: " + ", ".join(f"`{name}.{rule}`" for rule in sorted(kind.rules)),
            "",
        ]
        lines += ["| code | meaning | what to do |", "|---|---|---|"]
        lines += [f"| `{code}` | {meaning.meaning} | {meaning.solution} |" for code, meaning in kind.codes.items()]
        lines.append("")
    return "\n".join(lines)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are not in docs/ and the generated ones."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, content in (("commands.md", commands()), ("codes.md", codes()), ("api.md", API)):
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Lead every relative link to the page of the site; a link to another file of the repository becomes its path."""
    del config
    uri = page.file.src_uri
    source = next((path for path, name in OUTSIDE.items() if name == uri), f"docs/{uri}")
    by_source = {**{f"docs/{file.src_uri}": file.src_uri for file in files}, **OUTSIDE}

    def lead(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        name, _, heading = target.partition("#")
        if not name or re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(PurePosixPath(source).parent / name)
        found = by_source.get(path) or by_source.get(f"{path}/README.md")
        if found is None:
            return f"{text} (`{path}`)" if text.strip("`/") not in path else f"`{path}`"
        relative = os.path.relpath(found, PurePosixPath(uri).parent)
        return f"[{text}]({relative}{'#' * bool(heading)}{heading})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        part if part.startswith("```") else re.sub(r"\[([^\]\n]*)\]\(([^)\s]+)\)", lead, part) for part in parts
    )
