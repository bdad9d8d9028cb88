"""What a hook's process has in hand survives it."""

import os
import signal

from msgd.note import DIED, Note
from msgd.receiving import ASIDE, DONE, FAILED, RELEASE, Settled

ID = bytes(range(16))


def test_what_was_noted_is_left() -> None:
    """Nothing, a command that ran, or how it ended."""
    note = Note()
    assert [] == note.left()
    note.begin(ID, 70_000)
    assert [Settled(ID, FAILED, DIED, 70_000)] == note.left()
    for outcome in (DONE, FAILED, ASIDE, RELEASE):
        note.begin(ID, 2)
        note.end(outcome)
        assert [Settled(ID, outcome, "", 2)] == note.left()
    note.clear()
    assert [] == note.left()


def test_what_ran_when_it_died_is_known() -> None:
    """Its process group, until it has ended."""
    note = Note()
    note.begin(ID, 1)
    assert 0 == note.group_left()
    note.started(4_194_303)
    assert 4_194_303 == note.group_left()
    note.end(DONE)
    assert 0 == note.group_left()


def test_it_outlives_the_process() -> None:
    """Also one that is killed."""
    note = Note()
    pid = os.fork()
    if pid == 0:
        note.begin(ID, 1)
        note.end(DONE)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert [Settled(ID, DONE, "", 1)] == note.left()


def test_a_refusal_is_news_once() -> None:
    """Until it is another one, or the hook was at work in between."""
    note = Note()
    assert [True, False, True, False] == [note.is_news(text) for text in ("no", "no", "never", "never")]
    note.forget_refusal()
    assert note.is_news("never")
