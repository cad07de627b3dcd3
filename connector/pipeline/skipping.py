"""A record that an operator wants skipped: what intake and the destinations tell of it. Pure."""

from __future__ import annotations

from typing import Final

CAUSE: Final = "operator"
CODE: Final = "operator.skip"
MESSAGE: Final = "an operator skipped the record"


class Skip:
    """One wish to skip a record, for one destination or before it was routed.

    `taken` turns true when the record is set aside: from then on nothing is sent of it, and its dead letter is written
    until Kafka has it. A record that has its outcome while `taken` is false was delivered, or refused, before.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False
