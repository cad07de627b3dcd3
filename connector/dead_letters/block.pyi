from collections.abc import Mapping
from typing import Any

from connector.records import Headers

class Form:
    field: str
    def __init__(self, field: str, kind: str, most: int = ..., least: int = ...) -> None: ...

KINDS: Mapping[str, int]

def start_of(headers: Headers, first: str) -> int: ...
def read_block(
    headers: Headers, first: str, forms: dict[str, Form], ignored: frozenset[str]
) -> tuple[dict[str, Any], tuple[tuple[str, bytes | None], ...]] | None: ...
def id_of(headers: Headers, name: str, first: str, version: bytes) -> str | None: ...
def time_text(millis: int) -> str: ...
