"""Destinations held and set free again, as a person on call sees it: real Kafka, the four vendors side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.accounts import RECORDS, Writer, accounts, contract, envelope
from tests.integration.ended import run_command
from tests.integration.events import FIRST_CUID, Message, datum_bytes, event, good, single_object
from tests.integration.job import DESTINATION, Job, Member, Vendor

COUNT: Final = 300
RETRY: Final = {"retry": {"initial": "200ms", "max": "1s"}}
STORM: Final = 250
"""Half of the last 500 records: so many refused ones, and no more, become dead letters by default."""


def changes(member: Member, name: str) -> list[tuple[str, str | None]]:
    """Return what the log says of a destination's states, the probes left out."""
    return [(line["state"], line["cause"]) for line in member.lines("destination.state") if line["destination"] == name]


@pytest.mark.promise("P6")
def test_a_wrong_credential_at_one_of_four_vendors_harms_none_of_the_others(job: Job, tmp_path: Path) -> None:
    """The one with the wrong secret is held and dead-letters nothing; the others deliver all; a right file frees it.

    The first probe after the file was fixed is accepted. Kills: a held destination that stops intake, a probe that
    signs with the secret of the start, a new secret that is logged.
    """
    secret = tmp_path / "token"
    with accounts() as vendors:
        right = vendors["mytracker"].account["token"]
        secret.write_text("wr0ng-token", encoding="utf-8")
        destinations = {name: {**one, **RETRY} for name, one in vendors.destinations(f"{job.topic}-results").items()}
        destinations["mytracker"]["token"] = f"${{file:{secret}}}"
        job.kafka.create_topic(f"{job.topic}-results")
        write = Writer(contract("Event"))
        job.produce(
            Message(write(envelope(vendor, number)), b"%d" % number) for number in range(COUNT) for vendor in RECORDS
        )
        member = job.start(job.settings({}, destinations=destinations))
        others = [name for name in RECORDS if name != "mytracker"]

        def count(name: str) -> float:
            return member.metric(f'connector_records_delivered_total{{destination="{name}"}}')

        member.wait(lambda: all(count(name) == COUNT for name in others), "the other vendors' records")
        status = member.status()["destinations"]
        assert {name: status[name]["state"] for name in others} == dict.fromkeys(others, "flowing")
        assert status["mytracker"]["cause"] == "misconfigured"
        assert status["mytracker"]["since"]
        assert member.metric('connector_destination_state{destination="mytracker",state="flowing"}') == 0
        assert vendors["mytracker"].accepted == []
        assert job.dead_letters() == []

        secret.write_text(right, encoding="utf-8")
        asked = len(vendors["mytracker"].served)
        job.until_done(member)
        later = [served.verdict for served in vendors["mytracker"].served[asked:]]
        assert later[1:] == ["accepted"] * len(later[1:]), "only a probe that was under way may still be refused"
        assert job.dead_letters() == []
        assert member.wait(
            lambda: member.status()["destinations"]["mytracker"]["state"] == "flowing", "the state flowing"
        )
        assert changes(member, "mytracker") == [("held", "misconfigured"), ("flowing", None)]
        assert member.stop() == 0
        shown = member.text
        assert right not in shown
        assert "wr0ng-token" not in shown


@pytest.mark.promise("P6")
def test_a_storm_of_unknown_events_ends_when_the_vendor_learns_them(job: Job, vendor: Vendor) -> None:
    """95 % of the events are unknown: they are set aside, not drained; the others flow; then all are delivered.

    Kills: a topic drained into the dead-letter topic by one deployment of a producer; a storm that holds good records.
    """
    unknown, known = datum_bytes(event(0, eventName="no_such_event")), good(range(150))
    job.produce(
        known[number // 20] if number % 20 == 0 else Message(single_object(unknown), b"%d" % number)
        for number in range(3000)
    )
    member = job.start(job.settings(vendor.destination))
    status = member.until_held("storm")
    assert status["code"] == "4101"
    assert "storm: off" in status["message"]

    def set_aside() -> int:
        return sum(hold["set_aside"] or 0 for hold in member.destination()["holds"])

    member.wait(lambda: vendor.cuids.total() == 150, "the good events")
    member.wait(lambda: set_aside() >= 2850 - STORM, "all others set aside")
    dead_letters = len(job.dead_letters())
    assert 0 < dead_letters <= STORM
    assert set_aside() == 2850 - dead_letters
    gauge = f'connector_records_set_aside{{cause="refused",destination="{DESTINATION}"}}'
    assert member.metric(gauge) == 2850 - dead_letters
    # But for the record of a probe that is under way.
    member.wait(lambda: member.metric("connector_buffer_bytes") == 0, "an empty buffer")
    served = len(vendor.served)
    member.wait(lambda: len(vendor.served) >= served + 3, "three probes")
    assert {one.records for one in vendor.served[served + 1 :]} == {1}
    assert sum(job.committed().values()) <= 2 * STORM
    vendor.learn("no_such_event")
    job.until_done(member)
    assert vendor.cuids.total() == 3000 - dead_letters
    assert len(job.dead_letters()) == dead_letters
    assert member.destination()["state"] == "flowing"
    assert member.stop() == 0


@pytest.mark.promise("P6")
@pytest.mark.parametrize("kind", ["undecodable", "unrouted", "invalid"])
def test_a_storm_before_the_vendor_lets_good_records_pass_and_is_released(kind: str, job: Job, vendor: Vendor) -> None:
    """What cannot be decoded or routed, or breaks a rule, is set aside; good events pass; a release lets all go.

    Kills: a storm guard for the vendor's refusals only; a release that lets one window go and holds again.
    """
    write = Writer(contract("Event"))
    bad = {
        "undecodable": b"{}",
        "unrouted": write({**envelope("jiguang", 1), "target": "nowhere"}),
        "invalid": single_object(datum_bytes(event(1, eventName=""))),
    }[kind]
    job.produce(Message(bad, b"%d" % number) for number in range(3000))
    given = job.settings(vendor.destination)
    config = job.write(given)
    member = job.start(given)
    status = member.until_held("storm")
    assert status["state"] == "held"
    assert "too many" in status["message"]
    job.produce(good(range(COUNT)))
    member.wait(lambda: vendor.cuids.total() == COUNT, "the good events")
    dead_letters = len(job.dead_letters())
    assert 0 < dead_letters <= STORM
    member.wait(lambda: member.destination()["holds"][0]["set_aside"] == 3000 - dead_letters, "all others set aside")
    released = run_command("release", DESTINATION, "-c", str(config), "--url", f"http://127.0.0.1:{member.port}")
    assert f"{3000 - dead_letters:,} records" in released.stdout
    job.until_done(member)
    assert len(job.dead_letters()) == 3000
    assert member.stop() == 0


def test_an_operator_holds_and_releases_over_the_port(job: Job, vendor: Vendor) -> None:
    """Held by the configuration nothing is sent; `release` sets it free, `hold` holds it again, each said in one line.

    Kills: a probe during an operator's hold, a hold that ends by itself.
    """
    job.produce(good(range(COUNT)))
    given: dict[str, Any] = job.settings({**vendor.destination, "hold": True})
    config = job.write(given)
    member = job.start(given)
    status = member.until_held("operator")
    assert status["next_probe"] is None
    member.wait(lambda: member.metric("connector_buffer_bytes") > 0, "records that wait")
    assert vendor.served == []
    url = f"http://127.0.0.1:{member.port}"
    assert run_command("release", DESTINATION, "-c", str(config), "--url", url).returncode == 0
    job.until_done(member)
    assert run_command("hold", DESTINATION, "-c", str(config), "--url", url).returncode == 0
    member.until_held("operator")
    job.produce(good(range(COUNT, 2 * COUNT)))
    member.wait(lambda: member.metric("connector_buffer_bytes") > 0, "records that wait")
    assert vendor.cuids.total() == COUNT
    assert run_command("release", DESTINATION, "-c", str(config), "--url", url).returncode == 0
    job.until_done(member)
    assert vendor.cuids == dict.fromkeys((FIRST_CUID + number for number in range(2 * COUNT)), 1)
    assert member.stop() == 0
    assert changes(member, DESTINATION) == [("held", "operator"), ("flowing", None)] * 2
