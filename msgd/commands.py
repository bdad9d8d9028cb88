"""What a client may ask: a literal table from the control socket's methods to what they do.

Each command has the struct of its parameters, so a call is decoded and checked before anything happens.
Their meaning is written for clients in `org.msgd.Control.varlink`, which the daemon serves as its own
description.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from msgd import __version__, model, showing
from msgd.errors import INTERFACE, NotTrusted, StorageRefused, UnknownMessage, UnknownPeer, UsageError
from msgd.history import History
from msgd.log.index import Location
from msgd.rows import Cursor, Filter
from msgd.submitting import SendCall
from msgd.trust.identity import parse_identity
from msgd.wire.ledger import Cancel, Nudge, PeerState, PutPeer, Reload
from msgd.wire.varlink import SERVICE

if TYPE_CHECKING:
    from msgd.control import Control

DIRECTIONS = {name: code for code, name in model.DIRECTIONS.items()}
KINDS = {name: code for code, name in enumerate(model.MESSAGE_KINDS)}

Run = Callable[["Control", Any, bool], None]


class Command:
    """One method: how its parameters are decoded, and what it does."""

    __slots__ = ("is_private", "is_send", "parse", "run")

    def __init__(self, kind: type[Any], run: Run, *, is_send: bool = False, is_private: bool = True) -> None:
        self.parse = msgspec.json.Decoder(kind).decode
        self.run = run
        self.is_send = is_send  # may be under way beside others
        self.is_private = is_private  # only for users who may use msgd


# --- parameters ---------------------------------------------------------------------------------------------


class Nothing(msgspec.Struct):
    """No parameters."""


class LogCall(msgspec.Struct):
    peer: str | None = None
    direction: str | None = None
    state: str | None = None
    kind: str | None = None
    id: str | None = None
    user: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    lines: int | None = None
    reverse: bool | None = None
    follow: bool | None = None
    after_cursor: str | None = None
    grep: str | None = None


class IdCall(msgspec.Struct):
    id: str


class PeerCall(msgspec.Struct):
    peer: str


class QueueCall(msgspec.Struct):
    peer: str | None = None


class PeerAddCall(msgspec.Struct):
    name: str
    key: str
    address: str | None = None


class PeerRenameCall(msgspec.Struct):
    peer: str
    name: str


class InterfaceCall(msgspec.Struct):
    interface: str


# --- messages -----------------------------------------------------------------------------------------------


def _send(control: Control, call: SendCall, more: bool) -> None:
    if call.message is None:
        raise UsageError("Send needs `message`.")
    call.messages = None
    control.submitting.begin(call, more)


def _send_many(control: Control, call: SendCall, more: bool) -> None:
    if call.key is not None:
        raise UsageError("A key is for one message: use Send.")
    call.message = None
    control.submitting.begin(call, False)


def _log(control: Control, call: LogCall, more: bool) -> None:
    """Stream what fits; with `follow` what comes later, too, until the client leaves."""
    wanted = _filter(control, call)
    history = control.history()
    upto = control.place.page.committed
    if not more:
        rows = [row for part in history.query(wanted, upto) for row in part]
        control.reply({"messages": [showing.message(row) for row in rows]})
        return
    _stream(control, history, wanted, upto)
    while call.follow:
        control.follow(upto)
        behind = Cursor(control.place.reader.log_id, (upto - 1, 0), None).text
        upto = control.place.page.committed
        wanted = msgspec.structs.replace(wanted, lines=None, reverse=False, after=behind)
        _stream(control, history, wanted, upto)
    if control.damage:
        raise StorageRefused(
            f"Part of the log could not be read: {control.damage[0]}.", "The rest was shown."
        )
    control.reply({"messages": []})


def _stream(control: Control, history: History, wanted: Filter, upto: int) -> None:
    for part in history.query(wanted, upto):
        control.reply({"messages": [showing.message(row) for row in part]}, continues=True)


def _filter(control: Control, call: LogCall) -> Filter:
    prefix = None
    if call.id is not None:
        prefix = model.id_prefix(call.id)
        if prefix is None:
            raise UsageError(
                f"{call.id!r} is not the beginning of an id: expected 4 or more hexadecimal digits."
            )
    return Filter(
        peer=None if call.peer is None else control.lookup(call.peer, removed=True).number,
        direction=_one_of(DIRECTIONS, call.direction, "direction"),
        state=call.state,
        kind=_one_of(KINDS, call.kind, "kind"),
        id=prefix,
        user=call.user,
        since_ns=call.since_ns,
        until_ns=call.until_ns,
        lines=call.lines,
        reverse=bool(call.reverse),
        after=call.after_cursor,
        grep=call.grep,
    )


def _one_of(choices: dict[str, int], text: str | None, what: str) -> int | None:
    if text is not None and text not in choices:
        raise UsageError(f"There is no {what} {text!r}.", f"Choose one of {', '.join(choices)}.")
    return None if text is None else choices[text]


def _show(control: Control, call: IdCall, more: bool) -> None:
    history = control.history()
    row = history.message_at(control.locate(call.id))
    control.reply({"message": showing.message(row)})


def _why(control: Control, call: IdCall, more: bool) -> None:
    history = control.history()
    location = control.locate(call.id)
    row = history.message_at(location)
    reason, next_try_s = control.why_waiting(row.peer_number)
    life = showing.life(control.place.reader, row, history.life(location))
    control.reply(
        {
            "message": showing.message(row),
            "life": life,
            "next": showing.next_step(row, reason, next_try_s),
        }
    )


def _queue(control: Control, call: QueueCall, more: bool) -> None:
    state = control.state()
    number = None if call.peer is None else control.lookup(call.peer).number
    for peer in state.peers:
        if not peer.removed and peer.queued and number in (None, peer.number):
            _queue_of(control, peer)
    control.reply({"messages": []})


def _queue_of(control: Control, peer: PeerState) -> None:
    """Stream what waits for one peer; a record with many messages is looked at once."""
    reason, next_try_s = showing.waiting_reason(peer)
    history = control.history()
    offset, expires_ns = -1, 0
    for wanted in (model.QUEUED, model.HELD):
        for part in history.query(Filter(peer=peer.number, direction=model.OUT, state=wanted)):
            waiting = []
            for row in part:
                if row.location[0] != offset:
                    offset = row.location[0]
                    expires_ns = showing.expiry_ns(control.place.reader, offset)
                waiting.append(showing.waiting(row, peer.name, reason, next_try_s, expires_ns))
            control.reply({"messages": waiting}, continues=True)


def _cancel(control: Control, call: IdCall, more: bool) -> None:
    history = control.history()
    location = control.locate(call.id)
    row = history.message_at(location)
    if row.direction != "out":
        raise UsageError("Only a message that this node sends can be cancelled.")
    if row.state not in (model.QUEUED, model.HELD):
        raise showing.too_late(row)
    control.ask(Cancel(control.next_token(), *location, control.user))
    row = control.history().message_at(location)
    control.reply({"receipt": showing.receipt(row)})


def _retry(control: Control, call: PeerCall, more: bool) -> None:
    peer = control.lookup(call.peer)
    if not peer.address:
        raise UsageError(
            f"{peer.name} has no address to dial.", f"msgctl peer add {peer.name} ADDRESS --key …"
        )
    if not peer.connected:
        control.ask(Nudge(control.next_token(), peer.number))
    control.reply({"next_try_s": 0.0})


# --- peers --------------------------------------------------------------------------------------------------


def _peers(control: Control, call: Nothing, more: bool) -> None:
    control.reply({"peers": _shown_peers(control)})


def _peer_add(control: Control, call: PeerAddCall, more: bool) -> None:
    identity = parse_identity(call.key)
    address = showing.parse_address(call.address) if call.address else ""
    frame = PutPeer(
        control.next_token(), "add", control.user, identity=identity, name=call.name, address=address
    )
    done = control.ask(frame)
    peer = next(p for p in control.state().peers if p.number == done.value)
    control.reply({"changed": done.changed, "peer": showing.peer(peer)})


def _peer_remove(control: Control, call: PeerCall, more: bool) -> None:
    number = control.lookup(call.peer).number
    done = control.ask(PutPeer(control.next_token(), "remove", control.user, number=number))
    control.reply({"cancelled": done.value})


def _peer_rename(control: Control, call: PeerRenameCall, more: bool) -> None:
    number = control.lookup(call.peer).number
    control.ask(PutPeer(control.next_token(), "rename", control.user, number=number, name=call.name))
    peer = next(p for p in control.state().peers if p.number == number)
    control.reply({"peer": showing.peer(peer)})


def _shown_peers(control: Control) -> list[dict[str, Any]]:
    return [showing.peer(p) for p in control.state().peers if not p.removed]


# --- the daemon ---------------------------------------------------------------------------------------------


def _status(control: Control, call: Nothing, more: bool) -> None:
    peers = [p for p in control.state().peers if not p.removed]
    place = control.place
    node = {
        "name": place.node.name,
        "identity": showing.identity_text(place.node.key.identity),
        "version": __version__,
        "listen": [str(address) for address in place.config.listen],
        "state_dir": place.config.state,
        "uptime_s": round(time.monotonic() - place.started_s, 3),
        "peers_connected": sum(p.connected for p in peers),
        "peers_known": len(peers),
        "queued": sum(p.queued for p in peers),
        "held": 0,
    }
    control.reply({"node": node, "peers": [showing.peer(p) for p in peers]})


def _reload(control: Control, call: Nothing, more: bool) -> None:
    answer = control.ask(Reload(control.next_token()))
    if answer.error:
        raise UsageError(f"Not reloaded: {answer.error}", "The old configuration stays in force.")
    control.reply({})


# --- varlink itself -----------------------------------------------------------------------------------------


def description() -> str:
    """The interface as clients may read it."""
    return files("msgd").joinpath(f"{INTERFACE}.varlink").read_text(encoding="utf-8")


SERVICE_DESCRIPTION = """\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information about the implementation.
method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
"""


def _get_info(control: Control, call: Nothing, more: bool) -> None:
    control.reply(
        {
            "vendor": "msgd",
            "product": "msgd",
            "version": __version__,
            "url": "",
            "interfaces": [SERVICE, INTERFACE],
        }
    )


def _get_description(control: Control, call: InterfaceCall, more: bool) -> None:
    if call.interface == SERVICE:
        control.reply({"description": SERVICE_DESCRIPTION})
    elif call.interface == INTERFACE:
        control.reply({"description": description()})
    else:
        control.no_interface(call.interface)


COMMANDS: dict[str, Command] = {
    f"{INTERFACE}.Send": Command(SendCall, _send, is_send=True),
    f"{INTERFACE}.SendMany": Command(SendCall, _send_many, is_send=True),
    f"{INTERFACE}.Log": Command(LogCall, _log),
    f"{INTERFACE}.Show": Command(IdCall, _show),
    f"{INTERFACE}.Why": Command(IdCall, _why),
    f"{INTERFACE}.Queue": Command(QueueCall, _queue),
    f"{INTERFACE}.Cancel": Command(IdCall, _cancel),
    f"{INTERFACE}.Retry": Command(PeerCall, _retry),
    f"{INTERFACE}.Peers": Command(Nothing, _peers),
    f"{INTERFACE}.PeerAdd": Command(PeerAddCall, _peer_add),
    f"{INTERFACE}.PeerRemove": Command(PeerCall, _peer_remove),
    f"{INTERFACE}.PeerRename": Command(PeerRenameCall, _peer_rename),
    f"{INTERFACE}.Status": Command(Nothing, _status),
    f"{INTERFACE}.Reload": Command(Nothing, _reload),
}
SERVICE_COMMANDS: dict[str, Command] = {
    f"{SERVICE}.GetInfo": Command(Nothing, _get_info, is_private=False),
    f"{SERVICE}.GetInterfaceDescription": Command(InterfaceCall, _get_description, is_private=False),
}


def lookup(peers: list[PeerState], who: str, *, removed: bool = False) -> PeerState:
    """The peer that a person means: by name, address, or identity. Raises UnknownPeer, NotTrusted."""
    live = [p for p in peers if removed or not p.removed]
    live.sort(key=lambda p: p.removed)  # one that is still a peer goes before one that was
    for peer in live:
        if who in (peer.name, peer.address, peer.address.rpartition(":")[0].strip("[]")):
            return peer
    if len(who) >= 56:
        identity = parse_identity(who)
        for peer in live:
            if peer.identity == identity:
                return peer
    if showing.looks_like_address(who):
        raise NotTrusted(
            f"{who} is not paired with this node: nothing was sent to it.",
            f"msgctl peer add NAME {who} --key IDENTITY (`msgctl status` there shows its identity)",
        )
    names = ", ".join(p.name for p in live) or "none yet"
    raise UnknownPeer(
        f"No peer is called {who!r} (peers: {names}).",
        f"msgctl peer add {who if model.is_name(who) else 'NAME'} ADDRESS --key IDENTITY",
    )


def locate(history: History, text: str) -> Location:
    """Where the one message stands whose id is or begins with `text`. Raises UnknownMessage, UsageError."""
    prefix = model.id_prefix(text)
    if prefix is None:
        raise UsageError(
            f"{text!r} is no id: expected 4 or more hexadecimal digits.", "See `msgctl log -o json`."
        )
    found = history.find(prefix, 3)
    if not found:
        raise UnknownMessage(f"No message has an id that begins with {text}.", "See `msgctl log`.")
    if len(found) > 1:
        raise UnknownMessage(f"Several messages have an id that begins with {text}.", "Give more of it.")
    return found[0]
