"""The model broker keeps to the contract of sources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Literal, NoReturn

import pytest

from connector.records import Commit, Record
from connector.testing.loop import run_virtual
from tests.simulation.broker import ModelBroker, ModelSource
from tests.simulation.facts import Epoch
from tests.simulation.source_contract import CHECKS, ContractMember, World


class Lenient:
    """Judges nothing."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []

    def judge_commit(self, commit: Commit, stored: int | None, epoch: Epoch | Literal[False], end: int) -> None:
        """Let every commit pass."""

    def judge_read(self, member: str, records: Sequence[Record], epochs: Mapping[tuple[str, int], Epoch]) -> None:
        """Let everything be read."""

    def recreated(self, topic: str) -> None:
        """Ignore it."""

    def saw(self, what: str) -> None:
        """Count nothing."""

    def fail(self, message: str) -> NoReturn:
        """Raise."""
        raise AssertionError(message)

    def end_epoch(self, epoch: Epoch, now: float, *, clean: bool) -> None:
        """Take no note."""


class ModelWorld:
    """The model's topic and group."""

    topic = "events"

    def __init__(self, *, eager: bool) -> None:
        self.broker = ModelBroker({self.topic: 2}, Random(1), Lenient(), eager=eager)

    async def join(self) -> ContractMember:
        """Return a member of the model's group."""
        source = ModelSource(self.broker, f"m{len(self.broker.members)}")
        member = ContractMember(source)
        await source.start(member)
        return member

    def produce(self, count: int, partition: int) -> None:
        """Write records without gaps."""
        for _ in range(count):
            self.broker.logs[self.topic, partition].append(
                lambda offset: Record(self.topic, partition, offset, -1, None, b"x", ()), 0
            )

    def committed(self, partition: int) -> tuple[int, str] | None:
        """Return what is stored."""
        return self.broker.committed.get((self.topic, partition))


@pytest.mark.parametrize("eager", [False, True], ids=["cooperative", "eager"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_model_is_a_source(check: Callable[[World], Awaitable[None]], eager: bool) -> None:
    """Each check that a real Kafka passes is passed by the model."""

    async def play() -> None:
        await check(ModelWorld(eager=eager))

    run_virtual(play())
