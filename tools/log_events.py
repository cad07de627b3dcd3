"""Writes docs/logs.md: every event that the connector logs, found in its source. Only the meanings are written here.

`make docs` runs it. A test checks that it was run, and that every event has a meaning and every meaning an event. A log
call is a method of `log` or `_log`, or of a local name that is assigned from one, with a name in lower case.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tools.source import ROOT, Module, modules

PAGE: Final = Path("docs/logs.md")
LEVELS: Final = ("debug", "info", "warning", "error")
_BEGIN: Final = "<!-- events -->\n"
_END: Final = "<!-- end -->"
_NAME: Final = re.compile(r"[a-z_]+(\.[a-z_]+)*")

MEANINGS: Final[Mapping[str, str]] = {
    "batch.too_large": "The vendor refused a batch as too large (413). It is split, and the smaller limit is kept.",
    "commit.failed": "Kafka did not store an offset. The next commit includes it again.",
    "config.reload_failed": "The configuration could not be read again; the old one is still used. Has the reason.",
    "config.reloaded": "The configuration was read again; has the paths applied, and those left until a restart.",
    "connector.aborted": "A second signal ended the process at once.",
    "connector.overdue": "The stop exceeded its time limit and was ended. What was in flight is delivered again.",
    "connector.started": "The port is open. Connecting to Kafka follows.",
    "connector.stopped": "Everything is drained and committed, and the member has left the group.",
    "connector.stopping": "A signal arrived. The member waits for what is in flight and starts nothing new.",
    "console.action": "Someone used the console: who, what, and on what.",
    "console.action_ended": "An action of the console is done or was stopped.",
    "console.backlog_unknown": "The console cannot read the group's backlog from Kafka.",
    "console.events_unread": "The console cannot read the topic of events now. It retries.",
    "console.kafka": "The console's reader of the dead-letter topic has a problem with Kafka.",
    "console.dead_letters_unread": "The console could not read dead letters. It retries.",
    "console.member_action_ended": "Has each member's answer to a hold, release or skip by the console.",
    "console.page_failed": "A page of the console failed because of a bug. Has the kind of error, and where.",
    "console.sign_in_refused": "The console was given a wrong token, by form or by header.",
    "console.started": "The console is listening.",
    "dead_letter.left_out": "A dead letter does not fit. It is written without its value, with its size and hash.",
    "dead_letter.failed": "Kafka does not accept dead letters (logged every 5 s). They are retried, uncommitted.",
    "destination.certificates_renewed": "Files of `http:` changed; new connections use the new certificates.",
    "destination.certificates_unreadable": "Files of `http:` changed and cannot be used; the old certificates stay.",
    "destination.clock_differs": "Our clock and the vendor's differ by more than a minute; rules about time use both.",
    "destination.secrets_unreadable": "A probe could not read the secrets again. The old ones are used.",
    "destination.state": "A destination changed its state; the cause is included. See docs/delivery.md for the states.",
    "drain.missed": "Requests were still in flight when the drain time ended.",
    "events.unwritten": "Kafka does not accept the timeline's events. They are retried; deliveries do not wait.",
    "kafka.assigned": "Kafka assigned partitions, each with the offset at which reading starts.",
    "kafka.client": "A line of librdkafka's own log, at most one of a kind every 30 s.",
    "kafka.lost": "Kafka took partitions away without a revoke, for example after an expired session.",
    "kafka.no_topic_matches": "No topic matches the patterns. They are checked again every 30 s.",
    "kafka.producer_failed": "The producer cannot send any more.",
    "kafka.recovered": "A problem that `kafka.trouble` reported is over.",
    "kafka.revoked": "Kafka revoked partitions.",
    "kafka.seek_again": "A reassigned partition could not be read from its start yet.",
    "kafka.start_not_committed": "The start offset could not be committed immediately.",
    "kafka.topic": "A topic has a wrong setting. The message has the command that fixes it.",
    "kafka.topic_created": "One of the connector's own topics was created.",
    "kafka.topics_unchecked": "The broker does not return the topics' settings, so they are not checked.",
    "kafka.trouble": "A lasting error of the Kafka client, logged once, until `kafka.recovered`; brief ones count.",
    "kafka.waiting": "No broker answers yet (logged every 10 s).",
    "log.dropped": "The log stream was blocked and its queue was full; has the number of dropped lines.",
    "log.level": "The log level was changed at run time.",
    "member.moving": "What `member.stuck` reported is over.",
    "member.stuck": "Nothing moves; shows where each thread and task is. `/healthz` fails until `member.moving`.",
    "member.without_partitions": "The member has had no partitions for 15 s; has the reason.",
    "offsets.taken_back": "The combined group took over what a destination delivered in its own group.",
    "offsets.waiting": "The other side (all destinations, or one alone) still has members; the start waits for them.",
    "offsets.adopted": "A destination's own group started with the combined group's offsets and its part of the map.",
    "offsets.map_cut": "The group's coordinator takes no longer offset map. Some records are sent again.",
    "offsets.foreign_metadata": "Commit metadata of another program is ignored. Some records are sent again.",
    "partitions.assigned": "This member now processes these partitions.",
    "partitions.lost": "Work of these partitions is dropped. Another member has them.",
    "partitions.revoked": "These partitions were drained and committed, and are given up.",
    "port.failed": "The member's or the console's port could not answer a request because of a fault of its own.",
    "receipt.lost": "A receipt could not be written. Its delivery is not affected.",
    "record.dead_lettered": "A record became a dead letter (logged once a minute per destination, cause and code).",
    "record.decoded": "A followed record was decoded; has only the schema's name and sizes.",
    "record.delivered": "The vendor accepted a followed record.",
    "record.skip_by_operator": "An operator asked to skip a record; has the result.",
    "record.waiting": "A record waits alone; has the command that skips it. Logged ever less often.",
    "registry.secrets_unreadable": "The registry refused the credential, and its secrets could not be read again.",
    "registry.unknown_schema": "An unknown schema: the registry is asked again for 10 s, then records are refused.",
    "registry.recovered": "The schema registry answers again.",
    "registry.waiting": "The schema registry gives no usable answer. Records wait.",
    "replay.read": "Replayed records were read in the last 30 s.",
    "request.failed": "A request raised an unexpected exception: a bug. It is retried; the message says where.",
    "request.ended": "A followed request ended; has the verdict.",
    "results.failed": "Kafka did not accept a vendor's answer. It is retried; one that is too large, without its key.",
    "storm.began": "Too many records are refused for one reason: further ones are set aside, see docs/delivery.md.",
    "storm.ended": "A record that was set aside passed; all `records` set aside are processed again.",
    "storm.partition_full": "So much of a partition is set aside that its intake pauses.",
    "storm.record_deleted": "Kafka deleted a record while it was set aside; it is skipped.",
    "storm.released": "An operator released a storm; the `records` set aside are processed again.",
    "storm.unread": "Records that were set aside cannot be read from Kafka now; they are tried again.",
    "summary": "What was done in the last 30 s, the backlog, and each destination's state.",
    "task.failed": "A background task failed; the run ends with its error. Only `kafka-producer` goes on.",
    "task.restarted": "A background task failed, and starts again after `seconds`.",
}
"""The meaning of each event, for a person who sees it in a log."""


class Logged(NamedTuple):
    """One call that logs."""

    event: str
    levels: tuple[str, ...]
    module: str
    fields: tuple[str, ...]
    line: int


def logged(module: Module) -> Iterator[Logged]:
    """Yield every log call of a module, in the order of its lines."""
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    seen: set[int] = set()
    for scope in (*functions, module.tree):
        stand_ins = {
            target.id: found
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and (found := _levels_in(node.value))
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and id(node) not in seen and (levels := _levels(node, stand_ins)):
                event = node.args[0] if node.args else None
                if isinstance(event, ast.Constant) and _NAME.fullmatch(str(event.value)):
                    seen.add(id(node))
                    yield Logged(str(event.value), levels, module.name, tuple(_fields(node)), node.lineno)


def _levels(call: ast.Call, stand_ins: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the levels at which a call logs; empty if it is not a log call."""
    if isinstance(call.func, ast.Name):
        return stand_ins.get(call.func.id, ())
    if isinstance(call.func, ast.Call) and ast.unparse(call.func.func) == "getattr" and _is_log(call.func.args[0]):
        return LEVELS
    return _levels_in(call.func) if isinstance(call.func, ast.Attribute) else ()


def _levels_in(node: ast.expr) -> tuple[str, ...]:
    """Return the levels of the logger's methods in an expression such as `log.info if quiet else log.warning`."""
    if isinstance(node, ast.IfExp):
        both = {*_levels_in(node.body), *_levels_in(node.orelse)}
        return tuple(level for level in LEVELS if level in both)
    if isinstance(node, ast.Attribute) and node.attr in LEVELS and _is_log(node.value):
        return (node.attr,)
    return ()


def _is_log(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("log", "_log")


def _fields(call: ast.Call) -> Iterator[str]:
    """Yield the names of the fields of a call; `…` means names that are known only at run time."""
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg
        elif isinstance(keyword.value, ast.Dict) and all(isinstance(key, ast.Constant) for key in keyword.value.keys):
            yield from (str(ast.literal_eval(key)) for key in keyword.value.keys if key is not None)
        else:
            yield "…"


def events() -> dict[str, list[Logged]]:
    """Return every event of the connector with its log calls, by name."""
    found: defaultdict[str, list[Logged]] = defaultdict(list)
    for module in modules("connector"):
        for call in logged(module):
            found[call.event].append(call)
    return dict(sorted(found.items()))


def table() -> str:
    """Return the events as a table."""
    rows = []
    for event, calls in events().items():
        levels = ", ".join(level for level in LEVELS if any(level in call.levels for call in calls))
        names = ", ".join(sorted({f"`{call.module.removeprefix('connector.')}`" for call in calls}))
        fields = ", ".join(f"`{field}`" for field in dict.fromkeys(field for call in calls for field in call.fields))
        rows.append(f"| `{event}` | {levels} | {names} | {fields} | {MEANINGS.get(event, '')} |")
    return "| event | level | module | fields | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows)


def current(text: str) -> str:
    """Return the page with its table up to date. The text around it stays."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{PAGE} lacks the comment lines around its table")
    return f"{before}{begin}\n{table()}\n\n{end}{after}"


def main() -> None:
    """Write the page."""
    path = ROOT / PAGE
    path.write_text(current(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
