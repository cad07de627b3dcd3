"""The schema registry, through confluent-kafka's client. A schema is found, unknown or unavailable.

Unknown (`NotRegistered`) is a 404 with Confluent's own error code. Everything else is unavailable (`RegistryTrouble`):
the answer of a proxy, a wrong address or a wrong credential says nothing about a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol
from urllib.parse import urlsplit

from connector.codec.on_demand import on_demand
from connector.codec.schemas import Schema, SchemaFault, read_schema
from connector.config.loader import RegistrySettings
from connector.errors import ConnectorError

# Only OAuth needs it. It takes 12 MB of memory and 0.14 s of every start (measured).
with on_demand("authlib.integrations.httpx_client"):
    from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, RegisteredSchema
    from confluent_kafka.schema_registry import Schema as RegistrySchema
    from confluent_kafka.schema_registry.error import SchemaRegistryError

# https://docs.confluent.io/platform/current/schema-registry/develop/api.html: "Schema not found".
_SCHEMA_NOT_FOUND: Final = 40403
_INCOMPATIBLE: Final = (409, 422)
# Without a limit, a topic of many schemas would ask for all of them at once after a start.
MOST_QUESTIONS: Final = 4
"""How many questions the registry is asked at once."""
_MAX_REFERENCES: Final = 200
_CLEAR_AFTER: Final = 500
"""After this many answers the client's cache of schemas is cleared, because it has no bound of its own."""
_SHOWN: Final = 200
# Signs of a TLS fault, and the key of schema_registry.client that fixes it.
_TLS_KEYS: Final = (
    ("CERTIFICATE_VERIFY_FAILED", "ssl.ca.location"),
    ("ALERT_CERTIFICATE", "ssl.certificate.location and ssl.key.location"),
    ("ALERT_UNKNOWN_CA", "ssl.certificate.location and ssl.key.location"),
    ("ALERT_BAD_CERTIFICATE", "ssl.certificate.location and ssl.key.location"),
)
_ANY_ID: Final = 1
"""Any id will do: only a registry answers "not found" with the registry's own error code."""


class RegistryTrouble(ConnectorError):
    """The registry gave no usable answer; asking again later may help."""


class NotRegistered(ConnectorError):
    """The registry works but does not know the schema."""


class RegistryRefused(ConnectorError):
    """The registry rejects one of our schemas: it is incompatible with an earlier version."""


class Client(Protocol):
    """The part of confluent-kafka's asynchronous registry client that is used."""

    async def get_schema(self, schema_id: int) -> RegistrySchema:
        """Return the schema with this id."""
        ...

    async def get_schema_by_guid(self, guid: str) -> RegistrySchema:
        """Return the schema with this GUID."""
        ...

    async def get_version(self, subject_name: str, version: int, deleted: bool = ...) -> RegisteredSchema:  # noqa: FBT001 -- the client's own signature
        """Return a subject's version; `deleted`: a soft-deleted one too."""
        ...

    async def get_subjects(self) -> list[str]:
        """Return all subjects."""
        ...

    async def get_latest_version(self, subject_name: str) -> RegisteredSchema:
        """Return a subject's newest version."""
        ...

    async def register_schema(self, subject_name: str, schema: RegistrySchema) -> int:
        """Register a schema if it is not registered yet, and return its id."""
        ...


Question = Callable[[Client], Awaitable[RegistrySchema | RegisteredSchema]]


def make_client(settings: RegistrySettings) -> Client:
    """Return confluent-kafka's client. Raises `ValueError` for unknown properties."""
    # The decoder retries and reports that itself; without a time-out the client would wait for ever.
    config = {"timeout": 10, "max.retries": 0, **settings.client, "url": settings.url}
    client = AsyncSchemaRegistryClient.new_client(config)
    # httpx takes a proxy from HTTP_PROXY; here a proxy comes from the configuration only, as for destinations.
    rest = client._rest_client  # noqa: SLF001 -- confluent-kafka has no setting for it
    rest.session = type(rest.session)(
        verify=rest.verify, auth=rest.auth, proxy=rest.proxy, timeout=rest.timeout, trust_env=False
    )
    token_client = getattr(rest.bearer_field_provider, "client", None)
    if token_client is not None:  # it fetches OAuth tokens, and has no argument for this either
        token_client._mounts.clear()  # noqa: SLF001
    made: Client = client
    return made


class Registry:
    """Resolves and registers schemas. `where` names it and its proxy in messages, without users and passwords.

    After a failed question `renew` reads secrets and certificates again; it returns a client if they have changed.
    """

    def __init__(
        self, client: Client, url: str, renew: Callable[[], Client | None] = lambda: None, proxy: str | None = None
    ) -> None:
        self._client = client
        self._renew = renew
        self._slots = asyncio.Semaphore(MOST_QUESTIONS)
        self._answers = 0
        self.where = ", ".join(map(_without_account, url.split(",")))
        if proxy is not None:
            self.where += f" (through the proxy {_without_account(proxy)})"

    async def by_id(self, schema_id: int) -> Schema:
        """Return the schema with this id. Raises `NotRegistered`, `RegistryTrouble`, or `SchemaFault` for a bad one."""
        return await self._resolved(f"id {schema_id}", lambda client: client.get_schema(schema_id))

    async def check(self) -> None:
        """Return normally if it answers like a registry. Raises `RegistryTrouble` otherwise."""
        try:
            await self.by_id(_ANY_ID)
        except (NotRegistered, SchemaFault):
            return

    async def by_guid(self, guid: str) -> Schema:
        """Return the schema with this GUID; raises as `by_id`."""
        return await self._resolved(f"GUID {guid}", lambda client: client.get_schema_by_guid(guid))

    async def subjects(self) -> list[str]:
        """Return the subjects for values. Raises `RegistryTrouble`."""
        try:
            async with self._slots:
                found = await self._client.get_subjects()
        except Exception as error:  # noqa: BLE001 - as in _asked
            raise await self._trouble(error) from None
        return [subject for subject in found if not subject.endswith("-key")]

    async def latest(self, subject: str) -> Schema:
        """Return the newest schema of a subject; raises as `by_id`."""
        return await self._resolved(f"of subject {subject}", lambda client: client.get_latest_version(subject))

    async def register(self, subject: str, schema: Schema) -> int:
        """Register the schema under the subject and return its id. Raises `RegistryRefused` or `RegistryTrouble`."""
        try:
            async with self._slots:
                return await self._client.register_schema(subject, RegistrySchema(schema.text, "AVRO"))
        except SchemaRegistryError as error:
            if error.http_status_code in _INCOMPATIBLE:
                raise RegistryRefused(
                    f"the registry rejects {schema.name} for subject {subject}: {_said(error)}"
                ) from None
            raise await self._trouble(error) from None
        except Exception as error:  # noqa: BLE001 - as in _asked
            raise await self._trouble(error) from None

    async def close(self) -> None:
        """Close the connections."""
        await _close(self._client)

    async def _resolved(self, what: str, request: Question) -> Schema:
        answer = await self._asked(what, request)
        # The registry leaves the type out of its answer if it is Avro.
        kind = answer.schema_type or "AVRO"
        if kind != "AVRO":
            raise SchemaFault("decode.schema_invalid", f"schema {what} is of type {kind}; only AVRO is supported")
        rule = _encryption(answer)
        if rule is not None:
            # Its values are ciphertext. Sending them as they are would be a loss that no vendor reports.
            raise RegistryTrouble(
                f"schema {what} has the encryption rule '{rule}', and the connector does not decrypt; consume a topic "
                "with plain values, or remove the rule"
            )
        references: dict[tuple[str, int], str] = {}
        await self._references(answer, references)
        return read_schema(answer.schema_str or "", references.values())

    async def _asked(self, what: str, request: Question) -> RegistrySchema:
        try:
            async with self._slots:
                answer: RegistrySchema | RegisteredSchema = await request(self._client)
        except SchemaRegistryError as error:
            # The code and not the status alone: a proxy, or a path that is wrong, answers 404 too.
            if error.http_status_code == 404 and error.error_code == _SCHEMA_NOT_FOUND:
                raise NotRegistered(f"the registry at {self.where} does not know schema {what}") from None
            raise await self._trouble(error) from None
        except Exception as error:  # noqa: BLE001 - the answer of a proxy breaks the client in many ways
            # None of these errors says anything about the schema.
            raise await self._trouble(error) from None
        self._answers += 1
        if self._answers % _CLEAR_AFTER == 0 and (clear := getattr(self._client, "clear_caches", None)) is not None:
            await clear()
        schema = answer.schema if isinstance(answer, RegisteredSchema) else answer
        if not isinstance(schema.schema_str, str):
            raise RegistryTrouble(f"{self.where} does not answer like a schema registry: no schema in the answer")
        return schema

    async def _references(self, schema: RegistrySchema, found: dict[tuple[str, int], str]) -> None:
        """Add the JSON of every schema that this one refers to, directly or not, to `found`."""
        for reference in schema.references or ():
            if reference.subject is None or reference.version is None:
                raise SchemaFault("decode.schema_invalid", "a reference of the schema has no subject or version")
            key = reference.subject, reference.version
            if key in found:
                continue
            if len(found) >= _MAX_REFERENCES:
                raise SchemaFault("decode.schema_invalid", f"the schema has more than {_MAX_REFERENCES} references")
            what = f"{reference.subject} version {reference.version}"
            try:
                inner = await self._asked(what, partial(_version, *key))
            except NotRegistered as error:
                # The schema exists, so what it refers to must exist too: the
                # registry is incomplete, and no record is to blame.
                raise RegistryTrouble(str(error)) from None
            found[key] = inner.schema_str or ""
            await self._references(inner, found)

    async def _trouble(self, error: Exception) -> RegistryTrouble:
        """Return the error to raise. If secrets or certificates have changed, a new client asks the next question."""
        # The cause may be a rotated secret or certificate, so read them again before the next question.
        if (client := self._renew()) is not None:
            old, self._client = self._client, client
            await _close(old)
        if not isinstance(error, SchemaRegistryError):
            said = str(error)[:_SHOWN]
            text = f"the registry at {self.where} gives no usable answer: {type(error).__name__}"
            keys = next((f"; see {keys}" for sign, keys in _TLS_KEYS if sign in said), "")
            return RegistryTrouble(f"{text}{': ' if said else ''}{said}{keys}")
        redirect = 300 <= error.http_status_code < 400
        hint = "; redirects are not followed, check schema_registry.url" if redirect else ""
        return RegistryTrouble(f"the registry at {self.where} answers {_said(error)}{hint}")


def _encryption(schema: RegistrySchema) -> str | None:
    """Return the name of a schema's first rule that encrypts fields or the payload, None if there is none."""
    rules = schema.rule_set
    if rules is None:
        return None
    for rule in (*(rules.domain_rules or ()), *(rules.encoding_rules or ())):
        if (rule.type or "").upper().startswith("ENCRYPT") and not rule.disabled:
            return rule.name or "without a name"
    return None


def _without_account(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def _version(subject: str, version: int, client: Client) -> RegisteredSchema:
    """Return a version that a schema refers to. A soft-deleted one is still what its records were written with."""
    try:
        return await client.get_version(subject, version)
    except SchemaRegistryError as error:
        if error.http_status_code != 404:
            raise
        return await client.get_version(subject, version, deleted=True)


async def _close(client: Client) -> None:
    aclose = getattr(client, "aclose", None)
    if aclose is not None:
        await aclose()


def _said(error: SchemaRegistryError) -> str:
    return f"HTTP {error.http_status_code}, code {error.error_code}: {str(error.error_message)[:_SHOWN]}"
