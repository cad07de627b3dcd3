"""What a reload applies and what it leaves, path by path; and the pieces that take other settings while they run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from connector import vendors
from connector.config.loader import Loaded, RetrySettings, StormSettings, load
from connector.delivery.pacing import Backoff, TokenBucket
from connector.delivery.states import HoldEvent, Holds, Kind
from connector.errors import ConfigurationError
from connector.pipeline.storms import StormGuard
from connector.runtime.reload import Configuration, sorted_out, stamps
from connector.telemetry.metrics import Metrics
from connector.testing import ManualClock
from tests.unit.vendors.acme import merge

BASE: dict[str, Any] = {
    "kafka": {"topics": ["t"], "group_id": "g", "client": {"bootstrap.servers": "localhost:9092"}},
    "destinations": {
        "jg": {"vendor": "jiguang", "project_id": "1", "project_secret": "secret-1", "app_key": "k"},
        "jg.eu": {"vendor": "jiguang", "project_id": "2", "project_secret": "secret-2", "app_key": "k"},
    },
}


def read(path: Path, change: dict[str, Any] | None = None) -> Loaded:
    """Write the configuration with a change, and load it."""
    path.write_text(yaml.safe_dump(merge(BASE, change or {})), encoding="utf-8")
    return load(path, {name: kind.settings for name, kind in vendors.kinds().items()}, {})


ROUTE = {"topics": ["t"], "schema": "a.B", "to": ["jg"]}


@pytest.mark.parametrize(
    ("change", "applied", "left"),
    [
        ({}, [], []),
        ({"destinations": {"jg": {"project_secret": "new"}}}, ["destinations.jg.project_secret"], []),
        ({"destinations": {"jg.eu": {"batch": {"records": 7}}}}, ["destinations.jg.eu.batch.records"], []),
        ({"destinations": {"jg": {"storm": "off"}}}, ["destinations.jg.storm"], []),
        ({"destinations": {"jg": {"codes": {"4101": "retry"}}}}, ["destinations.jg.codes.4101"], []),
        ({"destinations": {"jg": {"order": "key"}}}, [], ["destinations.jg.order"]),
        ({"destinations": {"jg": {"http": {"proxy": "http://p"}}}}, [], ["destinations.jg.http.proxy"]),
        ({"routes": [ROUTE]}, ["routes"], []),
        ({"unrouted": "skip"}, ["unrouted"], []),
        ({"log": {"level": "debug", "format": "json"}}, ["log.level"], ["log.format"]),
        ({"server": {"token": "token-of-16-letters", "port": 9}}, ["server.token"], ["server.port"]),
        ({"kafka": {"client": {"sasl.password": "x"}}}, [], ["kafka.client.sasl.password"]),
        ({"limits": {"buffer": "48MiB"}}, [], ["limits.buffer"]),
        (
            {"destinations": {"mt": {"vendor": "mytracker", "id_app": 1, "token": "t"}}, "routes": [ROUTE]},
            [],
            ["destinations.mt", "routes"],
        ),
        (
            {"destinations": {"jg": {"requests_per_second": 3, "max_in_flight": 2}}},
            ["destinations.jg.requests_per_second"],
            ["destinations.jg.max_in_flight"],
        ),
    ],
)
def test_each_change_is_applied_or_named(
    tmp_path: Path, change: dict[str, Any], applied: list[str], left: list[str]
) -> None:
    """Every path that differs is in exactly one of the two lists. Kills: a change that is dropped silently."""
    start, new = read(tmp_path / "a.yaml").settings, read(tmp_path / "b.yaml", change).settings
    assert sorted_out(start, start, new) == (applied, left)
    assert sorted_out(start, new, new) == ([], left), "what is left is named again, what is applied is not"


def test_a_fault_is_in_the_result_the_metrics_and_nowhere_else(tmp_path: Path) -> None:
    """A member that does not consume yet, and a faulty file, change nothing and are counted. Kills: an exception."""
    loaded, metrics, used = read(tmp_path / "c.yaml"), Metrics(), []
    clock = ManualClock()
    configuration = Configuration(loaded, metrics, None, lambda token, _hosts: used.append(token), clock)
    assert "does not consume yet" in str(asyncio.run(configuration.reload("port")).error)
    assert configuration.fault is None, "the file may be right"
    configuration = Configuration(loaded, metrics, None, lambda token, _hosts: used.append(token), clock)
    configuration.running(object(), object())  # type: ignore[arg-type]  # neither is reached
    (tmp_path / "c.yaml").write_text("kafka: 1", encoding="utf-8")
    assert "kafka" in str(asyncio.run(configuration.reload("port")).error)
    assert (configuration.loaded, used) == (loaded, [])
    since = clock.wall()
    clock.advance(60)
    asyncio.run(configuration.reload("watch"))
    assert configuration.fault is not None
    assert ("kafka" in configuration.fault.message, configuration.fault.since) == (True, since)
    assert metrics.total(metrics.config_reload_failed) == 1
    assert metrics.config_reloads.labels("failed")._value.get() == 2
    with pytest.raises(ConfigurationError):
        loaded.read_again()


@pytest.mark.promise("P14")
def test_an_unexpected_exception_is_a_fault_of_the_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a vendor's module raises over new settings is in the log, the metrics and the answer, with its place.

    Kills: a SIGHUP that does nothing and says so nowhere but in `task.restarted`; a POST that answers 500.
    """

    def broken() -> object:
        raise KeyError("s3cr3t")

    configuration = Configuration(read(tmp_path / "u.yaml"), Metrics(), None, lambda *_: None, ManualClock())
    configuration.running(object(), object())  # type: ignore[arg-type]  # neither is reached
    monkeypatch.setattr(vendors, "kinds", broken)
    found = asyncio.run(configuration.reload("signal"))
    assert str(found.error).startswith("unexpected KeyError at line")
    assert configuration.fault is not None
    assert "s3cr3t" not in str(found)


def test_a_vendor_is_built_again_whenever_its_secret_is_another_than_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the secret that is in use, not the one that was read last.

    Kills: a destination that keeps a denied secret for ever, because a reload, or a build that failed, came between.
    """
    secret, path = tmp_path / "secret", tmp_path / "e.yaml"
    secret.write_text("one", encoding="utf-8")
    loaded = read(path, {"destinations": {"jg": {"project_secret": "${file:secret}"}}})
    configuration = Configuration(loaded, Metrics(), None, lambda _token, _hosts: None, ManualClock())
    worker = SimpleNamespace(use=lambda *_: None)
    pipeline = SimpleNamespace(workers={"jg": worker, "jg.eu": worker}, use=lambda *_: None)
    configuration.running(pipeline, SimpleNamespace(look_into=lambda *_, **__: None))  # type: ignore[arg-type]
    assert configuration.renewed("jg") is None
    secret.write_text("two", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(vendors, "kinds", dict)
        with pytest.raises(KeyError):
            configuration.renewed("jg")
    assert configuration.renewed("jg") is not None
    assert configuration.renewed("jg") is None
    secret.write_text("three", encoding="utf-8")
    assert asyncio.run(configuration.reload("port")).error is None
    assert configuration.renewed("jg") is None
    secret.write_text("two", encoding="utf-8")
    assert configuration.renewed("jg") is not None


def test_a_change_of_a_secret_file_is_seen(tmp_path: Path) -> None:
    """The file, and every secret file that it names, have a stamp; a missing one has none."""
    secret = tmp_path / "secret"
    path = tmp_path / "d.yaml"
    path.write_text("a: ${file:secret}\nb: ${file:/nowhere/else}\n", encoding="utf-8")
    before = stamps(path)
    assert before == {str(path): before[str(path)], str(secret): None, "/nowhere/else": None}
    secret.write_text("x", encoding="utf-8")
    assert stamps(path) != before


def test_a_lower_limit_counts_from_now_on() -> None:
    """After a change the next request waits for its turn by the new limit, whatever the old one gave."""
    bucket = TokenBucket(100)
    now = 10.0
    for _ in range(50):
        now += bucket.delay(now)
        bucket.take(now)
    bucket.set_limit(2, now)
    assert bucket.delay(now) == pytest.approx(0.5, abs=0.02)
    rates = [bucket.rate]
    bucket.set_limit(None, now)
    rates.append(bucket.rate)
    bucket.set_limit(4, now)
    bucket.set_share(0.5, now)
    assert [*rates, bucket.rate] == [2, None, 2]


def test_a_smaller_window_keeps_the_newest_outcomes() -> None:
    """Other storm settings judge by the newest outcomes; `off` never trips. Kills: a window that keeps its old size."""
    guard = StormGuard(StormSettings(share=0.5, records=100))
    assert not any(guard.refused("refused", "1") for _ in range(40))
    guard.accepted(10)
    guard.use(StormSettings(share=0.5, records=20))
    assert guard.refused("refused", "1"), "ten of the last twenty were refused, and the eleventh is one too many"
    guard.use("off")
    assert not any(guard.refused("refused", "1") for _ in range(1000))


def test_probes_are_due_now_on_demand() -> None:
    """Holds that are probed become due, one of an operator does not. Kills: a probe of what a person holds."""
    backoff = Backoff(RetrySettings(initial=100, max=100), Random(1))
    holds = Holds(backoff)
    assert not holds.probe_now(5.0)
    holds.begin(Kind.OPERATOR, None, "by hand", now=0.0, wall=0.0)
    assert not holds.probe_now(5.0)
    holds.begin(Kind.OUTAGE, None, "HTTP 500", now=0.0, wall=0.0)
    assert holds.probe_now(5.0)
    assert [hold.next_probe for hold in holds.blocking("group")].count(5.0) == 1
    assert [hold.kind for hold in holds.release(Kind.OPERATOR)] == [Kind.OPERATOR]
    assert holds.probe_is_due("group", 5.0)
    assert holds.apply(HoldEvent.JUDGED, "group", holds.start_probe("group"), now=5.0)
