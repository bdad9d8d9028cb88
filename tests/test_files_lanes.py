"""Many syncs side by side."""

import pytest

from msgd.files.lanes import LANES, MANY, Lanes


@pytest.mark.parametrize("count", [0, 1, MANY - 1, MANY, 100 * LANES])
def test_every_item_has_its_turn_once(count: int) -> None:
    seen: list[int] = []
    lanes = Lanes(seen.append, range(count))
    lanes.wait()
    assert list(range(count)) == sorted(seen)
    lanes.wait()
    assert count == len(seen)


@pytest.mark.parametrize("count", [1, 100 * LANES])
def test_what_was_not_expected_is_raised_to_who_waits(count: int) -> None:
    def step(item: int) -> None:
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^[0-9]+$"):
        Lanes(step, range(count)).wait()
