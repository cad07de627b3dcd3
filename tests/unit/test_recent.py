"""What is remembered by names from outside is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from connector.recent import Recent


@given(st.integers(1, 6), st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=80))
def test_the_values_used_last_are_kept_and_no_more_than_twice_as_many(most: int, steps: list[tuple[bool, int]]) -> None:
    """A value among the `most` keys that were put or found last is found, always with the value put last.

    Kills: forgetting by age instead of by use, a generation that never ends, a value of another key.
    """
    recent: Recent[int, int] = Recent(most)
    used: list[int] = []
    values: dict[int, int] = {}
    for at, (puts, key) in enumerate(steps):
        if puts:
            recent.put(key, at)
            values[key] = at
        else:
            found = recent.get(key)
            assert found in (None, values.get(key))
            if key in used[:most]:
                assert found == values[key]
        if key in recent:
            used = [key, *(one for one in used if one != key)]
        assert len(recent) <= 2 * most


def test_a_turn_is_told_and_a_key_can_be_forgotten() -> None:
    """`on_turn` is called whenever a generation is forgotten."""
    turns: list[int] = []
    recent: Recent[int, str] = Recent(2, lambda: turns.append(1))
    for number in range(5):
        recent.put(number, str(number))
    assert (turns, [number for number in range(5) if number in recent]) == ([1, 1], [2, 3, 4])
    recent.pop(4)
    recent.pop(2)
    assert [number for number in range(5) if number in recent] == [3]


def test_every_remembered_value_can_be_changed() -> None:
    """`change` reaches both generations and keeps what is remembered. Kills: values of the old generation that stay."""
    recent: Recent[int, str] = Recent(2)
    for number in range(3):
        recent.put(number, str(number))
    recent.change(lambda value: value * 2)
    assert [recent.get(number) for number in range(3)] == ["00", "11", "22"]
