"""A member against a real Kafka that asks for passwords, certificates and tokens, all over TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from connector.cli.common import read_config
from connector.runtime.checks import check_online
from tests.integration.certificates import Authority
from tests.integration.ended import run_command
from tests.integration.events import Message, good
from tests.integration.identity import IdentityProvider
from tests.integration.job import Job, Vendor, jobs
from tests.integration.secure_kafka import PASSWORD, USER, Client, SecureKafka
from tools.servers import missing

WRONG = "not-the-password"
EVENTS = 300


class World(NamedTuple):
    """A secured Kafka, the provider whose tokens it takes, its authority, and one that it does not know."""

    kafka: SecureKafka
    provider: IdentityProvider
    stranger: Authority

    @property
    def clients(self) -> dict[str, Client]:
        """The properties of a client by the way in which it shows who it is."""
        token = self.kafka.oauth(f"{self.provider.url}/token")
        return {"scram": self.kafka.scram(), "mtls": self.kafka.mtls(), "oauth": token}

    @property
    def refused(self) -> dict[str, tuple[Client, str]]:
        """Clients that are refused, each with what has to be said."""
        kafka, url, other = self.kafka, f"{self.provider.url}/token", self.stranger.issue("stranger-member")
        unknown = "certificate verify failed: broker certificate could not be verified"
        return {
            "wrong password": (kafka.scram(**{"sasl.password": WRONG}), "check sasl.mechanism, sasl.username"),
            "wrong mechanism": (kafka.scram(**{"sasl.mechanism": "PLAIN"}), "supported mechanisms: SCRAM-SHA-512"),
            "unknown authority": (kafka.scram(**{"ssl.ca.location": self.stranger.file}), unknown),
            "no certificate": (
                kafka.mtls(**{"ssl.certificate.location": "", "ssl.key.location": ""}),
                "ssl.certificate.location and ssl.key.location",
            ),
            "unknown certificate": (
                kafka.mtls(**{"ssl.certificate.location": other.cert, "ssl.key.location": other.key}),
                "ssl.certificate.location and ssl.key.location",
            ),
            "wrong client secret": (kafka.oauth(url, WRONG), "invalid_client"),
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One secured Kafka for this module."""
    _need_java()
    folder = tmp_path_factory.mktemp("secure")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    with IdentityProvider(USER, PASSWORD) as provider, pytest.MonkeyPatch.context() as patch:
        keys = f"{provider.url}/keys"
        # Kafka fetches keys only from URLs on this list, which is a Java system property.
        patch.setenv("JAVA_TOOL_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}")
        kafka = SecureKafka(folder / "kafka", authority, keys)
        try:
            kafka.start()
            kafka.set_password(PASSWORD)
            yield World(kafka, provider, stranger)
        finally:
            kafka.stop()


@pytest.fixture
def job(world: World, tmp_path: Path, topic_name: str) -> Iterator[Job]:
    """A job on the secured Kafka; the test itself comes by its plain listener."""
    with jobs(world.kafka, tmp_path, topic_name) as own:
        yield own


def _settings(job: Job, vendor: Vendor, client: Client) -> dict[str, Any]:
    settings = job.settings(vendor.destination)
    settings["kafka"]["client"] |= client
    return settings


@pytest.mark.parametrize("way", ["scram", "mtls", "oauth"])
def test_a_secured_kafka_is_read_committed_and_written(way: str, world: World, job: Job, vendor: Vendor) -> None:
    """By password, certificate or token: events are delivered, a bad one is dead-lettered, offsets are committed."""
    job.produce([*good(range(EVENTS)), Message(b"no avro")])
    granted = world.provider.granted
    member = job.start(_settings(job, vendor, world.clients[way]))
    job.until_done(member)
    assert set(vendor.cuids.values()) == {1}
    assert vendor.cuids.total() == EVENTS
    assert [dead_letter.own["dlq-cause"] for dead_letter in job.dead_letters()] == ["decode"]
    assert member.stop() == 0
    assert (world.provider.granted > granted) is (way == "oauth")
    assert PASSWORD not in member.text


@pytest.mark.parametrize(
    "case",
    [
        *("wrong password", "wrong mechanism", "unknown authority"),
        *("no certificate", "unknown certificate", "wrong client secret"),
    ],
)
async def test_a_refused_client_is_told_the_reason(case: str, world: World, job: Job, vendor: Vendor) -> None:
    """What `check --online` says is what Kafka refuses and which setting that is, without a secret.

    Kills: waiting for a broker that refuses this client, which would end in nothing but a time-out.
    """
    client, says = world.refused[case]
    (fault,) = await check_online(read_config(job.write(_settings(job, vendor, client))))
    assert fault.startswith("Kafka refuses this client; check kafka.client: ")
    assert says in fault
    assert WRONG not in fault
    assert PASSWORD not in fault


@pytest.mark.parametrize("command", [("check", "--online"), ("run",)])
def test_a_refused_command_ends_with_1_and_the_reason(
    command: tuple[str, ...], world: World, job: Job, vendor: Vendor
) -> None:
    """A credential is read at the start only, so the process ends and says why; its platform starts it again."""
    client, says = world.refused["wrong password"]
    done = run_command(*command, "-c", str(job.write(_settings(job, vendor, client))))
    assert done.returncode == 1
    assert f"{says} and sasl.password" in done.stderr
    assert WRONG not in done.stdout + done.stderr


def test_a_token_endpoint_that_is_down_is_waited_for(world: World, job: Job, vendor: Vendor) -> None:
    """Without a refusal the member reports what it waits for, is not ready, and stops with 0."""
    member = job.start(_settings(job, vendor, world.kafka.oauth("http://127.0.0.1:1/token")))
    (waits, *_) = member.wait(lambda: member.lines("kafka.waiting"), "the reason")
    assert "Failed to acquire SASL OAUTHBEARER token" in waits["reason"]
    status, body = member.get("/readyz")
    assert status == 503
    assert "OAUTHBEARER" in body
    assert member.get("/healthz")[0] == 200
    assert member.stop() == 0


def test_a_password_that_changes_meanwhile_fails_readiness_and_nothing_else(
    world: World, job: Job, vendor: Vendor
) -> None:
    """A running member that Kafka refuses reports it and waits; once the password is restored, it continues."""
    settings = _settings(job, vendor, world.clients["scram"])
    job.produce(good(range(EVENTS)))
    member = job.start(settings)
    job.until_done(member)
    world.kafka.set_password(WRONG)
    try:
        member.wait(lambda: member.get("/readyz")[0] == 503, "the end of readiness")
        # That the connection broke may be noticed before the next one is refused.
        member.wait(lambda: "invalid credentials" in member.get("/readyz")[1], "the reason")
        assert "invalid credentials" in member.status()["waiting"]
        assert member.get("/healthz")[0] == 200
        job.produce(good(range(EVENTS, 2 * EVENTS)))
    finally:
        world.kafka.set_password(PASSWORD)
    job.until_done(member)
    member.wait(lambda: member.get("/readyz")[0] == 200, "readiness")
    assert member.stop() == 0
    assert set(vendor.cuids.values()) == {1}
    assert vendor.cuids.total() == 2 * EVENTS
    assert PASSWORD not in member.text


def _need_java() -> None:
    fault = missing()
    if fault is not None:
        pytest.skip(fault)
