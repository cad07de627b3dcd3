"""The manual clock: time passes when the test says so, in the usual order."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.clock import SystemClock
from connector.testing.clock import ManualClock


async def test_nothing_wakes_before_its_time() -> None:
    """A sleeper wakes exactly when the clock has been moved as far as it wanted to sleep."""
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.settle()
    clock.advance(9.999)
    await clock.settle()
    assert not sleeper.done()
    clock.advance(0.001)
    await sleeper
    assert clock.sleeping == 0


async def test_elapse_wakes_a_repeating_sleeper_at_each_of_its_own_times() -> None:
    """Time that elapses stops at every wake, so a loop that sleeps a second acts once a second."""
    clock = ManualClock(now=0.0)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1)
            ticks.append(clock.now())

    ticking = asyncio.create_task(tick())
    await clock.elapse(3600)
    ticking.cancel()
    assert ticks == [float(second) for second in range(1, 3601)]


@given(st.lists(st.integers(min_value=1, max_value=50), min_size=1, max_size=20))
def test_sleepers_wake_in_the_order_of_their_times(seconds: list[int]) -> None:
    """A shorter sleeper wakes earlier, and equals in the order in which they fell asleep."""

    async def run() -> list[tuple[int, int]]:
        clock = ManualClock()
        woken: list[tuple[int, int]] = []

        async def sleeper(order: int, duration: int) -> None:
            await clock.sleep(duration)
            woken.append((duration, order))

        tasks = [asyncio.create_task(sleeper(order, duration)) for order, duration in enumerate(seconds)]
        await clock.elapse(50)
        await asyncio.gather(*tasks)
        return woken

    expected = sorted((duration, order) for order, duration in enumerate(seconds))
    assert asyncio.run(run()) == expected


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    """A sleeper that was cancelled neither counts nor holds up the next wake."""
    clock = ManualClock(now=0.0)
    sleeper = asyncio.create_task(clock.sleep(1))
    await clock.settle()
    sleeper.cancel()
    await clock.settle()
    assert clock.sleeping == 0
    assert clock.next_wake is None


def test_monotonic_time_never_goes_back_and_wall_time_may() -> None:
    """Only the wall clock can jump."""
    clock = ManualClock(now=5.0, wall=100.0)
    clock.advance(1)
    clock.set_wall(50.0)
    assert (clock.now(), clock.wall()) == (6.0, 50.0)
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


async def test_the_real_clock_does_not_wait_for_a_time_that_is_over() -> None:
    """A sleep of zero or less only lets others run."""
    clock = SystemClock()
    before = clock.now()
    await clock.sleep(-5)
    assert clock.now() >= before
    assert clock.wall() > 1_700_000_000
