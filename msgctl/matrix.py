"""The receipts of a message to a group: on a terminal a table that fills in where it stands, else lines.

A row is written again only when it has changed, and the cursor is moved by rows, so a slow link carries few
bytes. Rows are cut to the terminal's width, since a row that wraps would be two. A table that is higher than
the terminal, or whose terminal changes its width, is not moved in: the first shows one line of counts until
the end, the second is written anew below.
"""

import os

from msgctl import receipts
from msgctl.columns import available, cut, padded, width
from msgctl.output import Screen, field
from msgd import model
from msgd.wire.varlink import Json

ORDER = (
    model.HANDLED,
    model.STORED,
    model.QUEUED,
    model.HELD,
    model.REJECTED,
    model.EXPIRED,
    model.CANCELLED,
)
STATE_WIDTH = max(map(len, ORDER))
CLOCK_WIDTH = len("12:00:00.000")
CLEAR = "\x1b[K"


class Shown:
    """What a person or a script sees of a group's receipts.

    `group` as it was given, with its @; `level`: what is waited for; `is_live`: more may come.
    """

    def __init__(
        self, screen: Screen, form: str, group: str, level: str, *, is_quiet: bool, is_live: bool = True
    ) -> None:
        self._screen = screen
        self._form = form
        self._is_quiet = is_quiet
        self._open = (model.HELD, model.QUEUED, model.STORED if level == model.HANDLED else "")
        self._receipts: dict[str, Json] = {}
        self._printed: set[str] = set()
        is_table = is_live and form != "json" and screen.terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._table = Table(screen, group) if is_table else None

    def add(self, news: list[Json], reached: int, wanted: int) -> None:
        """Receipts that are new or have changed."""
        self._receipts.update({receipt["peer"]: receipt for receipt in news})
        if self._is_quiet:
            return
        if self._table is not None:
            self._table.show(self._receipts, reached, wanted)
            return
        for receipt in news:
            if receipts.reached(receipt) not in self._open:
                self._print(receipt)

    def end(self) -> None:
        """Nothing more comes."""
        if self._is_quiet:
            return
        if self._table is not None:
            self._table.end()
            return
        for receipt in self._receipts.values():
            self._print(receipt)

    def _print(self, receipt: Json) -> None:
        if receipt["peer"] in self._printed:
            return
        self._printed.add(receipt["peer"])
        if self._form == "json":
            self._screen.json(receipts.as_json(receipt))
        else:
            self._screen.write(f"{receipt['id']} {receipts.line(self._screen, receipt)}\n")


class Table:
    """Rows on a terminal, one for each member below a title."""

    def __init__(self, screen: Screen, group: str) -> None:
        self._screen = screen
        self._group = group
        self._rows: list[str] = []  # as they stand on the screen; the cursor is below the last one
        self._columns = 0
        self._names = 0  # columns of the widest name
        self._all: list[str] = []

    def show(self, known: dict[str, Json], reached: int, wanted: int) -> None:
        """Bring the screen up to these receipts, in their order."""
        columns = available(os.environ)
        if columns != self._columns:
            self._rows, self._columns = [], columns
        self._names = max(width(field(name)) for name in known)
        title = self._title(known, reached, wanted)
        self._all = [title, *(self._row(receipt) for receipt in known.values())]
        rows = self._all if len(self._all) < _height() else [title]
        if len(rows) != len(self._rows):
            text = "".join(f"{row}{CLEAR}\n" for row in rows)
        else:
            text = "".join(self._moved(at, row) for at, row in enumerate(rows) if row != self._rows[at])
        self._rows = rows
        if text:
            self._screen.write(text)

    def end(self) -> None:
        """Leave the whole table behind."""
        if len(self._rows) < len(self._all):
            self._screen.write("".join(f"{row}\n" for row in self._all[1:]))

    def _moved(self, at: int, row: str) -> str:
        up = len(self._rows) - at
        return f"\x1b[{up}A{row}{CLEAR}\x1b[{up}B\r"

    def _title(self, known: dict[str, Json], reached: int, wanted: int) -> str:
        states = [receipts.reached(receipt) for receipt in known.values()]
        counts = ", ".join(f"{states.count(state)} {state}" for state in ORDER if state in states)
        id = next(iter(known.values()))["id"]
        quorum = f"; {reached} of {wanted} needed" if wanted < len(states) else ""
        return self._cut(f"{id} {field(self._group)}: {counts} of {len(states)}{quorum}")

    def _row(self, receipt: Json) -> str:
        state = receipts.reached(receipt)
        before = "  " + padded(field(receipt["peer"]), self._names) + "  "
        text = self._cut(f"{before}{padded(state, STATE_WIDTH)}  {_details(self._screen, receipt)}".rstrip())
        at = len(before)
        if not text.startswith(before + state):
            return text
        colour = receipts.COLOUR.get(state, "red")
        return before + self._screen.paint(colour, state) + text[at + len(state) :]

    def _cut(self, text: str) -> str:
        return cut(text, max(1, self._columns - 1))


def _details(screen: Screen, receipt: Json) -> str:
    state = receipts.reached(receipt)
    clock = " " * CLOCK_WIDTH
    if state in (model.STORED, model.HANDLED):
        when_ns = receipt.get("handled_at_ns") or receipt.get("receipt_at_ns") or receipt["stored_at_ns"]
        clock = f"{screen.clock(when_ns)}.{when_ns // 1_000_000 % 1000:03d}"
    return f"{clock}  {', '.join(receipts.details(state, receipt))}"


def _height() -> int:
    try:
        return os.get_terminal_size(1).lines or 24
    except OSError:
        return 24
