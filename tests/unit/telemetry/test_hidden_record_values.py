"""A vendor's words are shown without what they repeat of the records; dead letters have them in full."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.records import Item
from connector.telemetry.redaction import hide_record_values
from connector.vendors.base import Misconfigured, Refused, Response, Verdict
from tests.unit.delivery.delivery_rig import OK, ModelVendor, Reply, Rig, played

PHONE = 13800138000


@given(st.dictionaries(st.text(max_size=8), st.text("abcdef0123456789@.", min_size=3, max_size=20), min_size=1))
def test_no_value_is_left_as_a_word(event: dict[str, str]) -> None:
    """Whatever an event holds, words that quote all of it show none of it. Kills: hiding the first one only."""
    event = {f"a{key}": value for key, value in event.items()}
    words = "refused: " + ", ".join(f"'{value}'" for value in event.values())
    shown = hide_record_values(words, [orjson.dumps(event)])
    assert all(f"'{value}'" not in shown for value in event.values() if value != "***")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (f"user {PHONE} is unknown", "user *** is unknown"),
        ("name 'Zoë Li' too long", "name '***' too long"),
        ("event page_view does not exist", "event page_view does not exist"),
        ("HTTP 500, code 4101", "HTTP 500, code 4101"),
        (f"request id x{PHONE}y", f"request id x{PHONE}y"),
        ("", ""),
    ],
)
def test_what_is_hidden(words: str, shown: str) -> None:
    """Values as words of their own are; names of events, short numbers and parts of other words are not."""
    event = {"eventName": "page_view", "user": {"phone": PHONE, "names": ["Zoë Li"]}, "depth": 500, "ok": True}
    assert hide_record_values(words, [b"no json", orjson.dumps(event)]) == shown


class Talkative(ModelVendor):
    """Repeats what it was sent in every refusal."""

    def read(self, response: Response, group: Hashable, items: Sequence[Item], asked: int) -> Verdict:
        """Return a verdict that quotes the first item."""
        words = f"no user {items[0].body.decode()}" if items else ""
        if response.status == 401:
            return Misconfigured("401", words, "destination")
        return Refused("B1", words) if response.status == 400 else super().read(response, group, items, asked)


@played
async def test_a_hold_does_not_say_whose_record_it_was() -> None:
    """The state's message has the vendor's words without the value; the dead letter has it.

    Kills: passing the verdict's reason on to logs and /status; cutting what the dead letter is for.
    """
    rig = Rig(lambda call: [Reply(401), Reply(401), Reply(401), Reply(400)][call.nth] if call.nth < 4 else OK)
    rig.destination.vendor = Talkative()
    async with rig.running():
        rig.offer([PHONE])
        await rig.until(lambda: rig.worker.condition().cause)
        assert rig.worker.condition().message == "no user ***"
        rig.destination._reload = Talkative
        rig.worker.release()
        await rig.done()
    assert [dead_letter.message for dead_letter in rig.dead_letters.dead_letters] == [f"no user {PHONE}"]
