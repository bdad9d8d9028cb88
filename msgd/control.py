"""Body of a control worker: one connected client of the control socket, from its first call to its last.

Calls are answered in their order. Sends may be under way many at a time (`submitting`); every other call
waits until they are answered. A bad call costs an error reply, bytes that are no calls cost the connection,
and a client that vanishes or does not read costs nobody anything but this process.
"""

import select
import socket
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, TypeVar

import msgspec

from msgd import errors, journal
from msgd.access import Credentials, credentials
from msgd.commands import COMMANDS, SERVICE_COMMANDS, Command
from msgd.errors import MsgdError
from msgd.handed import Hearing, close_all
from msgd.knowing import ClientGone, Knowing, Place, lost
from msgd.log.errors import Damaged
from msgd.receiving import Receiver
from msgd.submitting import Submitting
from msgd.wire import varlink
from msgd.wire.ledger import Wake, Watch
from msgd.wire.trust import TrustChanged

if TYPE_CHECKING:
    from msgd.shipping import Local, Remote

__all__ = ["Control", "Place", "credentials", "refuse_crowd", "run"]

Joined = TypeVar("Joined")
LONGEST_S = 3600.0  # of one wait; poll counts milliseconds in 31 bits
READS = ("history", "any")  # verbs of `[access]` whose calls change nothing


class Call(msgspec.Struct):
    """One call as it arrives."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw()
    more: bool | None = None
    oneway: bool | None = None


# What reading a client's JSON may raise; the last for nesting without end.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_decode = msgspec.json.Decoder(Call).decode
_encode = msgspec.json.Encoder().encode


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
    worker.leave()
    journal.event("control.closed", uid=who.uid)
    return 0


class Control(Knowing):
    """One client: its calls in, its replies out, in order."""

    def __init__(self, sock: socket.socket, channel: socket.socket, place: Place, who: Credentials) -> None:
        super().__init__(channel, place, who)
        self.sock = sock
        self.is_oneway = False  # the present call wants no reply
        self.parcel: IO[bytes] | None = None  # what was handed over of one to import
        self.stores: dict[int, tuple[int, Local | Remote]] = {}  # by peer, with the patience in ms
        self.fds: list[int] = []  # handed over with the present call; closed behind it
        self.receivers: dict[str, Receiver] = {}  # by consumer
        self.submitting = Submitting(self)
        self.trust_changes = 0  # heard so far
        self._hearing = Hearing(sock)
        self._waiting: deque[tuple[Call, list[int]]] = deque()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(channel, select.POLLIN)

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
                self.hear_ledger()

    def _hear_client(self) -> None:
        said = self._hearing.read()
        if said is None:
            raise ClientGone
        for frame, fds in said:
            try:
                self._waiting.append((_decode(frame), fds))
            except UNREADABLE as error:
                raise varlink.FrameError(f"{frame[:80]!r}: {error}") from error

    def _do_calls(self) -> None:
        while self._waiting:
            call, self.fds = self._waiting[0]
            command = COMMANDS.get(call.method) or SERVICE_COMMANDS.get(call.method)
            if command is not None and command.is_send:
                if self.submitting.is_full():
                    return
            elif self.submitting.pending:
                return
            self._waiting.popleft()
            self._do(call, command)

    def _do(self, call: Call, command: Command | None) -> None:
        self.is_oneway = bool(call.oneway)
        try:
            if command is None:
                self._answer(_unknown_method(call.method))
                return
            if command.verb:
                self.check_access(command.verb)
            command.run(self, command.parse(_object(call.parameters)), bool(call.more) and not call.oneway)
        except UNREADABLE as error:
            self.fail(errors.UsageError(f"{call.method}: {error}", "See `GetInterfaceDescription`."))
        except errors.Uncertain as error:
            if command is not None and command.verb in READS:
                raise ClientGone from error  # it asked to keep nothing: as when it waits for the log process
            self.fail(error)
        except MsgdError as error:
            self.fail(error)
        except (Damaged, sqlite3.Error) as error:
            self.fail(
                errors.StorageRefused(f"The log or its index cannot be read: {error}.", "See `msgctl log`.")
            )
        finally:
            self.is_oneway = False
            close_all(self.fds)

    # --- replies ----------------------------------------------------------------------------------------

    def reply(self, parameters: Any, *, continues: bool = False) -> None:
        """Answer the present call."""
        if continues:
            self._answer(_encode({"parameters": parameters, "continues": True}) + b"\0")
        else:
            self._answer(_encode({"parameters": parameters}) + b"\0")

    def reply_encoded(self, *parameters: bytes) -> None:
        """One of several answers to the present call, encoded already, in pieces."""
        self._answer(b"".join((b'{"parameters":', *parameters, b',"continues":true}\0')))

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

    # --- waiting ----------------------------------------------------------------------------------------

    def follow(self, since: int) -> None:
        """Wait until something is committed beyond this offset. Raises ClientGone."""
        while self.place.page.committed <= since:
            self.tell(Watch(0, since))
            self._step(None)

    def wait(self, timeout_s: float | None) -> None:
        """Until the log process or the client says something, or for so long at most. Raises ClientGone."""
        self._step(None if timeout_s is None else min(timeout_s, LONGEST_S) * 1000 + 1)

    def leave(self) -> None:
        """The client has gone: what it received and did not settle is given back."""
        for receiver in self.receivers.values():
            try:
                receiver.leave()
            except errors.Uncertain:
                return  # the log process is gone, too: its successor waits for the client

    def wait_trust(self, heard: int, deadline_s: float) -> bool:
        """Until more than `heard` changes of trust were heard; False at the deadline. Raises ClientGone."""
        while self.trust_changes == heard:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._step(left_s * 1000 + 1)
        return True

    def take_ready(
        self, method: str, more: bool, accept: Callable[[Any, list[int]], Joined | None]
    ) -> Joined | None:
        """What `accept` makes of the next call, if it is here, of this method and meant to be answered alike.

        The call is then taken off, to be answered behind the present one, its descriptors closed with it.
        Raises ClientGone, FrameError.
        """
        if not self._waiting and select.select([self.sock], [], [], 0)[0]:
            self._hear_client()
        if not self._waiting:
            return None
        call, fds = self._waiting[0]
        if call.method != f"{errors.INTERFACE}.{method}" or call.oneway or bool(call.more) != more:
            return None
        try:
            joined = accept(COMMANDS[call.method].parse(_object(call.parameters)), fds)
        except UNREADABLE:
            return None  # told in its turn
        if joined is not None:
            self._waiting.popleft()
        return joined

    def check_client(self) -> None:
        """Raises ClientGone once the client has closed its end: what takes long asks now and then."""
        try:
            if not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                raise ClientGone
        except BlockingIOError:
            return

    def take_in(self, frame: Any) -> bool:
        """Deal with what is no answer to `ask`."""
        match frame:
            case Wake(kind=0):
                return True
            case Wake():
                self.submitting.wake(frame)
                return True
            case TrustChanged():
                self.trust_changes += 1
                self.submitting.trust_changed(frame.peer)
                return True
        return self.submitting.answered(frame)

    def ledger_gone(self) -> None:
        """The log process is gone: nothing that was not answered is certain."""
        self.submitting.lose(lost())


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
