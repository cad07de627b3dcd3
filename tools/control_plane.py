"""A real Kubernetes control plane for tests: etcd, API server and controllers, on 127.0.0.1.

There is no scheduler: the pods that `tools.kubelet` runs are put on the only node by it.
"""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import yaml

from tools.servers import START_SECONDS, TOOLS, Process, ServerError, free_ports

PROGRAM: Final = TOOLS / "bin" / "kubernetes"
NODE: Final = "node"
_MERGE: Final = "application/merge-patch+json"

Object = dict[str, Any]


class ApiError(Exception):
    """The API server refused a request. `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Requests to the API server, as its administrator. Each uses a connection of its own, so any thread may ask."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._token = token
        self._tls = ssl.create_default_context()
        # The server makes its certificate when it starts.
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    def call(self, method: str, path: str, body: Object | None = None) -> Object:
        """Return the answer's object. A PATCH is a merge patch. Raises `ApiError`, or `OSError` without an answer."""
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=30, context=self._tls)
        kind = _MERGE if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, "Accept": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise ApiError(response.status, answer.decode(errors="replace"))
        found: Object = json.loads(answer) if answer.startswith(b"{") else {}
        return found

    def items(self, path: str) -> list[Object]:
        """Return the objects of a list."""
        found: list[Object] = self.call("GET", path)["items"]
        return found


class ControlPlane:
    """The control plane, and one node. `kubeconfig` is for clients such as Helm."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        store, peer, port = free_ports(3)
        token = secrets.token_hex(16)
        self.api = Api(port, token)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(port, token)), encoding="utf-8")
        (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n", encoding="utf-8")
        client = f"http://127.0.0.1:{store}"
        parts = {
            "etcd": [str(folder / "etcd"), client, f"http://127.0.0.1:{peer}"],
            "apiserver": [f"--etcd-servers={client}", f"--secure-port={port}", *_api_server(folder)],
            "controllers": [str(self.kubeconfig)],
        }
        self._parts = {name: Process(name, [str(PROGRAM), name, *given], folder) for name, given in parts.items()}

    def start(self) -> None:
        """Start all parts. Returns when the API server answers and the node exists. Raises `ServerError`."""
        key = self._folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        self._parts["etcd"].launch()
        self._parts["apiserver"].launch()
        self._parts["apiserver"].wait_until(self._ready, "it was not ready")
        self._parts["controllers"].launch()
        self.api.call("POST", "/api/v1/nodes", {"metadata": {"name": NODE}})

    def stop(self) -> None:
        """Kill all parts. Their data are not needed any more."""
        for part in reversed(self._parts.values()):
            part.end(signal.SIGKILL)

    def create_namespace(self, name: str, **labels: str) -> None:
        """Create a namespace with labels of Pod Security (enforce=restricted); wait for its default ServiceAccount."""
        given = {f"pod-security.kubernetes.io/{mode}": level for mode, level in labels.items()}
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": given}})
        deadline = time.monotonic() + START_SECONDS
        while not self.api.items(f"/api/v1/namespaces/{name}/serviceaccounts"):
            if time.monotonic() > deadline:
                raise ServerError(f"the controllers made no ServiceAccount within {START_SECONDS:.0f} s")
            time.sleep(0.1)

    def _ready(self) -> bool:
        try:
            self.api.call("GET", "/readyz")
        except (OSError, http.client.HTTPException, ApiError):
            return False
        return True


def _api_server(folder: Path) -> list[str]:
    key = folder / "accounts.key"
    return [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        # It would publish its address in a Service, and refuses to for a loopback address.
        "--endpoint-reconciler-type=none",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=AlwaysAllow",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]


def _kubeconfig(port: int, token: str) -> Object:
    cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }
