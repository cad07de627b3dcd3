"""Chooses what a first configuration maps each vendor field to, by names and meanings of the schema's fields. Pure.

Personal data, and records about persons, are left out on purpose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.codec.schemas import load_contracts
from connector.operations.schema_fields import Leaf, is_time, parts_of, words_of
from connector.vendors.base import FieldKind, VendorKind

_PLAIN: Final = re.compile(r"[A-Za-z_][\w.-]*")
_RESERVED: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
TODO: Final = "TODO"
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
    *("phone", "mobile", "email", "mail", "name", "address", "birth", "passport", "msisdn", "iban", "street", "zip"),
    *("ip", "lat", "lon", "card"),
)
_WITHIN: Final = re.compile("phone|mobile|email|birth|passport|msisdn|(?:user|first|last|full|sur|nick)name")
"""Also matched inside a word, such as `emailaddress`."""
_PERSONS: Final = (
    *("phone", "mobile", "email", "mail", "birth", "passport", "msisdn", "card", "user", "customer", "guest", "person"),
    *("passenger", "driver", "member", "contact", "subscriber", "recipient", "account", "profile"),
)
"""Words that show that a record is about a person, in its name or its fields' names."""
_CONSENT: Final = re.compile(r"(?<!without|pending)(consent|optin|\btracking)(?!required|withdrawn|revoked|pending)")
_TEXTS: Final = ("string", "enum", "uuid")
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("string", "enum", "int", "long", "boolean", "uuid", "decimal"),
    "long": ("int", "long"),
    "boolean": ("boolean",),
    "millis": ("timestamp",),
    "seconds": ("timestamp",),
}
"""The kinds of a schema's fields that a vendor's field takes without loss, by its type."""


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """What a vendor's field is mapped to: a source as YAML, or `TODO`; `note` is a comment.

    With `parts` it is a map: the entries of the map at `base`, then these sources by key.
    """

    field: str
    source: str
    note: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    base: str = ""

    @property
    def open(self) -> bool:
        """Whether a person has to choose the source."""
        return self.source == TODO


def choices(kind: VendorKind, found: Sequence[Leaf]) -> list[FieldChoice]:
    """Return the mapping of a vendor's fields: the required ones first, then those that the schema has."""
    documented = field_meanings(kind)
    made = [_choice(kind, name, field, found, documented[name]) for name, field in kind.fields.items()]
    known = [choice for choice in made if choice is not None]
    return sorted(known, key=lambda choice: not (kind.fields[choice.field].required or choice.open))


def field_meanings(kind: VendorKind) -> Mapping[str, str]:
    """Return the meaning of each field of a vendor, from its contract schema, else from the vendor."""
    contract = load_contracts().schemas.get(kind.schema)
    fields = contract.tree.get("fields", ()) if contract is not None else ()
    documented = {field["name"]: field.get("doc", "") for field in fields}
    return {name: documented.get(name) or field.meaning for name, field in kind.fields.items()}


def _choice(kind: VendorKind, name: str, field: FieldKind, found: Sequence[Leaf], doc: str) -> FieldChoice | None:
    """Return what one field is mapped to; None for an optional field without a counterpart."""
    word = words_of(name)[0]
    if name == "method" and kind.name == "mytracker":
        return FieldChoice(name, "{const: customEvent}", "or registration, login")
    if field.type in ("map", "string_map") and not field.required:
        short = "characters" in kind.rule_texts.get(f"{kind.name}.{name}.value", "")
        return _attributes(field, name, found, short=short)
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
    """Return what a time is mapped to if no timestamp has a known name: another timestamp, text, or a number."""
    first = next((leaf for leaf in found if leaf.kind == "timestamp"), None)
    if first is not None:
        return FieldChoice(name, first.path)
    text = _best(found, _TIMES, ("string",))
    if text is not None:
        return FieldChoice(name, text.path, "must be ISO 8601 with a zone, or digits of milliseconds with unit: ms")
    number = next((leaf for leaf in found if leaf.kind in ("int", "long") and is_time(leaf.path)), None)
    if number is not None:
        return FieldChoice(name, TODO, f"{{path: {number.path}, unit: ms}}, or unit: s")
    return FieldChoice(name, "$timestamp", "the record's time, because the schema has no time")


def _advice(word: str, field: FieldKind, found: Sequence[Leaf], doc: str) -> str:
    """Return what a person needs to know to replace a TODO."""
    advice = (doc or {"long": "a whole number", "string": "text"}.get(field.type, field.type)).rstrip(".")
    if word in _NAME_FIELDS:
        advice = f"a path, or a constant such as {{const: order_placed}}. {advice}"
    near = _best(found, (word, *_USERS), ("string", "uuid")) if word in _USER_FIELDS else None
    return f"{advice} ({near.path} is text)" if near is not None and field.type == "long" else advice


def _attributes(field: FieldKind, name: str, found: Sequence[Leaf], *, short: bool) -> FieldChoice | None:
    """Return a map of the event's own values; personal data, and records about persons, are left out on purpose.

    `short`: the vendor bounds the values' length, so lists and maps, which have no bound, are left out too.
    """
    kept = [leaf for leaf in found if not _is_personal(leaf.path) and leaf.kind not in ("bytes", "fixed")]
    maps = [leaf.path for leaf in kept if leaf.kind == "map" and leaf.items and "." not in leaf.path]
    base = maps[0] if len(maps) == 1 else ""
    if base and len(kept) == 1:
        return FieldChoice(name, base)
    single = [leaf for leaf in kept if leaf.path != base and not (short and leaf.kind in ("array", "map"))]
    parts = {_key(leaf.path): _attribute(leaf, field) for leaf in single}
    note = "personal data is left out; add what you may send"
    return FieldChoice(name, "", note, tuple(parts.items()), base) if parts else None


def _attribute(leaf: Leaf, field: FieldKind) -> str:
    """Return the source of an entry. Lists of strings stay lists if the vendor's map allows that; others are JSON."""
    if leaf.kind == "map" or (leaf.kind == "array" and (field.type != "map" or leaf.items not in _TEXTS)):
        return f"{{json: {scalar(leaf.path)}}}"
    return scalar(leaf.path)


def _key(path: str) -> str:
    return path.replace("[]", "").replace(".", "_")


def _is_personal(path: str) -> bool:
    """Whether a field, or a record around it, is about a person."""
    *records, last = path.split(".")
    if _WITHIN.search(last.lower()):
        return True
    around = {word for name in records for word in parts_of(name)}
    around |= {word.removesuffix("s") for word in around}
    return any(word in _PERSONAL for word in parts_of(last)) or not around.isdisjoint(_PERSONS)


def is_consent(path: str) -> bool:
    """Whether a boolean says that a person agrees, such as `user.consent`, `consent.marketing` or `hasOptIn`."""
    return _CONSENT.search(".".join(words_of(path))) is not None


def _best(found: Sequence[Leaf], meant: Sequence[str], kinds: Sequence[str]) -> Leaf | None:
    """Return the field that matches the first possible meaning, by its whole path or else by its last names."""
    usable = [leaf for leaf in found if leaf.kind in kinds]
    for word in dict.fromkeys(meant):
        plain = word.replace(".", "")
        for leaf in usable:
            names = words_of(leaf.path)
            if plain in ("".join(names), names[-1]) or (len(names) > 1 and plain == "".join(names[-2:])):
                return leaf
    return None


def identity_of(topic: str, found: Sequence[Leaf]) -> str | None:
    """Return the top-level field with the event's id, by its name or the topic's (`order_id` in `orders`)."""
    one = words_of(topic.rpartition(".")[2])[0].removesuffix("s")
    top = {words_of(leaf.path)[0]: leaf for leaf in found if "." not in leaf.path}
    names = (*_IDS[:2], *(f"{one}{end}" for end in ("id", "ref", "reference", "number", "no", "key")), *_IDS[2:])
    leaf = next((top[name] for name in names if name in top), None)
    return leaf.path if leaf is not None and leaf.kind in ("string", "int", "long", "uuid") else None


def scalar(text: str) -> str:
    """Return text as a YAML scalar, quoted if it could be read as something else."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED else json.dumps(text)
