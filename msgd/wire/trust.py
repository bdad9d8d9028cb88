"""What the log process and the others say to each other about who may talk: requests, invitations, keys.

The frames are part of the one table in `wire.ledger`; see there who says which.
"""

from msgd.wire.frame import Frame

# --- a person's acts ----------------------------------------------------------------------------------------


class Act(Frame):
    """A person wants to be paired with this peer or address, or to accept its changed key (`rekey`).

    One act allows one exchange of words. Answered by Done at once; TrustChanged follows.
    """

    token: int
    peer: int
    user: str
    rekey: bool = False


class Requests(Frame):
    """Which requests wait for a person? Answered by RequestList."""

    token: int


class RequestState(Frame):
    """One identity that asks, or is asked, to become a peer. `words` are what both screens show."""

    identity: bytes
    name: str  # that it proposes
    address: str
    words: list[str]
    is_ours: bool  # this node has asked
    filed_boot_ns: int
    expires_boot_ns: int
    peer: int  # number of the peer or held address that it is about, 0 none yet
    conflict: str  # name of the peer that has this name with another identity, empty none
    rekey: bool  # accepting replaces the key of `peer`
    theirs: str  # "", "accepted" or "rejected": what the other side's person has said
    places: list[int] = []  # numbers of the held addresses at which this identity answers


class RequestList(Frame):
    """The answer to Requests, oldest first."""

    token: int
    requests: list[RequestState]


class Decide(Frame):
    """A person's yes or no to a request. Answered by Done (value: the peer's number) or Refused.

    `words` are those that the person saw, separated by spaces: with others the request is refused.
    """

    token: int
    identity: bytes
    words: str
    accept: bool
    user: str
    name: str = ""  # what to call it here; empty: what it proposes


class Invite(Frame):
    """Make an invitation. Answered by Invited, after the commit."""

    token: int
    user: str
    ttl_ns: int


class Invited(Frame):
    """An invitation: 8 bytes of id, 16 of secret, and when it expires (Unix seconds, for show)."""

    token: int
    invitation: bytes
    secret: bytes
    expires_s: int


class PutJoin(Frame):
    """Accept an invitation: pins the identity in it and dials. Answered by Done (value: number)."""

    token: int
    user: str
    identity: bytes
    invitation: bytes
    secret: bytes
    expires_s: int
    addresses: list[str]
    name: str = ""  # what to call it here; empty: what it proposes


class Rotate(Frame):
    """Give this node a new key, signed by the old one. Answered by Done or Refused."""

    token: int
    user: str


class PutRecovered(Frame):
    """A batch of this node's own half of a pair, got back from the peer; its payload travels behind.

    With `count` 0 it is the beginning of an epoch: `first_seq` is its base, the payload an EpochChange.
    Answered by Done after the commit, or by Refused, also while another process recovers from this peer.
    """

    token: int
    peer: int
    direction: int
    first_seq: int
    count: int
    head: bytes
    wall_ns: int = 0  # the peer's clock when it stored what we had sent
    has_reports: bool = False  # among the messages (`wire.reports`)


class TrustChanged(Frame):
    """Something about this watched peer is new: a request, a verdict, a failed try. Look again."""

    peer: int


# --- the supervisor -----------------------------------------------------------------------------------------


class Chain(Frame):
    """The rotations of this node's key, oldest first, for greets and hellos."""

    rotations: list[tuple[bytes, bytes, bytes]]


class Rotated(Frame):
    """The node's key on disk is another one now: load it, and dial all peers anew."""


class Admitted(Frame):
    """This worker's connection has shown who it is and stays without being a link: it counts no longer
    among the strangers. `want` is pair (it waits for verdicts) or service.
    """

    pid: int
    want: str


# --- link workers -------------------------------------------------------------------------------------------


class KeyFound(Frame):
    """A dial found another key than the pinned one."""

    peer: int
    identity: bytes


class MayPair(Frame):
    """Exchange words with it. `is_pinned`: it is a peer here already, so our verdict is yes."""

    token: int
    is_pinned: bool
    peer: int


class MayJoin(Frame):
    """The invitation is redeemed, and committed: say joined."""

    token: int
    peer: int


class FileRequest(Frame):
    """The words of an exchange are known: keep the request. The acceptor asks before it reveals.

    Answered by Done or Denied.
    """

    token: int
    identity: bytes
    name: str
    address: str
    words: list[str]
    transcript: bytes  # SHA-256 of T
    is_ours: bool  # we dialled
    peer: int  # number, 0 unknown


class OurVerdict(Frame):
    """The person here has decided: tell the other side."""

    accept: bool


class TheirVerdict(Frame):
    """The person there has decided."""

    accept: bool


class JoinDone(Frame):
    """The inviter has taken us. Answered by Done."""

    token: int
    peer: int
    name: str  # that it proposes
