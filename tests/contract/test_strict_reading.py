"""What the vendor modules send, read by programs that none of this project wrote: Python's mail parser and aiohttp."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import BasicAuth, web
from multidict import MultiDict

from connector.config.loader import HttpSettings
from connector.delivery.transport import HttpTransport
from connector.records import Item
from connector.testing import SIMULATORS
from connector.vendors import kinds
from connector.vendors.base import Request, Response, Vendor, VendorEvent
from tests.contract.examples import EXAMPLES

NOW: Final = 1_700_000_000_123
ODD: Final = '名"\\\r\n--connector-boundary-0000000000000\r\n😀&=+ %'
"""Text that breaks a form, a query or a frame that is built carelessly; it holds the form's own boundary."""

ACCOUNTS: Final[dict[str, dict[str, Any]]] = {
    "jiguang": {"project_id": "p", "project_secret": "s:ä", "app_key": 'k"я'},
    "quick_audience": {
        "app_id": "a b&c=d+e/я",
        "access_key": "k?&=#",
        "access_secret": "s&=",
        "access_id": "i-я",
    },
    "mytracker": {"id_app": 666, "token": "skjdfASFasf03"},
    "jpush_report": {"app_key": "a", "master_secret": "m", "results_topic": "r"},
}


class Server:
    """Takes any request and keeps it, as aiohttp's server understands it: its body, or its form where wanted."""

    def __init__(self) -> None:
        self.reads_forms = False
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.forms: list[MultiDict[Any]] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Keep the request and its body; of a form also its fields."""
        self.requests.append(request)
        if self.reads_forms and request.content_type == "multipart/form-data":
            self.forms.append(MultiDict(await request.post()))
        self.bodies.append(await request.read())
        return web.json_response({})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server on a free port."""
    keeper = Server()
    runner = web.ServerRunner(web.Server(keeper.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    keeper.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield keeper
    await runner.cleanup()


def vendor(name: str, url: str) -> Vendor:
    """Return an account at a vendor, with a credential of odd characters where the vendor allows them."""
    kind = kinds()[name]
    account = ACCOUNTS.get(name) or SIMULATORS[name]().destination(url)
    return kind.build(kind.settings.model_validate({"vendor": name, **account, "base_url": url}))


async def send(server: Server, name: str, *events: dict[str, Any]) -> tuple[Request, web.BaseRequest, bytes]:
    """Send events in one request; return it as it was built, and as it arrived."""
    account = vendor(name, server.url)
    made = [VendorEvent(fields, f"event {number}", NOW) for number, fields in enumerate(events)]
    items: list[Item] = [account.encode(each, NOW) for each in made]
    request = account.request(account.group(made[0]), items, NOW)
    transport = HttpTransport(name, HttpSettings(), 1)
    try:
        response = await transport.send(request, 5)
    finally:
        await transport.close()
    assert isinstance(response, Response)
    return request, server.requests[-1], server.bodies[-1]


QUICK_AUDIENCE: Final = {
    "customerId": ODD,
    "eventCode": "buy",
    "eventTime": NOW,
    "extendAttributes": {ODD: ODD},
    "customerIdList": [{"customerId": ODD, "idMapping": "oaid"}],
}


async def test_quick_audiences_form_is_one_for_aiohttp(server: Server) -> None:
    """The form has both fields as text, whatever the events contain, and no other field."""
    server.reads_forms = True
    await send(server, "quick_audience", QUICK_AUDIENCE, QUICK_AUDIENCE)
    (form,) = server.forms
    assert list(form) == ["accessId", "eventMessageModelListJson"]
    assert form["accessId"] == "i-я"
    events = json.loads(form["eventMessageModelListJson"])
    assert [each["customerId"] for each in events] == [ODD, ODD]
    assert events[0]["extendAttributes"] == {ODD: ODD}
    assert events[0]["customerIdList"] == [{"customerId": ODD, "idMapping": "oaid"}]


async def test_quick_audiences_form_is_one_for_a_mail_parser(server: Server) -> None:
    """MIME as RFC 2046 has it: two parts, no preamble, no defect, named and of UTF-8."""
    _, arrived, body = await send(server, "quick_audience", QUICK_AUDIENCE)
    head = b"MIME-Version: 1.0\r\nContent-Type: " + arrived.headers["Content-Type"].encode() + b"\r\n\r\n"
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    parts = list(message.iter_parts())
    assert [part.defects for part in (message, *parts)] == [[]] * 3
    assert message.preamble in (None, "")
    named = {part["Content-Disposition"].params["name"]: part.get_content() for part in parts}
    assert named["accessId"] == "i-я"
    (event,) = json.loads(named["eventMessageModelListJson"])
    assert event["customerId"] == ODD
    assert {part.get_content_charset() for part in parts} == {"utf-8"}


async def test_quick_audiences_query_is_what_was_signed(server: Server) -> None:
    """Decoded by another library the query holds the raw values, and their signature is the header."""
    _, arrived, _ = await send(server, "quick_audience", QUICK_AUDIENCE)
    query = dict(parse_qsl(urlsplit(arrived.path_qs).query, strict_parsing=True))
    account = ACCOUNTS["quick_audience"]
    assert query == {"appId": account["app_id"], "timestamp": str(NOW), "accessKey": account["access_key"]}
    signed = sorted([*query.items(), ("accessSecret", account["access_secret"])])
    text = "&".join(f"{name}={value}" for name, value in signed)
    assert arrived.headers["Authorization"] == hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


async def test_jiguangs_report_is_json_behind_basic_authentication(server: Server) -> None:
    """The body is one JSON object, the credential decodes to project and secret."""
    properties = {"p": ODD, "l": [ODD], "n": 2**62, "b": False, "d": 1e-9}
    _, arrived, body = await send(
        server, "jiguang", {"cuid": 2**62, "eventName": "e", "itime": NOW, "properties": properties}
    )
    assert (arrived.method, arrived.path_qs) == ("POST", "/smartop/api/v1/events/report")
    assert arrived.content_type == "application/json"
    basic = BasicAuth.decode(arrived.headers["Authorization"], encoding="utf-8")
    assert (basic.login, basic.password) == ("p", "s:ä")
    report = json.loads(body)
    assert report["appKey"] == 'k"я'
    assert report["data"][0]["properties"] == properties


@pytest.mark.parametrize("method", ["registration", "login", "customEvent"])
async def test_mytrackers_import_is_a_bare_array_behind_a_raw_token(method: str, server: Server) -> None:
    """The address is the document's, the token stands alone in its header, the method is no parameter."""
    custom = {"customEventName": ODD, "customEventParams": {ODD: ODD}} if method == "customEvent" else {}
    _, arrived, body = await send(server, "mytracker", {"method": method, "customUserId": ODD, **custom})
    assert (arrived.method, arrived.path_qs) == ("POST", f"/v1/{method}Batch/?idApp=666")
    assert arrived.content_type == "application/json"
    assert arrived.headers["Authorization"] == "skjdfASFasf03"
    assert json.loads(body) == [{"customUserId": ODD, **custom, "eventTimestamp": NOW // 1000}]


JPUSH: Final = [
    ("Received", {"msg_id": 1613113584}, "/received", {"msg_ids": "1613113584"}),
    ("Messages", {"msg_id": 269978303}, "/messages", {"msg_ids": "269978303"}),
    (
        "Users",
        {"time_unit": "HOUR", "start": "2023-11-11 09", "duration": 3},
        "/users",
        {"time_unit": "HOUR", "start": "2023-11-11 09", "duration": "3"},
    ),
]


@pytest.mark.parametrize(("kind", "fields", "path", "query"), JPUSH)
async def test_jpushs_questions_have_the_documents_query(
    kind: str, fields: dict[str, Any], path: str, query: dict[str, str], server: Server
) -> None:
    """A space and a comma arrive as they are meant, and a GET has no body."""
    _, arrived, body = await send(server, "jpush_report", {"id": "q", "query": (f"connector.events.{kind}", fields)})
    assert (arrived.method, arrived.path, dict(arrived.query)) == ("GET", path, query)
    assert body == b""
    assert "Content-Type" not in arrived.headers


async def test_every_length_is_told_and_true(server: Server) -> None:
    """Each request with a body names its length, which is the body's, and is never chunked."""
    events: dict[str, dict[str, Any]] = {
        "jiguang": {"cuid": 1, "eventName": ODD, "itime": NOW},
        "quick_audience": QUICK_AUDIENCE,
        "mytracker": {"method": "login", "customUserId": ODD},
        "jpush_report": {
            "query": ("connector.events.MessageStatus", {"msg_id": 1, "registration_ids": [ODD], "date": None})
        },
    }
    for name in kinds():
        fields = events.get(name) or EXAMPLES[name](1)
        request, arrived, body = await send(server, name, fields)
        assert request.body == body
        assert arrived.headers["Content-Length"] == str(len(body))
        assert "Transfer-Encoding" not in arrived.headers
