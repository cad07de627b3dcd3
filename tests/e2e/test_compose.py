"""compose.yaml without an engine: its mounts exist, its parts match, its configuration is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from connector.config.loader import DestinationSettings, Settings, load
from connector.testing.serve import SIMULATORS
from connector.vendors import kinds
from tools.servers import ROOT


def _read(path: Path) -> dict[str, Any]:
    """Return a YAML file's content."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


COMPOSE: Final = _read(ROOT / "compose.yaml")
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
MEMBER: Final = SERVICES["connector"]


@pytest.fixture(scope="module")
def settings() -> Settings:
    """The member's settings, as the connector reads them, without environment variables."""
    known = kinds(others=[])
    models: dict[str, type[DestinationSettings]] = {name: kind.settings for name, kind in known.items()}
    rules = {name: kind.rules for name, kind in known.items()}
    return load(ROOT / "compose" / "connector.yaml", models, {}, rules).settings


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return the repository's files and folders that a service mounts, by mount path."""
    parts = [volume.split(":") for volume in service.get("volumes", ()) if volume.startswith("./")]
    return {inside: outside for outside, inside, _ in parts}


def test_mounted_files_exist() -> None:
    """Every mounted file of the repository exists and is mounted read-only."""
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    mounted = [volume for volume in volumes if volume.startswith(".")]
    assert len(mounted) >= 5
    assert [volume for volume in mounted if not volume.endswith(":ro")] == []
    assert [volume for volume in mounted if not (ROOT / volume.split(":")[0]).exists()] == []


def test_dependencies_exist() -> None:
    """Each dependency is a service, and one that must be healthy has a health check."""
    for service in SERVICES.values():
        waits = service.get("depends_on", {})
        for name in waits:
            assert name in SERVICES
            if isinstance(waits, dict) and waits[name]["condition"] == "service_healthy":
                own_image = SERVICES[name]["image"] == "connector:local"  # its Dockerfile has a health check
                assert own_image or SERVICES[name]["healthcheck"]["test"]


def test_images_have_versions_and_ports_stay_on_this_machine() -> None:
    """Every image has a version, and every port is published on this machine only."""
    images = [service["image"] for service in SERVICES.values()]
    assert [image for image in images if ":" not in image or image.endswith(":latest")] == []
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_simulators_match_the_destinations(settings: Settings) -> None:
    """Each destination's address and account match the simulator of its vendor."""
    assert {each.vendor for each in settings.destinations.values()} == set(SIMULATORS)
    raw = _read(ROOT / "compose" / "connector.yaml")["destinations"]
    for name, destination in settings.destinations.items():
        address = urlsplit(destination.base_url)
        arguments = SERVICES[str(address.hostname)]["command"]
        assert arguments[:2] == ["simulate", destination.vendor]
        assert arguments[arguments.index("--port") + 1] == str(address.port)
        account = SIMULATORS[destination.vendor]().destination(f"http://{address.netloc}")
        assert {key: raw[name][key] for key in account} == account


def test_member_reaches_its_services(settings: Settings) -> None:
    """Broker, registry and topics are services of the file, and the stop grace period covers a drain."""
    server, port = str(settings.kafka.client["bootstrap.servers"]).split(":")
    assert f"INSIDE://:{port}" in SERVICES[server]["environment"]["KAFKA_LISTENERS"]
    assert settings.schema_registry is not None
    assert urlsplit(settings.schema_registry.url).hostname in SERVICES
    assert f"--topic={settings.kafka.topics[0]}" in SERVICES["topics"]["command"]
    assert settings.kafka.create_topics
    assert float(MEMBER["stop_grace_period"].rstrip("s")) >= settings.limits.drain_timeout + 8
    assert "/etc/connector/connector.yaml" in _mounts(MEMBER)
    assert settings.server.host == "0.0.0.0"


def test_console_shows_the_member(settings: Settings) -> None:
    """It reads the member's configuration, queries the member, and requires a token from other hosts."""
    console = SERVICES["console"]
    assert console["command"] == ["console", "-c", "/etc/connector/connector.yaml"]
    assert _mounts(console) == _mounts(MEMBER)
    own = settings.console
    assert own.members == [f"http://connector:{settings.server.port}"]
    assert (own.host, own.token is not None) == ("0.0.0.0", True)
    assert console["ports"] == [f"127.0.0.1:{own.port}:{own.port}"]
    assert urlsplit(console["environment"]["HEALTH_URL"]).port == own.port


def test_prometheus_and_grafana_are_provisioned(settings: Settings) -> None:
    """Prometheus scrapes the member and reads the rules; Grafana has Prometheus and the dashboard."""
    scraping = _read(ROOT / "compose" / "prometheus.yaml")
    assert scraping["scrape_configs"][0]["static_configs"] == [{"targets": [f"connector:{settings.server.port}"]}]
    rules = _mounts(SERVICES["prometheus"])["/etc/prometheus/rules"]
    assert scraping["rule_files"] == ["/etc/prometheus/rules/*.yaml"]
    assert list((ROOT / rules).glob("*.yaml"))
    mounts = _mounts(SERVICES["grafana"])
    provisioning = ROOT / mounts["/etc/grafana/provisioning"]
    (source,) = _read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert urlsplit(source["url"]).hostname in SERVICES
    (provider,) = _read(provisioning / "dashboards" / "connector.yaml")["providers"]
    assert list((ROOT / mounts[provider["options"]["path"]]).glob("*.json"))
