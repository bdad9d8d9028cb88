"""Commands about peers and this node's own key: added, renamed, removed, blocked; shown, rotated."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from msgd import showing
from msgd.finding import numbered, parse_address
from msgd.trust.identity import KEY_FILE, identity_text, load, parse_identity
from msgd.trust.proof import identity_of
from msgd.wire.ledger import PutPeer
from msgd.wire.trust import Rotate

if TYPE_CHECKING:
    from msgd.control import Control


class Nothing(msgspec.Struct):
    """No parameters."""


class PeerCall(msgspec.Struct):
    """A peer."""

    peer: str


class PeerAddCall(msgspec.Struct):
    """A peer by its identity."""

    name: str
    key: str
    address: str | None = None


class PeerRenameCall(msgspec.Struct):
    """A peer, and its new name."""

    peer: str
    name: str


# --- peers --------------------------------------------------------------------------------------------------


def peers(control: Control, call: Nothing, more: bool) -> None:
    """All peers, and the addresses for which something is held."""
    control.reply({"peers": shown_peers(control)})


def shown_peers(control: Control) -> list[dict[str, Any]]:
    """As `Peers` and `Status` tell them."""
    asked = control.asked_by_peer()
    known = control.state().peers
    return [showing.peer(p, asked.get(p.number), control.own_name) for p in known if showing.is_shown(p)]


def add(control: Control, call: PeerAddCall, more: bool) -> None:
    """Pin an identity that is known by other means."""
    identity = parse_identity(call.key)
    address = parse_address(call.address) if call.address else ""
    frame = PutPeer(
        control.next_token(), "add", control.user, identity=identity, name=call.name, address=address
    )
    done = control.ask(frame)
    control.reply({"changed": done.changed, "peer": shown_peer(control, done.value)})


def remove(control: Control, call: PeerCall, more: bool) -> None:
    """Give up a peer."""
    number = control.lookup(call.peer).number
    done = control.ask(PutPeer(control.next_token(), "remove", control.user, number=number))
    control.reply({"cancelled": done.value})


def rename(control: Control, call: PeerRenameCall, more: bool) -> None:
    """Another name."""
    number = control.lookup(call.peer).number
    control.ask(PutPeer(control.next_token(), "rename", control.user, number=number, name=call.name))
    control.reply({"peer": shown_peer(control, number)})


def block(control: Control, call: PeerCall, more: bool) -> None:
    """Take nothing from a peer and give it nothing."""
    number = control.lookup(call.peer).number
    done = control.ask(PutPeer(control.next_token(), "block", control.user, number=number))
    control.reply({"changed": done.changed, "cancelled": done.value, "peer": shown_peer(control, number)})


def unblock(control: Control, call: PeerCall, more: bool) -> None:
    """Take it back."""
    number = control.lookup(call.peer).number
    done = control.ask(PutPeer(control.next_token(), "unblock", control.user, number=number))
    control.reply({"changed": done.changed, "peer": shown_peer(control, number)})


def shown_peer(control: Control, number: int) -> dict[str, Any]:
    """A peer as it stands now."""
    asked = control.request_of(number)
    return showing.peer(numbered(control.state().peers, number), asked, control.own_name)


# --- this node's own identity -------------------------------------------------------------------------------


def identity(control: Control, call: Nothing, more: bool) -> None:
    """Who this node is, and who it was."""
    node = control.place.node
    former = [identity_text(identity_of(each.spki)) for each in node.chain]
    control.reply(
        {"name": node.name, "identity": identity_text(node.key.identity), "former_identities": former}
    )


def rotate(control: Control, call: Nothing, more: bool) -> None:
    """A new key, signed by the old one."""
    old = control.place.node.key.identity
    control.ask(Rotate(control.next_token(), control.user))
    new = load(os.path.join(control.place.config.state, KEY_FILE)).identity
    control.reply({"old": identity_text(old), "identity": identity_text(new)})
