"""A release has one version everywhere, notes of its own, and only what was tested."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tools.release import faults, notes
from tools.source import ROOT

CHART = 'apiVersion: v2\nversion: 1.2.0\nappVersion: "1.2.0"\n'
CHANGELOG = (
    "# Changelog\n\n## Unreleased\n\n- Later.\n\n## 1.2.0 (2026-11-29)\n\n### Added\n\n- This.\n\n## 1.1.0\n\n- That.\n"
)


def test_a_tag_with_one_version_everywhere_is_released() -> None:
    """The notes are the version's section alone."""
    assert faults("v1.2.0", "1.2.0", CHART, CHANGELOG) == []
    assert notes("1.2.0", CHANGELOG) == "### Added\n\n- This."


@pytest.mark.parametrize(
    ("tag", "chart", "changelog", "reason"),
    [
        ("v1.3.0", CHART, CHANGELOG, "must be v1.2.0"),
        ("1.2.0", CHART, CHANGELOG, "must be v1.2.0"),
        ("v1.2.0", CHART.replace('"1.2.0"', '"1.1.0"'), CHANGELOG, "appVersion must be 1.2.0"),
        ("v1.2.0", CHART.replace(" 1.2.0", " 1.1.0"), CHANGELOG, "Chart.yaml: version must be 1.2.0"),
        ("v1.2.0", CHART, CHANGELOG.replace("## 1.2.0", "## 1.2.01"), "no section ## 1.2.0"),
        ("v1.2.0", CHART, CHANGELOG.replace("### Added\n\n- This.\n", ""), "no section ## 1.2.0"),
    ],
)
def test_a_release_with_two_versions_is_refused(tag: str, chart: str, changelog: str, reason: str) -> None:
    """Another tag, an older chart and a missing section are each one reason.

    Kills: a chart whose default image has another tag than the pushed one.
    """
    (found,) = faults(tag, "1.2.0", chart, changelog)
    assert reason in found


def test_nothing_is_published_untested_or_under_another_version() -> None:
    """Each job of the release waits for the tests and the checked version; the image's tag is the chart's default."""
    workflow: Any = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    waits = {
        name: {job["needs"]} if isinstance(job.get("needs"), str) else set(job.get("needs", ()))
        for name, job in jobs.items()
    }
    first = {"tests", "version"}
    assert {name for name, needed in waits.items() if not needed} == first
    assert jobs["tests"]["uses"] == "./.github/workflows/ci.yml"
    for name in jobs.keys() - first:
        seen, todo = set(), set(waits[name])
        while todo:
            each = todo.pop()
            seen.add(each)
            todo |= waits[each] - seen
        assert seen >= first, name
    (push,) = [step["with"] for step in jobs["image"]["steps"] if "build-push-action" in step.get("uses", "")]
    assert push["tags"] == "${{ vars.IMAGE }}:${{ needs.version.outputs.version }}"
