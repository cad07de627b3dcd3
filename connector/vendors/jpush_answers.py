"""JPush's answers: what they mean, and how they become results, one `JPushReportResult` per question."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

import orjson

from connector.records import Answer, Item
from connector.vendors.answers import (
    LogText,
    code_number,
    json_value,
    rate_hint,
    request_id,
    sent_at,
    throttle_wait,
    verdict_of_status,
    verdict_of_unknown_body,
    whole_number,
)
from connector.vendors.base import (
    Accepted,
    CodeMeaning,
    Misconfigured,
    Refused,
    Response,
    Retry,
    Throttled,
    Verdict,
    endpoint_of,
)
from connector.vendors.checks import LONG_MAX, LONG_MIN

RESULT: Final = "connector.events.JPushReportResult"

CODES: Final[Mapping[str, CodeMeaning]] = {
    "10": CodeMeaning(
        "JPush had an internal system error.", "Wait: the question is asked again. Ask JPush if it lasts."
    ),
    "2002": CodeMeaning("Too many requests for this appKey.", "Lower requests_per_second, or agree on a higher limit."),
    "2003": CodeMeaning(
        "The application may not use this interface.",
        "Have JPush enable the interface, or set vip: false to refuse such questions.",
    ),
    "3001": CodeMeaning("HTTP Basic authentication failed.", "Check app_key and master_secret."),
    "3002": CodeMeaning("A parameter of the question is wrong.", "Correct the question."),
    "3004": CodeMeaning("time_unit does not match the form of start.", "Correct time_unit or start."),
    "3005": CodeMeaning("User figures exist for the last 60 days only.", "Ask about a period within 60 days."),
}
"""The document's error codes, each with its meaning and solution; 2002 and 3002 are from the vendor's other pages."""

# A device's status 4 is "system abnormal": the vendor could not look it up, so it is asked again.
_ABNORMAL: Final = 4
_AGAIN: Final = 3
# The document's deepest figure has four names: `items.2014-06-11.android.active`. What is deeper stays JSON text.
_DEPTH: Final = 4
_QUESTION_FAULTS: Final = frozenset({"3002", "3004", "3005"})
_NUMBER: Final = re.compile(r"(?<![0-9])[0-9]{1,19}(?![0-9])", re.ASCII)

Status = Literal["found", "missing", "refused"]


class ReportQuery(NamedTuple):
    """An item's question: `ids` are the devices of a status query, `at` is when it was prepared (ms)."""

    query_id: str
    endpoint: str
    msg_id: int | None
    ids: tuple[str, ...]
    at: int


def verdict(response: Response, group: Hashable, items: Sequence[Item], asked: int, log_text: LogText) -> Verdict:
    """Return what an answer means for the questions. Never raises."""
    answer = json_value(response, "gb18030")
    code, message = _error_of(answer)
    # Check the code before the status: by its status 403 alone, one VIP interface would hold the whole destination.
    if code is not None and response.status < 500:
        return _verdict_of_error(str(code), log_text(message), response, group, items, log_text)
    by_status = verdict_of_status(response, log_text, code=None if code is None else str(code))
    if by_status is not None:
        return by_status
    if response.status == 200:
        figures = _figures_by_subject(answer, group)
        if figures is not None:
            return _accepted(figures, response, items, asked)
    unknown = verdict_of_unknown_body(response, log_text)
    return _with_results(unknown, response, items) if isinstance(unknown, Refused) else unknown


def _error_of(answer: Any) -> tuple[int | None, object]:
    """Return the code and message of an error: under `error`, at top level, or in an array, as the SDKs expect them."""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return None, None
    error = answer.get("error") or answer
    if isinstance(error, list) and error:
        error = error[0]
    if not isinstance(error, dict):
        return None, None
    # 0 is not an error: figures may have a key named `code`.
    return code_number(error.get("code")) or None, error.get("message")


def _verdict_of_error(
    code: str, message: str, response: Response, group: Hashable, items: Sequence[Item], log_text: LogText
) -> Verdict:
    """Return the verdict of the vendor's error: about the account, one endpoint, the rate, or the question."""
    rid, reason = request_id(response.headers), f"code {code}: {message}"
    if code == "2003":
        # The scope is the interface, not this push and day. Otherwise 3,000 pushes would make 3,000 holds.
        return Misconfigured(code, reason, scope=endpoint_of(group), request_id=rid)
    if code == "2002":
        return Throttled(reason, throttle_wait(response.headers), code, rid)
    if code == "3001":
        return Misconfigured(code, reason, request_id=rid)
    if code == "10":
        return Retry(reason, code=code, request_id=rid)
    documented = code in _QUESTION_FAULTS
    by_status = None if documented else verdict_of_status(response, log_text, code=code)
    if by_status is not None:
        return by_status
    # An address without `/v3` is far more likely than a question that the API cannot find.
    if not documented and response.status in (404, 405):
        return Misconfigured(
            code, f"HTTP {response.status}, {reason}: check base_url, which ends in /v3", request_id=rid
        )
    # Messages quote a push's id as text, questions have it as a number.
    named = {int(text) for text in _NUMBER.findall(message)}
    suspects = frozenset(index for index, item in enumerate(items) if item.context.msg_id in named)
    return _with_results(Refused(code, reason, suspects, documented, rid), response, items)


def _with_results(refused: Refused, response: Response, items: Sequence[Item]) -> Refused:
    """Return the refusal with a `refused` result per question; it is written once the question was refused alone."""
    figures: dict[str, int | str | None] = {"code": refused.code, "message": refused.reason}
    at = sent_at(response.headers)
    answers = [_result(item.context, "refused", figures, "", at) for item in items]
    return replace(refused, answers=answers)


def _accepted(figures: Mapping[Any, Any], response: Response, items: Sequence[Item], asked: int) -> Accepted:
    """Return an answer for each question, except those that are asked again."""
    answers, again = [], set()
    at = sent_at(response.headers)
    for index, item in enumerate(items):
        question: ReportQuery = item.context
        if question.endpoint == "status":
            entries = {name: figures[name] for name in question.ids if name in figures}
            own = {name: entry["status"] for name, entry in entries.items()}
            # Ask the whole question again, with its other devices: there is one result per question, and a query
            # changes nothing.
            if asked < _AGAIN and _ABNORMAL in own.values():
                again.add(index)
                continue
            by_device = {name: own.get(name, "missing") for name in question.ids}
            raw = json_text(entries) if entries else ""
            answers.append(_result(question, "found" if own else "missing", by_device, raw, at))
        elif question.msg_id in figures:
            found = figures[question.msg_id]
            answers.append(_result(question, "found", flat(found), json_text(found), at))
        else:
            # Every question gets a result: otherwise a reader of the results topic would wait for ever.
            answers.append(_result(question, "missing", {}, "", at))
    headers = response.headers
    return Accepted(answers, frozenset(again), request_id(headers), rate_hint(headers))


def refused_result(question: ReportQuery, code: str | None, message: str) -> Answer:
    """Return the result of a question without an answer: it breaks a rule, is too large, or was given up."""
    return _result(question, "refused", {"code": code, "message": message}, "", None)


def _result(
    question: ReportQuery, status: Status, figures: dict[str, int | str | None], raw: str, at: int | None
) -> Answer:
    """Return the result of a question answered at `at` (epoch milliseconds); None: the time of its preparation."""
    return Answer(
        RESULT,
        {
            "query_id": question.query_id,
            "endpoint": question.endpoint,
            "msg_id": question.msg_id,
            "status": status,
            "asked_at": question.at if at is None else at,
            "answer": figures,
            "raw": raw,
        },
    )


def _figures_by_subject(answer: Any, group: Hashable) -> Mapping[Any, Any] | None:
    """Return the figures of the group's endpoint by push or device; None if the form is not the documented one."""
    if isinstance(group, tuple):
        return _entries_by_device(answer)
    return _user_figures(answer) if group == "users" else _entries_by_msg_id(answer)


def _entries_by_msg_id(answer: Any) -> dict[int | None, Any] | None:
    """Return the entries of a list by msg_id, which the vendor sends as a string; None for anything else.

    An entry without a readable msg_id is ignored, unless the list has no other.
    """
    if not isinstance(answer, list):
        return None
    found: dict[int | None, Any] = {}
    for entry in answer:
        msg_id = entry.get("msg_id") if isinstance(entry, dict) else None
        if isinstance(msg_id, str) and _NUMBER.fullmatch(msg_id):
            msg_id = int(msg_id)
        if type(msg_id) is int:
            found[msg_id] = entry
    return found if found or not answer else None


def _entries_by_device(answer: Any) -> dict[str, Any] | None:
    """Return the entry of each device with its numeric `status`; None if the answer has another form.

    An entry of another form is ignored, unless the answer has no other.
    """
    if not isinstance(answer, dict):
        return None
    found = {name: entry for name, entry in answer.items() if _has_status(entry)}
    return found if found or not answer else None


def _has_status(entry: Any) -> bool:
    status = whole_number(entry.get("status")) if isinstance(entry, dict) else None
    return status is not None and LONG_MIN <= status <= LONG_MAX


def _user_figures(answer: Any) -> dict[int | None, Any] | None:
    """Return the figures of a question about users, under None because it has no msg_id."""
    return {None: answer} if isinstance(answer, dict) and isinstance(answer.get("items"), list) else None


def flat(value: Any, prefix: str = "", depth: int = 0) -> dict[str, int | str | None]:
    """Return nested figures under names joined with dots; list entries under their `time`, else their index."""
    if not depth and type(value) is dict and _is_flat(value):
        return value
    if depth < _DEPTH and isinstance(value, dict) and (value or not prefix):
        members = list(value.items())
    elif depth < _DEPTH and isinstance(value, list):
        members = [
            (member["time"] if isinstance(member, dict) and isinstance(member.get("time"), str) else str(place), member)
            for place, member in enumerate(value)
        ]
    else:
        return {prefix: _flat_figure(value)}
    found: dict[str, int | str | None] = {}
    for name, member in members:
        found.update(flat(member, f"{prefix}.{name}" if prefix else name, depth + 1))
    return found


def _is_flat(figures: dict[str, Any]) -> bool:
    """Return whether all figures can stay as they are, as nearly all can."""
    for figure in figures.values():
        if type(figure) is int:
            if not LONG_MIN <= figure <= LONG_MAX:
                return False
        elif figure is not None and type(figure) is not str:
            return False
    return True


def _flat_figure(value: Any) -> int | str | None:
    if value is None or isinstance(value, str):
        return value
    if type(value) is int and LONG_MIN <= value <= LONG_MAX:
        return value
    return json_text(value)


def json_text(value: Any) -> str:
    """Return JSON text; empty for a value nested deeper than the encoder allows."""
    try:
        return orjson.dumps(value).decode()
    except (TypeError, RecursionError):
        return ""
