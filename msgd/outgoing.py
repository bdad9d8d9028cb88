"""What happens to a message of ours in the log process: submitted, released, expired, cancelled.

A message gets its seq at release, when the link stands and its window has room. With nothing waiting that
is at once (`out`); otherwise it is written `held`, and a `released` record later names it by offset, many
at a time, without copying its bytes.
"""

from collections.abc import Iterator

import msgspec

from msgd import journal, model
from msgd.books import Books, Channel, refused_full, tell_damage
from msgd.linking import Linking
from msgd.log.errors import Damaged, StorageFull
from msgd.log.index import known_ids
from msgd.log.reader import Reader
from msgd.log.record import Header, Kind, decode_ranges, encode_ranges
from msgd.peer.heads import chain
from msgd.standing import Batch, Ended, Peer, Range
from msgd.wire.codec import decode_ids, decode_payload, encode
from msgd.wire.ledger import Cancel, Done, Duplicates, Refused, Send, Submit, Submitted

RELEASE_MESSAGES = 4096
RELEASE_BYTES = 256 << 10  # of messages in one released batch; a bigger message goes alone
AT_HAND_BYTES = 4096  # so small a batch goes to the link worker at once, which else reads it from the log
ENDED_PLACES = 4096  # in one record
PLACE_BYTES = 16  # of one of them, and its share of the record, at most

_encode = msgspec.msgpack.Encoder().encode


class Outgoing:
    """Requests about messages from this node."""

    def __init__(self, books: Books, links: Linking, index_path: str) -> None:
        self.books = books
        self.links = links
        self.index_path = index_path
        self.releasable: set[int] = set()  # peers for which a batch may be released

    # --- submit -----------------------------------------------------------------------------------------

    def submit(self, channel: Channel, frame: Submit, payload: memoryview) -> None:
        """Put messages into the log, and under way at once where nothing stands in between."""
        books = self.books
        if frame.generation != books.generation:
            channel.say(Refused(frame.token, "Stale", "It has changed who is a peer."))
            return
        peer = books.delivery.peers[frame.peer]
        ids = [frame.ids[at : at + 16] for at in range(0, len(frame.ids), 16)]
        repeated = self._repeated(channel, frame, ids)
        if repeated:
            return
        try:
            books.room(len(payload))
        except StorageFull:
            channel.say(refused_full(frame.token))
            return
        standing = self.links.ready(peer.number)
        if standing is not None and not peer.out.waiting and self.links.has_window(peer):
            self._send_now(channel, frame, payload, peer, standing)
        else:
            self._hold(channel, frame, payload, peer)
        books.remember(ids)
        if journal.is_shown("message.queued"):
            for raw in ids:
                books.event("message.queued", id=model.id_text(raw), peer=peer.name)

    def _send_now(
        self, channel: Channel, frame: Submit, payload: memoryview, peer: Peer, link: Channel
    ) -> None:
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
            payload=payload,
        )
        length = books.store.end - offset
        books.delivery.sent(peer, Batch(seq, frame.count, offset, length, len(payload), head))
        at_hand = payload if len(payload) <= AT_HAND_BYTES else b""
        # before the answer to the client: it has the longer way
        books.promise(link, Send(offset, length, seq, frame.count, head), payload=at_hand)
        wall_ns = books.clock.wall_ns()
        books.promise_answer(channel, frame.token, Submitted(frame.token, offset, seq, wall_ns))

    def _hold(self, channel: Channel, frame: Submit, payload: memoryview, peer: Peer) -> None:
        books = self.books
        wall_ns = books.clock.wall_ns()
        expires_ns = wall_ns + frame.ttl_ns if frame.ttl_ns else 0
        offset = books.add(
            Kind.HELD,
            peer=peer.number,
            direction=model.OUT,
            count=frame.count,
            aux=expires_ns,
            payload=payload,
        )
        books.delivery.held(peer, offset, books.store.end, frame.count, len(payload), expires_ns)
        books.promise_answer(channel, frame.token, Submitted(frame.token, offset, 0, wall_ns))
        self.releasable.add(peer.number)
        self.links.wants_dial(peer)

    def _repeated(self, channel: Channel, frame: Submit, ids: list[bytes]) -> bool:
        """Whether some of the ids are in the log already; then the call has been answered."""
        recent = self.books.recent
        repeated = recent.seen(ids)
        doubtful = recent.doubtful(ids)
        if doubtful:
            found, position = known_ids(self.index_path, self.books.store.log_id, doubtful)
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
                added = self._release(peer, link) or added
            except Damaged as damage:  # what waits behind it keeps its order, so it waits, too
                self.releasable.discard(number)
                tell_damage(damage)
        return added

    def _release(self, peer: Peer, link: Channel) -> bool:
        books = self.books
        ranges, pieces, count = self._gather(peer)
        if not count:
            self.releasable.discard(peer.number)
            return False
        body = encode_ranges(ranges)
        seq = peer.out.last + 1
        payload = b"".join(pieces)
        head = chain(peer.out.head, seq, count, payload)
        try:
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
        except StorageFull:
            self.releasable.discard(peer.number)
            return False
        length = books.store.end - offset
        batch = Batch(seq, count, offset, length, len(payload), head)
        books.delivery.released(peer, batch, [r[0] for r in ranges])
        books.promise(link, Send(offset, length, seq, count, head))
        return True

    def _gather(self, peer: Peer) -> tuple[list[tuple[int, int, int, int]], list[bytes], int]:
        """The next messages that wait, up to one batch: where they lie, their bytes, how many."""
        ranges: list[tuple[int, int, int, int]] = []
        pieces: list[bytes] = []
        count = size = 0
        for header, payload in self._waiting_records(peer):
            if header.kind == Kind.RELEASED:
                found = [(r, b"") for r in decode_ranges(self.books.reader.payload(header))]
                found[0] = (found[0][0], payload)
            else:
                found = _live_pieces(header, payload, peer.out.ended.get(header.offset, []))
            more = sum(len(piece) for _, piece in found)
            messages = sum(r[3] for r, _ in found)
            if count and (count + messages > RELEASE_MESSAGES or size + more > RELEASE_BYTES):
                break
            for place, piece in found:
                ranges.append(place)
                pieces.append(piece)
            count += messages
            size += more
        return ranges, pieces, count

    def _waiting_records(self, peer: Peer) -> Iterator[tuple[Header, bytes]]:
        """The committed records that wait, in order, with their messages' bytes."""
        reader, committed = self.books.reader, self.books.store.committed
        for waiting in list(peer.out.waiting):
            for header in reader.headers(waiting.start, min(waiting.stop, committed)):
                if _waits(header, waiting, peer.number):
                    yield header, reader.batch(header)

    # --- ends while it waits ----------------------------------------------------------------------------

    def cancel(self, channel: Channel, frame: Cancel) -> None:
        """End one message before it is released; refused once it may be with the peer."""
        books = self.books
        record = books.reader.record(frame.offset)
        peer = books.delivery.peers[record.peer]
        waiting = next((r for r in peer.out.waiting if r.start <= frame.offset < r.stop), None)
        gone = peer.out.ended.get(frame.offset, [])
        if (
            waiting is None
            or waiting.kind != Kind.HELD
            or frame.offset <= waiting.after
            or frame.index in gone
        ):
            text = "The message may already be with the peer, so it cannot be cancelled any more."
            channel.say(Refused(frame.token, "TooLate", text, "See `msgctl why ID`."))
            return
        self._end(peer, "cancelled", f"by {frame.user}", [(frame.offset, frame.index)])
        books.promise_answer(channel, frame.token, Done(frame.token))
        raw = decode_ids(record.payload, record.count)[frame.index]
        books.event("message.cancelled", id=model.id_text(raw), peer=peer.name, reason=f"by {frame.user}")

    def cancel_all(self, peer: Peer) -> int:
        """The peer is being removed: end what waits, and what was released without a receipt.

        A record that cannot be read is told and passed over: nothing of it will ever be sent.
        """
        waiting = [
            (header.offset, index)
            for kept in peer.out.waiting
            if kept.kind == Kind.HELD
            for header in self._headers_of(kept)
            if _waits(header, kept, peer.number)
            for index in range(header.count)
            if index not in peer.out.ended.get(header.offset, [])
        ]
        released = [b.offset for b in peer.out.unreceipted]
        released += [r.start for r in peer.out.waiting if r.kind != Kind.HELD]
        doubt = []
        for offset in released:
            try:
                doubt += _first_places(self.books.reader, offset)
            except Damaged as damage:
                tell_damage(damage)
        # all of it or nothing: half a removal would call messages cancelled that still go out
        self.books.room((len(waiting) + len(doubt)) * PLACE_BYTES, essential=True)
        for reason, places in (("peer removed", waiting), ("in doubt", doubt)):
            for at in range(0, len(places), ENDED_PLACES):
                self._end(peer, "cancelled", reason, places[at : at + ENDED_PLACES])
        return len(waiting) + len(doubt)

    def expire(self) -> None:
        """End what has waited longer than its time to live."""
        now_ns = self.books.steady_wall_ns()
        for peer in self.books.delivery.peers.values():
            for waiting in list(peer.out.waiting):
                if waiting.expires_ns and waiting.expires_ns <= now_ns and waiting.kind == Kind.HELD:
                    self._expire_in(peer, waiting)

    def _expire_in(self, peer: Peer, waiting: Range) -> None:
        places: list[tuple[int, int]] = []
        next_ns = 0
        for header in self._headers_of(waiting):
            if not header.aux or not _waits(header, waiting, peer.number):
                continue
            left_ns = header.aux - header.wall_ns - self.books.age_ns(header)
            if left_ns > 0:
                due_ns = self.books.steady_wall_ns() + left_ns
                next_ns = min(next_ns or due_ns, due_ns)
                continue
            gone = peer.out.ended.get(header.offset, [])
            places += [(header.offset, i) for i in range(header.count) if i not in gone]
        for at in range(0, len(places), ENDED_PLACES):
            self._end(peer, "expired", "waited longer than its time to live", places[at : at + ENDED_PLACES])
        if places:
            self.books.event("messages.expired", peer=peer.name, count=len(places))
        waiting.expires_ns = next_ns  # only now: without room for the ends they stay due
        self.books.delivery.expiries_changed()

    def _headers_of(self, waiting: Range) -> Iterator[Header]:
        """The committed headers of a range; what is damaged is told and passed over."""
        stop = min(waiting.stop, self.books.store.committed)
        return self.books.reader.headers(waiting.start, stop, on_damage=tell_damage)

    def _end(self, peer: Peer, state: str, reason: str, places: list[tuple[int, int]]) -> None:
        payload = _encode(Ended(state, reason, places))
        self.books.room(len(payload), essential=True)
        self.books.add(Kind.ENDED, peer=peer.number, direction=model.OUT, count=len(places), payload=payload)
        self.books.delivery.ended(peer, places)


def _waits(header: Header, waiting: Range, peer: int) -> bool:
    """Whether the record is one of those that the range means."""
    if waiting.kind != Kind.HELD:
        return header.offset == waiting.start
    return header.kind == Kind.HELD and header.peer == peer and header.offset > waiting.after


def _live_pieces(
    header: Header, payload: bytes, gone: list[int]
) -> list[tuple[tuple[int, int, int, int], bytes]]:
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


def _first_places(reader: Reader, offset: int) -> list[tuple[int, int]]:
    """Where the messages of a released batch first stood in the log: (record offset, index) each."""
    record = reader.record(offset)
    if record.kind != Kind.RELEASED:
        return [(offset, index) for index in range(record.count)]
    places = []
    for source, start, _, count in decode_ranges(record.payload):
        held = reader.record(source)
        first = 0
        at = 0
        for message in decode_payload(held.payload, held.count) if start else ():
            if at == start:
                break
            at += len(encode(message))
            first += 1
        places += [(source, first + index) for index in range(count)]
    return places
