from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from connector.records import LogicalType, Record

_T = TypeVar("_T")

class Broken(ValueError): ...
class TooManySteps(Broken): ...
class Mismatch(ValueError): ...

def reader_of(
    writer: Any,
    reader: Any = None,
    *,
    tagged: bool = False,
    as_json: Iterable[tuple[str, str]] = (),
    logical: bool = True,
) -> Callable[[bytes, int], tuple[Any, int]]: ...
def read_run(records: list[Record], writers: Mapping[bytes, Any], kind: type[_T]) -> list[_T]: ...
def items_of(
    read: Callable[[bytes, int], tuple[Any, int]], shape: Any, mapping: Any = None
) -> Callable[..., list[Any]] | None: ...
def logical_type(node: Mapping[str, Any]) -> LogicalType | None: ...
