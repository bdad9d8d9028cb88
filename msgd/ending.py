"""How a message of ours ends other than by a receipt: cancelled, expired, or with its peer.

Before its release an end is local and final; what was released ends only with the peer, as `in doubt`.
An `ended` record names messages by the record and the place where they first stood, and carries the number
of those records: an address's, where they were written before anybody was accepted there.
"""

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from msgd import model
from msgd.books import Books, tell_damage
from msgd.channel import Channel
from msgd.log.errors import Damaged
from msgd.log.reader import Reader
from msgd.log.record import FLAG_HOLD_ENDS, Header, Kind, decode_ranges
from msgd.standing import Ended, Peer, Range
from msgd.wire.codec import decode_ids, decode_payload, encode
from msgd.wire.ledger import Cancel, Done, Refused

ENDED_PLACES = 4096  # in one record
PLACE_BYTES = 16  # of one of them, and its share of the record, at most
TTL_OVER = "waited longer than its time to live"
HOLD_OVER = "nobody was paired with there in time"

_encode = msgspec.msgpack.Encoder().encode

Places = dict[int, list[tuple[int, int]]]  # number in the records -> (record offset, index) in them


class Ending:
    """Ends of messages from this node."""

    def __init__(self, books: Books) -> None:
        self.books = books

    def cancel(self, channel: Channel, frame: Cancel) -> None:
        """End one message before it is released; refused once it may be with the peer."""
        books = self.books
        record = books.reader.record(frame.offset)
        peer, of = books.delivery.owner(record.peer)
        waiting = next(
            (r for r in peer.out.waiting if r.peer == of and r.start <= frame.offset < r.stop), None
        )
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
        self._end(record.peer, "cancelled", f"by {frame.user}", [(frame.offset, frame.index)])
        books.promise_answer(channel, frame.token, Done(frame.token))
        raw = decode_ids(record.payload, record.count)[frame.index]
        books.event("message.cancelled", id=model.id_text(raw), peer=peer.name, reason=f"by {frame.user}")

    def cancel_all(self, peer: Peer, reason: str) -> int:
        """Nothing more goes to this peer: end what waits, and what was released without a receipt.

        A record that cannot be read is told and passed over: nothing of it will ever be sent.
        """
        waiting: Places = defaultdict(list)
        for kept in peer.out.waiting:
            if kept.kind == Kind.HELD:
                for header in self._headers_of(kept):
                    if waits(header, kept, peer.number):
                        gone = peer.out.ended.get(header.offset, [])
                        waiting[header.peer] += _live_places(header, gone)
        released = [b.offset for b in peer.out.unreceipted]
        released += [r.start for r in peer.out.waiting if r.kind != Kind.HELD]
        doubt: Places = defaultdict(list)
        for offset in released:
            try:
                for number, places in _first_places(self.books.reader, offset):
                    doubt[number] += places
            except Damaged as damage:
                tell_damage(damage)
        count = sum(map(len, (*waiting.values(), *doubt.values())))
        # all of it or nothing: half a removal would call messages cancelled that still go out
        self.books.room(count * PLACE_BYTES, essential=True)
        for why, ends in ((reason, waiting), ("in doubt", doubt)):
            for number, places in ends.items():
                self._end(number, "cancelled", why, places)
        return count

    def expire(self) -> None:
        """End what has waited longer than its time to live."""
        now_ns = self.books.steady_wall_ns()
        for peer in self.books.delivery.peers.values():
            for waiting in list(peer.out.waiting):
                if waiting.expires_ns and waiting.expires_ns <= now_ns and waiting.kind == Kind.HELD:
                    self._expire_in(peer, waiting)

    def _expire_in(self, peer: Peer, waiting: Range) -> None:
        over: dict[str, list[tuple[int, int]]] = {TTL_OVER: [], HOLD_OVER: []}
        next_ns = 0
        for header in self._headers_of(waiting):
            ends_with_hold = header.flags & FLAG_HOLD_ENDS
            if not header.aux or (ends_with_hold and peer.pinned) or not waits(header, waiting, peer.number):
                continue
            left_ns = header.aux - header.wall_ns - self.books.age_ns(header)
            if left_ns > 0:
                due_ns = self.books.steady_wall_ns() + left_ns
                next_ns = min(next_ns or due_ns, due_ns)
                continue
            gone = peer.out.ended.get(header.offset, [])
            over[HOLD_OVER if ends_with_hold else TTL_OVER] += _live_places(header, gone)
        for why, places in over.items():
            self._end(waiting.peer or peer.number, "expired", why, places)
            if places:
                self.books.event("messages.expired", peer=peer.name, count=len(places), reason=why)
        waiting.expires_ns = next_ns  # only now: without room for the ends they stay due
        self.books.delivery.expiries_changed()

    def _headers_of(self, waiting: Range) -> Iterator[Header]:
        """The committed headers of a range; what is damaged is told and passed over."""
        stop = min(waiting.stop, self.books.store.committed)
        return self.books.reader.headers(waiting.start, stop, on_damage=tell_damage)

    def _end(self, number: int, state: str, reason: str, places: list[tuple[int, int]]) -> None:
        for at in range(0, len(places), ENDED_PLACES):
            some = places[at : at + ENDED_PLACES]
            payload = _encode(Ended(state, reason, some))
            self.books.room(len(payload), essential=True)
            self.books.add(Kind.ENDED, peer=number, direction=model.OUT, count=len(some), payload=payload)
            peer, of = self.books.delivery.owner(number)
            self.books.delivery.ended(peer, some, of)


def waits(header: Header, waiting: Range, number: int) -> bool:
    """Whether the record is one of those that this range of peer `number` means."""
    if waiting.kind != Kind.HELD:
        return header.offset == waiting.start
    mine = header.kind == Kind.HELD and header.peer == (waiting.peer or number)
    return mine and header.offset > waiting.after


def _live_places(header: Header, gone: list[int]) -> list[tuple[int, int]]:
    return [(header.offset, index) for index in range(header.count) if index not in gone]


def _first_places(reader: Reader, offset: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Where the messages of a released batch first stood: number in the record, (its offset, index) each."""
    record = reader.record(offset)
    if record.kind != Kind.RELEASED:
        yield record.peer, [(offset, index) for index in range(record.count)]
        return
    for source, start, _, count in decode_ranges(record.payload):
        held = reader.record(source)
        first = 0
        at = 0
        for message in decode_payload(held.payload, held.count) if start else ():
            if at == start:
                break
            at += len(encode(message))
            first += 1
        yield held.peer, [(source, first + index) for index in range(count)]
