"""The JPush simulator takes the requests of the vendor's published client for Python, `jpush` 3.4.1, as it sends them.

They differ from ours: a Content-Type with a colon on every request, commas that are percent-encoded, a number as text.
"""

from __future__ import annotations

from base64 import b64encode

import aiohttp
import pytest

from connector.testing import JPushReportApi, Simulator

HEADERS = {
    "user-agent": "jpush-api-python-client",
    "connection": "keep-alive",
    "content-type": "application/json;charset:utf-8",
    "accept-encoding": "gzip, deflate",
    "accept": "*/*",
}
REQUESTS = [
    ("GET", "/v3/received?msg_ids=1613113584%2C1229760629", None),
    ("GET", "/v3/received/detail?msg_ids=1613113584", None),
    ("GET", "/v3/messages?msg_ids=269978303", None),
    ("GET", "/v3/messages/detail?msg_ids=269978303", None),
    ("POST", "/v3/status/message", '{"msg_id": 327640176, "registration_ids": ["a", "b"]}'),
    ("POST", "/v3/status/message", '{"msg_id": 327640176, "registration_ids": ["a"], "date": "2026-11-20"}'),
    ("GET", "/v3/users?time_unit=MONTH&start=2014-06&duration=1", None),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_a_request_of_the_published_client_is_answered(method: str, path: str, body: str | None) -> None:
    """Every method of its report API gets figures, or the documented error in the form that it reads."""
    api = JPushReportApi()
    basic = b64encode(f"{api.app_key}:{api.master_secret}".encode()).decode()
    async with Simulator(api) as simulator, aiohttp.ClientSession() as session:
        headers = {**HEADERS, "authorization": f"Basic {basic}"}
        async with session.request(method, simulator.url + path, data=body, headers=headers) as answer:
            found = await answer.json()
            assert answer.status == (400 if "2014" in path else 200)
            assert found["error"]["code"] == 3005 if "2014" in path else found
        headers["authorization"] = "Basic wrong"
        async with session.request(method, simulator.url + path, data=body, headers=headers) as answer:
            assert answer.status == 401
            assert (await answer.json())["error"]["code"] == 3001
