"""What the log process and the others say to each other; `TABLE` is the literal table for `pipe.Pipe`.

Every process that is not the log process has one channel to it. A `token` comes back in the answer.
A request that changes the log is answered after the commit, never before.

supervisor  says  Introduce Ping Plan Settings Reloaded Stop
            hears Pong Peers DialNow DialFailed ReloadAsked Chain Rotated Admitted CastsChanged
control     says  Submit Watch PutPeer Cancel Nudge Snapshot Reload
                  Act Requests Decide Invite PutJoin Rotate PutRecovered AskNeeded Vacuum
                  Release Export Unreceipted OpenParcel BeginEpoch PutCarried PutPosition
                  Spread CastsChanged
            hears Submitted Duplicates Wake Done Refused State Reloaded
                  RequestList Invited TrustChanged Needed Released Exported Batches ParcelOpened
                  Moved Placed
            as whoever receives for a consumer: see `wire.consuming`
link        says  MayDial TakeHello Opened HeadAt OpenEpoch Proven FirstUnreceipted Ready
                  Batch Receipt Clocks DialFailed Tell KeyFound FileRequest TheirVerdict JoinDone
            hears Granted Taken Denied HeadIs EpochOpened UnreceiptedFrom Done
                  Send Committed Full Cut MayPair MayJoin OurVerdict
index       says  Watch Indexed Vacuum
            hears Wake Needed
"""

from msgd.wire import consuming
from msgd.wire.frame import DirectionState, EpochEnds, Frame
from msgd.wire.groups import CastsChanged, Placed, Spread
from msgd.wire.keeping import AskNeeded, Needed, Vacuum
from msgd.wire.parcel import (
    Batches,
    BeginEpoch,
    Export,
    Exported,
    Moved,
    OpenParcel,
    ParcelOpened,
    PutCarried,
    PutPosition,
    Release,
    Released,
    Unreceipted,
)
from msgd.wire.trust import (
    Act,
    Admitted,
    Chain,
    Decide,
    FileRequest,
    Invite,
    Invited,
    JoinDone,
    KeyFound,
    MayJoin,
    MayPair,
    OurVerdict,
    PutJoin,
    PutRecovered,
    RequestList,
    Requests,
    Rotate,
    Rotated,
    TheirVerdict,
    TrustChanged,
)

# --- supervisor ---------------------------------------------------------------------------------------


class Introduce(Frame):
    """A new channel: its socket travels with this frame (SCM_RIGHTS). `kind`: control, link or index.

    `identity`: whose key the process holds. A link worker that was forked with a former key of this node is
    told to end.
    """

    kind: str
    pid: int
    identity: bytes


class Ping(Frame):
    """Are you at work? Asked before the watchdog is fed."""

    token: int


class Pong(Frame):
    """At work; with what STATUS= tells."""

    token: int
    connected: int
    queued: int
    held: int
    index: str = ""  # what is worth telling of the index


class KnownPeer(Frame):
    """What the supervisor must know to dial a peer.

    With `identity` empty whoever answers is met; for `pair` MayDial decides.
    """

    number: int
    name: str
    address: str
    identity: bytes
    linked: bool
    waiting: bool  # messages wait for it
    removed: bool
    link_pid: int  # the worker of the standing link, 0 none
    want: str = "link"  # what a dial is for: link, pair, join; empty: it is not dialled
    others: list[str] = []  # more addresses to try, of an invitation


class Peers(Frame):
    """Peers as they now are: all at start, then those that changed."""

    peers: list[KnownPeer]


class DialNow(Frame):
    """A message waits, or a person asked: dial this peer without waiting for the backoff."""

    peer: int
    eager: bool  # a person asked: even when the peer was not seen lately


class Plan(Frame):
    """When this peer is dialled next (CLOCK_MONOTONIC ns, 0: not planned) and why the last try failed."""

    peer: int
    next_mono_ns: int
    reason: str


class DialFailed(Frame):
    """A link worker on its way to its end: why there is no link, and what follows (peer's refusals)."""

    peer: int
    reason: str
    retry_s: float  # 0: ordinary backoff; below 0: not before a person asks
    code: str = ""  # of the peer's refusal, where there was one
    detail: str = ""  # of that refusal
    is_linked: bool = False  # a link ever stood, says the log process on the way to the supervisor
    began_mono_ns: int = 0  # when it began; 0: no failure, another connection goes on


class Settings(Frame):
    """Settings that a reload may change."""

    log_level: str

    window_bytes: int
    window_batches: int
    segment_bytes: int
    hold_s: float = 86400.0  # [pairing]
    trust: str = "confirm"  # the same
    keep_time: str = ""  # [history]; empty: no limit
    keep_size: str = ""  # the same


class ReloadAsked(Frame):
    """A control client asks for a reload."""

    token: int


class Reloaded(Frame):
    """The reload is done, or refused with a sentence."""

    token: int
    error: str = ""


class Stop(Frame):
    """Commit what is there, say goodbye, end."""


# --- control ------------------------------------------------------------------------------------------


class Submit(Frame):
    """Messages for a peer; the payload travels verbatim behind. `ids`: 16 bytes each, in order."""

    token: int
    peer: int
    count: int
    ids: bytes
    ttl_ns: int  # 0: never expires
    generation: int  # of the peers that the sender knows
    user: str = ""  # who sends
    gone: list[bytes] = []  # ids that Duplicates named, of messages that are not kept any more
    gone_upto: int = 0  # as far as this log offset
    has_reports: bool = False  # among the messages (`wire.reports`)


class Submitted(Frame):
    """Durable here. `offset` is the record; `first_seq` is 0 while it waits without a seq."""

    token: int
    offset: int
    first_seq: int
    wall_ns: int


class Duplicates(Frame):
    """These ids are in the log already; nothing of the call was kept."""

    token: int
    ids: list[bytes]


class Refused(Frame):
    """Not done, nothing kept. `name` is an error of `msgd.errors`, or `Stale`: ask who is a peer first."""

    token: int
    name: str
    message: str
    hint: str = ""


class Done(Frame):
    """Done, and committed where it changes the log."""

    token: int
    changed: bool = True
    value: int = 0


class Watch(Frame):
    """Wake me for every record of this peer; 0: once, when something is committed beyond `since`."""

    peer: int
    since: int = 0


class Wake(Frame):
    """A record of a watched peer was committed; or, with kind 0, something was, up to `offset`."""

    offset: int
    kind: int = 0
    peer: int = 0
    direction: int = 0
    first_seq: int = 0
    aux: int = 0
    has_reports: bool = False  # among its messages


class PutPeer(Frame):
    """Add, hold for, rename, block, unblock or remove a peer; note that it gave back what was lost here.

    Answered by Done, `value` is the peer's number; of remove and block it is how many messages ended.
    Empty fields stay as they are.
    """

    token: int
    action: str  # add hold rename block unblock remove recovered imported
    user: str
    number: int = 0
    identity: bytes = b""
    name: str = ""
    address: str = ""
    detail: str = ""  # recovered, imported: how much


class Cancel(Frame):
    """End the message at this place before it leaves."""

    token: int
    offset: int
    index: int
    user: str


class Nudge(Frame):
    """Try this peer now."""

    token: int
    peer: int


class Snapshot(Frame):
    """How does everything stand, or this one peer?"""

    token: int
    peer: int = 0


class Break(Frame):
    """Both ends of a direction did not hold the same: it began anew. `at_ns` is CLOCK_REALTIME."""

    at_ns: int
    direction: int
    base: int
    sender_last: int
    receiver_last: int


class PeerState(Frame):
    """One peer as `status` shows it; times are CLOCK_REALTIME ns, 0 for never."""

    number: int
    identity: bytes
    name: str
    address: str
    removed: bool
    connected: bool
    since_ns: int
    reason: str
    next_mono_ns: int
    queued: int
    unreceipted: int
    sent: int
    received: int
    seen_ns: int
    offset_ns: int
    round_trip_ns: int  # 0: not measured yet
    pinned: bool = True  # a person here accepted this identity
    blocked: bool = False
    hold: str = ""  # why what waits is `held`: unpaired key-changed forgotten blocked; empty: it flows
    hold_detail: str = ""  # a sentence about it, for people
    changed: bytes = b""  # the identity that answered instead of the pinned one
    retired: list[bytes] = []  # its former identities
    paired_ns: int = 0  # CLOCK_REALTIME when it was pinned
    how: str = ""  # it was pinned by: key, words, invitation, rotation, rekey
    aliases: list[int] = []  # numbers of addresses whose held messages became this peer's
    into: int = 0  # of such an address: whose they became
    held: int = 0  # messages that wait without a seq while `hold` says why
    breaks: list[Break] = []  # the last time that both logs differed, per direction
    is_cloned: bool = False  # two live nodes use its key
    is_joining: bool = False  # its invitation is accepted here, and not yet redeemed there
    tried_mono_ns: int = 0  # when the last dial began that failed; 0: none did
    exported: int = 0  # up to this seq a parcel has what was released
    open_from: int = 0  # log offset before which every message to it is final

    def has_failed_since(self, now_s: float) -> bool:
        """Whether a dial that began after this moment (CLOCK_MONOTONIC) has failed."""
        return self.tried_mono_ns >= now_s * 1e9


class State(Frame):
    """The answer to Snapshot."""

    token: int
    log_id: bytes
    generation: int  # counts changes of who is a peer
    peers: list[PeerState]
    indexed: int
    full: bool
    is_cloned: bool = False  # a peer says that another live node uses this node's key
    index_is_new: bool = False  # as in Indexed
    index_done: float = 1.0


class Reload(Frame):
    """Ask the supervisor to reload; answered by Reloaded."""

    token: int


# --- link ---------------------------------------------------------------------------------------------


class MayDial(Frame):
    """A dialling worker asks before its hello. `identity` is what TLS has shown, and `spki` its key.

    `chain`: where another key than the pinned one answers, the rotations of its greet, which the worker found
    good: they lead from the pinned identity to this one. Answered by Granted or Denied.
    """

    token: int
    peer: int
    want: str = "link"
    identity: bytes = b""
    spki: bytes = b""
    chain: list[tuple[bytes, bytes, bytes]] = []


class Granted(Frame):
    """Say hello, with this number and this state."""

    token: int
    dial: int
    out: DirectionState
    inward: DirectionState
    invitation: bytes = b""  # join: 8 bytes
    secret: bytes = b""  # join: 16 bytes


class TakeHello(Frame):
    """An acceptor's worker has a good hello from this identity.

    Answered by Taken (link, service), MayPair, MayJoin, or Denied.
    """

    token: int
    identity: bytes
    instance: bytes
    dial: int
    address: str
    want: str = "link"
    name: str = ""  # that it proposes for itself
    port: int = 0  # pair, join: where it listens
    chain: list[tuple[bytes, bytes, bytes]] = []  # rotations: old SPKI, signatures by the old and new key
    spki: bytes = b""
    invitation: bytes = b""
    proof: bytes = b""
    greet_hash: bytes = b""  # SHA-256 of our greet, for the proof


class Taken(Frame):
    """The link is the peer's current one now."""

    token: int
    link: int
    peer: int
    name: str
    out: DirectionState
    inward: DirectionState


class Denied(Frame):
    """No hello, or refuse it: `code` is one of the trust protocol's section 4."""

    token: int
    code: str
    detail: str = ""
    retry_s: int = 0


class Opened(Frame):
    """The dialler got its welcome: `instance` is the acceptor's start. Answered by Taken or Denied."""

    token: int
    peer: int
    instance: bytes


class HeadAt(Frame):
    """What is the head of this direction (1 out, 2 in) at this seq? Answered by HeadIs."""

    token: int
    direction: int
    seq: int


class HeadIs(Frame):
    """The head, or empty where no batch ends at that seq or it is not kept."""

    token: int
    head: bytes


class OpenEpoch(Frame):
    """Begin a new epoch in a direction; empty `epoch`: make one. Committed on both sides.

    `receiver_epoch`, where this node sends: in which one the receiver is. If the present one was begun from
    the same ends and the receiver has not taken it yet, that is the answer.
    """

    token: int
    direction: int
    epoch: bytes
    base: int
    sender_last: int
    sender_head: bytes
    receiver_last: int
    receiver_head: bytes
    receiver_epoch: bytes = b""


class EpochOpened(Frame):
    """Committed: the epoch, and how it began."""

    token: int
    ends: EpochEnds


class Proven(Frame):
    """The peer holds everything of ours up to `seq`, as its head proves: as good as a receipt."""

    token: int
    seq: int


class FirstUnreceipted(Frame):
    """From which seq on does the log process send by itself? Answered by UnreceiptedFrom."""

    token: int


class UnreceiptedFrom(Frame):
    """Older ones are the worker's to find."""

    token: int
    seq: int


class Tell(Frame):
    """Write this event for me: a worker that writes none itself needs a third of a MiB less."""

    name: str
    fields: dict[str, str]


class Ready(Frame):
    """Both directions agree: send from the batch after `after_seq` on, then what waits."""

    after_seq: int
    window_bytes: int
    window_batches: int


class Send(Frame):
    """Send this batch: the record at `offset`, `length` bytes whole. A small one's payload travels behind."""

    offset: int
    length: int
    first_seq: int
    count: int
    head: bytes


class Batch(Frame):
    """A batch has arrived; its payload travels behind."""

    first_seq: int
    count: int
    head: bytes
    has_reports: bool = False  # among the messages (`wire.reports`)


class Committed(Frame):
    """Everything up to `seq` of the inward direction is on this disk."""

    seq: int
    head: bytes
    wall_ns: int
    boot_ns: int


class Full(Frame):
    """The log cannot take the batch now; offer it again in a second."""

    first_seq: int


class Receipt(Frame):
    """The peer's receipt: everything up to `seq` is on its disk."""

    seq: int
    head: bytes
    wall_ns: int
    boot_ns: int


class Clocks(Frame):
    """One measurement of the peer's clock against ours."""

    offset_ns: int
    round_trip_ns: int


class Cut(Frame):
    """End this link: it was replaced, its peer removed, or msgd stops."""

    reason: str


# --- index --------------------------------------------------------------------------------------------


class Indexed(Frame):
    """The index holds everything before this log offset."""

    offset: int
    is_new: bool = False  # it is being filled from nothing
    done: float = 1.0  # share of what is kept of the log


TABLE: tuple[type[Frame], ...] = (
    Introduce,
    Ping,
    Pong,
    Peers,
    DialNow,
    Plan,
    DialFailed,
    Settings,
    ReloadAsked,
    Reloaded,
    Stop,
    Submit,
    Submitted,
    Duplicates,
    Refused,
    Done,
    Watch,
    Wake,
    PutPeer,
    Cancel,
    Nudge,
    Snapshot,
    State,
    Reload,
    MayDial,
    Granted,
    TakeHello,
    Taken,
    Denied,
    Opened,
    HeadAt,
    HeadIs,
    OpenEpoch,
    EpochOpened,
    Proven,
    FirstUnreceipted,
    UnreceiptedFrom,
    Tell,
    Ready,
    Send,
    Batch,
    Committed,
    Full,
    Receipt,
    Clocks,
    Cut,
    Indexed,
    Act,
    Requests,
    RequestList,
    Decide,
    Invite,
    Invited,
    PutJoin,
    JoinDone,
    Rotate,
    Rotated,
    Admitted,
    Chain,
    KeyFound,
    FileRequest,
    MayPair,
    MayJoin,
    OurVerdict,
    TheirVerdict,
    TrustChanged,
    PutRecovered,
    Release,
    Released,
    Export,
    Exported,
    Unreceipted,
    Batches,
    OpenParcel,
    ParcelOpened,
    Moved,
    BeginEpoch,
    PutCarried,
    PutPosition,
    AskNeeded,
    Needed,
    Vacuum,
    Spread,
    Placed,
    CastsChanged,
    *consuming.FRAMES,
)
