"""The chart on a real API server: Helm installs, upgrades and rolls back; the pods' commands run as processes."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from connector.testing.faults import Fault
from tests.e2e.chart import CHART, CRDS, CUSTOM, custom_schemas, of_kind, pods, render, tool
from tests.integration.job import DESTINATION, Job, Vendor, wait_for
from tests.integration.load import Load
from tools.control_plane import PROGRAM, ApiError, ControlPlane, Object
from tools.kubelet import Kubelet
from tools.servers import TOOLS

RELEASE: Final = "r"
NAME: Final = "r-connector"
RATE: Final = 100
VALUES: Final = {file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").glob("*-values.yaml"))}
UIDS: Final = 1_000_650_000
"""The first user id of a namespace's range on OpenShift, which sets it in every pod."""

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for this module."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM.relative_to(TOOLS.parent)} is not built: run make cluster (needs Go, half an hour)")
    server = ControlPlane(tmp_path_factory.mktemp("kubernetes"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Release:
    """A release of the chart in a namespace of its own, which enforces Pod Security's `restricted`."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.path = f"/apis/apps/v1/namespaces/{namespace}"
        self.core = f"/api/v1/namespaces/{namespace}"
        self._plane = plane
        self._namespace = namespace
        self._folder = folder
        plane.create_namespace(namespace, enforce="restricted", warn="restricted")
        self.call = plane.api.call

    def helm(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command of Helm for the release."""
        place = ("--kubeconfig", str(self._plane.kubeconfig), "--namespace", self._namespace)
        home = {name: str(self._folder / "helm") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
        return subprocess.run(
            [tool("helm"), command, RELEASE, *arguments, *place],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), **home},
        )

    def apply(self, command: str, values: Object, *more: str) -> None:
        """Install or upgrade with these values, and wait until the pods are ready."""
        file = self._folder / "values.yaml"
        file.write_text(json.dumps(values), encoding="utf-8")
        self.succeed(
            command, str(CHART), "--values", str(file), "--wait", "--wait-for-jobs", "--timeout", "120s", *more
        )

    def succeed(self, command: str, *arguments: str) -> None:
        """Run one command of Helm. Fails if it fails, or warns about Pod Security."""
        done = self.helm(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "PodSecurity" not in done.stderr

    def members(self) -> dict[str, Object]:
        """Return the members' pods that are not being deleted, by name."""
        found = self.call("GET", f"{self.core}/pods?labelSelector=app.kubernetes.io/component={NAME}")["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def ready(self, count: int) -> dict[str, str]:
        """Wait until so many members are there, all of them ready, and return their pods' names by uid."""

        def names() -> dict[str, str] | None:
            found = self.members()
            ready = {pod["metadata"]["uid"]: name for name, pod in found.items() if _is_ready(pod)}
            return ready if len(found) == len(ready) == count else None

        return wait_for(names, f"{count} ready members", 120)

    def scale(self, kind: str, count: int) -> dict[str, str]:
        """Scale the members and wait until they are ready."""
        self.call("PATCH", f"{self.path}/{kind}/{NAME}/scale", {"spec": {"replicas": count}})
        return self.ready(count)

    def evict(self, pod: str) -> bool:
        """Ask to evict a pod, as a drain of its node does. False: the disruption budget forbids it now."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        try:
            self.call("POST", f"{self.core}/pods/{pod}/eviction", body)
        except ApiError as error:
            if error.status != 429 or "disruption budget" not in str(error):
                raise
            return False
        return True


def _is_ready(pod: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))


@pytest.fixture
def release(plane: ControlPlane, tmp_path: Path, fresh_name: Callable[[str], str]) -> Release:
    """A release that is not installed yet."""
    return Release(plane, fresh_name("n")[-50:].lower().strip("-").replace("_", "-"), tmp_path)


@contextmanager
def _running(plane: ControlPlane, release: Release, folder: Path) -> Iterator[Kubelet]:
    """Run the release's pods. At the end every process has ended cleanly, within its grace period."""
    with Kubelet(plane.api, release.core.rpartition("/")[2], folder / "kubelet") as kubelet:
        yield kubelet
        release.helm("uninstall", "--wait", "--timeout", "90s")
    assert kubelet.exits, kubelet.failures
    assert [each for each in kubelet.exits if each.code or each.killed] == []


def _values(job: Job, vendor: Vendor, release: Release) -> Object:
    """Return values over the job's Kafka and the vendor, the account's secrets in the Secret of the chart's default."""
    config = job.settings(vendor.destination, limits={"drain_timeout": "20s"})
    # Here all pods share one network, so each listens on its own address.
    config["server"] = {"host": "${POD_IP}"}
    account = config["destinations"][DESTINATION]
    secret = {key: account[key] for key in ("project_secret", "app_key")}
    for key in secret:
        account[key] = f"${{file:/run/secrets/connector/{key}}}"
    body = {"metadata": {"name": "connector-credentials"}, "stringData": secret}
    release.call("POST", f"{release.core}/secrets", body)
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return {"config": config, "env": [address], "replicaCount": 2, "partitions": 6, "topicsJob": {"enabled": True}}


@pytest.mark.parametrize("kind", ["deployments", "statefulsets"])
def test_release_changes_lose_and_repeat_nothing(
    plane: ControlPlane, release: Release, job: Job, vendor: Vendor, tmp_path: Path, kind: str
) -> None:
    """Under load: install, `helm test`, upgrade, rollback, scale and eviction; each event arrives once.

    Kills: a stop that lets go of requests which the vendor accepts.
    """
    values = {**_values(job, vendor, release), "staticMembership": kind == "statefulsets"}
    with _running(plane, release, tmp_path) as kubelet, Load(job, RATE) as load:
        release.apply("install", values)
        first = release.ready(2)
        release.succeed("test")
        vendor.arm(Fault("latency", seconds=0.5))  # so that every stop finds requests under way

        changed = copy.deepcopy(values)
        changed["config"]["destinations"][DESTINATION]["max_in_flight"] = 2
        release.apply("upgrade", changed)
        second = release.ready(2)
        assert not first.keys() & second.keys(), "what needs a restart replaces the pods"

        release.succeed("rollback", "1", "--wait", "--timeout", "120s")
        third = release.ready(2)
        assert not second.keys() & third.keys()

        reloaded = copy.deepcopy(values)
        reloaded["config"]["destinations"][DESTINATION]["requests_per_second"] = 900
        release.apply("upgrade", reloaded)
        assert release.ready(2) == third, "what a reload applies restarts no pod"
        for name in third.values():
            wait_for(partial(_has_reloaded, kubelet, name), f"a reload by {name}")

        assert release.scale(kind, 3).keys() > third.keys()
        left, other = release.scale(kind, 2).values()
        wait_for(partial(release.evict, left), "the disruption budget's count of ready pods")
        assert not release.evict(other), "the budget allows one disruption at a time"
        assert other in release.ready(2).values()

        vendor.recover()
        load.stop()
        wait_for(lambda: job.committed() == job.ends(), "commits up to the ends")
    assert set(vendor.cuids) == load.cuids
    assert set(vendor.cuids.values()) == {1}
    assert job.dead_letters() == []


def _has_reloaded(kubelet: Kubelet, pod: str) -> bool:
    return "config.reloaded" in kubelet.log(pod)


def test_pods_that_break_the_restricted_profile_are_refused(release: Release, tmp_path: Path) -> None:
    """The namespace's Pod Security is enforced: with root allowed, the ReplicaSet gets no pod and says why."""
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps({"podSecurityContext": {"runAsUser": 0}}), encoding="utf-8")
    done = release.helm("install", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stderr
    assert "would violate PodSecurity" in done.stderr

    def refusal() -> str | None:
        (found,) = release.call("GET", f"{release.path}/deployments")["items"]
        conditions = found.get("status", {}).get("conditions", [])
        return next((each["message"] for each in conditions if each["type"] == "ReplicaFailure"), None)

    assert 'violates PodSecurity "restricted' in wait_for(refusal, "the ReplicaSet's failure")
    assert release.members() == {}


@pytest.fixture(scope="module")
def _platform(plane: ControlPlane) -> None:
    """What the values files expect of a cluster: the definitions of KEDA and Prometheus' operator, a priority."""
    schemas = custom_schemas()
    priority = {"metadata": {"name": "high"}, "value": 1000}
    plane.api.call("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", priority)
    for kind in CUSTOM:
        body = yaml.safe_load((CRDS / f"{kind}.yaml").read_text(encoding="utf-8"))
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        plane.api.call("POST", path, body)
    for api, kind in schemas:

        def served(path: str = f"/apis/{api}", kind: str = kind) -> bool:
            try:
                return any(each["kind"] == kind for each in plane.api.call("GET", path)["resources"])
            except ApiError:
                return False

        wait_for(served, f"{kind} in {api}")


@pytest.mark.usefixtures("_platform")
@pytest.mark.parametrize("name", ["default", *VALUES])
def test_values_files_are_admitted(release: Release, name: str) -> None:
    """The API server admits all that a values file renders, with unknown fields refused and `restricted` enforced.

    So it does with a user and a group from the namespace's range, which OpenShift adds.
    """
    file = VALUES.get(name, CHART / "values.yaml")
    rendered = render(file)
    own_accounts = {each["metadata"]["name"] for each in of_kind(rendered, "ServiceAccount")} | {"default"}
    for account in {spec["serviceAccountName"] for spec in pods(rendered)} - own_accounts:
        release.call("POST", f"{release.core}/serviceaccounts", {"metadata": {"name": account}})
    release.succeed("install", str(CHART), "--values", str(file), "--no-hooks")
    for spec in pods(rendered):
        for added in ({}, {"runAsUser": UIDS, "fsGroup": UIDS, "seLinuxOptions": {"level": "s0:c26,c5"}}):
            own: dict[str, Any] = {**spec, "securityContext": {**spec["securityContext"], **added}}
            body = {"metadata": {"name": "admitted"}, "spec": own}
            release.call("POST", f"{release.core}/pods?dryRun=All&fieldValidation=Strict", body)
    wanted = sum(each["spec"].get("replicas", 1) for each in rendered if each["kind"] in ("Deployment", "StatefulSet"))
    wait_for(lambda: len(release.call("GET", f"{release.core}/pods")["items"]) == wanted, f"{wanted} pods")
