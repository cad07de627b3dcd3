"""Compiles one reading function for each writer's schema. The only module that knows which library decodes.

It gets schemas that `schemas` has measured, so reading ends whatever the payload claims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any, Final, TypeVar

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError

from connector.codec.schemas import all_types
from connector.records import Record

T = TypeVar("T")

try:
    from connector.codec.reader import Unsupported, read_run, reader_of
except ModuleNotFoundError:  # there was no C compiler at installation
    COMPILED = False
else:
    COMPILED = True
    """Whether our own reader was compiled when the package was built."""

Read = Callable[[bytes, int], tuple[Any, int]]
"""Decodes the payload at an index; returns the datum and the index after it. Raises anything."""

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

Write = Callable[[Any], bytes]

MISMATCH: Final = SchemaResolutionError
"""Raised by a `Read` if the writer's schema cannot be resolved to the reader's."""


def compile_read(
    writer: Any, reader: Any = None, *, tagged: bool = False, as_json: Iterable[tuple[str, str]] = ()
) -> Read:
    """Return a function that decodes payloads of `writer`, resolved to `reader` if given (Avro: "Schema Resolution").

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
    # Record names make fastavro half as slow again, so they are asked for only if a union needs them.
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
    """Return the events of the first records, decoded in one call, up to one that needs a closer look.

    Each is a `kind` of its writer's name and the datum; `writers` are keyed by a value's first bytes. Empty if our own
    reader was not compiled.
    """
    return read_run(records, writers, kind) if COMPILED else []


def compile_write(schema: Any) -> Write:
    """Return a function that encodes data of the schema; fields with a default may be missing.

    Raises `ValueError` for a schema that Avro does not allow; the function for a datum that does not match it.
    """
    parsed = _parsed(schema)

    def write(datum: Any) -> bytes:
        stream = BytesIO()
        schemaless_writer(stream, parsed, datum, strict_allow_default=True)
        return stream.getvalue()

    return write


def _has_choice(tree: Any) -> bool:
    """Tell whether a schema has a union with named branches."""
    return any(isinstance(node, list) and any(map(_is_named, node)) for node in all_types(tree))


def _is_named(branch: Any) -> bool:
    return "name" in branch if isinstance(branch, dict) else branch not in _PRIMITIVES


def _parsed(tree: Any) -> Any:
    try:
        return parse_schema(tree)
    except Exception as error:  # noqa: BLE001 - fastavro raises KeyError and others
        raise ValueError(f"{type(error).__name__}: {error}") from None
