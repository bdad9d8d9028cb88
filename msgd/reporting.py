"""How everything stands, as the log process tells it: every peer, for `status` and for whoever sends."""

import msgspec

from msgd import lag
from msgd.books import Books
from msgd.linking import Linking
from msgd.log.record import Kind
from msgd.standing import Peer
from msgd.wire.ledger import Break, Indexed, PeerState, Pong, Snapshot, State


def pong(token: int, books: Books, links: Linking, indexed: Indexed) -> Pong:
    """At work; with what is queued and what is held, and how far the index is behind."""
    queued = held = 0
    for peer in books.delivery.live():
        held_here = _held(peer, links)
        held += held_here
        queued += peer.out.queued_count - held_here
    index = lag.told(books.store.committed - indexed.offset, indexed.is_new, indexed.done)
    return Pong(token, links.connected(), queued, held, index)


def state(frame: Snapshot, books: Books, links: Linking, indexed: Indexed) -> State:
    """The answer to Snapshot."""
    peers = books.delivery.peers
    chosen = [peers[frame.peer]] if frame.peer in peers else peers.values()
    states = [peer_state(peer, books, links) for peer in chosen]
    store = books.store
    is_cloned = links.clones.holds(0, books.clock.mono_ns() / 1e9)
    return State(
        token=frame.token,
        log_id=store.log_id,
        generation=books.generation,
        peers=states,
        indexed=indexed.offset,
        full=store.is_full,
        is_cloned=is_cloned,
        index_is_new=indexed.is_new,
        index_done=indexed.done,
    )


def peer_state(peer: Peer, books: Books, links: Linking) -> PeerState:
    """One peer. What waits at an address that was merged is held for the reason of who answers there."""
    out, status = peer.out, links.status(peer.number)
    hold = links.hold_of(books.delivery.owner(peer.number)[0])
    held = _held(peer, links)
    return PeerState(
        number=peer.number,
        identity=peer.identity,
        name=peer.name,
        address=peer.address,
        removed=peer.removed,
        connected=links.is_connected(peer.number),
        since_ns=status.since_ns,
        reason=status.reason,
        next_mono_ns=status.next_mono_ns,
        queued=out.queued_count - held,
        unreceipted=sum(b.count for b in out.unreceipted),
        sent=out.receipt,
        received=peer.inward.last,
        seen_ns=peer.seen_ns,
        offset_ns=status.offset_ns,
        round_trip_ns=status.round_trip_ns,
        pinned=peer.pinned,
        blocked=peer.blocked,
        hold=hold.reason,
        hold_detail=hold.detail,
        changed=peer.changed,
        retired=peer.retired,
        paired_ns=peer.paired_ns,
        how=peer.how,
        aliases=peer.aliases,
        into=peer.into,
        held=held,
        breaks=[Break(*msgspec.structs.astuple(b)) for b in peer.breaks],
        is_cloned=links.clones.holds(peer.number, books.clock.mono_ns() / 1e9),
        is_joining=peer.joining is not None,
        tried_mono_ns=status.tried_mono_ns,
        exported=out.exported,
        open_from=_open_from(peer, books.store.committed),
    )


def _held(peer: Peer, links: Linking) -> int:
    """How many messages wait without a seq because of who the peer is."""
    return peer.out.waiting_count if links.hold_of(peer).reason else 0


def _open_from(peer: Peer, committed: int) -> int:
    # of what a new epoch made wait again the messages stand somewhere before
    places = [each.start if each.kind == Kind.HELD else 0 for each in peer.out.waiting]
    places += [batch.start for batch in peer.out.unreceipted]
    return min(places, default=committed)
