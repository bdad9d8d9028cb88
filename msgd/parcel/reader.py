"""Checks a parcel from its first byte to its last, before anybody acts on it; then gives its batches.

One frame at a time is in memory. What is asked for later is read from the file again, so nobody else may
change it meanwhile.
"""

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import IO, NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature

from msgd.log.record import MAX_PAYLOAD_BYTES
from msgd.parcel.frames import (
    ANY_VERSION,
    BATCH,
    END,
    FIRST_LINE,
    HEAD,
    HEAD_BYTES,
    LABEL,
    LENGTH,
    End,
    decode_end,
    decode_head,
)
from msgd.peer import codec
from msgd.peer.errors import RemoteProtocolError
from msgd.peer.frames import LINK_BYTES, Batch
from msgd.peer.heads import chain, epoch_head
from msgd.trust.proof import public_key
from msgd.wire.codec import check_payload

VERSION_LETTERS = 10  # of a first line that may be shown

OnRead = Callable[[int], None]  # bytes so far
T = TypeVar("T")


class NoParcel(Exception):
    """The file is something else, or of a version that is not known here."""


class BrokenParcel(Exception):
    """It began as a parcel. `at`: the byte of the file where it is not one any more."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


class WrongSeal(Exception):
    """All is as it was written, but not by the key that it names."""


class Boundary(NamedTuple):
    """The end of a batch: its last seq, and the head there."""

    seq: int
    head: bytes


class Parcel:
    """One parcel in a file that can be read from any place. Raises NoParcel, BrokenParcel."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.seek(0)
        line = file.read(len(FIRST_LINE))
        if line != FIRST_LINE:
            raise NoParcel(_wrong_line(line))
        self._digest = sha256(line)
        self._at = len(line)
        code, body = self._frame(HEAD_BYTES)
        if code != HEAD:
            raise BrokenParcel(self._at, f"a frame of type {code}, expected the head")
        self.head = self._decoded(decode_head, body)
        self._start = file.tell()

    def check(self, on_read: OnRead = lambda at: None) -> None:
        """Read all of it. Raises BrokenParcel, WrongSeal."""
        self._check_before()
        seq, head = self.head.first, self.head.before
        while True:
            on_read(self._at)
            digest = self._digest.digest()
            code, body = self._frame(LINK_BYTES)
            if code == BATCH:
                batch = self._batch(body)
                if batch.first_seq != seq or chain(head, seq, batch.count, batch.payload) != batch.head:
                    raise BrokenParcel(self._at, f"a batch from {batch.first_seq} on that does not follow")
                seq, head = seq + batch.count, batch.head
            elif code == END:
                break
        out = self.head.link.out
        if (seq - 1, head) != (out.last, out.head):
            raise BrokenParcel(self._at, f"it ends with message {seq - 1}, expected is {out.last}")
        self._check_seal(self._decoded(decode_end, body), digest)

    def batches(self, after: int) -> Iterator[Batch]:
        """The batches behind seq `after`. Only of a parcel that was checked."""
        for code, body in self._again():
            if code == BATCH:
                batch = self._batch(memoryview(body))
                if batch.first_seq > after:
                    yield batch

    def boundary(self, seq: int) -> Boundary | None:
        """The last end of a batch at or below `seq`, as this parcel has it. Only of one that was checked."""
        if seq < self.head.first - 1:
            return None
        found = Boundary(self.head.first - 1, self.head.before)
        for code, body in self._again():
            if code == BATCH:
                batch = self._batch(memoryview(body))
                last = batch.first_seq + batch.count - 1
                if last > seq:
                    break
                found = Boundary(last, batch.head)
        return found

    # --- steps ------------------------------------------------------------------------------------------

    def _again(self) -> Iterator[tuple[int, bytes]]:
        at = self._start
        while True:
            self._file.seek(at)
            length, code = LENGTH.unpack(self._file.read(LENGTH.size))
            if code == END:
                return
            body = self._file.read(length - 1)
            at = self._file.tell()
            yield code, body

    def _frame(self, limit: int) -> tuple[int, memoryview]:
        """The next frame, its bytes counted."""
        prefix = self._read(LENGTH.size)
        length, code = LENGTH.unpack(prefix)
        if not 1 <= length <= limit:
            raise BrokenParcel(self._at, f"a frame of {length} bytes, expected 1 to {limit}")
        body = self._read(length - 1)
        self._digest.update(prefix)
        self._digest.update(body)
        self._at += len(prefix) + len(body)
        return code, memoryview(body)

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise BrokenParcel(self._at, "it ends in the middle: the rest is missing")
        return data

    def _batch(self, body: memoryview) -> Batch:
        try:
            batch = codec.decode(BATCH, body)
            assert isinstance(batch, Batch)
            if len(batch.payload) > MAX_PAYLOAD_BYTES:
                raise ValueError(
                    f"a batch of {len(batch.payload)} bytes, expected {MAX_PAYLOAD_BYTES} at most"
                )
            check_payload(batch.payload, batch.count)
        except (RemoteProtocolError, msgspec.MsgspecError, ValueError) as error:
            raise BrokenParcel(self._at, str(error)) from error
        return batch

    def _decoded(self, decode: Callable[[memoryview], T], body: memoryview) -> T:
        try:
            return decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BrokenParcel(self._at, str(error)) from error

    def _check_before(self) -> None:
        """The head before the first message is the one that its epoch begins with, where it is the first."""
        epoch = self.head.epoch
        if epoch is None or self.head.first != epoch.base:
            return
        if epoch_head(epoch.epoch, epoch.base, epoch.sender_head, epoch.receiver_head) != self.head.before:
            raise BrokenParcel(self._at, "the epoch's head is not the digest of what it says")

    def _check_seal(self, end: End, digest: bytes) -> None:
        if end.digest != digest:
            raise BrokenParcel(self._at, "its bytes are not those that were written")
        if self._file.read(1):
            raise BrokenParcel(self._at, "something stands behind its end")
        try:
            public_key(self.head.spki).verify(end.signature, LABEL + digest)
        except (InvalidSignature, ValueError) as error:
            raise WrongSeal("the signature is not by the key that it names") from error


def _wrong_line(line: bytes) -> str:
    if line.startswith(ANY_VERSION):
        version = line[len(ANY_VERSION) :].split(b"\n")[0][:VERSION_LETTERS]
        return f"it is a parcel of version {_shown(version)}; this msgd reads version 1"
    return f"it begins with '{_shown(line)}', a parcel with 'msgd parcel 1'"


def _shown(line: bytes) -> str:
    """Foreign bytes for people."""
    return ascii(line.decode("latin-1"))[1:-1]
