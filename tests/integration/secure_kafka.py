"""A real Kafka that wants to know who comes: SCRAM over TLS, client certificates, tokens of an identity provider."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.integration.certificates import Authority
from tests.integration.identity import AUDIENCE
from tools.servers import Kafka, free_ports

USER: Final = "connector"
PASSWORD: Final = "hush-hush"
REAUTHENTICATION_MS: Final = 3000
"""After so long a SCRAM connection has to show its password again (KIP-368)."""

Client = dict[str, str]
_JAAS: Final = "org.apache.kafka.common.security"
_PROTOCOLS: Final = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", "SCRAM": "SASL_SSL", "MTLS": "SSL"}


class SecureKafka(Kafka):
    """Its plain listener is for tests; SCRAM, MTLS and, with the URL of a provider's keys, OAUTH are for members."""

    def __init__(self, folder: Path, authority: Authority, keys_url: str) -> None:
        self._authority = authority
        self._protocols = {**_PROTOCOLS, "OAUTH": "SASL_SSL"}
        self._ports = dict(zip(self._protocols, free_ports(len(self._protocols)), strict=True))
        hosts = {name: "127.0.0.1" if name in ("PLAINTEXT", "CONTROLLER") else "localhost" for name in self._ports}
        places = {name: f"{name}://{hosts[name]}:{port}" for name, port in self._ports.items()}
        super().__init__(
            folder,
            properties={
                "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in self._protocols.items()),
                "controller.quorum.voters": f"1@127.0.0.1:{self._ports['CONTROLLER']}",
                "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()),
                "advertised.listeners": ",".join(place for name, place in places.items() if name != "CONTROLLER"),
                **self._security(keys_url),
            },
        )
        self.port = self._ports["PLAINTEXT"]
        self.bootstrap = f"127.0.0.1:{self.port}"

    def _security(self, keys_url: str) -> dict[str, str]:
        oauth = "listener.name.oauth.oauthbearer.sasl"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._authority.issue("broker").chain,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._authority.file,
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{_JAAS}.scram.ScramLoginModule required;",
            "listener.name.scram.connections.max.reauth.ms": str(REAUTHENTICATION_MS),
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{oauth}.jaas.config": f"{_JAAS}.oauthbearer.OAuthBearerLoginModule required;",
            f"{oauth}.server.callback.handler.class": f"{_JAAS}.oauthbearer.OAuthBearerValidatorCallbackHandler",
            f"{oauth}.oauthbearer.jwks.endpoint.url": keys_url,
            f"{oauth}.oauthbearer.expected.audience": AUDIENCE,
        }

    def set_password(self, password: str) -> None:
        """Let this be the password of the one user, from now on."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(USER, credential, password.encode())
        admin.alter_user_scram_credentials([change])[USER].result(timeout=15)

    def scram(self, **changes: str) -> Client:
        """Return the properties of a client that shows a password."""
        own = {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": USER, "sasl.password": PASSWORD}
        return self._client("SCRAM", own | changes)

    def mtls(self, **changes: str) -> Client:
        """Return the properties of a client that shows a certificate."""
        identity = self._authority.issue("member")
        own = {"ssl.certificate.location": identity.cert, "ssl.key.location": identity.key}
        return self._client("MTLS", own | changes)

    def oauth(self, token_url: str, secret: str = PASSWORD) -> Client:
        """Return the properties of a client that shows a token, which librdkafka fetches (OpenID Connect)."""
        own = {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc"}
        account = {"sasl.oauthbearer.client.id": USER, "sasl.oauthbearer.client.secret": secret}
        return self._client("OAUTH", own | account | {"sasl.oauthbearer.token.endpoint.url": token_url})

    def _client(self, listener: str, own: Client) -> Client:
        """Return a client's properties; those that are empty are left out."""
        place = {"bootstrap.servers": f"localhost:{self._ports[listener]}"}
        client = {**place, "security.protocol": self._protocols[listener], "ssl.ca.location": self._authority.file}
        return {name: value for name, value in {**client, **own}.items() if value}
