"""`connector dlq replay` and `discard` on real Kafka with a running connector: each is replayed once or stays."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Producer

from connector.dead_letters.headers import replayed, resolution
from tests.integration.accounts import Writer, accounts, contract, mytracker, quick_audience
from tests.integration.dead_letters import Told, lines, printed, write_dead_letters
from tests.integration.ended import COMMAND, run_command
from tests.integration.events import FIRST_CUID, KNOWN_EVENT, Message, datum_bytes, event, single_object
from tests.integration.job import DESTINATION, WAIT_SECONDS, Job, Vendor, wait_for
from tools.servers import ROOT, Kafka

KINDS: Final = (
    ("refused", "4103", "jiguang"),
    ("refused", "4101", "jiguang"),
    ("gave_up", "http.503", "jiguang"),
    ("invalid", "mytracker.customUserId.length", "mytracker"),
    ("too_large", "413", "quick_audience"),
    ("unknown_outcome", "http.502", "quick_audience"),
    ("route", "route.unrouted", None),
    ("decode", "decode.frame", None),
)
"""Causes, codes and vendors of the dead letters, by turns."""
COUNT: Final = 5000
EACH: Final = COUNT // len(KINDS)


def _dead_letters() -> Iterator[Told]:
    write_qa, write_tracker = Writer(contract("QuickAudienceEvent")), Writer(contract("MyTrackerEvent"))
    for number in range(COUNT):
        cause, code, vendor = KINDS[number % len(KINDS)]
        if vendor == "mytracker":
            value = write_tracker(mytracker(number))
        elif vendor == "quick_audience":
            value = write_qa(quick_audience(number))
        else:
            value = b"no avro" if cause == "decode" else single_object(datum_bytes(event(number)))
        yield Told(number, value, cause, code, vendor, vendor)


def _settings(job: Job, destinations: Mapping[str, Any]) -> dict[str, Any]:
    fast = {"agreed_limits": True, "requests_per_second": 1000}
    settings = job.settings({})
    settings["destinations"] = {name: {**one, **fast} for name, one in destinations.items()}
    return settings


def _replay(config: Path, *arguments: str) -> tuple[int, int]:
    """Run a replay and return how many dead letters were replayed and kept back."""
    results = Counter(
        row["result"] for row in lines("replay", "-c", str(config), "--yes", "--rate", "0", *(arguments or ("--all",)))
    )
    return results["replayed"], results["kept"]


def _open(config: Path, *arguments: str) -> dict[str, int]:
    """Return how many unresolved dead letters there are of each code."""
    return {row["code"]: row["letters"] for row in lines("stats", "-c", str(config), *arguments)}


@pytest.mark.promise("P13")
@pytest.mark.timeout(180)
def test_five_thousand_dead_letters_are_counted_and_each_replay_is_sent_once(job: Job) -> None:
    """Stats and filters are right; a replay sends each dead letter once, even if run twice or killed half-way.

    Kills: a resolution outside the replay's transaction, a reader or a run that takes what was never committed, a
    replayed record that goes to every route.
    """
    with accounts("jiguang", "quick_audience", "mytracker") as vendors:
        config = job.write(_settings(job, vendors.destinations()))
        ids = write_dead_letters(job, _dead_letters())
        counts = lines("stats", "-c", str(config))
        assert {(row["cause"], row["code"], row["destination"]): row["letters"] for row in counts} == dict.fromkeys(
            KINDS, EACH
        )
        assert _open(config, "--where", "cause=refused", "--where", "code=4103", "--where", "code=413") == {
            "4103": EACH
        }
        assert _open(config, "--since", "1h", "--where", "vendor=mytracker") == {KINDS[3][1]: EACH}
        assert [row["origin"]["offset"] for row in lines("list", "-c", str(config), "--key", "k7")] == [7]

        member = job.start(_settings(job, vendors.destinations()))
        jiguang = vendors["jiguang"]
        assert _replay(config, "--where", "code=4103") == (EACH, 0)
        wanted = {FIRST_CUID + number: ids[number] for number in range(0, COUNT, len(KINDS))}
        member.wait(lambda: len(jiguang.accepted) >= EACH, "the replayed events")
        assert _replay(config, "--where", "code=4103") == (0, 0)
        assert "4103" not in _open(config)
        assert {row["state"] for row in lines("list", "-c", str(config), "--all", "--where", "code=4103")} == {
            "replayed"
        }

        _kill_half_way(config, "--where", "code=4101")
        left = _open(config)["4101"]
        assert 0 < left < EACH
        assert _replay(config, "--where", "code=4101") == (left, 0)
        wanted |= {FIRST_CUID + number: ids[number] for number in range(1, COUNT, len(KINDS))}
        member.wait(lambda: len(jiguang.accepted) >= 2 * EACH, "all of the second code")
        member.wait(lambda: _backlog(job, config) == 0, "a replay topic that is read out")
        assert jiguang.cuids == Counter(dict.fromkeys(wanted, 1))
        assert {row["cuid"]: row["randomId"] for row in jiguang.accepted} == wanted
        assert not vendors["quick_audience"].accepted
        assert not vendors["mytracker"].accepted

        assert _replay(config, "--where", "cause=decode") == (0, EACH)
        done = lines("discard", "-c", str(config), "--yes", "--where", "cause=decode")
        assert Counter(row["result"] for row in done) == {"discarded": EACH}
        assert _replay(config, "--where", "vendor=mytracker", "--where", "vendor=") == (2 * EACH, 0)
        member.wait(lambda: len(vendors["mytracker"].accepted) >= EACH, "the events of another vendor")
        member.wait(lambda: len(jiguang.accepted) >= 3 * EACH, "what was never routed")
        member.wait(lambda: _backlog(job, config) == 0, "a replay topic that is read out")
        assert len(vendors["mytracker"].accepted) == EACH
        assert jiguang.cuids.total() == 3 * EACH
        assert set(_open(config)) == {"http.503", "413", "http.502"}
        assert member.stop() == 0


def _kill_half_way(config: Path, *arguments: str) -> None:
    """Start a replay and end it by SIGKILL once it has reported its first dead letters."""
    command = [*COMMAND, "dlq", "replay", "-c", str(config), "--yes", "--json", *arguments]
    with subprocess.Popen([*command, "--rate", "100"], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.kill()
        process.wait(WAIT_SECONDS)


def _backlog(job: Job, config: Path) -> int:
    """Return what the group still has to do of its replay topic, markers of transactions counted."""
    told = printed("offsets", "-c", str(config), "--topic", f"{job.group}.replay", "--json")
    return sum(json.loads(line)["lag"] for line in told.splitlines())


@pytest.mark.promise("P13")
def test_what_a_killed_replay_left_open_is_never_sent(kafka: Kafka, job: Job, vendor: Vendor) -> None:
    """Records of an aborted transaction are not delivered, and their dead letters are replayed once.

    Kills: reading uncommitted records, a replay that begins to read before it has fenced the one before.
    """
    settings = job.settings(vendor.destination)
    config = job.write(settings)
    dead_letters = [
        Told(n, single_object(datum_bytes(event(n))), "refused", "4103", DESTINATION, "jiguang") for n in range(20)
    ]
    write_dead_letters(job, dead_letters)
    rows = {row["origin"]["offset"]: row["id"] for row in lines("list", "-c", str(config))}
    headers = job.dead_letters()[0]
    dead = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": f"{job.group}.dlq", "transaction.timeout.ms": 60_000}
    )
    dead.init_transactions(30)
    dead.begin_transaction()
    own = [*headers.headers, *((name, text.encode()) for name, text in headers.own.items())]
    number = int(headers.own["dlq-origin-offset"])
    carried: Any = replayed(own)
    resolved: Any = resolution(rows[number], "replayed", 0)
    dead.produce(f"{job.group}.replay", headers.value, headers.key, headers=carried)
    dead.produce(job.dead_letters_topic, None, headers.key, number % 2, headers=resolved)
    assert dead.flush(30) == 0
    member = job.start(settings)
    assert _replay(config) == (20, 0)
    member.wait(lambda: len(vendor.accepted) >= 20, "all dead letters")
    member.wait(lambda: _backlog(job, config) == 0, "a replay topic that is read out")
    assert vendor.cuids == Counter({FIRST_CUID + number: 1 for number in range(20)})
    assert member.stop() == 0
    assert lines("list", "-c", str(config)) == []


def test_a_record_that_is_refused_each_time_stays_with_its_count(job: Job, vendor: Vendor) -> None:
    """After three refused replays the dead letter keeps its origin and dedup id; there is no automatic fourth."""
    settings = job.settings(vendor.destination)
    config = job.write(settings)
    job.produce([Message(single_object(datum_bytes(event(7, eventName="unknown"))), b"key", (("trace", b"\xff"),), 0)])
    member = job.start(settings)
    first = member.wait(job.dead_letters, "the first dead letter")[0]
    for count in (1, 2, 3):
        assert _replay(config) == (1, 0)
        (row,) = member.wait(
            lambda count=count: [one for one in lines("list", "-c", str(config)) if one["replays"] == count],  # type: ignore[misc]
            "the next refusal",
        )
        assert (row["dedup_id"], row["origin"]["offset"]) == (first.own["dlq-dedup-id"], 0)
        assert row["id"] != first.own["dlq-id"]
    (kept,) = lines("replay", "-c", str(config), "--yes", "--all")
    assert (kept["result"], kept["code"], kept["replays"]) == ("kept", "loop_guard", 3)
    assert [one["replays"] for one in lines("list", "-c", str(config))] == [3]
    (shown,) = lines("show", row["id"], "-c", str(config))
    assert len(shown["history"]) == 4
    assert [one["resolution"] for one in shown["resolutions"]] == ["replayed"] * 3
    exported = json.loads(run_command("dlq", "export", "-", "-c", str(config)).stdout)
    assert [header["name"] for header in exported["headers"]] == ["trace"]
    assert member.stop() == 0
    assert not vendor.accepted


def test_what_would_fail_again_is_kept_back_and_can_be_changed(job: Job, vendor: Vendor) -> None:
    """The rule is shown, --dry-run does nothing, --set fixes the event in its schema, --force sends it unchanged."""
    settings = job.settings(vendor.destination)
    config = str(job.write(settings))
    value = single_object(datum_bytes(event(1, eventName="")))
    ids = write_dead_letters(job, [Told(n, value, "invalid", "x", DESTINATION, "jiguang") for n in range(3)])
    (kept, *_) = rows = lines("replay", "-c", config, "--dry-run", "--all")
    assert [row["result"] for row in rows] == ["kept"] * 3
    assert kept["code"].startswith("jiguang.eventName")
    told = run_command("dlq", "replay", "-c", config, "--yes", "--all")
    assert told.returncode == 0
    assert kept["code"] in told.stdout
    assert "0 dead letters replayed, 3 kept back" in told.stderr
    unasked = run_command("dlq", "discard", "-c", config, "--all")
    assert (unasked.returncode, "pass --yes" in unasked.stderr) == (2, True)

    fix = ("--set", f"eventName={KNOWN_EVENT}", "--set", "properties.page=/fixed")
    by_number = {row["origin"]["offset"]: row["id"] for row in lines("list", "-c", config)}
    (dry,) = lines("replay", by_number[0][:8], "-c", config, "--dry-run", *fix)
    assert dry["result"] == "ready"
    (wrong,) = lines("replay", by_number[0], "-c", config, "--yes", "--set", "cuid=none")
    assert (wrong["result"], wrong["code"]) == ("kept", "edit")
    assert len(lines("list", "-c", config)) == 3

    member = job.start(settings)
    assert _replay(Path(config), by_number[0], *fix) == (1, 0)
    (accepted,) = member.wait(lambda: vendor.accepted, "the fixed event")
    assert (accepted["eventName"], accepted["properties"]["page"]) == (KNOWN_EVENT, "/fixed")
    assert (accepted["cuid"], accepted["randomId"]) == (FIRST_CUID + 1, ids[0])
    assert _replay(Path(config), by_number[1], "--force", "--set", "properties.page=/x") == (1, 0)
    (again,) = member.wait(
        lambda: [one for one in lines("list", "-c", config) if one["replays"] == 1], "the second failure"
    )
    assert (again["dedup_id"], again["edited"], again["code"]) == (ids[1], ["properties.page"], kept["code"])
    assert member.stop() == 0
    assert len(vendor.accepted) == 1


def test_a_destination_alone_takes_its_own_replays_only(job: Job, vendor: Vendor) -> None:
    """`run --destination` reads the base group's replay topic from its start and skips other destinations."""
    settings = job.settings(vendor.destination)
    settings["destinations"]["other"] = vendor.destination
    settings["kafka"]["start"] = "latest"
    settings["routes"] = [{"schema": "connector.events.JiguangUserEvent", "to": [DESTINATION, "other"]}]
    config = job.write(settings)
    value = [single_object(datum_bytes(event(number))) for number in range(4)]
    names = (DESTINATION, "other", "gone", None)
    dead_letters = [Told(n, value[n], "refused", "4103", names[n], "jiguang" if names[n] else None) for n in range(4)]
    write_dead_letters(job, dead_letters)
    assert _replay(config) == (3, 1)
    assert _replay(config, "--where", "destination=gone", "--force") == (1, 0)
    member = job.start(settings, "--destination", DESTINATION)
    member.wait(lambda: len(vendor.accepted) >= 2, "its own dead letter, and the one that was never routed")
    (gone,) = member.wait(lambda: lines("list", "-c", str(config)), "the dead letter of a removed destination")
    assert (gone["destination"], gone["code"], gone["replays"]) == ("gone", "route.destination", 1)
    assert member.stop() == 0
    assert vendor.cuids == Counter([FIRST_CUID, FIRST_CUID + 3])


def test_a_second_replay_takes_over_and_the_first_says_so(job: Job, vendor: Vendor) -> None:
    """Of two at the same time the later one goes on; the earlier ends with 1, in words, and nothing is sent twice."""
    config = job.write(job.settings(vendor.destination))
    value = single_object(datum_bytes(event(1)))
    write_dead_letters(job, [Told(n, value, "refused", "4103", DESTINATION, "jiguang") for n in range(400)])
    command = [*COMMAND, "dlq", "replay", "-c", str(config), "--yes", "--json", "--rate", "50", "--all"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stderr is not None
        begun = first.stdout.readline()
        replayed_later, _ = _replay(config)
        told, error = begun + first.stdout.read(), first.stderr.read()
    assert first.returncode == 1
    assert "another replay or discard" in error
    assert 0 < replayed_later < 400
    assert len(told.splitlines()) + replayed_later == 400
    wait_for(lambda: _open(config) == {}, "all dead letters resolved")


def test_two_replays_at_the_same_moment_send_nothing_twice(job: Job, vendor: Vendor) -> None:
    """Whichever of the two is first, each dead letter is in the replay topic once, and a third replay finds the rest.

    Kills: two that read the same open dead letters and both write them.
    """
    settings = job.settings(vendor.destination)
    config = job.write(settings)
    count = 120
    value = [single_object(datum_bytes(event(number))) for number in range(count)]
    write_dead_letters(job, [Told(n, value[n], "refused", "4103", DESTINATION, "jiguang") for n in range(count)])
    command = [*COMMAND, "dlq", "replay", "-c", str(config), "--yes", "--json", "--rate", "60", "--all"]
    pipes: Any = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:
        told = [process.communicate(timeout=WAIT_SECONDS) for process in (first, second)]
        codes = [first.returncode, second.returncode]
    assert 0 in codes, told
    assert all(code == 0 or "another replay or discard" in error for code, (_, error) in zip(codes, told, strict=True))
    claimed = Counter(json.loads(line)["id"] for out, _ in told for line in out.splitlines())
    assert set(claimed.values()) == {1}
    assert _replay(config) == (count - len(claimed), 0)
    assert _open(config) == {}
    member = job.start({**settings, "kafka": {**settings["kafka"], "start": "latest"}})
    member.wait(lambda: len(vendor.accepted) >= count, "all replays")
    member.wait(lambda: _backlog(job, config) == 0, "a replay topic that is read out")
    assert vendor.cuids == Counter(FIRST_CUID + number for number in range(count))
    assert member.stop() == 0
