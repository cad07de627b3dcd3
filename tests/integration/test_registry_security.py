"""A real schema registry behind TLS and a password, as a member and `check --online` see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from connector.cli.common import read_config
from connector.runtime.checks import check_online
from tests.integration.certificates import Authority
from tests.integration.events import SCHEMA, good, register
from tests.integration.fronts import Front
from tests.integration.job import Job, Vendor
from tools.servers import Registry

ACCOUNT: Final = "member:hush-hush"
PASSWORD: Final = "hush-hush"
EVENTS: Final = 200


class Guarded:
    """The registry's guard, and what a member is told to get past it."""

    def __init__(self, front: Front, authority: Authority, stranger: Authority) -> None:
        self.front = front
        self.authority = authority
        self.stranger = stranger
        self.identity = authority.issue("member")

    def settings(self, account: str = ACCOUNT, *, known: bool = True, certificate: bool = True) -> dict[str, Any]:
        """Return `schema_registry`, with another account, an authority that did not sign, or no certificate."""
        client = {
            "basic.auth.user.info": account,
            "ssl.ca.location": (self.authority if known else self.stranger).file,
        }
        if certificate:
            client |= {"ssl.certificate.location": self.identity.cert, "ssl.key.location": self.identity.key}
        return {"url": f"https://localhost:{self.front.port}/apis/ccompat/v7", "client": client}


@pytest.fixture
def guarded(registry: Registry, tmp_path: Path) -> Iterator[Guarded]:
    """The registry behind TLS that wants a certificate, and a password."""
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    tls = authority.server(authority.issue("registry"), client_wanted=True)
    with Front(registry.port, tls, ACCOUNT) as front:
        yield Guarded(front, authority, stranger)


def test_a_guarded_registry_gives_schemas(job: Job, vendor: Vendor, registry: Registry, guarded: Guarded) -> None:
    """With password, authority and certificate the schemas come, and no password is shown."""
    schema = register(registry, f"{job.topic}-value", SCHEMA)
    job.produce(good(range(EVENTS), schema))
    member = job.start(job.settings(vendor.destination, schema_registry=guarded.settings()))
    job.until_done(member)
    assert member.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == EVENTS
    assert any(f"/schemas/ids/{schema}" in request for request in guarded.front.requests)
    assert PASSWORD not in member.text


def test_records_wait_for_a_registry_that_refuses_the_password(
    job: Job, vendor: Vendor, registry: Registry, guarded: Guarded
) -> None:
    """The destination is held, says the registry's 401, and nothing is dead-lettered.

    Kills: a refused credential of the registry read as a schema that it does not know.
    """
    job.produce(good(range(20), register(registry, f"{job.topic}-value", SCHEMA)))
    member = job.start(job.settings(vendor.destination, schema_registry=guarded.settings("member:wrong-one")))
    assert "HTTP 401" in member.until_held("registry")["message"]
    assert "HTTP 401" in member.get("/readyz")[1]
    assert member.stop() == 0
    assert vendor.served == []
    assert job.dead_letters() == []
    assert set(job.committed().values()) == {0}
    assert "wrong-one" not in member.text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"account": "member:wrong-one"}, "answers HTTP 401"),
        ({"known": False}, "see ssl.ca.location"),
        ({"certificate": False}, "ssl.certificate.location"),
    ],
)
async def test_what_does_not_fit_is_told_by_the_check(
    changes: dict[str, Any], says: str | None, job: Job, vendor: Vendor, guarded: Guarded
) -> None:
    """`check --online` tells a refused password from an unknown authority and a missing certificate."""
    settings = job.settings(vendor.destination, schema_registry=guarded.settings(**changes))
    # A topic that was made a moment ago may not be seen yet by a busy broker: that is not what is asked here.
    faults = [one for one in await check_online(read_config(job.write(settings))) if "missing topics" not in one]
    if says is None:
        assert faults == []
        return
    (fault,) = faults
    assert fault.startswith(f"schema_registry: the registry at https://localhost:{guarded.front.port}/")
    assert says in fault
    assert "wrong-one" not in fault
