"""A module that is left out until it is used."""

from __future__ import annotations

import subprocess
import sys


def test_a_run_does_not_load_what_only_oauth_needs() -> None:
    """Starting a member imports neither authlib nor what it is built on; OAuth of the registry's client loads it.

    Kills: 12 MB in each member for a way to sign in that few use.
    """
    script = """
import sys
import connector.cli.main, connector.cli.run, connector.runtime.app
from connector.codec.registry import make_client
from connector.config.models import RegistrySettings
loaded = lambda: {name.partition(".")[0] for name in sys.modules} & {"authlib", "cryptography", "joserfc"}
assert not loaded(), loaded()
oauth = {
    "bearer.auth.credentials.source": "OAUTHBEARER",
    "bearer.auth.client.id": "a",
    "bearer.auth.client.secret": "b",
    "bearer.auth.scope": "c",
    "bearer.auth.issuer.endpoint.url": "http://127.0.0.1:9/token",
    "bearer.auth.logical.cluster": "l",
    "bearer.auth.identity.pool.id": "p",
}
client = make_client(RegistrySettings(url="http://127.0.0.1:9", client=oauth))
from authlib.integrations.httpx_client import AsyncOAuth2Client
assert type(client._rest_client.bearer_field_provider.client) is AsyncOAuth2Client
"""
    subprocess.run([sys.executable, "-c", script], check=True)
