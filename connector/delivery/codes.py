"""What a destination and the documents make of a verdict's code. Pure, and the only place, for every vendor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from connector.vendors import explained
from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry, Throttled, Verdict

Action = Literal["refuse", "retry", "hold"]
Codes = Mapping[str, Action]
"""By a vendor's code, or `http_<status>` where the answer has no code of its own: how the user wants it read."""


def apply_codes(codes: Codes, verdict: Verdict, response: Response) -> Verdict:
    """Return the verdict that the user gives to the answer's code, else the vendor's own verdict.

    Accepted stays accepted: sending again what the vendor has would count twice. An error of the request itself (bad
    JSON, an empty body) is never a record's fault: the same record would be refused in every batch.
    """
    if not codes or isinstance(verdict, Accepted):
        return verdict
    if isinstance(verdict, Refused) and verdict.errors:
        return _apply_to_each(codes, verdict)
    # A refusal by status alone has no code, and yet a user has to be able to name it.
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
    """Return the verdict with what its code means in front of the vendor's own text, for every log, hold and record."""
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
    """Return the verdict of an answer with several errors: a hold goes before a refusal, a refusal before a retry."""
    # The gravest wish wins. A hold for one error stops everything, so it must not be passed over for another's refusal.
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
