"""A long run with faults and thousands of distinct names: it stays flat. An hour by `make faults`, else a minute."""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from connector.testing.faults import Fault
from tests.integration.events import Message, datum_bytes, event, good, single_object
from tests.integration.job import DESTINATION, Job, Member, Vendor
from tests.integration.load import long_or, settings_of, show

SECONDS: Final = long_or(3600, 40)
BATCH: Final = 40
"""Records written at a time, half of them with a name that never came before; one in `SHARE` of a second."""
PAUSE: Final = 0.2
WARM: Final = long_or(600, 12)
"""Seconds after which nothing grows any more but by noise."""
FAULTS: Final = (
    *(Fault("status", status=status, times=1) for status in (500, 502, 503, 429, 401, 403)),
    *(
        Fault("hang", times=1),
        *(Fault(effect, times=1) for effect in ("cut", "truncate", "surplus", "garbage")),
        Fault("latency", times=3, seconds=0.3),
    ),
)


class Figures(NamedTuple):
    """What a process holds now."""

    megabytes: float
    descriptors: int
    threads: int
    tasks: int
    series: int


def _look(member: Member, tasks: Path) -> Figures:
    process = Path(f"/proc/{member.pid}")
    status = (process / "status").read_text(encoding="ascii").splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return Figures(
        resident / 1024,
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
        int(tasks.read_text(encoding="ascii") or 0),
        sum(not line.startswith("#") for line in member.get("/metrics")[1].splitlines()),
    )


def _odd(numbers: list[int]) -> list[Message]:
    """Return records each of which has a name of its own: of an event, a header, a schema, a key."""
    unknown = [single_object(datum_bytes(event(number, eventName=f"event-{number}"))) for number in numbers]
    schemas = [b"\xc3\x01" + number.to_bytes(8, "big") + b"x" for number in numbers]
    return [
        *(
            Message(value, b"key-%d" % number, ((f"h-{number}", b"1"),))
            for number, value in zip(numbers, unknown, strict=True)
        ),
        *(Message(value, b"key-%d" % number) for number, value in zip(numbers, schemas, strict=True)),
    ]


@pytest.mark.promise("P12")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc to look into a process")
@pytest.mark.timeout(SECONDS + 180)
def test_a_long_run_with_faults_and_thousands_of_names_stays_flat(
    job: Job, vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory, tasks, descriptors, threads and series are at the end what they were once it was warm.

    Events, headers, keys, schemas and vendor codes have names that never came before; the vendor fails in many ways.
    Kills: anything that is kept by a name from outside, for ever.
    """
    tasks = tmp_path / "tasks"
    monkeypatch.setenv("TASKS", str(tasks))
    settings = settings_of(job, vendor)
    settings["destinations"][DESTINATION] |= {"storm": "off", "timeout": "2s", "retry": {"max": "1s"}}
    member = job.start(settings, module="tests.integration.counted")
    member.wait(lambda: member.lines("partitions.assigned"), "its partitions")
    numbers, codes, chance = itertools.count(10**6), itertools.count(7000), random.Random(1)
    began, first, seen = time.monotonic(), None, []
    while (passed := time.monotonic() - began) < SECONDS:
        odd = [next(numbers) for _ in range(BATCH // 4)]
        job.produce([*good(range(odd[0], odd[0] + BATCH // 2)), *_odd(odd)])
        code = Fault("status", status=200, body=json.dumps({"code": next(codes), "msg": "?"}), times=1)
        vendor.recover()
        vendor.arm(chance.choice((code, *FAULTS)))
        if passed > WARM:
            found = _look(member, tasks)
            first = first or found
            seen.append(found)
        time.sleep(PAUSE)
    vendor.recover()
    job.until_done(member)
    most = max(one.tasks for one in seen[: len(seen) // 4 + 1]) + 5
    # Tasks are counted twice a second, and what waited for the vendor was sent all at once: let it end first.
    member.wait(lambda: _look(member, tasks).tasks <= most, f"at most {most} tasks")
    last = _look(member, tasks)
    assert member.stop() == 0
    assert first is not None
    show("long run", names=3 * (next(numbers) - 10**6), warm=first, last=last, looks=len(seen))
    assert last.megabytes < max(first.megabytes + long_or(30, 25), 1.2 * first.megabytes)
    assert last.descriptors <= first.descriptors + 10
    assert last.threads <= first.threads + 2
    assert last.series == first.series
