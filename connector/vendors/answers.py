"""What all vendors share for reading answers: statuses, waiting times, JSON in odd encodings, and text for logs."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from connector.vendors.base import (
    Misconfigured,
    RateHint,
    Refused,
    Response,
    Retry,
    Throttled,
    TooLarge,
    Verdict,
)

TEXT_LIMIT: Final = 500
"""Characters of a vendor's text that are kept: it goes into logs and headers, which have limits of their own."""
EXCERPT_LIMIT: Final = 200
"""Characters shown of an answer that cannot be read."""

# These would break a vendor's text into lines: C0 and C1 controls, U+2028 and U+2029. A lone surrogate cannot be
# written as UTF-8.
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})")
# 19 digits hold every number of 64 bits. Python's `int` raises for a text of more than 4,300.
_DIGITS: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_LONGEST_WAIT: Final = 10.0**9


class LogText:
    """Makes a vendor's text safe to log: one line, at most 500 characters, the account's secrets masked."""

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def __call__(self, text: object) -> str:
        """Return `text` in a form that may be logged; empty if it is not text."""
        if not isinstance(text, str):
            return ""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        # Masked before it is cut, or the first half of a secret at the cut would stay.
        return _CONTROL.sub(" ", text)[:TEXT_LIMIT].strip()


def json_value(response: Response, *encodings: str) -> Any:
    """Return the JSON value of an answer's body, or None if it is not JSON (a proxy's HTML, a truncated answer).

    JSON is UTF-8 (RFC 8259), but some servers send their own encoding or a byte order mark. So a body that is not
    UTF-8 is decoded by the charset of its Content-Type, by its mark, and then by `encodings`, in this order.
    """
    body = response.body
    try:
        return orjson.loads(body)
    except ValueError:
        pass
    for encoding in _encodings(response, encodings):
        try:
            return orjson.loads(body.decode(encoding).removeprefix("\ufeff").encode())
        except (ValueError, LookupError):
            continue
    return None


def _encodings(response: Response, encodings: tuple[str, ...]) -> list[str]:
    """Return the encodings to try, without those that do not encode text."""
    declared = _CHARSET.search(response.headers.get("content-type") or "")
    found = [declared[1]] if declared is not None else []
    if response.body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        found.append("utf-16")
    return [name for name in (*found, "utf-8", *encodings) if _is_text_encoding(name)]


def _is_text_encoding(name: str) -> bool:
    try:
        return isinstance(b"".decode(name), str)
    except (LookupError, ValueError):
        return False


def whole_number(value: object) -> int | None:
    """Return a JSON whole number; None for others, and for `true` and `false`, which are ints in Python."""
    return value if type(value) is int else None


def code_number(value: object) -> int | None:
    """Return an error code as a number; vendors' gateways send some of them as text."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else None


def header_seconds(text: str | None) -> float | None:
    """Return the seconds in a header; None if there are none. More than 9 digits count as 10⁹ seconds."""
    digits = "" if text is None else text.strip(" \t")
    # `float` alone would accept a sign, an exponent, "nan" and the digits of other scripts.
    if not (digits.isascii() and digits.isdigit()):
        return None
    return float(digits) if len(digits) < 10 else _LONGEST_WAIT


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for; a date counts from the answer's own `Date` (RFC 9110).

    A date in the past is 0. None if the header is missing or cannot be read: a negative or broken number, or a date
    in an answer without `Date`, because the two clocks may differ.
    """
    text = headers.get("retry-after")
    wait = header_seconds(text)
    if wait is not None or text is None:
        return wait
    until, sent = _epoch_seconds(text), _epoch_seconds(headers.get("date"))
    return max(0.0, until - sent) if until is not None and sent is not None else None


def sent_at(headers: Mapping[str, str]) -> int | None:
    """Return when the answer was sent by its `Date` header, in epoch milliseconds."""
    moment = _epoch_seconds(headers.get("date"))
    return None if moment is None else int(moment * 1000)


def _epoch_seconds(text: str | None) -> float | None:
    """Return an HTTP date as epoch seconds; one without a zone, or with `-0000`, is in GMT as RFC 9110 demands."""
    try:
        moment = None if text is None else parsedate_to_datetime(text)
        if moment is None:
            return None
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def rate_hint(headers: Mapping[str, str]) -> RateHint | None:
    """Return `X-Rate-Limit-Remaining` and `-Reset` (seconds), if the answer has both."""
    remaining = header_seconds(headers.get("x-rate-limit-remaining"))
    reset = header_seconds(headers.get("x-rate-limit-reset"))
    return None if remaining is None or reset is None else RateHint(int(remaining), reset)


def throttle_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a 429 asks for: `Retry-After`, else `X-Rate-Limit-Reset`."""
    wait = retry_after(headers)
    return header_seconds(headers.get("x-rate-limit-reset")) if wait is None else wait


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that the answer gives to the request, if any."""
    text = headers.get("x-request-id")
    return _CONTROL.sub(" ", text)[:128] if text else None


def verdict_of_status(
    response: Response, log_text: LogText, *, code: str | None = None, message: str = ""
) -> Verdict | None:
    """Return the verdict of a status that is clear without the body; None for 2xx and most 4xx.

    5xx and 408 say nothing about the records, and 502 and 504 not even whether they were accepted. 429 and 503 may give
    a wait. A redirect is not followed: the address is wrong. `code` and `message` are the vendor's own, if the body has
    them.
    """
    status, headers = response.status, response.headers
    name, wait, rid = code or f"http_{status}", retry_after(headers), request_id(headers)
    # A gateway that answers 502 or 504 may have passed the request on before
    # it lost the answer (RFC 9110, 15.6). 1xx is no final answer.
    if status >= 500 or status == 408 or status < 200:
        return Retry(f"HTTP {status}", wait, name, unknown_outcome=status in (502, 504), request_id=rid)
    if status == 429:
        return Throttled("HTTP 429, too many requests", throttle_wait(headers), name, rid)
    if status in (413, 414):
        return TooLarge(name, f"HTTP {status}, the request is larger than the vendor accepts", request_id=rid)
    if 300 <= status < 400:
        # Without the query: Quick Audience's access key is in it, and a redirect may repeat it.
        target = log_text(headers.get("location")).partition("?")[0]
        reason = f"HTTP {status}, redirected to {target or 'nowhere'}: check base_url"
        return Misconfigured(name, reason, request_id=rid)
    if status in (401, 403, 407):
        details = f": {log_text(message)}" if message else ""
        return Misconfigured(name, f"HTTP {status}, the credential was refused{details}", request_id=rid)
    return None


def verdict_of_unknown_body(response: Response, log_text: LogText) -> Verdict:
    """Return the verdict for a body that is not in the vendor's documented form. Call `verdict_of_status` first.

    Then a 2xx is not success: proxies answer 200 with pages of their own. A wrong address or method is the
    configuration's fault. Any other 4xx may be a record's fault, but no document says so, so only evidence can tell.
    """
    status, rid = response.status, request_id(response.headers)
    body = excerpt(response, log_text)
    if status < 300:
        reason = f"HTTP {status} with a body that is not the vendor's documented answer: {body}"
        return Retry(reason, request_id=rid)
    # Statuses about the address, the method or the media type. They are the same for every record.
    if status in (404, 405, 406, 410, 415):
        return Misconfigured(f"http_{status}", f"HTTP {status}: check base_url", request_id=rid)
    return Refused(f"http_{status}", f"HTTP {status}: {body}", documented=False, request_id=rid)


def excerpt(response: Response, log_text: LogText) -> str:
    """Return the first 200 printable characters of a body, with secrets masked, to show to a person."""
    if not response.body:
        return "(empty)"
    # Masked before it is cut, or the first half of a secret at the cut would be shown.
    text = response.body[: 4 * TEXT_LIMIT].decode("utf-8", "replace")
    printable = "".join(char if char.isprintable() and char != "\ufffd" else " " for char in text)
    return " ".join(log_text(printable).split())[:EXCERPT_LIMIT] or "(nothing printable)"


# The names of the interface's first version, for vendors of other distributions. They ignore `codes:`, because delivery
# applies it.
Words = LogText


def parsed(body: bytes) -> Any:
    """Return the JSON value of a body, or None if it is not JSON."""
    return json_value(Response(200, {}, body))


def by_status(
    response: Response, words: LogText, *_codes: object, code: str | None = None, said: str = ""
) -> Verdict | None:
    """Return what `verdict_of_status` returns."""
    return verdict_of_status(response, words, code=code, message=said)


def unread(response: Response, words: LogText, *_codes: object) -> Verdict:
    """Return what `verdict_of_unknown_body` returns."""
    return verdict_of_unknown_body(response, words)
