"""Why what waits for a peer is `held` rather than queued, and what a person can do about it.

| reason | it is so |
|---|---|
| blocked | here, or there |
| unpaired | nobody here has accepted who answers; or they have not accepted this node |
| key-changed | another key answers than the one that was accepted |
| forgotten | a link stood once, and now they do not know this node |

What this node's person decided stands in the log. What the others say is known from the last refusal, and
holds until a link stands.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from msgd.peer.refusals import reaction
from msgd.standing import ZERO_EPOCH, Peer
from msgd.trust.identity import identity_text


class Hold(NamedTuple):
    """Why nothing flows: a word for programs, a sentence with the next step for people. Empty: it flows."""

    reason: str = ""
    detail: str = ""


FLOWS = Hold()


def was_linked(peer: Peer) -> bool:
    """Whether it ever knew this node: a link stood, or a parcel of it came. Our own parcel says nothing."""
    return peer.inward.epoch != ZERO_EPOCH or peer.out.receipt > 0


def hold_here(peer: Peer) -> Hold:
    """What this node's own log says."""
    name = peer.name
    if peer.blocked:
        return Hold("blocked", f"{name} is blocked here. `msgctl peer unblock {name}` lets it in again.")
    if not peer.pinned:
        return Hold(
            "unpaired",
            f"Nobody here has accepted who answers at {peer.address}. "
            f"`msgctl pair` shows requests, `msgctl pair ask {peer.address}` asks again.",
        )
    if peer.changed:
        return Hold("key-changed", _key_changed(peer))
    return FLOWS


def hold_there(peer: Peer, code: str) -> Hold:
    """What follows from a refusal with this code."""
    found = reaction(code, linked_before=was_linked(peer))
    if not found.hold:
        return FLOWS
    detail = f"{peer.name} {found.meaning}. {THERE.get(code, '')}"
    if found.hold == "forgotten":
        detail = (
            f"{peer.name} {found.meaning}: it was installed anew, or a person there removed this node. "
            f"`msgctl pair ask {peer.name}` asks it; a person there accepts with `msgctl pair`."
        )
    return Hold(found.hold, detail.format(name=peer.name).strip())


THERE = {
    "unpaired": "`msgctl pair ask {name}` asks it; a person there accepts with `msgctl pair`.",
    "pending": "There: `msgctl pair`.",
    "rejected": "Talk to that person, then `msgctl pair ask {name}` in an hour.",
    "blocked": "Only a person there can change that.",
}


def _key_changed(peer: Peer) -> str:
    since = f", accepted {_day(peer.paired_ns)}" if peer.paired_ns else ""
    return (
        f"At {peer.address} answers the key {identity_text(peer.changed)}, not that of {peer.name} "
        f"({identity_text(peer.identity)}{since}). Either {peer.name} was installed anew, or the "
        f"address belongs to another machine now, or somebody stands in between. Nothing is sent. If it was "
        f"installed anew, compare words with it: `msgctl peer rekey {peer.name}`."
    )


def _day(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d")
