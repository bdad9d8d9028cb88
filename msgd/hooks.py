"""The supervisor's side of hooks: one process for each, forked when it is due.

A process that has a message in hand finishes it before its settings change. At a stop of msgd it gets a
moment: the log process is told to stop when all hooks have ended, so that what they did is in the log.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from msgd import journal, runnable
from msgd.backoff import Backoff
from msgd.children import HOOK_REFUSED, Child, Children, Ended, Kind
from msgd.config import Hook
from msgd.dialling import NEVER_S
from msgd.executing import END_NOW
from msgd.note import Note

SOON_S = 0.1
AGAIN_S = 60.0  # a hook that was refused is tried again: a program or a peer may be there by then

Fork = Callable[[str, Hook, Note], Child | None]  # the hook's process; None: there is no room for one


@dataclass(slots=True, eq=False)
class Post:
    """One hook of the configuration."""

    name: str
    hook: Hook
    backoff: Backoff
    note: Note = field(default_factory=Note)
    due_s: float = 0.0  # CLOCK_MONOTONIC of the next start


class Hooks:
    """All hooks of the configuration in force. `random` returns 0 ≤ x < 1."""

    def __init__(self, children: Children, fork: Fork, random: Callable[[], float]) -> None:
        self._children = children
        self._fork = fork
        self._random = random
        self._posts: dict[str, Post] = {}
        self._is_stopping = False

    def apply(self, hooks: dict[str, Hook]) -> None:
        """These are the hooks from now on; processes of others, or of other settings, finish."""
        for name in [name for name in self._posts if name not in hooks]:
            del self._posts[name]
        for name, hook in hooks.items():
            post = self._posts.get(name)
            if post is None:
                self._posts[name] = Post(name, hook, Backoff(self._random, cap_s=AGAIN_S))
            else:
                post.due_s = 0.0 if post.hook != hook else min(post.due_s, post.backoff.next_try_mono_s)
                post.hook = hook
                post.note.forget_refusal()  # who reloads wants to hear it again
        for child in self._children.of(Kind.HOOK):
            name, hook = child.data
            if hooks.get(name) != hook:
                os.kill(child.pid, signal.SIGTERM)

    def next_s(self) -> float:
        """When the next process is to be started."""
        return min((post.due_s for post in self._idle()), default=NEVER_S)

    def start_due(self, now_s: float) -> None:
        """Start what is due; told once where it cannot be."""
        for post in self._idle():
            if post.due_s > now_s:
                continue
            post.due_s = now_s + AGAIN_S
            refusal = runnable.refusal(post.hook)
            if refusal is None:
                self._fork(post.name, post.hook, post.note)
            elif post.note.is_news(refusal.message):
                journal.event("hook.refused", hook=post.name, reason=refusal.message, hint=refusal.hint)

    def ended(self, ended: Ended, now_s: float) -> None:
        """A process of a hook has ended."""
        post = self._posts.get(ended.child.label)
        if post is None:
            return
        if ended.code == HOOK_REFUSED:
            post.due_s = now_s + AGAIN_S
        elif ended.code == 0 or post.hook != ended.child.data[1]:
            post.due_s = now_s + SOON_S  # it lost the log process, or makes room for other settings
        else:
            post.due_s = now_s + post.backoff.failed(now_s, ended.lived_s)

    def stop(self) -> None:
        """End all of them, with what they run."""
        self._is_stopping = True
        for number in (signal.SIGTERM, END_NOW):  # the first ends whoever has nothing in hand
            self._children.kill(number, Kind.HOOK)

    def _idle(self) -> list[Post]:
        if self._is_stopping:
            return []
        running = {child.label for child in self._children.of(Kind.HOOK)}
        return [post for name, post in self._posts.items() if name not in running]
