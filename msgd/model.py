"""The words that every room shares: kinds, directions, states, limits, and the form of an id.

Pure and light: msgctl imports this on its fast path, so no dataclasses, no enum, no library.
"""

MESSAGE_KINDS = ("text", "file", "call", "result", "ring", "control")  # stored as the place in this tuple

OUT = 1  # from this node to the peer
IN = 2
DIRECTIONS = {OUT: "out", IN: "in"}

# Of an outgoing message: HELD or QUEUED, then exactly one of the final ones. Of an incoming one: RECEIVED.
HELD = "held"
QUEUED = "queued"
STORED = "stored"
REJECTED = "rejected"
EXPIRED = "expired"
CANCELLED = "cancelled"
RECEIVED = "received"
STATES = (HELD, QUEUED, STORED, REJECTED, EXPIRED, CANCELLED, RECEIVED)
FINAL_STATES = (STORED, REJECTED, EXPIRED, CANCELLED)
RESTARTING = "msgd is starting again"  # the reason of who was answered before its time was over
HANDLED = "handled"  # no state but a mark beside STORED or RECEIVED: a consumer there has dealt with it

# Headers with a meaning.
REPLY_TO = "reply-to"  # the id of the message that this one answers
THREAD = "thread"  # the id of the first message of the conversation
REPORT = "report"  # HANDLED: the sender wants to hear when a consumer has handled it
CONSUMER = "consumer"  # of a report, whose header HANDLED is the id of the message: who handled it
CHAT = "chat"  # LEFT: with this line its writer has left the chat
LEFT = "left"

DEFAULT_PORT = 6743
MAX_APPEND_BYTES = 1 << 20  # one append to the log; a SIGKILL inside one write tore 0 of 60 of this size
MAX_MESSAGE_BYTES = MAX_APPEND_BYTES - 4096  # encoded, headers included: leaves room for the record around it

NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
MAX_NAME = 63


def is_name(text: str) -> bool:
    """Whether `text` may name a node: 1-63 of a-z, 0-9 and '-' (trust protocol, section 1)."""
    return 0 < len(text) <= MAX_NAME and NAME_LETTERS.issuperset(text)


def uuid7(now_ms: int, random: bytes) -> bytes:
    """A UUIDv7 (RFC 9562, 5.7): 48 bits of Unix milliseconds, version, 74 random bits.

    `random` is 10 bytes. Ids made in one millisecond differ by these bits only.
    """
    tail = int.from_bytes(random, "big") & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return (now_ms & 0xFFFFFFFFFFFF).to_bytes(6, "big") + tail.to_bytes(10, "big")


def uuid8(digest: bytes) -> bytes:
    """A UUIDv8 (RFC 9562, 5.8) from the first 16 bytes of `digest`: the id of a message sent with a key."""
    value = int.from_bytes(digest[:16], "big") & ~(0xF << 76 | 0x3 << 62) | 0x8 << 76 | 0x2 << 62
    return value.to_bytes(16, "big")


def id_text(raw: bytes) -> str:
    """An id as people see it: 8-4-4-4-12 hexadecimal digits."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def id_prefix(text: str) -> str | None:
    """The hexadecimal digits of a whole id or of its beginning, lower case; None if it is neither."""
    digits = text.replace("-", "").lower()
    if 4 <= len(digits) <= 32 and all(c in "0123456789abcdef" for c in digits):
        return digits
    return None
