"""One call of Send or SendMany under way: what was asked, how far it has come."""

from __future__ import annotations

import time
from typing import Any

from msgd import model
from msgd.sending import SendCall
from msgd.wire.ledger import PeerState

DEFAULT_TIMEOUT_MS = 3_600_000


class Pending:
    """One call under way."""

    __slots__ = (
        "asked",
        "began_s",
        "call",
        "count",
        "deadline_s",
        "done",
        "duplicate",
        "ends",
        "first_seq",
        "handled",
        "has_reports",
        "ids",
        "last_seq",
        "more",
        "next_try_s",
        "numbered",
        "offset",
        "oneway",
        "pairing",
        "parts",
        "payload",
        "peer",
        "queued_ns",
        "reason",
        "receipt_ns",
        "reply",
        "state",
        "tries",
        "whole",
    )

    def __init__(self, call: SendCall, peer: PeerState, ids: list[bytes], payload: bytes, more: bool) -> None:
        self.call = call
        self.peer = peer
        self.ids = ids  # in the order of the record
        self.asked = ids  # of the whole call
        self.payload = payload
        self.count = len(ids)
        self.more = more
        self.began_s = time.monotonic()
        timeout_ms = DEFAULT_TIMEOUT_MS if call.timeout_ms is None else call.timeout_ms
        self.deadline_s = self.began_s + timeout_ms / 1000
        self.state = ""  # not on this disk yet
        self.reason: str | None = None
        self.next_try_s: float | None = None
        self.pairing: dict[str, Any] | None = None  # of a held one: what it waits for
        self.offset = 0
        self.first_seq = 0
        self.last_seq = 0
        self.numbered = 0  # how many have their seqs
        self.ends: dict[bytes, str] = {}  # those that ended otherwise than by a receipt: their state
        self.handled: dict[bytes, tuple[int, str]] = {}  # those with a mark: by their clock when, and by whom
        self.has_reports = False  # among its messages
        self.queued_ns = self.receipt_ns = 0
        self.duplicate = False
        self.done = False
        self.oneway = False  # nobody wants the reply
        self.reply = b""
        self.tries = 0
        self.parts = [self]  # what is waited for: of a call to one peer that itself
        self.whole: object | None = None  # the call to many peers that it is a part of

    @classmethod
    def answered(cls, reply: bytes) -> Pending:
        """A call that was refused at once: its reply waits for its turn, nothing else of it is asked for."""
        pending = cls.__new__(cls)
        pending.done, pending.oneway, pending.reply = True, False, reply
        pending.parts = []
        return pending

    @property
    def is_waiting(self) -> bool:
        """Whether all of it is on this disk without a seq, and has not ended."""
        return self.state in (model.QUEUED, model.HELD) and not self.first_seq

    @property
    def wants_stored(self) -> bool:
        return self.call.wait in (model.STORED, model.HANDLED)

    @property
    def is_handled(self) -> bool:
        """Whether all of it is that has not ended otherwise, or nobody waits for that."""
        return self.call.wait != model.HANDLED or len(self.handled) + len(self.ends) >= len(self.asked)

    @property
    def is_over(self) -> bool:
        """Whether waiting longer changes nothing."""
        if not self.wants_stored:
            return True
        return self.is_handled if self.state == model.STORED else self.state not in (model.QUEUED, model.HELD)

    def answer(self) -> dict[str, Any]:
        """The parameters of the reply, as things stand."""
        is_open = self.state in (model.QUEUED, model.HELD)
        common = {
            "state": self.state,
            "reason": self.reason,
            "stored_at_ns": self.queued_ns or None,
            "receipt_at_ns": self.receipt_ns or None,
            "next_try_s": self.next_try_s if is_open else None,
            "pairing": self.pairing if self.state == model.HELD else None,
        }
        return self._of_many(common) if self.call.messages is not None else self._of_one(common)

    def _of_many(self, common: dict[str, Any]) -> dict[str, Any]:
        states = [self.ends.get(i, self.state) for i in self.asked] if self.ends else None
        if states is not None:
            common["state"] = next(iter(self.ends.values()))  # the least that was reached
        return {
            "count": len(self.asked),
            "first_seq": self.first_seq or None,
            "ids": [model.id_text(i) for i in self.asked] if self.call.has_gaps else None,
            "states": states,
            "handled": self._handled_ns() if self.call.wait == model.HANDLED else None,
            **common,
        }

    def _handled_ns(self) -> list[int | None]:
        return [self.handled[raw][0] if raw in self.handled else None for raw in self.asked]

    def _of_one(self, common: dict[str, Any]) -> dict[str, Any]:
        handled_ns, consumer = self.handled.get(self.ids[-1], (None, None))
        return {
            "receipt": {
                "id": model.id_text(self.ids[-1]),
                "handled_at_ns": handled_ns,
                "handled_by": consumer,
                "peer": self.peer.name,
                "seq": self.first_seq or None,
                "queued_at_ns": self.queued_ns,
                "elapsed_ms": round((time.monotonic() - self.began_s) * 1000, 3),
                "duplicate": self.duplicate,
                **common,
            }
        }
