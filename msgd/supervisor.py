"""The supervisor: one thread, one loop. It listens, accepts, forks, reaps, restarts, and tells systemd.

It never touches a message and never waits for a disk, so whatever happens to the others it can act. Its
loop selects on the signals' pipe, the listeners and connections that have not spoken yet (`doors`), and the
log process's channel. Nothing is accepted while there is no log process.
"""

import os
import random
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from msgd import __version__, control, hooking, indexing, journal, ledger, systemd, worker
from msgd.casters import Casters
from msgd.children import Backoff, Child, Children, Ended, Kind, Then
from msgd.config import Config, Hook
from msgd.dialling import NEVER_S, Course, Dialling
from msgd.doors import Doors
from msgd.errors import EX_IOERR, OK, UNEXPECTED, ConfigError, Fatal, MsgdError
from msgd.hooks import Hooks
from msgd.listening import port_of
from msgd.lobby import Lobby
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.node import Node, node_of_key, node_with
from msgd.note import Note
from msgd.peer.frames import Rotation
from msgd.pulse import Pulse
from msgd.signals import Signals
from msgd.trust.identity import NodeKey
from msgd.wire.groups import CastsChanged
from msgd.wire.ledger import (
    TABLE,
    DialFailed,
    DialNow,
    Introduce,
    Peers,
    Plan,
    Pong,
    Refused,
    ReloadAsked,
    Reloaded,
    Settings,
    Stop,
)
from msgd.wire.pipe import Pipe
from msgd.wire.trust import Admitted, Chain, Rotated

CHANNELS = {
    Kind.PEER: "link"
}  # what a kind's channel to the log process is called there; else as it is itself
HOOKS_STOP_S = 3.0  # hooks get this long to end what they run
STOP_S = 4.5  # all children get this long after SIGTERM; systemd waits longer
NO_REASON = DialFailed(0, "", 0.0)
CAUGHT = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """The parent of all. `node` is who this is; `reload` reads the configuration again, `load_key` the key.

    `warm_up` makes everything ready for the first link worker; it runs while the log process opens the log.
    """

    def __init__(
        self,
        config: Config,
        node: Node,
        listeners: Callable[[], list[tuple[str, socket.socket]]],
        notifier: systemd.Notifier,
        reload: Callable[[], Config],
        load_key: Callable[[], NodeKey],
        warm_up: Callable[[], None],
        on_ready: Callable[[], None],
    ) -> None:
        self.config = config
        self.node = node
        self.notifier = notifier
        self.children = Children()
        self.page = SharedPage()
        self.signals = Signals(CAUGHT)
        self.reader = Reader(os.path.join(config.state, "log"), lambda: self.page.committed)
        limits = config.limits
        lobby = Lobby(
            limits.unauthenticated, limits.per_source, limits.reserved_for_peers, limits.handshake_s
        )
        self.dialling = Dialling(random.random, limits.backoff_max_s)
        self.log: Pipe | None = None  # the channel to the log process, once it is at work
        self.exit_code: int | None = None
        self._refusal: MsgdError | None = None  # why the log process cannot open its log
        self.unlink_socket = False  # the control socket's file is ours, not systemd's
        self.started_s = time.monotonic()
        self._make_listeners = listeners
        self._reload_config = reload
        self._load_key = load_key
        self._warm_up = warm_up
        self._on_ready = on_ready
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.signals, selectors.EVENT_READ, self._take_signals)
        self.doors = Doors(self._selector, self.children, lobby, self._spawn, self._place)
        self.pulse = Pulse(self.page, notifier, self._say_log, limits.watchdog_stall_s)
        self._log_backoff = Backoff(random.random, first_s=0.05, cap_s=5.0)
        self._index_backoff = Backoff(random.random, first_s=0.5)
        self._log_at_s = self._index_at_s = 0.0
        self.hooks = Hooks(self.children, self._fork_hook, random.random)
        self.hooks.apply(config.hook)
        self.casters = Casters(self.children, self._fork_cast, lambda: self.config.store, random.random)
        self._say_stop_s = NEVER_S  # until then hooks may end, before the log process does
        self._failed: dict[int, DialFailed] = {}  # what the dials that end now have said, by peer
        self._stopping_until_s: float | None = None

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; returns the exit code. Raises MsgdError where nothing could start."""
        try:
            self._start_log()
            self._warm_up()
            while self.exit_code is None:
                for key, _ in self._selector.select(self._timeout_s()):
                    if self._selector.get_map().get(key.fd) is key:  # not closed by one before it
                        key.data()
                if self.exit_code is None:  # else a log process that ended for good would be replaced here
                    self._do_timers()
        except MsgdError as error:
            self.exit_code = error.code
            raise
        finally:
            self._end_all()
        if self._refusal is not None and not self.doors.listeners:
            raise self._refusal  # for whoever waits at the terminal
        return self.exit_code

    def _timeout_s(self) -> float:
        if self._stopping_until_s is not None:  # no other timer is acted on any more
            until_s = min(self._stopping_until_s, self._say_stop_s)
            return max(0.0, until_s - time.monotonic()) if self.children.by_pid else 0.0
        due = [self.pulse.due_s, self.dialling.next_s() if self.log else NEVER_S]
        due.append(self.doors.lobby.next_deadline_s() or NEVER_S)
        if not self.children.of(Kind.LOG):
            due.append(self._log_at_s)
        elif self.log is not None:
            due += (self.hooks.next_s(), self.casters.next_s())
            if not self.children.of(Kind.INDEX):
                due.append(self._index_at_s)
        return max(0.0, min(due) - time.monotonic())

    def _do_timers(self) -> None:
        now_s = time.monotonic()
        if self._stopping_until_s is not None:
            if now_s >= self._say_stop_s or not self.children.of(Kind.HOOK):
                self._stop_log()
            if not self.children.by_pid or now_s >= self._stopping_until_s:
                self.exit_code = OK
            return
        if not self.children.of(Kind.LOG):
            if now_s >= self._log_at_s:
                self._start_log()
        elif self.log is not None and not self.children.of(Kind.INDEX) and now_s >= self._index_at_s:
            self._start_index()
        if now_s >= self.pulse.due_s:
            self.pulse.beat(now_s)
        self.doors.turn_out_late(now_s)
        if self.log is not None:
            for course in list(self.dialling.due(now_s)):
                self._dial(course, now_s)
            self.hooks.start_due(now_s)
            self.casters.start_due(now_s)

    # --- the log process --------------------------------------------------------------------------------

    def _start_log(self) -> None:
        mine, theirs = socket.socketpair()
        config, page, identity = self.config, self.page, self.node.key.identity
        self.children.spawn(
            Kind.LOG, "", lambda: ledger.run(theirs, page, config, identity), [theirs.fileno()], mine
        )
        theirs.close()
        self._selector.register(mine, selectors.EVENT_READ, self._hear_log)
        self._starting = Pipe(mine, TABLE)
        self.pulse.begin()

    def _hear_log(self) -> None:
        pipe = self._starting
        frames = pipe.receive()
        if frames is None:
            self._unhear(pipe.sock)  # its end follows as a signal
            self._close_doors()
            return
        for frame, _ in frames:
            match frame:
                case Peers():
                    self._learn(frame, pipe)
                case Pong():
                    if self._stopping_until_s is None:
                        self.pulse.heard(frame, self.dialling.peers())
                case DialNow():
                    self.dialling.ask(frame.peer, frame.eager, time.monotonic())
                case DialFailed():
                    self._note_failed(frame)
                case Admitted():
                    self.doors.admitted(frame.pid, frame.want, time.monotonic())
                case Chain():
                    self.node = replace(self.node, chain=tuple(Rotation(*parts) for parts in frame.rotations))
                case Rotated():
                    self._take_key()
                case CastsChanged():
                    self.casters.look(time.monotonic())
                case ReloadAsked():
                    self._say_log(Reloaded(frame.token, self._reload()))
                case Refused():
                    kind = Fatal if frame.name == Fatal.name else ConfigError
                    self._refusal = kind(frame.message, frame.hint)

    def _take_key(self) -> None:
        """This node has a new key: what is forked from now on has it, and every peer is dialled with it.

        The log process ends the links that stand. Raises ConfigError where the key cannot be read.
        """
        self.node = node_of_key(self.node, self._load_key())
        self.dialling.begin_anew(time.monotonic())
        self.children.kill(signal.SIGTERM, Kind.CAST)  # it dials with the former one

    def _unhear(self, channel: socket.socket) -> None:
        """Nothing more comes from a log process: its channel or its signal said so, whichever was first."""
        if channel in self._selector.get_map():
            self._selector.unregister(channel)

    def _learn(self, frame: Peers, pipe: Pipe) -> None:
        now_s = time.monotonic()
        for peer in frame.peers:
            settings = self.config.peer.get(peer.name)
            if settings is not None and settings.address is not None:
                peer.address = str(settings.address)
            self.dialling.learn(peer, now_s)
            self.doors.learn(peer)
        if self._stopping_until_s is not None:
            if self.log is not None:
                return  # it is told when the hooks have ended
            with suppress(OSError):  # it has just died
                pipe.offer(Stop())  # it was still starting when the others were told
        elif self.log is None:
            self._open_doors(pipe)

    def _say_log(self, frame: Any) -> bool:
        """Tell the log process, if it is there and reads: a stalled disk must not stop this loop, too."""
        try:
            return self.log is not None and self.log.offer(frame)
        except OSError:
            return False  # it has just died: its end follows as a signal

    def _open_doors(self, pipe: Pipe) -> None:
        """The log process is at work: listen, and tell systemd at the first time."""
        self.log = pipe
        first = not self.doors.listeners
        if first:
            try:
                self.doors.listeners = self._make_listeners()
                self.node = replace(self.node, port=port_of(self.doors.listeners))
            except ConfigError as error:
                journal.event("daemon.failed", reason=error.message, hint=error.hint)
                self.notifier.failed(error.message)
                raise
        self.doors.open()
        self._start_index()
        self.casters.look(time.monotonic())
        if first:
            journal.event(
                "daemon.started",
                version=__version__,
                name=self.node.name,
                seconds=round(time.monotonic() - self.started_s, 3),
            )
            self.notifier.ready(self.pulse.status(self.dialling.peers()))
            self._on_ready()

    def _close_doors(self) -> None:
        self.log = None
        self.doors.close()

    # --- other children ---------------------------------------------------------------------------------

    @contextmanager
    def _channel(self, kind: str) -> Iterator[tuple[socket.socket, Callable[[int], None]]]:
        """A new child's end of a channel to the log process, and how to introduce it once it has a pid."""
        mine, theirs = socket.socketpair()

        def introduce(pid: int) -> None:
            assert self.log is not None
            try:
                if not self.log.offer(Introduce(kind, pid, self.node.key.identity), mine.fileno()):
                    journal.event(
                        "child.refused", title=f"{kind} {pid}", reason="the log process does not read"
                    )
            except OSError:
                return  # the log process has just died; the child, whose channel nobody has, ends as well

        try:
            yield theirs, introduce
        finally:
            mine.close()
            theirs.close()

    def _spawn(
        self, kind: Kind, label: str, body: Callable[[socket.socket], int | None], keep: list[int], data: Any
    ) -> Child | None:
        name = {
            Kind.PEER: "link",
            Kind.CONTROL: "control",
            Kind.INDEX: "index",
            Kind.HOOK: "hook",
            Kind.CAST: "cast",
        }[kind]
        with self._channel(name) as (channel, introduce):
            try:
                child = self.children.spawn(
                    kind, label, lambda: body(channel), [channel.fileno(), *keep], data
                )
            except OSError as error:
                journal.event("child.refused", title=f"{kind} {label}", reason=error.strerror)
                return None
            introduce(child.pid)
            return child

    def _place(self) -> control.Place:
        return control.Place(self.config, self.node, self.reader, self.page, self.started_s)

    def _start_index(self) -> None:
        config, reader, page = self.config, self.reader, self.page
        self._index_at_s = time.monotonic() + 1.0
        self._spawn(Kind.INDEX, "", lambda channel: indexing.run(channel, config, reader, page), [], None)

    def _fork_hook(self, name: str, hook: Hook, note: Note) -> Child | None:
        place, parent = self._place(), os.getpid()
        return self._spawn(
            Kind.HOOK,
            name,
            lambda channel: hooking.run(channel, place, name, hook, note, parent),
            [],
            (name, hook),
        )

    def _fork_cast(self) -> Child | None:
        place, parent = self._place(), os.getpid()
        return self._spawn(Kind.CAST, "", lambda channel: _cast(channel, place, parent), [], None)

    def _dial(self, course: Course, now_s: float) -> None:
        node, peer, reader = self.node, course.peer, self.reader
        connect_s = self.dialling.connect_s(course, now_s)
        child = self._spawn(
            Kind.PEER,
            peer.name,
            lambda channel: worker.dial(node, peer, connect_s, channel, reader),
            [],
            course,
        )
        if child is None:
            self.dialling.ended(course, now_s, 0.0)
        else:
            self.dialling.began(course, child.pid, now_s)

    def _note_failed(self, frame: DialFailed) -> None:
        course = self.dialling.courses.get(frame.peer)
        if course is not None:
            course.reason = frame.reason
            self._failed[frame.peer] = frame

    # --- ends -------------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        taken = self.signals.take()
        if signal.SIGCHLD in taken:
            for ended in self.children.reap():
                self._child_ended(ended)
        if taken & {signal.SIGTERM, signal.SIGINT} and self._stopping_until_s is None:
            self._stop("SIGTERM" if signal.SIGTERM in taken else "SIGINT")
        if signal.SIGHUP in taken and self._stopping_until_s is None:
            self._reload()

    def _child_ended(self, ended: Ended) -> None:
        now_s = time.monotonic()
        match ended.then:
            case Then.END:
                self._end_with(ended)
            case Then.REPLACE_ALL:
                self._log_ended(ended, now_s)
            case Then.RESTART if ended.child.kind == Kind.CAST:
                self.casters.ended(ended, now_s)
            case Then.RESTART if ended.child.kind == Kind.HOOK:
                self.hooks.ended(ended, now_s)
            case Then.RESTART:
                self._index_at_s = now_s + self._index_backoff.failed(now_s, ended.lived_s)
            case Then.BACK_OFF:
                self._link_ended(ended, now_s)
            case Then.FORGET:
                pass

    def _end_with(self, ended: Ended) -> None:
        """The log can not be used any more: msgd ends with it, and only a person starts it again."""
        assert ended.code is not None
        if ended.child.data in self._selector.get_map():
            self._hear_log()  # its last words
        self.exit_code = ended.code
        self.notifier.failed(f"the log process ended with {ended.code}", 5 if ended.code == EX_IOERR else 0)

    def _log_ended(self, ended: Ended, now_s: float) -> None:
        """Its channels are gone, so every other child ends by itself; links begin anew."""
        self._close_doors()
        self._unhear(ended.child.data)
        ended.child.data.close()
        if self._stopping_until_s is None:
            self._log_at_s = now_s + self._log_backoff.failed(now_s, ended.lived_s)
            if (
                ended.code is not None and not self.doors.listeners
            ):  # none was ever at work, nor will be the next
                text = f"The log process could not begin its work: {ended.text}."
                self._refusal = MsgdError(text, "The events before this one say why.")
                self.exit_code = UNEXPECTED
        for course in self.dialling.courses.values():
            course.peer.linked = False

    def _link_ended(self, ended: Ended, now_s: float) -> None:
        self.doors.worker_ended(ended)
        course = self.dialling.by_pid(ended.child.pid)
        if course is None:
            return
        number = course.peer.number
        failed = self._failed.pop(number, NO_REASON)
        self.dialling.ended(course, now_s, failed.retry_s, failed.code)
        if not course.peer.linked:
            wait_ns = int(min(course.next_s - now_s, 1e9) * 1e9)
            self._say_log(Plan(number, time.monotonic_ns() + wait_ns, course.reason))

    def _stop(self, reason: str) -> None:
        """Orderly: nobody new, links say goodbye, the log commits, then everybody is gone."""
        journal.event("daemon.stopping", reason=reason)
        self.notifier.stopping("stopping")
        self.hooks.stop()
        self.children.kill(signal.SIGTERM, Kind.CAST)
        self._say_stop_s = time.monotonic() + HOOKS_STOP_S
        self._stopping_until_s = self._say_stop_s + STOP_S
        self.doors.close()
        self.doors.turn_out_all()

    def _stop_log(self) -> None:
        """The hooks have had their moment: now the log process, and with it everybody else."""
        if self._say_stop_s == NEVER_S:
            return
        self._say_stop_s = NEVER_S
        self._stopping_until_s = time.monotonic() + STOP_S
        self._say_log(Stop())
        self._close_doors()

    def _end_all(self) -> None:
        """Whoever is still there is killed and reaped: msgd leaves nobody behind."""
        for child in list(self.children.by_pid.values()):
            os.kill(child.pid, signal.SIGKILL)
        for pid in list(self.children.by_pid):
            os.waitpid(pid, 0)
        for name, sock in self.doors.listeners:
            if name == "control" and self.unlink_socket:
                _unlink(sock)
            sock.close()
        if self.exit_code is None:
            self.exit_code = UNEXPECTED
        journal.event("daemon.stopped", code=self.exit_code)

    # --- reload -----------------------------------------------------------------------

    def _reload(self) -> str:
        """Apply what may change while running; returns the error when the new configuration is wrong."""
        self.notifier.reloading()
        try:
            config = self._reload_config()
        except ConfigError as error:
            journal.event("reload.refused", reason=error.message)
            self.notifier.ready(self.pulse.status(self.dialling.peers()))
            return f"{error.message.removesuffix('.')}. {error.hint}".strip()
        self._apply(config)
        journal.event("daemon.reloaded")
        self.notifier.ready(self.pulse.status(self.dialling.peers()))
        return ""

    def _apply(self, config: Config) -> None:
        if (config.files, config.peer) != (self.config.files, self.config.peer):
            self.doors.turn_out_seated("files")  # who may go on comes again, and is judged by the new rules
        if config.history.search != self.config.history.search:
            self.children.kill(signal.SIGTERM, Kind.INDEX)  # the next one knows; it may be killed at any time
        if config.store != self.config.store:
            self.children.kill(signal.SIGTERM, Kind.CAST)
        self.config = config
        self.casters.look(time.monotonic())
        self.hooks.apply(config.hook)
        journal.set_level(config.log_level)
        limits = config.limits
        lobby = self.doors.lobby
        lobby.places, lobby.per_source = limits.unauthenticated, limits.per_source
        lobby.reserved, lobby.handshake_s = limits.reserved_for_peers, limits.handshake_s
        self.dialling.limit(limits.backoff_max_s)
        self.pulse.stall_s = limits.watchdog_stall_s
        self.node = node_with(self.node, config)
        pairing, history = config.pairing, config.history
        self._say_log(
            Settings(
                config.log_level,
                limits.window_bytes,
                limits.window_batches,
                limits.segment_bytes,
                pairing.hold_s,
                pairing.trust,
                str(history.keep_time or ""),
                str(history.keep_size or ""),
            )
        )


def _cast(channel: socket.socket, place: control.Place, parent: int) -> int:
    from msgd import casting  # what only this process needs costs the others no memory

    return casting.run(channel, place, parent)


def _unlink(sock: socket.socket) -> None:
    try:
        os.unlink(sock.getsockname())
    except OSError:
        return  # somebody else's by now, or never there
