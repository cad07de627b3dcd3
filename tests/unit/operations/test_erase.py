"""What must be deleted of the dead-letter topic so that nothing of a person is left in it."""

from __future__ import annotations

from connector.dead_letters.filters import Filter
from connector.dead_letters.headers import dead_letter_id, resolution
from connector.dead_letters.reader import Survey
from connector.operations.erase import PartitionErasure, erasures
from connector.records import Record
from tests.unit.dead_letters.test_dead_letter_reader import dead


def test_resolutions_go_with_their_dead_letters() -> None:
    """A resolution has the key of its dead letter: what is in front of it goes too, and what would be lost is counted.

    Kills: a person's key that stays in the topic, behind the last of the person's dead letters.
    """
    records = [dead(number) for number in range(4)]
    identity = dead_letter_id(records[1].headers) or ""
    closing = Record("dead", 0, 9, 1, records[1].key, None, resolution(identity, "discarded", 1))
    records.append(closing)
    wanted = Filter(key=records[1].key)
    survey = Survey.of(records)
    assert erasures(iter(records), survey, wanted) == [PartitionErasure(0, 10, 1, 3)]
    assert erasures(iter(records[:4]), survey, wanted) == [PartitionErasure(0, 2, 1, 1)]
