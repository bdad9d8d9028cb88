"""Questions to short and long histories, beside journalctl with a journal of the same messages and grep.

| row | what is run |
|---|---|
| last 20 | `log --peer b -n 20 -o json`; of `rare`, too, whose messages are the oldest of all |
| 100 by time | `log --since T --until T -n 100 -o json`, in the middle |
| search | `log -g needle -o cat`: one message in 250,000 |
| dump | `log -o json` |
| ready | from the start of a node whose processes were all killed to its first answer |

Whole processes, beside `python3 -c pass` of the same interpreter and environment. The first two rows are
asked of a short and of a long history; search and dump of a million messages, which is what the journal and
the lines for grep hold, too.
"""

import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path

from tests.bench import limits
from tests.bench.histories import Histories
from tests.bench.making import NEEDLE, NEEDLE_EVERY
from tests.bench.rivals import Journal, Lines
from tests.bench.rounds import Cell, Figures, measure
from tests.bench.subject import RANGE, Subject
from tests.bench.table import Row, show

TURNS = 3  # of a quick command, in one round
LAST = 20
LAST_OF = {peer: ("--peer", peer, "-n", str(LAST), "-o", "json") for peer in ("b", "rare")}
SEARCH = ("-g", NEEDLE, "-o", "cat")
DUMP = ("-o", "json")

LENGTHS = ("short", "long")

Commands = dict[str, list[str]]


class Beside:
    """A cell: a command and `python3 -c pass` by turns. Its string is the ratio of all turns."""

    def __init__(self, command: list[str]) -> None:
        self.ratios: list[float] = []
        self._command = command

    def __call__(self) -> float:
        """Median wall time of the command, ms."""
        times = []
        for _ in range(TURNS):
            floor = limits.python_ms(1)
            times.append(limits.whole_process_ms(self._command, 1))
            self.ratios.append(times[-1] / floor)
        return statistics.median(times)

    def __str__(self) -> str:
        return f"{statistics.median(self.ratios):.2f} [{min(self.ratios):.1f} to {max(self.ratios):.1f}]"


def run(histories: Histories, directory: Path, rounds: int) -> None:
    """Measure, and print the table."""
    with ExitStack() as open_ones:
        subjects = [
            open_ones.enter_context(Subject(histories.copy(name, directory, "a")))
            for name in ("short", "middle", "long")
        ]
        short, middle, long = subjects
        lines = Lines(middle.log(*DUMP), directory / "lines")
        journal = Journal(lines.path, directory / "journal")
        print(journal, flush=True)
        quick, heavy = _quick(short, middle, long, journal, lines), _heavy(middle, journal, lines)
        _check(quick | heavy, middle.messages)
        ours = {name: Beside(command) for name, command in quick.items() if name.split()[1] in LENGTHS}
        cells: dict[str, Cell] = {"python": lambda: limits.python_ms(TURNS)}
        figures = measure(cells | _cells(quick, TURNS) | ours, rounds)
        figures |= measure(_cells(heavy, 1), max(3, rounds // 3))
        figures |= measure({"ready short": short.ready_ms, "ready long": long.ready_ms}, max(3, rounds // 2))
    title = f"history: {short.messages:,} and {long.messages:,} messages of 100 bytes"
    show(title, _rows(figures, ours, short, middle, long), figures)


def _quick(short: Subject, middle: Subject, long: Subject, journal: Journal, lines: Lines) -> Commands:
    in_range = middle.moment
    return _present(
        {
            "last short": short.log(*LAST_OF["b"]),
            "last long": long.log(*LAST_OF["b"]),
            "last journal": journal.command("PEER=b", "-n", str(LAST), "-o", "json"),
            "last grep": lines.grep('"peer":"b"', LAST),
            "rare short": short.log(*LAST_OF["rare"]),
            "rare long": long.log(*LAST_OF["rare"]),
            "rare journal": journal.command("PEER=rare", "-n", str(LAST), "-o", "json"),
            "rare grep": lines.grep('"peer":"rare"', LAST),
            "range short": short.log(*short.range),
            "range long": long.log(*long.range),
            "range journal": journal.command(*middle.times, "-n", str(RANGE), "-o", "json"),
            "range grep": lines.grep(f'"stored_at_ns":{in_range}', RANGE),
        }
    )


def _heavy(middle: Subject, journal: Journal, lines: Lines) -> Commands:
    return _present(
        {
            "search": middle.log(*SEARCH),
            "search journal": journal.command("-g", NEEDLE, "-o", "cat"),
            "search grep": lines.grep(NEEDLE, middle.messages),
            "dump": middle.log(*DUMP),
            "dump journal": journal.command("-o", "json"),
        }
    )


def _check(commands: Commands, messages: int) -> None:
    """Run each once: no figure of a command that fails or answers something else."""
    needles = len(range(NEEDLE_EVERY // 50, messages, NEEDLE_EVERY))
    expected = {"last": LAST, "rare": LAST, "range": RANGE, "search": needles, "dump": messages}
    for name, command in commands.items():
        assert expected[name.partition(" ")[0]] == _lines_of(command), command


def _lines_of(command: list[str]) -> int:
    """How many lines it prints; no more than a piece of them is in memory."""
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = 0
        while piece := process.stdout.read(1 << 20):
            found += piece.count(b"\n")
    assert process.returncode == 0, command
    return found


def _present(commands: dict[str, list[str] | None]) -> Commands:
    return {name: command for name, command in commands.items() if command is not None}


def _cells(commands: Commands, turns: int) -> dict[str, Cell]:
    return {name: _cell(command, turns) for name, command in commands.items()}


def _cell(command: list[str], turns: int) -> Cell:
    return lambda: limits.whole_process_ms(command, turns)


def _rows(
    figures: dict[str, Figures], ours: dict[str, Beside], short: Subject, middle: Subject, long: Subject
) -> list[Row]:
    python = figures["python"]
    rows = [Row("limit: python3 -c pass, ms", python)]
    names = {
        "last": f"last {LAST} of a peer, ms",
        "rare": f"last {LAST} of a silent peer, ms",
        "range": f"{RANGE} by time, ms",
    }
    for cell, name in names.items():
        others = [_beside(figures, f"{cell} {other}", "ms") for other in ("journal", "grep")]
        for length, subject in (("short", short), ("long", long)):
            figure = figures[f"{cell} {length}"]
            beside = [f"{ours[f'{cell} {length}']} × python3 (goal 3)", *others]
            rows.append(Row(f"{name}, of {subject.messages:,}", figure, beside))
    return rows + _heavy_rows(figures, middle) + _ready_rows(figures, short, long)


def _heavy_rows(figures: dict[str, Figures], middle: Subject) -> list[Row]:
    search, dump = figures["search"], figures["dump"]
    per_s = middle.messages / dump.median * 1e3
    return [
        Row(
            f"search of {middle.messages:,}, ms",
            search,
            ["goal 2,000", *(_beside(figures, f"search {other}", "ms") for other in ("journal", "grep"))],
        ),
        Row(
            f"dump of {middle.messages:,}, ms",
            dump,
            [f"{per_s:,.0f}/s (goal 300,000)", _beside(figures, "dump journal", "ms")],
        ),
    ]


def _ready_rows(figures: dict[str, Figures], short: Subject, long: Subject) -> list[Row]:
    return [
        Row(f"ready after kill -9, {subject.messages:,}, ms", figures[f"ready {name}"], ["goal 1,000"])
        for name, subject in (("short", short), ("long", long))
    ]


def _beside(figures: dict[str, Figures], name: str, unit: str) -> str:
    tool = "journalctl" if name.endswith("journal") else "grep"
    return f"{tool} {figures[name].median:,.1f} {unit}" if name in figures else f"{tool}: not installed"
