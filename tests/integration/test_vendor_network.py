"""A vendor behind a proxy, with a private CA, with a client certificate; and what is reported if one is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.integration.certificates import Authority
from tests.integration.events import good
from tests.integration.fronts import ForwardProxy, Front
from tests.integration.job import Job, Member, Vendor

ACCOUNT: Final = "member:hush-hush"
EVENTS: Final = 300


class Network(NamedTuple):
    """The vendor behind TLS that wants a client's certificate, the only way there, and certificates."""

    vendor: Vendor
    front: Front
    proxy: ForwardProxy
    authority: Authority
    stranger: Authority

    def settings(self, **http: str) -> dict[str, Any]:
        """Return a valid destination with changes to `http`; an empty value leaves a key out."""
        identity = self.authority.issue("member")
        fits = {
            "proxy": f"http://{ACCOUNT}@127.0.0.1:{self.proxy.port}",
            "ca_file": self.authority.file,
            "cert_file": identity.cert,
            "key_file": identity.key,
        }
        own = {name: value for name, value in {**fits, **http}.items() if value}
        return {**self.vendor.destination, "base_url": f"https://localhost:{self.front.port}", "http": own}


@pytest.fixture
def network(vendor: Vendor, tmp_path: Path) -> Iterator[Network]:
    """The vendor, reachable by the proxy."""
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    tls = authority.server(authority.issue("vendor"), client_wanted=True)
    backend = urlsplit(vendor.destination["base_url"]).port
    assert backend
    with ExitStack() as stack:
        front = stack.enter_context(Front(backend, tls))
        proxy = stack.enter_context(ForwardProxy(ACCOUNT))
        yield Network(vendor, front, proxy, authority, stranger)


def test_a_vendor_is_reached_through_a_proxy_by_certificates_of_ones_own(job: Job, network: Network) -> None:
    """Every request goes through the proxy and shows the certificate; nothing is sent twice, no password is shown."""
    job.produce(good(range(EVENTS)))
    member = job.start(job.settings(network.settings()))
    job.until_done(member)
    assert member.stop() == 0
    assert set(network.vendor.cuids.values()) == {1}
    assert network.vendor.cuids.total() == EVENTS
    assert set(network.proxy.requests) == {f"CONNECT localhost:{network.front.port} HTTP/1.1"}
    assert network.proxy.refused == 0
    assert len(network.front.requests) == len(network.vendor.served)
    assert ACCOUNT.partition(":")[2] not in member.text


def test_what_does_not_fit_holds_its_destination_and_harms_no_record(job: Job, network: Network) -> None:
    """Each destination says by which part it fails and waits; nothing is dead-lettered, committed or sent.

    Kills: taking a request for begun whose TLS session the vendor has ended for want of a certificate.
    """
    plain = network.vendor.destination["base_url"]
    wrong_account = f"http://member:wrong-one@127.0.0.1:{network.proxy.port}"
    cases = {
        "stranger": (network.settings(ca_file=network.stranger.file), "certificate not trusted"),
        "nobody": (network.settings(cert_file="", key_file=""), "certificate"),
        "refused": (network.settings(proxy=wrong_account), "the proxy refused"),
        "plainly": ({**network.settings(proxy=wrong_account), "base_url": plain}, "407"),
        "down": (network.settings(proxy="http://127.0.0.1:1"), "connect to the proxy"),
    }
    settings = job.settings({}, routes=[{"to": list(cases)}])
    settings["destinations"] = {
        name: {**destination, "on_unknown_outcome": "dead_letter"} for name, (destination, _) in cases.items()
    }
    job.produce(good(range(20)))
    member = job.start(settings)
    for name, (_, says) in cases.items():
        assert says in _until_held(member, name)["message"], name
    assert member.get("/readyz")[0] == 200
    assert member.stop() == 0
    assert network.vendor.served == []
    assert job.dead_letters() == []
    assert set(job.committed().values()) == {0}
    assert "wrong-one" not in member.text
    assert ACCOUNT.partition(":")[2] not in member.text


def _until_held(member: Member, name: str) -> dict[str, Any]:
    """Wait until a destination is held, and return its status."""

    def held() -> dict[str, Any] | None:
        found: dict[str, Any] = member.status()["destinations"].get(name, {})
        return found if found.get("state") in ("held", "probing") else None

    return member.wait(held, f"a hold of {name}")
