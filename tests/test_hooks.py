"""The supervisor's side of hooks: when a process is started, told to end, started again."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from msgd.children import HOOK_REFUSED, Child, Children, Ended, Kind
from msgd.config import Hook
from msgd.dialling import NEVER_S
from msgd.hooks import AGAIN_S, SOON_S, Hooks
from msgd.note import Note
from tests.nodes import wait_for

TRUE, SLOW = Hook(command=("/bin/true",)), Hook(command=("/bin/true",), max_attempts=3)
ABSENT = Hook(command=("/nonexistent",))


class World:
    """Hooks whose processes only wait for a signal."""

    def __init__(self) -> None:
        self.children = Children()
        self.notes: list[Note] = []
        self.hooks = Hooks(self.children, self.fork, lambda: 0.5)

    def fork(self, name: str, hook: Hook, note: Note) -> Child:
        self.notes.append(note)
        return self.children.spawn(Kind.HOOK, name, wait_for_signal, data=(name, hook))

    @property
    def running(self) -> dict[str, Hook]:
        return dict(child.data for child in self.children.of(Kind.HOOK))

    def ended(self) -> list[Ended]:
        """Ends so far, in the order of their coming, as the supervisor takes them."""
        found = self.children.reap()
        for ended in found:
            self.hooks.ended(ended, 100.0)
        return found


def wait_for_signal() -> int:
    while True:
        signal.pause()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for pid in made.children.by_pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_each_hook_has_one_process(world: World) -> None:
    """As soon as it is configured; a reload without a change touches none."""
    assert NEVER_S == world.hooks.next_s()
    for _ in range(2):
        world.hooks.apply({"a": TRUE, "b": SLOW})
        world.hooks.start_due(0.0)
        assert {"a": TRUE, "b": SLOW} == world.running
    assert NEVER_S == world.hooks.next_s()
    assert 2 == len(world.notes)


def test_a_change_ends_the_process_and_starts_another(world: World) -> None:
    """With the same note; one that is gone from the configuration is not started again."""
    world.hooks.apply({"a": TRUE, "b": TRUE})
    world.hooks.start_due(0.0)
    world.hooks.apply({"a": SLOW})
    wait_for(lambda: (world.ended(), world.running == {})[1], 10, "both to end")
    assert 100.0 + SOON_S == world.hooks.next_s()
    world.hooks.start_due(101.0)
    assert {"a": SLOW} == world.running
    assert world.notes[0] is world.notes[2]


def test_who_cannot_work_is_tried_again_later_or_by_a_reload(world: World) -> None:
    """A command that is not there starts no process at all."""
    world.hooks.apply({"a": ABSENT})
    world.hooks.start_due(5.0)
    assert ({}, 5.0 + AGAIN_S) == (world.running, world.hooks.next_s())
    world.hooks.apply({"a": ABSENT})
    assert 0.0 == world.hooks.next_s()


@pytest.mark.parametrize(
    ("code", "number", "after_s"),
    [
        (HOOK_REFUSED, None, AGAIN_S),
        (0, None, SOON_S),
        (None, signal.SIGKILL, 0.375),
        (1, None, 0.375),
    ],
)
def test_what_an_end_means(world: World, code: int | None, number: int | None, after_s: float) -> None:
    """Refused: in a minute; orderly: soon; killed or crashed: with backoff."""
    world.hooks.apply({"a": TRUE})
    child = Child(1, Kind.HOOK, "a", time.monotonic(), ("a", TRUE))
    world.hooks.ended(Ended(child, code, number, "", 0.0), 7.0)
    assert pytest.approx(7.0 + after_s) == world.hooks.next_s()


def test_a_stop_ends_all_and_starts_none(world: World) -> None:
    world.hooks.apply({"a": TRUE, "b": TRUE})
    world.hooks.start_due(0.0)
    world.hooks.stop()
    wait_for(lambda: (world.ended(), world.running == {})[1], 10, "both to end")
    world.hooks.start_due(1000.0)
    assert ({}, NEVER_S) == (world.running, world.hooks.next_s())
