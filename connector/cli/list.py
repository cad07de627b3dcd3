"""The commands `connector list vendors`, `fields`, `rules` and `codes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli.common import BAD_CONFIGURATION, Json, emit, fail, print_table
from connector.cli.completion import complete_vendor

if TYPE_CHECKING:
    from connector.vendors.base import VendorKind

listing = typer.Typer(
    name="list", help="List the vendors, and the fields, rules and codes of each.", no_args_is_help=True
)

VendorName = Annotated[str, typer.Argument(metavar="VENDOR", help="The vendor's name.", autocompletion=complete_vendor)]

_TYPES = {
    "string": "text; numbers and booleans become text",
    "long": "whole number",
    "boolean": "true or false",
    "millis": "time, sent as epoch milliseconds",
    "seconds": "time, sent as epoch seconds",
    "map": "map or record",
    "strings": "list of texts",
    "string_map": "map or record, values become text",
    "records": "list of records",
    "any": "any value",
}
"""What a field accepts, by its type; docs/routing.md has the conversions."""


@listing.command("vendors")
def list_vendors(*, as_json: Json = False) -> None:
    """List the installed vendors with their limits and contract schemas."""
    from connector.config.reference import size_text
    from connector.vendors import kinds

    def row(kind: VendorKind) -> dict[str, Any]:
        limits = kind.settings.documented
        required = [name for name, field in kind.settings.model_fields.items() if field.is_required()]
        return {
            "vendor": kind.name,
            "records": limits.records,
            "bytes": limits.bytes,
            "requests_per_second": limits.requests_per_second,
            "schema": kind.schema,
            "required": [name for name in required if name != "vendor"],
        }

    def show(kinds: Sequence[VendorKind]) -> None:
        rows = [row(kind) for kind in kinds]
        print_table(
            ("vendor", "records", "bytes", "requests/s", "required settings"),
            [
                (
                    each["vendor"],
                    each["records"],
                    size_text(each["bytes"]),
                    "-" if each["requests_per_second"] is None else f"{each['requests_per_second']:g}",
                    ", ".join(each["required"]),
                )
                for each in rows
            ],
            right=("records", "bytes", "requests/s"),
            whole=("vendor",),
        )

    emit(kinds().values(), as_json, row, show)


@listing.command("fields")
def list_fields(vendor: VendorName, *, as_json: Json = False) -> None:
    """List the fields of a vendor that a route may map, with what each takes."""
    from connector.operations.field_choices import field_meanings

    kind = _kind(vendor)
    meanings = field_meanings(kind)
    rows = [
        {"field": name, "type": each.type, "required": each.required, "meaning": meanings[name]}
        for name, each in kind.fields.items()
    ]

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        takes = _TYPES.get(row["type"], row["type"])
        return row["field"], f"{takes}; required" if row["required"] else takes, row["meaning"]

    _emit(rows, as_json, ("field", "takes", "meaning"), cells, whole="field")


@listing.command("rules")
def list_rules(vendor: VendorName, *, as_json: Json = False) -> None:
    """List a vendor's local rules. Each can be switched off: `rules: {ID: off}` in the destination."""
    kind = _kind(vendor)
    rows = [{"rule": rule, "allows": kind.rule_texts.get(rule, "")} for rule in sorted(kind.rules)]
    _emit(rows, as_json, ("rule", "allows"), lambda row: (row["rule"], row["allows"]), whole="rule")


@listing.command("codes")
def list_codes(vendor: VendorName, *, as_json: Json = False) -> None:
    """List the codes of a vendor's answers, with what each means and what to do."""
    codes = _kind(vendor).codes
    rows = [{"code": code, "meaning": each.meaning, "solution": each.solution} for code, each in codes.items()]
    _emit(rows, as_json, ("code", "meaning", "what to do"), lambda row: tuple(row.values()), whole="code")


def _emit(rows: list[dict[str, Any]], as_json: bool, columns: Sequence[str], cells: Any, *, whole: str) -> None:  # noqa: FBT001
    emit(rows, as_json, dict, lambda every: print_table(columns, map(cells, every), whole=(whole,)))


def _kind(name: str) -> VendorKind:
    """Return the vendor; exit with 2 if there is none of this name."""
    from connector.config.errors import suggest
    from connector.vendors import kinds

    known = kinds()
    if name not in known:
        fail(f"unknown vendor {name!r}; {suggest(name, known, 'vendors')}", BAD_CONFIGURATION)
    return known[name]
