"""Messages of kind `file`: both logs tell which file went where, and by whom; the content is not in them.

The id of such a message comes from the transfer and the name, so a transfer that is done again after a break
is told once. It has the time of the transfer where that has one (UUIDv7): only such an id is known to be new
without a look into the index.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgd.errors import MsgdError
from msgd.knowing import Stale
from msgd.model import MESSAGE_KINDS, id_text, uuid7, uuid8
from msgd.sending import payload_of
from msgd.wire.codec import Message
from msgd.wire.ledger import Duplicates, PeerState, Submit

if TYPE_CHECKING:
    from msgd.knowing import Knowing

FILE = MESSAGE_KINDS.index("file")
_TIMED = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}").fullmatch
MOST_TRIES = 3  # of a change that meets another one: of who is a peer, of what is kept


class Note(NamedTuple):
    """What was done with one name of a store."""

    op: str  # put, get, dup, rm, cast
    name: str
    size: int | None = None
    sha256: str = ""  # hex
    other: str = ""  # of a dup: the name that was copied

    @property
    def headers(self) -> dict[str, str]:
        """As they stand in the message."""
        told = {"op": self.op, "file": self.name, "sha256": self.sha256, "source": self.other}
        if self.size is not None:
            told["size"] = str(self.size)
        return {name: value for name, value in told.items() if value}


def note_id(user: str, peer: PeerState, transfer: str, note: Note) -> bytes:
    """The id of the message that tells of this: the same, however often the transfer is done again."""
    parts = (b"msgd/1 file", user.encode(), peer.identity, transfer.encode(), note.op.encode())
    digest = hashlib.sha256(b"\0".join((*parts, note.name.encode()))).digest()
    began = _TIMED(transfer)
    return uuid8(digest) if began is None else uuid7(int(began[1] + began[2], 16), digest[:10])


def submit_notes(knowing: Knowing, peer: PeerState, transfer: str, notes: Sequence[Note]) -> list[str]:
    """Have these messages to the peer on this disk, with one commit; their ids. Raises MsgdError."""
    sent_ns, user = time.time_ns(), knowing.user
    ids = [note_id(user, peer, transfer, note) for note in notes]
    messages = {
        raw: Message(raw, FILE, sent_ns, user, note.headers, note.name.encode())
        for raw, note in zip(ids, notes, strict=True)
    }
    _submit(knowing, peer, messages)
    return [id_text(raw) for raw in ids]


def _submit(knowing: Knowing, peer: PeerState, messages: dict[bytes, Message]) -> None:
    left = dict(messages)
    for _ in range(MOST_TRIES):
        if not left:
            return
        try:
            answer = knowing.ask(_frame(knowing, peer, left), payload_of([*left.values()]))
        except Stale:
            peer = _now(knowing, peer)
            continue
        if not isinstance(answer, Duplicates):
            return
        for raw in answer.ids:  # told before
            left.pop(raw, None)
    if left:
        raise MsgdError("The peers of this node change all the time.", "Repeat the command.")


def _frame(knowing: Knowing, peer: PeerState, ids: Iterable[bytes]) -> Submit:
    generation = knowing.state(fresh=False).generation
    raw = b"".join(ids)
    return Submit(knowing.next_token(), peer.number, len(raw) // 16, raw, 0, generation, knowing.user)


def _now(knowing: Knowing, peer: PeerState) -> PeerState:
    knowing.state()
    return knowing.peer_state(peer.number)
