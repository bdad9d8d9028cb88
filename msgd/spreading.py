"""One message to many peers, in the log process: a record for each, all of them in one append.

Its id stands for all of them, so whether somebody has it is asked by the id and the peer: of the recent ids
(`recent.key_of`), and where those do not reach of the index, whose records say which peer they are for.
"""

from msgd import journal, model
from msgd.books import refused_full
from msgd.channel import Channel
from msgd.log.errors import StorageFull
from msgd.log.index import known_records
from msgd.log.record import FLAG_GROUP, OVERHEAD_BYTES, Kind
from msgd.model import MAX_APPEND_BYTES
from msgd.outgoing import Outgoing, refusal
from msgd.recent import TO_A_GROUP, key_of
from msgd.wire.groups import Placed, Spread
from msgd.wire.ledger import Refused, Submit, Submitted

USED = "This id was used before, for a message to one peer."
CATCHING_UP = "The index is still catching up, so nobody can tell whether this id is known."


class Known:
    """What is known of an id. `peers`: who has it, of those that were asked for."""

    def __init__(self, peers: set[int], is_group: bool, is_single: bool) -> None:
        self.peers = peers
        self.is_group = is_group  # a message to a group has it
        self.is_single = is_single  # a message to one peer alone has it


class Spreading:
    """Requests about messages to groups."""

    def __init__(self, outgoing: Outgoing) -> None:
        self.outgoing = outgoing
        self.books = outgoing.books
        self._anew_end = 0  # log offset behind the last message that had been known and gone

    def spread(self, channel: Channel, frame: Spread, payload: memoryview) -> None:
        """Put the message into the log for those who do not have it yet."""
        books = self.books
        refused = self._refusal(frame) or self._make_room(frame, len(payload))
        if refused is not None:
            channel.say(refused)
            return
        if frame.gone and frame.gone_upto >= self._anew_end:
            books.recent.forget([key_of(frame.id, number) for number in frame.gone])
        known = self._known(frame)
        if known is None:
            channel.say(Refused(frame.token, "Unexpected", CATCHING_UP, "Repeat the call in a moment."))
            return
        if known.is_single:
            channel.say(Refused(frame.token, "InvalidRequest", USED, "Use a new id for a new message."))
            return
        placed = Placed(frame.token, books.clock.wall_ns(), [], sorted(known.peers))
        if frame.is_first and known.is_group:
            placed.is_known = True
        else:
            self._put(frame, payload, placed, known)
        # after the commit: the first copies may still be in this append
        books.promise_answer(channel, frame.token, placed)

    def _refusal(self, frame: Spread) -> Refused | None:
        if frame.generation != self.books.generation:
            return Refused(frame.token, "Stale", "It has changed who is a peer.")
        peers = [self.books.delivery.peers[number] for number in frame.peers]
        return next((r for peer in peers if (r := refusal(frame.token, peer)) is not None), None)

    def _make_room(self, frame: Spread, length: int) -> Refused | None:
        """So that all of it goes into one append, or nothing of it is kept."""
        books, size = self.books, (length + OVERHEAD_BYTES) * len(frame.peers)
        is_kept = books.store.end - books.store.committed + size <= MAX_APPEND_BYTES or books.commit()
        try:
            books.room(size)
        except StorageFull:
            is_kept = False
        return None if is_kept else refused_full(frame.token)

    def _put(self, frame: Spread, payload: memoryview, placed: Placed, known: Known) -> None:
        books = self.books
        ids = [] if known.is_group else [frame.id, key_of(frame.id, TO_A_GROUP)]
        for number in frame.peers:
            if number in known.peers:
                continue
            peer = books.delivery.peers[number]
            one = Submit(frame.token, number, 1, frame.id, frame.ttl_ns, frame.generation, frame.user)
            done: Submitted = self.outgoing.put(one, peer, payload, FLAG_GROUP)
            placed.places.append((number, done.offset, done.first_seq))
            ids.append(key_of(frame.id, number))
            if journal.is_shown("message.queued"):
                books.event("message.queued", id=model.id_text(frame.id), peer=peer.name)
        books.remember(ids)
        if frame.gone:
            self._anew_end = books.store.end

    # --- who has it -------------------------------------------------------------------------------------

    def _known(self, frame: Spread) -> Known | None:
        """What is known of the id; None: nobody can tell yet."""
        recent, raw = self.books.recent, frame.id
        keys = {key_of(raw, number): number for number in frame.peers}
        peers = {keys[key] for key in recent.seen([*keys])}
        is_group = bool(peers or recent.seen([key_of(raw, TO_A_GROUP)]))
        known = Known(peers, is_group, not is_group and bool(recent.seen([raw])))
        if recent.doubtful([raw]) and not self._add_indexed(frame, known):
            return None
        return known

    def _add_indexed(self, frame: Spread, known: Known) -> bool:
        """What the index knows of it, too; False: not all that is needed."""
        books, store = self.books, self.books.store
        path = self.outgoing.index_path
        records, position = known_records(path, store.directory, store.log_id, [frame.id])
        if position < books.recent.start:
            return False
        for _, offset in records:
            header = next(books.reader.headers(offset))
            if header.flags & FLAG_GROUP or header.kind == Kind.RECOVERED:
                known.is_group = True
                known.peers.add(books.delivery.owner(header.peer)[0].number)
            else:
                known.is_single = True
        known.peers.intersection_update(frame.peers)
        return True
