"""Quick Audience's signed form: `multipart/form-data` built by hand, so that its length is known before it is built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple


class Form(NamedTuple):
    """A form that waits for its events: what stands before and after them, and the boundary between its parts."""

    boundary: bytes
    prefix: bytes
    suffix: bytes


def form(access_id: str, number: int = 0) -> Form:
    """Return the form with both of the document's fields; its length is the same for every boundary.

    The type of the text is said, because a part without one may be read as ISO-8859-1.
    """
    boundary = _boundary(number)
    part = b"--" + boundary + b'\r\nContent-Disposition: form-data; name="%b"\r\n'
    part += b"Content-Type: text/plain; charset=UTF-8\r\n\r\n"
    account = (part % b"accessId") + access_id.encode() + b"\r\n"
    return Form(boundary, account + (part % b"eventMessageModelListJson") + b"[", b"]\r\n--" + boundary + b"--\r\n")


def form_around(access_id: str, events: bytes) -> Form:
    """Return a form whose boundary does not occur in the events.

    A delimiter begins with a line break (RFC 2046), which JSON text never holds unescaped, so the first would do;
    another number is for parsers that look for the boundary alone.
    """
    number = 0
    while _boundary(number) in events:
        number += 1
    return form(access_id, number)


def _boundary(number: int) -> bytes:
    return b"connector-boundary-%013d" % number


def signature(values: Mapping[str, str]) -> str:
    """Return the lower-case MD5 of `name=value` joined by `&` in the order of the names (Open Platform API)."""
    text = "&".join(f"{name}={values[name]}" for name in sorted(values))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
