"""Toxiproxy for tests: TCP proxies that break, delay or stall connections on demand.

`make tools` builds the program with Go. It is controlled through its HTTP port.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
from pathlib import Path
from typing import Any, Final, Literal, Self

from tools.servers import TOOLS, Process, ServerError, free_ports

PROGRAM: Final = TOOLS / "bin" / "toxiproxy"
Toxic = Literal["latency", "timeout", "reset_peer", "limit_data", "slicer"]


def missing_toxiproxy() -> str | None:
    """Return what is missing to start it, in one line, or None."""
    return None if PROGRAM.exists() else "toxiproxy not in .tools/bin: run `make tools` (needs Go)"


class Proxy:
    """One proxy. It forwards connections to `address` to the server behind it, with the faults that a test adds."""

    def __init__(self, toxiproxy: Toxiproxy, name: str, address: str) -> None:
        self._toxiproxy = toxiproxy
        self._name = name
        self.address = address

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        self._toxiproxy.ask("POST", f"/proxies/{self._name}", {"enabled": False})

    def join(self) -> None:
        """Accept connections again."""
        self._toxiproxy.ask("POST", f"/proxies/{self._name}", {"enabled": True})

    def poison(self, toxic: Toxic, stream: Literal["upstream", "downstream"] = "downstream", **attributes: int) -> None:
        """Add a fault to the data flowing to the server (upstream) or to the client. Units: milliseconds, bytes.

        `latency` delays, `timeout` stalls (0: for ever), `reset_peer` resets after a time, `limit_data` closes after a
        number of bytes, `slicer` splits the data into small pieces.
        """
        body = {"name": f"{toxic}-{stream}", "type": toxic, "stream": stream, "attributes": attributes}
        self._toxiproxy.ask("POST", f"/proxies/{self._name}/toxics", body)

    def heal(self) -> None:
        """Remove every fault and accept connections."""
        for toxic in self._toxiproxy.ask("GET", f"/proxies/{self._name}/toxics"):
            self._toxiproxy.ask("DELETE", f"/proxies/{self._name}/toxics/{toxic['name']}")
        self.join()

    def remove(self) -> None:
        """Break every connection and stop listening."""
        self._toxiproxy.ask("DELETE", f"/proxies/{self._name}")


class Toxiproxy:
    """A Toxiproxy process; a context manager that starts and stops it."""

    def __init__(self, folder: Path) -> None:
        fault = missing_toxiproxy()
        if fault is not None:
            raise ServerError(fault)
        folder.mkdir(parents=True, exist_ok=True)
        (self._port,) = free_ports(1)
        self._process = Process("toxiproxy", [str(PROGRAM), "-host", "127.0.0.1", "-port", str(self._port)], folder)
        self._count = 0

    def __enter__(self) -> Self:
        """Start it."""
        self._process.launch()
        self._process.wait_until(self._answers, "it did not answer")
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it with all its proxies."""
        self._process.end(signal.SIGTERM)

    def proxy(self, upstream: str, listen: str = "127.0.0.1:0") -> Proxy:
        """Forward connections to `listen` (host:port; port 0: a free one) to `upstream`."""
        self._count += 1
        body = {"name": f"proxy-{self._count}", "listen": listen, "upstream": upstream, "enabled": True}
        made = self.ask("POST", "/proxies", body)
        return Proxy(self, made["name"], made["listen"])

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send one control request and return the answer. Raises `ServerError` if it is refused."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status >= http.HTTPStatus.BAD_REQUEST:
            raise ServerError(f"toxiproxy: {method} {path}: {answer.status} {text}")
        return json.loads(text) if text else None

    def _answers(self) -> bool:
        try:
            self.ask("GET", "/proxies")
        except (OSError, http.client.HTTPException):
            return False
        return True
