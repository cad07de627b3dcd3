"""A destination's `codes:` over a vendor that does not heed them by itself. Pure.

The built-in vendors do, and may be finer about it than this: an answer that names several codes, say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry, Verdict

Codes = Mapping[str, Literal["refuse", "retry", "hold"]]


def by_codes(verdict: Verdict, response: Response, codes: Codes) -> Verdict:
    """Return what the user says that the verdict's code means, else the verdict.

    The key is the vendor's code, or `http_<status>` where the answer has none. What was accepted stays accepted.
    """
    if isinstance(verdict, Accepted):
        return verdict
    code = verdict.code or f"http_{response.status}"
    action = codes.get(code)
    if action is None:
        return verdict
    if action == "refuse":
        suspects = verdict.suspects if isinstance(verdict, Refused) else frozenset()
        answers = verdict.answers if isinstance(verdict, Refused) else ()
        return Refused(code, verdict.reason, suspects, request_id=verdict.request_id, answers=answers)
    if action == "retry":
        return (
            verdict if isinstance(verdict, Retry) else Retry(verdict.reason, code=code, request_id=verdict.request_id)
        )
    if isinstance(verdict, Misconfigured):
        return verdict
    return Misconfigured(code, verdict.reason, request_id=verdict.request_id)
