"""What each kind of client is configured with, and which topics a selection takes."""

import logging
from typing import Any

import pytest
import structlog.testing
from confluent_kafka import Consumer, KafkaError

from connector.config.loader import KafkaSettings
from connector.errors import StartupError
from connector.kafka import client
from connector.kafka.client import (
    ErrorStates,
    LibrdkafkaLog,
    admin_config,
    construct,
    consumer_config,
    is_incremental,
    producer_config,
    property_faults,
    reader_config,
    start_of,
)
from connector.kafka.topics import TopicSelection


def _settings(start: Any = None, **client: Any) -> KafkaSettings:
    properties = {name.replace("_", "."): value for name, value in client.items()}
    return KafkaSettings(
        topics=["t"], group_id="g", start=start, client={"bootstrap.servers": "localhost:9092", **properties}
    )


def test_the_consumers_promises_are_not_the_users_to_break() -> None:
    """Whatever the user says, offsets are committed by us alone and an offset out of range is never guessed."""
    settings = _settings(enable_auto_commit=True, auto_offset_reset="latest", enable_auto_offset_store=True)
    config = consumer_config(settings, "group", 4 << 20)
    assert (config["enable.auto.commit"], config["enable.auto.offset.store"]) == (False, False)
    assert (config["auto.offset.reset"], config["group.id"]) == ("error", "group")
    assert config["queued.max.messages.kbytes"] == 4096


def test_a_reader_outside_the_group_takes_no_members_identity() -> None:
    """A static member's id is left to the member. Kills: a command that fences the running member of its own name."""
    settings = _settings(group_instance_id="m-0")
    assert consumer_config(settings, "group", 1 << 20)["group.instance.id"] == "m-0"
    assert "group.instance.id" not in reader_config(settings, "group", 1 << 20)


def test_every_property_that_librdkafka_refuses_is_named() -> None:
    """All wrong properties are found in one go, each with its name; a file that is missing is said as such.

    Kills: one fault at each start, until all are found.
    """
    assert list(property_faults(_settings(fetch_min_bytes=1))) == []
    wrong = _settings(
        no_such_property=1, fetch_min_bytes="many", ssl_ca_location="/no/such/file", security_protocol="SSL"
    )
    found = dict(property_faults(wrong))
    assert found.keys() == {"no.such.property", "fetch.min.bytes", "ssl.ca.location"}
    assert found["ssl.ca.location"] == "no such file: /no/such/file"


@pytest.mark.parametrize("config", [{"no.such.property": "1"}, {"on_commit": "no function"}])
def test_a_client_that_cannot_be_made_ends_the_start(config: dict[str, Any]) -> None:
    """What librdkafka or its binding refuses is a fault of `kafka.client`, and no traceback."""
    with pytest.raises(StartupError, match=r"kafka\.client: "):
        construct(Consumer, {"bootstrap.servers": "localhost:9092", "group.id": "g", **config})


def test_the_producer_is_idempotent_whatever_the_user_says() -> None:
    """A duplicate or reordered dead letter is no option."""
    assert producer_config(_settings(enable_idempotence=False))["enable.idempotence"] is True


def test_each_client_gets_what_it_knows() -> None:
    """A property of one kind of client does not reach the others, one that all know reaches all."""
    settings = _settings(
        session_timeout_ms=7000,
        linger_ms=3,
        message_max_bytes=5_000_000,
        sasl_mechanism="PLAIN",
        fetch_wait_max_ms=7,
        queued_min_messages=9,
    )
    consumer, producer, admin = (
        consumer_config(settings, "g", 1 << 20),
        producer_config(settings),
        admin_config(settings),
    )
    assert consumer["session.timeout.ms"] == 7000
    assert (consumer["fetch.wait.max.ms"], consumer["queued.min.messages"]) == (7, 9)
    assert consumer["isolation.level"] == "read_committed"
    assert producer["linger.ms"] == 3
    assert not {"linger.ms"} & consumer.keys()
    assert consumer["message.max.bytes"] <= consumer["fetch.max.bytes"] < producer["message.max.bytes"]
    assert not {"session.timeout.ms", "fetch.wait.max.ms", "isolation.level", "auto.offset.reset"} & producer.keys()
    assert "queued.min.messages" not in producer
    assert not {"session.timeout.ms", "linger.ms"} & admin.keys()
    assert {c["sasl.mechanism"] for c in (consumer, producer, admin)} == {"PLAIN"}


def test_kip_848_gets_no_assignor() -> None:
    """The default assignor is the cooperative one; next to the consumer protocol librdkafka would refuse it."""
    assert consumer_config(_settings(), "g", 1)["partition.assignment.strategy"] == "cooperative-sticky"
    config = consumer_config(_settings(group_protocol="consumer"), "g", 1)
    assert "partition.assignment.strategy" not in config
    assert is_incremental(config)


@pytest.mark.parametrize(("strategy", "incremental"), [("cooperative-sticky", True), ("range,roundrobin", False)])
def test_the_strategy_decides_how_partitions_are_assigned(strategy: str, incremental: bool) -> None:
    """An eager assignor's partitions are assigned as a whole."""
    config = consumer_config(_settings(partition_assignment_strategy=strategy), "g", 1)
    assert is_incremental(config) is incremental


@pytest.mark.parametrize(
    ("settings", "start"),
    [
        (_settings(), "earliest"),
        (_settings("latest"), "latest"),
        (_settings(1_700_000_000_000), 1_700_000_000_000),
        (_settings(auto_offset_reset="end"), "latest"),
        (_settings("earliest", auto_offset_reset="latest"), "earliest"),
    ],
)
def test_where_reading_starts(settings: KafkaSettings, start: str | int) -> None:
    """`kafka.start` decides, then its alias, then the first record."""
    assert start_of(settings) == start


def test_a_start_that_kafka_does_not_know_stops() -> None:
    """`none`, or a typing error, is refused with what is allowed."""
    with pytest.raises(StartupError, match="smallest"):
        start_of(_settings(auto_offset_reset="none"))


def test_a_trouble_ends_where_it_began() -> None:
    """A topic's trouble outlasts the client's, and the other way round."""
    states = ErrorStates("consumer")
    states.report(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "t")
    states.report(KafkaError(KafkaError.NETWORK_EXCEPTION))
    seen = [(states.of_client, bool(states))]
    for topic in (None, "t"):
        states.over(topic)
        seen.append((states.of_client, bool(states)))
    assert seen == [(True, True), (False, True), (False, False)]


@pytest.mark.parametrize(
    ("code", "refused", "down"),
    [
        (KafkaError._ALL_BROKERS_DOWN, False, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, True, False),
        (KafkaError.SASL_AUTHENTICATION_FAILED, True, False),
        (KafkaError._TRANSPORT, False, False),
    ],
)
def test_a_refusal_is_told_from_brokers_that_are_away(code: int, refused: bool, down: bool) -> None:
    """What waiting cannot end is known as such, and that no broker answers; both while they last only."""
    states = ErrorStates("test")
    for _ in range(2):
        states.report(KafkaError(code))
    assert (states.is_refused, states.all_down, len(states.texts)) == (refused, down, 1)
    states.over()
    assert (states.is_refused, states.all_down, bool(states)) == (False, False, False)


def test_a_trouble_that_comes_and_goes_is_counted_and_not_logged() -> None:
    """Twenty times in twenty seconds make two lines; the one that lasts is logged after five seconds, with the count.

    Kills: a line for each change, of a broker that answers every other request.
    """
    time = [100.0]
    states = ErrorStates("consumer", now=lambda: time[0])
    with structlog.testing.capture_logs() as lines:
        for _ in range(20):
            states.report(KafkaError(KafkaError.NETWORK_EXCEPTION))
            time[0] += 0.5
            states.over()
            time[0] += 0.5
        assert [line["event"] for line in lines] == ["kafka.trouble", "kafka.recovered"]
        states.report(KafkaError(KafkaError.NETWORK_EXCEPTION))
        states.report(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "t")
        assert states.of_client
        time[0] += 5.0
        states.settle()
        states.settle()
        states.over()
    shown = [(line["event"], line["topic"], line.get("changes_left_out")) for line in lines[2:]]
    trouble, recovered = "kafka.trouble", "kafka.recovered"
    assert shown == [(trouble, "t", 0), (trouble, None, 19), (recovered, None, None)]


def test_of_several_troubles_the_one_that_says_most_is_told() -> None:
    """A refusal hides behind nothing that comes of it. Kills: the last error in place of the cause."""
    states = ErrorStates("consumer")
    for code in (client.ALL_BROKERS_DOWN, client.AUTHENTICATION, client.TRANSPORT):
        states.report(KafkaError(code, KafkaError(code).name()))
    assert "_AUTHENTICATION" in states.texts[None]


def test_a_pattern_takes_neither_internal_topics_nor_our_own() -> None:
    """A pattern matches from the beginning of a name, as librdkafka's do."""
    selection = TopicSelection(["^user-.*", "^__.*", "plain"], frozenset({"user-x.dead-letters"}))
    known = ["user-events", "a-user-event", "user-x.dead-letters", "__consumer_offsets", "plain"]
    assert selection.matching(known) == {"user-events"}
    assert selection.names == ["plain"]


def test_a_pattern_that_is_no_expression_stops() -> None:
    """The message shows the pattern."""
    with pytest.raises(StartupError, match=r"\^\("):
        TopicSelection(["^("], frozenset())


def test_a_repeated_log_line_is_logged_once_in_a_while() -> None:
    """Dozens of failed connections a second make one line in half a minute; another kind of line is not held back."""
    time = [100.0]
    log = LibrdkafkaLog("consumer", now=lambda: time[0])
    with structlog.testing.capture_logs() as lines:
        for _ in range(50):
            log.log(logging.ERROR, "%s", "FAIL [x]: refused")
        log.log(logging.WARNING, "%s", "GETPID [x]: retrying")
        time[0] += 31
        log.log(logging.ERROR, "%s", "FAIL [x]: still refused")
    assert [(line["log_level"], line["text"]) for line in lines] == [
        ("error", "FAIL [x]: refused"),
        ("warning", "GETPID [x]: retrying"),
        ("error", "FAIL [x]: still refused"),
    ]
