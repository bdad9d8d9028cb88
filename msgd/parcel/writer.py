"""Makes a parcel: bytes in the order in which they belong into the file."""

from collections.abc import Callable
from hashlib import sha256

from msgd.parcel.frames import FIRST_LINE, LABEL, End, Head, encode
from msgd.peer.codec import encode_batch
from msgd.peer.frames import Batch

Sign = Callable[[bytes], bytes]
Buffer = bytes | memoryview


class Writer:
    """`begin`, then every batch in order, then `end`. `sign`: by the key whose SPKI the head names."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign
        self._digest = sha256()

    def begin(self, head: Head) -> list[Buffer]:
        """The first bytes."""
        return self._counted([FIRST_LINE, encode(head)])

    def batch(self, batch: Batch) -> list[Buffer]:
        """One batch; its payload is not copied."""
        return self._counted(list(encode_batch(batch)))

    def end(self) -> list[Buffer]:
        """The last bytes."""
        digest = self._digest.digest()
        return [encode(End(digest, self._sign(LABEL + digest)))]

    def _counted(self, pieces: list[Buffer]) -> list[Buffer]:
        for piece in pieces:
            self._digest.update(piece)
        return pieces
