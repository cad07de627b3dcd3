"""A registry that is down, or is none: records wait for their schema, the rest goes on, and nothing is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Self

import pytest

from tests.integration.events import SCHEMA, good
from tests.integration.job import Job, Vendor
from tools.servers import free_ports

SCHEMA_ID: Final = 7
WAITING: Final = 100
"""Events that need the registry; as many more do not."""


class Answer:
    """One thing that a server may say to whatever it is asked."""

    def __init__(self, status: int, body: str, content_type: str = "application/vnd.schemaregistry.v1+json") -> None:
        self.status = status
        self.body = body.encode()
        self.content_type = content_type


WELL: Final = Answer(200, json.dumps({"schema": json.dumps(SCHEMA)}))
EMPTY: Final = Answer(404, '{"error_code":40403,"message":"Schema not found"}')
TROUBLES: Final = {
    "down": (None, "ConnectError"),
    "html": (Answer(200, "<html>Welcome</html>", "text/html"), "no usable answer"),
    "bare_404": (Answer(404, "Not Found", "text/plain"), "404"),
    "401": (Answer(401, '{"error_code":401,"message":"Unauthorized"}'), "401"),
    "500": (Answer(500, '{"error_code":50001,"message":"store"}'), "50001"),
}


class Stub:
    """A server at a fixed port that gives one answer; None: nothing listens."""

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        """Do not listen yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.say(None)

    def say(self, answer: Answer | None) -> None:
        """Give this answer from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if answer is not None:
            self._server = ThreadingHTTPServer(("127.0.0.1", self._port), _handler(answer))
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="registry").start()


def _handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Gives the answer to every GET."""

        def do_GET(self) -> None:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            """Say nothing."""

    return Handler


@pytest.fixture
def stub() -> Iterator[Stub]:
    """A server that may become a registry; nothing listens yet."""
    with Stub() as server:
        yield server


@pytest.mark.promise("P6")
@pytest.mark.parametrize("name", TROUBLES)
def test_records_wait_for_a_registry_in_trouble_and_go_on_by_themselves(
    name: str, job: Job, vendor: Vendor, stub: Stub
) -> None:
    """The destination shows the registry's trouble and nothing is dead-lettered; once it is well all is delivered.

    Kills: a 404 without the registry's own code, an HTML page or a first unknown id read as the record's fault.
    """
    answer, says = TROUBLES[name]
    stub.say(answer)
    job.produce(good(range(WAITING), SCHEMA_ID, partition=0))
    job.produce(good(range(WAITING, 2 * WAITING), partition=1))
    member = job.start(job.settings(vendor.destination, schema_registry={"url": stub.url}))
    status = member.until_held("registry")
    assert stub.url in status["message"]
    assert says in status["message"]
    assert member.get("/readyz")[0] == 200
    assert stub.url in member.get("/readyz")[1]
    member.wait(lambda: vendor.cuids.total() == WAITING, "what does not need the registry")
    assert job.committed()[0] == 0
    assert job.dead_letters() == []

    stub.say(WELL)
    job.until_done(member)
    assert vendor.cuids.total() == len(vendor.cuids) == 2 * WAITING
    assert job.dead_letters() == []
    member.wait(lambda: member.destination()["state"] == "flowing", "the state flowing")
    assert member.lines("registry.recovered")
    assert member.stop() == 0


def test_a_registry_that_knows_no_schema_at_all_is_held_as_the_wrong_one(job: Job, vendor: Vendor, stub: Stub) -> None:
    """Where not one id is known the address is doubted and not the records; SIGTERM then ends in order."""
    stub.say(EMPTY)
    job.produce(good(range(WAITING), SCHEMA_ID, partition=0))
    member = job.start(job.settings(vendor.destination, schema_registry={"url": stub.url}))
    assert "check schema_registry.url" in member.until_held("registry")["message"]
    assert member.stop() == 0
    assert job.committed()[0] == 0
    assert job.dead_letters() == []
