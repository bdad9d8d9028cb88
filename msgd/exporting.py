"""`Export`: a parcel for a peer, as a stream to the client.

What waits is released first, in steps, so that the log process stays free for others. Then one record says
that all of it may be with the peer from now on, and only then the first byte of it leaves.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from msgd.errors import MsgdError, StorageRefused, UsageError
from msgd.log.errors import Damaged
from msgd.model import OUT
from msgd.parcel.frames import Head
from msgd.parcel.writer import Buffer, Writer
from msgd.past import Past
from msgd.peer.frames import Batch, Epoch, Link, Position
from msgd.wire.frame import DirectionState, EpochEnds
from msgd.wire.parcel import Batches, Export, Exported, Release, Released, Unreceipted, UnreceiptedBatch

if TYPE_CHECKING:
    from msgd.control import Control
    from msgd.wire.ledger import PeerState

PIECE_BYTES = 256 << 10  # of one reply, but for a big batch


def export(control: Control, who: str, first: int | None, more: bool) -> None:
    """Write a parcel for this peer; `first`: with everything from this seq on. Raises MsgdError, Damaged."""
    if not more:
        raise UsageError("A parcel comes in many replies.", "Call `Export` with `more`.")
    began_s = time.monotonic()
    peer = control.lookup(who)
    _release(control, peer)
    state = control.ask(Export(control.next_token(), peer.number, control.user))
    past = Past(control.place.reader, peer.number)
    try:
        state, unreceipted = _unreceipted(control, peer, state)
        places = [*_again(past, state, first), *unreceipted]
        head = _head(control, peer, state, places, _before(past, state, places))
        size = _stream(control, head, places)
    except LookupError as error:  # confirmed by a link meanwhile, and removed
        raise MsgdError("Some of it is not kept here any more.", "Repeat the command.") from error
    finally:
        past.close()
    control.reply(
        {
            "result": {
                "peer": peer.name,
                "messages": head.count,
                "bytes": size,
                "confirmed": state.inward.last,
                "seconds": round(time.monotonic() - began_s, 3),
            }
        }
    )


# --- what goes into it --------------------------------------------------------------------------------------


def _release(control: Control, peer: PeerState) -> None:
    """All that waits now; what comes meanwhile waits for the next one. Raises MsgdError."""
    identity = control.place.node.key.identity
    total, done = 0, 0
    while True:
        answer: Released = control.ask(Release(control.next_token(), peer.number, identity))
        total = total or answer.released + answer.waiting
        done += answer.released
        if not answer.released or done >= total:
            return
        control.check_client()


def _unreceipted(
    control: Control, peer: PeerState, state: Exported
) -> tuple[Exported, list[UnreceiptedBatch]]:
    """What has no receipt, in order; and the state with the receipt before it, which a link may have moved.

    Raises MsgdError.
    """
    found: list[UnreceiptedBatch] = []
    follows = state.receipt + 1
    while follows <= state.out.last:
        page: Batches = control.ask(Unreceipted(control.next_token(), peer.number, follows))
        if page.epoch != state.out.epoch:
            raise MsgdError(f"Messages to {peer.name} have just got other numbers.", "Repeat the command.")
        if page.receipt >= follows:  # and so has all that was found
            state = msgspec.structs.replace(state, receipt=page.receipt, receipt_head=page.receipt_head)
            found, follows = [], page.receipt + 1
        for batch in page.batches:
            if follows == batch.first_seq <= state.out.last:
                found.append(batch)
                follows += batch.count
    return state, found


def _again(past: Past, state: Exported, first: int | None) -> Iterator[UnreceiptedBatch]:
    """What the peer had confirmed from seq `first` on, and has lost. Raises UsageError."""
    if first is None or first > state.receipt:
        return
    base = state.opened.base if state.opened is not None else 1
    if first < base:
        raise UsageError(f"What came before message {base} cannot be sent again.", f"Give --from {base}.")
    follows = first
    for record in past.batches(first, state.receipt + 1):
        if record.first_seq == follows:
            yield UnreceiptedBatch(record.first_seq, record.count, record.offset, record.head)
            follows += record.count
    if follows != state.receipt + 1:
        raise UsageError(
            f"No batch in this log begins with message {first}, or those behind it are not kept any more.",
            "Give the number that `msgctl import` named there.",
        )


def _before(past: Past, state: Exported, places: list[UnreceiptedBatch]) -> bytes:
    """The head before the first batch."""
    if not places:
        return state.out.head
    if places[0].first_seq == state.receipt + 1:
        return state.receipt_head
    head = past.head_at(OUT, places[0].first_seq - 1)
    if not head:
        raise UsageError(f"The head before message {places[0].first_seq} is not kept any more.")
    return head


def _head(
    control: Control, peer: PeerState, state: Exported, places: list[UnreceiptedBatch], before: bytes
) -> Head:
    node = control.place.node
    return Head(
        spki=node.key.spki,
        to=peer.identity,
        name=node.name,
        made_ns=time.time_ns(),
        chain=list(node.chain),
        link=Link(out=_position(state.out), in_=_position(state.inward)),
        epoch=_epoch(state.opened),
        first=places[0].first_seq if places else state.out.last + 1,
        before=before,
    )


def _position(state: DirectionState) -> Position:
    return Position(state.epoch, state.last, state.head)


def _epoch(opened: EpochEnds | None) -> Epoch | None:
    return None if opened is None else Epoch(*msgspec.structs.astuple(opened))


# --- bytes --------------------------------------------------------------------------------------------------


def _stream(control: Control, head: Head, places: list[UnreceiptedBatch]) -> int:
    """Write it; how many bytes it has."""
    writer = Writer(control.place.node.key.private.sign)
    waiting: list[Buffer] = writer.begin(head)
    total = 0
    for place in places:
        waiting += writer.batch(_batch(control, place))
        if sum(map(len, waiting)) >= PIECE_BYTES:
            control.check_client()
            total += _write(control, waiting)
            waiting = []
    return total + _write(control, waiting + writer.end())


def _batch(control: Control, place: UnreceiptedBatch) -> Batch:
    reader = control.place.reader
    try:
        payload = reader.batch(reader.record(place.offset))
    except Damaged as damaged:
        text = f"The log is damaged: {damaged.segment}, log offset {damaged.offset}: {damaged.why}."
        raise StorageRefused(text, "The parcel is not whole: throw it away.") from damaged
    return Batch(place.first_seq, place.count, place.head, memoryview(payload))


def _write(control: Control, pieces: list[Buffer]) -> int:
    data = b"".join(pieces)
    control.reply({"data": data}, continues=True)
    return len(data)
