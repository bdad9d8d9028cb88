"""What a hook's process makes of a message that it was given."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from msgd import hooking
from msgd.backoff import Backoff
from msgd.children import HOOK_REFUSED
from msgd.config import Hook
from msgd.errors import MsgdError, Uncertain, UnknownConsumer, UsageError
from msgd.note import Note
from msgd.receiving import ASIDE, Taken

ID = bytes(range(16))


def test_what_had_all_its_attempts_is_set_aside_without_one_more() -> None:
    """A command that takes the hook's process with it never gets to fail."""
    work: Any = object.__new__(hooking._Work)
    work._name, work._note, work._is_over = "x", Note(), False
    work._hook = SimpleNamespace(max_attempts=2)
    work._pauses = Backoff(random.random)
    row: Any = SimpleNamespace(id=ID, peer="a")
    settled = work._handle(Taken(row, 3), None)
    assert (ID, ASIDE, 2) == (settled.id, settled.outcome, settled.attempt)  # the third was not made
    assert [] == work._note.left()


@pytest.mark.parametrize(
    ("error", "code"),
    [(UnknownConsumer("gone"), 0), (Uncertain("gone"), 0), (UsageError("no"), HOOK_REFUSED)],
)
def test_who_lost_the_consumer_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, error: MsgdError, code: int
) -> None:
    """`consumer rm` of a hook at work: the next process begins it anew at once."""
    nothing: Any = SimpleNamespace()

    def fail(*given: object) -> None:
        raise error

    receiver = SimpleNamespace(begin=lambda *given: True, settle=lambda settled: None, next=fail)
    monkeypatch.setattr(hooking, "Listening", lambda *given: nothing)
    monkeypatch.setattr(hooking, "Receiver", lambda *given: receiver)
    monkeypatch.setattr(hooking.executing, "die_with", lambda parent: None)
    hook = Hook(command=("/bin/true",))
    assert code == hooking.run(nothing, nothing, "x", hook, Note(), 0)
