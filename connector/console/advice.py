"""What a state or a cause means to the person on call, and what to do about it. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final, NamedTuple

from connector.console.members import UNKNOWN, DestinationView


@dataclass(frozen=True, slots=True)
class Advice:
    """What it means and what to do; `command` can be copied and run."""

    meaning: str
    action: str
    command: str | None = None


class CommandOptions(NamedTuple):
    """The options that a command needs to reach the same members: the configuration file and the members' URLs."""

    file: str | None = None
    urls: tuple[str, ...] = ()

    def added_to(self, command: str) -> str:
        """Return a command with the options added; `connector run` needs none."""
        options = [] if self.file is None else ["-c", self.file]
        if not command.startswith("connector run"):
            options += [part for url in self.urls for part in ("--url", url)]
        return f"{command} {shlex.join(options)}" if options else command


NO_OPTIONS: Final = CommandOptions()

CAUSES: Final = {
    "decode": Advice(
        "The record is not Avro of a schema that is known here.",
        "Register the missing schema, then replay. Discard what is garbage. Ask the topic's producer what changed.",
    ),
    "route": Advice(
        "No route names a destination for the event, or a field could not be mapped.",
        "Correct routes in the configuration, run connector reload (a new destination needs a restart), then replay.",
    ),
    "invalid": Advice(
        "The event breaks a rule that the vendor documents. It was never sent.",
        "Replay with an edit, or discard. Have the producer correct the field. Switch a wrong rule off under rules: in "
        "the destination.",
    ),
    "refused": Advice(
        "The vendor refused this record when it was sent alone.",
        "Read the vendor's answer and fix its cause there, for example register the event. Then replay.",
    ),
    "too_large": Advice(
        "This record alone is larger than the vendor accepts; by results.too_large, its answer is, for its topic.",
        "Have the producer send less. If the vendor granted a larger limit, set agreed_limits: true and replay. For an "
        "answer, raise the max.message.bytes of the results topic and replay.",
    ),
    "expired": Advice(
        "The event was too old for the vendor when its turn came.",
        "Discard it: it can no longer be delivered. If many expire, check the lag and the producer's timestamps.",
    ),
    "gave_up": Advice(
        "It was retried for as long as retry.give_up_after allows and never got a definite answer.",
        "Replay when the vendor works again.",
    ),
    "unknown_outcome": Advice(
        "The request was sent, but its answer is missing: the vendor may or may not have accepted it.",
        "Search for the dedup id on the vendor's side. If it is missing, replay: the same id is sent again.",
    ),
    "operator": Advice(
        "A person skipped this record.",
        "Look up who skipped it in the audit log and ask why. Replay when the cause is fixed, or discard.",
    ),
    "internal": Advice(
        "The connector failed with an unexpected error while it processed this record.",
        "Report the message as a bug. Replay after the connector is upgraded.",
    ),
}
"""The advice by a dead letter's cause."""

OTHER_CAUSE: Final = Advice(
    "This version does not know the cause.", "Read the message. The record is kept unchanged, so it can be replayed."
)

_HELD: Final = {
    "misconfigured": Advice(
        "The vendor refuses the account: a credential, key, address or permission is wrong.",
        "Correct the credential or the permission, then have the configuration read again. A secret from a file is "
        "read at each probe anyway. Records wait uncommitted, none is lost.",
    ),
    "outage": Advice(
        "The vendor does not answer as it documents.",
        "Check the vendor's status page or call the vendor. The destination is probed and resumes by itself; the "
        "command probes it at once. Records wait, none is lost.",
    ),
    "storm": Advice(
        "Far more records than usual are refused, so a setting is more likely wrong than the records.",
        "Correct the setting that the message names. To turn the refused records into dead letters instead, release "
        "the destination.",
    ),
    "registry": Advice(
        "The schema registry does not answer, so events cannot be decoded.",
        "Fix the registry. The destination resumes by itself. Records wait, none is lost.",
    ),
    "operator": Advice(
        "A person holds this destination: by hand, or by hold: true in the configuration.",
        "Release it when the reason no longer applies.",
    ),
}
_COMMANDS: Final = {
    "operator": "connector release {name}",
    "storm": "connector release {name}",
    "misconfigured": "connector reload",
    "outage": "connector probe {name}",
}


def for_destination(destination: DestinationView, unreachable: int) -> Advice:
    """Return what a destination's state means; `unreachable` is how many members do not answer."""
    if destination.state == UNKNOWN:
        if unreachable:
            return Advice(
                "No member is reachable.", "Start the connector, or correct console.members.", "connector run"
            )
        return Advice(
            "No member reports this destination.",
            "Restart the members if it was added to the configuration since they started. They may also run with "
            "--destination.",
        )
    if destination.held:
        return for_hold(destination.name, destination.cause)
    if destination.state == "throttled":
        return Advice("The vendor asked to slow down.", "Nothing. It resumes by itself.")
    if destination.state == "retrying":
        return Advice(
            "A request failed and is retried.", "Nothing yet. After five failures in a row it is held as an outage."
        )
    return Advice("Records are accepted.", "Nothing.")


def for_hold(name: str, cause: str | None) -> Advice:
    """Return what a hold of a destination means."""
    advice = _HELD.get(cause or "", Advice("It is held.", "Read the message."))
    command = _COMMANDS.get(cause or "")
    return Advice(advice.meaning, advice.action, command and command.format(name=name))


def for_cause(cause: str) -> Advice:
    """Return what a dead letter's cause means."""
    return CAUSES.get(cause, OTHER_CAUSE)
