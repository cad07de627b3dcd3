"""librdkafka's admin client with an end.

The binding leaves it to the garbage collector, and what a traceback refers to lives until the process ends. Its threads
then run on while the process's libraries are cleaned up, and one that connects by TLS just then ends the process with
SIGSEGV, whatever its exit code was to be.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any, Self

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AdminClient,
    ClusterMetadata,
)

from connector.kafka.client import LibrdkafkaLog, construct


class Admin:
    """Whoever asks a cluster something holds one: an asynchronous context manager, which ends its threads.

    `name` stands in the log beside what librdkafka says. Raises `StartupError` for properties unknown to librdkafka.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self.client = construct(AdminClient, config, logger=LibrdkafkaLog(name))
        self._asking = threading.Lock()

    async def __aenter__(self) -> Self:
        """Return it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def topics(self, timeout: float) -> ClusterMetadata:
        """Return what a broker tells of all topics. Raises `KafkaException`, also after `timeout` seconds."""
        return await asyncio.to_thread(self._topics, timeout)

    async def serve(self) -> None:
        """Have librdkafka make the callbacks that wait."""
        await asyncio.to_thread(self._serve)

    async def close(self) -> None:
        """End the client's threads, once a question that was given up has its answer; nothing can be asked any more."""
        await asyncio.to_thread(self._close)

    def _topics(self, timeout: float) -> ClusterMetadata:
        with self._asking:
            return self.client.list_topics(timeout=timeout)

    def _serve(self) -> None:
        with self._asking:
            self.client.poll(0)

    def _close(self) -> None:
        # Under the lock: a thread that still asked would find the client freed.
        with self._asking:
            self.client.__exit__(None, None, None)
