"""Progress handed over between runs of all destinations and of one, on a model of Kafka's groups and virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.config.loader import Settings
from connector.errors import LongMetadataRefused, StartupError
from connector.pipeline import offset_map
from connector.pipeline.offset_map import FinishedMap
from connector.pipeline.offsets import PartitionTracker, destination_bit
from connector.records import Commit, TopicPartition
from connector.runtime.handover import HANDED_OVER, OtherSideRuns, give_back, other_side, take_over
from connector.testing.loop import LoopClock, run_virtual
from tests.unit.delivery.delivery_rig import played

NAMES: Final = ("a", "b", "c")
END: Final = 12
PARTITION: Final = ("t", 0)


class ModelGroups:
    """The groups of one topic with one partition. A member that is asked to leave is seen once more."""

    def __init__(self) -> None:
        self.commits: dict[str, Commit] = {}
        self.leaving: dict[str, list[Callable[[], None]]] = {}
        """What happens each time when the members of a group are counted: the last is its last commit."""
        self.stays: set[str] = set()
        self.forbidden: set[str] = set()
        self.longest = offset_map.MAX_TEXT
        """The longest metadata that the coordinator takes."""

    async def members(self, group: str) -> int:
        """Return how many members a group has; one that is leaving has left when it is asked for again."""
        self._judge(group)
        if group in self.stays:
            return 1
        if (steps := self.leaving.get(group)) is None:
            return 0
        steps.pop(0)()
        if steps:
            return 1
        del self.leaving[group]
        return 0

    async def committed(self, group: str) -> list[Commit]:
        """Return a group's commit."""
        self._judge(group)
        return [self.commits[group]] if group in self.commits else []

    async def commit(self, group: str, commits: Sequence[Commit]) -> None:
        """Set a group's offsets."""
        assert await self.members(group) == 0
        if max(len(commit.metadata) for commit in commits) > self.longest:
            raise LongMetadataRefused("OFFSET_METADATA_TOO_LARGE")
        for commit in commits:
            self.commits[group] = commit

    async def partitions(self) -> set[TopicPartition]:
        """Return the partition."""
        return {PARTITION}

    async def bounds(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """Return where it begins and ends."""
        return dict.fromkeys(partitions, (0, END))

    async def offsets_at(self, partitions: Sequence[TopicPartition], time: int) -> dict[TopicPartition, int]:
        """Return the offset as the time, -1 behind the end."""
        return dict.fromkeys(partitions, time if time < END else -1)

    def _judge(self, group: str) -> None:
        if group in self.forbidden:
            raise StartupError(f"cannot read group {group}: GROUP_AUTHORIZATION_FAILED: no")


def configured(*names: str, start: str | int = "earliest") -> Settings:
    """Return what `take_over` reads of a configuration with these destinations."""
    kafka = SimpleNamespace(group_id="g", start=start, client={})
    settings = SimpleNamespace(
        kafka=kafka,
        limits=SimpleNamespace(drain_timeout=5.0),
        destinations=dict.fromkeys(names),
        replay_topic="g.replay",
    )
    return cast("Settings", settings)


class Story:
    """Runs that follow each other, and what each destination has had."""

    def __init__(self) -> None:
        self.groups = ModelGroups()
        self.had: dict[str, set[int]] = {name: set() for name in NAMES}
        self.passed: dict[str, set[int]] = {name: set() for name in NAMES}
        """What a destination may miss, because it was not configured when the others had all of that."""

    async def run(self, alone: str | None, names: Sequence[str], early: int, late: int) -> None:
        """Start a side, check what it knows, and deliver: `early` is committed now, `late` when the member leaves.

        Both have a bit for each destination and offset.
        """
        group = "g" if alone is None else f"g.{alone}"
        while await self.groups.members(group):
            pass  # a member of the same side has left by then
        await take_over(cast("Any", self.groups), configured(*names), alone, LoopClock())
        names = names if alone is None else [alone]
        commit = self.groups.commits.get(group, Commit(*PARTITION, 0, ""))
        known = FinishedMap() if commit.metadata == HANDED_OVER else offset_map.decode(commit.offset, commit.metadata)
        for name in names:
            found = {n for n in range(END) if n < commit.offset or known.done(name).contains(n)}
            assert self.had[name] <= found, "delivered again"
            assert found <= self.had[name] | self.passed[name], "lost"
        tracker = PartitionTracker(*PARTITION, commit.offset, names, known)
        for offset in tracker.begin(range(commit.offset, END)) if commit.offset < END else ():
            tracker.route([offset], sum(destination_bit(index) for index in range(len(names))))
        self._deliver(group, tracker, names, early)

        last = lambda: self._deliver(group, tracker, names, late)  # noqa: E731
        self.groups.leaving[group] = [lambda: None, last]

    def _deliver(self, group: str, tracker: PartitionTracker, names: Sequence[str], bits: int) -> None:
        for index, name in enumerate(names):
            for offset in range(END):
                wanted = bits >> (index * END + offset) & 1
                if wanted and tracker.is_pending(offset, destination_bit(index)):
                    tracker.finish([offset], destination_bit(index))
                    self.had[name].add(offset)
        if (snapshot := tracker.snapshot()) is not None:
            text = offset_map.encode(*snapshot).text
            self.groups.commits[group] = Commit(*PARTITION, snapshot.watermark, text)
        if group == "g":
            for name in set(NAMES) - set(names):
                self.passed[name].update(n for n in range(END) if not tracker.left(n))


BITS: Final = st.integers(0, 2 ** (END * len(NAMES)) - 1)


@pytest.mark.promise("P3")
@given(
    st.lists(
        st.tuples(st.sampled_from([None, None, *NAMES]), st.sets(st.sampled_from(NAMES), min_size=1), BITS, BITS),
        min_size=2,
        max_size=6,
    )
)
@example(
    [(None, set(NAMES), 1 << (END + 5), 0), ("a", {"a"}, 1, 0), (None, {"a", "c"}, 0, 0), (None, set(NAMES), 0, 0)]
)
def test_whoever_starts_next_knows_exactly_what_each_destination_has(
    runs: list[tuple[str | None, set[str], int, int]],
) -> None:
    """All destinations, one alone, some of them absent, in any order; members that leave while the next one waits.

    Kills: commits that are read before the other side has left; claims of an absent destination that the way back
    forgets.
    """

    async def play() -> None:
        story = Story()
        for alone, names, early, late in runs:
            await story.run(alone, sorted(names if alone is None else names | {alone}), early, late)

    run_virtual(play())


@pytest.mark.promise("P3")
@played
async def test_all_destinations_do_not_start_beside_one_that_has_committed_nothing() -> None:
    """A member of the other side counts whether or not its group has an offset: both would deliver what comes next.

    Kills: looking for members of those groups only that have commits.
    """
    groups = ModelGroups()
    groups.stays.add("g.b")
    with pytest.raises(OtherSideRuns, match=r"group g\.b has running members"):
        await take_over(cast("Any", groups), configured("a", "b"), None, LoopClock())


@pytest.mark.promise("P3")
@played
async def test_what_ran_alone_is_not_marked_while_the_combined_group_runs_without_it() -> None:
    """Offsets of a group with members cannot be set: a member that joins it leaves the own group's progress as it is.

    The combined group takes it over when it starts the next time. Kills: progress that is marked as handed over while
    no one has it, so that all of it is delivered again.
    """
    groups = ModelGroups()
    groups.commits = {"g": Commit(*PARTITION, 1, ""), "g.a": Commit(*PARTITION, 7, "")}
    groups.stays.add("g")
    await take_over(cast("Any", groups), configured("a"), None, LoopClock())
    assert groups.commits["g.a"] == Commit(*PARTITION, 7, "")
    groups.stays.clear()
    await take_over(cast("Any", groups), configured("a"), None, LoopClock())
    assert groups.commits["g"].offset == 7


@pytest.mark.promise("P1")
@given(st.sets(st.integers(0, END - 1)), st.sets(st.integers(0, END - 1)), st.sampled_from([None, "a"]))
def test_a_coordinator_that_takes_less_metadata_keeps_no_side_from_starting(
    one: set[int], other: set[int], alone: str | None
) -> None:
    """Two maps that fit are one that does not: as much as fits is taken over, and no more is claimed than was finished.

    Kills: a start that is refused each time, because `offset.metadata.max.bytes` is below Kafka's default.
    """

    async def play() -> None:
        groups, done = ModelGroups(), {"a": one, "b": other}
        runs = {name: offset_map.Runs.of(sorted(offsets)) for name, offsets in done.items()}
        if alone is None:
            for name, found in runs.items():
                groups.commits[f"g.{name}"] = Commit(*PARTITION, 0, offset_map.encode(0, FinishedMap(found)).text)
        else:
            groups.commits["g"] = Commit(*PARTITION, *_committed(*offset_map.combined(runs)))
        groups.longest = len(HANDED_OVER)
        await take_over(cast("Any", groups), configured("a", "b"), alone, LoopClock())
        commit = groups.commits["g" if alone is None else "g.a"]
        known = offset_map.decode(commit.offset, commit.metadata)
        for name in done if alone is None else [alone]:
            claimed = {n for n in range(END) if n < commit.offset or known.done(name).contains(n)}
            assert claimed <= done[name]

    run_virtual(play())


def _committed(watermark: int, finished: FinishedMap) -> tuple[int, str]:
    return watermark, offset_map.encode(watermark, finished).text


@pytest.mark.promise("P3")
@pytest.mark.parametrize("session", [45, 120])
def test_a_member_that_was_killed_is_waited_for(session: int) -> None:
    """Kafka counts a killed member, and a static one that has stopped, until its session ends: the other side waits.

    Kills: a start that is refused because members of the other side run, while none does.
    """

    async def play() -> None:
        groups, settings, clock = ModelGroups(), configured("a"), LoopClock()
        settings.kafka.client["session.timeout.ms"] = 1000 * session
        groups.stays.add("g.a")
        starting = asyncio.create_task(take_over(cast("Any", groups), settings, None, clock))
        await clock.sleep(session)
        groups.stays.clear()
        await starting

    run_virtual(play())


class RacingGroups(ModelGroups):
    """Groups whose coordinator takes a drawn time for each answer, and refuses offsets of a group with members."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def members(self, group: str) -> int:
        """Return how many members a group has."""
        await self.take_time()
        return await super().members(group)

    async def committed(self, group: str) -> list[Commit]:
        """Return a group's commit."""
        await self.take_time()
        return await super().committed(group)

    async def commit(self, group: str, commits: Sequence[Commit]) -> None:
        """Set a group's offsets."""
        await self.take_time()
        if group in self.stays:
            raise StartupError("NON_EMPTY_GROUP")
        for commit in commits:
            self.commits[group] = commit

    async def take_time(self) -> None:
        """Wait."""
        await asyncio.sleep(self._random.choice([0.0, 0.01, 0.1, 1.0]))


@pytest.mark.promise("P3")
@given(st.integers(), st.sampled_from([None, 4]), st.sampled_from([None, HANDED_OVER, ""]))
def test_of_two_sides_that_start_at_once_one_delivers(seed: int, combined: int | None, alone: str | None) -> None:
    """Neither sees the other when it starts. One ends before it has delivered anything, and forgets what it took over.

    So the other side's progress counts at the next start of either. Kills: looking for members only before joining;
    offsets of a run that never began, from which a later one delivers again.
    """

    async def play() -> None:
        random = Random(seed)
        groups, settings, clock = RacingGroups(random), configured("a"), LoopClock()
        # Otherwise a run of one destination has nothing to begin with, and ends.
        groups.commits["g"] = Commit(*PARTITION, combined or 0, "")
        if alone is not None:
            groups.commits["g.a"] = Commit(*PARTITION, 2, alone)

        async def side(destination: str | None) -> str | None:
            group = "g" if destination is None else f"g.{destination}"
            try:
                await take_over(cast("Any", groups), settings, destination, clock)
            except (OtherSideRuns, StartupError):
                return None
            await groups.take_time()
            groups.stays.add(group)
            await groups.take_time()
            if await other_side(cast("Any", groups), settings, destination, clock) is None:
                return group
            groups.stays.discard(group)
            await give_back(cast("Any", groups), settings, destination)
            return None

        (runs,) = [group for group in await asyncio.gather(side(None), side("a")) if group is not None]
        groups.stays.clear()
        groups.commits[runs] = Commit(*PARTITION, 9, "")
        for destination, group in ((None, "g"), ("a", "g.a")):
            later = groups.commits.copy()
            await take_over(cast("Any", groups), settings, destination, clock)
            assert groups.commits[group].offset == 9
            groups.commits = later

    run_virtual(play())


@pytest.mark.promise("P3")
@pytest.mark.parametrize("suspended", [None, "a"])
@pytest.mark.parametrize("ran", [True, False])
def test_who_is_back_ends_if_the_other_side_has_run_meanwhile(suspended: str | None, *, ran: bool) -> None:
    """A member was suspended. If the other side started, delivered and stopped, its own offsets are old.

    Otherwise it goes on. Kills: looking for running members of the other side only.
    """

    async def play() -> None:
        groups, settings, clock = ModelGroups(), configured("a", "b"), LoopClock()
        other, group = ("a", "g") if suspended is None else (None, "g.a")
        groups.commits["g"] = Commit(*PARTITION, 1, "")
        await take_over(cast("Any", groups), settings, suspended, clock)
        groups.commits[group] = Commit(*PARTITION, 2, "")
        if ran:
            await take_over(cast("Any", groups), settings, other, clock)
        reason = await other_side(cast("Any", groups), settings, suspended, clock, is_back=True)
        assert (reason is not None) is ran

    run_virtual(play())


@played
async def test_a_group_that_may_not_be_read_has_never_run() -> None:
    """Who grants this client its own group only can run all destinations; no other client runs one of them."""
    groups = ModelGroups()
    groups.forbidden = {"g.a", "g.b"}
    await take_over(cast("Any", groups), configured("a", "b"), None, LoopClock())
    assert groups.commits == {}


@pytest.mark.parametrize(("start", "first"), [("earliest", 0), ("latest", END), (7, 7), (END + 1, END)])
async def test_a_destination_that_never_ran_starts_at_kafka_start(start: str | int, first: int) -> None:
    """One destination ran alone from the first day; when all run together, the other one begins where it is told.

    Kills: old records for a destination that is to have only those of now; its start for the one that has progress.
    """
    groups = ModelGroups()
    groups.commits["g.a"] = Commit(*PARTITION, 3, offset_map.encode(3, FinishedMap(offset_map.Runs((5, 6)))).text)
    await take_over(cast("Any", groups), configured("a", "b", start=start), None, LoopClock())
    commit = groups.commits["g"]
    known = offset_map.decode(commit.offset, commit.metadata)
    done = {n: {m for m in range(END) if m < commit.offset or known.done(n).contains(m)} for n in ("a", "b")}
    assert done == {"a": {0, 1, 2, 5}, "b": set(range(first))}
