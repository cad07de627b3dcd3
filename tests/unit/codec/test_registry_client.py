"""The registry's client reaches the registry only by the way that the configuration names."""

import asyncio

import pytest

from connector.codec.registry import make_client
from connector.config.loader import RegistrySettings


async def test_a_proxy_comes_from_the_configuration_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY has no effect on the registry, as it has none on destinations; `client.proxy` has.

    Kills: the registry client's own reading of the environment.
    """
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    direct = await asyncio.to_thread(make_client, RegistrySettings(url=url))
    proxied = RegistrySettings(url="http://registry.invalid", client={"proxy": url})
    through = await asyncio.to_thread(make_client, proxied)
    for client in (direct, through):
        with pytest.raises(Exception, match="404"):
            await client.get_schema(7)
        await client._rest_client.session.aclose()  # type: ignore[attr-defined]
    server.close()
    assert [head.split(b" ")[1].partition(b"schemas")[0] for head in asked] == [b"/", b"http://registry.invalid/"]


async def test_tokens_are_fetched_without_the_environments_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that fetches OAuth tokens for the registry ignores HTTP_PROXY too.

    Kills: one of the registry's clients that reads the environment.
    """
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        body = b'{"access_token": "t", "token_type": "Bearer", "expires_in": 60}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    oauth = {"credentials.source": "OAUTHBEARER", "client.id": "i", "client.secret": "s", "scope": "a"}
    oauth |= {"issuer.endpoint.url": f"{url}/token", "logical.cluster": "c"}
    settings = RegistrySettings(url=url, client={f"bearer.auth.{key}": value for key, value in oauth.items()})
    client = await asyncio.to_thread(make_client, settings)
    await client.get_schema(7)
    server.close()
    rest = client._rest_client  # type: ignore[attr-defined]
    await rest.session.aclose()
    await rest.bearer_field_provider.client.aclose()
    assert [head.split(b" ")[1].partition(b"?")[0] for head in asked] == [b"/token", b"/schemas/ids/7"]
