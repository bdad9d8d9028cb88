"""A visit to a peer for a control command: the service connection, and what can go wrong with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgd.comparing import ServiceFailed
from msgd.errors import MsgdError, NotTrusted, StorageRefused, UsageError
from msgd.log.errors import Damaged
from msgd.meeting import WrongKey, visit
from msgd.peer.errors import ProtocolError
from msgd.peer.refusals import reaction
from msgd.session import MeetingFailed
from msgd.talking import Talk, TalkEnded
from msgd.wire.ledger import PeerState

if TYPE_CHECKING:
    from msgd.knowing import Knowing

VISIT_S = 20.0  # until the peer has welcomed us


class Visit:
    """A service connection to a peer, from its welcome to its end. What goes wrong becomes a MsgdError."""

    def __init__(self, control: Knowing, peer: PeerState) -> None:
        self._peer = peer
        self._talk = Talk(*self._reach(control, peer))

    def __enter__(self) -> Talk:
        return self._talk

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._talk.close()
        if isinstance(error, TalkEnded | ProtocolError | ServiceFailed):
            raise MsgdError(f"{self._peer.name} stopped answering: {error}.", "Try it again.") from error
        if isinstance(error, Damaged):
            text = f"The log is damaged: {error.segment}, log offset {error.offset}: {error.why}."
            raise StorageRefused(text, "`msgctl verify` checks all of it.") from error

    @staticmethod
    def _reach(control: Knowing, peer: PeerState) -> Any:
        addresses = addresses_of(control, peer)
        deadline_s = time.monotonic() + VISIT_S
        failed: Exception | None = None
        for address in addresses:
            try:
                return visit(control.place.node, address, peer.identity, deadline_s)
            except (MeetingFailed, OSError) as error:
                failed = failed or error
        kind = NotTrusted if is_refusal(failed) else MsgdError
        raise kind(f"{peer.name} cannot be asked: {failed}.", "`msgctl peer ls` says why, and what to do.")


def addresses_of(control: Knowing, peer: PeerState) -> list[str]:
    """Where a peer can be visited. Raises NotTrusted, UsageError."""
    if not peer.pinned or peer.removed:
        raise NotTrusted(f"{peer.name} is not paired with this node.", f"msgctl pair ask {peer.name}")
    addresses = control.addresses_of(peer)
    settings = control.place.config.peer.get(peer.name)
    if settings is not None and settings.address is not None:
        addresses.insert(0, str(settings.address))
    if not addresses:
        text = f"{peer.name} has no address here, so it cannot be asked."
        raise UsageError(text, f"Run it on {peer.name}, or `msgctl peer add` it with an address.")
    return addresses


def is_refusal(failed: Exception | None) -> bool:
    """Whether it is a matter of who may talk."""
    if isinstance(failed, MeetingFailed) and failed.code:
        return bool(reaction(failed.code).hold)
    return isinstance(failed, WrongKey)
