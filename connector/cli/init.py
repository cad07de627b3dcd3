"""The command `connector init`: a first configuration and a first test, from a schema and the names of vendors."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, Json, confirm, fail, in_loop, json_line, print_raw
from connector.cli.completion import complete_vendor
from connector.errors import counted

if TYPE_CHECKING:
    from connector.codec.schemas import Schema
    from connector.operations.scaffold import Plan
    from connector.vendors.base import VendorKind


def init(  # noqa: PLR0913 -- each option is one of the command line
    *,
    topic: Annotated[str, typer.Option(metavar="TOPIC", help="The topic with your events.")],
    vendor: Annotated[
        list[str],
        typer.Option(metavar="VENDOR", help="Where they go; repeatable.", autocompletion=complete_vendor),
    ],
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help="The events' Avro schema (.avsc).")] = None,
    record: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The record's full name, if the file defines several."),
    ] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="URL", help="Read the schema from this registry: subject TOPIC-value.")
    ] = None,
    bootstrap: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="With --registry: look at the topic's newest records instead."),
    ] = None,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The configuration to write.")
    ] = DEFAULT_FILE,
    yes: Annotated[bool, typer.Option("--yes", help="Overwrite files without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Write a first configuration and a first mapping test for your own schema.

    Fields with the same name or meaning are mapped. If the vendor requires a field that the schema does not have, the
    file has a TODO. Secrets are references. Nothing is sent, and no file is overwritten without asking.
    """
    from connector.operations import scaffold

    kinds = _kinds(vendor)
    found = _from_file(schema, record) if schema is not None else _from_registry(topic, registry, bootstrap)
    own = config.with_name(f"{(found.name or topic).rpartition('.')[2]}.avsc")
    file = schema if schema is not None and record is None else own
    plan = scaffold.plan(
        topic,
        found,
        os.path.relpath(file, config.parent),
        kinds,
        bootstrap=bootstrap,
        registry=registry,
    )
    contents = {config.with_name("connector.schema.json"): _json_schema(), config: scaffold.configuration(plan)}
    if file is own:
        contents[file] = json.dumps(found.tree, ensure_ascii=False, indent=2) + "\n"
    test = config.with_name(f"{topic}.test.yaml")
    _ask([*contents, test], yes=yes)
    for path, text in contents.items():
        path.write_text(text, encoding="utf-8")
    test.write_text(scaffold.first_test(plan, config), encoding="utf-8")
    _report(plan, config, [*contents, test], as_json=as_json)


def _kinds(names: list[str]) -> Mapping[str, VendorKind]:
    from connector import vendors
    from connector.config.errors import suggest

    known = vendors.kinds()
    for name in names:
        if name not in known:
            fail(f"unknown vendor {name!r}; {suggest(name, known, 'vendors')}", BAD_CONFIGURATION)
    return {name: known[name] for name in names}


def _from_file(path: Path, record: str | None) -> Schema:
    """Return the record schema in a file; exit with 2 if there is none, or several."""
    from connector.codec.schemas import load_schema_files
    from connector.errors import StartupError

    try:
        found = [each for each in load_schema_files([path]) if each.name is not None]
    except StartupError as error:
        fail(f"--schema: {str(error).removeprefix('schemas.files: ')}", BAD_CONFIGURATION)
    if record is not None:
        found = [each for each in found if each.name == record]
    if len(found) != 1:
        known = f"no record {record}" if record else "no record" if not found else f"{len(found)} records"
        fail(f"--schema: {path} has {known} at its top level; choose one with --record", BAD_CONFIGURATION)
    return found[0]


def _from_registry(topic: str, registry: str | None, bootstrap: str | None) -> Schema:
    """Return the schema that the registry has for the topic; exit with 1 or 2 if there is none."""
    from connector.operations.discovery import schema_of_topic

    if registry is None:
        fail("Name the events' schema: --schema FILE, or --registry URL.", BAD_CONFIGURATION)
    return in_loop(schema_of_topic(topic, registry, bootstrap))


def _json_schema() -> str:
    from connector.config.reference import json_schema
    from connector.vendors import kinds

    known = json_schema({name: kind.settings for name, kind in kinds().items()})
    return json.dumps(known, ensure_ascii=False, indent=2) + "\n"


def _ask(paths: list[Path], *, yes: bool) -> None:
    """Return normally if the files may be written; otherwise exit with 2."""
    for path in paths:
        if not path.parent.is_dir():
            fail(f"{path.parent} is not a folder; create it first", BAD_CONFIGURATION)
    there = [str(path) for path in paths if path.exists() and path.name != "connector.schema.json"]
    if there and not (yes or _may_overwrite(there)):
        fail(f"Nothing was written: {', '.join(there)} exists. Pass -c to write another file.", BAD_CONFIGURATION)


def _may_overwrite(there: list[str]) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        fail(f"{', '.join(there)} exists; pass --yes to overwrite, or -c to write another file.", BAD_CONFIGURATION)
    return confirm(f"Overwrite {', '.join(there)}?", "overwrite them", yes=False)


def _report(plan: Plan, config: Path, written: list[Path], *, as_json: bool) -> None:
    """Print what was written, and what to do next."""
    if as_json:
        sys.stdout.write(json_line({"written": [str(path) for path in written], "todos": plan.todos}))
        return
    print_raw(f"Wrote {', '.join(str(path) for path in written)}.")
    option = "" if config == DEFAULT_FILE else f" -c {config}"
    if plan.todos:
        print_raw(f"1. Replace {counted(plan.todos, 'TODO')} in {config}.")
    else:
        print_raw(f"1. Look at the mapping in {config}; nothing is left to replace.")
    print_raw(f"2. Try it: connector test{option}")
    print_raw(f"3. Set the variables of the accounts, then: connector check{option}")
