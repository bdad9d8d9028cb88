"""Bodies of link workers: one for a connection that came in, one that dials.

Both end in what the hello wants: a link, an exchange of words, a join, a service. Until then they work under
one deadline. Who comes in is told to the supervisor by the exit code (`penalties`), what a dial met to the
log process.
"""

import socket
import time
from hashlib import sha256

from msgd import exchanging, journal, link, meeting
from msgd.asking import Ledger, LinkEnded
from msgd.config import Config
from msgd.log.reader import Reader
from msgd.meeting import Answer, Found, WrongKey
from msgd.node import Node
from msgd.peer.frames import Commit, Hello, Joined, Refuse, Want, Welcome
from msgd.peer.refusals import reaction
from msgd.penalties import UNFINISHED, UNWANTED, WRONG_INVITATION
from msgd.session import MeetingFailed, Wire
from msgd.wire.frame import Frame
from msgd.wire.ledger import Denied, DialFailed, Granted, KnownPeer, MayDial, Opened, TakeHello, Taken
from msgd.wire.trust import JoinDone, KeyFound, MayJoin, MayPair

# Why the log process gave no leave to say hello: what people are told, and when the next try begins.
NO_LEAVE = {
    "duplicate": ("another link with it stands", 0.0),
    "self": ("this node itself answers there", -1.0),
    "known": ("a peer answers there, with the key that was accepted", -1.0),
    "blocked": ("it is blocked here", -1.0),
    "retired": ("a key answers there that was replaced", -1.0),
}

# What the supervisor dials for.
WANTS: dict[str, Want] = {"link": "link", "pair": "pair", "join": "join"}

# What a refused hello counts as, by the refusal's code, of an invitation by its detail.
UNWELCOME = {"unpaired": UNWANTED, "retired": UNWANTED, "blocked": UNWANTED, "limit": UNWANTED}
GUESSES = ("unknown", "wrong", "dead")


# --- a connection that came in ------------------------------------------------------------------------------


def accept(
    node: Node, sock: socket.socket, address: str, channel: socket.socket, reader: Reader, config: Config
) -> int:
    """Body of the worker of a connection that came in; returns the exit code."""
    ledger = Ledger(channel)
    deadline_s = time.monotonic() + node.handshake_s
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        wire, hello = meeting.accept(node, sock, deadline_s)
        answer = ledger.ask(_taking(wire, hello, address))
        match answer:
            case Taken():
                meeting.welcome(node, wire, answer, deadline_s)
            case MayPair():
                exchanging.accepted(node, wire, ledger, hello, answer, address, deadline_s)
                return 0
            case MayJoin():
                wire.say(Joined(node.name), deadline_s)
                return 0
            case _:
                assert isinstance(answer, Denied)
                raise _deny(wire, answer, address, deadline_s)
    except (MeetingFailed, OSError, LinkEnded) as error:
        quiet = isinstance(error, OSError | LinkEnded) or error.is_quiet
        journal.event("link.refused", level="debug" if quiet else "info", peer=address, reason=str(error))
        if isinstance(error, MeetingFailed):
            return error.exit_code
        return UNFINISHED if isinstance(error, OSError) else 0
    if hello.want == "service":
        from msgd import serving  # few connections need it, and every start would wait for it

        return serving.serve(node, wire, reader, answer, channel)
    if hello.want == "files":
        from msgd import sharing

        return sharing.serve(node, wire, config, answer, channel)
    return link.serve(node, wire, ledger, reader, answer, address)


def _taking(wire: Wire, hello: Hello, address: str) -> TakeHello:
    connection = wire.connection
    return TakeHello(
        1,
        connection.peer_identity,
        hello.instance,
        hello.dial,
        address,
        hello.want,
        hello.name,
        hello.port or 0,
        [(r.spki, r.by_old, r.by_new) for r in hello.chain],
        hello.spki,
        hello.invitation or b"",
        hello.proof or b"",
        sha256(connection.greet_body).digest(),
    )


def _deny(wire: Wire, denied: Denied, address: str, deadline_s: float) -> MeetingFailed:
    """Say the refusal to the peer."""
    code, detail = denied.code, denied.detail
    if code == "unpaired":
        journal.event("peer.unknown", address=address, peer_id=wire.connection.peer_identity)
    wire.say(Refuse(code, denied.retry_s or None, detail), deadline_s)
    is_guess = code == "invitation" and detail.startswith(GUESSES)
    exit_code = WRONG_INVITATION if is_guess else UNWELCOME.get(code, 0)
    return MeetingFailed(f"refused: {code}", is_quiet=True, exit_code=exit_code)


# --- a dial -------------------------------------------------------------------------------------------------


class Elsewhere(MeetingFailed):
    """Another connection with the same node goes on, and tells what comes of it."""


class Asking:
    """Gets the log process's leave to say hello to who was found."""

    def __init__(self, ledger: Ledger, peer: KnownPeer) -> None:
        self.ledger = ledger
        self.peer = peer
        self.found: Found | None = None

    def __call__(self, found: Found) -> Granted:
        """Raises MeetingFailed, LinkEnded."""
        self.found = found
        chain = [(r.spki, r.by_old, r.by_new) for r in found.chain]
        peer = self.peer
        answer = self.ledger.ask(MayDial(1, peer.number, peer.want, found.identity, found.spki, chain))
        if isinstance(answer, Granted):
            return answer
        assert isinstance(answer, Denied)
        if answer.code == "key-changed":
            raise WrongKey(found.identity)
        text, retry_s = NO_LEAVE.get(answer.code, (answer.code, float(answer.retry_s)))
        if answer.detail:
            text = f"{text} ({answer.detail})"
        raise (Elsewhere if answer.code == "duplicate" else MeetingFailed)(text, retry_s)


def dial(node: Node, peer: KnownPeer, connect_s: float, channel: socket.socket, reader: Reader) -> int:
    """Body of a worker that dials."""
    ledger = Ledger(channel)
    asking = Asking(ledger, peer)
    began_mono_ns = time.monotonic_ns()
    try:
        wire, answer, address, deadline_s = _reach(node, peer, connect_s, asking)
        match answer:
            case Welcome():
                taken = ledger.ask(Opened(2, peer.number, answer.instance))
                if not isinstance(taken, Taken):
                    raise MeetingFailed(*NO_LEAVE["duplicate"])
            case Commit():
                assert asking.found is not None
                exchanging.dialled(node, wire, ledger, peer, asking.found, answer, address, deadline_s)
                _say_last(ledger, DialFailed(peer.number, "", exchanging.NEVER_S))
                return 0
            case Joined():
                ledger.ask(JoinDone(2, peer.number, answer.name))
                return 0
    except (MeetingFailed, OSError, LinkEnded) as error:
        _tell_failed(ledger, peer, error, began_mono_ns)
        return 0
    return link.serve(node, wire, ledger, reader, taken, address)


def _reach(node: Node, peer: KnownPeer, connect_s: float, asking: Asking) -> tuple[Wire, Answer, str, float]:
    """Whoever answers first of the peer's addresses; after a hello no other one is tried.

    The wire, what it answered, its address, the deadline. Raises MeetingFailed, OSError, LinkEnded.
    """
    addresses = [peer.address, *peer.others]
    while True:
        address = addresses.pop(0)
        journal.event("link.dialled", peer=peer.name, address=address)
        try:
            sock = meeting.connect(node, address, connect_s)
            deadline_s = time.monotonic() + node.handshake_s
            wire, answer = meeting.dial(node, sock, peer.identity, asking, deadline_s, WANTS[peer.want])
            return wire, answer, address, deadline_s
        except (MeetingFailed, OSError):
            if asking.found is not None or not addresses:
                raise


def _tell_failed(
    ledger: Ledger, peer: KnownPeer, error: MeetingFailed | OSError | LinkEnded, began_mono_ns: int
) -> None:
    """Why there is nothing of this dial: to the log process, and for the operator where it matters."""
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    failed = DialFailed(peer.number, reason, 0.0, began_mono_ns=began_mono_ns)
    level = "debug"
    if isinstance(error, MeetingFailed):
        failed.began_mono_ns = 0 if isinstance(error, Elsewhere) else began_mono_ns
        failed.retry_s, failed.code, failed.detail = error.retry_s, error.code, error.detail
        level = "warning" if error.code and reaction(error.code).event_from == 1 else level
    if isinstance(error, WrongKey) and peer.want != "join":
        _say_last(ledger, KeyFound(peer.number, error.found))
    if isinstance(error, exchanging.Unfit):
        journal.event("pair.broken", peer=peer.name, address=peer.address, reason=reason)
    journal.event("link.failed", level=level, peer=peer.name, address=peer.address, reason=reason)
    _say_last(ledger, failed)


def _say_last(ledger: Ledger, frame: Frame) -> None:
    """Tell the log process, if it is still there."""
    try:
        ledger.tell(frame)
    except LinkEnded:
        return
