"""Applies a destination's `codes:` to a verdict, and explains its code. The one place for all vendors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from connector.vendors import explained
from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry, Throttled, Verdict

Action = Literal["refuse", "retry", "hold"]
Codes = Mapping[str, Action]
"""How the user overrides each code; `http_<status>` stands for an answer without a code of its own."""


def apply_codes(codes: Codes, verdict: Verdict, response: Response) -> Verdict:
    """Return the verdict that `codes:` gives to the answer's code, or else the vendor's own verdict.

    An acceptance is not overridden: sending the records again would deliver them twice. Nor is an error of the request
    itself (bad JSON, an empty body), because no record is at fault.
    """
    if not codes or isinstance(verdict, Accepted):
        return verdict
    if isinstance(verdict, Refused) and verdict.errors:
        return _apply_to_each(codes, verdict)
    # An answer without a code is named by its status, so that `codes:` can refer to it.
    named = _named(codes, verdict) if isinstance(verdict, Refused) else verdict.code
    code = named or f"http_{response.status}"
    action = codes.get(code)
    if action == "refuse":
        return _refused(code, verdict)
    # What is throttled is tried again already, and not before the vendor wants it.
    if action == "retry" and not isinstance(verdict, Retry | Throttled):
        return Retry(verdict.reason, code=code, request_id=verdict.request_id)
    if action == "hold" and not isinstance(verdict, Misconfigured):
        return Misconfigured(code, verdict.reason, request_id=verdict.request_id)
    return verdict


def explain_code(vendor: str, verdict: Verdict) -> Verdict:
    """Return the verdict with its code explained in front of the vendor's text, for logs, holds and dead letters."""
    if isinstance(verdict, Accepted) or verdict.code is None:
        return verdict
    return replace(verdict, reason=explained(vendor, verdict.code, verdict.reason))


def _named(codes: Codes, error: Refused) -> str:
    """Return the code of an error by which the user may name it: its own, else that of the answer that lists it."""
    return error.code if error.code in codes or error.listed_by is None else error.listed_by


def _refused(code: str, verdict: Verdict) -> Verdict:
    if isinstance(verdict, Refused):
        return replace(verdict, documented=True)
    if isinstance(verdict, Accepted) or (isinstance(verdict, Misconfigured) and verdict.of_request):
        return verdict
    return Refused(code, verdict.reason, request_id=verdict.request_id)


def _apply_to_each(codes: Codes, verdict: Refused) -> Verdict:
    """Return the verdict for an answer with several errors: hold before refuse, refuse before retry."""
    # A hold stops the whole destination, so a refusal for another error of the same answer must not win.
    for error in verdict.errors:
        if codes.get(name := _named(codes, error)) == "hold":
            return Misconfigured(name, error.reason, request_id=verdict.request_id)
    blamed = [error for error in verdict.errors if codes.get(_named(codes, error)) != "retry"]
    if not blamed:
        return Retry(verdict.errors[0].reason, code=verdict.errors[0].code, request_id=verdict.request_id)
    believed = [error for error in blamed if error.documented or _named(codes, error) in codes]
    first = (believed or blamed)[0]
    return replace(
        verdict,
        code=first.code,
        reason=first.reason,
        suspects=frozenset().union(*(error.suspects for error in blamed)),
        documented=bool(believed),
        errors=tuple(blamed),
    )
