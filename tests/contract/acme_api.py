"""Acme's `POST /events` as its document describes it: up to 50 JSON objects in 65,536 bytes, one on each line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from connector.testing import AcceptedEvent, Call, Reply, json_reply


@dataclass(slots=True)
class AcmeApi:
    """One account at Acme. Its fields are the options of `--set`."""

    name = "acme"

    token: str = "simulated-token"
    largest_amount: int = 1000

    def destination(self, url: str) -> dict[str, Any]:
        """Return the settings of a destination for this account."""
        return {"vendor": self.name, "base_url": url, "token": self.token}

    def refused_credential(self) -> Reply:
        """Return 401, the document's answer to a wrong token."""
        return json_reply(401, {"ok": False, "why": "unknown token"}, "credential")

    def throttled(self, retry_after: str | None) -> Reply:
        """Return 429."""
        headers = {} if retry_after is None else {"Retry-After": retry_after}
        return json_reply(429, {"ok": False, "why": "too many requests"}, "throttled", headers=headers)

    def failed(self, status: int) -> Reply:
        """Return a failure; the document gives it no body."""
        return Reply(status, b"", f"status_{status}")

    def answer(self, call: Call) -> Reply:
        """Accept every line, or refuse all of them and name the first that breaks a rule."""
        if (call.method, call.path) != ("POST", "/events"):
            return Reply(404, b"", "not_found")
        if call.headers.get("authorization") != f"Bearer {self.token}":
            return self.refused_credential()
        lines = call.body.split(b"\n")
        if len(lines) > 50 or len(call.body) > 65_536:
            return Reply(413, b"", "too_large", records=len(lines))
        events = []
        for number, line in enumerate(lines):
            try:
                event = orjson.loads(line)
            except ValueError:
                event = None
            if (why := self._fault(event)) is not None:
                return json_reply(422, {"ok": False, "line": number, "why": why}, "refused", records=len(lines))
            events.append(AcceptedEvent(event, key=event["id"]))
        return json_reply(200, {"ok": True}, "accepted", events=events, records=len(lines))

    def _fault(self, event: object) -> str | None:
        if not isinstance(event, dict) or not isinstance(event.get("id"), str):
            return "not an object with an id"
        if not isinstance(event.get("name"), str) or not event["name"]:
            return "name is missing"
        amount = event.get("amount", 0)
        return None if type(amount) is int and amount <= self.largest_amount else "amount"
