"""Three brokers of which one is killed: the one that leads, and the one that coordinates the group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from connector.testing.faults import Fault
from tests.integration.job import Vendor, jobs, wait_for
from tests.integration.load import Load, each_at_least_once, long_or, repeated, settings_of, show
from tools.cluster import Cluster
from tools.servers import missing

ROUNDS: Final = long_or(4, 1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three running nodes."""
    fault = missing()
    if fault is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(fault, pytrace=False)
        pytest.skip(fault)
    nodes = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.stop()


@pytest.mark.kafka
@pytest.mark.promise("P1")
@pytest.mark.timeout(long_or(400, 150))
@pytest.mark.parametrize("who", ["leader", "coordinator"])
def test_a_node_that_dies_under_load_costs_nothing(
    who: str, cluster: Cluster, tmp_path: Path, topic_name: str, vendor: Vendor
) -> None:
    """The node that leads a partition, or coordinates the group, is killed: two members go on and nothing is lost.

    Kills: a commit that fails at a node that is gone and is not made again, a partition that is read on from elsewhere.
    """
    vendor.arm(Fault("latency", after=True, seconds=0.1))
    with jobs(cluster.nodes[1], tmp_path, topic_name) as job:
        with Load(job, 400) as load:
            members = [job.start(settings_of(job, vendor)) for _ in range(2)]
            for member in members:
                member.wait(lambda: member.status()["partitions"], "partitions")  # noqa: B023
            for _ in range(ROUNDS):
                dies = cluster.leaders(job.topic)[0] if who == "leader" else cluster.coordinator(job.group)
                cluster.nodes[dies].kill()
                seen = load.written
                load.until_written(seen + 500)
                before = len(vendor.cuids)
                wait_for(lambda: len(vendor.cuids) > before + 500, "events at the vendor")  # noqa: B023
                cluster.start()
            load.stop()
            job.until_done(members[0])
        assert [member.stop() for member in members] == [0, 0]
        each_at_least_once(vendor, load)
        assert job.dead_letters() == []
        show("node killed", who=who, rounds=ROUNDS, events=load.written, came_again=len(repeated(vendor)))
