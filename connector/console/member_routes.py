"""Routes about running members: their tables, and hold, release, probe and skip, each confirmed and audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson
import structlog
from aiohttp import web
from yarl import URL

from connector.console.member_pages import (
    ACTIONS,
    MemberAnswer,
    MemberQuestion,
    hold_question,
    members_view,
    probe_question,
    release_question,
    skip_question,
)
from connector.console.members import DestinationView
from connector.console.queries import MEMBERS
from connector.console.rendering import html, render
from connector.console.security import CSRF, read_form
from connector.console.state import ConsoleState
from connector.errors import ConnectorError

_TIMEOUT: Final = aiohttp.ClientTimeout(total=10.0)
_ANSWER: Final = 64 * 1024
_log = structlog.get_logger()


class MemberRoutes:
    """Shows running members and acts on them."""

    def __init__(self, state: ConsoleState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(MEMBERS, self._members),
            web.get(MEMBERS + "/confirm", self._confirm),
            web.post(MEMBERS + "/actions", self._act),
        ]

    async def _members(self, _request: web.Request) -> web.Response:
        """Show the tables of members and partitions."""
        state, sampler = self._state, self._state.sampler
        page = state.page("Members", MEMBERS, live=max(2, round(state.settings.console.interval)))
        view = members_view(
            sampler.responses, sampler.destinations, sampler.partitions, sampler.rates, state.links, page.now
        )
        return html(render("members.html", page, view))

    async def _confirm(self, request: web.Request) -> web.Response:
        """Ask for confirmation."""
        if not self._state.may_act:
            return self._refuse("Your token is read-only. Sign in with a token of the role act.", 403)
        try:
            question = self._question(request.query)
        except ValueError as error:
            return self._refuse(str(error), 400)
        return html(render("member_confirm.html", self._state.page(question.title, MEMBERS), question))

    def _question(self, given: Mapping[str, Any]) -> MemberQuestion:
        """Return the confirmation for a URL or a form. Raises `ValueError` that says what is allowed."""
        action = ACTIONS.get(str(given.get("action", "")))
        if action is None:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}")
        destination = self._destination(str(given.get("destination", "")))
        if action == "hold":
            return hold_question(destination)
        if action == "release":
            return release_question(destination)
        if action == "probe":
            return probe_question(destination)
        topic, numbers = str(given.get("topic", "")), [str(given.get(name, "")) for name in ("partition", "offset")]
        if not topic or not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
            raise ValueError("a skip needs topic, partition and offset")
        return skip_question(destination.name, topic, int(numbers[0]), int(numbers[1]))

    def _destination(self, name: str) -> DestinationView:
        found = next((each for each in self._state.sampler.destinations if each.name == name), None)
        if found is None:
            raise ValueError("no member and no configuration has a destination of this name")
        return found

    async def _act(self, request: web.Request) -> web.Response:
        """Carry out the confirmed action in every member that it concerns, and show their answers."""
        state = self._state
        form = await read_form(request)
        fault = state.form_fault(request, form.get(CSRF))
        if fault is not None:
            return self._refuse(fault, 403)
        try:
            question = self._question(form)
        except ValueError as error:
            return self._refuse(str(error), 400)
        what = {name: value for name, value in question.fields if name != "action"}
        who = state.who(request)
        try:
            await state.audit.note(question.action, who, what)
        except ConnectorError as error:
            return self._refuse(f"The action cannot be recorded in the audit topic: {error}", 503)
        answers = await self._ask_members(question, what)
        results = {answer.address: answer.text for answer in answers}
        _log.info("console.member_action_ended", action=question.action, who=who, results=results, **what)
        page = state.page(question.title.removesuffix("?"), MEMBERS)
        return html(render("member_result.html", page, answers), 200 if any(answer.done for answer in answers) else 502)

    async def _ask_members(self, question: MemberQuestion, what: Mapping[str, str]) -> list[MemberAnswer]:
        """Send the action to each member that it concerns: the owner of a record, or all that have the destination."""
        path = ["destinations", what["destination"], question.action]
        concerned = [
            response.address
            for response in self._state.sampler.responses
            if response.trouble is None and what["destination"] in response.destinations
        ]
        query: dict[str, str] = {}
        if question.action == "skip":
            path = ["records", what["topic"], what["partition"], what["offset"], "skip"]
            query = {"destination": what["destination"]}
            place = (what["topic"], int(what["partition"]))
            owners = [
                response.address
                for response in self._state.sampler.responses
                if any((each.topic, each.partition) == place for each in response.partitions or ())
            ]
            concerned = owners or concerned
        token = self._state.settings.server.token
        headers = {} if token is None else {"Authorization": f"Bearer {token.get_secret_value()}"}
        async with aiohttp.ClientSession(timeout=_TIMEOUT, trust_env=False, headers=headers) as session:
            return [await self._post(session, address, path, query) for address in concerned]

    async def _post(
        self, session: aiohttp.ClientSession, address: str, path: Sequence[str], query: Mapping[str, str]
    ) -> MemberAnswer:
        """Return one member's answer. Follows no redirect, which would send the token elsewhere."""
        target = self._state.sampler.targets.get(address)
        if target is None:
            return MemberAnswer(address, done=False, text="it is no longer there")
        member, host = target
        quoted = "/".join(quote(part, safe="") for part in path)
        url = URL(f"{member.origin()}/{quoted}", encoded=True).with_query(query)
        try:
            sent = {} if host is None else {"Host": host}
            async with session.post(url, headers=sent, allow_redirects=False) as answer:
                body = await answer.content.read(_ANSWER)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return MemberAnswer(address, done=False, text=str(error)[:300] or "no answer")
        return MemberAnswer(address, answer.status in (200, 202), _said(body, answer.status))

    def _refuse(self, why: str, status: int) -> web.Response:
        page = self._state.page("Nothing was done", MEMBERS)
        return html(render("message.html", page, message=why, kind="warn", back="/"), status)


def _said(body: bytes, status: int) -> str:
    """Return a member's answer in words: its error, its message, or the destination's new state."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = None
    found = found if isinstance(found, dict) else {}
    for name in ("error", "message"):
        if isinstance(found.get(name), str):
            return str(found[name])[:300]
    return f"now {found['state']}" if isinstance(found.get("state"), str) else f"HTTP {status}"
