"""Body of a control worker: one connected client of the control socket, from its first call to its last.

Calls are answered in their order. Sends may be under way many at a time (`submitting`); every other call
waits until they are answered. A bad call costs an error reply, bytes that are no calls cost the connection,
and a client that vanishes or does not read costs nobody anything but this process.
"""

import grp
import os
import pwd
import select
import socket
import sqlite3
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from msgd import errors, journal, showing
from msgd.commands import COMMANDS, SERVICE_COMMANDS, locate, lookup
from msgd.config import Config
from msgd.errors import MsgdError
from msgd.history import History
from msgd.log.errors import Damaged
from msgd.log.index import Location
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.meeting import Node
from msgd.rows import Row
from msgd.submitting import Submitting
from msgd.wire import varlink
from msgd.wire.codec import Message
from msgd.wire.ledger import TABLE, Frame, PeerState, Refused, Snapshot, State, Wake, Watch
from msgd.wire.pipe import Pipe

SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h; Python has no name for it
READ_BYTES = 1 << 18
GROUP = "msgd"  # whose members may do everything


class Call(msgspec.Struct):
    """One call as it arrives."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw()
    more: bool | None = None
    oneway: bool | None = None


_decode = msgspec.json.Decoder(Call).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int
    gids: frozenset[int]

    @property
    def user(self) -> str:
        """The user's name, or the number where there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def may_use(self) -> bool:
        """Root, the daemon's own user, and members of the group msgd."""
        if self.uid in (0, os.geteuid()):
            return True
        try:
            return grp.getgrnam(GROUP).gr_gid in self.gids
        except KeyError:
            return False


def credentials(sock: socket.socket) -> Credentials:
    """SO_PEERCRED and SO_PEERGROUPS (supplementary groups count)."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)  # Python takes no more: 256 groups
    except OSError:
        raw = b""  # a user with more: only the first group counts
    return Credentials(pid, uid, frozenset((gid, *struct.unpack(f"{len(raw) // 4}I", raw))))


@dataclass(frozen=True, slots=True)
class Place:
    """What a control worker knows of its node."""

    config: Config
    node: Node
    reader: Reader
    page: SharedPage
    started_s: float  # CLOCK_MONOTONIC


class ClientGone(Exception):
    """The client has closed its end."""


def refuse_crowd(sock: socket.socket, count: int) -> None:
    """One error reply to a client that is one too many of its user."""
    text = f"This user has {count} connections to msgd already."
    try:
        sock.send(
            _error(MsgdError(text, "Close some, or raise limits.control_per_uid.")), socket.MSG_DONTWAIT
        )
    except OSError:
        return  # it has gone


def run(sock: socket.socket, channel: socket.socket, place: Place) -> int:
    """Serve one client until it leaves."""
    who = credentials(sock)
    journal.event("control.opened", uid=who.uid)
    sock.setblocking(True)
    worker = Control(sock, channel, place, who)
    try:
        worker.run()
    except (ClientGone, BrokenPipeError, ConnectionResetError):
        pass
    except varlink.FrameError as error:
        journal.event("control.refused", uid=who.uid, reason=str(error))
        worker.last_word(errors.UsageError(f"That was no varlink call: {error}", "See varlink.org."))
    journal.event("control.closed", uid=who.uid)
    return 0


class Control:
    """One client: its calls in, its replies out, in order."""

    def __init__(self, sock: socket.socket, channel: socket.socket, place: Place, who: Credentials) -> None:
        self.sock = sock
        self.pipe = Pipe(channel, TABLE)
        self.place = place
        self.who = who
        self.user = who.user
        self.is_oneway = False  # the present call wants no reply
        self.submitting = Submitting(self)
        self.damage: list[str] = []  # met by the present query
        self._calls = varlink.Splitter()
        self._waiting: deque[Call] = deque()
        self._heard: deque[Any] = deque()  # from the log process, in its order
        self._answers: dict[int, Frame] = {}
        self._token = 0
        self._state: State | None = None
        self._found: dict[str, PeerState] = {}  # who was looked up in the state
        self._found_in: State | None = None
        self._looked_anew = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(channel, select.POLLIN)
        self._ledger_poll = select.poll()
        self._ledger_poll.register(channel, select.POLLIN)

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the client is gone. Raises ClientGone, FrameError, OSError."""
        while True:
            self._step(self.submitting.timeout_ms())
            self.submitting.expire()
            self._do_calls()

    def _step(self, timeout_ms: float | None) -> None:
        """Wait for the client or the log process, and take in what comes.

        While calls wait for their turn nothing more is read: they are the client's memory, not ours.
        """
        self._poll.modify(self.sock, 0 if self._waiting else select.POLLIN)  # its end is told all the same
        for fd, _ in self._poll.poll(timeout_ms):
            if fd == self.sock.fileno():
                self._hear_client()
            else:
                self._hear_ledger()

    def _hear_client(self) -> None:
        data = self.sock.recv(READ_BYTES)
        if not data:
            raise ClientGone
        self._calls.feed(data)
        while (frame := self._calls.next()) is not None:
            try:
                self._waiting.append(_decode(frame))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise varlink.FrameError(f"{frame[:80]!r}: {error}") from error

    def _do_calls(self) -> None:
        while self._waiting:
            call = self._waiting[0]
            command = COMMANDS.get(call.method) or SERVICE_COMMANDS.get(call.method)
            if command is not None and command.is_send:
                if self.submitting.is_full():
                    return
            elif self.submitting.pending:
                return
            self._waiting.popleft()
            self._do(call, command)

    def _do(self, call: Call, command: Any) -> None:
        self.is_oneway = bool(call.oneway)
        try:
            if command is None:
                self._answer(_unknown_method(call.method))
                return
            if command.is_private and not self.who.may_use():
                raise errors.PermissionRefused(
                    f"User {self.user} may not use msgd here: root and members of group {GROUP} may.",
                    f"As root: adduser {self.user} {GROUP}, then log in again.",
                )
            command.run(self, command.parse(_object(call.parameters)), bool(call.more) and not call.oneway)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.fail(errors.UsageError(f"{call.method}: {error}", "See `GetInterfaceDescription`."))
        except MsgdError as error:
            self.fail(error)
        except (Damaged, sqlite3.Error) as error:
            self.fail(
                errors.StorageRefused(f"The log or its index cannot be read: {error}.", "See `msgctl log`.")
            )
        finally:
            self.is_oneway = False

    # --- replies ----------------------------------------------------------------------------------------

    def reply(self, parameters: Any, *, continues: bool = False) -> None:
        """Answer the present call."""
        if continues:
            self._answer(_encode({"parameters": parameters, "continues": True}) + b"\0")
        else:
            self._answer(_encode({"parameters": parameters}) + b"\0")

    def _answer(self, data: bytes) -> None:
        if not self.is_oneway:
            self.send(data)

    def fail(self, error: MsgdError) -> None:
        """Answer the present call with an error, behind the answers to the sends before it."""
        if not self.is_oneway:
            self.submitting.in_turn(_error(error))

    def encode_reply(self, parameters: Any) -> bytes:
        """The bytes of an answer that may have to wait for its turn."""
        return _encode({"parameters": parameters}) + b"\0"

    def encode_error(self, error: MsgdError) -> bytes:
        """The bytes of an error that may have to wait for its turn."""
        return _error(error)

    def send(self, data: bytes) -> None:
        """Write whole replies; waits for a client that reads slowly."""
        self.sock.sendall(data)

    def last_word(self, error: MsgdError) -> None:
        """An error reply before the connection is closed, if the client still listens."""
        try:
            self.sock.send(_error(error), socket.MSG_DONTWAIT)
        except OSError:
            return

    def no_interface(self, interface: str) -> None:
        """Answer with varlink's own error."""
        self._answer(varlink.error(f"{varlink.SERVICE}.InterfaceNotFound", {"interface": interface}))

    # --- what it knows ----------------------------------------------------------------------------------

    def lookup(self, who: str, *, removed: bool = False) -> PeerState:
        """The peer that a person means. Raises UnknownPeer, NotTrusted."""
        state = self.state(fresh=False)
        if removed:
            return lookup(state.peers, who, removed=True)
        if self._found_in is not state:
            self._found_in, self._found = state, {}
        if who not in self._found:
            try:
                self._found[who] = lookup(state.peers, who)
            except (errors.UnknownPeer, errors.NotTrusted):
                if self._looked_anew:
                    raise
                return self._look_anew(who)
        return self._found[who]

    def _look_anew(self, who: str) -> PeerState:
        """It may have become a peer since we asked who is one."""
        self._looked_anew = True
        try:
            self.state()
            return self.lookup(who)
        finally:
            self._looked_anew = False

    def history(self) -> History:
        """Queries over the log as it is now."""
        names = {p.number: p.name for p in self.state().peers}
        self.damage.clear()
        return History(
            self.place.reader,
            lambda: self.place.page.committed,
            os.path.join(self.place.config.state, "index.sqlite"),
            own_name=self.place.node.name,
            peer_name=lambda number: names.get(number, f"peer {number}"),
            held_reason=lambda number: None,
            on_damage=self._note_damage,
        )

    def locate(self, text: str) -> Location:
        """Where the message stands that a person means. Raises UnknownMessage."""
        return locate(self.history(), text)

    def why_waiting(self, number: int) -> tuple[str | None, float | None]:
        """Why messages to this peer wait, and the seconds until it is tried again."""
        state = self.ask(Snapshot(self.next_token(), number))
        return showing.waiting_reason(state.peers[0])

    def check_same(self, messages: list[Message], number: int) -> None:
        """These ids are in the log: the same messages, or a refusal. Raises UsageError."""
        history = self.history()
        for message in messages:
            known = history.message_at(history.find(message.id.hex(), 1)[0])
            same = (message.body, message.headers, number)
            if (known.body, known.headers, known.peer_number) != same:
                raise errors.UsageError(
                    f"Id {known.id.hex()} or its key was used before, for another message.",
                    "Use a new key for a new message.",
                )

    def row_of(self, raw_id: bytes) -> Row:
        """A message that is in the log."""
        history = self.history()
        return history.message_at(history.find(raw_id.hex(), 1)[0])

    def follow(self, since: int) -> None:
        """Wait until something is committed beyond this offset. Raises ClientGone."""
        while self.place.page.committed <= since:
            self.tell(Watch(0, since))
            self.wait_wake()

    def _note_damage(self, damaged: Damaged) -> None:
        self.damage.append(f"{damaged.segment} at {damaged.offset}: {damaged.why}")
        journal.event("log.damage_found", segment=damaged.segment, offset=damaged.offset, reason=damaged.why)

    # --- the log process --------------------------------------------------------------------------------

    def next_token(self) -> int:
        self._token += 1
        return self._token

    def tell(self, frame: Frame, payload: bytes | memoryview = b"") -> None:
        """Say something to the log process. Raises Uncertain when it is gone."""
        try:
            self.pipe.send(frame, payload)
        except OSError as error:
            raise self._lost() from error

    def ask(self, frame: Any) -> Any:
        """Say something and wait for the answer. Raises the error that the log process names."""
        self.tell(frame)
        while frame.token not in self._answers:
            if not self._heard:
                self._ledger_poll.poll()
            self._hear_ledger()
        answer = self._answers.pop(frame.token)
        if isinstance(answer, Refused):
            raise error_of(answer)
        return answer

    def state(self, *, fresh: bool = True) -> State:
        """How everything stands; not `fresh`: who is a peer, as last heard."""
        if fresh or self._state is None:
            self._state = self.ask(Snapshot(self.next_token()))
        return self._state

    def wait_wake(self) -> None:
        """Wait until the log process says something, or the client leaves. Raises ClientGone."""
        self._step(None)

    def _hear_ledger(self) -> None:
        """Take in what the log process says, in its order, also where handling one frame asks for another."""
        self._heard.extend(self._receive())
        while self._heard:
            frame = self._heard.popleft()
            if isinstance(frame, Wake):
                if frame.kind:
                    self.submitting.wake(frame)
            elif not self.submitting.answered(frame):
                self._answers[frame.token] = frame

    def _receive(self) -> list[Any]:
        frames = self.pipe.receive()
        if frames is None:
            self.submitting.lose(self._lost())
            raise ClientGone
        return [frame for frame, _ in frames]

    def _lost(self) -> MsgdError:
        return errors.Uncertain(
            "The daemon's log process ended before it answered: unknown whether the message was kept.",
            "Ask for the same id with `msgctl show ID`, or send again with the same id.",
        )


def error_of(refused: Refused) -> MsgdError:
    """The error that the log process names."""
    return errors.BY_NAME.get(refused.name, MsgdError)(refused.message, refused.hint)


def _object(raw: msgspec.Raw) -> bytes:
    """Parameters that are missing or null are the same as {}."""
    given = bytes(raw)
    return b"{}" if given in (b"", b"null") else given


def _error(error: MsgdError) -> bytes:
    return varlink.error(f"{errors.INTERFACE}.{error.name}", {"message": error.message, "hint": error.hint})


def _unknown_method(method: str) -> bytes:
    interface = method.rpartition(".")[0]
    if interface in (errors.INTERFACE, varlink.SERVICE):
        return varlink.error(f"{varlink.SERVICE}.MethodNotFound", {"method": method})
    return varlink.error(f"{varlink.SERVICE}.InterfaceNotFound", {"interface": interface})
