"""Signals: noted in the pipe, held around a fork, reset in a child."""

import os
import select
import signal
from collections.abc import Iterator

import pytest

from msgd import signals
from msgd.signals import Signals
from tests.forked import in_child

SOON_S = 5.0
CAUGHT = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@pytest.fixture
def caught() -> Iterator[Signals]:
    """The test's own process catches CAUGHT, and is as before afterwards."""
    made = Signals(CAUGHT)
    yield made
    made.close()


def test_signals_are_taken_from_the_loop_once(caught: Signals) -> None:
    """The descriptor becomes readable, `take` says which, and then there is nothing."""
    assert caught.take() == set()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    assert select.select([caught], [], [], SOON_S)[0]
    assert caught.take() == {signal.SIGTERM, signal.SIGUSR1}
    assert caught.take() == set()
    assert not select.select([caught], [], [], 0)[0]


def test_close_puts_the_former_handlers_back() -> None:
    """Nothing of it stays in the process."""
    before = [signal.getsignal(number) for number in CAUGHT]
    Signals(CAUGHT).close()
    assert [signal.getsignal(number) for number in CAUGHT] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_held_signal_comes_when_released(caught: Signals) -> None:
    """Around a fork nothing is lost, only late."""
    mask = signals.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    assert caught.take() == set()
    signals.release(mask)
    assert select.select([caught], [], [], SOON_S)[0]
    assert caught.take() == {signal.SIGTERM}


def test_a_child_is_reset(caught: Signals) -> None:
    """Default for what the parent caught, INT and HUP ignored, nothing blocked, no wake-up fd."""

    def body() -> tuple[object, object, int]:
        signals.reset_in_child()
        return (
            {number: signal.getsignal(number) for number in (*CAUGHT, signal.SIGINT, signal.SIGPIPE)},
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            signal.set_wakeup_fd(-1),
        )

    mask = signals.hold()
    handlers, blocked, wakeup_fd = in_child(body)
    signals.release(mask)
    assert handlers == {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGUSR1: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_IGN,
        signal.SIGINT: signal.SIG_IGN,
        signal.SIGPIPE: signal.SIG_IGN,
    }
    assert (blocked, wakeup_fd) == (set(), -1)


def test_a_signal_to_a_child_does_not_reach_the_parents_loop(caught: Signals) -> None:
    """The pipe is shared until the child lets go of it."""

    def body() -> None:
        signals.reset_in_child()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGHUP)

    mask = signals.hold()
    in_child(body)
    signals.release(mask)
    assert caught.take() == set()
