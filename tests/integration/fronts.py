"""What may stand between a member and whom it asks: TLS with a password in front of a server, and a forward proxy.

Both serve in threads of this process and keep what came to them.
"""

from __future__ import annotations

import base64
import http.client
import selectors
import socket
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import urlsplit

_SECONDS: Final = 10
_CHUNK: Final = 65_536
_OWN_HEADERS: Final = {"connection", "host", "proxy-authorization", "transfer-encoding"}


class Front:
    """Passes requests on to `backend`, a port of this machine; `requests` are the lines of those it passed on.

    `tls` makes it speak TLS. `account` (`user:password`) is asked for by basic authentication; 401 without. With
    `redirect`, a path, it sends every caller there instead. `aliases` are paths under other names.
    """

    challenge = (401, "Authorization", "WWW-Authenticate")

    def __init__(
        self,
        backend: int,
        tls: ssl.SSLContext | None = None,
        account: str | None = None,
        redirect: str | None = None,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.backend = backend
        self.aliases = aliases or {}
        self.redirect = redirect
        self.requests: list[str] = []
        self.refused = 0
        self.expected = account and f"Basic {base64.b64encode(account.encode()).decode()}"
        self._server = _Server(tls, self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="front")
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._thread.join(_SECONDS)
        self._server.server_close()

    def _handler(self) -> type[_Handler]:
        return type("Handler", (_Handler,), {"front": self})


class ForwardProxy(Front):
    """An HTTP proxy: CONNECT for TLS, absolute addresses for plain HTTP; 407 where the account is missing or wrong."""

    challenge = (407, "Proxy-Authorization", "Proxy-Authenticate")

    def __init__(self, account: str | None = None) -> None:
        super().__init__(0, account=account)


class _Server(ThreadingHTTPServer):
    """Speaks TLS in the connection's own thread, so that a failed handshake affects no other connection."""

    block_on_close = False

    def __init__(self, tls: ssl.SSLContext | None, handler: type[_Handler]) -> None:
        self._tls = tls
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self) -> tuple[Any, Any]:
        """Return the next connection, its handshake still to be made."""
        plain, address = super().get_request()
        plain.settimeout(_SECONDS)
        if self._tls is None:
            return plain, address
        return self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, its handshake first."""
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except OSError:
                _linger(request)
                return
        super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over a connection that failed: its other end tells the test."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    front: Front

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_CONNECT(self) -> None:
        if not self._allowed():
            return
        self.front.requests.append(self.requestline)
        host, _, port = self.path.rpartition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port)), _SECONDS) as other:
            self.send_response_only(200)
            self.end_headers()
            _pump(self.connection, other)

    def log_message(self, *_: object) -> None:
        pass

    def _allowed(self) -> bool:
        status, asked, answered = self.front.challenge
        if self.front.expected in (None, self.headers.get(asked)):
            return True
        self.front.refused += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(status, {answered: 'Basic realm="test"', "Content-Type": "text/html"}, b"<h1>Who are you?</h1>")
        return False

    def _pass_on(self) -> None:
        if not self._allowed():
            return
        self.front.requests.append(self.requestline)
        if self.front.redirect is not None:
            self._answer(301, {"Location": f"http://127.0.0.1:{self.front.port}{self.front.redirect}"}, b"moved")
            return
        target = urlsplit(self.path)
        backend = http.client.HTTPConnection("127.0.0.1", target.port or self.front.backend, timeout=_SECONDS)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OWN_HEADERS}
            path = self.front.aliases.get(target.path) or target._replace(scheme="", netloc="").geturl()
            backend.request(self.command, path, body or None, headers)
            answer = backend.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            backend.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OWN_HEADERS | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _linger(failed: ssl.SSLSocket) -> None:
    """End a connection so that the alert arrives: what is closed with something unread is reset, and the alert lost."""
    with socket.socket(fileno=failed.detach()) as raw:
        raw.settimeout(_SECONDS)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(_CHUNK):
            pass


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Hand bytes to and fro until one side ends."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in ready.select(_SECONDS):
                content = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]  # only sockets are registered
                if not content:
                    return
                key.data.sendall(content)
