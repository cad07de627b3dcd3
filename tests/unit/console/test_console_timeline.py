"""The timeline shows each event once, as a sentence; odd events neither break it nor hide others."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.console.timeline import DAY, Chronicle, as_happening, read_event, read_events
from connector.telemetry.timeline import EVENTS
from tests.unit.console.console_site import Site, running

AT = "2026-11-29T04:00:00.000+00:00"


def event(name: str, **fields: Any) -> dict[str, Any]:
    """Return an event as a member gives it."""
    return {"id": f"r-{name}", "at": AT, "member": "pod-1:8080", "event": name, "level": "info", **fields}


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (
            event(
                "destination.state", destination="jg", state="held", cause="outage", code="http_500", message="HTTP 500"
            ),
            "bad",
            "jg is held: outage http_500",
        ),
        (event("destination.state", destination="jg", state="flowing", was="held"), "good", "jg delivers again"),
        (
            event("storm.began", destination="jg", cause="refused", code="4103", dead_letters=250),
            "bad",
            "250 dead letters",
        ),
        (event("storm.released", destination="jg", records=1), "warn", "1 record set aside"),
        (event("partitions.lost", partitions=["t[0]", "t[1]"]), "bad", "Rebalance: 2 partitions lost"),
        (event("record.skip_by_operator", topic="t", partition=1, offset=7, state="skipped"), "warn", "Skip of t[1]@7"),
        (event("replay.read", records=9), "calm", "9 replayed records read"),
        (
            event("console.action_ended", action="replay", who="Noor (10.0.0.1)", done=3),
            "calm",
            "replay 3 dead letters",
        ),
        (event("connector.started", version="0.1.0"), "calm", "Member started"),
        (event("config.reload_failed", message="kafka: wrong"), "bad", "Configuration not read again"),
        (event("some.new.event"), "calm", "some.new.event"),
        (event("storm.released"), "calm", "storm.released"),
    ],
)
def test_events_are_told_in_words(given: dict[str, Any], kind: str, said: str) -> None:
    """What it was, where, how many. One of another version, or without its fields, is shown by its name."""
    found = read_event(given)
    assert found is not None
    happening = as_happening(found)
    assert (happening.kind, happening.member) == (kind, "pod-1:8080")
    assert said in f"{happening.title} {happening.detail}"


def test_every_event_of_a_member_has_words() -> None:
    """No event that members keep is shown by its bare name."""
    bare = {name for name in EVENTS if (found := read_event(event(name))) and as_happening(found).title == name}
    assert bare <= {"destination.state", "storm.began", "storm.released", "replay.read"}, "those need their fields"


def test_an_event_of_two_sources_is_told_once_and_forgotten_after_a_day() -> None:
    """The member's ring and the topic hold the same event. Kills: an event that appears twice; a list without end."""
    chronicle, found = Chronicle(), read_events([event("connector.started"), event("partitions.assigned")])
    now = found[0].at + 60
    chronicle.add(found, now)
    chronicle.add(read_events({"events": [event("connector.started")]}), now)
    assert len(chronicle.happenings()) == 2
    chronicle.add([], now + DAY)
    assert chronicle.happenings() == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(EVENTS)),
    st.dictionaries(
        st.sampled_from(
            [
                "destination",
                "state",
                "cause",
                "records",
                "partitions",
                "message",
                "applied",
                "left",
                "done",
                "who",
                "at",
                "id",
            ]
        ),
        json_values,
        max_size=6,
    ),
)
@example("storm.ended", {"records": float("inf")})
@example("storm.released", {"records": float("-inf")})
def test_no_event_breaks_the_timeline(name: str, fields: dict[str, Any]) -> None:
    """Any program may answer on a member's address, or write into the topic."""
    for found in read_events([{**event(name), **fields}, fields, name]):
        assert isinstance(as_happening(found).title, str)


async def test_the_pages_show_what_happened() -> None:
    """On the overview the newest, on its own page all; both escaped. Kills: an event that becomes markup."""
    site = Site([])
    async with running(site), aiohttp.ClientSession() as browser:
        now = site.console._state.clock.wall()
        evil = {**event("config.reload_failed", message="<script>x</script>"), "at": "2999-01-01T00:00:00+00:00"}
        site.console._state.chronicle.add(read_events([evil]), now)
        for path in ("/", "/timeline"):
            async with browser.get(site.url + path) as answer:
                text = await answer.text()
            assert "Configuration not read again" in text
            assert "<script>x" not in text
