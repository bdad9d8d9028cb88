"""How what the daemon knows is told on the control socket: rows, peers and lives as plain dicts."""

import base64
import time
from collections.abc import Iterable
from typing import Any

from msgd import advising, model
from msgd.errors import TooLate
from msgd.lines import rfc3339
from msgd.log.reader import Reader
from msgd.log.record import FLAG_HOLD_ENDS, Header, Kind
from msgd.rows import Row
from msgd.trust.identity import identity_text
from msgd.wire.ledger import PeerState
from msgd.wire.trust import RequestState

__all__ = ["identity_text", "rfc3339"]

EXPORTED = "exported, may already be there"


def message(row: Row) -> dict[str, Any]:
    """One message as `Log` and `Show` tell it."""
    shown: dict[str, Any] = {
        "id": model.id_text(row.id),
        "peer": row.peer,
        "direction": row.direction,
        "seq": row.seq,
        "kind": row.kind,
        "state": row.state,
        "reason": row.reason,
        "from": row.from_,
        "to": row.to,
        "user": row.user,
        "sent_at": rfc3339(row.sent_at_ns),
        "sent_at_ns": row.sent_at_ns,
        "stored_at": rfc3339(row.stored_at_ns),
        "stored_at_ns": row.stored_at_ns,
        "receipt_at": rfc3339(row.receipt_at_ns) if row.receipt_at_ns else None,
        "receipt_at_ns": row.receipt_at_ns or None,
        "headers": row.headers,
        "cursor": row.cursor,
    }
    try:
        shown["text"] = row.body.decode()
    except UnicodeDecodeError:
        shown["data"] = base64.b64encode(row.body).decode()
    return shown | _mark(row)


def _mark(row: Row) -> dict[str, Any]:
    """That a consumer has handled it, where one has."""
    if row.handled_at_ns is None:
        return {}
    at_ns, by = row.handled_at_ns, row.handled_by
    return {"handled_at": rfc3339(at_ns), "handled_at_ns": at_ns, "handled_by": by}


def receipt(row: Row) -> dict[str, Any]:
    """A message as `Send` and `Cancel` answer it."""
    return {
        "id": model.id_text(row.id),
        "peer": row.peer,
        "state": row.state,
        "reason": row.reason,
        "seq": row.seq,
        "stored_at_ns": row.stored_at_ns,
        "receipt_at_ns": row.receipt_at_ns or None,
        "queued_at_ns": row.stored_at_ns,
        "elapsed_ms": 0.0,
        "next_try_s": None,
        "duplicate": False,
        "pairing": None,
        "handled_at_ns": row.handled_at_ns,
        "handled_by": row.handled_by,
    }


def is_shown(state: PeerState) -> bool:
    """Whether a peer stands in lists: not given up, or an address for which something is held."""
    return not (state.removed or state.into) and (state.pinned or state.held > 0)


def peer(state: PeerState, asked: RequestState | None, own_name: str) -> dict[str, Any]:
    """One peer as `Status` tells it; `asked`: the request about it, where one waits."""
    reason, next_try_s = waiting_reason(state)
    measured = state.connected and state.round_trip_ns
    return {
        "name": state.name,
        "identity": identity_text(state.identity) if state.identity else "",
        "address": state.address or None,
        "state": peer_state(state),
        "reason": reason,
        "since_ns": state.since_ns,
        "queued": state.queued,
        "held": state.held,
        "unreceipted": state.unreceipted,
        "sent": state.sent,
        "received": state.received,
        "last_seen_ns": time.time_ns() if state.connected else state.seen_ns or None,
        "next_try_s": next_try_s,
        "clock_offset_ms": round(state.offset_ns / 1e6, 3) if measured else None,
        "round_trip_ms": round(state.round_trip_ns / 1e6, 3) if measured else None,
        **_trust(state, asked, own_name),
    }


def peer_state(state: PeerState) -> str:
    """What a peer is, in a word."""
    if state.removed:
        return "removed"
    if state.blocked:
        return "blocked"
    if not state.pinned:
        return "unpaired"
    return "connected" if state.connected else "away"


def _trust(state: PeerState, asked: RequestState | None, own_name: str) -> dict[str, Any]:
    """How it became a peer, what keeps it from being one, and what a person has to know."""
    notes = [advising.clone(state.name)] if state.is_cloned else []
    steps = advising.pairing(state, asked, own_name) if state.hold else {}
    return {
        "pinned": state.pinned,
        "how": state.how or None,
        "paired_at_ns": state.paired_ns or None,
        "hold": state.hold or None,
        "hold_detail": steps.get("detail"),
        "next": steps.get("next"),
        "changed_identity": identity_text(state.changed) if state.changed else None,
        "former_identities": [identity_text(each) for each in state.retired],
        "breaks": [advising.broken(state, each, own_name) for each in state.breaks],
        "notes": notes,
    }


def waiting_reason(state: PeerState) -> tuple[str | None, float | None]:
    """Why messages to this peer wait, and when it is tried next."""
    if state.hold:
        return state.hold, _next_try_s(state)
    if state.connected:
        return None, None
    reason = f"offline: {state.reason}" if state.reason else "offline"
    if not state.address:
        return "offline: no address to dial, it has to dial us", None
    return reason, _next_try_s(state)


def _next_try_s(state: PeerState) -> float | None:
    if not state.next_mono_ns:
        return None
    left_s = max(0.0, (state.next_mono_ns - time.monotonic_ns()) / 1e9)
    return round(left_s, 3) if left_s < 1e6 else None


def expiry_ns(reader: Reader, offset: int, peer: PeerState) -> int:
    """When the messages of the record at `offset` expire (CLOCK_REALTIME), 0 never."""
    header = next(reader.headers(offset))
    if header.kind != Kind.HELD or (header.flags & FLAG_HOLD_ENDS and peer.pinned):
        return 0
    return header.aux


def waiting(
    row: Row,
    peer: PeerState,
    reason: str | None,
    next_try_s: float | None,
    expires_ns: int,
    next_command: str | None,
) -> dict[str, Any]:
    """A message as `Queue` tells it."""
    return {
        "id": model.id_text(row.id),
        "peer": peer.name,
        "state": row.state,
        "reason": _waits_for(row, peer, reason),
        "since_ns": row.stored_at_ns,
        "size": len(row.body),
        "next_try_s": next_try_s,
        "expires_at_ns": None if row.seq else expires_ns or None,  # what is released may be there already
        "next": next_command if row.state == model.HELD else None,
    }


def _waits_for(row: Row, peer: PeerState, reason: str | None) -> str:
    if row.seq and row.seq <= peer.exported:
        return EXPORTED
    return row.reason or reason or ("on its way" if row.seq else "waiting for the window")


def life(reader: Reader, row: Row, records: Iterable[Header]) -> list[dict[str, Any]]:
    """What happened to a message, in order."""
    events = [_event(row.sent_at_ns, "sent", f"by {row.user} on {row.from_} (the sender's clock)")]
    for header in records:
        match header.kind:
            case Kind.OUT:
                text = f"on this disk, seq {row.seq or header.first_seq}, released at once"
                events.append(_event(header.wall_ns, "queued", text))
            case Kind.HELD:
                text = "on this disk, without a seq"
                if header.aux:
                    text += f"; expires {rfc3339(header.aux)}"
                    text += " unless it is paired" if header.flags & FLAG_HOLD_ENDS else ""
                events.append(_event(header.wall_ns, "queued", text))
            case Kind.RELEASED:
                text = f"in a batch of {header.count} from seq {header.first_seq}"
                events.append(_event(header.wall_ns, "released", text))
            case Kind.RECEIPT:
                text = f"{row.to} has everything up to seq {header.first_seq} on its disk"
                if header.aux:
                    text += f"; its clock said {rfc3339(header.aux)}"
                events.append(_event(header.wall_ns, "stored", text))
            case Kind.CHECKPOINT:  # stands for a receipt whose own record was removed
                text = f"{row.to} had it on its disk by then; the receipt itself is not kept any more"
                events.append(_event(header.wall_ns, "stored", text))
            case Kind.ENDED:
                events.append(_event(header.wall_ns, row.state, row.reason or ""))
            case Kind.RECOVERED:
                text = f"lost here, got back from {row.peer}; seq {row.seq}"
                events.append(_event(header.wall_ns, "recovered", text))
            case Kind.IN:
                events.append(_event(header.wall_ns, "received", f"on this disk, seq {row.seq}; answered"))
    if row.handled_at_ns is not None:
        text = f"by the consumer {row.handled_by} on {row.to} (the clock there)"
        events.append(_event(row.handled_at_ns, "handled", text))
    return events


def _event(at_ns: int, what: str, detail: str) -> dict[str, Any]:
    return {"at_ns": at_ns, "what": what, "detail": detail}


def next_step(row: Row, peer: PeerState, asked: RequestState | None, own_name: str) -> str:
    """What comes next, in a sentence."""
    if row.state in (model.STORED, model.RECEIVED):
        return _after_stored(row)
    if row.state not in (model.QUEUED, model.HELD):
        return "Nothing: it has ended. Send it again if it is still wanted."
    if peer.hold and not row.seq:
        return _held_step(advising.pairing(peer, asked, own_name))
    reason, next_try_s = waiting_reason(peer)
    if row.seq and row.seq <= peer.exported and reason is not None:
        return (
            f"It was {EXPORTED}: a parcel from {row.to}, or a link, brings the receipt. "
            f"`msgctl export {row.to}` makes another parcel with it."
        )
    if reason is None:
        return f"{row.to} is connected: its receipt is on the way."
    when = f" Next try in {next_try_s:.0f} s." if next_try_s is not None else ""
    return f"It flows by itself when {row.to} is back ({reason}).{when}"


def _after_stored(row: Row) -> str:
    if row.headers.get(model.REPORT) != model.HANDLED or row.handled_at_ns is not None:
        return "Nothing: it is on both disks."
    return f"It is on both disks. Its sender hears when a consumer on {row.to} has handled it."


def _held_step(steps: dict[str, Any]) -> str:
    parts = [str(steps["detail"])]
    if steps["words"] and not steps["accepted"]:
        parts.append(f"Words: {steps['words']}.")
    if steps["next"]:
        parts.append(f"Here: {steps['next']}.")
    if steps["there"]:
        parts.append(f"There: {steps['there']}.")
    return " ".join(parts)


def too_late(row: Row) -> TooLate:
    """The refusal to cancel a message that is final."""
    return TooLate(f"The message is {row.state} already.", "A final state does not change.")
