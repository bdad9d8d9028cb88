"""What a control worker knows, and whom it asks: the log process for how things stand, the log itself."""

import os
import select
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgd import errors, journal
from msgd.access import ANY, Credentials, check, may
from msgd.config import Config
from msgd.errors import MsgdError
from msgd.finding import find_peer, find_rows, numbered, owner
from msgd.history import History
from msgd.log.errors import Damaged
from msgd.log.index import Location
from msgd.log.page import SharedPage
from msgd.log.reader import Reader
from msgd.node import Node
from msgd.rows import Row
from msgd.sending import check_repeated
from msgd.wire.codec import Message
from msgd.wire.consuming import Freed
from msgd.wire.frame import Frame
from msgd.wire.ledger import TABLE, Done, PeerState, PutPeer, Refused, Snapshot, State
from msgd.wire.pipe import Pipe
from msgd.wire.reports import has_reports
from msgd.wire.trust import Requests, RequestState


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


class Stale(MsgdError):
    """It has changed who is a peer since it was asked: ask anew."""


class Knowing(ABC):
    """One client's view of this node. `Control` serves the client with it."""

    def __init__(self, channel: socket.socket, place: Place, who: Credentials) -> None:
        self.pipe = Pipe(channel, TABLE)
        self.place = place
        self.who = who
        self.user = who.user
        self.own_name = place.node.name
        self.is_known_only = place.config.pairing.trust == "known-only"
        self.damage: list[str] = []  # met by the present query
        self.holds: dict[int, str] = {}  # by number, why what waits for a peer is held; empty: it flows
        self._names: dict[int, str] = {}
        self.open_from: dict[int, int] = {}  # by number: before this log offset all messages to it are final
        self._merged: dict[int, int] = {}  # numbers of addresses -> the peer whose their messages are
        self._heard: deque[Any] = deque()  # from the log process, in its order
        self._answers: dict[int, Frame] = {}
        self.freed: set[str] = set()  # consumers of whom something was given back
        self._token = 0
        self._state: State | None = None
        self._found: dict[str, PeerState] = {}  # who was looked up in the state
        self._found_in: State | None = None
        self._ledger_poll = select.poll()
        self._ledger_poll.register(channel, select.POLLIN)

    def check_access(self, verb: str) -> None:
        """Raises PermissionRefused unless the client's user may do that."""
        check(self.who, self.place.config.access, verb)

    def check_reports(self, messages: Sequence[Message]) -> bool:
        """Whether there are reports among these, the word of a consumer: for whose user may be one.

        Raises PermissionRefused.
        """
        if not has_reports(messages):
            return False
        self.check_access("history")
        return True

    def may(self, verb: str = ANY) -> bool:
        """Whether the client's user may do that."""
        return may(self.who, self.place.config.access, verb)

    # --- peers ------------------------------------------------------------------------------------------

    def state(self, *, fresh: bool = True) -> State:
        """How everything stands; not `fresh`: who is a peer, as last heard."""
        if fresh or self._state is None:
            self._state = self.ask(Snapshot(self.next_token()))
        return self._state

    def lookup(self, who: str, *, removed: bool = False) -> PeerState:
        """The peer that a person means. Raises UnknownPeer, NotTrusted."""
        if removed:
            return find_peer(self.state().peers, who, removed=True)
        try:
            return self._lookup(who)
        except (errors.UnknownPeer, errors.NotTrusted):
            self.state()  # it may have become a peer since we asked who is one
            return self._lookup(who)

    def _lookup(self, who: str) -> PeerState:
        state = self.state(fresh=False)
        if self._found_in is not state:
            self._found_in, self._found = state, {}
        if who not in self._found:
            self._found[who] = find_peer(state.peers, who)
        return self._found[who]

    def peer_state(self, number: int) -> PeerState:
        """How this peer stands now; of an address whose messages became a peer's: that peer."""
        while True:
            state: State = self.ask(Snapshot(self.next_token(), number))
            peer = state.peers[0]
            if not peer.into:
                return peer
            number = peer.into

    def put_peer(self, action: str, **fields: Any) -> PeerState:
        """Have a person's wish about a peer committed; the peer as it stands then."""
        done: Done = self.ask(PutPeer(self.next_token(), action, self.user, **fields))
        return numbered(self.state().peers, done.value)

    def requests(self) -> list[RequestState]:
        """The requests that wait for a person, oldest first."""
        found: list[RequestState] = self.ask(Requests(self.next_token())).requests
        return found

    def request_of(self, number: int) -> RequestState | None:
        """The newest request about this peer or address."""
        return self.asked_by_peer().get(number)

    def asked_by_peer(self) -> dict[int, RequestState]:
        """The newest request about each peer or address that has one."""
        return {n: asked for asked in self.requests() for n in (*asked.places, asked.peer) if n}

    def addresses_of(self, peer: PeerState) -> list[str]:
        """Where this peer is or was reached."""
        others = [p.address for p in self.state(fresh=False).peers if p.number in peer.aliases]
        return [address for address in (peer.address, *others) if address]

    # --- messages ---------------------------------------------------------------------------------------

    def history(self) -> History:
        """Queries over the log as it is now."""
        self.look_at_peers()
        self.damage.clear()
        return History(
            self.place.reader,
            lambda: self.place.page.committed,
            os.path.join(self.place.config.state, "index.sqlite"),
            own_name=self.own_name,
            peer_name=self.name_of,
            held_reason=lambda number: self.holds.get(number) or None,
            merged=self._merged,
            open_from=lambda number: self.open_from.get(number, 0),
            on_damage=self.note_damage,
        )

    def name_of(self, number: int) -> str:
        """What a peer is called, as `look_at_peers` has seen it."""
        return self._names.get(number, f"peer {number}")

    def look_at_peers(self) -> None:
        """Have the histories of this client tell peers as they are now."""
        peers = self.state().peers
        self._names = {p.number: owner(peers, p).name for p in peers}
        self.holds = {p.number: owner(peers, p).hold for p in peers}
        self.open_from = {p.number: p.open_from for p in peers}
        self._merged.clear()
        self._merged.update({p.number: p.into for p in peers if p.into})

    def rows_of(self, text: str) -> list[Row]:
        """The message that a person means: to a group a row for each member. Raises UnknownMessage."""
        return find_rows(self.history(), text)

    def check_same(self, messages: list[Message], number: int) -> None:
        """These ids are in the log: the same messages, or a refusal. Raises UsageError."""
        history = self.history()
        peers = self.state(fresh=False).peers
        for message in messages:
            known = history.message_at(self._place_of(message.id))
            to = owner(peers, numbered(peers, known.peer_number)).number
            given = (message.headers, (message.body, number))
            check_repeated(message.id, (known.headers, (known.body, to)), given)

    def is_kept(self, raw_id: bytes) -> bool:
        """Whether a message with this id is in the log."""
        return bool(self.history().find(raw_id.hex(), 1))

    def row_of(self, raw_id: bytes) -> Row:
        """A message that is in the log."""
        return self.history().message_at(self._place_of(raw_id))

    def _place_of(self, raw_id: bytes) -> Location:
        found = self.history().find(raw_id.hex(), 1)
        if not found:
            text = f"The message {raw_id.hex()} is known, but cannot be found."
            raise errors.MsgdError(text, "Repeat the call; if it comes again, `msgctl verify` may say why.")
        return found[0]

    def note_damage(self, damaged: Damaged) -> None:
        """A place of the log cannot be read: for the answer, and for the operator."""
        self.state()  # a log process that has ended is no damage, though the next one moves the last append
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
            raise lost() from error

    def ask(self, frame: Any, payload: bytes | memoryview = b"") -> Any:
        """Say something and wait for the answer. Raises the error that the log process names."""
        self.tell(frame, payload)
        return self.answer(frame.token)

    def answer(self, token: int) -> Any:
        """Wait for the answer to what was told with this token. Raises the error that it names."""
        while token not in self._answers:
            if not self._heard:
                self._ledger_poll.poll()
            self.hear_ledger()
        answer = self._answers.pop(token)
        if isinstance(answer, Refused):
            raise error_of(answer)
        return answer

    def hear_ledger(self) -> None:
        """Take in what the log process says, in its order, also where handling one frame asks for another."""
        frames = self.pipe.receive()
        if frames is None:
            self.ledger_gone()
            raise ClientGone
        self._heard.extend(frame for frame, _ in frames)
        while self._heard:
            frame = self._heard.popleft()
            if isinstance(frame, Freed):
                self.freed.add(frame.name)
            elif not self.take_in(frame):
                self._answers[frame.token] = frame

    @abstractmethod
    def take_in(self, frame: Any) -> bool:
        """Whether a frame was no answer to `ask`, and is dealt with."""

    @abstractmethod
    def wait(self, timeout_s: float | None) -> None:
        """Until the log process says something, for so long at most. Raises what ends the waiting."""

    @abstractmethod
    def ledger_gone(self) -> None:
        """The log process is gone."""


def lost() -> MsgdError:
    """What a client hears whose request the log process has not answered."""
    return errors.Uncertain(
        "The daemon's log process ended before it answered: unknown whether the message was kept.",
        "Ask for the same id with `msgctl show ID`, or send again with the same id.",
    )


def error_of(refused: Refused) -> MsgdError:
    """The error that the log process names."""
    if refused.name == "Stale":
        return Stale(refused.message)
    return errors.BY_NAME.get(refused.name, MsgdError)(refused.message, refused.hint)
