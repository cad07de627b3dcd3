"""Fixtures for all tests: real servers, names that no other test uses, and two checks that run with every async test.

`kafka` and `registry` are real and shared by a worker's whole session, so a test takes names of its own and leaves
what it finds: a broker that a test stops is started again after it. Where a server is not installed the test skips
with one line; with CI=true it fails.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

from tools.servers import Kafka, Registry, missing

TESTS = Path(__file__).parent
SECONDS = {"contract": 60, "simulation": 120, "integration": 120, "e2e": 180, "project": 120}
"""How long one test may take, by its folder, setting up included; elsewhere pyproject's 20 s hold."""

# Two busy cores must not decide whether a property holds, so there is no deadline on one example.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("fast", settings.get_profile("project"), max_examples=10)
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Name our own mark, and let no test fail for a connection that another test's server had when its loop ended.

    The garbage collector finds such a connection at any time, mostly in a test that has nothing to do with it. That
    the connector itself keeps no descriptors is proved by `integration/test_faults_long.py`.
    """
    config.addinivalue_line("markers", "slow: more than a second of a core with all its cases; not in `make fast`")
    for message in ("unclosed transport", "unclosed <socket"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}:ResourceWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder and by the servers they ask for, and give each its time."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in {"integration", "e2e"}:
            item.add_marker(pytest.mark.integration)
        if {"kafka", "registry"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)
        if folder in SECONDS and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS[folder]))


def _need_servers() -> None:
    fault = missing()
    if fault is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(fault, pytrace=False)
    pytest.skip(fault)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A running Apache Kafka of this worker's own; see `tools.servers.Kafka`."""
    _need_servers()
    server = Kafka(tmp_path_factory.mktemp("kafka"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A running schema registry of this worker's own; see `tools.servers.Registry`."""
    _need_servers()
    server = Registry(tmp_path_factory.mktemp("registry"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def _servers_stay_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start again the server that a test stopped."""
    yield
    for name in {"kafka", "registry"} & set(request.fixturenames):
        request.getfixturevalue(name).start()


@pytest.fixture
def fresh_name(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return names for topics, groups and subjects that no other test uses: `fresh_name("events")`."""
    numbers = itertools.count(1)
    test = "".join(char if char.isalnum() else "-" for char in request.node.name)[:60]
    own = f"{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}"
    return lambda stem: f"{stem}-{test}-{own}-{next(numbers)}"


@pytest.fixture
def topic_name(fresh_name: Callable[[str], str]) -> str:
    """The name of a topic that no other test uses; it is not created yet."""
    return fresh_name("topic")


@pytest.fixture(autouse=True)
def _any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as elsewhere, whatever terminal the tests run in."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(autouse=True)
def _async_habits(request: pytest.FixtureRequest) -> Iterator[None]:
    """Watch every async test: in tests/unit no code of the connector blocks the loop, and nowhere a task is left."""
    if not inspect.iscoroutinefunction(inspect.unwrap(getattr(request, "function", None) or (lambda: None))):
        yield
        return
    request.getfixturevalue("_no_task_is_left")
    if request.path.is_relative_to(TESTS / "unit"):
        with blockbuster_ctx("connector"):
            yield
    else:
        yield


@pytest.fixture
async def _no_task_is_left() -> AsyncIterator[None]:
    """Fail when a test ends and a task that it started still runs."""
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # what was cancelled or closed a moment ago may take a turn of the loop to end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, (
        f"tasks still run after the test: {sorted(task.get_name() + ' ' + repr(task.get_coro()) for task in left)}"
    )
