"""A new key for this node, signed by the old one (trust protocol, section 7).

The new key is on disk beside the old one, then the rotation is in the log, then the new key replaces the old
one; a start finishes or forgets what it finds, as the log says (`trust.nextkey`). Requests and invitations
were made for the old key: they are over. Links are dialled anew, with the rotation to show.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgd.books import Books, refused_full
from msgd.channel import Channel
from msgd.errors import Fatal, MsgdError, UsageError
from msgd.linking import KEY_ROTATED, Linking
from msgd.log.errors import StorageFull
from msgd.pairing import Pairing
from msgd.standing import PeerChange
from msgd.trust.identity import NodeKey, identity_text, load_or_create
from msgd.trust.nextkey import adopt_next, drop_next, settle_next, write_next
from msgd.trust.proof import identity_of
from msgd.trust.rotation import Rotation, chain_of, follow, make_rotation
from msgd.wire.frame import Frame
from msgd.wire.ledger import Done, Refused
from msgd.wire.trust import Chain, Rotate, Rotated

DISK_HINT = "Check the disk, then start msgd again: it finishes by itself."


class Rotating:
    """Requests about this node's own key. `say` reaches the supervisor."""

    def __init__(
        self, books: Books, links: Linking, pairing: Pairing, state_dir: str, say: Callable[[Frame], None]
    ) -> None:
        self.books = books
        self.links = links
        self.pairing = pairing
        self.state_dir = state_dir
        self.say = say

    def start(self) -> None:
        """Finish or forget a rotation that a stop interrupted, and tell the chain.

        Raises ConfigError for a key that cannot be used, Fatal for a disk that fails.
        """
        try:
            key = settle_next(self.state_dir, self._load(), self.books.delivery.own_identity)
        except OSError as error:
            raise _failed(self.state_dir, error) from error
        self.say(Chain(proven_chain(self.books.delivery.rotations, key.spki)))
        if key.identity != self.links.identity:
            self._take(key)

    def rotate(self, channel: Channel, frame: Rotate) -> None:
        """A person wants another key. Raises Fatal when the disk fails after the record."""
        try:
            old, new = self._prepare()
        except MsgdError as error:
            channel.say(Refused(frame.token, error.name, error.message, error.hint))
            return
        change = PeerChange("own rotated", new.identity, "", user=frame.user, old=old.identity)
        change.rotation = make_rotation(old, new)
        if not self._commit(change):
            channel.say(refused_full(frame.token))
            return
        try:
            adopt_next(self.state_dir)
        except OSError as error:
            raise _failed(self.state_dir, error) from error
        self.pairing.drop_all("this node has another key now")
        self.say(Chain(proven_chain(self.books.delivery.rotations, new.spki)))
        self._take(new)
        channel.say(Done(frame.token))
        self.books.event(
            "key.rotated_here",
            identity=identity_text(new.identity),
            former=identity_text(old.identity),
            user=frame.user,
        )

    def _prepare(self) -> tuple[NodeKey, NodeKey]:
        """The key in use, and the one to come, on disk. Raises MsgdError; nothing has changed then."""
        old = self._load()
        if not old.is_ours:
            raise UsageError(
                "The key comes from systemd's credentials, so msgd cannot replace it.",
                "Replace the credential, and pair anew; or let msgd keep its key in its state directory.",
            )
        if old.identity != self.links.identity:
            raise UsageError(
                f"The key in {self.state_dir} is not the one in use: somebody has replaced it.",
                "Restart msgd to take it, or put the old one back.",
            )
        new = NodeKey.generate()
        write_next(self.state_dir, new)
        return old, new

    def _commit(self, change: PeerChange) -> bool:
        """Whether the rotation is in the log; else the new key is forgotten."""
        try:
            self.books.change_node(change)
            if self.books.commit():
                return True
        except StorageFull:
            pass
        with suppress(OSError):  # else the next start does it
            drop_next(self.state_dir)
        return False

    def _take(self, key: NodeKey) -> None:
        """From now on this node is another one to its peers."""
        self.links.identity = key.identity
        self.links.arbiters.rotated(key.identity)
        self.links.cut_all(KEY_ROTATED)
        self.say(Rotated())

    def _load(self) -> NodeKey:
        return load_or_create(self.state_dir, os.environ.get("CREDENTIALS_DIRECTORY"))


def proven_chain(rotations: Sequence[Rotation], spki: bytes) -> list[Rotation]:
    """The rotations that lead to this key without a gap: a person may have put another one there."""
    newest = chain_of(rotations)
    for start, (old, _, _) in enumerate(newest):
        if follow(newest[start:], spki, {identity_of(old)}, {}).pinned:
            return newest[start:]
    return []


def _failed(state_dir: str, error: OSError) -> Fatal:
    return Fatal(f"The node's key in {state_dir} cannot be replaced: {error.strerror}.", DISK_HINT)
