"""What librdkafka says of a broker it cannot use: whether waiting may help, which error says most, what to do. Pure.

A refused credential or certificate stays refused until somebody changes the configuration, which is read at the start
only; so the start ends with a sentence. What comes from a network, or from a token endpoint that is down, passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError

from connector.kafka.client import ALL_BROKERS_DOWN, AUTHENTICATION, SSL, TRANSPORT, error_text

_REFUSALS: Final = (AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_TOKEN: Final = "failed to acquire sasl oauthbearer token"  # noqa: S105 - librdkafka's words
# What a token endpoint answers to a client that it will not serve: RFC 6749, section 5.2.
_NO_TOKEN: Final = ("invalid_client", "invalid_grant", "invalid_scope", "unauthorized_client", "unsupported_grant_type")
# A broker tells by an alert that it does not want the client's certificate; under TLS 1.3 that comes after the
# handshake, as an error of the transport.
_CERTIFICATE_ALERTS: Final = ("alert certificate", "alert unknown ca", "alert bad certificate", "certificate required")


def is_final(error: KafkaError) -> bool:
    """Tell whether waiting is in vain: a refused credential, or a certificate that does not verify."""
    text = error.str().lower()
    if error.code() in _REFUSALS:
        return _TOKEN not in text or any(code in text for code in _NO_TOKEN)
    if error.code() == SSL:
        return "certificate" in text or "alert" in text
    return error.code() == TRANSPORT and any(alert in text for alert in _CERTIFICATE_ALERTS)


def says_more(error: KafkaError, than: KafkaError | None) -> bool:
    """Tell whether an error explains more than another: a refusal most, that all brokers are down least."""
    return than is None or _rank(error) >= _rank(than)


def explained(error: KafkaError, client: Mapping[str, Any]) -> str:
    """Return the error in words, with the property of `kafka.client` that is likely meant, where one is."""
    text, advice = error_text(error), _advice(error, client)
    return f"{text}; {advice}" if advice else text


def _rank(error: KafkaError) -> int:
    if is_final(error):
        return 2
    return 0 if error.code() == ALL_BROKERS_DOWN else 1


def _advice(error: KafkaError, client: Mapping[str, Any]) -> str | None:
    text = error.str().lower()
    if any(alert in text for alert in _CERTIFICATE_ALERTS):
        return "the broker wants another certificate of this client: ssl.certificate.location and ssl.key.location"
    if error.code() in _REFUSALS:
        if _TOKEN in text:
            return "see the sasl.oauthbearer properties"
        return "see sasl.mechanism, sasl.username and sasl.password"
    plain = str(client.get("security.protocol", "plaintext")).lower() in ("plaintext", "sasl_plaintext")
    if plain and error.code() in (ALL_BROKERS_DOWN, TRANSPORT) and "refused" not in text:
        return "where the listener speaks TLS, security.protocol has to be SSL or SASL_SSL"
    return None
