"""What a dialler does about each refusal, as data (the codes of `Refuse`).

An unknown code is treated as `closing`: a newer peer may know more reasons than we do.
"""

from typing import NamedTuple

BACKOFF_MAX_S = 30.0  # the ordinary backoff grows up to this
SLOW_BACKOFF_MAX_S = 600.0


class Reaction(NamedTuple):
    """What to do, and what to tell."""

    meaning: str  # for people, after the peer's name
    every_s: float | None = None  # fixed time between tries; None: backoff with jitter
    backoff_max_s: float = BACKOFF_MAX_S
    hold: str = ""  # why messages are now `held` instead of `queued`; empty: they stay queued
    again: bool = True  # False: only a person tries again
    event_from: int = 0  # an event at this many refusals in a row and above; 0: none of its own
    retry_given: bool = False  # `retry_s` of the refusal says when


REACTIONS: dict[str, Reaction] = {
    "version": Reaction("speaks no version that we speak", backoff_max_s=SLOW_BACKOFF_MAX_S, event_from=1),
    "proof": Reaction("did not find our proof good", backoff_max_s=SLOW_BACKOFF_MAX_S, event_from=1),
    "self": Reaction("is this node itself", backoff_max_s=SLOW_BACKOFF_MAX_S, event_from=1),
    "unpaired": Reaction("has not accepted us", every_s=60.0, hold="unpaired"),
    "pending": Reaction("has our request, a person there must answer it", hold="unpaired"),
    "rejected": Reaction("rejected our request", hold="unpaired", again=False),
    "blocked": Reaction("has blocked us", every_s=3600.0, hold="blocked"),
    "retired": Reaction(
        "knows our key as replaced: restored backup or stolen key",
        backoff_max_s=SLOW_BACKOFF_MAX_S,
        event_from=1,
    ),
    "duplicate": Reaction("has another link with us"),
    "clone": Reaction("has a link with another start of this node", event_from=2),
    "invitation": Reaction("does not take the invitation", again=False),
    "limit": Reaction("takes no more connections now", retry_given=True),
    "off": Reaction("has pairing switched off", retry_given=True),
    "closing": Reaction("is going down", retry_given=True),
}

FORGOTTEN = Reaction("no longer knows us", every_s=60.0, hold="forgotten")


def reaction(code: str, *, linked_before: bool = False) -> Reaction:
    """What to do about a refusal with this code.

    `linked_before`: a link with this peer ever stood, so `unpaired` means that it forgot us.
    """
    if code == "unpaired" and linked_before:
        return FORGOTTEN
    return REACTIONS.get(code, REACTIONS["closing"])
