from collections.abc import Callable, Iterable
from typing import Any

class Unsupported(Exception): ...

def reader_of(
    tree: Any, *, tagged: bool = False, as_json: Iterable[tuple[str, str]] = ()
) -> Callable[[bytes, int], tuple[Any, int]]: ...
