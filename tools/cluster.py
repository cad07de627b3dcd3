"""Three Apache Kafka nodes for tests that take one of them away."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tools.servers import START_SECONDS, Kafka, ServerError, free_ports

NODES: Final = 3
_HEAP: Final = "192m"


class Cluster:
    """Nodes that are broker and controller each, every topic on all of them, two of them needed for a write.

    Each node's `bootstrap` names all three, so one of them stands for the cluster where a test wants a `Kafka`.
    """

    def __init__(self, folder: Path) -> None:
        ports = free_ports(NODES)
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(ports, 1))
        self.nodes: dict[int, Kafka] = {}
        for number, controller in enumerate(ports, 1):
            self.nodes[number] = Kafka(
                folder / f"node-{number}",
                properties={"node.id": str(number), "controller.quorum.voters": voters, **_REPLICATED},
                controller=controller,
                heap=_HEAP,
            )
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes.values())
        for node in self.nodes.values():
            node.bootstrap = self.bootstrap

    def start(self) -> None:
        """Start the nodes that do not run; returns when all serve requests and know of each other."""
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(Kafka.format, self.nodes.values()))
        asleep = [node for node in self.nodes.values() if node.pid is None]
        for node in asleep:
            node.launch()
        for node in asleep:
            node.wait()
        deadline = time.monotonic() + START_SECONDS
        while len(self._admin().list_topics(timeout=10).brokers) < NODES:
            if time.monotonic() > deadline:
                raise ServerError(f"the {NODES} nodes did not find each other within {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def stop(self) -> None:
        """End every node at once: their data are thrown away."""
        for node in self.nodes.values():
            node.kill()

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the node that leads each partition of a topic, -1 where none does."""
        try:
            partitions = self._admin().list_topics(topic, timeout=10).topics[topic].partitions
        except KafkaException:
            return {}
        return {number: one.leader for number, one in partitions.items()}

    def coordinator(self, group: str) -> int:
        """Return the node that coordinates a group."""
        admin = self._admin()  # its answers come only while it is referred to
        described = admin.describe_consumer_groups([group], request_timeout=10)[group].result(15)
        return int(described.coordinator.id)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})


_REPLICATED: Final = {
    "default.replication.factor": str(NODES),
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": str(NODES),
    "transaction.state.log.replication.factor": str(NODES),
    "transaction.state.log.min.isr": "2",
    # A dead leader is noticed by its session; a follower that only lags behind keeps its place as long.
    "replica.lag.time.max.ms": "4000",
}
