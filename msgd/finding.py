"""Which peer and which message a person means."""

import ipaddress

from msgd import model
from msgd.errors import NotTrusted, UnknownMessage, UnknownPeer, UsageError
from msgd.history import History
from msgd.rows import Filter, Row
from msgd.trust.identity import parse_identity
from msgd.wire.ledger import PeerState

IDENTITY_LETTERS = 56
WHOLE_ID = 32  # digits


def find_peer(peers: list[PeerState], who: str, *, removed: bool = False) -> PeerState:
    """The peer that a person means: by name, address, or identity.

    Of an address whose messages became a peer's it is that peer. `removed`: also one that was a peer.
    Raises UnknownPeer, NotTrusted, UsageError.
    """
    live = [p for p in peers if removed or not p.removed]
    live.sort(key=lambda p: (p.removed, not p.pinned))
    found = _by_name(live, who) or _by_address(live, who) or _by_identity(live, who)
    if found is not None:
        return owner(peers, found)
    if looks_like_address(who):
        raise NotTrusted(
            f"{who} is not paired with this node: nothing was sent to it, nothing is kept.",
            f"msgctl pair ask {who}",
        )
    if who.startswith("@"):
        raise UsageError(
            f"{who} is a group; here one peer is meant.",
            "A group takes messages (`msgctl send`) and files (`msgctl file cast`).",
        )
    names = ", ".join(p.name for p in live if p.pinned) or "none yet"
    raise UnknownPeer(
        f"No peer is called {who!r} (peers: {names}).",
        "For one that is not paired yet: `msgctl send ADDRESS TEXT`, or `msgctl pair join INVITATION`.",
    )


def owner(peers: list[PeerState], peer: PeerState) -> PeerState:
    """The peer itself, or the one whose its messages became."""
    while peer.into:
        peer = numbered(peers, peer.into)
    return peer


def numbered(peers: list[PeerState], number: int) -> PeerState:
    """The peer with this local number, of which there is one."""
    return next(p for p in peers if p.number == number)


def _by_name(live: list[PeerState], who: str) -> PeerState | None:
    return next((p for p in live if p.name == who), None)


def _by_address(live: list[PeerState], who: str) -> PeerState | None:
    """The whole address counts first, then the host alone."""
    try:
        whole = parse_address(who)
    except UsageError:
        return None
    exact = next((p for p in live if p.address == whole), None)
    host = who.strip("[]").lower()
    return exact or next((p for p in live if p.address.rpartition(":")[0].strip("[]") == host), None)


def _by_identity(live: list[PeerState], who: str) -> PeerState | None:
    if len(who) < IDENTITY_LETTERS:
        return None
    identity = parse_identity(who)
    return next((p for p in live if p.identity == identity or identity in p.retired), None)


def looks_like_address(text: str) -> bool:
    """Whether a person means an address: an IP, a host name with a dot, or either with a port."""
    try:
        parse_address(text)
    except UsageError:
        return False
    return "." in text or ":" in text


def parse_address(text: str) -> str:
    """`host:port` out of what a person typed: an IPv4 or IPv6 address or a host name, the port optional.

    Raises UsageError.
    """
    host, port = text, str(model.DEFAULT_PORT)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, port = text.split(":")
    if not port.isdecimal() or not 0 < int(port) < 65536 or not host:
        raise _no_address(text)
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        if not all(_is_label(label) for label in labels) or labels[-1].isdecimal():
            raise _no_address(text) from None
        return f"{host.lower()}:{int(port)}"
    return f"[{ip}]:{int(port)}" if ip.version == 6 else f"{ip}:{int(port)}"


def _is_label(text: str) -> bool:
    return bool(text) and text[0] != "-" and all(c.isalnum() or c in "-_" for c in text)


def _no_address(text: str) -> UsageError:
    return UsageError(f"{text!r} is not an address: expected HOST or HOST:PORT.")


def find_rows(history: History, text: str) -> list[Row]:
    """The one message whose id is or begins with `text`: of one to a group a row for each member, in the
    log's order. Raises UnknownMessage, UsageError.
    """
    prefix = model.id_prefix(text)
    if prefix is None:
        raise UsageError(
            f"{text!r} is no id: expected 4 or more hexadecimal digits.", "See `msgctl log -o json`."
        )
    found = history.find(prefix, 3)
    if not found:
        raise _unknown(history, text)
    first = history.message_at(found[0])
    if len(found) == 1:
        return [first]
    rows = [row for part in history.query(Filter(id=first.id.hex())) for row in part]
    if len(prefix) < WHOLE_ID and len(history.find(prefix, len(rows) + 1)) > len(rows):
        raise UnknownMessage(f"Several messages have an id that begins with {text}.", "Give more of it.")
    return rows


def _unknown(history: History, text: str) -> UnknownMessage:
    """Nobody knows which ids there were in what is not kept any more."""
    unknown = f"No message has an id that begins with {text}"
    if not history.has_gaps:
        return UnknownMessage(f"{unknown}.", "See `msgctl log`.")
    hint = "`msgctl log --kind control` says what was vacuumed, and who did."
    return UnknownMessage(f"{unknown}; or it is not kept any more.", hint)
