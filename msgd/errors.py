"""What can go wrong, as the user meets it: one named error each, with its exit code.

The control socket carries the names (`org.msgd.Control.UnknownPeer`), msgctl ends with the codes. Light:
msgctl imports this on its fast path.
"""

OK = 0  # the level that was asked for is reached
UNEXPECTED = 1
USAGE = 2
UNREACHABLE = 3  # the daemon does not answer
NOT_TRUSTED = 4  # the peer is not paired, or its key changed
STILL_QUEUED = 5  # --wait was not reached in time; the message stays queued
FAILED = 6  # a final state other than stored
UNKNOWN = 7  # no such peer or message
STORAGE = 8  # full, read-only or damaged
DIFFER = 9  # both logs hold different bytes

# The daemon's own endings (sysexits.h): both mean that only a person may start it again.
EX_IOERR = 74  # a write that was promised durable may be lost
EX_CONFIG = 78  # configuration, key or state cannot be used as they are

INTERFACE = "org.msgd.Control"


class MsgdError(Exception):
    """An error for a user: one sentence, and the next step. `code` is msgctl's exit code.

    `name` is the error's name on the control socket, without the interface.
    """

    code = UNEXPECTED
    name = "Unexpected"

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MsgdError):
    """The call itself is wrong: an option, a parameter, a message over the limit."""

    code = USAGE
    name = "InvalidRequest"


class Uncertain(MsgdError):
    """The daemon was lost between the request and its answer: unknown whether it was kept."""

    code = UNEXPECTED
    name = "Uncertain"


class PermissionRefused(MsgdError):
    """This local user may not do that."""

    code = UNEXPECTED
    name = "PermissionRefused"


class Unreachable(MsgdError):
    """No daemon answers on the control socket."""

    code = UNREACHABLE
    name = "Unreachable"


class NotTrusted(MsgdError):
    """The peer is not paired, or the key that answers is not the pinned one."""

    code = NOT_TRUSTED
    name = "NotTrusted"


class TooLate(MsgdError):
    """What was asked cannot be undone any more: the message is final, or may already be with the peer."""

    code = FAILED
    name = "TooLate"


class UnknownPeer(MsgdError):
    """No peer has this name, address or identity."""

    code = UNKNOWN
    name = "UnknownPeer"


class UnknownMessage(MsgdError):
    """No message has this id, or several begin with it."""

    code = UNKNOWN
    name = "UnknownMessage"


class UnknownConsumer(MsgdError):
    """No consumer has this name."""

    code = UNKNOWN
    name = "UnknownConsumer"


class UnknownFile(MsgdError):
    """The store has no file of this name."""

    code = UNKNOWN
    name = "UnknownFile"


class PeerAway(MsgdError):
    """The peer does not answer now; what was begun goes on there when it is asked again."""

    code = STILL_QUEUED
    name = "PeerAway"


class StorageRefused(MsgdError):
    """The log cannot take it or cannot be read: full, read-only or damaged. Nothing was kept."""

    code = STORAGE
    name = "StorageRefused"


class LogsDiffer(MsgdError):
    """This node's log and the peer's do not hold the same messages."""

    code = DIFFER
    name = "LogsDiffer"


class ConfigError(MsgdError):
    """Configuration, key or state directory cannot be used; msgd ends with 78."""

    code = EX_CONFIG
    name = "Config"


class Fatal(MsgdError):
    """The log's file cannot be trusted any more (a failed fdatasync); msgd ends with 74."""

    code = EX_IOERR
    name = "Fatal"


BY_NAME: dict[str, type[MsgdError]] = {
    kind.name: kind
    for kind in (
        MsgdError,
        UsageError,
        Uncertain,
        PermissionRefused,
        Unreachable,
        NotTrusted,
        TooLate,
        UnknownPeer,
        UnknownMessage,
        UnknownConsumer,
        UnknownFile,
        PeerAway,
        StorageRefused,
        LogsDiffer,
    )
}
