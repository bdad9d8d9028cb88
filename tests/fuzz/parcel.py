"""What a person reads in from a stick: a parcel of a peer, which may sign anything."""

import io
from hashlib import sha256
from random import Random
from typing import Any

from msgd.parcel.frames import BATCH, FIRST_LINE, HEAD, LABEL, End, encode
from msgd.parcel.judge import Differs, Ended, Gap, Ours, judge_in, judge_out
from msgd.parcel.reader import BrokenParcel, NoParcel, Parcel, WrongSeal
from msgd.peer.frames import NOWHERE, Position
from msgd.peer.heads import chain
from tests.fuzz.engine import Target
from tests.fuzz.mutate import change_bytes, frames_mutation, join, packed, split, unpacked
from tests.parcels import E1, batches, head_of, made, sample
from tests.peer_pair import D

HX = bytes([0xAB]) * 32


def seeds() -> list[bytes]:
    """The frames of parcels, without the seal."""
    said = batches((1, 3, 2))
    whole = [sample(sizes) for sizes in ((), (1,), (1, 3, 2))]
    whole.append(made(head_of(said, skip=2, theirs=Position(E1, 4, HX)), said[2:]))
    return [join(split(data[len(FIRST_LINE) :])[:-1]) for data in whole]


def chained(rng: Random, frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Often with heads that fit what was changed, so that it is looked at further."""
    head = unpacked(frames[0][1]) if frames and frames[0][0] == HEAD else None
    if not isinstance(head, dict) or rng.random() < 0.4:
        return frames
    at: Any = head.get("before")
    found = [frames[0]]
    for code, body in frames[1:]:
        value: Any = unpacked(body) if code == BATCH else None
        try:
            at = value[2] = chain(at, value[0], value[1], value[3])
            head["link"]["out"][1:] = [value[0] + value[1] - 1, at]
        except Exception:  # not a head or a batch any more: as it is
            return frames
        found.append((code, packed(value)))
    return [(HEAD, packed(head)), *found[1:]]


def run(data: bytes) -> str:
    """Sealed as it is by a peer's key, or as it came; then judged, beside three logs."""
    whole = FIRST_LINE + data
    digest = sha256(whole).digest()
    parcel = Parcel(io.BytesIO(whole + encode(End(digest, D.private.sign(LABEL + digest)))))
    parcel.check()
    outcome = []
    for here in (NOWHERE, Position(E1, 4, HX), parcel.head.link.out):
        try:
            judge_in(parcel.head, here, parcel.boundary, Nothing())
            outcome.append("taken")
        except (Gap, Differs) as refusal:
            outcome.append(type(refusal).__name__)
    try:
        outcome.append(judge_out(Ours(Position(E1, 9, HX), 1, 3), parcel.head.link.in_, lambda seq: HX))
    except Differs:
        outcome.append("differs")
    return " ".join(outcome)


def run_file(data: bytes) -> str:
    """Any file."""
    Parcel(io.BytesIO(data)).check()
    return "whole"


class Nothing:
    """A log that keeps nothing of what came in."""

    def head_at(self, seq: int) -> None:
        return None

    def epochs(self) -> list[Ended]:
        return []


REFUSED = (NoParcel, BrokenParcel, WrongSeal)

TARGETS = [
    Target("parcel", seeds, run, frames_mutation(chained), REFUSED, weight=0.6),
    Target("parcel-file", lambda: [sample()], run_file, change_bytes, REFUSED, weight=0.4),
]
