"""The chart: every values file lints, renders and is valid for Kubernetes; bad values are refused with a message."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema  # type: ignore[import-untyped]  # as kubernetes_validate, which brings it
import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from connector.config.loader import load
from connector.config.secrets import is_secret
from connector.telemetry.redaction import names_secret
from connector.vendors import kinds
from tests.e2e.chart import (
    CHART,
    CUSTOM,
    KUBERNETES,
    RELEASE,
    VERSIONS,
    Manifest,
    configuration,
    container,
    custom_schemas,
    helm,
    of_kind,
    pods,
    refusal,
    render,
    workloads,
)
from tools.chart import README, SCHEMA, SECRETS, readme, secrets, text

VALUES: Final = {file.name.removesuffix("-values.yaml"): file for file in sorted((CHART / "ci").glob("*-values.yaml"))}
FILES: Final = {"default": (CHART / "values.yaml"), **VALUES}

CONFIG: Final[dict[str, Any]] = {
    "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "kafka:9092"}},
    "destinations": {"tracker": {"vendor": "mytracker", "id_app": 1, "token": "${TOKEN}"}},
}


def _config(section: str, **changes: Any) -> dict[str, Any]:
    """Return the configuration with changed keys in one section."""
    return {**CONFIG, section: {**CONFIG.get(section, {}), **changes}}


def _tracker(**changes: Any) -> dict[str, Any]:
    """Return the configuration with changed keys in its destination."""
    return _config("destinations", tracker={**CONFIG["destinations"]["tracker"], **changes})


def _client(**changes: Any) -> dict[str, Any]:
    """Return the configuration with changed properties of librdkafka."""
    return _config("kafka", client={**CONFIG["kafka"]["client"], **changes})


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    """The manifests of every values file."""
    return {name: render(file) for name, file in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_values_pass_lint(name: str) -> None:
    """`helm lint --strict` accepts every values file that the chart ships."""
    done = helm("lint", "--strict", "--kube-version", KUBERNETES, str(CHART), "--values", str(FILES[name]))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_manifests_are_valid_for_kubernetes(name: str, version: str, rendered: dict[str, list[Manifest]]) -> None:
    """Every manifest is valid for Kubernetes' own schema, without unknown fields, and names are unique."""
    for manifest in rendered[name]:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in rendered[name]]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("kind", CUSTOM)
def test_custom_resources_are_valid_for_their_operators(kind: str, rendered: dict[str, list[Manifest]]) -> None:
    """Every resource of KEDA and the Prometheus operator is valid for their definitions, without unknown fields."""
    schemas = custom_schemas()
    found = [manifest for manifests in rendered.values() for manifest in of_kind(manifests, kind)]
    assert found
    for manifest in found:
        jsonschema.validate(manifest, schemas[manifest["apiVersion"], kind])


@pytest.mark.parametrize("name", FILES)
def test_pods_meet_the_restricted_profile(name: str, rendered: dict[str, list[Manifest]]) -> None:
    """No pod runs as root, writes to its root file system, gains privileges or mounts an API token."""
    found = pods(rendered[name])
    assert len(found) >= 2
    for each in found:
        assert each["securityContext"]["runAsNonRoot"] is True
        assert each["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert each["automountServiceAccountToken"] is False
        for each_container in each["containers"]:
            own = each_container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", FILES)
def test_connector_accepts_the_rendered_configuration(
    name: str, rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    """The connector accepts the ConfigMap's file, with secrets at the pod's paths."""
    (workload, *_) = workloads(rendered[name])
    member = container(workload)
    variables = {variable["name"]: "a-value-of-the-cluster" for variable in member["env"]}
    content = configuration(rendered[name])["connector.yaml"]
    for key in re.findall(r"\$\{file:/run/secrets/connector/([^}]+)\}", content):
        (tmp_path / key).write_text(f"a-value-of-{key}", encoding="utf-8")
    path = tmp_path / "connector.yaml"
    path.write_text(content.replace("/run/secrets/connector", str(tmp_path)), encoding="utf-8")
    known = kinds(others=[])
    models, rules = {n: kind.settings for n, kind in known.items()}, {n: kind.rules for n, kind in known.items()}
    assert load(path, models, variables, rules).settings.destinations
    server = json.loads(content)["server"]
    assert server["host"] == "::"
    assert member["ports"] == [{"name": "http", "containerPort": server["port"]}]
    probes = {probe: member[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_schema_is_current() -> None:
    """values.schema.json and README.md are what `make docs` would write, and have every value."""
    assert SCHEMA.read_text(encoding="utf-8") == text(), "run make docs"
    assert README.read_text(encoding="utf-8") == readme(), "run make docs"
    assert SECRETS.read_text(encoding="utf-8") == secrets(), "run make docs"
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(values) | {"global"} == set(json.loads(text())["properties"])
    assert [name for name in values if f"| `{name}" not in readme()] == []


EXPECTED: Final = (
    *("replicaCount", "image", "config", "existingSecret", "resources", "terminationGracePeriodSeconds"),
    *("perDestination", "autoscaling", "console", "podMonitor", "prometheusRule", "networkPolicy"),
    "podDisruptionBudget",
)
TOO_SHORT: Final = {"config": _config("limits", drain_timeout="1m"), "terminationGracePeriodSeconds": 67}
REFUSED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "grace": ({"terminationGracePeriodSeconds": 29}, "killed while they drain"),
    "grace_of_a_minute": (TOO_SHORT, "at least 68"),
    "unknown_value": ({"replicas": 2}, "'replicas' not allowed"),
    "unknown_key": ({"config": _tracker(tokne="${TOKEN}")}, "'tokne' not allowed"),
    "unknown_section": ({"config": {**CONFIG, "limit": {}}}, "'limit' not allowed"),
    "secret": ({"config": _tracker(token="a-real-one")}, "config.destinations.tracker.token contains a secret"),
    "secret_default": ({"config": _tracker(token="${TOKEN:-a-real-one}")}, "token contains a secret"),
    "secret_of_kafka": ({"config": _client(**{"sasl.password": "a-real-one"})}, "sasl.password contains a secret"),
    "secret_address": (
        {"config": _tracker(http={"proxy": "http://me:a-real-one@proxy"})},
        "credentials in its address",
    ),
    **{
        f"secret_address_{number}": ({"config": _client(**{"bootstrap.servers": f"x://{place}"})}, says)
        for number, (place, says) in enumerate(
            [
                ("me:a-real-one$$@host", "credentials in its address"),
                ("me:${A:-a-real-one}@host", "credentials in its address"),
                ("me:${A}a-real-one@host", "credentials in its address"),
                ("host/?a-real-one", "query in its address"),
                ("host/?a=${A}&b=$a-real-one", "query in its address"),
                ("host/#key=a-real-one", "query in its address"),
            ]
        )
    },
    "secret_of_an_expression": (
        {
            "config": {
                **CONFIG,
                "routes": [{"to": ["tracker"], "fields": {"x": {"cel": "hmac_sha256(event.id, 'a-real-one')"}}}],
            }
        },
        "fields.x.cel makes an HMAC",
    ),
    "secret_number": ({"config": _client(**{"sasl.password": 12345678})}, "sasl.password contains a secret"),
    "secret_passphrase": (
        {"config": _client(**{"sasl.oauthbearer.assertion.private.key.passphrase": "a-real-one"})},
        "private.key.passphrase contains a secret",
    ),
    "secret_key": ({"config": _client(**{"ssl.key.pem": "a-real-one"})}, "ssl.key.pem contains a secret"),
    "secret_of_tomorrow": ({"config": _client(**{"some.new.property": "a-real-one"})}, "not known to be harmless"),
    "secret_of_the_registry": (
        {"config": {**CONFIG, "schema_registry": {"url": "http://r", "client": {"bearer.auth.token": "a-real-one"}}}},
        "schema_registry.client.bearer.auth.token contains a secret",
    ),
    "secret_user": ({"config": _tracker(http={"proxy": "http://a-real-one@proxy"})}, "credentials in its address"),
    "secret_query": (
        {"config": {**CONFIG, "schema_registry": {"url": "http://registry/?api_key=a-real-one"}}},
        "a query in its address",
    ),
    "secret_address_of_a_variable": (
        {"env": [{"name": "PROXY", "value": "http://a-real-one@proxy"}]},
        "credentials in its address",
    ),
    **{
        f"secret_variable_{number}": ({"env": [{"name": "UPSTREAM", "value": value}]}, says)
        for number, (value, says) in enumerate(
            [
                ("me:a-real-one@host", "credentials in its address"),
                ("host:9092,me:a-real-one@host:9092", "credentials in its address"),
                ("me:${A:-a-real-one}@host", "credentials in its address"),
                ("//me:a-real-one@host", "credentials in its address"),
                ("http://me:a-real-one/ and more@host", "credentials in its address"),
                ("jdbc:db://host/x;password=a-real-one", "a secret behind its name"),
                ('Module required user="me" password="a-real-one";', "a secret behind its name"),
                ("-----BEGIN PRIVATE KEY-----\na-real-one", "a private key"),
            ]
        )
    },
    "secret_variable_of_a_sidecar": (
        {"extraContainers": [{"name": "proxy", "env": [{"name": "API_TOKEN", "value": "a-real-one"}]}]},
        "extraContainers[0].env[0].value (API_TOKEN) contains a secret",
    ),
    "secret_argument": (
        {"initContainers": [{"name": "wait", "args": ["--user=me", "--password=a-real-one"]}]},
        "initContainers[0].args[1] contains a secret behind its name",
    ),
    "secret_address_of_prometheus": (
        {"autoscaling": {"prometheusAddress": "http://me:a-real-one@prometheus"}},
        "autoscaling.prometheusAddress contains credentials",
    ),
    "secret_file": (
        {"files": {"ca.pem": "-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----\na-real-one"}},
        "files.ca.pem contains a private key",
    ),
    "container": ({"extraContainers": [{"name": "connector"}]}, "extraContainers has a container named connector"),
    "container_twice": (
        {"initContainers": [{"name": "a"}], "extraContainers": [{"name": "a"}]},
        "extraContainers has a container named a",
    ),
    "volume": ({"extraVolumes": [{"name": "config", "emptyDir": {}}]}, "extraVolumes has a volume named config"),
    "volume_twice": ({"extraVolumes": [{"name": "a"}, {"name": "a"}]}, "extraVolumes has a volume named a"),
    "mount_without_volume": ({"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]}, "is not in extraVolumes"),
    "mount_over_the_configuration": (
        {"extraVolumes": [{"name": "a"}], "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/connector/"}]},
        "extraVolumeMounts has /etc/connector twice",
    ),
    "secret_variable": (
        {"env": [{"name": "DB_PASSWORD", "value": "a-real-one"}]},
        "DB_PASSWORD) contains a secret",
    ),
    "replicas": ({"replicaCount": 7, "partitions": 6}, "replicaCount is 7, but the topics have 6 partitions"),
    "replicas_scaled": ({"autoscaling": {"enabled": True, "maxReplicas": 7}, "partitions": 6}, "maxReplicas is 7"),
    "fixed": ({"replicaCount": 2, "config": _tracker(rate_limit_share="fixed")}, "rate_limit_share is fixed"),
    "fixed_scaled": (
        {"autoscaling": {"enabled": True}, "config": _tracker(rate_limit_share="fixed")},
        "6 times what the vendor allows",
    ),
    "loopback": ({"config": _config("server", host="127.0.0.1")}, "loopback address"),
    "port": ({"config": _config("server", port=0)}, "one number of at least 1024"),
    "port_range": ({"config": _config("server", port="8080-8089")}, "is 8080-8089, and must be one number"),
    "port_reference": ({"config": _config("server", port="${PORT}")}, "one number of at least 1024"),
    "static": ({"staticMembership": True, "config": _client(**{"group.instance.id": "a"})}, "staticMembership sets"),
    "keda_address": (
        {"autoscaling": {"enabled": True}, "config": _client(**{"bootstrap.servers": "${KAFKA}"})},
        "which KEDA cannot read",
    ),
    "keda_zero": (
        {"autoscaling": {"enabled": True, "minReplicas": 0, "trigger": "prometheus", "prometheusAddress": "http://p"}},
        "minReplicas is 0",
    ),
    "hpa_zero": ({"autoscaling": {"enabled": True, "minReplicas": 0, "type": "hpa"}}, "minReplicas is 0"),
    "keda_account": (
        {"autoscaling": {"enabled": True}, "config": _client(**{"security.protocol": "SASL_SSL"})},
        "TriggerAuthentication",
    ),
    "console_token": ({"console": {"enabled": True}}, "config.console has neither tokens nor a proxy"),
    "console_secret": (
        {"console": {"enabled": True}, "config": _config("console", token="a-real-one")},
        "config.console.token contains a secret",
    ),
    "console_loopback": (
        {"console": {"enabled": True}, "config": _config("console", token="${TOKEN}", host="localhost")},
        "config.console.host is a loopback",
    ),
    "console_port": (
        {"console": {"enabled": True}, "config": _config("console", token="${TOKEN}", port=80)},
        "config.console.port must be",
    ),
    "console_members": (
        {"console": {"enabled": True}, "service": {"enabled": False}, "config": _config("console", token="${TOKEN}")},
        "service.enabled is false",
    ),
    "ingress_host": (
        {"console": {"enabled": True, "ingress": {"enabled": True}}, "config": _config("console", token="${TOKEN}")},
        "console.ingress.host is empty",
    ),
    "ingress_alone": ({"console": {"ingress": {"enabled": True, "host": "a.b"}}}, "enable the console"),
    "ingress_address": ({"console": {"ingress": {"host": "https://a.b"}}}, "does not match pattern"),
    "prometheus": ({"autoscaling": {"enabled": True, "trigger": "prometheus"}}, "prometheusAddress is empty"),
    "large_number": (
        {"config": _tracker(id_app=123456789012345678)},
        "config.destinations.tracker.id_app is a number above 2^53",
    ),
    "large_number_in_a_list": (
        {"config": {**CONFIG, "routes": [{"where": {"id": [1, 9007199254740993]}, "to": ["tracker"]}]}},
        "config.routes[0].where.id[1] is a number above 2^53",
    ),
    "large_number_in_a_manifest": (
        {"extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "data": {"id": -123456789012345678}}]},
        "extraObjects[0].data.id is a number above 2^53",
    ),
    "pod_label": ({"podLabels": {"app.kubernetes.io/name": "mine"}}, "podLabels has app.kubernetes.io/name"),
    "common_label": ({"commonLabels": {"app.kubernetes.io/component": "mine"}}, "commonLabels has"),
    "annotation": ({"podAnnotations": {"checksum/config": "mine"}}, "podAnnotations has checksum/config"),
    "variable": ({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}, "env has A twice"),
    "variable_of_the_chart": ({"env": [{"name": "POD_NAME", "value": "a"}]}, "env has POD_NAME twice"),
    "memory": ({"config": _config("limits", buffer="128MiB")}, "may use 282 MiB"),
    "memory_in_bytes": ({"config": _config("limits", buffer=134217728)}, "buffer 134217728 may use 282 MiB"),
    "no_eviction": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "no pod could ever be evicted"),
    "no_eviction_of_one": ({"podDisruptionBudget": {"minAvailable": 1}}, "no pod could ever be evicted"),
    "no_eviction_at_all": ({"replicaCount": 3, "podDisruptionBudget": {"minAvailable": "100%"}}, "ever be evicted"),
    "static_service": ({"staticMembership": True, "service": {"enabled": False}}, "a StatefulSet needs its Service"),
    "hpa_request": (
        {"autoscaling": {"enabled": True, "type": "hpa"}, "resources": {"requests": {"cpu": None}}},
        "resources.requests.cpu is empty",
    ),
    "ingress_tls": (
        {
            "console": {"enabled": True, "ingress": {"enabled": True, "host": "a.b"}},
            "config": _config("console", token="${TOKEN}"),
        },
        "console.ingress.tlsSecret is empty",
    ),
    "no_way_to_the_registry": (
        {
            "networkPolicy": {"enabled": True, "kafka": {"to": [{"podSelector": {}}]}},
            "config": {**CONFIG, "schema_registry": {"url": "http://registry"}},
        },
        "networkPolicy.registry.to is empty",
    ),
    "no_way_to_kafka": ({"networkPolicy": {"enabled": True}}, "networkPolicy.kafka.to is empty"),
    "names": (
        {
            "perDestination": True,
            "config": _config("destinations", **dict.fromkeys(("a.b", "a-b"), CONFIG["destinations"]["tracker"])),
        },
        "no unique name",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_values_are_refused_with_a_message(name: str, tmp_path: Path) -> None:
    """Values that would fail later are refused with a message that never contains a secret."""
    values, says = REFUSED[name]
    said = refusal(tmp_path, {"config": CONFIG, **values})
    assert says in said
    assert "a-real-one" not in said


def test_references_and_places_in_addresses_are_accepted(tmp_path: Path) -> None:
    """An address may have its secrets by reference, and a link the places that are filled in.

    Kills: a guard that refuses a mail address, or a reference behind the name of a secret.
    """
    texts = [
        "http://me:$(PW)@h",
        "a;password=$(PW)",
        "me:${PW}@h",
        "//${KEY}@h",
        "Host=h;Password=${PW};User=me",
        "mailto:me@h",
        "http://h:80/a:b@c",
        "a=='b'",
    ]
    places = ["me:${PW}@h", "${ME}:${file:/run/pw}@h", "${KEY}@h", "h/a&b", "h/?key=${KEY}"]
    links = {"topic": "https://h/#/t/{topic}", "record": "https://h/{topic}?p={partition}&o={offset}"}
    config = {
        **_client(**{"bootstrap.servers": ",".join(f"x://{place}" for place in places)}),
        "console": {"links": links},
    }
    file = tmp_path / "values.yaml"
    env = [{"name": f"TEXT_{number}", "value": value} for number, value in enumerate(texts)]
    sidecar = {"name": "proxy", "image": "x", "args": ["--password=$(PW)", "--token-file=/run/t"]}
    file.write_text(json.dumps({"config": config, "env": env, "extraContainers": [sidecar]}), encoding="utf-8")
    assert render(file)


def test_chart_knows_what_the_connector_hides() -> None:
    """The chart has every harmless property and every secret key of the connector. Kills: lists kept by hand."""
    template = secrets()
    names = {name for kind in kinds(others=[]).values() for name in kind.settings.model_fields if names_secret(name)}
    listed = json.loads(re.findall(r"secretFields\" -}}(.*?){{- end", template)[0])
    named = re.compile(re.findall(r"\.secretName\" -}}\(\?i\)(.*?){{- end", template)[0], re.IGNORECASE)
    assert len(names) >= 5
    assert [name for name in names if name not in listed and not named.search(name)] == []
    harmless = json.loads(re.findall(r"harmless\" -}}(.*?){{- end", template)[0])
    assert set(harmless) == {name for name in harmless if not is_secret("client", name)}
    assert "sasl.password" not in harmless
    assert "bootstrap.servers" in harmless


def test_per_destination_renders_one_workload_each(rendered: dict[str, list[Manifest]]) -> None:
    """`perDestination` renders one deployment per destination, which runs only that destination."""
    found = workloads(rendered["per-destination"])
    assert {each["metadata"]["name"] for each in found} == {"r-connector-tracker-eu", "r-connector-tracker-us"}
    arguments = [each["spec"]["template"]["spec"]["containers"][0]["args"] for each in found]
    assert sorted(argument[3:] for argument in arguments) == [
        ["--destination", "tracker_eu"],
        ["--destination", "tracker_us"],
    ]
    selectors = [json.dumps(each["spec"]["selector"]) for each in found]
    assert len(set(selectors)) == 2


def test_static_members_keep_their_names(rendered: dict[str, list[Manifest]]) -> None:
    """`staticMembership` renders a StatefulSet whose pod names are the group.instance.id."""
    (found,) = workloads(rendered["static-membership"])
    assert found["kind"] == "StatefulSet"
    client = json.loads(configuration(rendered["static-membership"])["connector.yaml"])["kafka"]["client"]
    assert client["group.instance.id"] == "${POD_NAME}"
    services = [each["metadata"]["name"] for each in of_kind(rendered["static-membership"], "Service")]
    assert services == [found["spec"]["serviceName"]]


@pytest.mark.parametrize(("name", "kind"), [("keda", "ScaledObject"), ("hpa", "HorizontalPodAutoscaler")])
def test_scaler_targets_the_workload(name: str, kind: str, rendered: dict[str, list[Manifest]]) -> None:
    """The scaler names the workload, which then does not set the number of replicas."""
    (workload,) = workloads(rendered[name])
    (scaler,) = of_kind(rendered[name], kind)
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (workload["kind"], workload["metadata"]["name"])
    assert "replicas" not in workload["spec"]


def test_keda_scales_by_group_lag(rendered: dict[str, list[Manifest]]) -> None:
    """The trigger reads the group's lag on each topic, and ignores partitions without lag."""
    (scaler,) = of_kind(rendered["keda"], "ScaledObject")
    (trigger,) = scaler["spec"]["triggers"]
    config = json.loads(configuration(rendered["keda"])["connector.yaml"])
    assert trigger["metadata"]["consumerGroup"] == config["kafka"]["group_id"]
    assert trigger["metadata"]["topic"] == config["kafka"]["topics"][0]
    assert trigger["metadata"]["limitToPartitionsWithLag"] == "true"


def test_large_number_in_quotes_is_kept(tmp_path: Path) -> None:
    """An 18-digit id in quotes arrives unchanged. Kills: a chart that lets Helm round it."""
    file = tmp_path / "values.yaml"
    jiguang = {"vendor": "jiguang", "project_id": "123456789012345678", "project_secret": "${A}", "app_key": "${B}"}
    tracker = {**CONFIG["destinations"]["tracker"], "id_app": "123456789012345678"}
    config = {**CONFIG, "destinations": {"jiguang": jiguang, "tracker": tracker}}
    file.write_text(json.dumps({"config": config}), encoding="utf-8")
    content = configuration(render(file))["connector.yaml"]
    written = json.loads(content)["destinations"]
    assert written["jiguang"]["project_id"] == written["tracker"]["id_app"] == "123456789012345678"
    path = tmp_path / "connector.yaml"
    path.write_text(content, encoding="utf-8")
    known = kinds(others=[])
    models, rules = {n: kind.settings for n, kind in known.items()}, {n: kind.rules for n, kind in known.items()}
    variables = dict.fromkeys(("A", "B", "TOKEN"), "a-value-of-the-cluster")
    read: Any = load(path, models, variables, rules).settings.destinations["tracker"]
    assert read.id_app == 123456789012345678


def test_whole_numbers_stay_whole(rendered: dict[str, list[Manifest]]) -> None:
    """A large number in the values is rendered as it was written, not as 6.7e+07."""
    assert '"buffer": 67108864' in configuration(rendered["tuned"])["connector.yaml"]


def test_configuration_change_rolls_the_pods(tmp_path: Path) -> None:
    """The pods' checksum changes with what needs a restart, and with nothing else."""

    def checksum(replicas: int = 1, *, watch: bool = True, **log: str) -> str:
        file = tmp_path / "values.yaml"
        config = {**_config("log", **log), "reload": {"watch": watch}}
        file.write_text(json.dumps({"replicaCount": replicas, "config": config}), encoding="utf-8")
        (workload,) = workloads(render(file))
        return str(workload["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum(2) == checksum(level="debug")
    assert checksum() != checksum(format="console")
    assert checksum(watch=False) != checksum(watch=False, level="debug")


def test_notes_name_the_next_steps(tmp_path: Path) -> None:
    """The notes name the Secret to create, the test to run and where to look; they identify the example as one."""
    # `helm template` omits the notes and an installation needs a cluster, so the notes are rendered as a manifest.
    chart = tmp_path / "connector"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "_notes.tpl").write_text(f'{{{{ define "n" }}}}{notes}{{{{ end }}}}', encoding="utf-8")
    manifest = 'kind: Notes\ntext: {{ include "n" . | quote }}\n'
    (chart / "templates" / "notes.yaml").write_text(manifest, encoding="utf-8")
    done = helm("template", RELEASE, str(chart), "--kube-version", KUBERNETES, "--show-only", "templates/notes.yaml")
    assert done.returncode == 0, done.stderr
    said = yaml.safe_load(done.stdout)["text"]
    for says in ("the chart's example", "connector-credentials", f"helm test {RELEASE}", "deployment/r-connector"):
        assert says in said


def test_keda_uses_one_trigger_for_patterns(rendered: dict[str, list[Manifest]]) -> None:
    """With a topic pattern, one trigger without a topic covers all, without options that KEDA refuses there."""
    (scaler,) = of_kind(rendered["keda-patterns"], "ScaledObject")
    (trigger,) = scaler["spec"]["triggers"]
    assert set(trigger["metadata"]) == {"bootstrapServers", "consumerGroup", "lagThreshold"}
    assert trigger["authenticationRef"] == {"name": "kafka-credentials"}


def test_operator_schemas_refuse_unknown_fields(rendered: dict[str, list[Manifest]]) -> None:
    """A misspelt field in a manifest's spec or its lists is a fault in each kind."""
    spoilt: dict[str, tuple[str, Callable[[Manifest], None]]] = {
        "ScaledObject": ("keda", lambda spec: spec["triggers"][0].update(metaData={})),
        "PodMonitor": ("monitoring", lambda spec: spec["podMetricsEndpoints"][0].update(intervall="15s")),
        "PrometheusRule": ("monitoring", lambda spec: spec["groups"][0]["rules"][0].update(expression="1")),
    }
    schemas = custom_schemas()
    assert set(spoilt) == set(CUSTOM)
    for kind, (name, spoil) in spoilt.items():
        (manifest,) = copy.deepcopy(of_kind(rendered[name], kind))
        schema = schemas[manifest["apiVersion"], kind]
        jsonschema.validate(manifest, schema)
        spoil(manifest["spec"])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(manifest, schema)


def test_usual_values_and_examples_exist() -> None:
    """The values file uses the usual names, and each feature has a values file in helm/ci/."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(values) >= set(EXPECTED)
    features = {name for name, value in values.items() if isinstance(value, dict) and value.get("enabled") is False}
    given = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in VALUES.values()]
    used = {name for values in given for name, value in values.items() if value}
    assert features - used == set()
    plain = {"config", "existingSecret", "perDestination", "staticMembership", "env", "files", "resources"}
    assert plain - used == set()
