"""The consuming process's side: it finds the next message that fits, and has the log process lend it.

A consumer is a name with a filter and a position (`cursors`); any number of processes may receive for it.
Each of them says who it is with a holder: 16 random bytes of the program that handles the messages, kept over
reconnects. The log process gives a message to one holder at a time and counts the attempts, both durable
before `next` returns. Whoever dies without a word keeps what it has for `holders.GRACE_S`: a new `Receiver`
with the same holder goes on with it, and may settle what was finished meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from msgd import errors, model
from msgd.cursors import ASIDE, DONE, FAILED, GONE, RELEASE, Location
from msgd.finding import numbered, owner
from msgd.log.errors import Damaged
from msgd.log.record import Record
from msgd.lookout import Lookout
from msgd.rows import Row, cursor_text, kind_name
from msgd.wire.codec import CONTROL, Message
from msgd.wire.consuming import Begin, Begun, ConsumerState, Leave, Lent, Receive, Settle
from msgd.wire.ledger import Watch

if TYPE_CHECKING:
    from msgd.knowing import Knowing

__all__ = ["ASIDE", "DONE", "FAILED", "RELEASE", "Receiver", "Settled", "Taken"]

STARTS = ("oldest", "now")
TOLD_BYTES = 1 << 20  # of the log that are passed before the log process hears of it
NAMES_S = 1.0  # how old the names of peers may be


class Settled(NamedTuple):
    """What became of a message that this holder has.

    done: handled, it never comes again. failed: it stays with this holder, who gets it again from the next
    `next`, as one more attempt. aside: it comes no more until a person says so. release: it goes back, to
    whoever asks next, and its attempt does not count.
    """

    id: bytes  # 16 bytes
    outcome: str
    why: str = ""  # a sentence, cut at 200 characters
    attempt: int = 0  # which one this is about: repeating the call is safe then; 0: the present one; of
    # what is set aside the one before it says that the present one was not made: it does not count


class Taken(NamedTuple):
    """A message that this holder has now, until it settles it."""

    row: Row
    attempt: int  # 1 the first time, counted over every death


class Receiver:
    """One holder of one consumer. `begin` or `rejoin` comes first, in each process that receives.

    Blocking; all methods raise Uncertain when the log process ends (begin anew with the same holder),
    StorageRefused while the disk is full (nothing was changed, ask again), and whatever `knowing.wait` raises
    to end the waiting.
    """

    def __init__(self, knowing: Knowing, name: str, holder: bytes) -> None:
        """`holder`: 16 random bytes of the program that handles the messages."""
        self._knowing = knowing
        self._name = name
        self.holder = holder
        self._consumer: ConsumerState | None = None
        self._lookout: Lookout | None = None
        self._lost = 0
        self._names_s = 0.0

    def begin(self, peer: str | None = None, kind: str | None = None, start: str | None = None) -> bool:
        """Make the consumer, or go on with it; whether it is new. `start`, of a new one: oldest or now.

        Raises UsageError (no name, no kind, another filter than at its first use), UnknownPeer.
        """
        if start not in (None, *STARTS):
            raise errors.UsageError(
                f"A consumer cannot begin at {start!r}.", f"Expected {' or '.join(STARTS)}."
            )
        number = 0 if peer is None else self._knowing.lookup(peer).number
        code = _kind_code(kind)
        begun = self._begin(number, code, -1 if start == "now" else self._oldest(), may_make=True)
        if (self._owner(begun.consumer.peer), begun.consumer.kind) != (number, code):
            self.leave()
            raise self._other_filter(begun.consumer)
        return begun.is_new

    def rejoin(self) -> None:
        """Go on with the consumer as it is. Raises UnknownConsumer."""
        self._begin(0, -1, -1, may_make=False)

    def next(self, settled: Sequence[Settled] = (), deadline_s: float | None = None) -> Taken | None:
        """Settle these, then the next message; None: none has come until `deadline_s` (CLOCK_MONOTONIC).

        What this holder has and did not settle comes first, then what was given back, then what is new, in
        the order of the log. One commit for all of it. Raises UnknownConsumer once it was removed,
        UsageError where so much was set aside that nothing more can be, or is out.
        """
        lookout = self._looking()
        while True:
            self._knowing.freed.discard(self._name)
            lookout.peek()
            lent: Lent = self._receive(settled, lookout, wants=True)
            settled = ()
            if lent.offset >= 0:
                taken = self._taken(lent)
                if taken is not None:
                    return taken
                settled = [Settled(lent.id, GONE)]
                continue
            lookout.seek((lent.high_offset, lent.high_index))
            if not self._wait(lookout, deadline_s):
                return None

    def settle(self, settled: Sequence[Settled]) -> None:
        """The same without taking another one. What is not this holder's any more is passed over."""
        self._receive(settled, self._looking(), wants=False)

    def leave(self) -> None:
        """Give back at once what this holder has: its attempts count. For an orderly end of the program."""
        self._knowing.tell(Leave(self._name, self.holder))

    def take_lost(self) -> int:
        """How many messages were passed over since this was asked last: not kept any more, or unreadable.

        Those that this consumer had not come to are of its peer, whatever their kind.
        """
        lost, self._lost = self._lost, 0
        return lost

    @property
    def is_begun(self) -> bool:
        """Whether this process receives for the consumer."""
        return self._consumer is not None

    @property
    def consumer(self) -> ConsumerState:
        """The consumer as it was when this began."""
        assert self._consumer is not None, "begin comes first"
        return self._consumer

    # --- steps ------------------------------------------------------------------------------------------

    def _begin(self, peer: int, kind: int, from_offset: int, *, may_make: bool) -> Begun:
        knowing = self._knowing
        token = knowing.next_token()
        begun: Begun = knowing.ask(
            Begin(token, self._name, self.holder, knowing.user, peer, kind, from_offset, may_make)
        )
        state = self._consumer = begun.consumer
        place, at = knowing.place, (state.offset, state.index)
        wanted = self._owner(state.peer), state.kind
        self._lookout = Lookout(place.reader, *wanted, at, knowing.note_damage, state.seen)
        return begun

    def _owner(self, number: int) -> int:
        """Of an address whose messages became a peer's: that peer."""
        peers = self._knowing.state(fresh=False).peers if number else []
        return owner(peers, numbered(peers, number)).number if number else 0

    def _oldest(self) -> int:
        return self._knowing.place.reader.first

    def _looking(self) -> Lookout:
        if self._lookout is None:
            self.rejoin()
        assert self._lookout is not None
        return self._lookout

    def _receive(self, settled: Sequence[Settled], lookout: Lookout, *, wants: bool) -> Lent:
        knowing = self._knowing
        frame = Receive(
            *(knowing.next_token(), self._name, self.consumer.born, self.holder, knowing.user),
            [Settle(*each) for each in settled],
            wants,
            lookout.found,
            *lookout.at,
            lookout.lost,
        )
        lent: Lent = knowing.ask(frame)
        self._lost += lookout.lost + sum(1 for each in settled if each.outcome == GONE)
        lookout.lost = 0
        return lent

    def _wait(self, lookout: Lookout, deadline_s: float | None) -> bool:
        """Until there is something to ask for, or to tell of the position; False at the deadline.

        The log process is not asked at each commit of others: it says by itself what is given back.
        """
        knowing, told = self._knowing, lookout.at[0]
        while self._name not in knowing.freed:
            if lookout.peek() is not None or lookout.at[0] - told > TOLD_BYTES:
                knowing.wait(0)  # who has left is not served
                return True
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            knowing.tell(Watch(0, lookout.at[0]))
            knowing.wait(left_s)
        return True

    def _taken(self, lent: Lent) -> Taken | None:
        """The message that was lent; None where it is not kept any more, or cannot be read."""
        place = lent.offset, lent.index
        at_hand = self._looking().take(place) or self._read(place)
        if at_hand is None or at_hand[1].id != lent.id:
            return None
        return Taken(self._row(*at_hand, lent.index), lent.attempt)

    def _read(self, place: Location) -> tuple[Record, Message] | None:
        """A message that comes again."""
        reader = self._knowing.place.reader
        try:
            record = reader.record(place[0])
            messages = reader.messages(record)
        except Damaged as damaged:
            self._knowing.note_damage(damaged)
            return None
        except (LookupError, msgspec.MsgspecError):
            return None
        return (record, messages[place[1]]) if place[1] < len(messages) else None

    def _row(self, record: Record, message: Message, index: int) -> Row:
        """As the history tells it: what has come needs nothing else of the log."""
        knowing = self._knowing
        now_s = time.monotonic()
        if now_s - self._names_s > NAMES_S:
            knowing.look_at_peers()
            self._names_s = now_s
        name, log = knowing.name_of(record.peer), knowing.place.reader.log_id.hex()
        return Row(
            id=message.id,
            peer=name,
            direction=model.DIRECTIONS[model.IN],
            seq=record.first_seq + index,
            kind=kind_name(message.kind),
            state=model.RECEIVED,
            reason=None,
            from_=name,
            to=knowing.own_name,
            user=message.user,
            sent_at_ns=message.sent_ns,
            stored_at_ns=record.wall_ns,
            receipt_at_ns=None,
            body=message.body,
            headers=message.headers,
            cursor=cursor_text(log, (record.offset, index), message.id),
            peer_number=record.peer,
            location=(record.offset, index),
        )

    def _other_filter(self, known: ConsumerState) -> errors.UsageError:
        self._knowing.look_at_peers()
        peer = self._knowing.name_of(known.peer) if known.peer else "any"
        kind = "any" if known.kind < 0 else kind_name(known.kind)
        return errors.UsageError(
            f"Consumer {self._name} was begun for messages of peer {peer} and kind {kind}: that is fixed.",
            f"Ask for the same, use another name, or `msgctl consumer rm {self._name}` to begin anew.",
        )


def _kind_code(kind: str | None) -> int:
    """The number of a kind, -1 for none. Raises UsageError."""
    kinds = [name for code, name in enumerate(model.MESSAGE_KINDS) if code != CONTROL]
    if kind is not None and kind not in kinds:
        raise errors.UsageError(
            f"No message of kind {kind!r} can be received.", f"Choose one of {', '.join(kinds)}."
        )
    return -1 if kind is None else model.MESSAGE_KINDS.index(kind)
