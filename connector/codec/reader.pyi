from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from connector.records import Record

_T = TypeVar("_T")

class Unsupported(Exception): ...

def reader_of(
    tree: Any, *, tagged: bool = False, as_json: Iterable[tuple[str, str]] = ()
) -> Callable[[bytes, int], tuple[Any, int]]: ...
def read_run(records: list[Record], writers: Mapping[bytes, Any], kind: type[_T]) -> list[_T]: ...
