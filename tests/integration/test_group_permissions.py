"""A real Kafka that authorizes: what is missing is named before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports them without saying so
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from tests.integration.ended import run_command
from tests.integration.job import Job, Vendor, jobs
from tools.servers import Kafka, free_ports, missing

USER: Final = "app"
PASSWORD: Final = "hush-hush"


class AuthorizingKafka(Kafka):
    """Its plain listener may do anything; who comes by `app` is a user who may do what is granted."""

    def __init__(self, folder: Path) -> None:
        names = ("PLAINTEXT", "APP", "CONTROLLER")
        ports = dict(zip(names, free_ports(3), strict=True))
        places = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        super().__init__(
            folder,
            properties={
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,APP:SASL_PLAINTEXT",
                "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
                "listeners": ",".join(places.values()),
                "advertised.listeners": f"{places['PLAINTEXT']},{places['APP']}",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
                "listener.name.app.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.app.plain.sasl.jaas.config": f'{module} required user_{USER}="{PASSWORD}";',
            },
        )
        self.port = ports["PLAINTEXT"]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.client = {
            "bootstrap.servers": f"127.0.0.1:{ports['APP']}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": USER,
            "sasl.password": PASSWORD,
        }

    def allow(self, kind: ResourceType, name: str, operation: AclOperation) -> None:
        """Grant the user an operation on what has this name."""
        rule = AclBinding(
            *(kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, AclPermissionType.ALLOW)
        )
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        admin.create_acls([rule])[rule].result(timeout=15)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizingKafka]:
    """One Kafka that authorizes."""
    if (fault := missing()) is not None:
        pytest.skip(fault)
    found = AuthorizingKafka(tmp_path_factory.mktemp("authorizing"))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def job(kafka: AuthorizingKafka, tmp_path: Path, topic_name: str) -> Iterator[Job]:
    """A job on it."""
    with jobs(kafka, tmp_path, topic_name) as own:
        yield own


@pytest.mark.parametrize("describes", [True, False])
def test_a_group_that_may_not_be_read_is_named_with_the_command(
    describes: bool, kafka: AuthorizingKafka, job: Job, vendor: Vendor
) -> None:
    """A user without READ on the group is reported by `check --online`; once READ is granted, it passes.

    Kills: a check of metadata only, which any broker answers, and that says all is well while nothing is ever read.
    """
    for operation in (AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS):
        kafka.allow(ResourceType.TOPIC, "*", operation)
    if describes:
        kafka.allow(ResourceType.GROUP, job.group, AclOperation.DESCRIBE)
    settings = job.settings(vendor.destination)
    settings["kafka"]["client"] = kafka.client
    file = str(job.write(settings))
    refused = run_command("check", "--online", "-c", file)
    assert refused.returncode == 1, refused.stdout + refused.stderr
    said = refused.stdout + refused.stderr
    assert f"READ group {job.group}" in said
    assert f"--operation Read --group {job.group}" in said
    assert PASSWORD not in said
    kafka.allow(ResourceType.GROUP, job.group, AclOperation.READ)
    well = run_command("check", "--online", "-c", file)
    assert well.returncode == 0, well.stdout + well.stderr
