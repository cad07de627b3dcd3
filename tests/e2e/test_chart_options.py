"""The chart's console and its Job for topics: what reaches them, what they receive, and when."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from connector.runtime.reload import FIXED
from tests.e2e.chart import (
    CHART,
    KUBERNETES,
    Manifest,
    configuration,
    container,
    helm,
    of_kind,
    pod,
    pods,
    render,
    selected,
)


def test_console_is_separate_from_members() -> None:
    """Its Service, Ingress and policy select only the console; those of the members select only members."""
    manifests = render(CHART / "ci" / "console-values.yaml")
    (console,) = (each for each in of_kind(manifests, "Deployment") if container(each)["name"] == "console")
    assert container(console)["args"] == ["console", "-c", "/etc/connector/connector.yaml"]
    assert console["spec"]["replicas"] == 1
    names = {each["metadata"]["name"]: each for each in of_kind(manifests, "Service")}
    assert selected(manifests, names["r-connector"]["spec"]["selector"]) == ["connector"]
    assert selected(manifests, names["r-connector-console"]["spec"]["selector"]) == ["console"]
    (budget,) = of_kind(manifests, "PodDisruptionBudget")
    assert selected(manifests, budget["spec"]["selector"]["matchLabels"]) == ["connector"]
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(manifests, "NetworkPolicy")}
    assert selected(manifests, policies["r-connector"]["podSelector"]["matchLabels"]) == ["connector"]
    own = policies["r-connector-console"]
    assert selected(manifests, own["podSelector"]["matchLabels"]) == ["console"]
    peers = [
        peer["podSelector"]["matchLabels"]
        for rule in own["egress"]
        for peer in rule.get("to", ())
        if "podSelector" in peer
    ]
    assert [selected(manifests, labels) for labels in peers] == [["connector"]]
    callers = [
        peer["podSelector"]["matchLabels"]
        for peer in policies["r-connector"]["ingress"][0]["from"]
        if "podSelector" in peer
    ]
    assert [selected(manifests, labels) for labels in callers] == [["console"]]


def test_console_is_reachable_through_its_ingress() -> None:
    """It listens on all addresses, accepts the Ingress host, reads all members, and takes its token from the Secret."""
    manifests = render(CHART / "ci" / "console-values.yaml")
    (ingress,) = of_kind(manifests, "Ingress")
    rule, other = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"], other["host"]], "secretName": "connector-tls"}]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "r-connector-console", "port": {"name": "console"}}
    own = json.loads(configuration(manifests)["connector.yaml"])["console"]
    assert own["host"] == "::"
    assert {rule["host"], other["host"]} <= set(own["hosts"])
    assert own["members"] == ["http://r-connector:8080"]
    assert own["tokens"] == {role: f"${{file:/run/secrets/connector/console-{role}}}" for role in ("look", "act")}
    assert own["mask"] == ["customUserId"]
    assert "console" not in json.loads(configuration(render(CHART / "values.yaml"))["connector.yaml"])


def test_members_answer_to_the_names_of_their_service() -> None:
    """/status is read under NAME and NAME.NAMESPACE; hosts of the configuration are kept."""
    own = json.loads(configuration(render(CHART / "values.yaml"))["connector.yaml"])["server"]
    assert own["hosts"] == ["r-connector", "r-connector.default"]
    tuned = json.loads(configuration(render(CHART / "ci" / "tuned-values.yaml"))["connector.yaml"])["server"]
    assert tuned["hosts"] == ["connector.example.com", "deliveries", "deliveries.default"]


def _checksums(folder: Path, **changes: Any) -> dict[str, str]:
    """Return the checksum of the pods of each Deployment, for a changed configuration."""
    config = yaml.safe_load((CHART / "ci" / "console-values.yaml").read_text(encoding="utf-8"))["config"]
    destination = {**config["destinations"]["tracker"], **changes.pop("tracker", {})}
    file = folder / "values.yaml"
    config = {**config, **changes, "destinations": {"tracker": destination}}
    file.write_text(json.dumps({"console": {"enabled": True}, "config": config}), encoding="utf-8")
    return {
        container(each)["name"]: each["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for each in of_kind(render(file), "Deployment")
    }


def test_members_restart_only_for_what_a_reload_leaves(tmp_path: Path) -> None:
    """What a reload applies changes the file and not the pods; the console, which reads it at its start, restarts.

    Kills: a restart for a rate; a change of connections or lanes that no pod notices.
    """
    before = _checksums(tmp_path)
    live: list[dict[str, Any]] = [
        {"tracker": {"requests_per_second": 7}},
        {"tracker": {"batch": {"records": 7}, "codes": {"5": "retry"}, "storm": False, "hold": True}},
        {"routes": [{"topics": ["user-events"], "to": ["tracker"]}]},
        {"unrouted": "skip"},
        {"log": {"level": "debug"}},
        {"server": {"token": "${TOKEN}"}},
    ]
    for changes in live:
        after = _checksums(tmp_path, **changes)
        assert (after["connector"], after["console"] != before["console"]) == (before["connector"], True), changes
    fixed: dict[str, Any] = {
        "order": "key",
        "max_in_flight": 3,
        "http": {"proxy": "http://p"},
        "traceparent": True,
        "results_topic": "r",
    }
    assert {*fixed, "vendor"} == set(FIXED)
    del fixed["results_topic"]  # MyTracker has none
    for key, value in fixed.items():
        assert _checksums(tmp_path, tracker={key: value})["connector"] != before["connector"], key
    assert _checksums(tmp_path, limits={"buffer": "20MiB"})["connector"] != before["connector"]
    off = _checksums(tmp_path, reload={"watch": False})
    assert off["connector"] != _checksums(tmp_path, reload={"watch": False}, unrouted="skip")["connector"]


def test_console_needs_no_token_behind_a_trusted_proxy(tmp_path: Path) -> None:
    """`console.proxy` is a way to sign in, so the chart accepts it, and the notes name its header."""
    file = tmp_path / "values.yaml"
    proxy = {"addresses": ["10.0.0.7"], "user_header": "X-Forwarded-User"}
    kafka = {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "kafka:9092"}}
    config = {
        "kafka": kafka,
        "destinations": {"tracker": {"vendor": "mytracker", "id_app": 1, "token": "${TOKEN}"}},
        "console": {"proxy": proxy},
    }
    file.write_text(json.dumps({"console": {"enabled": True}, "config": config}), encoding="utf-8")
    assert json.loads(configuration(render(file))["connector.yaml"])["console"]["proxy"] == proxy
    said = notes(tmp_path, file)
    assert "signs people in by its header X-Forwarded-User" in said
    assert "tokens.act" not in said
    assert "config.console.tokens.act to act, or with tokens.look" in notes(tmp_path, CHART / "ci/console-values.yaml")


def notes(folder: Path, values: Path) -> str:
    """Return the chart's notes for a values file. Helm prints them for a cluster only, so here they are a manifest."""
    chart = folder / "chart"
    if not chart.exists():
        shutil.copytree(CHART, chart)
    text = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata: {x: {{ include `notes` . | toJson }}}"
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{- define "notes" -}}}}\n{text}\n{{{{- end -}}}}\n{manifest}\n', encoding="utf-8"
    )
    done = helm("template", "r", str(chart), "--kube-version", KUBERNETES, "--values", str(values))
    assert done.returncode == 0, done.stderr
    (found,) = (each for each in yaml.safe_load_all(done.stdout) if each and each["metadata"]["name"] == "notes")
    said: str = found["data"]["x"]
    return said


def test_topics_job_runs_first() -> None:
    """The Job is a hook with its own configuration and account, independent of the rest of the release."""
    manifests = render(CHART / "ci" / "topics-job-values.yaml")
    (job,) = of_kind(manifests, "Job")
    hooks = [
        each for each in manifests if "pre-install" in each["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    ]
    assert [each["kind"] for each in hooks] == ["ConfigMap", "Job"]
    weights = [int(each["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for each in hooks]
    assert weights == sorted(set(weights))
    found = pod(job)
    volumes = {each["name"]: each for each in found["volumes"]}
    assert volumes["config"]["configMap"]["name"] == hooks[0]["metadata"]["name"]
    assert volumes["secrets"]["projected"]["sources"] == [{"secret": {"name": "topic-creator"}}]
    assert found["serviceAccountName"] == "default"
    assert container(job)["args"] == ["topics", "--create", "--partitions", "6", "-c", "/etc/connector/connector.yaml"]
    assert hooks[0]["data"] == configuration(manifests)


def reached(policy: Manifest) -> dict[int, list[Manifest]]:
    """Return the peers of a policy's egress rules by port; an empty list means any address."""
    return {port["port"]: rule.get("to", []) for rule in policy["spec"]["egress"] for port in rule["ports"]}


def test_closed_network_covers_every_pod() -> None:
    """Each pod has a policy, and no egress rule allows any address. Kills: a Job or test pod without a policy."""
    manifests = render(CHART / "ci" / "network-policy-values.yaml")
    policies = of_kind(manifests, "NetworkPolicy")
    for manifest in [each for kind in ("Deployment", "Job", "Pod") for each in of_kind(manifests, kind)]:
        labels = (manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"])["metadata"]["labels"]
        own = [each for each in policies if each["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
        assert len(own) == 1, manifest["metadata"]["name"]
        assert own[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]
        ports = reached(own[0])
        assert set(ports) == {53, 8081, 9092} | (set() if manifest["kind"] == "Job" else {443})
        assert all(ports.values())
    (hook,) = (each for each in policies if "helm.sh/hook" in each["metadata"].get("annotations", {}))
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(hook["metadata"]["annotations"]["helm.sh/hook-weight"]) < -1


def test_additions_reach_their_place() -> None:
    """Labels, annotations, volumes, Secrets, probes, sidecars and manifests of the values are rendered."""
    manifests = render(CHART / "ci" / "extras-values.yaml")
    (workload,) = of_kind(manifests, "Deployment")
    metadata, spec = workload["spec"]["template"]["metadata"], pod(workload)
    own = [each for each in manifests if not each["metadata"]["name"].startswith(("company", "r-note"))]
    assert {each["metadata"]["labels"]["example.com/team"] for each in own} == {"growth"}
    assert {each["metadata"]["annotations"]["example.com/contact"] for each in own} == {"growth@example.com"}
    assert workload["metadata"]["annotations"]["example.com/reload"] == "true"
    assert metadata["labels"]["example.com/mesh"] == "enabled"
    assert metadata["annotations"]["example.com/inject"] == "true"
    assert workload["spec"]["revisionHistoryLimit"] == 2
    volumes = {each["name"]: each for each in spec["volumes"]}
    names = [source["secret"]["name"] for source in volumes["secrets"]["projected"]["sources"]]
    assert names == ["connector-credentials", "kafka-credentials", "registry-credentials"]
    assert volumes["certificates"]["configMap"]["name"] == "company-ca"
    member = container(workload)
    assert member["image"] == "registry.example.com/team/connector:0.1.0"
    assert member["volumeMounts"][-1]["mountPath"] == "/etc/ssl/company"
    assert member["envFrom"] == [{"secretRef": {"name": "kafka-env"}}]
    assert member["livenessProbe"] == {
        "httpGet": {"path": "/healthz", "port": "http"},
        "periodSeconds": 20,
        "timeoutSeconds": 10,
        "failureThreshold": 3,
    }
    assert member["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert [each["name"] for each in spec["containers"]] == ["connector", "proxy"]
    assert [each["name"] for each in spec["initContainers"]] == ["wait"]
    assert spec["dnsConfig"]["options"] == [{"name": "ndots", "value": "2"}]
    assert spec["hostAliases"][0]["hostnames"] == ["kafka.example.com"]
    (budget,) = of_kind(manifests, "PodDisruptionBudget")
    assert (budget["spec"]["minAvailable"], "maxUnavailable" in budget["spec"]) == (2, False)
    notes = {each["metadata"]["name"]: each["data"] for each in of_kind(manifests, "ConfigMap")}
    assert notes["r-note"] == {"release": "r"}


def test_pods_run_on_openshift() -> None:
    """No pod asks for a user or group, which restricted-v2 assigns, and any user can read the Secrets."""
    for file in ("values.yaml", "ci/console-values.yaml", "ci/topics-job-values.yaml"):
        for each in pods(render(CHART / file)):
            contexts = [each["securityContext"], *(one["securityContext"] for one in each["containers"])]
            assert not any({"runAsUser", "runAsGroup", "fsGroup"} & set(context) for context in contexts)
            modes = [volume["projected"]["defaultMode"] for volume in each["volumes"] if "projected" in volume]
            assert modes == [0o444]


def test_short_reference_to_a_long_secret_is_accepted(tmp_path: Path) -> None:
    """A minimum length applies to a secret, not to the reference to it."""
    file = tmp_path / "values.yaml"
    account = {"vendor": "mytracker", "id_app": 1, "token": "${B}"}
    config = {
        "kafka": {"topics": ["events"], "group_id": "group", "client": {"bootstrap.servers": "kafka:9092"}},
        "destinations": {"tracker": account},
        "console": {"token": "${A}"},
    }
    file.write_text(json.dumps({"config": config, "console": {"enabled": True}}), encoding="utf-8")
    assert json.loads(configuration(render(file))["connector.yaml"])["console"]["token"] == "${A}"
