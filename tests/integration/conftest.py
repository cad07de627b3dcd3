"""A job and a vendor for each integration test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.job import Job, Vendor, jobs
from tools.servers import Kafka


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    """Jiguang's simulator on a free port, well."""
    with Vendor() as server:
        yield server


@pytest.fixture
def job(kafka: Kafka, tmp_path: Path, topic_name: str, vendor: Vendor) -> Iterator[Job]:
    """A job of the test's own: a source topic of six partitions, and the connector's own topics.

    Its members end before the vendor does: one that connects to a server that is closing leaves a connection open.
    """
    with jobs(kafka, tmp_path, topic_name) as own:
        yield own
