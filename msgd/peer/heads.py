"""Heads: digests that chain all batches of a direction, so that two logs can prove they hold the same.

| head | SHA-256 of |
|---|---|
| after a batch | head before ‖ first seq u64 ‖ count u32 ‖ payload |
| of a new epoch | `msgd/1 epoch\\0` ‖ epoch ‖ base u64 ‖ sender's head ‖ receiver's head |

Integers are big-endian. Before the first epoch of a direction its head is 32 zero bytes.
"""

import hashlib
import struct

ZERO_HEAD = bytes(32)
EPOCH_LABEL = b"msgd/1 epoch\0"

_batch = struct.Struct(">QI")
_base = struct.Struct(">Q")


def chain(head: bytes, first_seq: int, count: int, payload: bytes | memoryview) -> bytes:
    """The head of a direction once this batch follows `head`."""
    digest = hashlib.sha256(head + _batch.pack(first_seq, count))
    digest.update(payload)
    return digest.digest()


def epoch_head(epoch: bytes, base: int, sender_head: bytes, receiver_head: bytes) -> bytes:
    """The head with which a new epoch begins: both histories are inside, whatever they were."""
    return hashlib.sha256(EPOCH_LABEL + epoch + _base.pack(base) + sender_head + receiver_head).digest()
