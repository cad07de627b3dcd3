"""What `connector status` shows: the worst first, on any width, with commands that can be copied."""

from __future__ import annotations

import pytest

from connector.cli.status import _print
from connector.console.advice import CommandOptions
from connector.console.members import MemberResponse, destinations, read_response
from connector.console.sampling import RateSample
from connector.operations.status import GroupStatus

NOW = 1_700_000_000.0
WAITS = {"topic": "a-topic-with-a-long-name", "partition": 1, "offset": 1204, "reason": "HTTP 500"}
FOUND = {
    "destinations": {
        "jiguang-prod": {"state": "held", "holds": [{"cause": "misconfigured", "code": "401"}, {"cause": "storm"}]},
        "qa": {"state": "flowing"},
        "tracker": {"state": "retrying", "waiting": [WAITS]},
    },
    "partitions": [{"topic": "orders", "partition": 0}],
}


def shown(capsys: pytest.CaptureFixture[str], *members: MemberResponse) -> str:
    """Return what is printed for some members' responses."""
    found = destinations([], members)
    _print(
        GroupStatus(NOW, members, found, RateSample(NOW, {"orders": 12.0}, {"qa": 3.0}), {}),
        CommandOptions(None, ("http://a:1",)),
    )
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [40, 80])
def test_commands_can_be_copied_at_any_width(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trouble has its command on a line of its own, tables fit, and a state is never broken.

    Kills: a command that is wrapped, or that skips a record for every destination.
    """
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = shown(capsys, read_response("http://10.20.30.40:8080", FOUND)).splitlines()
    for command in (
        "  connector reload",
        "  connector release jiguang-prod",
        "  connector skip a-topic-with-a-long-name 1 1204 --destination tracker",
    ):
        assert f"{command} --url http://a:1" in lines, "it reaches the same members"
    assert all(len(line) <= columns for line in lines if not line.startswith("  connector"))
    assert any("retrying" in line for line in lines)
    assert lines[0].startswith("jiguang-prod is held")


def test_worst_trouble_is_the_first_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """If Kafka is down, that is the first line on standard output, and no destination is called flowing."""
    monkeypatch.setenv("COLUMNS", "80")
    down = read_response("http://a", FOUND, ready={"ok": False, "reasons": ["broker: all brokers are down"]})
    text = shown(capsys, down)
    assert text.startswith("Kafka is not reachable: nothing is delivered.")
    assert "flowing" not in text
    well = read_response("http://a", {**FOUND, "destinations": {"qa": {"state": "flowing"}}})
    assert shown(capsys, well).startswith("Nothing to do: all destinations deliver.")
