"""The chart's console and its Job for topics: what reaches them, what they receive, and when."""

from __future__ import annotations

import json

from tests.e2e.chart import CHART, configuration, container, of_kind, pod, render, selected


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
    reached = [
        peer["podSelector"]["matchLabels"]
        for rule in own["egress"]
        for peer in rule.get("to", ())
        if "podSelector" in peer
    ]
    assert [selected(manifests, labels) for labels in reached] == [["connector"]]
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
    (rule,) = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"] == [{"hosts": [rule["host"]], "secretName": "connector-tls"}]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "r-connector-console", "port": {"name": "console"}}
    own = json.loads(configuration(manifests)["connector.yaml"])["console"]
    assert own["host"] == "0.0.0.0"
    assert rule["host"] in own["hosts"]
    assert own["members"] == ["http://r-connector:8080"]
    assert own["token"] == "${file:/run/secrets/connector/console-token}"
    assert own["mask"] == ["customUserId"]
    assert "console" not in json.loads(configuration(render(CHART / "values.yaml"))["connector.yaml"])


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
    assert volumes["secrets"]["secret"]["secretName"] == "topic-creator"
    assert found["serviceAccountName"] == "default"
    assert container(job)["args"] == ["topics", "--create", "--partitions", "6", "-c", "/etc/connector/connector.yaml"]
    assert hooks[0]["data"] == configuration(manifests)
