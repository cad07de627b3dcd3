"""Writes a first configuration and a first mapping test for a schema and some vendors.

A vendor's field is mapped if the schema has a field with its name or meaning (user, time, event name, attributes). A
required field without a counterpart gets `TODO`, which `connector check` refuses until it is replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from connector.codec.schemas import Schema
from connector.dead_letters.inspection import Preparation
from connector.operations.field_choices import TODO, FieldChoice, choices, identity_of, is_consent, scalar
from connector.operations.offline import Offline, WrittenEvent, load_offline
from connector.operations.schema_fields import TEST_TIME, leaves, sample_event
from connector.vendors.base import FieldKind, VendorKind


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the files are written from."""

    topic: str
    schema: Schema
    schema_file: str
    kinds: Mapping[str, VendorKind]
    mappings: Mapping[str, Sequence[FieldChoice]]
    identity: str | None
    consent: str | None
    bootstrap: str | None
    registry: str | None

    @property
    def destinations(self) -> Mapping[str, str]:
        """The destinations' names with their vendors."""
        return {vendor.replace("_", "-"): vendor for vendor in self.kinds}

    @property
    def todos(self) -> int:
        """How many fields a person has to decide about."""
        return sum(choice.open for mapping in self.mappings.values() for choice in mapping)


def plan(
    topic: str,
    schema: Schema,
    schema_file: str,
    kinds: Mapping[str, VendorKind],
    *,
    bootstrap: str | None = None,
    registry: str | None = None,
) -> Plan:
    """Plan the files for a topic whose events have the schema."""
    found = list(leaves(schema))
    return Plan(
        topic,
        schema,
        schema_file,
        kinds,
        {name: choices(kind, found) for name, kind in kinds.items()},
        identity_of(topic, found),
        next((leaf.path for leaf in found if leaf.kind == "boolean" and is_consent(leaf.path)), None),
        bootstrap,
        registry,
    )


def configuration(plan: Plan) -> str:
    """Return the configuration as YAML with comments."""
    servers = plan.bootstrap or "${KAFKA_BOOTSTRAP:-localhost:9092}"
    lines = [
        "# yaml-language-server: $schema=connector.schema.json",
        "# Written by connector init. Replace every TODO, then: connector check, connector test.",
        "# Every key: docs/configuration.md. Routes and mapping: docs/routing.md. Vendors: docs/vendors.md.",
        "kafka:",
        f"  topics: [{scalar(plan.topic)}]",
        f"  group_id: {scalar(plan.topic.replace('.', '-') + '-connector')}",
        "  start: earliest # where the group has no offset yet; or latest",
        "  create_topics: true # creates the dead-letter and replay topics; false: connector topics --create does",
        "  client: # any property of librdkafka, such as security.protocol",
        f"    bootstrap.servers: {scalar(servers)}",
        "",
    ]
    if plan.registry is not None:
        lines += ["schema_registry:", f"  url: {scalar(plan.registry)}", ""]
    lines += ["schemas: # known without a registry: for connector check, test and map"]
    lines += [f"  files: [{scalar(plan.schema_file)}]", "", "destinations:"]
    for name, vendor in plan.destinations.items():
        lines += _destination(name, plan.kinds[vendor])
    lines += ["", "routes:"]
    if plan.consent is not None:
        lines += [
            f"  - topics: [{scalar(plan.topic)}] # drops events without consent; delete it if that is wrong",
            f"    where: {{{plan.consent}: {{not: true}}}}",
            "    to: []",
        ]
    lines += [
        f"  - topics: [{scalar(plan.topic)}]",
        f"    schema: {plan.schema.name}",
        f"    to: [{', '.join(plan.destinations)}]",
        "    # where: {PATH: VALUE} # only events with this value; or a list of values",
    ]
    if plan.identity is not None:
        lines.append(f"    id: {plan.identity} # the event's own id: repeats have the same dedup id")
    else:
        lines.append("    # id: PATH # the event's own id, if it has one")
    lines.append("    fields: # the vendor's field: its source; connector list fields VENDOR")
    for vendor, mapping in plan.mappings.items():
        lines.append(f"      {vendor}:")
        for choice in mapping:
            note = f"TODO: {choice.note}" if choice.open else choice.note
            lines.append(f"        {' '.join(filter(None, (f'{choice.field}:', choice.source, note and f'# {note}')))}")
            if choice.base:
                lines.append(f"          base: {choice.base} # all of its entries; omit: [KEY] leaves one out")
            if choice.parts:
                lines += ["          map:", *(f"            {scalar(key)}: {source}" for key, source in choice.parts)]
    return "\n".join(lines) + "\n"


def _destination(name: str, kind: VendorKind) -> Iterator[str]:
    """Yield the lines of a destination: what its vendor requires of the account, as references."""
    yield f"  {name}: # docs/vendors.md; limits: connector list vendors"
    yield f"    vendor: {kind.name}"
    for key, field in kind.settings.model_fields.items():
        if key == "base_url" and not field.is_required():
            address = f"${{{kind.name.upper()}_BASE_URL:-{field.default}}}"
            yield f"    base_url: {scalar(address)} # to try it: connector simulate {kind.name}"
        elif field.is_required() and key != "vendor":
            variable = f"{kind.name}_{key}".upper()
            secret = field.annotation is SecretStr
            file = f" # or ${{file:/run/secrets/{variable.lower()}}}" if secret else " # or the value itself"
            yield f"    {key}: ${{{variable}}}{file}"


def first_test(plan: Plan, config: Path) -> str:
    """Return a first test for the configuration in `config`, which is already written.

    It expects what the mapping sends now, without the fields that are still open.
    """
    event = sample_event(plan.schema)
    lines = [
        "# Written by connector init; run it by: connector test. docs/mapping-tests.md explains every key.",
        f"topic: {scalar(plan.topic)}",
        f"schema: {plan.schema.name}",
        "time: 2026-11-20T10:00:05Z",
        "tests:",
        f"  - name: an event of {plan.topic} reaches every destination",
        f"    event:{'' if event else ' {}'}",
        *(f"      {line}" for line in _yaml(event)),
        "    expect:",
    ]
    sent = _expected(plan, config, event)
    for name, vendor in plan.destinations.items():
        todo = [choice.field for choice in plan.mappings[vendor] if choice.open]
        if isinstance(sent[name], str):
            lines.append(f"      {name}: {{refused: {sent[name]}}} # TODO: change the invented event, then this")
            continue
        lines.append(f"      {name}:")
        note = f" # TODO: {', '.join(todo)}" if todo else ""
        lines.append(f"        part:{'' if sent[name] else ' {}'}{note}")
        lines += [f"          {line}" for line in _yaml(sent[name])]
    if plan.consent is not None:
        refused = _without_consent(event, plan.consent)
        lines += [
            "",
            "  - name: without consent nothing is sent",
            "    event:",
            *(f"      {line}" for line in _yaml(refused)),
            "    expect: nothing",
        ]
    return "\n".join(lines) + "\n"


def _without_consent(event: Mapping[str, Any], path: str) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(event))
    inner = copied
    *records, last = path.split(".")
    for name in records:
        inner = inner[name]
    inner[last] = False
    return copied


def _expected(plan: Plan, config: Path, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each destination is sent, by a copy of the configuration with constants for its TODOs.

    If a vendor's rule refuses the invented event, return the rule's code instead.
    """
    text = configuration(plan)
    for vendor, mapping in plan.mappings.items():
        for choice in mapping:
            if choice.open:
                value = _placeholder(plan.kinds[vendor].fields[choice.field])
                text = text.replace(f" {choice.field}: {TODO} ", f" {choice.field}: {{const: {value}}} ")
    draft = config.with_name(f".{config.name}.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        offline = Offline(load_offline(draft, os.environ))
        given = WrittenEvent(event, plan.topic, plan.schema.name, time=TEST_TIME)
        found = {each.destination: each for each in offline.inspect(given).preparations}
    finally:
        draft.unlink(missing_ok=True)
    return {name: _known_part(plan, vendor, found.get(name)) for name, vendor in plan.destinations.items()}


def _placeholder(field: FieldKind) -> str | int:
    """Return a value that the field may have."""
    times = {"long": 1, "millis": TEST_TIME - 5000, "seconds": (TEST_TIME - 5000) // 1000}
    return field.values[0] if field.values else times.get(field.type, "todo")


def _known_part(plan: Plan, vendor: str, found: Preparation | None) -> Any:
    """Return those sent fields that are already decided, without a dedup id, because that changes with the route."""
    if found is None or found.rule is not None:
        return {} if found is None else found.rule
    try:
        body = json.loads(found.fragment or "")
    except ValueError:
        return {}
    decided = {choice.field for choice in plan.mappings[vendor] if not choice.open}
    return {name: value for name, value in body.items() if name in decided}


def _yaml(value: Any) -> list[str]:
    """Return a mapping as lines of YAML: one for each key, with nested values in JSON's form."""
    return [f"{scalar(str(name))}: {_flow(inner)}" for name, inner in value.items()]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(str(name))}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value) if isinstance(value, str) else json.dumps(value)
