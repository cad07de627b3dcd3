"""Talking to a running member's port from another process: the caller's half of the server's actions."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from connector.errors import ConnectorError
from connector.records import Position

TIMEOUT = 10.0


class Refused(ConnectorError):
    """The member did not take the action, or could not be reached; the message says why."""


def act(action: str, name: str, url: str, token: SecretStr | None) -> str | None:
    """Ask the member at `url` to hold or release a destination; return the state in which it is then.

    The token is sent only where there is one. Raises `Refused`.
    """
    state = _post(url, f"/destinations/{quote(name, safe='')}/{action}", token).get("state")
    return str(state) if state is not None else None


def skip(position: Position, destination: str | None, url: str, token: SecretStr | None) -> str:
    """Ask the member at `url` to make a record a dead letter; return what it says to that. Raises `Refused`."""
    topic, partition, offset = position
    query = "" if destination is None else f"?destination={quote(destination, safe='')}"
    answer = _post(url, f"/records/{quote(topic, safe='')}/{partition}/{offset}/skip{query}", token)
    return str(answer.get("message"))


def _post(url: str, path: str, token: SecretStr | None) -> dict[str, Any]:
    """Return the JSON object that a member answers. Raises `Refused`."""
    address = f"{url.rstrip('/')}{path}"
    if not address.startswith(("http://", "https://")):
        raise Refused(f"--url is no address of a member; allowed: http://host:port, but not {url}")
    request = urllib.request.Request(address, method="POST")  # noqa: S310 -- checked above
    if token is not None:
        request.add_header("Authorization", f"Bearer {token.get_secret_value()}")
    # Without the environment's proxies: a member is a neighbour, and a relayed request is not from loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            return _object(response.read())
    except urllib.error.HTTPError as error:
        with error:
            said = _object(error.read()).get("error")
        raise Refused(str(said) if said else f"{url} answers {error.code}; is it a connector's port?") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Refused(f"no member answers at {url}: {reason}") from None


def _object(body: bytes) -> dict[str, Any]:
    """Return a JSON object, an empty one where the body is none."""
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
