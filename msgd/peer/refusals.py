"""What a dialler does about each refusal, as data (the codes of `Refuse`), and how people read it.

An unknown code is treated as `closing`, its text shown escaped: a newer peer may know more reasons than we.
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

# The first word of an `invitation` refusal's detail; behind `used` stands the identity that used it.
INVITATION = {
    "unknown": "does not know this invitation",
    "used": "says that this invitation was used",
    "dead": "says that this invitation was tried with wrong proofs, so it ended",
    "expired": "says that this invitation has expired",
    "wrong": "finds the secret of this invitation wrong",
}

FORGOTTEN = Reaction("no longer knows us", every_s=60.0, hold="forgotten")


def reaction(code: str, *, linked_before: bool = False) -> Reaction:
    """What to do about a refusal with this code.

    `linked_before`: a link with this peer ever stood, so `unpaired` means that it forgot us.
    """
    if code == "unpaired" and linked_before:
        return FORGOTTEN
    return REACTIONS.get(code, REACTIONS["closing"])


def sentence(code: str, detail: str = "", *, linked_before: bool = False) -> str:
    """What the peer says, for people, to stand behind its name; `code` and `detail` are foreign text."""
    if code not in REACTIONS:
        return f"refuses: {_escaped(code)}{_behind(detail)}"
    word, _, rest = detail.partition(" ")
    if code == "invitation" and word in INVITATION:
        return INVITATION[word] + (f" by {_escaped(rest)}" if rest else "")
    return reaction(code, linked_before=linked_before).meaning + _behind(detail)


def _behind(detail: str) -> str:
    return f" ({_escaped(detail)})" if detail else ""


def _escaped(text: str) -> str:
    """Foreign text without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
