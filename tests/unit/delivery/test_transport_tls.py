"""The transport over TLS: a private authority, a client certificate, renewal, and the errors when they do not match."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from connector.config.loader import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.vendors.base import Request
from tests.unit.delivery.raw_server import Peer, accept_all, failure, serving


def certificate(folder: Path) -> HttpSettings:
    """Write a certificate for 127.0.0.1 that vouches for itself, and its key; return settings that use both."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return HttpSettings(ca_file=str(cert_file), cert_file=str(cert_file), key_file=str(key_file))


@pytest.fixture
def files(tmp_path: Path) -> HttpSettings:
    """Settings of an authority and a client certificate."""
    return certificate(tmp_path)


@pytest.fixture
def strict(files: HttpSettings) -> ssl.SSLContext:
    """A server that takes no client without the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(files.cert_file), files.key_file)
    context.load_verify_locations(files.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def known(files: HttpSettings) -> HttpTransport:
    """A transport with everything that the server asks for."""
    return HttpTransport("vendor", files, 1)


@pytest.fixture
def stranger() -> HttpTransport:
    """A transport that trusts the system's authorities only."""
    return HttpTransport("vendor", HttpSettings(), 1)


async def test_an_authority_and_a_client_certificate_of_ones_own(strict: ssl.SSLContext, known: HttpTransport) -> None:
    """With `ca_file`, `cert_file` and `key_file` a server is reached that demands all of them.

    Kills: a context that is built and not passed on.
    """
    async with serving(accept_all, strict) as server:
        url = f"https://127.0.0.1:{server.port}/"
        assert (await known.send(Request("POST", url, {}, b"[]"), 10.0)).body == b"[]"
        await known.close()


async def test_a_server_that_is_not_trusted_gets_nothing(strict: ssl.SSLContext, stranger: HttpTransport) -> None:
    """An untrusted certificate ends the connection before the request: an own message, and no unknown outcome."""
    async with serving(accept_all, strict) as server:
        error = await failure(stranger, Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"[]"))
        await stranger.close()
        assert not error.unknown_outcome
        assert error.reason.startswith(f"connect to 127.0.0.1:{server.port} failed: certificate not trusted: ")
        assert server.requests == []


def server_context(files: HttpSettings) -> ssl.SSLContext:
    """Return a server that has this certificate and demands it of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(files.cert_file), files.key_file)
    context.load_verify_locations(files.ca_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_renewed_certificates_are_used_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new authority and client certificate in the same files: the next request uses them, the old one is closed.

    Kills: reading the files once, at the start.
    """
    monkeypatch.setattr("connector.delivery.transport.CERTIFICATES_INTERVAL", 0.0)
    files = await asyncio.to_thread(certificate, tmp_path)
    made = HttpTransport("vendor", files, 2)
    async with serving(accept_all, server_context(files)) as server:
        assert (await made.send(Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"[1]"), 10.0)).body == b"[1]"
    await asyncio.to_thread(certificate, tmp_path)
    async with serving(accept_all, server_context(files)) as renewed:
        url = f"https://127.0.0.1:{renewed.port}/"
        assert (await made.send(Request("POST", url, {}, b"[2]"), 10.0)).body == b"[2]"
        await made.close()


async def test_a_request_under_way_ends_on_its_own_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewing certificates breaks no request that is under way."""
    monkeypatch.setattr("connector.delivery.transport.CERTIFICATES_INTERVAL", 0.0)
    files = await asyncio.to_thread(certificate, tmp_path)
    made = HttpTransport("vendor", files, 2)
    go_on = asyncio.Event()

    async def slow(peer: Peer) -> None:
        body = await peer.request()
        await go_on.wait()
        await peer.answer(body)

    async with serving(slow, server_context(files)) as server, serving(accept_all) as plain:
        first = asyncio.ensure_future(made.send(Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"[1]"), 10.0))
        await server.asked.wait()
        await asyncio.to_thread(certificate, tmp_path)
        assert (await made.send(Request("POST", plain.url("/"), {}, b"[2]"), 10.0)).body == b"[2]"
        go_on.set()
        assert (await first).body == b"[1]"
        await made.close()


async def test_certificates_that_cannot_be_read_leave_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file half written is no outage; the change that completes it is seen."""
    monkeypatch.setattr("connector.delivery.transport.CERTIFICATES_INTERVAL", 0.0)
    files = await asyncio.to_thread(certificate, tmp_path)
    made = HttpTransport("vendor", files, 2)
    async with serving(accept_all, server_context(files)) as server:
        request = Request("POST", f"https://127.0.0.1:{server.port}/", {}, b"[1]")
        assert (await made.send(request, 10.0)).status == 200
        await asyncio.to_thread(Path(str(files.cert_file)).write_text, "half")
        with capture_logs() as logs:
            assert (await made.send(request, 10.0)).status == 200
            assert (await made.send(request, 10.0)).status == 200
        assert [line["event"] for line in logs] == ["destination.certificates_unreadable"]
        await made.close()
