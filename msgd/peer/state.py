"""Who may say what when. Everything that decides it stands in these two tables.

`CONNECTION` follows the whole connection, `DIRECTION` each of its two directions once the link stands. Keys
are (who speaks, state, what it says); a missing key is the error. The tables do not know which end we are:
what we say and what we hear is judged alike. A state is about both ends, so both ends see the same one;
only a goodbye may cross frames of the other side, and those stay legal.

A hello leads to ANSWER_DUE, where it may only be refused; once it is found good, `WANTED` says what follows.
A refusal closes, as do both verdicts and `joined`; a goodbye silences its speaker. SERVING is the end of
frames: what follows there is the service's own language. Conclusions (`reconcile`) give the first state of a
direction; the same tables then hold through a new epoch and back to FLOWS.
"""

from collections.abc import Mapping
from typing import Literal

from msgd.peer.errors import LocalProtocolError
from msgd.peer.frames import (
    Batch,
    Commit,
    Epoch,
    EpochDone,
    Frame,
    Goodbye,
    Greet,
    Joined,
    Nonce,
    Ping,
    Pong,
    Receipt,
    Refuse,
    Reveal,
    SignedHello,
    State,
    Verdict,
    Welcome,
)
from msgd.peer.reconcile import RECEIVER, SENDER, Agree, Ahead, Conclusion, NewEpoch, Resend

Role = Literal["dialler", "acceptor"]
DIALLER: Role = "dialler"
ACCEPTOR: Role = "acceptor"

GREET_DUE = "GREET_DUE"
HELLO_DUE = "HELLO_DUE"
ANSWER_DUE = "ANSWER_DUE"
WELCOME_DUE = "WELCOME_DUE"
LINKED = "LINKED"
DIALLER_LEFT = "DIALLER_LEFT"
ACCEPTOR_LEFT = "ACCEPTOR_LEFT"
SERVICE_DUE = "SERVICE_DUE"
SERVING = "SERVING"
COMMIT_DUE = "COMMIT_DUE"
NONCE_DUE = "NONCE_DUE"
REVEAL_DUE = "REVEAL_DUE"
VERDICTS_DUE = "VERDICTS_DUE"
DIALLER_VERDICT_DUE = "DIALLER_VERDICT_DUE"
ACCEPTOR_VERDICT_DUE = "ACCEPTOR_VERDICT_DUE"
JOINED_DUE = "JOINED_DUE"
CLOSED = "CLOSED"

SENDER_STATE_DUE = "SENDER_STATE_DUE"
RECEIVER_STATE_DUE = "RECEIVER_STATE_DUE"
EPOCH_DUE = "EPOCH_DUE"
EPOCH_OPEN = "EPOCH_OPEN"
FLOWS = "FLOWS"

Table = Mapping[tuple[str, str, type[Frame]], str]

# While the link stands, both may say any of these. What belongs to a direction is judged there, too.
ON_LINK: tuple[type[Frame], ...] = (Batch, Receipt, Ping, Pong, State, Epoch, EpochDone)

# What a good hello leads to, by its `want`.
WANTED = {
    "link": WELCOME_DUE,
    "pair": COMMIT_DUE,
    "join": JOINED_DUE,
    "service": SERVICE_DUE,
    "files": SERVICE_DUE,
}

# The acceptor may refuse up to its reveal, the dialler only the reveal itself: beside it a verdict of the
# acceptor may be under way already.
REFUSABLE = (ANSWER_DUE, WELCOME_DUE, SERVICE_DUE, COMMIT_DUE, NONCE_DUE, REVEAL_DUE, JOINED_DUE)

CONNECTION: Table = {
    (ACCEPTOR, GREET_DUE, Greet): HELLO_DUE,
    (DIALLER, HELLO_DUE, SignedHello): ANSWER_DUE,
    **{(ACCEPTOR, state, Refuse): CLOSED for state in REFUSABLE},
    (ACCEPTOR, WELCOME_DUE, Welcome): LINKED,
    (ACCEPTOR, SERVICE_DUE, Welcome): SERVING,
    (ACCEPTOR, JOINED_DUE, Joined): CLOSED,
    (ACCEPTOR, COMMIT_DUE, Commit): NONCE_DUE,
    (DIALLER, NONCE_DUE, Nonce): REVEAL_DUE,
    (ACCEPTOR, REVEAL_DUE, Reveal): VERDICTS_DUE,
    (DIALLER, VERDICTS_DUE, Refuse): CLOSED,
    (DIALLER, DIALLER_VERDICT_DUE, Refuse): CLOSED,
    (DIALLER, VERDICTS_DUE, Verdict): ACCEPTOR_VERDICT_DUE,
    (ACCEPTOR, VERDICTS_DUE, Verdict): DIALLER_VERDICT_DUE,
    (DIALLER, DIALLER_VERDICT_DUE, Verdict): CLOSED,
    (ACCEPTOR, ACCEPTOR_VERDICT_DUE, Verdict): CLOSED,
    **{(DIALLER, LINKED, kind): LINKED for kind in ON_LINK},
    **{(ACCEPTOR, LINKED, kind): LINKED for kind in ON_LINK},
    (DIALLER, LINKED, Goodbye): DIALLER_LEFT,
    (ACCEPTOR, LINKED, Goodbye): ACCEPTOR_LEFT,
    **{(ACCEPTOR, DIALLER_LEFT, kind): DIALLER_LEFT for kind in ON_LINK},
    **{(DIALLER, ACCEPTOR_LEFT, kind): ACCEPTOR_LEFT for kind in ON_LINK},
    (ACCEPTOR, DIALLER_LEFT, Goodbye): CLOSED,
    (DIALLER, ACCEPTOR_LEFT, Goodbye): CLOSED,
}

# The sender's State has two endings: FLOWS when the heads are the same, else EPOCH_DUE. That one is a
# conclusion, and replaces what stands here.
DIRECTION: Table = {
    (SENDER, SENDER_STATE_DUE, State): FLOWS,
    (RECEIVER, RECEIVER_STATE_DUE, State): EPOCH_DUE,
    (SENDER, EPOCH_DUE, Epoch): EPOCH_OPEN,
    (RECEIVER, EPOCH_OPEN, EpochDone): FLOWS,
    (SENDER, FLOWS, Batch): FLOWS,
    (RECEIVER, FLOWS, Receipt): FLOWS,
}


def advance(table: Table, role: str, state: str, kind: type[Frame]) -> str:
    """The state after `role` has said a frame of this kind.

    Raises LocalProtocolError when it may not; whoever listens turns that into the remote one.
    """
    try:
        return table[role, state, kind]
    except KeyError:
        raise LocalProtocolError(f"{role} may not say {kind.__name__} in state {state}") from None


def concluded(conclusion: Conclusion) -> str:
    """The state of a direction after a conclusion about it."""
    match conclusion:
        case Agree() | Resend():
            return FLOWS
        case NewEpoch():
            return EPOCH_DUE
        case Ahead(who=who):
            return SENDER_STATE_DUE if who == SENDER else RECEIVER_STATE_DUE
