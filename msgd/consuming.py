"""The log process's part in consumers: it lends a message to one holder at a time.

One request settles and takes, one `cursor` record says both, so a consumer costs one fdatasync a message. Who
sent a message that asks for it hears that it is done: a report stands in the log before the record that says
so.

A holder that has ended gives back what it has; one that may come again keeps it (`holders`).
"""

import hashlib
from collections.abc import Callable
from typing import Any

from msgd import journal, lending, model
from msgd.books import Books
from msgd.channel import Channel
from msgd.cursors import (
    ASIDE,
    DONE,
    GONE,
    RELEASE,
    RETRY,
    Change,
    Consumer,
    Cursors,
    Entry,
    Step,
    encode_change,
)
from msgd.errors import MsgdError
from msgd.holders import Holders, Holding
from msgd.log.record import FLAG_REPORTS, Kind
from msgd.outgoing import Outgoing
from msgd.standing import Peer, PeerChange
from msgd.wire.codec import Message, encode
from msgd.wire.consuming import (
    Begin,
    Begun,
    ConsumerList,
    ConsumerState,
    Freed,
    Leave,
    Lent,
    ListConsumers,
    ListUnsettled,
    Receive,
    RemoveConsumer,
    RetryAside,
    Unsettled,
    UnsettledList,
)
from msgd.wire.ledger import Done, Refused, Submit
from msgd.wire.reports import RESULT


class Consuming:
    """Requests about consumers."""

    def __init__(self, books: Books, outgoing: Outgoing) -> None:
        self.books = books
        self.outgoing = outgoing
        self.holders = Holders(lambda: books.clock.mono_ns() / 1e9)
        self._asking: dict[str, set[Channel]] = {}  # by name: who waits for something to be given back
        self.miss_absent()

    @property
    def cursors(self) -> Cursors:
        return self.books.delivery.cursors

    # --- receiving --------------------------------------------------------------------------------------

    def begin(self, channel: Channel, frame: Begin) -> None:
        """A holder receives from now on; the consumer is made where there is none."""
        change = self.cursors.begin(frame, self._last())
        if change is not None:
            self._record(change)
            self.books.change_node(PeerChange("consumer begun", b"", frame.name, user=frame.user))
            self.books.event("consumer.begun", consumer=frame.name, user=frame.user)
        if frame.holder:
            self.holders.join(channel, (frame.name, frame.holder))
        consumer = self.cursors.get(frame.name)
        state = _state(consumer)
        state.seen = consumer.seen
        begun = Begun(frame.token, state, change is not None)
        self.books.promise_answer(channel, frame.token, begun)

    def receive(self, channel: Channel, frame: Receive) -> None:
        """Settle, and lend; in the log before it is answered. Raises StorageFull."""
        consumer = self.cursors.get(frame.name, frame.born)
        plan = lending.plan(self.cursors, frame)
        self.holders.join(channel, (frame.name, frame.holder))
        high = (frame.offset, frame.index)
        is_end = high[0] == self.books.store.end
        if plan.steps or frame.lost:
            self._put(consumer, frame, plan, high if frame.lost else None)
        if any(step.what == RELEASE for step in plan.steps):
            self._tell_asking(frame.name)
        if plan.lent is None:
            self.cursors.passed(consumer, high, self._last() if is_end else None)
            if frame.wants:
                self._asking.setdefault(frame.name, set()).add(channel)
        offset, index = plan.lent or (-1, 0)
        raw_id = consumer.taken[plan.lent].id if plan.lent else b""
        lent = Lent(frame.token, offset, index, plan.attempt, *consumer.high, raw_id)
        self.books.promise_answer(channel, frame.token, lent)

    def leave(self, channel: Channel, frame: Leave) -> None:
        """A program has ended: what it has is given back, unless it is connected elsewhere, too."""
        if self.holders.leave(channel, (frame.name, frame.holder)):
            self._free((frame.name, frame.holder))

    def gone(self, channel: Channel) -> None:
        """A process ended without a word about its holders."""
        for asking in self._asking.values():
            asking.discard(channel)
        self.holders.gone(channel)

    def miss_absent(self) -> None:
        """After a start, or where the tables were read anew: holders that are not here may come again."""
        for consumer in self.cursors.all:
            self.holders.miss((consumer.name, entry.holder) for entry in consumer.taken.values())

    def expire(self) -> None:
        """Give back what those had who did not come again."""
        for holding in self.holders.take_due():
            self._free(holding)

    # --- what people ask --------------------------------------------------------------------------------

    def list_consumers(self, channel: Channel, frame: ListConsumers) -> None:
        """All of them."""
        found = [_state(consumer) for _, consumer in sorted(self.cursors.by_name.items())]
        channel.say(ConsumerList(frame.token, found))

    def list_unsettled(self, channel: Channel, frame: ListUnsettled) -> None:
        """What is out, waits or was set aside."""
        consumer = self.cursors.get(frame.name)
        tables = {"taken": consumer.taken, "retrying": consumer.waiting, "aside": consumer.aside}
        entries = sorted((at, state, entry) for state, table in tables.items() for at, entry in table.items())
        found = [
            Unsettled(*at, e.id, e.peer, state, e.attempts, e.why, e.since_ns) for at, state, e in entries
        ]
        channel.say(UnsettledList(frame.token, found))

    def retry(self, channel: Channel, frame: RetryAside) -> None:
        """What was set aside comes again."""
        aside = self.cursors.get(frame.name).aside
        steps = [Step(RETRY, *at) for at, e in sorted(aside.items()) if not frame.ids or e.id in frame.ids]
        if steps:
            self._record(Change(frame.name, steps=steps, user=frame.user))
            self._tell_asking(frame.name)
        self.books.promise_answer(channel, frame.token, Done(frame.token, bool(steps), len(steps)))

    def remove(self, channel: Channel, frame: RemoveConsumer) -> None:
        """Forget a consumer."""
        self.cursors.get(frame.name)
        self._record(Change(frame.name, removed=True, user=frame.user))
        self.books.change_node(PeerChange("consumer removed", b"", frame.name, user=frame.user))
        self.books.event("consumer.removed", consumer=frame.name, user=frame.user)
        self._tell_asking(frame.name)
        self.books.promise_answer(channel, frame.token, Done(frame.token))

    # --- steps ------------------------------------------------------------------------------------------

    def _put(
        self, consumer: Consumer, frame: Receive, plan: lending.Plan, high: tuple[int, int] | None
    ) -> None:
        """What is planned, into the log; reports before the record that makes them due."""
        ended = [(step, _entry(consumer, step)) for step in plan.steps if step.what in (DONE, ASIDE, GONE)]
        reports = [
            self._report(consumer, entry, frame) for step, entry in ended if step.what == DONE and entry.asks
        ]
        change = Change(frame.name, high=high, steps=plan.steps)
        payload = encode_change(change)
        self.books.room(len(payload) + sum(len(raw) + 256 for _, _, raw in filter(None, reports)))
        for report in filter(None, reports):
            self._send(frame, *report)
        self._add(change, payload)
        self._tell(frame, ended)

    def _report(self, consumer: Consumer, entry: Entry, frame: Receive) -> tuple[Peer, bytes, bytes] | None:
        """Whom to tell that this message was handled, the id of the report, its bytes.

        None where nobody is there to hear it, or it was sent before a start that found the record behind it
        missing.
        """
        peer, _ = self.books.delivery.owner(entry.peer)
        raw_id = _report_id(entry.id, consumer)
        if not peer.pinned or peer.removed or peer.blocked or self.books.recent.seen([raw_id]):
            return None
        headers = {model.HANDLED: model.id_text(entry.id), model.CONSUMER: consumer.name}
        message = Message(raw_id, RESULT, self.books.clock.wall_ns(), frame.user, headers, b"")
        return peer, raw_id, encode(message)

    def _send(self, frame: Receive, peer: Peer, raw_id: bytes, payload: bytes) -> None:
        books = self.books
        submit = Submit(0, peer.number, 1, raw_id, 0, books.generation, frame.user, has_reports=True)
        self.outgoing.put(submit, peer, payload, FLAG_REPORTS)
        books.remember([raw_id])

    def _tell(self, frame: Receive, ended: list[tuple[Step, Entry]]) -> None:
        """The events, behind the commit."""
        event, name = self.books.event, frame.name
        for step, entry in ended:
            raw = model.id_text(entry.id)
            if step.what == ASIDE:
                event("message.set_aside", id=raw, consumer=name, count=entry.attempts, reason=entry.why)
            elif step.what == GONE:
                event("consumer.passed_over", consumer=name, reason=f"message {raw} is not kept any more")
            elif journal.is_shown("message.handled"):
                event("message.handled", id=raw, consumer=name)
        if frame.lost:
            text = f"{frame.lost} messages are not kept any more, or cannot be read"
            event("consumer.passed_over", consumer=name, reason=text)

    def _record(self, change: Change) -> None:
        payload = encode_change(change)
        self.books.room(len(payload))
        self._add(change, payload)

    def _add(self, change: Change, payload: bytes) -> None:
        books = self.books
        offset = books.add(Kind.CURSOR, payload=payload)
        self.cursors.apply(change, offset, books.store.end, books.clock.wall_ns())

    def _free(self, holding: Holding) -> None:
        name, holder = holding
        consumer = self.cursors.by_name.get(name)
        count = 0 if consumer is None else self.cursors.free(consumer, holder, self.books.clock.wall_ns())
        if count:
            journal.event("consumer.released", consumer=name, count=count)
            self._tell_asking(name)

    def _tell_asking(self, name: str) -> None:
        """Whoever waits asks again; should the commit be refused it has asked in vain."""
        for channel in self._asking.pop(name, ()):
            channel.say(Freed(name))

    def _last(self) -> dict[int, int]:
        """The last seq that came from each peer."""
        return {p.number: p.inward.last for p in self.books.delivery.peers.values() if p.inward.last}


def _entry(consumer: Consumer, step: Step) -> Entry:
    return consumer.taken.get(step.place) or consumer.waiting[step.place]


def _report_id(handled: bytes, consumer: Consumer) -> bytes:
    """The same for one message and consumer, however often the report is made."""
    parts = b"msgd/1 handled", handled, consumer.name.encode(), b"%d" % consumer.born
    return model.uuid8(hashlib.sha256(b"\0".join(parts)).digest())


def _state(consumer: Consumer) -> ConsumerState:
    counts = len(consumer.taken), len(consumer.waiting), len(consumer.aside)
    times = consumer.born, consumer.created_ns, consumer.last_ns
    return ConsumerState(consumer.name, consumer.peer, consumer.kind, *consumer.high, *counts, *times)


Handler = Callable[[Consuming, Channel, Any], None]

REQUESTS: dict[type[Any], Handler] = {
    Begin: Consuming.begin,
    Receive: Consuming.receive,
    ListConsumers: Consuming.list_consumers,
    ListUnsettled: Consuming.list_unsettled,
    RetryAside: Consuming.retry,
    RemoveConsumer: Consuming.remove,
}


def _answering(handle: Handler) -> Handler:
    """A request that is refused says why."""

    def run(me: Consuming, channel: Channel, frame: Any) -> None:
        try:
            handle(me, channel, frame)
        except MsgdError as error:
            channel.say(Refused(frame.token, error.name, error.message, error.hint))

    return run


HANDLERS: dict[type[Any], Handler] = {
    **{kind: _answering(handle) for kind, handle in REQUESTS.items()},
    Leave: Consuming.leave,
}
