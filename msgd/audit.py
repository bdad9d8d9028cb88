"""What was done here and what befell this node, in sentences: the records of the log that carry no messages.

`msgctl log --kind control` shows them as rows among those of messages. Such a row has no direction, no state
and no seq; its id is a UUIDv8 of the log's id and the record's offset. Secrets of invitations never leave
the record.
"""

from collections.abc import Callable

import msgspec

from msgd import model
from msgd.log.record import Kind, Record
from msgd.standing import ClockStep, EpochChange, PeerChange
from msgd.trust.identity import identity_text
from msgd.wire.codec import Message

CONTROL = model.MESSAGE_KINDS.index("control")
ID_HEAD = 8  # bytes of an id that come from the log's; the rest is the offset
OFFSET_BITS = (1 << 62) - 1  # the two above say which variant of UUID it is

# By PeerChange.action. Words in braces: its fields, `into` as a name, and `who`: the person, or this node.
SENTENCES = {
    "unpaired": "{who} sent to {address}, which is not paired with this node: messages to it are held",
    "merged": "{name} turned out to be {into}: what was held for it goes there",
    "paired": "{who} paired this node with {name}{by}",
    "joining": "{who} accepted an invitation of {name}",
    "joined": "{name} confirmed that this node has joined it",
    "unjoined": "{name} did not take this node's answer to its invitation{because}",
    "rejected": "{who} rejected {name}, which asked to be paired{because}",
    "invited": "{who} made an invitation",
    "invitation ended": "an invitation ended{because}",
    "wrong proof": "somebody answered an invitation with a wrong proof{because}",
    "rotated": "{name} has a new key, signed by its old one",
    "own rotated": "{who} gave this node a new key, signed by the old one",
    "key changed": "another key than the accepted one answered for {name}: messages to it are held",
    "key returned": "the accepted key of {name} answers again",
    "rekeyed": "{who} accepted the new key of {name}{by}",
    "renamed": "{who} gave a peer the name {name}",
    "blocked": "{who} blocked {name}",
    "unblocked": "{who} unblocked {name}",
    "removed": "{who} removed the peer {name}",
    "recovered": "{who} recovered messages from {name}{because}",
    "vacuumed": "{who} vacuumed the history{because}; {messages} in {segments} went",
    "consumer begun": "{who} began to receive as consumer {name}",
    "consumer removed": "{who} removed consumer {name}",
    "exported": "{who} made a parcel for {name}{because}",
    "imported": "{who} read a parcel of {name}{because}",
}
BY = {
    "key": " by its identity",
    "words": " after comparing words",
    "invitation": " by an invitation",
    "first-use": " at the first use of its address, as the configuration says",
}

_peer_change = msgspec.msgpack.Decoder(PeerChange).decode
_epoch_change = msgspec.msgpack.Decoder(EpochChange).decode
_clock_step = msgspec.msgpack.Decoder(ClockStep).decode


def clock_step_ns(record: Record) -> int:
    """By how much the clock was set. Raises msgspec.MsgspecError where it is not readable."""
    return _clock_step(record.payload).step_ns


class Audit:
    """Makes messages of records. `peer_name` gives the name of a peer by its number."""

    def __init__(self, log_id: bytes, own_name: str, peer_name: Callable[[int], str]) -> None:
        self._log_id = log_id
        self._own_name = own_name
        self._peer_name = peer_name

    def message(self, record: Record) -> Message:
        """The record as a message of kind control. Raises msgspec.MsgspecError where it is not readable."""
        user, text, headers = "", "", {"record": "clock"}
        if record.kind == Kind.PEER:
            change = _peer_change(record.payload)
            user, text, headers = change.user, self._of_peer(change), {"record": change.action}
            if any(change.identity):
                headers["identity"] = identity_text(change.identity)
        elif record.kind == Kind.EPOCH:
            text, headers = self._of_epoch(record, _epoch_change(record.payload)), {"record": "epoch"}
        else:
            step_s = clock_step_ns(record) / 1e9
            text = f"the clock of {self._own_name} was set {'forward' if step_s > 0 else 'back'}"
            text += f" by {abs(step_s):.3f} s"
        return Message(self.id_of(record.offset), CONTROL, record.wall_ns, user, headers, text.encode())

    def id_of(self, offset: int) -> bytes:
        """The id of the row that tells the record at this log offset."""
        return model.uuid8(self._log_id + offset.to_bytes(8, "big"))

    def offset_of(self, raw: bytes) -> int | None:
        """The log offset in such an id of this log."""
        if raw[:ID_HEAD] != self.id_of(0)[:ID_HEAD]:
            return None
        return int.from_bytes(raw[ID_HEAD:], "big") & OFFSET_BITS

    def _of_peer(self, change: PeerChange) -> str:
        sentence = SENTENCES.get(change.action, f"{change.action}: {{name}}")
        text = sentence.format(
            who=change.user or self._own_name,
            name=change.name or "a node",
            address=change.address,
            into=self._peer_name(change.into) if change.into else "",
            by=BY.get(change.how, ""),
            because=f": {change.reason}" if change.reason else "",
            messages=_counted(change.messages, "message"),
            segments=_counted(change.segments, "segment"),
        )
        return f"{text} ({change.words})" if change.words else text

    def _of_epoch(self, record: Record, change: EpochChange) -> str:
        name = self._peer_name(record.peer)
        way = (
            f"{self._own_name} to {name}" if record.direction == model.OUT else f"{name} to {self._own_name}"
        )
        if record.first_seq == 1:
            return f"the numbers of messages from {way} begin"
        return (
            f"messages from {way} go on at number {record.first_seq}: the sender's log ended at"
            f" {change.sender_last}, the receiver's at {change.receiver_last}"
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
