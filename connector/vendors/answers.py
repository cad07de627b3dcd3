"""What the vendors' reading of answers shares: statuses, waiting times, text fit for a log, the user's `codes:`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

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

Action = Literal["refuse", "retry", "hold"]
Codes = Mapping[str, Action]
"""A destination's `codes:`: a vendor's code, or `http_<status>`, and what it shall mean."""

TEXT_LIMIT: Final = 500
"""Characters of a vendor's text that are kept: it ends in logs and in headers, which have limits of their own."""

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONGEST_WAIT: Final = 10.0**9


class Words:
    """Makes a vendor's text fit to be logged: one line, at most 500 characters, the account's secrets covered."""

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def __call__(self, text: object) -> str:
        """Return `text` as it may be logged; what is not text is left out."""
        if not isinstance(text, str):
            return ""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return _CONTROL.sub(" ", text)[:TEXT_LIMIT].strip()


def parsed(body: bytes) -> Any:
    """Return the JSON value of a body, or None where it is not JSON (HTML of a proxy, a cut answer)."""
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def whole(value: object) -> int | None:
    """Return a JSON whole number; `true` and `false`, which Python counts as numbers, are none."""
    return value if type(value) is int else None


def seconds(text: str | None) -> float | None:
    """Return the seconds a header states, or None where it states none."""
    digits = "" if text is None else text.strip(" \t")
    if not (digits.isascii() and digits.isdigit()):
        return None
    return float(digits) if len(digits) < 10 else _LONGEST_WAIT


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `Retry-After` asks for; a date counts from the answer's own `Date` (RFC 9110)."""
    text = headers.get("retry-after")
    wait = seconds(text)
    if wait is not None or text is None:
        return wait
    until, sent = _date(text), _date(headers.get("date"))
    return max(0.0, until - sent) if until is not None and sent is not None else None


def sent_at(headers: Mapping[str, str]) -> int | None:
    """Return when the answer was sent by its `Date` header, in epoch milliseconds."""
    moment = _date(headers.get("date"))
    return None if moment is None else int(moment * 1000)


def _date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def rate_hint(headers: Mapping[str, str]) -> RateHint | None:
    """Return what `X-Rate-Limit-Remaining` and `-Reset` (seconds) say, where both are there."""
    remaining, reset = seconds(headers.get("x-rate-limit-remaining")), seconds(headers.get("x-rate-limit-reset"))
    return None if remaining is None or reset is None else RateHint(int(remaining), reset)


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the id that the answer gives the request, where it gives one."""
    text = headers.get("x-request-id")
    return _CONTROL.sub(" ", text)[:128] if text else None


def by_status(
    response: Response, words: Words, codes: Codes, *, code: str | None = None, said: str = ""
) -> Verdict | None:
    """Return the verdict of a status that says enough without the body; None for 2xx and the other 4xx.

    5xx and 408 say nothing about the records, 502 and 504 not even whether they were taken. 429 and 503 may state a
    wait. A redirect is not followed: the address is wrong. `code` and `said` are the vendor's own code and words,
    where the body gave them.
    """
    status, headers = response.status, response.headers
    if code is None and f"http_{status}" in codes:
        name = f"http_{status}"
        return by_setting(codes[name], name, f"HTTP {status}", request_id=request_id(headers))
    name, wait, rid = code or f"http_{status}", retry_after(headers), request_id(headers)
    if status >= 500 or status == 408 or status < 200:
        return Retry(f"HTTP {status}", wait, name, unknown_outcome=status in (502, 504), request_id=rid)
    if status == 429:
        wait = seconds(headers.get("x-rate-limit-reset")) if wait is None else wait
        return Throttled("HTTP 429, too many requests", wait, name, rid)
    if status in (413, 414):
        return TooLarge(name, f"HTTP {status}, the request is larger than the vendor takes", request_id=rid)
    if 300 <= status < 400:
        target = words(headers.get("location")).partition("?")[0]
        reason = f"HTTP {status}, redirected to {target or 'nowhere'}: check base_url"
        return Misconfigured(name, reason, request_id=rid)
    if status in (401, 403, 407):
        told = f": {words(said)}" if said else ""
        return Misconfigured(name, f"HTTP {status}, the credential was refused{told}", request_id=rid)
    return None


def unread(response: Response, words: Words, codes: Codes) -> Verdict:
    """Return the verdict of an answer whose body is not of the vendor's documented form, after `by_status`.

    A 2xx is no success then: proxies answer 200 with a page of their own. A missing address or method is the
    configuration's fault. Any other 4xx may be a record's fault: no document says so, and only evidence can tell.
    """
    status, rid = response.status, request_id(response.headers)
    if f"http_{status}" in codes:
        return by_setting(codes[f"http_{status}"], f"http_{status}", f"HTTP {status}", request_id=rid)
    if status < 300:
        return Retry(f"HTTP {status} with a body that is not the vendor's documented answer", request_id=rid)
    if status in (404, 405, 406, 410, 415):
        return Misconfigured(f"http_{status}", f"HTTP {status}: check base_url", request_id=rid)
    start = words(response.body[: 4 * TEXT_LIMIT].decode("utf-8", "replace"))
    return Refused(f"http_{status}", f"HTTP {status}: {start}", documented=False, request_id=rid)


def by_setting(
    action: Action,
    code: str,
    reason: str,
    *,
    suspects: frozenset[int] = frozenset(),
    request_id: str | None = None,
) -> Verdict:
    """Return the verdict that the destination's `codes:` gives to a vendor's code."""
    if action == "retry":
        return Retry(reason, code=code, request_id=request_id)
    if action == "hold":
        return Misconfigured(code, reason, request_id=request_id)
    return Refused(code, reason, suspects, request_id=request_id)
