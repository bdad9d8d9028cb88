"""Tables for people: status, peers, queue, lab. rich on a terminal, aligned columns elsewhere.

rich is imported here and late: it takes longer to import than any call takes (60 ms).
"""

import time
from _collections_abc import Sequence

from msgctl.columns import padded, width
from msgctl.output import Screen, field, span
from msgctl.questions import paragraph
from msgd.wire.varlink import Json

STATE_COLOURS = {
    "connected": "green",
    "running": "green",
    "removed": "red",
    "blocked": "red",
    "stopped": "red",
}  # others: yellow
NUMERIC = (
    "QUEUED", "HELD", "UNRECEIPTED", "SENT", "RECEIVED", "OFFSET", "ROUND TRIP", "SIZE", "FILES", "PID",
    "BEHIND", "OPEN", "ASIDE", "ATTEMPTS",
)  # fmt: skip


def show(screen: Screen, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their heads, less the columns that say nothing in any row.

    Cells are taken as they are: foreign words come through `field`.
    """
    kept = [at for at, head in enumerate(heads) if any(not _is_idle(head, row[at]) for row in rows)]
    heads, rows = [heads[at] for at in kept], [[row[at] for at in kept] for row in rows]
    if screen.colours:
        _rich(screen, heads, rows)
        return
    lines = [heads, *rows]
    widths = [max(width(line[place]) for line in lines) for place in range(len(heads))]
    for line in lines:
        cells = [
            padded(cell, columns, right=head in NUMERIC)
            for head, cell, columns in zip(heads, line, widths, strict=True)
        ]
        screen.write("  ".join(cells).rstrip() + "\n")


def _is_idle(head: str, cell: str) -> bool:
    return cell in ("", "-") or (cell == "0" and head in ("HELD", "UNRECEIPTED"))


def _rich(screen: Screen, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        table.add_column(Text(head), justify="right" if head in NUMERIC else "left", no_wrap=True)
    for row in rows:
        table.add_row(*[Text(cell, style=_style(head, cell)) for head, cell in zip(heads, row, strict=True)])
    widest = sum(max(width(line[at]) for line in (heads, *rows)) + 2 for at in range(len(heads)))
    console = Console(force_terminal=True, highlight=False)
    console.width = max(console.width, widest)  # a terminal that is too narrow wraps the lines, not the cells
    with console.capture() as captured:
        console.print(table)
    screen.write(captured.get())


def _style(head: str, cell: str) -> str:
    return STATE_COLOURS.get(cell, "yellow") if head == "STATE" else ""


def status(screen: Screen, node: Json, known: list[Json]) -> None:
    """This node in a few lines, then its peers."""
    title = screen.paint("bold", field(node["name"]))
    screen.write(f"{title}  msgd {field(node['version'])}, up {span(node['uptime_s'])}\n")
    for name, value in (
        ("identity", node["identity"]),
        ("listens on", ", ".join(node["listen"]) or "nothing"),
        ("state in", node["state_dir"]),
        ("peers", f"{node['peers_connected']} of {node['peers_known']} connected"),
        ("messages", f"{node['queued']} queued, {node['held']} held"),
        ("index", _index(node.get("index"))),
    ):
        screen.write(f"  {name + ':':<12}{field(value)}\n")
    notes(screen, node.get("notes") or [])
    if known:
        screen.write("\n")
        peers(screen, known)


def _index(index: Json | None) -> str:
    if index is None or index["state"] == "ready":
        return "ready"
    return f"{index['state']}, {index['done'] * 100:.0f} % done; queries read the rest from the log"


def peers(screen: Screen, known: list[Json]) -> None:
    """All peers, one a line."""
    heads = (
        "PEER", "STATE", "SINCE", "QUEUED", "HELD", "UNRECEIPTED", "SENT", "RECEIVED",
        "OFFSET", "ROUND TRIP", "ADDRESS", "NEXT TRY", "REASON",
    )  # fmt: skip
    show(screen, heads, [_peer(screen, peer) for peer in known])
    for peer in known:
        told = [peer["hold_detail"]] if peer.get("hold_detail") else []
        if peer.get("next"):
            told.append(f"What to do: {peer['next']}")
        told += [each["detail"] for each in peer.get("breaks") or []]
        notes(screen, told + (peer.get("notes") or []), field(peer["name"]))


def notes(screen: Screen, told: list[str], name: str = "") -> None:
    """Sentences that a person must read, below a table."""
    if told:
        screen.write(f"\n{screen.paint('yellow', name)}:\n" if name else "\n")
    for text in told:
        screen.write(paragraph(field(text)))


def _peer(screen: Screen, peer: Json) -> list[str]:
    counts = [str(peer[name]) for name in ("queued", "held", "unreceipted", "sent", "received")]
    return [
        field(peer["name"]),
        field(peer["state"]),
        when(screen, peer.get("since_ns")),
        *counts,
        _milliseconds(peer.get("clock_offset_ms"), sign="+"),
        _milliseconds(peer.get("round_trip_ms")),
        field(peer.get("address") or "-"),
        _next(peer.get("next_try_s")),
        field(peer.get("reason") or ""),
    ]


def queue(screen: Screen, waiting: list[Json]) -> None:
    """What waits, one message a line."""
    rows = [
        [
            field(one["id"]),
            field(one["peer"]),
            field(one["state"]),
            when(screen, one["since_ns"]),
            str(one["size"]),
            _next(one.get("next_try_s")),
            when(screen, one.get("expires_at_ns")),
            field(one.get("reason") or ""),
            field(one.get("next") or ""),
        ]
        for one in waiting
    ]
    titles = ("ID", "PEER", "STATE", "SINCE", "SIZE", "NEXT TRY", "EXPIRES", "REASON", "WHAT TO DO")
    show(screen, titles, rows)


def when(screen: Screen, ns: int | None) -> str:
    """The time of day, with the date where it is not today."""
    if not ns:
        return "-"
    now_ns = time.time_ns()
    same_day = screen.clock(ns, "%F") == screen.clock(now_ns, "%F")
    return screen.clock(ns, "%H:%M:%S" if same_day else "%b %d %H:%M")


def _next(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return "now" if seconds < 0.5 else f"in {span(round(seconds))}"


def _milliseconds(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.2f} ms"
