"""What JPush's answers mean, and the results they are told in: one `JPushReportResult` for each question."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, Literal

from connector.errors import Refusal
from connector.records import Answer, Item
from connector.vendors.answers import (
    Codes,
    Words,
    by_setting,
    by_status,
    parsed,
    rate_hint,
    request_id,
    retry_after,
    seconds,
    sent_at,
    unread,
    whole,
)
from connector.vendors.base import Accepted, Misconfigured, Refused, Response, Retry, Throttled, Verdict
from connector.vendors.checks import LONG_MAX, LONG_MIN
from connector.vendors.jpush_figures import flat, json_text
from connector.vendors.jpush_questions import Question

RESULT: Final = "connector.events.JPushReportResult"

_ABNORMAL: Final = 4
_AGAIN: Final = 3
_QUESTION_FAULTS: Final = frozenset({"3002", "3004", "3005"})
_NUMBER: Final = re.compile(r"(?<![0-9])[0-9]{1,19}(?![0-9])", re.ASCII)

Status = Literal["found", "missing", "refused"]


def read(response: Response, group: Hashable, items: Sequence[Item], asked: int, codes: Codes, words: Words) -> Verdict:
    """Return what an answer means for the questions. Never raises."""
    answer = parsed(response.body)
    error = answer.get("error") if isinstance(answer, dict) else None
    code = whole(error.get("code")) if isinstance(error, dict) else None
    if isinstance(error, dict) and code is not None and (response.status < 500 or str(code) in codes):
        return _error(str(code), words(error.get("message")), response, group, items, codes, words)
    verdict = by_status(response, words, codes, code=None if code is None else str(code))
    if verdict is not None:
        return verdict
    if response.status == 200:
        figures = _figures(answer, group)
        if figures is not None:
            return _accepted(figures, response, items, asked)
    verdict = unread(response, words, codes)
    if isinstance(verdict, Refused):
        return _with_answers(verdict, response, items)
    return verdict


def _error(
    code: str, message: str, response: Response, group: Hashable, items: Sequence[Item], codes: Codes, words: Words
) -> Verdict:
    """Return what the vendor's error means: of the account, of one endpoint, of the rate, or of the question."""
    rid, reason = request_id(response.headers), f"code {code}: {message}"
    if code in codes:
        told = by_setting(codes[code], code, reason, request_id=rid)
        return _with_answers(told, response, items) if isinstance(told, Refused) else told
    if code == "2003":
        return Misconfigured(code, reason, scope=group, request_id=rid)
    if code == "2002":
        wait = retry_after(response.headers)
        reset = seconds(response.headers.get("x-rate-limit-reset"))
        return Throttled(reason, reset if wait is None else wait, code, rid)
    if code == "3001":
        return Misconfigured(code, reason, request_id=rid)
    if code == "10":
        return Retry(reason, code=code, request_id=rid)
    documented = code in _QUESTION_FAULTS
    verdict = None if documented else by_status(response, words, codes, code=code)
    if verdict is not None:
        return verdict
    if not documented and response.status in (404, 405):
        return Misconfigured(
            code, f"HTTP {response.status}, {reason}: check base_url, which ends in /v3", request_id=rid
        )
    named = {int(text) for text in _NUMBER.findall(message)}
    suspects = frozenset(index for index, item in enumerate(items) if item.context.msg_id in named)
    return _with_answers(Refused(code, reason, suspects, documented, rid), response, items)


def _with_answers(refused: Refused, response: Response, items: Sequence[Item]) -> Refused:
    """Return the refusal with a `refused` result for each question; it is told once the question was refused alone."""
    figures = {"code": refused.code, "message": refused.reason}
    answers = [_result(item.context, "refused", figures, "", response) for item in items]
    return Refused(
        refused.code, refused.reason, refused.suspects, refused.documented, refused.request_id, answers=answers
    )


def _accepted(figures: Mapping[Any, Any], response: Response, items: Sequence[Item], asked: int) -> Accepted:
    """Return an answer for each question, but for those that are asked again."""
    answers, again = [], set()
    for index, item in enumerate(items):
        question: Question = item.context
        if question.endpoint == "status":
            entries = {name: figures[name] for name in question.ids if name in figures}
            own = {name: entry["status"] for name, entry in entries.items()}
            if asked < _AGAIN and _ABNORMAL in own.values():
                again.add(index)
                continue
            told = {name: own.get(name, "missing") for name in question.ids}
            raw = json_text(entries) if entries else ""
            answers.append(_result(question, "found" if own else "missing", told, raw, response))
        elif question.msg_id in figures:
            found = figures[question.msg_id]
            answers.append(_result(question, "found", flat(found), json_text(found), response))
        else:
            answers.append(_result(question, "missing", {}, "", response))
    headers = response.headers
    return Accepted(answers, frozenset(again), request_id(headers), rate_hint(headers))


def refused_locally(question: Question, refusal: Refusal) -> Answer:
    """Return the result of a question that breaks a rule and so is never asked."""
    return _result(question, "refused", {"code": refusal.code, "message": refusal.message}, "", None)


def _result(
    question: Question, status: Status, figures: Mapping[str, int | str | None], raw: str, response: Response | None
) -> Answer:
    at = None if response is None else sent_at(response.headers)
    return Answer(
        RESULT,
        {
            "query_id": question.query_id,
            "endpoint": question.endpoint,
            "msg_id": question.msg_id,
            "status": status,
            "asked_at": question.at if at is None else at,
            "answer": dict(figures),
            "raw": raw,
        },
    )


def _figures(answer: Any, group: Hashable) -> Mapping[Any, Any] | None:
    """Return what the group's endpoint answered, by what was asked about; None where it has not the documented form."""
    if isinstance(group, tuple):
        return _statuses(answer)
    return _users(answer) if group == "users" else _messages(answer)


def _messages(answer: Any) -> dict[int | None, Any] | None:
    """Return the entries of a list by msg_id, which the vendor quotes as text; None where it is no such list."""
    if not isinstance(answer, list):
        return None
    found: dict[int | None, Any] = {}
    for entry in answer:
        msg_id = entry.get("msg_id") if isinstance(entry, dict) else None
        if isinstance(msg_id, str) and _NUMBER.fullmatch(msg_id):
            msg_id = int(msg_id)
        if type(msg_id) is not int:
            return None
        found[msg_id] = entry
    return found


def _statuses(answer: Any) -> dict[str, Any] | None:
    """Return the entry of each device, whose `status` is a number; None where the answer has another form."""
    if not isinstance(answer, dict):
        return None
    for entry in answer.values():
        status = whole(entry.get("status")) if isinstance(entry, dict) else None
        if status is None or not LONG_MIN <= status <= LONG_MAX:
            return None
    return answer


def _users(answer: Any) -> dict[int | None, Any] | None:
    """Return the answer under the msg_id that such a question has: none."""
    return {None: answer} if isinstance(answer, dict) and isinstance(answer.get("items"), list) else None
