"""An identity provider in small: a token endpoint (RFC 6749, client credentials) and the keys its tokens verify by.

Kafka checks the tokens as it would in production: signature, audience and expiry, by the keys of `/keys` (RFC 7517).
"""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE: Final = "kafka"
_KEY_ID: Final = "one"
_HOUR: Final = 3600


class IdentityProvider:
    """Serves on a free port; `client` and `secret` are the one account it knows."""

    def __init__(self, client: str, secret: str) -> None:
        self.granted = self.refused = 0
        self._account = f"{client}:{secret}".encode()
        self._client = client
        self._key = rsa.generate_private_key(65537, 2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="identity")
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Serve no longer."""
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def grant(self, authorization: str) -> dict[str, Any] | None:
        """Return a token for who names the account, None for anybody else."""
        if base64.b64decode(authorization.removeprefix("Basic ")) != self._account:
            self.refused += 1
            return None
        self.granted += 1
        now = int(time.time())
        claims = {"sub": self._client, "aud": AUDIENCE, "iat": now, "exp": now + _HOUR}
        signed = f"{_encoded({'alg': 'RS256', 'kid': _KEY_ID, 'typ': 'JWT'})}.{_encoded(claims)}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return {"access_token": f"{signed}.{_base64(signature)}", "token_type": "Bearer", "expires_in": _HOUR}

    def keys(self) -> dict[str, Any]:
        """Return the public key."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KEY_ID}
        return {"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, provider.keys())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                token = provider.grant(self.headers["Authorization"])
                self._answer(200, token) if token else self._answer(401, {"error": "invalid_client"})

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _encoded(content: dict[str, Any]) -> str:
    return _base64(json.dumps(content).encode())


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))
