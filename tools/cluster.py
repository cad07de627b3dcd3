"""Three Apache Kafka nodes, for tests that stop one of them."""

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
    """Three nodes, each broker and controller. Every topic is on all of them; a write needs two.

    Each node's `bootstrap` lists all three, so a test that expects a `Kafka` can use any node.
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
        """Start the nodes that are not running. Returns when all serve requests and have found each other."""
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
        """Kill every node. Their data are not needed any more."""
        for node in self.nodes.values():
            node.kill()

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leader of each partition of a topic; -1 means none."""
        try:
            partitions = self._admin().list_topics(topic, timeout=10).topics[topic].partitions
        except KafkaException:
            return {}
        return {number: partition.leader for number, partition in partitions.items()}

    def coordinator(self, group: str) -> int:
        """Return the node that coordinates a group."""
        admin = self._admin()  # a reference must be kept, or its futures never complete
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
    # A dead leader is detected by its session. A follower that only lags keeps its place as long.
    "replica.lag.time.max.ms": "4000",
}
