"""Certificates of a test's own: an authority, and who it vouches for. Each as a PEM file."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY: Final = dt.timedelta(days=1)


class Identity(NamedTuple):
    """The files of one certificate, of its key, and of both with the authority's after them."""

    cert: str
    key: str
    chain: str


class Authority:
    """An authority that is known only to clients that are given `file`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        own = self._signed(self._name, self._key.public_key(), authority=True)
        self.file = self._write(f"{name}.crt", own)

    def issue(self, name: str) -> Identity:
        """Return a certificate for this machine, for a server or a client with this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert = self._signed(_named(name), key.public_key(), authority=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        own = Path(self.file).read_bytes()
        return Identity(
            self._write(f"{name}.crt", cert),
            self._write(f"{name}.key", secret),
            self._write(f"{name}.pem", secret + cert + own),
        )

    def server(self, identity: Identity, *, client_wanted: bool = False) -> ssl.SSLContext:
        """Return a server's TLS settings; with `client_wanted` it takes no client without this authority's word."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(identity.cert, identity.key)
        if client_wanted:
            context.load_verify_locations(self.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _signed(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, content: bytes) -> str:
        path = self._folder / name
        path.write_bytes(content)
        return str(path)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
