"""What a hook's process makes of a message that it was given."""

import random
from types import SimpleNamespace
from typing import Any

from msgd import hooking
from msgd.backoff import Backoff
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
    assert (ID, ASIDE, 3) == (settled.id, settled.outcome, settled.attempt)
    assert [] == work._note.left()
