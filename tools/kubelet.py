"""A kubelet without containers: runs the connector's pods of one namespace as processes of this machine.

It does what the connector can see of a kubelet: files of ConfigMaps and Secrets, also after they change; variables; an
address for each pod; readiness; SIGTERM, the grace period, and SIGKILL.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from base64 import b64decode
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tools.control_plane import NODE, Api, ApiError, Object
from tools.servers import ROOT

_TICK_SECONDS: Final = 0.25
_SYNC_SECONDS: Final = 1.0
_PROBE_SECONDS: Final = 2.0


class Exit(NamedTuple):
    """How a pod's process ended; `killed`: it outlived its grace period."""

    pod: str
    code: int
    killed: bool


@dataclass(slots=True)
class _Pod:
    name: str
    address: str
    spec: Object
    folder: Path
    process: subprocess.Popen[bytes]
    began: str
    asked_to_stop: float | None = None
    killed: bool = False
    reported: Object = field(default_factory=dict)


class Kubelet:
    """Runs the pods of one namespace, from entering the context until its end. Read `exits` to see how they ended."""

    def __init__(self, api: Api, namespace: str, folder: Path) -> None:
        self.exits: list[Exit] = []
        self.failures: list[str] = []
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}"
        self._folder = folder
        self._pods: dict[str, _Pod] = {}
        self._addresses = iter(
            f"127.{os.getpid() % 200 + 10}.{number // 250}.{number % 250 + 1}" for number in range(62500)
        )
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet")
        self._synced = 0.0

    def __enter__(self) -> Self:
        """Begin."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what still runs."""
        self._enough.set()
        self._thread.join(60)
        for pod in self._pods.values():
            pod.process.kill()
            pod.process.wait()

    def log(self, pod: str) -> str:
        """Return all that the pods of this name wrote."""
        return (self._folder / f"{pod}.log").read_text(encoding="utf-8", errors="replace")

    def _run(self) -> None:
        while not self._enough.wait(_TICK_SECONDS):
            try:
                self._turn()
            except (ApiError, OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))

    def _turn(self) -> None:
        seen = {each["metadata"]["uid"]: each for each in self._api.items(f"{self._path}/pods")}
        sync = time.monotonic() - self._synced > _SYNC_SECONDS
        for uid, manifest in seen.items():
            ended = manifest.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if uid not in self._pods and not ended:
                self._pods[uid] = self._start(manifest)
            elif uid in self._pods and sync and "deletionTimestamp" not in manifest["metadata"]:
                self._write_files(manifest["spec"], self._pods[uid].folder)
            if uid in self._pods:
                self._look_after(uid, manifest, self._pods[uid])
        for uid in self._pods.keys() - seen.keys():  # deleted by force
            self._pods[uid].process.kill()
            self._end(uid)
        if sync:
            self._synced = time.monotonic()

    def _start(self, manifest: Object) -> _Pod:
        name, spec = manifest["metadata"]["name"], manifest["spec"]
        if "nodeName" not in spec:
            body = {"metadata": {"name": name}, "target": {"kind": "Node", "name": NODE}}
            self._api.call("POST", f"{self._path}/pods/{name}/binding", body)
        folder = self._folder / manifest["metadata"]["uid"]
        self._write_files(spec, folder)
        address = next(self._addresses)
        (container,) = spec["containers"]
        own = {"metadata.name": name, "status.podIP": address}
        variables = {each["name"]: self._value(each, own) for each in container.get("env", [])}
        arguments = [_moved(each, spec, folder) for each in container["args"]]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "connector", *arguments],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "HOME": str(folder), **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return _Pod(name, address, spec, folder, process, _now())

    def _value(self, variable: Object, own: dict[str, str]) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        if "fieldRef" in source:
            return own[source["fieldRef"]["fieldPath"]]
        key = source["secretKeyRef"]
        secret = self._api.call("GET", f"{self._path}/secrets/{key['name']}")
        return b64decode(secret["data"][key["key"]]).decode()

    def _write_files(self, spec: Object, folder: Path) -> None:
        """Write the files of every volume. A file changes at once, as through the link that a kubelet turns."""
        for volume in spec["volumes"]:
            files: dict[str, bytes] = {}
            for source in volume.get("projected", {}).get("sources", [volume]):
                if "configMap" in source:
                    found = self._api.call("GET", f"{self._path}/configmaps/{source['configMap']['name']}")
                    for name, text in found["data"].items():
                        files[name] = _moved(text, spec, folder).encode()
                elif "secret" in source:
                    found = self._api.call("GET", f"{self._path}/secrets/{source['secret']['name']}")
                    files |= {name: b64decode(content) for name, content in found["data"].items()}
            place = folder / volume["name"]
            place.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                file = place / name
                if not file.exists() or file.read_bytes() != content:
                    (fresh := place / f".{name}").write_bytes(content)
                    fresh.replace(file)

    def _look_after(self, uid: str, manifest: Object, pod: _Pod) -> None:
        metadata = manifest["metadata"]
        code = pod.process.poll()
        if "deletionTimestamp" in metadata:
            grace = metadata["deletionGracePeriodSeconds"]
            if code is not None:
                self._end(uid)
                with suppress(ApiError):  # somebody else deleted it
                    self._api.call("DELETE", f"{self._path}/pods/{pod.name}", {"gracePeriodSeconds": 0})
                return
            if pod.asked_to_stop is None:
                pod.asked_to_stop = time.monotonic()
                pod.process.terminate()
            elif time.monotonic() - pod.asked_to_stop > grace:
                pod.killed = True
                pod.process.kill()
        self._report(pod, code)
        if code is not None:
            self._end(uid)

    def _end(self, uid: str) -> None:
        pod = self._pods.pop(uid)
        self.exits.append(Exit(pod.name, pod.process.wait(), pod.killed))

    def _report(self, pod: _Pod, code: int | None) -> None:
        """Tell the API server what changed of a pod's status."""
        (container,) = pod.spec["containers"]
        ready = code is None and pod.asked_to_stop is None and _is_ready(container, pod.address)
        phase = "Running"
        state: Object = {"running": {"startedAt": pod.began}}
        if code is not None:
            phase = "Failed" if code else "Succeeded"
            state = {"terminated": {"exitCode": code if code >= 0 else 128 - code, "startedAt": pod.began}}
        told = {"phase": phase, "ready": ready}
        if told == pod.reported:
            return
        conditions = {"PodScheduled": True, "Initialized": True, "ContainersReady": ready, "Ready": ready}
        status = {
            "phase": phase,
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "startTime": pod.began,
            "conditions": [
                {"type": name, "status": str(holds), "lastTransitionTime": _now()} for name, holds in conditions.items()
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": ready,
                    "started": code is None,
                    "restartCount": 0,
                    "state": state,
                }
            ],
        }
        self._api.call("PATCH", f"{self._path}/pods/{pod.name}/status", {"status": status})
        pod.reported = told


def _moved(text: str, spec: Object, folder: Path) -> str:
    """Return the text with the places of the mounts replaced by folders of this machine."""
    for mount in spec["containers"][0]["volumeMounts"]:
        text = text.replace(mount["mountPath"], str(folder / mount["name"]))
    return text


def _is_ready(container: Object, address: str) -> bool:
    """Return whether a container passes its readiness probe; without one it is ready."""
    probe: Any = container.get("readinessProbe")
    if probe is None:
        return True
    (port,) = (each["containerPort"] for each in container["ports"] if each["name"] == probe["httpGet"]["port"])
    connection = http.client.HTTPConnection(address, port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", probe["httpGet"]["path"])
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
