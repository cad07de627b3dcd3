"""One job as a user runs it: `connector run` as a process, a real Kafka, and the vendor's simulator.

A test waits for what it can see (logs, /status, committed offsets, the simulator's own record), never for time to pass.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Self, TypeVar

import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.cimpl import Message as KafkaMessage

from connector.testing.faults import Fault
from connector.testing.jiguang import JiguangApi
from connector.testing.simulator import Api, Served, Simulator
from tests.integration.events import KNOWN_EVENT, Message
from tools.log_events import MEANINGS
from tools.servers import ROOT, Kafka

WAIT_SECONDS: Final = 60.0
"""After so long what a test waits for will not come; no test passes or fails by anything shorter."""

ATTRIBUTES: Final = {"page": "string", "depth": "number", "ratio": "number", "first": "bool", "tags": "list"}
DESTINATION: Final = "jg"
OWN_HEADER: Final = "dlq-"

T = TypeVar("T")
Headers = list[tuple[str, bytes | None]]


def wait_for(answer: Callable[[], T | None], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Return the first answer that is true. Fails when none comes; `what` says what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}; last: {found!r}"
        time.sleep(0.05)
    return found


class Vendor:
    """A vendor's simulator in a thread of its own; without `api` Jiguang's, which knows `KNOWN_EVENT` only."""

    def __init__(self, api: Api | None = None) -> None:
        self._simulator = Simulator(api or JiguangApi(events={KNOWN_EVENT: ATTRIBUTES}))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vendor")

    def __enter__(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._simulator.start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening, and what hangs."""
        asyncio.run_coroutine_threadsafe(self._simulator.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def destination(self) -> dict[str, Any]:
        """The settings of a destination that speaks to it, fast enough for a test."""
        retry = {"initial": "100ms", "max": "1s"}
        more = {"agreed_limits": True, "requests_per_second": 1000, "retry": retry}
        return {**self._simulator.api.destination(self._simulator.url), **more}

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """Every event that it accepted, repetitions included."""
        return list(self._simulator.accepted)

    @property
    def cuids(self) -> Counter[int]:
        """How often it accepted the event of each user."""
        return Counter(event["cuid"] for event in self.accepted)

    def learn(self, name: str) -> None:
        """Know one more event from now on."""
        api = self._simulator.api
        if isinstance(api, JiguangApi) and isinstance(api.events, dict):
            self._in_loop(partial(api.events.update, {name: ATTRIBUTES}))

    @property
    def account(self) -> dict[str, Any]:
        """The settings of a destination that speaks to it, everything else by default."""
        return self._simulator.api.destination(self._simulator.url)

    @property
    def stats(self) -> dict[str, Any]:
        """Its own counts since the start."""
        return self._simulator.stats()

    @property
    def served(self) -> list[Served]:
        """Every request."""
        return list(self._simulator.served)

    def arm(self, *faults: Fault) -> None:
        """Show these faults, and only these, from the next request on."""
        self._in_loop(self._simulator.plan.clear)
        self._in_loop(lambda: self._simulator.plan.arm(*faults))

    def recover(self) -> None:
        """Be well again."""
        self._in_loop(self._simulator.plan.clear)

    def _in_loop(self, act: Callable[[], None]) -> None:
        async def call() -> None:
            act()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)


class Member:
    """A running `connector run` with further arguments; its log is kept whole."""

    def __init__(self, config: Path, log: Path, *arguments: str, module: str = "tests.integration.ended") -> None:
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, "run", "-c", str(config), *arguments],
                cwd=ROOT,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._port: int | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return its log lines of one event."""
        found = (json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("}\n"))
        return [line for line in found if line.get("event") == event]

    @property
    def port(self) -> int:
        """The port of its server."""
        if self._port is None:
            self._port = int(self.wait(lambda: self.lines("connector.started"), "the start")[0]["port"])
        return self._port

    def wait(self, answer: Callable[[], T | None], what: str, seconds: float = WAIT_SECONDS) -> T:
        """Wait as `wait_for` does; fails at once where the process has ended."""

        def ask() -> T | None:
            found = None
            with suppress(ConnectionRefusedError):  # it is ending: its own words say more
                found = answer()
            code = self._process.poll()
            assert found or code is None, f"it ended with {code} while {what} was waited for:\n{self.text[-3000:]}"
            return found

        try:
            return wait_for(ask, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text[-3000:]}") from None

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of its server's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return its /status."""
        status: dict[str, Any] = json.loads(self.get("/status")[1])
        return status

    def destination(self) -> dict[str, Any]:
        """Return what its /status says of the destination; empty before it runs."""
        found: dict[str, Any] = self.status()["destinations"].get(DESTINATION, {})
        return found

    def until_held(self, cause: str) -> dict[str, Any]:
        """Wait until the destination is held for this cause, and return its status."""

        def held() -> dict[str, Any] | None:
            found = self.destination()
            return found if found.get("cause") == cause else None

        return self.wait(held, f"a hold with cause {cause}")

    def metric(self, sample: str) -> float:
        """Return the value of one sample of its /metrics, named with its labels; 0 where it is absent."""
        lines = self.get("/metrics")[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} ")), 0.0)

    @property
    def peak_bytes(self) -> int:
        """The most memory that it ever had."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(10)

    def exit_code(self, seconds: float = WAIT_SECONDS) -> int:
        """Return the code with which it ends within so many seconds."""
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.terminate()
        return self.exit_code()

    def close(self) -> None:
        """End it where a test has left it running; fail if it logged anything that docs/logs.md does not have."""
        if self._process.poll() is None:
            self.kill()
        assert self.undocumented() == []

    def undocumented(self) -> list[dict[str, Any]]:
        """Return its log lines that are neither a documented event nor a library's warning."""
        found = (json.loads(line) for line in self.text.splitlines(keepends=True) if line.endswith("}\n"))
        of_libraries = [line for line in found if "logger" in line or line.get("event") not in MEANINGS]
        return [line for line in of_libraries if line.get("level") not in ("warning", "error") or "logger" not in line]


class DeadLetterEntry(NamedTuple):
    """A dead letter: the record that it was, and what the connector says about it."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    own: dict[str, str]


class Sent(NamedTuple):
    """Where a message stands in the topic, and when it was written (milliseconds)."""

    message: Message
    partition: int
    offset: int
    timestamp: int


class Job:
    """Topics, a group and a configuration of one test's own."""

    def __init__(self, kafka: Kafka, folder: Path, topic: str) -> None:
        self.kafka = kafka
        self.topic = topic
        self.group = f"group-{topic}"
        self.dead_letters_topic = f"{self.group}.dead-letters"
        self._folder = folder
        self._members: list[Member] = []
        self._reader = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": self.group, "log_level": 0})
        self.partitions = 0

    def create_topics(self, partitions: int = 6) -> None:
        """Create the source, dead-letter and replay topics."""
        self.partitions = partitions
        self.kafka.create_topic(self.topic, partitions)
        self.kafka.create_topic(self.dead_letters_topic, 2)
        self.kafka.create_topic(f"{self.group}.replay")

    def settings(self, destination: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
        """Return a configuration with this destination; `sections` are added to the others."""
        client = {
            "bootstrap.servers": self.kafka.bootstrap,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
        return {
            "kafka": {"topics": [self.topic], "group_id": self.group, "client": client},
            "destinations": {DESTINATION: dict(destination)},
            "server": {"port": 0},
            "log": {"format": "json"},
            **sections,
        }

    def write(self, settings: Mapping[str, Any], name: str = "connector") -> Path:
        """Write a configuration and return its path."""
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
        return path

    def start(self, settings: Mapping[str, Any], *arguments: str, module: str = "tests.integration.ended") -> Member:
        """Start a member with further arguments of `run`; `module` is what runs it."""
        number = len(self._members)
        place = self.write(settings, f"member-{number}"), self._folder / f"member-{number}.log"
        member = Member(*place, *arguments, module=module)
        self._members.append(member)
        return member

    def produce(self, messages: Iterable[Message], **client: str | int) -> list[Sent]:
        """Write messages and return them, in their order, with their places; `client` are properties, `_` for `.`."""
        given = {name.replace("_", "."): value for name, value in client.items()}
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "linger.ms": 5, "acks": "all", **given})
        sent: dict[int, Sent] = {}

        def delivered(number: int, message: Message) -> Callable[[object, KafkaMessage], None]:
            def note(error: object, written: KafkaMessage) -> None:
                assert error is None, error
                partition, offset = written.partition(), written.offset()
                assert partition is not None
                assert offset is not None
                sent[number] = Sent(message, partition, offset, written.timestamp()[1])

            return note

        for number, message in enumerate(messages):
            producer.produce(
                self.topic,
                message.value,
                message.key,
                -1 if message.partition is None else message.partition,
                headers=list(message.headers),
                on_delivery=delivered(number, message),
            )
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(30) == 0
        return [sent[number] for number in sorted(sent)]

    def ends(self) -> dict[int, int]:
        """Return the end offset of each partition."""
        places = [TopicPartition(self.topic, number) for number in range(self.partitions)]
        return {place.partition: self._reader.get_watermark_offsets(place, timeout=10)[1] for place in places}

    def committed(self) -> dict[int, int]:
        """Return the group's committed offset of each partition; 0 where it has none."""
        places = [TopicPartition(self.topic, number) for number in range(self.partitions)]
        found = wait_for(lambda: self.asked_committed(places), "an answer of the group's coordinator")
        return {place.partition: max(0, place.offset) for place in found}

    def asked_committed(self, places: list[TopicPartition]) -> list[TopicPartition] | None:
        """Return the group's offsets; None while a broker that has just started does not know the group yet."""
        try:
            return self._reader.committed(places, timeout=10)
        except KafkaException:
            return None

    def until_done(self, member: Member) -> None:
        """Wait until the group has committed the ends of all partitions."""
        ends = self.ends()
        member.wait(lambda: self.committed() == ends, f"commits up to {ends}")

    def dead_letters(self) -> list[DeadLetterEntry]:
        """Return all dead letters that there are now."""
        reader = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap,
                "group.id": f"{self.group}-letters",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        places = [TopicPartition(self.dead_letters_topic, number, 0) for number in range(2)]
        left = sum(reader.get_watermark_offsets(place, timeout=10)[1] for place in places)
        reader.assign(places)
        found: list[DeadLetterEntry] = []
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while len(found) < left:
                assert time.monotonic() < deadline, f"{left - len(found)} dead letters cannot be read"
                found.extend(_dead_letter(message) for message in reader.consume(500, 0.1))
        finally:
            reader.close()
        return found

    def close(self) -> None:
        """End what still runs."""
        for member in self._members:
            member.close()
        self._reader.close()


def _dead_letter(message: KafkaMessage) -> DeadLetterEntry:
    headers: Headers = list(message.headers() or [])  # type: ignore[arg-type]
    start = next(index for index, (name, _) in enumerate(headers) if name == f"{OWN_HEADER}version")
    own = {name: (value or b"").decode() for name, value in headers[start:]}
    assert len(own) == len(headers) - start, "a header of the block is repeated"
    return DeadLetterEntry(message.key(), message.value(), headers[:start], own)


@contextmanager
def jobs(kafka: Kafka, folder: Path, topic: str) -> Iterator[Job]:
    """Give a job with its topics created, and end whatever it started."""
    job = Job(kafka, folder, topic)
    try:
        job.create_topics()
        yield job
    finally:
        job.close()
