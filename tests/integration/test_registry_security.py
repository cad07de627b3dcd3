"""A real schema registry behind TLS and a password, as a member and `check --online` see it."""

from __future__ import annotations

import re
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
    """The registry's protection, and the settings that a member needs for it."""

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
    """The destination is held, the message shows the registry's 401, and there are no dead letters.

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


def test_a_renewed_authority_of_the_registry_needs_no_restart(
    job: Job, vendor: Vendor, registry: Registry, tmp_path: Path
) -> None:
    """The registry gets a certificate of a new authority; records wait until the file has it, then all are delivered.

    Kills: certificates of the registry that are read at the start only.
    """
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(Path(old.file).read_bytes())
    schema = register(registry, f"{job.topic}-value", SCHEMA)
    with Front(registry.port, new.server(new.issue("registry"))) as front:
        url = f"https://localhost:{front.port}/apis/ccompat/v7"
        settings = {"url": url, "client": {"ssl.ca.location": str(trusted)}}
        job.produce(good(range(20), schema))
        member = job.start(job.settings(vendor.destination, schema_registry=settings))
        assert "see ssl.ca.location" in member.until_held("registry")["message"]
        trusted.write_bytes(Path(new.file).read_bytes()[:100])
        trusted.write_bytes(Path(new.file).read_bytes())
        job.until_done(member)
        assert member.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == 20


def test_a_rotated_password_of_the_registry_needs_no_restart(
    job: Job, vendor: Vendor, registry: Registry, tmp_path: Path
) -> None:
    """The file with the password gets the new one while the registry answers 401, and the records are delivered.

    Kills: a password of the registry that is read at the start only.
    """
    password = tmp_path / "account"
    password.write_text("member:the-old-one", encoding="utf-8")
    schema = register(registry, f"{job.topic}-value", SCHEMA)
    with Front(registry.port, account=ACCOUNT) as front:
        url = f"http://127.0.0.1:{front.port}/apis/ccompat/v7"
        settings = {"url": url, "client": {"basic.auth.user.info": f"${{file:{password}}}"}}
        job.produce(good(range(20), schema))
        member = job.start(job.settings(vendor.destination, schema_registry=settings))
        assert "HTTP 401" in member.until_held("registry")["message"]
        password.write_text(ACCOUNT, encoding="utf-8")
        job.until_done(member)
        assert member.stop() == 0
    assert vendor.cuids.total() == len(vendor.cuids) == 20
    assert not {"the-old-one", PASSWORD} & set(re.findall(r"[\w-]+", member.text))


def test_a_registry_that_redirects_is_named_and_never_followed(job: Job, vendor: Vendor, registry: Registry) -> None:
    """A redirect could carry the password to another host: the records wait, and the message names the setting.

    Kills: a redirect that is followed, or read as a schema that the registry does not know.
    """
    schema = register(registry, f"{job.topic}-value", SCHEMA)
    with Front(registry.port, redirect="/apis/ccompat/v7") as front:
        job.produce(good(range(20), schema))
        settings = {"url": f"http://127.0.0.1:{front.port}/old"}
        member = job.start(job.settings(vendor.destination, schema_registry=settings))
        message = member.until_held("registry")["message"]
        assert member.stop() == 0
    assert "HTTP 301" in message
    assert "check schema_registry.url" in message
    assert job.dead_letters() == []
    assert all("/old/" in request for request in front.requests)


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
    """`check --online` distinguishes a refused password, an unknown authority and a missing certificate."""
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
