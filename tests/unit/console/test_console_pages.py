"""What the pages show: which state needs a person, what the members report, and what an address asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from connector.console.advice import CAUSES, CommandOptions, for_cause, for_destination
from connector.console.charts import Chart, bar_chart, line_chart
from connector.console.columns import NAMES, DeadLetterRow
from connector.console.dead_letter_detail import Found, detail_view
from connector.console.dead_letter_list import Listing, ListRow, ListView, list_view
from connector.console.formatting import ago, duration, short
from connector.console.index import KindCount, Query, TimeBuckets
from connector.console.links import Links
from connector.console.masking import Mask
from connector.console.member_pages import members_view, release_question
from connector.console.members import (
    DestinationView,
    MemberResponse,
    counts,
    destinations,
    growth,
    read_response,
    seconds,
)
from connector.console.overview import DeadLetterSummary, Figure, Situation, overview_view
from connector.console.queries import query_fields, read_order, read_page_number, read_query
from connector.console.rendering import Page, render
from connector.console.sampling import DAY, PartitionBacklog, RateSample, SampleHistory
from connector.delivery.states import Cause, DestinationState
from connector.telemetry.metrics import Metrics

NOW = 1_700_000_000.0
PAGE = Page("growth", NOW, "csrf", None)
NOTHING = DeadLetterSummary((), TimeBuckets(0, 1000, {}), 0)


def situation(*responses: MemberResponse, names: tuple[str, ...] = ("jg",), **more: Any) -> Situation:
    """Return what the first page is built from, with some members' responses."""
    found = destinations(names, responses)
    given: dict[str, Any] = {"samples": [], "interval": 5.0, "range": "24h", "dead_letters": NOTHING, "sampled_at": NOW}
    return Situation(NOW, found, {"jg": "jiguang"}, responses, **{**given, **more})


def first_page(at: Situation) -> str:
    """Return the first page as HTML."""
    return render("overview.html", PAGE, overview_view(at))


def reported(state: str, **more: Any) -> dict[str, Any]:
    """Return what /status reports of a destination."""
    return {"state": state, "cause": None, "code": None, "message": None, "since": None, "next_probe": None, **more}


def member(address: str = "http://a", **found: dict[str, Any]) -> MemberResponse:
    """Return a member's response."""
    return read_response(address, {"destinations": found})


@pytest.mark.parametrize("cause", list(Cause))
def test_each_hold_says_what_to_do(cause: Cause) -> None:
    """Whatever holds a destination, the page shows in words what it means, since when, and what to do."""
    hold = reported("held", cause=str(cause), code="2002", message="no entry", since="2023-11-14T20:13:20+00:00")
    text = unescape(re.sub("<[^>]*>", "", first_page(situation(member(jg=hold)))))
    advice = for_destination(DestinationView("jg", "held", str(cause)), 0)
    assert f"jg is held ({cause}) since 20:13 UTC, for 2 h" in text
    for part in ("What to do", advice.meaning, advice.action, "no entry", "2002"):
        assert part in text
    assert advice.action != "Read the message."


def test_every_state_and_cause_of_the_connector_is_known() -> None:
    """No state and no documented cause of a dead letter is without words."""
    for state in DestinationState:
        assert for_destination(DestinationView("jg", str(state), "outage"), 0).action
    documented = [
        "decode",
        "route",
        "invalid",
        "refused",
        "too_large",
        "expired",
        "gave_up",
        "unknown_outcome",
        "operator",
        "internal",
    ]
    assert sorted(CAUSES) == sorted(documented)
    assert for_cause("of another release").action


def test_the_worst_state_of_all_members_counts() -> None:
    """One member's hold is the destination's, with how many are in it, and the earliest time."""
    hold = reported("held", cause="outage", since="2023-11-14T20:00:00+00:00")
    later = reported("held", cause="outage", since="2023-11-14T21:00:00+00:00")
    answers = [
        member("http://a", jg=reported("flowing", in_flight=2)),
        member("http://b", jg=later),
        member("c", jg=hold),
    ]
    (found,) = destinations(["jg"], answers)
    assert (found.state, found.affected, found.members, found.in_flight) == ("held", 2, 3, 2)
    assert found.since == 1_699_992_000.0
    assert [each.state for each in destinations(["jg", "mt"], [])] == ["unknown", "unknown"]


def test_members_that_do_not_answer_are_shown() -> None:
    """If no member answers, that is the headline; if only some do, it is a line."""
    silent = MemberResponse("http://b", trouble="connection refused")
    alone = first_page(situation(silent))
    assert "No member is reachable" in alone
    assert "connection refused" in alone
    some = first_page(situation(member(jg=reported("flowing")), silent))
    assert "<h1>1 of 2 members does not answer</h1>" in some
    assert "No answer from http://b: connection refused" in some


DOWN = {"ok": False, "reasons": ["broker: all brokers are down"]}
OWNED = [{"topic": "orders", "partition": 1, "watermark": 7, "position": 9, "map_used": 0.25}]
WAITS = {
    "topic": "orders",
    "partition": 1,
    "offset": 1204,
    "since": "2023-11-14T20:13:20+00:00",
    "attempts": 9,
    "reason": "HTTP 500",
}


def verdict(at: Situation) -> tuple[str, str]:
    """Return the colour of the first sentence, and the sentence."""
    found = overview_view(at).verdict
    return found.kind, found.headline


def status(partitions: Any = OWNED, **found: dict[str, Any]) -> dict[str, Any]:
    """Return a whole /status."""
    return {"destinations": found, "partitions": partitions}


def test_page_is_not_green_while_kafka_is_down() -> None:
    """Destinations that still say that they deliver are no good news while nothing can be read.

    Kills: a verdict that looks at destinations only.
    """
    flowing = status(jg=reported("flowing"))
    ready = read_response("http://a", flowing, ready={"ok": True, "reasons": []})
    unready = read_response("http://b", flowing, ready=DOWN)
    assert verdict(situation(ready)) == ("good", "jg delivers")
    down = situation(unready, kafka_trouble="no broker answers")
    assert verdict(down) == ("bad", "Kafka is not reachable: nothing is delivered")
    assert "all brokers are down" in first_page(down)
    assert verdict(situation(ready, unready)) == ("bad", "1 of 2 members is not ready")
    assert verdict(situation(ready, kafka_trouble="no broker answers"))[0] == "warn"


def test_destinations_do_not_flow_while_no_member_reads() -> None:
    """While Kafka is down or refuses, each row says so, the headline what to do, and a reachable member is enough."""
    flowing = status(jg=reported("flowing"))
    down = situation(read_response("http://a", flowing, ready=DOWN))
    assert [(row.state, row.kind) for row in overview_view(down).rows] == [("stopped", "warn")]
    assert "Check the brokers" in overview_view(down).verdict.detail
    refused = situation(read_response("http://a", flowing, "connector_kafka_refused 1.0\n", DOWN))
    assert verdict(refused) == ("bad", "Kafka refuses the connector: nothing is delivered")
    ready = read_response("http://b", flowing, ready={"ok": True, "reasons": []})
    both = situation(read_response("http://a", flowing, ready=DOWN), ready)
    assert [row.state for row in overview_view(both).rows] == ["flowing"]


def test_page_is_not_green_while_nothing_reports_a_destination() -> None:
    """A destination that no member reports, and a group without a member, are no delivery."""
    lone = situation(read_response("http://a", status(jg=reported("flowing"))), names=("jg", "new"))
    assert verdict(lone) == ("warn", "new is not reported by any member")
    assert verdict(situation()) == ("bad", "No member is reachable")


def test_page_is_not_green_while_a_ready_member_has_trouble() -> None:
    """A topic that cannot be read, or dead letters that cannot be written, stop records while the member is ready."""
    reasons = ["dead letters cannot be written to growth.dead: unknown topic", "topic orders: not authorized"]
    ready = read_response("http://a", status(jg=reported("flowing")), ready={"ok": True, "reasons": reasons})
    found = overview_view(situation(ready)).verdict
    assert (found.kind, found.headline) == ("bad", "Dead letters cannot be written to growth.dead")
    assert "unknown topic" in found.detail
    assert "Also: Topic orders cannot be read." in found.detail
    shown = {"ok": True, "reasons": ["no partitions: other members of the group have all of them"]}
    assert verdict(situation(read_response("http://a", status(jg=reported("flowing")), ready=shown)))[0] == "good"


def test_holds_of_members_in_other_states_are_listed() -> None:
    """The hold of a member that probes is not lost next to another member's hold of another cause."""
    held = reported("held", cause="outage", holds=[{"cause": "outage"}])
    probing = reported("probing", cause="misconfigured", holds=[{"cause": "misconfigured", "code": "401"}])
    (found,) = destinations(["jg"], [member(jg=held), member("http://b", jg=probing)])
    assert [hold.cause for hold in found.holds] == ["outage", "misconfigured"]


def test_other_records_are_not_called_delivered_beside_a_hold() -> None:
    """Beside a record that waits alone, others are delivered only where nothing else stops them."""
    said = "Other records are delivered."
    waiting = status(jg=reported("retrying", waiting=[WAITS]))
    assert first_page(situation(read_response("http://a", waiting))).count(said) == 2
    assert said not in first_page(situation(read_response("http://a", waiting, ready=DOWN)))
    held = status(jg=reported("held", cause="outage", waiting=[WAITS]))
    assert said not in first_page(situation(read_response("http://a", held)))


def test_full_buffer_is_not_called_delivery() -> None:
    """Where a held destination's records fill the buffer, or Kafka is down, the others do not continue."""
    found = status(jg=reported("held", cause="outage"), qa=reported("flowing"))
    full = {**found, "buffer": {"used": 9, "limit": 9, "filled_by": "jg"}}
    detail = overview_view(situation(read_response("http://a", full), names=("jg", "qa"))).verdict.detail
    assert "The buffer is full of records of jg: other destinations wait too." in detail
    assert "continues" not in detail
    assert "continues" in overview_view(situation(read_response("http://a", found), names=("jg", "qa"))).verdict.detail


def test_page_that_gets_no_samples_says_that_it_is_old() -> None:
    """A sample of minutes ago says nothing about now."""
    assert verdict(situation(member(jg=reported("flowing")), sampled_at=NOW - 300)) == ("bad", "This page is 5 min old")


def test_members_without_partitions_are_shown() -> None:
    """A group that owns nothing reads nothing; one member without partitions next to others stands by."""
    idle = read_response("http://a", status([], jg=reported("flowing")))
    busy = read_response("http://b", status(jg=reported("flowing")))
    assert verdict(situation(idle)) == ("bad", "No member owns a partition: nothing is read")
    both = situation(idle, busy)
    assert verdict(both) == ("good", "jg delivers")
    assert "1 member owns no partition and stands by." in first_page(both)


def test_worst_problem_comes_first_and_names_the_others() -> None:
    """Of several troubles at once the headline is the worst, and the others are named after it."""
    held = reported("held", cause="misconfigured")
    waiting = reported("flowing", waiting=[WAITS])
    at = situation(
        read_response("http://a", status(jg=held, mt=waiting), ready=DOWN),
        names=("jg", "mt"),
        kafka_trouble="no broker answers",
    )
    found = overview_view(at).verdict
    assert found.headline == "Kafka is not reachable: nothing is delivered"
    assert "Also: jg is held (misconfigured); 1 record of mt waits alone, for 2 h." in found.detail


def test_a_held_destination_comes_before_a_member_that_is_gone() -> None:
    """What delivers nothing is worse than what others take over."""
    gone = MemberResponse("http://b", trouble="connection refused")
    found = overview_view(situation(member(jg=reported("held", cause="outage")), gone)).verdict
    assert (found.kind, found.headline) == ("bad", "jg is held (outage)")
    assert "Also: 1 of 2 members does not answer." in found.detail


def test_a_configuration_that_could_not_be_read_again_is_in_the_headline() -> None:
    """The page is not green while a member runs with an older configuration than its file."""
    fault = {"message": "The configuration has 1 fault:\nroutes[0].to: is required (line 9)", "since": SINCE}
    answer = read_response("http://a", status(jg=reported("flowing")) | {"config_fault": fault})
    found = overview_view(situation(answer)).verdict
    assert (found.kind, found.headline) == ("warn", "The configuration is faulty: 1 member keeps the old one")
    assert found.detail.startswith("Run connector check, correct the file, then connector reload.")
    assert "routes[0].to: is required (line 9)." in found.detail
    assert found.since == seconds(SINCE)
    assert "(1)" not in first_page(situation(answer)).partition("</title>")[0], "no destination is ill"


def test_commands_have_what_they_need_to_reach_the_same_members() -> None:
    """A console that was started for other members or another file shows commands for these; `run` asks no member."""
    held = situation(member(jg=reported("held", cause="outage"), mt=reported("flowing", waiting=[WAITS])))
    options = CommandOptions("my prod.yaml", ("http://10.0.0.7:8080",))
    page = unescape(render("overview.html", replace(PAGE, options=options), overview_view(held)))
    assert "connector probe jg -c 'my prod.yaml' --url http://10.0.0.7:8080</pre>" in page
    assert "connector skip orders 1 1204 --destination mt -c 'my prod.yaml' --url http://10.0.0.7:8080</pre>" in page
    assert options.added_to("connector run") == "connector run -c 'my prod.yaml'"


SINCE = "2023-11-14T20:13:20+00:00"


def test_since_when_a_member_is_not_ready_outlasts_the_console() -> None:
    """A member knows since when it is not ready; of one that cannot be asked the page says that it may be longer."""
    down = read_response("http://a", status(jg=reported("flowing")) | {"unready_since": SINCE}, ready=DOWN)
    page = first_page(situation(down))
    assert "20:13" in page.partition("</h1>")[0]
    assert "at least" not in page
    gone = MemberResponse("http://b", trouble="connection refused", ill_since=NOW - 60, ill_before=True)
    headline = unescape(re.sub("<[^>]+>", "", first_page(situation(gone)).partition("<h1>")[2].partition("</h1>")[0]))
    assert headline.startswith("No member is reachable since before "), headline
    assert headline.endswith("for at least 1 min"), headline


def test_record_that_waits_alone_keeps_its_place() -> None:
    """The page shows where it is, since when, how often, why, and the command to skip it; also next to a hold.

    Kills: a record that is shown only while the destination's own message is about it.
    """
    for state in ("flowing", "held"):
        cause = "outage" if state == "held" else None
        destination = reported(state, cause=cause, message="HTTP 502", waiting=[WAITS])
        text = first_page(situation(read_response("http://a", status(jg=destination))))
        for part in (
            "orders[1]@1204",
            "9 attempts",
            "HTTP 500",
            "connector skip orders 1 1204 --destination jg",
            "/members/confirm?action=skip&amp;destination=jg&amp;topic=orders&amp;partition=1&amp;offset=1204",
        ):
            assert part in text, (state, part)
    alone = situation(read_response("http://a", status(jg=reported("flowing", waiting=[WAITS]))))
    assert verdict(alone) == ("warn", "1 record of jg waits alone, for 2 h")


def test_every_hold_has_its_own_time_cause_and_probe() -> None:
    """Two holds are two blocks with their own advice, and the same hold of two members is one.

    Kills: a page that shows the destination's worst hold only.
    """
    wrong = {"cause": "misconfigured", "code": "2002", "message": "no such key", "since": "2023-11-14T20:13:20+00:00"}
    storm = {
        "cause": "storm",
        "code": "4103",
        "message": "90 % refused",
        "since": "2023-11-14T22:03:20+00:00",
        "next_probe": "2023-11-14T22:14:20+00:00",
        "set_aside": 250,
    }
    one = reported("held", cause="misconfigured", holds=[wrong, storm])
    other = reported("held", cause="storm", holds=[{**storm, "set_aside": 50}])
    at = situation(read_response("http://a", status(jg=one)), read_response("http://b", status(jg=other)))
    (destination,) = at.destinations
    assert [(hold.cause, hold.set_aside, hold.members) for hold in destination.holds] == [
        ("misconfigured", None, 1),
        ("storm", 300, 2),
    ]
    text = first_page(at)
    for part in (
        "no such key",
        "90 % refused",
        "300 records",
        "connector release jg",
        "in 1 min",
        " · 2 h",
        " · 10 min",
    ):
        assert part in text
    assert "held (misconfigured, storm)" in text
    question = release_question(destination)
    assert "300 records that were set aside are sent again." in " ".join(question.meaning)


def test_older_member_without_holds_still_shows_its_hold() -> None:
    """A member of an earlier version reports one cause and no list."""
    (destination,) = destinations(["jg"], [member(jg=reported("held", cause="outage", code="500"))])
    assert [(hold.cause, hold.code) for hold in destination.holds] == [("outage", "500")]


def test_members_page_shows_every_partition_with_its_owner() -> None:
    """Owned or not, a partition is a row; members show readiness, version, memory and how long they run."""
    metrics = "process_resident_memory_bytes 9.437184e+07\nprocess_start_time_seconds 1.69999280e+09\n"
    report = {**status(jg=reported("flowing", waiting=[WAITS])), "version": "1.2.3"}
    response = read_response("http://a", report, metrics, {"ok": True, "reasons": []})
    kafka = {("orders", 0): PartitionBacklog(5, 12, 7.0), ("orders", 1): PartitionBacklog(7, 9, 2.0)}
    links = Links(
        {"topic": "https://kafka.example.com/{topic}", "partition": "https://k.example.com/{topic}/{partition}"}
    )
    view = members_view([response], destinations(["jg"], [response]), kafka, {"http://a": 12.0}, links, NOW)
    text = render("members.html", PAGE, view)
    assert [(row.name, row.owner, row.end) for row in view.partitions] == [
        ("orders[0]", "", "12"),
        ("orders[1]", "http://a", "9"),
    ]
    for part in (
        "1.2.3",
        "90 MiB",
        "2 h",
        "25%",
        "orders[1]@1204 for jg",
        "HTTP 500",
        "https://k.example.com/orders/0",
    ):
        assert part in text


def test_link_is_filled_in_and_nothing_else() -> None:
    """A topic's name cannot leave its place in an address, and a template cannot reach into the program."""
    links = Links({"record": "https://k.example.com/{topic}/{partition}?at={offset}&x={topic.__class__}"})
    assert links.record("a/b?c", 3, 9) == "https://k.example.com/a%2Fb%3Fc/3?at=9&x={topic.__class__}"
    assert Links({}).record("a", 3, 9) is None


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_no_answer_of_a_member_breaks_the_page(destination: dict[str, Any]) -> None:
    """Whatever another program answers on a configured address, the page is drawn."""
    for status in ({"destinations": {"jg": destination}}, {"destinations": destination}, destination):
        assert "growth" in first_page(situation(read_response("http://a", status)))


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "99999999999999999999", "1e400", "x", "0x1p3"])
def test_a_count_that_is_none_is_left_out(value: str) -> None:
    """A sample that is not a finite number from 0 on changes no total, and the pages after it are drawn.

    Kills: a NaN that is summed up and cannot be rounded on any page for an hour.
    """
    metrics = f'connector_partition_lag{{topic="events"}} {value}\nconnector_partition_lag{{topic="events"}} 3\n'
    assert counts(metrics) == {("connector_partition_lag", "events"): 3.0}
    status = {"destinations": {"jg": reported("flowing", in_flight=float("nan"))}}
    response = read_response("http://a", status, metrics)
    samples = [RateSample(NOW, {"events": sum(response.counts.values())})]
    assert "jg delivers" in first_page(situation(response, samples=samples))


def test_counters_are_read_as_the_connector_writes_them() -> None:
    """What /metrics writes of the connector's own registry is read, also with names that hold quotes and braces."""
    metrics = Metrics()
    name = 'a"b\\c}\nd'
    metrics.records_delivered.labels(name).inc(7)
    metrics.partition_lag.labels("events", "0").set(3)
    metrics.partition_lag.labels("events", "1").set(4)
    found = counts(metrics.render().decode())
    assert found["connector_records_delivered_total", name] == 7
    assert found["connector_partition_lag", "events"] == 7


def test_growth_survives_a_restart() -> None:
    """A counter that fell restarted; a member seen for the first time has no growth."""
    assert growth({}, {("a", ""): 5.0}) == {}
    assert growth({("a", ""): 5.0}, {("a", ""): 7.0, ("b", ""): 1.0}) == {("a", ""): 2.0, ("b", ""): 1.0}
    assert growth({("a", ""): 5.0}, {("a", ""): 2.0}) == {("a", ""): 2.0}


@given(st.integers(1, 4000), st.sampled_from([1.0, 5.0, 60.0]))
def test_a_day_of_samples_is_kept_in_bounded_memory(number: int, interval: float) -> None:
    """However long it runs, the history holds a day at most, in the order of time, the newest always in it."""
    history = SampleHistory(interval)
    for at in range(number):
        history.add(RateSample(NOW + at * interval, {"t": at}))
    found = history.since(NOW + number * interval - DAY)
    assert [sample.at for sample in found] == sorted(sample.at for sample in found)
    assert found[-1] is history.last
    assert len(found) <= 3600 / interval + 2 + 1442


queries = st.builds(
    Query,
    st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, st.text(max_size=6).map(str.strip).filter("*".__ne__))).map(
        lambda where: tuple(where.items())
    ),
    st.none() | st.text(min_size=1, max_size=6).map(str.strip).filter(bool),
    st.none() | st.integers(0, 4_000_000_000_000),
    st.none() | st.integers(0, 4_000_000_000).map(lambda seconds: seconds * 1000 + 999),
    st.booleans(),
    st.frozensets(st.text(min_size=1, max_size=9), max_size=3),
)


@given(queries)
def test_a_query_comes_back_from_its_own_address(query: Query) -> None:
    """What a link or a form carries means the same dead letters when it is read."""
    read = read_query(MultiDict(query_fields(query)), NOW)
    assert (sorted(read.where), read.key, read.since, read.until, read.resolved, read.ids) == (
        sorted(query.where),
        query.key,
        query.since,
        query.until,
        query.resolved,
        query.ids,
    )


@pytest.mark.parametrize(
    "given", [{"since": "yesterday"}, {"until": "2026"}, {"since": "12:00"}, {"since": "9" * 400 + "d"}]
)
def test_a_time_that_means_nothing_is_refused(given: dict[str, str]) -> None:
    """A filter that cannot be read is refused with what is allowed, not ignored."""
    with pytest.raises(ValueError, match="a time must be like"):
        read_query(MultiDict(given), NOW)


def test_orders_are_read_with_their_options() -> None:
    """Edits, rate, force and the loop guard come from the form; nonsense is refused."""
    given = MultiDict({"edits": "a.b=c=d\n\n e = f\n", "rate": "50", "force": "1", "max_replays": "7"})
    order = read_order(given, Query())
    assert [tuple(edit) for edit in order.edits] == [("a.b", "c=d"), ("e", " f")]
    assert (order.rate, order.force, order.max_replays) == (50.0, True, 7)
    for wrong in ({"edits": "nonsense"}, {"rate": "-1"}, {"rate": "nan"}, {"max_replays": "0"}):
        with pytest.raises(ValueError, match="field=value|from 0 on|1 or more"):
            read_order(MultiDict(wrong), Query())
    assert [read_page_number({"page": text}) for text in ("2", "0", "-1", "x", "9" * 20, "²")] == [2, 1, 1, 1, 1, 1]


@given(st.text(), st.text())
def test_no_text_becomes_markup(text: str, value: str) -> None:
    """Whatever a view model puts into an element or an attribute comes back as that text and nothing else."""
    row = ListRow(value, NOW, text, value, text, "", value, text, 0, "open")
    view = ListView(None, [], [], [(text, value)], False, None, [], [row], 1, [], "", "", None, None)
    made = render("dead_letters.html", PAGE, view)
    hidden = re.search(r'<input type="hidden" name="([^"]*)" value="([^"]*)">\n<label class="tick">', made)
    key = re.search(r'<td class="key">([^<]*)</td>\n  <td class="message">([^<]*)</td>', made)
    assert hidden is not None
    assert key is not None
    assert [unescape(each) for each in (*hidden.groups(), *key.groups())] == [text, value, value, text]


def drawn(chart: Chart) -> str:
    """Return a chart as SVG."""
    figure = Figure("x", "1", "y", chart, [])
    view = replace(overview_view(situation(member(jg=reported("flowing")))), figures=[figure])
    return render("overview.html", PAGE, view)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e12)), max_size=20),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=20),
)
def test_plots_stay_in_their_frame(points: list[tuple[float, float]], bins: list[int]) -> None:
    """No point, bar or label lies outside, whatever the values."""
    plot = line_chart({"a": sorted(points)}, 0.0, 1e6, label="x", gap=1e5)
    bars = bar_chart(TimeBuckets(0, 1000, {"refused": bins}), ["refused"], 1000 * len(bins), href=None)
    for chart, width, height in ((plot, 560, 170), (bars, 760, 130)):
        markup = drawn(chart)
        assert "nan" not in markup
        for name, most in (("x", width), ("y", height), ("x1", width), ("y1", height)):
            assert all(0 <= float(number) <= most for number in re.findall(rf' {name}="(-?[\d.e+]+)"', markup))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (7800, "2 h 10 min"), (90000, "1 d 1 h")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    """Two units at most, the largest first."""
    assert duration(seconds) == text


def test_numbers_and_times_read_well() -> None:
    """Axes are short, and times are ago or ahead."""
    assert [short(number) for number in (0, 0.5, 12, 1500, 2_400_000)] == ["0", "0.5", "12", "1.5k", "2.4M"]
    assert [ago(NOW - 125, NOW), ago(NOW + 30, NOW), ago(NOW, NOW)] == ["2 min ago", "in 30 s", "now"]


def test_the_vendors_code_is_explained_in_the_list_and_in_full() -> None:
    """A dead letter of an older version, without our words in its message, is shown with them, and the vendor's text.

    Kills: pages that leave a reader with a code and a text in the vendor's language.
    """
    row = DeadLetterRow(
        "id", 0, "refused", "4101", "jg", "t", "", "jiguang", None, "code 4101: 不存在", 0, "open", 0, (0, 0)
    )
    listed = list_view(Listing(Query(), [row], 0, 1, {}, None), Mask(())).rows[0].message
    shown = detail_view(Found(row, None, None, None, ()), Mask(())).message
    words = "4101: The event does not exist at Jiguang. Create it there or correct eventName. The vendor's text: 不存在"
    assert (listed, shown) == (words, words)


def test_kinds_lead_to_their_dead_letters() -> None:
    """A kind's number links to exactly its dead letters, also without code and destination."""
    kind = KindCount("route", "", "", 3, int(NOW * 1000), int(NOW * 1000))
    dead_letters = DeadLetterSummary((kind,), TimeBuckets(int(NOW * 1000), 1000, {"route": [3]}), 3)
    text = first_page(situation(member(jg=reported("flowing")), dead_letters=dead_letters))
    (href,) = re.findall(r'href="/dead-letters\?(cause=[^"]*)"', text)
    pairs = [part.split("=") for part in unescape(href).split("&")]
    assert read_query(MultiDict([(name, value) for name, value in pairs]), NOW).where == (
        ("cause", "route"),
        ("code", ""),
        ("destination", ""),
    )
