"""Backoff: grows, stays below its cap, spreads, forgets after a stable time."""

from hypothesis import given
from hypothesis import strategies as st

from msgd.backoff import Backoff


def test_the_wait_doubles_up_to_the_cap() -> None:
    """With the most that chance gives, waits are half a second, one, two … and never above the cap."""
    backoff = Backoff(lambda: 1.0, first_s=0.5, cap_s=30)
    assert [backoff.failed(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(chance=st.floats(0, 1, exclude_max=True), failures=st.integers(0, 100))
def test_a_wait_lies_between_half_the_step_and_the_step(chance: float, failures: int) -> None:
    """Jitter spreads tries, and a hundred failures still make a finite wait."""
    backoff = Backoff(lambda: chance, first_s=0.5, cap_s=30)
    wait_s = [backoff.failed(0) for _ in range(failures + 1)][-1]
    step_s = min(30, 0.5 * 2**failures)
    assert step_s / 2 <= wait_s <= step_s


def test_what_lived_long_enough_starts_from_the_first_step() -> None:
    """A link that stood for the stable time is not punished for what was before it."""
    backoff = Backoff(lambda: 1.0, first_s=0.5, stable_s=60)
    for _ in range(5):
        backoff.failed(0)
    assert backoff.failed(0, lived_s=59) == 16
    assert backoff.failed(0, lived_s=60) == 0.5


def test_wait_counts_down_on_the_given_clock() -> None:
    """`wait_s` is what is left of the wait, and 0 afterwards; `reset` ends it."""
    backoff = Backoff(lambda: 1.0, first_s=10)
    backoff.failed(100)
    assert (backoff.wait_s(100), backoff.wait_s(106), backoff.wait_s(200)) == (10, 4, 0)
    backoff.reset(101)
    assert (backoff.wait_s(101), backoff.failures) == (0, 0)
