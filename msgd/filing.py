"""Commands about the stores of files: list, copy and remove. `ferrying` has those that carry content.

A store is a peer's or this node's own. What is done in a peer's is told it by a message of kind `file`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgd.errors import Uncertain
from msgd.knowing import ClientGone
from msgd.noting import Note, submit_notes
from msgd.shipping import Remote, local_store
from msgd.trust.identity import identity_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from msgd.control import Control
    from msgd.filecalls import DupCall, ListCall, RemoveCall
    from msgd.shipping import Entry, Local, Outcome
    from msgd.wire.ledger import PeerState

PATIENCE_MS = 30_000  # how long a peer may be away, and how long nothing may move
PAGE = 256  # entries in one reply
OWN = 0  # in the place of a peer's number: this node's own store

# --- whose store --------------------------------------------------------------------------------------------


def whose(control: Control, who: str | None) -> PeerState | None:
    """The peer that is meant; None: this node. Raises UnknownPeer, NotTrusted."""
    own = (control.own_name, identity_text(control.place.node.key.identity))
    return None if who is None or who in own else control.lookup(who)


def store_of(control: Control, peer: PeerState | None, timeout_ms: int | None) -> Local | Remote:
    """Its store; it stays open for the client's next calls. Raises StorageRefused, NotTrusted."""
    number = OWN if peer is None else peer.number
    patience_ms = PATIENCE_MS if timeout_ms is None else timeout_ms
    kept = control.stores.get(number)
    if kept is None or kept[0] != patience_ms:
        forget(control, peer)
        store = (
            local_store(control.place.config) if peer is None else Remote(control, peer, patience_ms / 1000)
        )
        kept = control.stores[number] = (patience_ms, store)
    return kept[1]


def forget(control: Control, peer: PeerState | None) -> None:
    """Close this store, if it is open."""
    kept = control.stores.pop(OWN if peer is None else peer.number, None)
    if kept is not None:
        kept[1].close()


# --- what changes no content --------------------------------------------------------------------------------


def ls(control: Control, call: ListCall, more: bool) -> None:
    """The names in a store: many replies where the client takes them."""
    store = store_of(control, whose(control, call.peer), call.timeout_ms)
    page: list[dict[str, Any]] = []
    for entry in store.ls(call.pattern or "", bool(call.recursive)):
        if more and len(page) == PAGE:
            control.reply({"entries": page}, continues=True)
            page = []
        page.append(_shown(entry))
    control.reply({"entries": page})


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "directory": entry.is_directory,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "executable": entry.executable,
        "sha256": entry.sha256 or None,
    }


def dup(control: Control, call: DupCall, more: bool) -> None:
    """A copy within a store."""
    peer = whose(control, call.peer)
    store = store_of(control, peer, call.timeout_ms)
    done = store.dup(call.name, call.new, watching(control, more))
    if done.error is not None:
        raise done.error
    note = Note("dup", call.new, done.size, done.sha256, call.name)
    file = result(0, done, told(control, peer, call.transfer, note))
    control.reply({"file": {**file, "mtime_ns": None, "executable": None}})  # those of the one copied


def remove(control: Control, call: RemoveCall, more: bool) -> None:
    """No more of a file, or of a tree."""
    peer = whose(control, call.peer)
    removed = store_of(control, peer, call.timeout_ms).rm(call.name, bool(call.recursive))
    try:
        message = told(control, peer, call.transfer, Note("rm", call.name))
    except (Uncertain, ClientGone) as error:  # who asks the log process hears of its end in both ways
        assert peer is not None
        raise _untold(removed, peer) from error
    control.reply({"removed": removed, "message": message})


def _untold(removed: int, peer: PeerState) -> Uncertain:
    what = "1 file was" if removed == 1 else f"{removed} files were"
    return Uncertain(
        f"{what} removed at {peer.name}; only whether the message that tells of it was kept is not known.",
        "`msgctl log --kind file` shows it.",
    )


def told(control: Control, peer: PeerState | None, transfer: str, note: Note) -> str | None:
    """The id of the message that tells the peer; of this node's own store nobody is told."""
    return None if peer is None else submit_notes(control, peer, transfer, [note])[0]


def watching(control: Control, more: bool) -> Callable[[str, int, int], None]:
    """How a client hears of progress."""

    def on_progress(name: str, done: int, size: int) -> None:
        control.check_client()
        if more:
            control.reply({"progress": {"name": name, "done": done, "size": size}}, continues=True)

    return on_progress


def result(index: int, outcome: Outcome, message: str | None) -> dict[str, Any]:
    """What came of the file at this place of a call."""
    error = outcome.error
    if error is not None:
        told = {"name": error.name, "message": error.message, "hint": error.hint}
        return {"index": index, "name": outcome.name, "error": told}
    return {
        "index": index,
        "name": outcome.name,
        "size": outcome.size,
        "sha256": outcome.sha256 or None,
        "mtime_ns": outcome.mtime_ns,
        "executable": outcome.executable,
        "message": message,
    }
