"""The way of a message of ours through the log process: submitted, then released. Its other ends: `ending`.

A message gets its seq at release, when the link stands and its window has room. With nothing waiting that
is at once (`out`); otherwise it is written `held`, and a `released` record later names it by offset, many
at a time, without copying its bytes.

To an address whose node nobody has accepted messages are held, too. Without a time to live of their own
they expire after `hold_s`; once a person accepts the node, that expiry no longer counts.
"""

from collections.abc import Callable, Iterator

from msgd import journal, model
from msgd.books import Books, refused_full, tell_damage
from msgd.channel import Channel
from msgd.ending import Ending, waits
from msgd.linking import Linking
from msgd.log.errors import Damaged, StorageFull
from msgd.log.index import known_ids
from msgd.log.record import FLAG_HOLD_ENDS, FLAG_REPORTS, Header, Kind, Range, decode_ranges, encode_ranges
from msgd.peer.heads import chain
from msgd.standing import Batch, Peer
from msgd.wire.codec import decode_payload, encode
from msgd.wire.ledger import Duplicates, Refused, Send, Submit, Submitted

RELEASE_MESSAGES = 4096
RELEASE_BYTES = 256 << 10  # of messages in one released batch; a bigger message goes alone
AT_HAND_BYTES = 4096  # so small a batch goes to the link worker at once, which else reads it from the log

Piece = tuple[Range, bytes]  # messages of a record with their place, for a `released` record


class Outgoing:
    """Requests about messages from this node."""

    def __init__(self, books: Books, links: Linking, index_path: str) -> None:
        self.books = books
        self.links = links
        self.index_path = index_path
        self.ending = Ending(books)
        self.hold_s = 86400.0  # how long what is sent to an address waits for a person
        self.releasable: set[int] = set()  # peers for which a batch may be released
        self._anew_end = 0  # log offset behind the last message whose id had been used by one that is gone
        self.on_act: Callable[[Peer, str], None] = lambda peer, user: None  # a person wants to be paired

    # --- submit -----------------------------------------------------------------------------------------

    def submit(self, channel: Channel, frame: Submit, payload: memoryview) -> None:
        """Put messages into the log, and under way at once where nothing stands in between."""
        books = self.books
        if frame.generation != books.generation:
            channel.say(Refused(frame.token, "Stale", "It has changed who is a peer."))
            return
        peer = books.delivery.peers[frame.peer]
        refused = refusal(frame.token, peer)
        if refused is not None:
            channel.say(refused)
            return
        ids = [frame.ids[at : at + 16] for at in range(0, len(frame.ids), 16)]
        if frame.gone and frame.gone_upto >= self._anew_end:
            books.recent.forget(frame.gone)
        repeated = self._repeated(channel, frame, ids)
        if repeated:
            return
        try:
            books.room(len(payload))
        except StorageFull:
            channel.say(refused_full(frame.token))
            return
        flags = FLAG_REPORTS if frame.has_reports else 0
        books.promise_answer(channel, frame.token, self.put(frame, peer, payload, flags))
        books.remember(ids)
        if frame.gone:
            self._anew_end = books.store.end
        if journal.is_shown("message.queued"):
            for raw in ids:
                books.event("message.queued", id=model.id_text(raw), peer=peer.name)

    def put(self, frame: Submit, peer: Peer, payload: bytes | memoryview, flags: int = 0) -> Submitted:
        """Add messages for a peer, for which there is room; the answer to promise.

        They are under way at once where nothing stands in between.
        """
        standing = self.links.ready(peer.number)
        if standing is not None and not peer.out.waiting and self.links.has_window(peer):
            return self._send_now(frame, payload, peer, standing, flags)
        return self._hold(frame, payload, peer, flags)

    def _send_now(
        self, frame: Submit, payload: bytes | memoryview, peer: Peer, link: Channel, flags: int
    ) -> Submitted:
        books = self.books
        seq = peer.out.last + 1
        head = chain(peer.out.head, seq, frame.count, payload)
        offset = books.add(
            Kind.OUT,
            peer=peer.number,
            direction=model.OUT,
            count=frame.count,
            first_seq=seq,
            head=head,
            flags=flags,
            payload=payload,
        )
        length = books.store.end - offset
        books.delivery.sent(peer, Batch(seq, frame.count, offset, length, len(payload), head))
        at_hand = payload if len(payload) <= AT_HAND_BYTES else b""
        # before the answer to the client: it has the longer way
        books.promise(link, Send(offset, length, seq, frame.count, head), payload=at_hand)
        return Submitted(frame.token, offset, seq, books.clock.wall_ns())

    def _hold(self, frame: Submit, payload: bytes | memoryview, peer: Peer, flags: int) -> Submitted:
        books = self.books
        wall_ns = books.clock.wall_ns()
        ends_with_hold = not peer.pinned and not frame.ttl_ns
        ttl_ns = int(self.hold_s * 1e9) if ends_with_hold else frame.ttl_ns
        expires_ns = wall_ns + ttl_ns if ttl_ns else 0
        offset = books.add(
            Kind.HELD,
            peer=peer.number,
            direction=model.OUT,
            count=frame.count,
            aux=expires_ns,
            flags=flags | (FLAG_HOLD_ENDS if ends_with_hold else 0),
            payload=payload,
        )
        books.delivery.held(peer, offset, books.store.end, frame.count, len(payload), expires_ns)
        self.releasable.add(peer.number)
        if not peer.pinned:
            self.on_act(peer, frame.user)
        self.links.wants_dial(peer)
        return Submitted(frame.token, offset, 0, wall_ns)

    def _repeated(self, channel: Channel, frame: Submit, ids: list[bytes]) -> bool:
        """Whether some of the ids are in the log already; then the call has been answered."""
        recent = self.books.recent
        repeated = recent.seen(ids)
        doubtful = recent.doubtful(ids)
        if doubtful:
            store = self.books.store
            found, position = known_ids(self.index_path, store.directory, store.log_id, doubtful)
            if position < recent.start:
                text = "The index is still catching up, so nobody can tell whether this id is known."
                channel.say(Refused(frame.token, "Unexpected", text, "Repeat the call in a moment."))
                return True
            repeated += found
        if repeated:
            # after the commit: the first copy may still be in this append
            self.books.promise_answer(channel, frame.token, Duplicates(frame.token, repeated))
        return bool(repeated)

    # --- release ----------------------------------------------------------------------------------------

    def release_some(self) -> bool:
        """Release one batch for each peer that may have one; whether anything was added."""
        added = False
        for number in list(self.releasable):
            peer = self.books.delivery.peers.get(number)
            link = self.links.ready(number)
            if peer is None or link is None or not peer.out.waiting or not self.links.has_window(peer):
                self.releasable.discard(number)
                continue
            try:
                batch = self.release(peer)
            except Damaged as damage:  # what waits behind it keeps its order, so it waits, too
                tell_damage(damage)
                batch = None
            except StorageFull:
                batch = None
            if batch is None:
                self.releasable.discard(number)
                continue
            send = Send(batch.offset, batch.length, batch.first_seq, batch.count, batch.head)
            self.books.promise(link, send)
            added = True
        return added

    def release(self, peer: Peer) -> Batch | None:
        """Give seqs to what waits first, up to one batch; None where nothing can be released yet.

        Raises Damaged, StorageFull.
        """
        books = self.books
        ranges, pieces, count = self._gather(peer)
        if not count:
            return None
        body = encode_ranges(ranges)
        seq = peer.out.last + 1
        payload = b"".join(pieces)
        head = chain(peer.out.head, seq, count, payload)
        books.room(len(body), essential=True)
        offset = books.add(
            Kind.RELEASED,
            peer=peer.number,
            direction=model.OUT,
            count=count,
            first_seq=seq,
            head=head,
            payload=body,
        )
        length = books.store.end - offset
        batch = Batch(seq, count, offset, length, len(payload), head)
        books.delivery.released(peer, batch, [(r[0], r[3]) for r in ranges])
        return batch

    def _gather(self, peer: Peer) -> tuple[list[Range], list[bytes], int]:
        """The next messages that wait, up to one batch: where they lie, their bytes, how many.

        Raises Damaged where the first one cannot be read; what stands before such a one goes alone.
        """
        ranges: list[Range] = []
        pieces: list[bytes] = []
        count = size = 0
        try:
            for header, payload in self._waiting_records(peer):
                found = self._pieces_of(header, payload, peer)
                more = sum(len(piece) for _, piece in found)
                messages = sum(r[3] for r, _ in found)
                if count and (count + messages > RELEASE_MESSAGES or size + more > RELEASE_BYTES):
                    break
                for place, piece in found:
                    ranges.append(place)
                    pieces.append(piece)
                count += messages
                size += more
        except Damaged:
            if not count:
                raise
        return ranges, pieces, count

    def _pieces_of(self, header: Header, payload: bytes, peer: Peer) -> list[Piece]:
        """What of a record still waits."""
        if header.kind != Kind.RELEASED:
            return _live_pieces(header, payload, peer.out.ended.get(header.offset, []))
        places = decode_ranges(self.books.reader.payload(header))
        return [(places[0], payload), *((place, b"") for place in places[1:])]

    def _waiting_records(self, peer: Peer) -> Iterator[tuple[Header, bytes]]:
        """The committed records that wait, in order, with their messages' bytes."""
        reader, committed = self.books.reader, self.books.store.committed
        for waiting in list(peer.out.waiting):
            for header in reader.headers(waiting.start, min(waiting.stop, committed)):
                if waits(header, waiting, peer.number):
                    yield header, reader.batch(header)


def refusal(token: int, peer: Peer) -> Refused | None:
    """Why nothing is taken for this peer."""
    if peer.removed:
        text = f"{peer.name} is no peer any more."
        return Refused(token, "NotTrusted", text, "Pair with it again: `msgctl pair ask ADDRESS`.")
    if peer.blocked:
        text = f"{peer.name} is blocked here: nothing is sent to it."
        return Refused(token, "NotTrusted", text, f"msgctl peer unblock {peer.name}")
    return None


def _live_pieces(header: Header, payload: bytes, gone: list[int]) -> list[Piece]:
    """The stretches of a record's payload that did not end, each with its place for a `released` record."""
    if not gone:
        return [((header.offset, 0, len(payload), header.count), payload)]
    found = []
    at = 0
    for index, message in enumerate(decode_payload(payload, header.count)):
        length = len(encode(message))
        if index not in gone:
            found.append(((header.offset, at, length, 1), payload[at : at + length]))
        at += length
    assert at == len(payload), "a message does not encode to the bytes that it was decoded from"
    return found
