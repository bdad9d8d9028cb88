"""What a client may ask: a literal table from the control socket's methods to what they do.

Each command has the struct of its parameters, so a call is decoded and checked before anything happens, and
the verb of `[access]` that a user needs for it. Their meaning is written for clients in
`org.msgd.Control.varlink`, which the daemon serves as its own description.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from msgd import (
    __version__,
    advising,
    castcalls,
    consumers,
    filecalls,
    grouping,
    introducing,
    lag,
    model,
    reading,
    showing,
    trusting,
)
from msgd.errors import INTERFACE, TooLate, UsageError
from msgd.gathering import Gathering, SendGroupCall
from msgd.reading import IdCall, LogCall, QueueCall
from msgd.rows import Row
from msgd.sending import SendCall
from msgd.trusting import Nothing, PeerCall
from msgd.wire.ledger import Cancel, Nudge, Reload, State
from msgd.wire.varlink import SERVICE

if TYPE_CHECKING:
    from msgd.control import Control

Run = Callable[["Control", Any, bool], None]


class Command:
    """One method: how its parameters are decoded, what it does, who may call it."""

    __slots__ = ("is_send", "parse", "run", "verb")

    def __init__(self, kind: type[Any], run: Run, verb: str, *, is_send: bool = False) -> None:
        self.parse = msgspec.json.Decoder(kind).decode
        self.run = run
        self.verb = verb  # of `[access]`; any: at least one of them; empty: everybody
        self.is_send = is_send  # may be under way beside others


class VerifyCall(msgspec.Struct):
    """With whose log to compare; without a peer this node's log alone is checked."""

    peer: str | None = None


class RecoverCall(msgspec.Struct):
    """From whom."""

    peer: str


class VacuumCall(msgspec.Struct):
    """What is not to be kept: what is older, or the oldest of what is more."""

    time_ms: int | None = None
    size_bytes: int | None = None
    dry_run: bool | None = None


class ExportCall(msgspec.Struct):
    """For whom, and from which seq on."""

    peer: str
    first_seq: int | None = None


class ImportPartCall(msgspec.Struct):
    """The next bytes of a parcel, base64 in JSON."""

    data: bytes


class InterfaceCall(msgspec.Struct):
    """An interface."""

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


def _send_group(control: Control, call: SendGroupCall, more: bool) -> None:
    control.submitting.gather(Gathering(control, call, more))


def _cancel(control: Control, call: IdCall, more: bool) -> None:
    rows = control.rows_of(call.id)
    if rows[0].direction != "out":
        raise UsageError("Only a message that this node sends can be cancelled.")
    refused = [refusal for row in rows if (refusal := _cancel_one(control, row)) is not None]
    if len(refused) == len(rows):
        raise refused[0]
    history = control.history()
    first, *others = [showing.receipt(history.message_at(row.location)) for row in rows]
    control.reply({"receipt": first, "others": others or None})


def _cancel_one(control: Control, row: Row) -> TooLate | None:
    """End it at one peer; why not."""
    if row.state not in (model.QUEUED, model.HELD):
        return showing.too_late(row)
    try:
        control.ask(Cancel(control.next_token(), *row.location, control.user))
    except TooLate as error:
        return error
    return None


def _retry(control: Control, call: PeerCall, more: bool) -> None:
    peer = control.lookup(call.peer)
    if not peer.address:
        raise UsageError(
            f"{peer.name} has no address to dial.", f"msgctl peer add {peer.name} ADDRESS --key …"
        )
    if not peer.connected:
        control.ask(Nudge(control.next_token(), peer.number))
    control.reply({"next_try_s": 0.0})


# --- the daemon ---------------------------------------------------------------------------------------------


def _status(control: Control, call: Nothing, more: bool) -> None:
    state, place = control.state(), control.place
    peers = [p for p in state.peers if showing.is_shown(p)]
    paired = [p for p in peers if p.pinned]
    node = {
        "name": control.own_name,
        "identity": showing.identity_text(place.node.key.identity),
        "version": __version__,
        "listen": [str(address) for address in place.config.listen],
        "state_dir": place.config.state,
        "uptime_s": round(time.monotonic() - place.started_s, 3),
        "peers_connected": sum(p.connected for p in paired),
        "peers_known": len(paired),
        "queued": sum(p.queued for p in peers),
        "held": sum(p.held for p in peers),
        "notes": [advising.clone("this node")] if state.is_cloned else [],
        "index": _index(state, place.page.committed),
    }
    control.reply({"node": node, "peers": trusting.shown_peers(control)})


def _index(state: State, committed: int) -> dict[str, Any]:
    behind = max(0, committed - state.indexed)
    return {
        "state": lag.state(behind, state.index_is_new),
        "position": state.indexed,
        "behind_bytes": behind,
        "done": round(state.index_done, 4),
    }


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


def _verify(control: Control, call: VerifyCall, more: bool) -> None:
    from msgd import inspecting  # a twentieth of a start, and few calls need it

    inspecting.verify(control, call.peer, more)


def _recover(control: Control, call: RecoverCall, more: bool) -> None:
    from msgd import inspecting

    inspecting.recover(control, call.peer, more)


def _export(control: Control, call: ExportCall, more: bool) -> None:
    from msgd import exporting

    exporting.export(control, call.peer, call.first_seq, more)


def _import_part(control: Control, call: ImportPartCall, more: bool) -> None:
    from msgd import importing

    importing.add_part(control, call.data)


def _import(control: Control, call: Nothing, more: bool) -> None:
    from msgd import importing

    importing.take(control, more)


def _disk_usage(control: Control, call: Nothing, more: bool) -> None:
    from msgd import usage

    usage.disk_usage(control, call, more)


def _vacuum(control: Control, call: VacuumCall, more: bool) -> None:
    from msgd import clearing

    clearing.run(control, call, more)


COMMANDS: dict[str, Command] = {
    f"{INTERFACE}.Send": Command(SendCall, _send, "send", is_send=True),
    f"{INTERFACE}.SendMany": Command(SendCall, _send_many, "send", is_send=True),
    f"{INTERFACE}.SendGroup": Command(SendGroupCall, _send_group, "send", is_send=True),
    f"{INTERFACE}.Groups": Command(Nothing, grouping.groups, "any"),
    f"{INTERFACE}.Log": Command(LogCall, reading.log, "history"),
    f"{INTERFACE}.Show": Command(IdCall, reading.show, "any"),
    f"{INTERFACE}.Why": Command(IdCall, reading.why, "any"),
    f"{INTERFACE}.Queue": Command(QueueCall, reading.queue, "history"),
    f"{INTERFACE}.Cancel": Command(IdCall, _cancel, "send"),
    f"{INTERFACE}.Retry": Command(PeerCall, _retry, "send"),
    f"{INTERFACE}.Peers": Command(Nothing, trusting.peers, "any"),
    f"{INTERFACE}.PeerAdd": Command(trusting.PeerAddCall, trusting.add, "pair"),
    f"{INTERFACE}.PeerRemove": Command(PeerCall, trusting.remove, "admin"),
    f"{INTERFACE}.PeerRename": Command(trusting.PeerRenameCall, trusting.rename, "admin"),
    f"{INTERFACE}.PeerBlock": Command(PeerCall, trusting.block, "admin"),
    f"{INTERFACE}.PeerUnblock": Command(PeerCall, trusting.unblock, "admin"),
    f"{INTERFACE}.PeerRekey": Command(introducing.AskCall, introducing.rekey, "pair"),
    f"{INTERFACE}.Pairs": Command(Nothing, introducing.pairs, "pair"),
    f"{INTERFACE}.PairAsk": Command(introducing.AskCall, introducing.ask, "pair"),
    f"{INTERFACE}.PairAccept": Command(introducing.AcceptCall, introducing.accept, "pair"),
    f"{INTERFACE}.PairReject": Command(introducing.NodeCall, introducing.reject, "pair"),
    f"{INTERFACE}.PairInvite": Command(introducing.InviteCall, introducing.invite, "pair"),
    f"{INTERFACE}.PairJoin": Command(introducing.JoinCall, introducing.join, "pair"),
    f"{INTERFACE}.Identity": Command(Nothing, trusting.identity, "any"),
    f"{INTERFACE}.IdentityRotate": Command(Nothing, trusting.rotate, "admin"),
    f"{INTERFACE}.Verify": Command(VerifyCall, _verify, "history"),
    f"{INTERFACE}.Recover": Command(RecoverCall, _recover, "admin"),
    f"{INTERFACE}.Export": Command(ExportCall, _export, "admin"),
    f"{INTERFACE}.ImportPart": Command(ImportPartCall, _import_part, "admin"),
    f"{INTERFACE}.Import": Command(Nothing, _import, "admin"),
    f"{INTERFACE}.DiskUsage": Command(Nothing, _disk_usage, "any"),
    f"{INTERFACE}.Vacuum": Command(VacuumCall, _vacuum, "admin"),
    f"{INTERFACE}.FileList": Command(filecalls.ListCall, filecalls.ls, "files"),
    f"{INTERFACE}.FilePut": Command(filecalls.FerryCall, filecalls.put, "files"),
    f"{INTERFACE}.FileGet": Command(filecalls.FerryCall, filecalls.get, "files"),
    f"{INTERFACE}.FileDup": Command(filecalls.DupCall, filecalls.dup, "files"),
    f"{INTERFACE}.FileRemove": Command(filecalls.RemoveCall, filecalls.remove, "files"),
    f"{INTERFACE}.FileCast": Command(castcalls.CastCall, castcalls.cast, "files"),
    f"{INTERFACE}.FileCastBegin": Command(castcalls.BeginCall, castcalls.begin, "files"),
    f"{INTERFACE}.FileCasts": Command(castcalls.CastsCall, castcalls.casts, "files"),
    f"{INTERFACE}.FileCastCancel": Command(castcalls.CastIdCall, castcalls.cancel, "files"),
    f"{INTERFACE}.RecvBegin": Command(consumers.BeginCall, consumers.begin, "history"),
    f"{INTERFACE}.RecvNext": Command(consumers.NextCall, consumers.take_next, "history"),
    f"{INTERFACE}.RecvSettle": Command(consumers.SettleCall, consumers.settle, "history"),
    f"{INTERFACE}.Consumers": Command(Nothing, consumers.list_all, "history"),
    f"{INTERFACE}.ConsumerQueue": Command(consumers.ConsumerCall, consumers.queue, "history"),
    f"{INTERFACE}.ConsumerRetry": Command(consumers.RetryCall, consumers.retry, "history"),
    f"{INTERFACE}.ConsumerRemove": Command(consumers.ConsumerCall, consumers.remove, "history"),
    f"{INTERFACE}.Status": Command(Nothing, _status, "any"),
    f"{INTERFACE}.Reload": Command(Nothing, _reload, "admin"),
}
SERVICE_COMMANDS: dict[str, Command] = {
    f"{SERVICE}.GetInfo": Command(Nothing, _get_info, ""),
    f"{SERVICE}.GetInterfaceDescription": Command(InterfaceCall, _get_description, ""),
}
