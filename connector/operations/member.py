"""Requests to a running member's HTTP port: hold, release, probe, skip, reload, and its events."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from http import HTTPMethod, HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from connector.errors import ConnectorError
from connector.records import Position

TIMEOUT: Final = 10.0
_LONGEST_ANSWER: Final = 8 << 20


class ActionRefused(ConnectorError):
    """The member refused the action or could not be reached; the message says why.

    `is_unknown`: it does not have the destination or the partition.
    """

    is_unknown = False


class ActionResult(NamedTuple):
    """A destination's state after an action, and how many records a release will process again.

    `probed`: it has a hold that a probe can end, not only one by an operator.
    """

    state: str | None
    released: int
    probed: bool = True


def each_address(urls: Sequence[str]) -> list[str]:
    """Return the URLs, with one for each address of a name: a headless Service resolves to all members."""
    found: list[str] = []
    for url in urls:
        parts = urlsplit(url)
        addresses: list[str] = []
        # With https the certificate is issued for the name, so use the name itself.
        if parts.scheme == "http" and parts.hostname and parts.hostname != "localhost":
            try:
                named = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
            except OSError:
                named = []
            # A member that listens on both kinds of address is one member.
            first = [info for info in named if info[0] == socket.AF_INET] or named
            addresses = sorted({str(info[4][0]) for info in first})
        if len(addresses) < 2:
            found.append(url)
        else:
            found += [f"http://{f'[{each}]' if ':' in each else each}:{parts.port or 80}" for each in addresses]
    return list(dict.fromkeys(found))


def act(action: str, name: str, url: str, token: SecretStr | None) -> ActionResult:
    """Ask the member at `url` to `hold`, `release` or `probe` a destination; return the result.

    The token is sent only if there is one. Raises `ActionRefused`.
    """
    answer = _post(url, f"/destinations/{quote(name, safe='')}/{action}", token)
    state, released = answer.get("state"), answer.get("released")
    causes = [each.get("cause") for each in answer.get("holds", ()) if isinstance(each, dict)]
    count = released if isinstance(released, int) else 0
    return ActionResult(None if state is None else str(state), count, any(cause != "operator" for cause in causes))


def skip(position: Position, destination: str | None, url: str, token: SecretStr | None) -> str:
    """Ask the member at `url` to make a record a dead letter; return its answer. Raises `ActionRefused`."""
    topic, partition, offset = position
    query = "" if destination is None else f"?destination={quote(destination, safe='')}"
    answer = _post(url, f"/records/{quote(topic, safe='')}/{partition}/{offset}/skip{query}", token)
    return str(answer.get("message"))


def owner(position: Position, addresses: Sequence[str], token: SecretStr | None) -> str:
    """Return the address of the member that owns a record's partition; if none claims it, the first that answers.

    Raises `ActionRefused` if no member answers.
    """
    if len(addresses) == 1:
        return addresses[0]
    answering: list[str] = []
    troubles: list[str] = []
    for address in addresses:
        try:
            owned = _ask(address, "/status", token, HTTPMethod.GET).get("partitions")
        except ActionRefused as refused:
            troubles.append(str(refused))
            continue
        answering.append(address)
        for each in owned if isinstance(owned, list) else ():
            if isinstance(each, dict) and (each.get("topic"), each.get("partition")) == position[:2]:
                return address
    if not answering:
        raise ActionRefused("; ".join(troubles))
    return answering[0]


def events(url: str, since: float, token: SecretStr | None) -> Any:
    """Return the events since a time (epoch seconds) of the member at `url`, as JSON. Raises `ActionRefused`."""
    return _ask(url, f"/events?since={since:.3f}", token, HTTPMethod.GET)


class ReloadResult(NamedTuple):
    """The paths of the configuration that a member applied, and those that it left until a restart."""

    applied: Sequence[str]
    left: Sequence[str]


def reload(url: str, token: SecretStr | None) -> ReloadResult:
    """Ask the member at `url` to read its configuration again; return the result. Raises `ActionRefused`."""
    answer = _post(url, "/reload", token)
    return ReloadResult(*([str(path) for path in answer.get(key, ())] for key in ReloadResult._fields))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the token to an address that the user did not name."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return no request, so that the redirect is an error."""


def _post(url: str, path: str, token: SecretStr | None) -> dict[str, Any]:
    """Return the member's answer to an action. Raises `ActionRefused`."""
    return _ask(url, path, token, HTTPMethod.POST)


def _ask(url: str, path: str, token: SecretStr | None, method: HTTPMethod) -> dict[str, Any]:
    """Return the member's answer, a JSON object. Raises `ActionRefused`."""
    address = f"{url.rstrip('/')}{path}"
    if not address.startswith(("http://", "https://")):
        raise ActionRefused(f"--url must be http://host:port, not {url}")
    request = urllib.request.Request(address, method=method)  # noqa: S310 -- checked above
    if token is not None:
        request.add_header("Authorization", f"Bearer {token.get_secret_value()}")
    # The environment's proxies are not used: a member is on this machine or near it, and through a proxy a request from
    # loopback would no longer count as one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)
    try:
        with opener.open(request, timeout=TIMEOUT) as response:
            return _json_object(response.read(_LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            reason = _json_object(error.read(_LONGEST_ANSWER)).get("error")
        if 300 <= error.code < 400:
            raise ActionRefused(
                f"{url} redirects elsewhere; redirects are not followed: name the member's own port"
            ) from None
        refused = ActionRefused(
            str(reason) if reason else f"{url} answered HTTP {error.code}: is it a connector's port?"
        )
        refused.is_unknown = error.code == HTTPStatus.NOT_FOUND and bool(reason)
        raise refused from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ActionRefused(f"no member answers at {url}: {reason}") from None


def _json_object(body: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one if the body is anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
