"""What keeps a peer from getting its messages, told to a person: what has happened, and the next step.

| hold | here | on the other machine |
|---|---|---|
| unpaired, nothing known of who answers | `pair ask ADDRESS` | |
| unpaired, words known | `pair accept NAME` | `pair` |
| unpaired, accepted here | | `pair` |
| key-changed | `peer rekey NAME` | `pair` |
| forgotten | `pair ask NAME` | `pair` |
| blocked here / there | `peer unblock NAME` | `peer unblock OWN` |
"""

import time
from typing import Any

from msgd import model
from msgd.trust.identity import identity_text
from msgd.wire.ledger import Break, PeerState
from msgd.wire.trust import RequestState

KEY_CHANGED = "key-changed"
FORGOTTEN = "forgotten"
BLOCKED = "blocked"


def day(ns: int) -> str:
    """A point in time in UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ns // 1_000_000_000))


def is_accepted(peer: PeerState | None, request: RequestState) -> bool:
    """Whether a person here has said yes to this request."""
    return peer is not None and peer.pinned and not peer.removed and peer.identity == request.identity


def request(peer: PeerState | None, asked: RequestState, now_boot_ns: int) -> dict[str, Any]:
    """A request as the control socket tells it; `peer` is the one that it is about."""
    return {
        "identity": identity_text(asked.identity),
        "name": asked.name,
        "address": asked.address or None,
        "words": " ".join(asked.words),
        "is_ours": asked.is_ours,
        "age_s": round((now_boot_ns - asked.filed_boot_ns) / 1e9, 3),
        "expires_in_s": round(max(0, asked.expires_boot_ns - now_boot_ns) / 1e9, 3),
        "peer": peer.name if peer else None,
        "conflict": asked.conflict or None,
        "rekey": asked.rekey,
        "accepted": is_accepted(peer, asked),
        "theirs": asked.theirs or None,
    }


def pairing(peer: PeerState, asked: RequestState | None, own_name: str) -> dict[str, Any]:
    """What a held message waits for, and who can do what about it."""
    here, there, detail = _steps(peer, asked, own_name)
    known = asked.identity if asked else peer.changed or peer.identity
    return {
        "name": asked.name if asked else peer.name if peer.pinned else None,
        "identity": identity_text(known) if known else None,
        "address": peer.address or None,
        "words": " ".join(asked.words) if asked and asked.words else None,
        "accepted": is_accepted(peer, asked) if asked else peer.pinned,
        "theirs": (asked.theirs or None) if asked else None,
        "detail": detail,
        "next": here,
        "there": there,
    }


def next_here(peer: PeerState, asked: RequestState | None, own_name: str) -> str | None:
    """The command for this machine that ends the hold, where there is one."""
    return _steps(peer, asked, own_name)[0] if peer.hold else None


def _steps(peer: PeerState, asked: RequestState | None, own_name: str) -> tuple[str | None, str | None, str]:
    """What to run here, what to run there, and a sentence."""
    name = peer.name
    if peer.blocked:
        return f"msgctl peer unblock {name}", None, peer.hold_detail
    if peer.hold == BLOCKED:
        return None, f"msgctl peer unblock {own_name}", peer.hold_detail
    if asked is not None:
        return _asked_steps(peer, asked)
    if peer.hold == KEY_CHANGED:
        return f"msgctl peer rekey {name}", "msgctl pair", peer.hold_detail
    if peer.pinned:
        return f"msgctl pair ask {name}", "msgctl pair", peer.hold_detail
    why = f" ({peer.reason})" if peer.reason else ""
    text = f"{peer.address} was never paired, and it is not known yet who answers there{why}."
    return f"msgctl pair ask {peer.address}", None, text


def _asked_steps(peer: PeerState, asked: RequestState) -> tuple[str | None, str | None, str]:
    if asked.theirs == "rejected":
        text = (
            f"The person at {asked.name} has said no. Talk to that person, then "
            f"`msgctl pair ask {peer.name}` in an hour."
        )
        return None, None, text
    if is_accepted(peer, asked):
        return None, "msgctl pair", f"{asked.name} is accepted here; it waits for the yes there."
    if asked.rekey:
        return f"msgctl pair accept {asked.name}", "msgctl pair", peer.hold_detail
    if asked.conflict:
        text = (
            f"{asked.address} calls itself {asked.name}, as the peer {asked.conflict}, but has another key."
        )
        return f"msgctl pair accept {asked.address} --name NAME", "msgctl pair", text
    text = f"{asked.address} answers as {asked.name}, never paired: nothing has been sent to it."
    return f"msgctl pair accept {asked.name}", "msgctl pair", text


def broken(peer: PeerState, found: Break, own_name: str) -> dict[str, Any]:
    """What happened when both logs differed, and who lost what."""
    return {
        "at_ns": found.at_ns,
        "direction": model.DIRECTIONS[found.direction],
        "base": found.base,
        "sender_last": found.sender_last,
        "receiver_last": found.receiver_last,
        "detail": _broken(peer.name, found, own_name),
    }


def _broken(name: str, found: Break, own_name: str) -> str:
    is_out = found.direction == model.OUT
    sender, receiver = ("this node", name) if is_out else (name, "this node")
    text = (
        f"On {day(found.at_ns)} the logs of what {sender} sent to {receiver} differed: {sender} held up to "
        f"seq {found.sender_last}, {receiver} up to {found.receiver_last}"
    )
    if found.sender_last < found.receiver_last:
        first, last = found.sender_last + 1, found.receiver_last
        lost = f"{first} to {last}" if first < last else f"{last}"
        where = f"here: `msgctl recover --from {name}`"
        if not is_out:
            where = f"there: `msgctl recover --from {own_name}`"
        text += f"; {sender} had lost {lost}, which {receiver} still has. To get it back, {where}. "
    elif found.sender_last > found.receiver_last:
        text += f"; {receiver} lacks some of it, or holds other bytes: `msgctl verify {name}` tells. "
    else:
        text += f"; from some seq on each holds other bytes: `msgctl verify {name}` names the first. "
    return text + f"It went on from seq {found.base}; nothing was overwritten."


def clone(name: str) -> str:
    """What to do about two live nodes with one key."""
    return (
        f"Two live nodes use the key of {name}: a copied or cloned state. Stop one of them; give it a key "
        "and a state of its own before it starts again."
    )
