"""The JPush simulator serves the vendor's published client for Java, which reads every answer into its own classes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connector.testing import JPushReportApi
from tests.integration.java_source import run_source
from tests.integration.job import Vendor


@pytest.mark.timeout(90)
def test_every_question_of_the_java_client_is_answered() -> None:
    """Figures where the client has fields for them, and the documented errors with their codes.

    Kills: an account that the client refuses to use; a number or an error in a form that the client does not read.
    """
    api = JPushReportApi()
    day = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%d")
    with Vendor(api) as vendor:
        printed = run_source(
            "JPushReport", "jpush", str(vendor.account["base_url"])[:-3], api.app_key, api.master_secret, day
        )
    found: dict[str, Any] = {}
    for line in printed.splitlines():
        name, _, answer = line.partition("\t")
        found[name] = json.loads(answer)
    (first, second) = found["received"]["received_list"]
    assert (first["msg_id"], first["android_received"], second["ios_apns_sent"]) == (1613113584, 584, 630)
    assert found["received/detail"]["received_list"][0]["android_pns_sent"] == 585
    assert found["messages"]["messages"][0]["android"]["target"] == 307
    assert found["messages/detail"]["received_list"][0]["jpush"]["target"] == 307
    assert found["status"] == {"a": {"status": 0}, "b": {"status": 0}}
    assert found["status of a day"] == {"a": {"status": 0}}
    assert found["users"]["items"][0]["time"] == day
    assert found["users of 2014"] == {"status": 400, "code": 3005}
    assert found["wrong secret"] == {"status": 401, "code": 3001}
    assert found["messages"]["responseWrapper"]["rateLimitQuota"] == 2400
