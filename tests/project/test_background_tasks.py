"""No background task dies unseen: each is supervised, restarted, or awaited by the code that starts it."""

from __future__ import annotations

import ast
from typing import Final

from tools.source import Module, modules

AWAITED: Final = {
    "connector.tasks": "the supervisor itself",
    "connector.codec.decoder": "every caller of `resolve` awaits the flight",
    "connector.console.jobs": "a job keeps its own error, which the page shows",
    "connector.delivery.worker": "the done callback keeps the error, and `run` raises it",
    "connector.demo.demo": "the demo awaits it",
    "connector.kafka.consumer": "the next poll awaits it",
    "connector.kafka.receipts": "each receipt's error is counted and logged",
    "connector.operations.preview": "the preview awaits it",
    "connector.runtime.app": "the run awaits it",
    "connector.runtime.pipeline": "the run awaits it",
}
"""Modules that start tasks themselves, and who sees how those end."""

SERVED: Final = {
    "connector.console.feed": "whatever is raised is its trouble, and it begins again",
    "connector.console.search": "whatever is raised is its trouble, which the page shows",
    "connector.kafka.producer": "whatever a callback raises is logged, and it goes on",
    "connector.runtime.tracing": "it only ends the tracer",
    "connector.runtime.watchdog": "it calls nothing that can raise, except through the loop",
    "connector.telemetry.log_writer": "it logs its own faults nowhere, and goes on",
}
"""Modules that start threads, and why none of them ends unseen."""


def _starts_unwatched(module: Module) -> bool:
    """Return whether a module starts a task of anything but `restarted`."""
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    started = [call.args[0] for call in calls if ast.unparse(call.func).endswith("create_task")]
    return any(not (isinstance(work, ast.Call) and ast.unparse(work.func) == "restarted") for work in started)


def test_every_background_task_has_an_owner() -> None:
    """A module that starts a task says in `AWAITED` who sees its end. Kills: a task whose failure stops its work."""
    assert {module.name for module in modules("connector") if _starts_unwatched(module)} == AWAITED.keys()


def test_every_thread_is_known() -> None:
    """A module that starts a thread says in `SERVED` what an exception in it does. Kills: a thread that ends unseen."""
    found = {
        module.name
        for module in modules("connector")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Thread"
    }
    assert found == SERVED.keys()
