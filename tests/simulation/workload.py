"""Writes a world's records to their partitions, with gaps where a real log has some."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from connector.pipeline.batching import charge_of
from connector.records import Headers, Record
from connector.testing.loop import START, WALL, LoopClock
from tests.simulation.broker import ModelBroker
from tests.simulation.edges import ENCODER, NAMES
from tests.simulation.oracle import Oracle
from tests.simulation.scenario import Planned, Scenario, datum_of, draw_record

SINGLE_HEADER: Final = 10
UNKNOWN_ID: Final = 4711


class Workload:
    """The producer of the topic: `records` are all that it has written, each at the place of its serial."""

    def __init__(
        self, scenario: Scenario, broker: ModelBroker, oracle: Oracle, clock: LoopClock, random: Random
    ) -> None:
        self.records: list[Planned] = []
        self.largest = 0
        """The bytes with which a member is charged for holding the largest of them."""
        self._scenario = scenario
        self._broker = broker
        self._oracle = oracle
        self._clock = clock
        self._random = random

    async def write(self) -> None:
        """Write what the seed draws, at its pace."""
        for _ in range(self._scenario.records):
            self.add()
            if self._scenario.pace:
                await asyncio.sleep(self._random.uniform(0, 2 * self._scenario.pace))

    def add(self, *, good: bool = False) -> None:
        """Write the next record, sometimes after offsets that are no records."""
        planned = draw_record(self._scenario, self._random, len(self.records), good=good)
        if any(name.startswith("dlq-") for name, _ in planned.headers):
            self._oracle.saw("forged headers")
        count = sum(topic == planned.topic for topic, _ in self._broker.logs)
        mood = Random(f"grown {self._scenario.seed} {planned.serial}")
        if count > self._scenario.partitions and planned.kind != "strange" and mood.random() < 0.5:
            planned.partition = mood.randrange(count)
        planned.value = self._value(planned)
        gap = self._random.choice((0, 0, 0, 0, 1, 30))
        self.append(planned, planned.headers, gap=gap, marker=self._random.random() < 0.1)

    def append(self, planned: Planned, headers: Headers, *, gap: int = 0, marker: bool = False) -> None:
        """Write a record that carries these headers; `marker` leaves an offset behind it that is no record."""
        stamp = int((WALL + self._clock.now() - START) * 1000)

        def make(offset: int) -> Record:
            planned.offset, planned.written = offset, self._clock.now()
            made = Record(planned.topic, planned.partition, offset, stamp, planned.key, planned.value, headers)
            self.largest = max(self.largest, charge_of(made))
            return made

        log = self._broker.logs[planned.topic, planned.partition]
        log.append(make, gap)
        log.end += marker
        self.records.append(planned)
        self._oracle.wrote(planned.topic, planned.partition, planned.offset, planned)
        self._broker.wake()

    def _value(self, planned: Planned) -> bytes | None:
        if planned.kind == "null":
            return None
        if planned.kind == "empty":
            return b""
        if planned.kind == "strange":
            return b"\0" + UNKNOWN_ID.to_bytes(4, "big") + b"x"
        name, datum = datum_of(planned, self._random)
        single = ENCODER.single_object(name, datum)
        if planned.kind == "broken":
            return single[:-1]
        if self._random.random() < 0.5:
            return single
        return b"\0" + (NAMES.index(name) + 1).to_bytes(4, "big") + single[SINGLE_HEADER:]
