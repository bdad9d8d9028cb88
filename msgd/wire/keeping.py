"""What the log process and the others say to each other about how much of the log is kept.

The frames are part of the one table in `wire.ledger`; see there who says which.
"""

import struct

from msgd.wire.frame import Frame

OFFSET = struct.Struct("<Q")  # a log offset
STRETCH = struct.Struct("<QQ")  # log offsets: from, and up to


class AskNeeded(Frame):
    """What of the log is not final? Answered by Needed, once a newest segment that is `older_ns` is ended."""

    token: int
    older_ns: int = 0  # 0: none is


class Needed(Frame):
    """Where messages stand that are not final, as far as is committed.

    With `keep_ns` or `keep_bytes` above 0 the log process asks on its own, for what the configuration wants
    (`reason`): find what may go, and answer with Vacuum unless that is nothing.
    """

    token: int
    records: bytes  # OFFSET each: of `out` and `released` records
    waiting: bytes  # STRETCH each: what waits without a seq lies in these
    keep_ns: int = 0
    keep_bytes: int = 0
    reason: str = ""


class Vacuum(Frame):
    """Remove these segments, oldest first. Answered by Done once they are gone, `value`: how many were there.

    Whoever asks has made sure, by `Needed`, that they may go. The rest is for the record of it.
    """

    token: int
    bases: list[int]
    user: str  # empty: the configuration
    reason: str  # what was asked for
    messages: int
    size: int  # bytes
