"""librdkafka's errors about a broker that it cannot use, distinguished by the texts of librdkafka 2.16."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from connector.kafka.client import ALL_BROKERS_DOWN, AUTHENTICATION, SSL, TRANSPORT, explained, is_final, says_more

PASSWORD = KafkaError(
    AUTHENTICATION, "SASL authentication error: Authentication failed during authentication due to invalid credentials"
)
AUTHORITY = KafkaError(SSL, "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed")
CERTIFICATE = KafkaError(
    TRANSPORT, "Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116"
)
TOKEN = 'Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client"}'
ENDPOINT_DOWN = KafkaError(
    AUTHENTICATION,
    "Failed to acquire SASL OAUTHBEARER token: Failed to connect to idp:443: Could not connect to server",
)
REFUSED = KafkaError(TRANSPORT, "Connect to ipv4#127.0.0.1:9092 failed: Connection refused")
CLOSED = KafkaError(TRANSPORT, "Disconnected: connection closed by peer: receive 0 after POLLIN")
ALL_DOWN = KafkaError(ALL_BROKERS_DOWN, "1/1 brokers are down")


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (PASSWORD, True),
        (AUTHORITY, True),
        (CERTIFICATE, True),
        (KafkaError(AUTHENTICATION, TOKEN), True),
        (ENDPOINT_DOWN, False),
        (REFUSED, False),
        (CLOSED, False),
        (ALL_DOWN, False),
    ],
)
def test_a_refusal_is_told_from_an_outage(error: KafkaError, final: bool) -> None:
    """What only another configuration fixes ends a start; a network or a token endpoint that is down is waited for."""
    assert is_final(error) is final


def test_the_error_that_says_most_is_shown() -> None:
    """A refusal is shown before a broken connection, and that before the news that all brokers are down."""
    assert says_more(PASSWORD, REFUSED)
    assert not says_more(REFUSED, PASSWORD)
    assert says_more(REFUSED, ALL_DOWN)
    assert not says_more(ALL_DOWN, REFUSED)
    assert says_more(ALL_DOWN, None)


@pytest.mark.parametrize(
    ("error", "client", "names"),
    [
        (PASSWORD, {"security.protocol": "SASL_SSL"}, "sasl.password"),
        (CERTIFICATE, {"security.protocol": "SSL"}, "ssl.certificate.location"),
        (ENDPOINT_DOWN, {"security.protocol": "SASL_SSL"}, "sasl.oauthbearer"),
        (CLOSED, {}, "security.protocol"),
        (ALL_DOWN, {"security.protocol": "sasl_plaintext"}, "security.protocol"),
    ],
)
def test_the_likely_setting_is_named(error: KafkaError, client: dict[str, str], names: str) -> None:
    """An error that one property explains says which."""
    assert names in explained(error, client)


@pytest.mark.parametrize(("error", "client"), [(REFUSED, {}), (ALL_DOWN, {"security.protocol": "SSL"})])
def test_a_broker_that_is_just_not_there_gets_no_advice(error: KafkaError, client: dict[str, str]) -> None:
    """Nothing is guessed where the error itself says enough."""
    assert ";" not in explained(error, client)
