"""A real Prometheus for tests: it scrapes members, evaluates the alert rules and answers queries."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.chart import CHART, tool
from tests.integration.job import wait_for
from tools.servers import free_ports


class Prometheus:
    """A client of a running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current series of an expression, each with its labels and its value."""
        answer = self._get(f"query?{urllib.parse.urlencode({'query': expression})}")
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, expression: str) -> float | None:
        """Return the value of an expression with one series, or None."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules with their state and health."""
        groups = self._get("rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=10) as answer:
            content: dict[str, Any] = json.load(answer)
        return content


@contextmanager
def prometheus(folder: Path, members: Sequence[int]) -> Iterator[Prometheus]:
    """Run Prometheus for the members on these ports, with the chart's rules, until the test ends."""
    binary = tool("prometheus")
    (port,) = free_ports(1)
    targets = [f"127.0.0.1:{member}" for member in members]
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "1s"},
        "rule_files": [str(CHART / "rules" / "connector.yaml")],
        "scrape_configs": [{"job_name": "growth", "static_configs": [{"targets": targets}]}],
    }
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [binary, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=warn"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    server = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: process.poll() is not None or _ready(server), "Prometheus")
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _ready(server: Prometheus) -> bool:
    """Whether it has scraped every member once."""
    try:
        return server.value("min(up)") == 1
    except OSError:
        return False
