"""How bytes become a datum: one compiled callable for each writer's schema. The only place that knows the decoder.

An engine is given schemas that `schemas` has measured, so what it compiles ends, whatever the payload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any, Final, TypeVar

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from connector.records import Record

T = TypeVar("T")

try:
    from connector.codec.reader import Unsupported, read_run, reader_of
except ModuleNotFoundError:  # no C compiler was there at installation
    COMPILED = False
else:
    COMPILED = True
    """Whether our own reader was compiled when the package was built."""

Read = Callable[[bytes, int], tuple[Any, int]]
"""Decodes the payload that begins at an index; returns the datum and the index after it. Raises anything."""

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

Write = Callable[[Any], bytes]

MISMATCH: Final = SchemaResolutionError
"""Raised by a `Read` where the payload's schema cannot be read as the reader's."""


def compile_read(
    writer: Any, reader: Any = None, *, tagged: bool = False, as_json: Iterable[tuple[str, str]] = ()
) -> Read:
    """Return what decodes payloads of `writer`, resolved to `reader` where one is given (Avro: "Schema Resolution").

    `tagged`: a union of several records gives `(full name, datum)`. A map in a field of `as_json` (full name of its
    record, name) may come out as an `orjson.Fragment` instead. Raises `ValueError` for a schema that Avro does not
    allow.
    """
    writer_schema = _parsed(writer)
    reader_schema = None if reader is None else _parsed(reader)
    if COMPILED and reader is None:
        try:
            return reader_of(writer, tagged=tagged, as_json=as_json)
        except Unsupported:
            pass  # fastavro decodes it
    # Asking for names costs half as much again, so only where there is a union that needs them.
    tagged = tagged and (_has_choice(writer) or _has_choice(reader))

    def read(payload: bytes, start: int) -> tuple[Any, int]:
        stream = BytesIO(payload)
        stream.seek(start)
        datum = schemaless_reader(
            stream,
            writer_schema,
            reader_schema,
            return_record_name=tagged,
            return_record_name_override=tagged,
        )
        return datum, stream.tell()

    return read


def first_events(records: list[Record], writers: Mapping[bytes, Any], kind: type[T]) -> list[T]:
    """Return the events of the first records, decoded at once, up to one that needs a closer look.

    Each is a `kind` of its writer's name and the datum; `writers` are known by what a value begins with. It is empty
    where our own reader was not compiled.
    """
    return read_run(records, writers, kind) if COMPILED else []


def compile_write(schema: Any) -> Write:
    """Return what encodes data of the schema, a field with a default may be missing.

    Raises `ValueError` for a schema that Avro does not allow; the callable for a datum that is not the schema's.
    """
    parsed = _parsed(schema)

    def write(datum: Any) -> bytes:
        stream = BytesIO()
        schemaless_writer(stream, parsed, datum, strict_allow_default=True)
        return stream.getvalue()

    return write


def _has_choice(tree: Any) -> bool:
    """Tell whether a schema has a union with named branches."""
    if isinstance(tree, list):
        return any(_is_named(branch) or _has_choice(branch) for branch in tree)
    if not isinstance(tree, dict):
        return False
    inner = [tree.get("items"), tree.get("values"), *(field["type"] for field in tree.get("fields", ()))]
    return any(_has_choice(node) for node in inner)


def _is_named(branch: Any) -> bool:
    return "name" in branch if isinstance(branch, dict) else branch not in _PRIMITIVES


def _parsed(tree: Any) -> Any:
    try:
        return parse_schema(tree)
    except Exception as error:  # noqa: BLE001 - fastavro lets KeyError and others through
        raise ValueError(f"{type(error).__name__}: {error}") from None
