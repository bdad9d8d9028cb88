"""Commands by which two nodes become peers: comparing words, and invitations."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from msgd import advising, showing
from msgd.errors import NotTrusted, UnknownPeer, UsageError
from msgd.finding import parse_address
from msgd.reaching import own_addresses
from msgd.trust.identity import identity_text
from msgd.trust.invitation import Invitation, format_invitation, parse_invitation
from msgd.trust.words import parse_words
from msgd.trusting import Nothing, shown_peer
from msgd.wire.ledger import PeerState, Watch
from msgd.wire.trust import Act, Decide, Invite, Invited, PutJoin, RequestState

if TYPE_CHECKING:
    from msgd.control import Control

ASK_MS = 20_000  # for both ends to meet: 10 s to connect, 10 s for the exchange
INVITATION_MS = 600_000
DAY_MS = 86_400_000

Timeout = Annotated[int, msgspec.Meta(ge=0, le=DAY_MS)] | None


class AskCall(msgspec.Struct):
    """A peer or an address, and how long to wait for words."""

    peer: str
    timeout_ms: Timeout = None


class AcceptCall(msgspec.Struct):
    """Who asks, with the words that were compared, and what to call it."""

    node: str
    words: str | None = None
    name: str | None = None


class NodeCall(msgspec.Struct):
    """Who asks."""

    node: str


class InviteCall(msgspec.Struct):
    """How long it holds, and where this node is reached."""

    ttl_ms: Annotated[int, msgspec.Meta(ge=1000, le=366 * DAY_MS)] | None = None
    addresses: list[str] | None = None


class JoinCall(msgspec.Struct):
    """An invitation, what to call who gave it, and how long to wait for it to be taken."""

    invitation: str
    name: str | None = None
    timeout_ms: Timeout = None


# --- comparing words ----------------------------------------------------------------------------------------


def pairs(control: Control, call: Nothing, more: bool) -> None:
    """The requests that wait for a person."""
    control.reply({"requests": [_request(control, r) for r in control.requests()]})


def ask(control: Control, call: AskCall, more: bool) -> None:
    """Have words made with a peer that does not know us, or with an address."""
    _meet(control, call, _whom(control, call.peer), rekey=False)


def rekey(control: Control, call: AskCall, more: bool) -> None:
    """Have words made with whoever answers at a peer's address, to accept its new key."""
    _meet(control, call, control.lookup(call.peer), rekey=True)


def _whom(control: Control, who: str) -> PeerState:
    if control.is_known_only:
        raise NotTrusted(
            "This node compares words with nobody: pairing.trust is known-only.",
            "Use `msgctl pair invite`, `msgctl pair join`, or `msgctl peer add` on both nodes.",
        )
    try:
        return control.lookup(who)
    except NotTrusted:
        return control.put_peer("hold", address=parse_address(who))


def _meet(control: Control, call: AskCall, peer: PeerState, *, rekey: bool) -> None:
    """Wait until the words are known, the try has failed, or the time is over."""
    if peer.connected and not peer.hold and not peer.changed:
        text = f"{peer.name} is paired, and connected."
        control.reply({"request": None, "reason": text, "peer": showing.peer(peer, None, control.own_name)})
        return
    control.tell(Watch(peer.number))
    began_s, heard = time.monotonic(), control.trust_changes
    control.ask(Act(control.next_token(), peer.number, control.user, rekey))
    deadline_s = began_s + (ASK_MS if call.timeout_ms is None else call.timeout_ms) / 1000
    while True:
        now = control.peer_state(peer.number)
        asked = control.request_of(now.number)
        is_known = asked is not None and asked.rekey == rekey and asked.words
        is_paired = now.number != peer.number or (now.connected and not now.hold)
        if is_known or is_paired or now.has_failed_since(began_s):
            break
        if not control.wait_trust(heard, deadline_s):
            break
        heard = control.trust_changes
    shown = None if asked is None or asked.rekey != rekey else _request(control, asked)
    reason = None if shown else _no_words(now)
    control.reply({"request": shown, "reason": reason, "peer": showing.peer(now, asked, control.own_name)})


def _no_words(peer: PeerState) -> str:
    why = _why(peer)
    if peer.hold:
        return why or f"{peer.name} has not answered yet."
    return f"{peer.name} is paired" + (f", but not connected: {why}." if why else ".")


def _why(peer: PeerState) -> str:
    return peer.reason or (peer.hold_detail if peer.pinned else "")


def accept(control: Control, call: AcceptCall, more: bool) -> None:
    """A person's yes."""
    asked = _asking(control, call.node)
    words = " ".join(asked.words if call.words is None else parse_words(call.words))
    done = control.ask(
        Decide(control.next_token(), asked.identity, words, True, control.user, call.name or "")
    )
    is_complete = asked.theirs == "accepted"
    control.reply({"peer": shown_peer(control, done.value), "words": words, "complete": is_complete})


def reject(control: Control, call: NodeCall, more: bool) -> None:
    """A person's no."""
    asked = _asking(control, call.node)
    control.ask(Decide(control.next_token(), asked.identity, " ".join(asked.words), False, control.user))
    control.reply({"name": asked.name, "identity": identity_text(asked.identity)})


def _asking(control: Control, node: str) -> RequestState:
    """The one request that a person means. Raises UnknownPeer, UsageError."""
    requests = control.requests()
    known = {p.number: p for p in control.state().peers}
    found = [r for r in requests if _is_meant(r, [known[n] for n in (r.peer, *r.places) if n in known], node)]
    if not found:
        listed = ", ".join(f"{r.name} at {r.address}" for r in requests) or "nobody"
        raise UnknownPeer(
            f"No request of {node!r} waits here (waiting: {listed}).",
            "A request ends after 10 minutes. To ask anew: msgctl pair ask ADDRESS",
        )
    if len(found) > 1:
        each = "; ".join(f"{identity_text(r.identity)} at {r.address}: {' '.join(r.words)}" for r in found)
        raise UsageError(
            f"{len(found)} nodes call themselves {node}: {each}.",
            "Name one of them by its identity or address, the one whose screen shows these words.",
        )
    return found[0]


def _is_meant(asked: RequestState, peers: list[PeerState], node: str) -> bool:
    names = {asked.name, asked.address, asked.address.rpartition(":")[0].strip("[]")}
    for peer in peers:
        names |= {peer.name, peer.address, peer.address.rpartition(":")[0].strip("[]")}
    letters = node.replace("-", "").upper()
    return node in names or letters == identity_text(asked.identity).replace("-", "")


def _request(control: Control, asked: RequestState) -> dict[str, Any]:
    peer = next((p for p in control.state(fresh=False).peers if p.number == asked.peer), None)
    return advising.request(peer, asked, time.clock_gettime_ns(time.CLOCK_BOOTTIME))


# --- invitations --------------------------------------------------------------------------------------------


def invite(control: Control, call: InviteCall, more: bool) -> None:
    """Make an invitation."""
    if call.addresses:
        addresses = [parse_address(text) for text in call.addresses]
    else:
        addresses = own_addresses(control.place.config.listen)
    ttl_ms = INVITATION_MS if call.ttl_ms is None else call.ttl_ms
    own = control.place.node.key.identity
    _check_fits(own, addresses)
    made: Invited = control.ask(Invite(control.next_token(), control.user, ttl_ms * 1_000_000))
    string = format_invitation(
        Invitation(
            identity=own,
            invitation=made.invitation,
            secret=made.secret,
            expires_s=made.expires_s,
            addresses=tuple(addresses),
        )
    )
    expires_ns = made.expires_s * 1_000_000_000
    control.reply(
        {
            "invitation": string,
            "expires_at": showing.rfc3339(expires_ns),
            "expires_at_ns": expires_ns,
            "identity": identity_text(own),
            "addresses": addresses,
        }
    )


def _check_fits(own: bytes, addresses: list[str]) -> None:
    """Raises UsageError before anything is committed."""
    format_invitation(
        Invitation(
            identity=own, invitation=bytes(8), secret=bytes(16), expires_s=0, addresses=tuple(addresses)
        )
    )


def join(control: Control, call: JoinCall, more: bool) -> None:
    """Accept an invitation: both sides are peers when the inviter has taken it."""
    given = parse_invitation(call.invitation)
    if given.identity == control.place.node.key.identity:
        raise UsageError("This invitation is this node's own.", "Join with it on the other machine.")
    done = control.ask(
        PutJoin(
            control.next_token(),
            control.user,
            given.identity,
            given.invitation,
            given.secret,
            given.expires_s,
            list(given.addresses),
            call.name or "",
        )
    )
    control.tell(Watch(done.value))
    peer = _joined(control, done.value, call.timeout_ms)
    if not peer.pinned or peer.removed:
        raise NotTrusted(
            f"The invitation was not taken: {peer.reason or 'refused'}.",
            "Have a new one made there: msgctl pair invite",
        )
    reason = None if not peer.is_joining else _why(peer) or "it has not answered yet"
    shown = showing.peer(peer, None, control.own_name)
    control.reply({"peer": shown, "joined": not peer.is_joining, "reason": reason})


def _joined(control: Control, number: int, timeout_ms: int | None) -> PeerState:
    """How it stands when the inviter has answered, or the time is over."""
    deadline_s = time.monotonic() + (ASK_MS if timeout_ms is None else timeout_ms) / 1000
    while True:
        heard = control.trust_changes
        peer = control.peer_state(number)
        if not peer.is_joining or not control.wait_trust(heard, deadline_s):
            return peer
