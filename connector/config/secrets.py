"""Which values of the settings are secret: one walk gives what `check` shows and what logs hide.

A value is secret because of its type, its key's name, or its place: everything under `client` and `headers` is secret,
unless the property is on the list of harmless ones. Why not a list of secret ones? Libraries add properties with every
release, and such a list would miss the next one. In a URL the user information and the query are secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from connector.telemetry.redaction import HIDDEN, mask_written, names_secret, written_secrets

_PRIVATE_SECTIONS: Final = ("client", "headers")
_HMAC: Final = "hmac_sha256"

HARMLESS_PROPERTIES: Final = frozenset(
    """
    acks allow.auto.create.topics api.version.fallback.ms api.version.request api.version.request.timeout.ms
    auto.commit.enable auto.commit.interval.ms auto.offset.reset batch.num.messages batch.size bootstrap.servers
    broker.address.family broker.address.ttl broker.version.fallback builtin.features check.crcs client.dns.lookup
    client.id client.rack compression.codec compression.level compression.type connections.max.idle.ms
    consume.callback.max.messages coordinator.query.interval.ms debug delivery.report.only.error delivery.timeout.ms
    enable.auto.commit enable.auto.offset.store enable.gapless.guarantee enable.idempotence enable.metrics.push
    enable.partition.eof enable.random.seed enable.sasl.oauthbearer.unsecure.jwt enable.ssl.certificate.verification
    fetch.error.backoff.ms fetch.max.bytes fetch.message.max.bytes fetch.min.bytes fetch.queue.backoff.ms
    fetch.wait.max.ms group.id group.instance.id group.protocol group.protocol.type group.remote.assignor
    heartbeat.interval.ms https.ca.location internal.termination.signal isolation.level linger.ms log.connection.close
    log.queue log.thread.name log_level max.in.flight max.in.flight.requests.per.connection max.partition.fetch.bytes
    max.poll.interval.ms max.poll.records message.copy.max.bytes message.max.bytes message.send.max.retries
    message.timeout.ms metadata.broker.list metadata.max.age.ms metadata.recovery.rebootstrap.trigger.ms
    metadata.recovery.strategy offset.store.method offset.store.path offset.store.sync.interval.ms
    partition.assignment.strategy partitioner plugin.library.paths produce.offset.report
    queue.buffering.backpressure.threshold queue.buffering.max.kbytes queue.buffering.max.messages
    queue.buffering.max.ms queued.max.messages.kbytes queued.min.messages queuing.strategy receive.message.max.bytes
    reconnect.backoff.jitter.ms reconnect.backoff.max.ms reconnect.backoff.ms request.required.acks request.timeout.ms
    retries retry.backoff.max.ms retry.backoff.ms sasl.kerberos.keytab sasl.kerberos.min.time.before.relogin
    sasl.kerberos.principal sasl.kerberos.service.name sasl.mechanism sasl.mechanisms
    sasl.oauthbearer.assertion.algorithm sasl.oauthbearer.assertion.claim.aud
    sasl.oauthbearer.assertion.claim.exp.seconds sasl.oauthbearer.assertion.claim.iss
    sasl.oauthbearer.assertion.claim.jti.include sasl.oauthbearer.assertion.claim.nbf.seconds
    sasl.oauthbearer.assertion.claim.sub sasl.oauthbearer.assertion.file
    sasl.oauthbearer.assertion.jwt.template.file sasl.oauthbearer.assertion.private.key.file
    sasl.oauthbearer.client.credentials.client.id sasl.oauthbearer.client.id sasl.oauthbearer.grant.type
    sasl.oauthbearer.metadata.authentication.type sasl.oauthbearer.method sasl.oauthbearer.scope
    sasl.oauthbearer.sub.claim.name sasl.oauthbearer.token.endpoint.url sasl.username security.protocol
    session.timeout.ms share.acknowledgement.mode socket.blocking.max.ms socket.connection.setup.timeout.ms
    socket.keepalive.enable socket.max.fails socket.nagle.disable socket.receive.buffer.bytes socket.send.buffer.bytes
    socket.timeout.ms ssl.ca.certificate.stores ssl.ca.location ssl.certificate.location ssl.cipher.suites
    ssl.crl.location ssl.curves.list ssl.endpoint.identification.algorithm ssl.engine.id ssl.engine.location
    ssl.key.location ssl.keystore.location ssl.providers ssl.sigalgs.list statistics.interval.ms
    sticky.partitioning.linger.ms topic.blacklist topic.metadata.propagation.max.ms topic.metadata.refresh.fast.cnt
    topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.interval.ms topic.metadata.refresh.sparse
    transaction.timeout.ms transactional.id
    """.split()  # noqa: SIM905 -- 150 names, one a line, would be three pages
)
"""librdkafka's properties without secrets. User names and client ids count as names."""
HARMLESS_REGISTRY_PROPERTIES: Final = frozenset(
    """
    bearer.auth.client.id bearer.auth.credentials.source bearer.auth.identity.pool.id bearer.auth.issuer.endpoint.url
    bearer.auth.logical.cluster bearer.auth.scope cache.capacity cache.latest.ttl.sec max.connections max.retries proxy
    retries.max.wait.ms retries.wait.ms ssl.ca.location ssl.certificate.location ssl.key.location timeout url
    """.split()  # noqa: SIM905 -- as above
)
"""The same for confluent-kafka's registry client."""
_HARMLESS: Final = HARMLESS_PROPERTIES | HARMLESS_REGISTRY_PROPERTIES


_LITERAL: Final = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")


def hide_literals(expression: str) -> str:
    """Return an expression for messages. If it makes an HMAC, its string literals may be the key, and are hidden."""
    return _LITERAL.sub(f"'{HIDDEN}'", expression) if _HMAC in expression else expression


def redacted(settings: BaseModel) -> dict[str, Any]:
    """Return settings as plain values (seconds, bytes) with every secret hidden."""
    shown: dict[str, Any] = _SecretWalk().model(settings, private=False)
    return shown


def secret_values(settings: BaseModel) -> Iterator[str]:
    """Yield every secret of the settings as text, for `logs.register_secrets`."""
    walk = _SecretWalk()
    walk.model(settings, private=False)
    yield from walk.secrets


def is_secret(section: str, key: str) -> bool:
    """Whether a key's value is secret: under `client` and `headers` unless known as harmless, elsewhere by its name."""
    return key not in _HARMLESS if section in _PRIVATE_SECTIONS else names_secret(key)


class _SecretWalk:
    """One walk over settings: returns what may be shown and collects the rest in `secrets`."""

    def __init__(self) -> None:
        self.secrets: list[str] = []

    def model(self, settings: BaseModel, *, private: bool) -> dict[str, Any]:
        """Walk a model."""
        fields = type(settings).model_fields
        return {
            field.alias or name: self._value(field.alias or name, getattr(settings, name), private=private)
            for name, field in fields.items()
        }

    def _value(self, name: str, value: Any, *, private: bool) -> Any:
        """Walk one value; `private`: only harmless names may be shown."""
        if isinstance(value, SecretStr):
            return self._hidden(value.get_secret_value())
        if isinstance(value, BaseModel):
            return self.model(value, private=private)
        if isinstance(value, dict):
            below = private or name in _PRIVATE_SECTIONS
            return {key: self._value(str(key), child, private=below) for key, child in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(name, child, private=private) for child in value]
        if value is None or isinstance(value, bool):
            return value
        if (name not in _HARMLESS) if private else (names_secret(name) and isinstance(value, str)):
            return self._hidden(str(value))
        if name == "cel" and isinstance(value, str):
            self.secrets.extend(text[1:-1] for text in _LITERAL.findall(value) if _HMAC in value)
            return hide_literals(value)
        if isinstance(value, str):
            self.secrets.extend(written_secrets(value))
            return mask_written(value)
        return value

    def _hidden(self, secret: str) -> str:
        self.secrets.append(secret)
        return HIDDEN
