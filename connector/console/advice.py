"""What a state or a cause means to the person on call, and what to do about it, in sentences. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from connector.console.members import UNKNOWN, Destination


@dataclass(frozen=True, slots=True)
class Advice:
    """What it means, and what to do; `command` may be typed as it stands."""

    meaning: str
    action: str
    command: str | None = None


CAUSES: Final = {
    "decode": Advice(
        "The record could not be read: no Avro of a schema that is known here.",
        "Ask who produces the topic what changed. Replay after the schema is registered; discard what is garbage.",
    ),
    "route": Advice(
        "No destination was named for the event, or its fields could not be mapped.",
        "Correct routes or destinations in the configuration, restart the members, then replay.",
    ),
    "invalid": Advice(
        "The event breaks a rule that the vendor documents; it was never sent.",
        "Have the producer correct the field. Replay with an edit, or discard. A rule that is wrong can be switched "
        "off under rules: in the destination.",
    ),
    "refused": Advice(
        "The vendor refused this very record, alone.",
        "Read the vendor's answer. When the vendor's side is changed (an event or a user is registered there), replay.",
    ),
    "too_large": Advice(
        "This record alone is larger than the vendor takes.",
        "Have the producer send less. With a larger limit from the vendor set agreed_limits: and replay.",
    ),
    "expired": Advice(
        "The event was too old for the vendor when it was its turn.",
        "It cannot be delivered any more: discard it. If many expire, the connector lags or the producer is late.",
    ),
    "gave_up": Advice(
        "It was tried for as long as retry.give_up_after allows, without an answer that counts.",
        "When the vendor is well again, replay.",
    ),
    "unknown_outcome": Advice(
        "The request was sent and nobody can say whether the vendor took it.",
        "Look on the vendor's side for the dedup id. Replay sends it again with the same id.",
    ),
    "internal": Advice(
        "The connector itself failed on this record.",
        "Please report the message. After an update, replay.",
    ),
    "operator": Advice(
        "A person set this record aside.",
        "Whoever skipped it knows why; the audit log names them. Replay when it is mended, or discard.",
    ),
}
"""By a dead letter's cause."""

OTHER_CAUSE: Final = Advice("This release does not know the cause.", "Read the message; the record is kept as it came.")

_HELD: Final = {
    "misconfigured": Advice(
        "The vendor refuses the account: a credential, key, address or permission is wrong.",
        "Mend the credential or the permission. A secret from a file is read again at the next probe; anything else "
        "needs a restart. Records wait uncommitted, none is lost.",
    ),
    "outage": Advice(
        "The vendor does not answer as it documents.",
        "Look at the vendor's status page or call them. It is probed and goes on by itself; records wait, none is "
        "lost.",
    ),
    "storm": Advice(
        "Far more records are refused than usual, so a setting is likelier wrong than the records.",
        "Read the message: it names what is likely wrong. Mend it, or release the destination to let the refused "
        "ones become dead letters.",
    ),
    "registry": Advice(
        "The schema registry does not answer, so events cannot be read or prepared.",
        "Look after the registry. It goes on by itself; records wait, none is lost.",
    ),
    "operator": Advice(
        "A person holds this destination, by hand or by hold: true in the configuration.",
        "Release it when the reason is gone.",
    ),
}


def for_destination(one: Destination, troubled: int) -> Advice:
    """Return what a destination's state means; `troubled` is how many members do not answer."""
    if one.state == UNKNOWN:
        if troubled:
            return Advice("No member tells of it: none answers.", "See whether the connector runs: connector run.")
        return Advice(
            "No member tells of it.", "It is newer than the members' configuration, or they run other destinations."
        )
    if one.state in ("held", "probing"):
        advice = _HELD.get(one.cause or "", Advice("It is held.", "Read the message."))
        release = f"connector release {one.name}" if one.cause in ("operator", "storm") else None
        return Advice(advice.meaning, advice.action, release)
    if one.state == "throttled":
        return Advice("The vendor asked for patience.", "Nothing: it goes on by itself.")
    if one.state == "retrying":
        return Advice(
            "A request failed and is tried again.", "Nothing yet; after five failures in a row it is held as an outage."
        )
    return Advice("Records are accepted.", "Nothing.")


def for_cause(cause: str) -> Advice:
    """Return what a dead letter's cause means."""
    return CAUSES.get(cause, OTHER_CAUSE)
