"""Writes a first configuration and a first mapping test for a schema and some vendors.

A vendor's field is mapped where the schema has a field of its name or meaning (user, time, event name, attributes). A
required field for which there is none gets `TODO`, which `connector check` refuses until it is replaced.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import SecretStr

from connector.codec.reader import logical_type
from connector.codec.schemas import RECORDS, Schema, load_contracts, named_types
from connector.dead_letters.inspection import Preparation
from connector.operations.offline import Offline, WrittenEvent, load_offline
from connector.vendors.base import FieldKind, VendorKind

TODO: Final = "TODO"
TEST_TIME: Final = 1_795_168_805_000
"""The time of the first test: 2026-11-20T10:00:05Z."""
_TEST_TEXT: Final = "2026-11-20T10:00:00Z"
_PLAIN: Final = re.compile(r"[A-Za-z_][\w.-]*")
_RESERVED: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}

_USER_FIELDS: Final = ("cuid", "customuserid", "customerid")
_NAME_FIELDS: Final = ("eventname", "customeventname", "eventcode")
_USERS: Final = (
    *("cuid", "userid", "user.id", "uid", "customerid", "customer.id", "memberid", "accountid", "account.id"),
    *("subscriberid", "subscriber.id", "guestid", "guest.id", "deviceid", "device.id"),
)
_NAMES: Final = ("eventname", "eventtype", "eventcode", "event", "name", "type", "action", "kind")
_TIMES: Final = (
    *("eventtime", "eventtimestamp", "occurredat", "createdat", "timestamp", "time", "at", "ts", "bookedat"),
    *("measuredat", "recordedat", "sentat", "updatedat"),
)
_IDS: Final = ("eventid", "uuid", "id", "messageid")
_PERSONAL: Final = (
    "phone",
    "mobile",
    "email",
    "mail",
    "name",
    "address",
    "birth",
    "passport",
    "ip",
    "lat",
    "lon",
    "card",
)
_CONSENT: Final = ("consent", "optin", "hasconsent", "marketingconsent", "tracking")
_UUID: Final = "6de20157-5a72-57d2-9ca5-942311a8bdfa"
_SAMPLES: Final = {
    "email": "ann@example.com",
    "phone": "13800138000",
    "currency": "EUR",
    "country": "DE",
    "city": "Berlin",
    **dict.fromkeys(("idfa", "idfv", "gaid", "uuid", "guid"), _UUID),
    "ip": "203.0.113.7",
}
"""Invented values by a word of the field's name."""
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("string", "enum", "int", "long", "boolean", "uuid", "decimal"),
    "long": ("int", "long"),
    "boolean": ("boolean",),
    "millis": ("timestamp",),
    "seconds": ("timestamp",),
}
"""The kinds of a schema's fields that a vendor's field takes without loss, by its type."""


class Leaf(NamedTuple):
    """A field of the schema that is no record: its path, its kind (a logical type's where it has one)."""

    path: str
    kind: str
    optional: bool


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """What a vendor's field is mapped to: a source as YAML, or `TODO`; `note` is a comment.

    With `paths` it is a map of the values at these paths.
    """

    field: str
    source: str
    note: str = ""
    paths: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether a person has to decide."""
        return self.source == TODO


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
    """Return the plan for a topic whose events have the schema."""
    found = list(leaves(schema))
    return Plan(
        topic,
        schema,
        schema_file,
        kinds,
        {name: choices(kind, found) for name, kind in kinds.items()},
        _identity(topic, found),
        next((leaf.path for leaf in found if leaf.kind == "boolean" and _words(leaf.path)[-1] in _CONSENT), None),
        bootstrap,
        registry,
    )


def leaves(schema: Schema) -> Iterator[Leaf]:
    """Yield the fields of a record schema that are no records, in the schema's order; of unions the first branch."""
    yield from _leaves(schema.tree, named_types(schema.tree), "", optional=False, seen=())


def _leaves(
    record: Any, named: Mapping[str, Any], prefix: str, *, optional: bool, seen: tuple[str, ...]
) -> Iterator[Leaf]:
    for field in record["fields"]:
        node, null = _branch(field["type"], named)
        path = f"{prefix}{field['name']}"
        kind = node if isinstance(node, str) else node["type"]
        if kind in RECORDS:
            if node["name"] not in seen:
                inner = (*seen, node["name"])
                yield from _leaves(node, named, f"{path}.", optional=optional or null, seen=inner)
            continue
        logical = logical_type(node) if isinstance(node, dict) else None
        shown = kind if logical is None else logical.name
        shown = "timestamp" if shown.startswith("timestamp-") else shown
        yield Leaf(path, shown, optional or null)


def _branch(node: Any, named: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return a type, or the first branch of a union that is not null, and whether it may be null."""
    null = False
    while True:
        if isinstance(node, list):
            null = null or "null" in node
            node = next((branch for branch in node if branch != "null"), "null")
        elif isinstance(node, str) and node in named:
            node = named[node]
        elif isinstance(node, dict) and not isinstance(node["type"], str):
            node = node["type"]
        else:
            return node, null


def choices(kind: VendorKind, found: Sequence[Leaf]) -> list[FieldChoice]:
    """Return the mapping of a vendor's fields: the required ones first, then those that the schema has."""
    documented = field_meanings(kind)
    made = [_choice(kind, name, field, found, documented[name]) for name, field in kind.fields.items()]
    known = [choice for choice in made if choice is not None]
    return sorted(known, key=lambda choice: not (kind.fields[choice.field].required or choice.open))


def field_meanings(kind: VendorKind) -> Mapping[str, str]:
    """Return what each field of a vendor is: by its contract schema, else by the vendor's own words."""
    contract = load_contracts().schemas.get(kind.schema)
    fields = contract.tree.get("fields", ()) if contract is not None else ()
    documented = {field["name"]: field.get("doc", "") for field in fields}
    return {name: documented.get(name) or field.meaning for name, field in kind.fields.items()}


def _choice(kind: VendorKind, name: str, field: FieldKind, found: Sequence[Leaf], doc: str) -> FieldChoice | None:
    """Return what one field is mapped to; None for an optional field that nothing stands for."""
    word = _words(name)[0]
    if name == "method" and kind.name == "mytracker":
        return FieldChoice(name, "{const: customEvent}", "or registration, login")
    if field.type in ("map", "string_map") and not field.required:
        return _attributes(name, found)
    wanted = _TYPES.get(field.type, ())
    meant: tuple[str, ...] = (word,)
    if word in _USER_FIELDS:
        meant = (word, *_USERS)
    elif word in _NAME_FIELDS:
        meant = (word, *_NAMES)
    elif field.type in ("millis", "seconds"):
        meant = (word, *_TIMES)
    leaf = _best(found, meant, wanted)
    if leaf is not None:
        unfilled = f"may be null: {leaf.path}" if leaf.optional and field.required else ""
        return FieldChoice(name, leaf.path, unfilled)
    if field.type in ("millis", "seconds"):
        return _time(name, found)
    if field.required or word in (*_USER_FIELDS, *_NAME_FIELDS):
        return FieldChoice(name, TODO, _advice(word, field, found, doc))
    return None


def _time(name: str, found: Sequence[Leaf]) -> FieldChoice:
    """Return what a time is mapped to where no timestamp has a known name: another timestamp, text, or a number."""
    first = next((leaf for leaf in found if leaf.kind == "timestamp"), None)
    if first is not None:
        return FieldChoice(name, first.path)
    text = _best(found, _TIMES, ("string",))
    if text is not None:
        return FieldChoice(name, text.path, "must be ISO 8601 with a zone, or digits of milliseconds with unit: ms")
    number = next((leaf for leaf in found if leaf.kind in ("int", "long") and _is_time(leaf.path)), None)
    if number is not None:
        return FieldChoice(name, TODO, f"{{path: {number.path}, unit: ms}}, or unit: s")
    return FieldChoice(name, "$timestamp", "the record's time, because the schema has no time")


def _is_time(path: str) -> bool:
    return any(part in ("time", "timestamp", "ts", "at", "epoch") for part in _parts(path.rpartition(".")[2]))


def _advice(word: str, field: FieldKind, found: Sequence[Leaf], doc: str) -> str:
    """Return what a person needs to know to replace a TODO."""
    advice = (doc or {"long": "a whole number", "string": "text"}.get(field.type, field.type)).rstrip(".")
    if word in _NAME_FIELDS:
        advice = f"a path, or a constant such as {{const: order_placed}}. {advice}"
    near = _best(found, (word, *_USERS), ("string", "uuid")) if word in _USER_FIELDS else None
    return f"{advice} ({near.path} is text)" if near is not None and field.type == "long" else advice


def _attributes(name: str, found: Sequence[Leaf]) -> FieldChoice | None:
    """Return a map of the event's own single values; personal data is left out on purpose."""
    own = [leaf.path for leaf in found if "." not in leaf.path and leaf.kind not in ("array", "map", "bytes", "fixed")]
    kept = [path for path in own if not any(word in _PERSONAL for word in _parts(path))]
    maps = [leaf.path for leaf in found if leaf.kind == "map" and "." not in leaf.path]
    if not kept and len(maps) == 1:
        return FieldChoice(name, maps[0])
    return FieldChoice(name, "", "personal data is left out; add what you may send", tuple(kept)) if kept else None


def _best(found: Sequence[Leaf], meant: Sequence[str], kinds: Sequence[str]) -> Leaf | None:
    """Return the field whose whole path, or else last names, are the first of the meanings that occurs."""
    usable = [leaf for leaf in found if leaf.kind in kinds]
    for word in dict.fromkeys(meant):
        plain = word.replace(".", "")
        for leaf in usable:
            names = _words(leaf.path)
            if plain in ("".join(names), names[-1]) or (len(names) > 1 and plain == "".join(names[-2:])):
                return leaf
    return None


def _identity(topic: str, found: Sequence[Leaf]) -> str | None:
    """Return the event's own id: a field at the top named so, or after the topic (`order_id` in `orders`)."""
    one = _words(topic.rpartition(".")[2])[0].removesuffix("s")
    top = {_words(leaf.path)[0]: leaf for leaf in found if "." not in leaf.path}
    names = (*_IDS[:2], f"{one}id", *_IDS[2:])
    leaf = next((top[name] for name in names if name in top), None)
    return leaf.path if leaf is not None and leaf.kind in ("string", "int", "long", "uuid") else None


def _words(path: str) -> list[str]:
    """Return the names of a path in a form that is compared: `user.firstName` and `user.first_name` are the same."""
    return [re.sub(r"[^a-z0-9]", "", name.lower()) for name in path.split(".")]


def _parts(path: str) -> list[str]:
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path)]


def configuration(plan: Plan) -> str:
    """Return the configuration as YAML with comments."""
    servers = plan.bootstrap or "${KAFKA_BOOTSTRAP:-localhost:9092}"
    lines = [
        "# yaml-language-server: $schema=connector.schema.json",
        "# Written by connector init. Replace every TODO, then: connector check, connector test.",
        "# Every key: docs/configuration.md. Routes and mapping: docs/routing.md. Vendors: docs/vendors.md.",
        "kafka:",
        f"  topics: [{_scalar(plan.topic)}]",
        f"  group_id: {_scalar(plan.topic.replace('.', '-') + '-connector')}",
        "  start: earliest # where the group has no offset yet; or latest",
        "  create_topics: true # creates the dead-letter and replay topics; false: connector topics --create does",
        "  client: # any property of librdkafka, such as security.protocol",
        f"    bootstrap.servers: {_scalar(servers)}",
        "",
    ]
    if plan.registry is not None:
        lines += ["schema_registry:", f"  url: {_scalar(plan.registry)}", ""]
    lines += ["schemas: # known without a registry: for connector check, test and map"]
    lines += [f"  files: [{_scalar(plan.schema_file)}]", "", "destinations:"]
    for name, vendor in plan.destinations.items():
        lines += _destination(name, plan.kinds[vendor])
    lines += ["", "routes:"]
    if plan.consent is not None:
        lines += [
            f"  - topics: [{_scalar(plan.topic)}] # drops events without consent; delete it if that is wrong",
            f"    where: {{{plan.consent}: false}}",
            "    to: []",
        ]
    lines += [
        f"  - topics: [{_scalar(plan.topic)}]",
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
            if choice.paths:
                lines += ["          map:", *(f"            {_scalar(path)}: {path}" for path in choice.paths)]
    return "\n".join(lines) + "\n"


def _destination(name: str, kind: VendorKind) -> Iterator[str]:
    """Yield a destination: what its vendor requires of the account, as references."""
    yield f"  {name}: # docs/vendors.md; limits: connector list vendors"
    yield f"    vendor: {kind.name}"
    for key, field in kind.settings.model_fields.items():
        if key == "base_url" and not field.is_required():
            address = f"${{{kind.name.upper()}_BASE_URL:-{field.default}}}"
            yield f"    base_url: {_scalar(address)} # to try it: connector simulate {kind.name}"
        elif field.is_required() and key != "vendor":
            variable = f"{kind.name}_{key}".upper()
            secret = field.annotation is SecretStr
            file = f" # or ${{file:/run/secrets/{variable.lower()}}}" if secret else " # or the value itself"
            yield f"    {key}: ${{{variable}}}{file}"


def _scalar(text: str) -> str:
    """Return text as a YAML scalar, quoted where it could be read as something else."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED else json.dumps(text)


def sample_event(schema: Schema) -> dict[str, Any]:
    """Return an invented event of the schema, in plain JSON."""
    value: dict[str, Any] = _sample(schema.tree, named_types(schema.tree), schema.name or "event", 0)
    return value


def _sample(node: Any, named: Mapping[str, Any], name: str, depth: int) -> Any:
    node, null = _branch(node, named)
    kind = node if isinstance(node, str) else node["type"]
    if null and depth > 4:
        return None
    if kind in RECORDS:
        return {each["name"]: _sample(each["type"], named, each["name"], depth + 1) for each in node["fields"]}
    if kind == "array":
        return [] if depth > 4 else [_sample(node["items"], named, name, depth + 1)]
    if kind == "map":
        return {} if depth > 4 else {"key": _sample(node["values"], named, name, depth + 1)}
    if kind == "enum":
        return node["symbols"][0]
    logical = logical_type(node) if isinstance(node, dict) else None
    if logical is not None:
        return _sample_of_logical(logical.name, logical.scale)
    plain = {"boolean": True, "int": 1, "long": 1, "float": 1.5, "double": 1.5, "bytes": "bytes", "null": None}
    if kind in ("int", "long") and _is_time(name):
        return TEST_TIME - 5000 if kind == "long" else (TEST_TIME - 5000) // 1000
    if kind == "fixed":
        return "0" * int(node["size"])
    return plain.get(kind, _sample_text(name))


def _sample_of_logical(name: str, scale: int) -> Any:
    if name == "decimal":
        return ("20", "19.9")[scale] if scale < 2 else "19.98"
    if name == "uuid":
        return _UUID
    if name == "date":
        return _TEST_TEXT[:10]
    if name.startswith("time-"):
        return "10:00:00"
    return _TEST_TEXT[:-1] if name.startswith("local-") else _TEST_TEXT


def _sample_text(name: str) -> str:
    words = _parts(name)
    if _is_time(name):
        return _TEST_TEXT
    return next((text for word, text in _SAMPLES.items() if word in words), f"{'-'.join(words) or 'text'}-1")


def first_test(plan: Plan, config: Path) -> str:
    """Return a first test of the configuration in `config`, which is written already.

    Its expectation is what today's mapping sends, without the fields that are still open.
    """
    event = sample_event(plan.schema)
    lines = [
        "# Written by connector init; run it by: connector test. docs/mapping-tests.md explains every key.",
        f"topic: {_scalar(plan.topic)}",
        f"schema: {plan.schema.name}",
        "time: 2026-11-20T10:00:05Z",
        "tests:",
        f"  - name: an event of {plan.topic} reaches every destination",
        "    event:",
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
    """Return what each destination is sent by a copy of the configuration whose TODOs are constants.

    Where a vendor's rule refuses the invented event, its code.
    """
    text = configuration(plan)
    for vendor, mapping in plan.mappings.items():
        for choice in mapping:
            if choice.open:
                value = 1 if plan.kinds[vendor].fields[choice.field].type in ("long", "millis", "seconds") else "todo"
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


def _known_part(plan: Plan, vendor: str, found: Preparation | None) -> Any:
    """Return the fields of what is sent that are decided already; a dedup id changes with the route."""
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
    return [f"{_scalar(str(name))}: {_flow(inner)}" for name, inner in value.items()]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(str(name))}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)
