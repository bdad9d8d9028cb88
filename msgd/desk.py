"""What the log process can be asked, and who answers it: the rooms, joined, and the table of requests."""

import os
from collections.abc import Callable
from typing import Any

import msgspec

from msgd import consuming, gate, journal
from msgd.amounts import Duration, Size
from msgd.books import Books
from msgd.carrying import Carrying
from msgd.channel import Channel
from msgd.config import Config
from msgd.flowing import Flowing
from msgd.linking import Linking
from msgd.log.record import Kind
from msgd.outgoing import Outgoing
from msgd.reporting import pong, state
from msgd.spreading import Spreading
from msgd.standing import ClockStep, Peer
from msgd.tidying import Tidying
from msgd.wire.frame import Frame
from msgd.wire.groups import CastsChanged, Spread
from msgd.wire.keeping import AskNeeded, Needed, Vacuum
from msgd.wire.ledger import (
    Batch,
    Cancel,
    Clocks,
    DialNow,
    Done,
    FirstUnreceipted,
    HeadAt,
    Indexed,
    KnownPeer,
    Nudge,
    OpenEpoch,
    Peers,
    Ping,
    Plan,
    Proven,
    Ready,
    Receipt,
    Reload,
    ReloadAsked,
    Reloaded,
    Settings,
    Snapshot,
    Submit,
    Tell,
    Watch,
)
from msgd.wire.parcel import (
    BeginEpoch,
    Export,
    OpenParcel,
    PutCarried,
    PutPosition,
    Release,
    Unreceipted,
)
from msgd.wire.trust import PutRecovered

_encode = msgspec.msgpack.Encoder().encode


class Desk:
    """The rooms of the log process, and what concerns several of them. `say` reaches the supervisor."""

    def __init__(self, books: Books, identity: bytes, config: Config, say: Callable[[Frame], None]) -> None:
        self.books = books
        self.say = say
        self.links = Linking(books, identity, self._tell_peer)
        self.flowing = Flowing(books, self.links)
        self.outgoing = Outgoing(books, self.links, os.path.join(config.state, "index.sqlite"))
        self.spreading = Spreading(self.outgoing)
        self.consuming = consuming.Consuming(books, self.outgoing)
        self.gate = gate.Gate(books, self.links, self.outgoing, config, say)
        self.tidying = Tidying(books, config.history, self._ask_index)
        self.index: Channel | None = None
        follow = self.gate.admitting.follow_key
        self.carrying = Carrying(books, self.links, self.flowing, self.outgoing, follow)
        self.outgoing.hold_s = config.pairing.hold_s
        self.links.window.bytes = config.limits.window_bytes
        self.links.window.batches = config.limits.window_batches
        self.links.on_ready = self._on_ready
        self.links.wants_dial_now = lambda number, eager: say(DialNow(number, eager))
        books.on_reread = self._on_reread
        self.indexed = Indexed(0)
        self._reloads: dict[int, tuple[Channel, int]] = {}

    def start(self) -> None:
        """The supervisor hears of this node's key, then of the peers. Raises ConfigError, Fatal."""
        self.gate.start()
        self._tell_peers()

    def _on_reread(self) -> None:
        self.links.reread()
        self.consuming.miss_absent()

    def gone(self, channel: Channel) -> None:
        """A link worker ended."""
        self.links.gone(channel)
        self.gate.pairing.gone(channel)

    def _ping(self, _: Channel, frame: Ping) -> None:
        self.say(pong(frame.token, self.books, self.links, self.indexed))
        self._note_clock()

    def _note_clock(self) -> None:
        step_ns = self.books.note_clock_step()
        if step_ns:
            self.books.add(Kind.CLOCK_STEP, payload=_encode(ClockStep(step_ns)))
            journal.event("clock.stepped", step_s=step_ns / 1e9)

    def _snapshot(self, channel: Channel, frame: Snapshot) -> None:
        channel.say(state(frame, self.books, self.links, self.indexed))

    def _nudge(self, channel: Channel, frame: Nudge) -> None:
        self.gate.nudge(frame.peer)
        self.say(DialNow(frame.peer, True))
        channel.say(Done(frame.token))

    def _reload(self, channel: Channel, frame: Reload) -> None:
        number = max(self._reloads, default=0) + 1
        self._reloads[number] = (channel, frame.token)
        self.say(ReloadAsked(number))

    def _reloaded(self, _: Channel, frame: Reloaded) -> None:
        channel, token = self._reloads.pop(frame.token)
        channel.say(Reloaded(token, frame.error))

    def _settings(self, _: Channel, frame: Settings) -> None:
        journal.set_level(frame.log_level)
        self.links.window.bytes, self.links.window.batches = frame.window_bytes, frame.window_batches
        self.books.store.set_segment_bytes(frame.segment_bytes)
        self.outgoing.hold_s = frame.hold_s
        self.gate.set_trust(frame.trust)
        keep_time = Duration.parse(frame.keep_time) if frame.keep_time else None
        self.tidying.set(keep_time, Size.parse(frame.keep_size) if frame.keep_size else None)
        self._tell_peers()  # their addresses as the log has them: the configuration's may have gone

    def _ask_index(self, frame: Needed) -> bool:
        """Have the index process look for what may go, behind the commit; False: there is none."""
        if self.index is None:
            return False
        self.books.promise(self.index, frame)
        return True

    def _indexed(self, _: Channel, frame: Indexed) -> None:
        self.indexed = frame
        self.books.recent.indexed(frame.offset)

    def _receipt(self, channel: Channel, frame: Receipt) -> None:
        if self.flowing.receipt(channel, frame):
            self.outgoing.releasable.add(channel.peer)

    def _on_ready(self, peer: Peer) -> None:
        self.outgoing.releasable.add(peer.number)
        self.gate.link_stands(peer)

    def _tell_peers(self) -> None:
        self.say(Peers([self.links.known(p) for p in self.books.delivery.peers.values()]))

    def _tell_peer(self, known: KnownPeer) -> None:
        self.say(Peers([known]))


Handler = Callable[[Desk, Channel, Any, memoryview], None]


def _to_gate(handle: gate.Handler) -> Handler:
    return lambda me, channel, frame, _: handle(me.gate, channel, frame)


def _to_consuming(handle: consuming.Handler) -> Handler:
    return lambda me, channel, frame, _: handle(me.consuming, channel, frame)


HANDLERS: dict[type[Any], Handler] = {
    Ping: lambda me, ch, frame, _: me._ping(ch, frame),
    Plan: lambda me, _, frame, __: me.links.plan(frame),
    Settings: lambda me, ch, frame, _: me._settings(ch, frame),
    Reloaded: lambda me, ch, frame, _: me._reloaded(ch, frame),
    Submit: lambda me, ch, frame, payload: me.outgoing.submit(ch, frame, payload),
    CastsChanged: lambda me, _, frame, __: me.say(frame),
    Spread: lambda me, ch, frame, payload: me.spreading.spread(ch, frame, payload),
    Cancel: lambda me, ch, frame, _: me.outgoing.ending.cancel(ch, frame),
    Release: lambda me, ch, frame, _: me.carrying.release(ch, frame),
    Export: lambda me, ch, frame, _: me.carrying.export(ch, frame),
    Unreceipted: lambda me, ch, frame, _: me.carrying.unreceipted(ch, frame),
    OpenParcel: lambda me, ch, frame, _: me.carrying.open(ch, frame),
    BeginEpoch: lambda me, ch, frame, _: me.carrying.begin_epoch(ch, frame),
    PutCarried: lambda me, ch, frame, payload: me.carrying.put(ch, frame, payload),
    PutPosition: lambda me, ch, frame, _: me.carrying.put_position(ch, frame),
    PutRecovered: lambda me, ch, frame, payload: me.flowing.recovered(ch, frame, payload),
    Watch: lambda me, ch, frame, _: me.books.watch(ch, frame),
    Nudge: lambda me, ch, frame, _: me._nudge(ch, frame),
    Snapshot: lambda me, ch, frame, _: me._snapshot(ch, frame),
    Reload: lambda me, ch, frame, _: me._reload(ch, frame),
    HeadAt: lambda me, ch, frame, _: me.flowing.head_at(ch, frame),
    OpenEpoch: lambda me, ch, frame, _: me.flowing.open_epoch(ch, frame),
    Proven: lambda me, ch, frame, _: me.flowing.proven(ch, frame),
    FirstUnreceipted: lambda me, ch, frame, _: me.flowing.first_unreceipted(ch, frame),
    Ready: lambda me, ch, frame, _: me.flowing.make_ready(ch, frame),
    Batch: lambda me, ch, frame, payload: me.flowing.batch(ch, frame, payload),
    Receipt: lambda me, ch, frame, _: me._receipt(ch, frame),
    Tell: lambda me, ch, frame, _: me.links.tell(ch, frame),
    Clocks: lambda me, ch, frame, _: me.flowing.clocks(ch, frame),
    Indexed: lambda me, ch, frame, _: me._indexed(ch, frame),
    AskNeeded: lambda me, ch, frame, _: me.tidying.needed(ch, frame),
    Vacuum: lambda me, ch, frame, _: me.tidying.vacuum(ch, frame),
    **{kind: _to_gate(handle) for kind, handle in gate.HANDLERS.items()},
    **{kind: _to_consuming(handle) for kind, handle in consuming.HANDLERS.items()},
}
