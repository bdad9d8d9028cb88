"""Who is in a group: `@NAME` of the configuration, and `@all`, every peer that is not blocked.

The configuration names peers by name. This node's own name among them stands for nobody, so that the same
group can be written on all of its nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgd import advising, showing
from msgd.config import ALL
from msgd.errors import NotTrusted, UnknownPeer
from msgd.wire.ledger import PeerState

if TYPE_CHECKING:
    from msgd.control import Control
    from msgd.trusting import Nothing

MARK = "@"  # that a group is written with, and may be left out


def plain(group: str) -> str:
    """A group's name without its mark."""
    return group.removeprefix(MARK)


def members(control: Control, group: str) -> list[PeerState]:
    """The peers of a group, each once, in the configuration's order. Raises UnknownPeer, NotTrusted."""
    peers = control.state().peers
    if group == ALL:
        found = [p for p in peers if _is_peer(p) and not p.blocked]
    else:
        found = [_member(control, peers, group, name) for name in _names(control, group)]
    if not found:
        raise UnknownPeer(f"Group {MARK}{group} has no members besides this node.", "See `msgctl group ls`.")
    return found


def check_held(control: Control, peers: list[PeerState]) -> None:
    """Raises NotTrusted where something would be held for one of them."""
    held = next((p for p in peers if p.hold), None)
    if held is not None:
        steps = advising.pairing(held, control.request_of(held.number), control.own_name)
        text = f"Nothing was sent to anybody, nothing is kept: {steps['detail']}"
        raise NotTrusted(text, steps["next"] or steps["there"] or "")


def _names(control: Control, group: str) -> list[str]:
    groups = control.place.config.group
    if group not in groups:
        known = ", ".join(MARK + name for name in (*groups, ALL))
        raise UnknownPeer(
            f"There is no group {MARK}{group} (groups: {known}).",
            f"Make it in the configuration, [group.{group or 'NAME'}] peers = [...], then `msgctl reload`.",
        )
    return [name for name in dict.fromkeys(groups[group].peers) if name != control.own_name]


def _member(control: Control, peers: list[PeerState], group: str, name: str) -> PeerState:
    peer = next((p for p in peers if p.name == name and _is_peer(p)), None)
    if peer is None:
        raise UnknownPeer(
            f"Group {MARK}{group} names {name}, which is no peer: nothing was sent to anybody.",
            f"Pair with it, or take it out of [group.{group}].",
        )
    if peer.blocked:
        text = f"{name} of group {MARK}{group} is blocked here: nothing was sent to anybody."
        raise NotTrusted(text, f"msgctl peer unblock {name}")
    return peer


def _is_peer(peer: PeerState) -> bool:
    return peer.pinned and not peer.removed and not peer.into


def groups(control: Control, call: Nothing, more: bool) -> None:
    """All groups with their members, as they stand."""
    peers = control.state().peers
    by_name = {p.name: p for p in peers if _is_peer(p)}
    everybody = [p for p in peers if _is_peer(p) and not p.blocked]
    shown = [
        {"name": group, "members": [_shown(name, by_name.get(name)) for name in _names(control, group)]}
        for group in control.place.config.group
    ]
    shown.append({"name": ALL, "members": [_shown(p.name, p) for p in everybody]})
    control.reply({"groups": shown})


def _shown(name: str, peer: PeerState | None) -> dict[str, Any]:
    if peer is None:
        return {"peer": name, "state": "unknown", "reason": "no peer of this node", "queued": 0}
    reason, _ = showing.waiting_reason(peer)
    return {"peer": name, "state": showing.peer_state(peer), "reason": reason, "queued": peer.queued}
