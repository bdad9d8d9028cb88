"""Rounds of measurements: every cell in turn, stolen time noted, medians of the quiet ones."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

STEAL_PERCENT = 8.0  # above it a virtual machine measures its neighbours
Cell = Callable[[], float]


def cpu_times() -> list[int]:
    """user nice system idle iowait irq softirq steal, in ticks since boot (proc(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        return [int(word) for word in file.readline().split()[1:9]]


def steal_percent(before: list[int], after: list[int]) -> float:
    """Share of time that the host gave to others."""
    spent = [b - a for a, b in zip(before, after, strict=True)]
    return 100 * spent[7] / sum(spent) if sum(spent) else 0.0


@dataclass
class Figures:
    """The values of one cell, with the steal of each."""

    values: list[tuple[float, float]] = field(default_factory=list)  # (steal %, value)

    @property
    def quiet(self) -> list[float]:
        """The values of the quiet rounds; of the quietest three where all were noisy."""
        good = [value for steal, value in self.values if steal <= STEAL_PERCENT]
        return good or [value for _, value in sorted(self.values)[:3]]

    @property
    def median(self) -> float:
        return statistics.median(self.quiet)

    @property
    def steal(self) -> float:
        return statistics.median(steal for steal, _ in self.values)

    def __str__(self) -> str:
        low, high = min(self.quiet), max(self.quiet)
        return f"{self.median:,.1f} [{low:,.1f} to {high:,.1f}, n={len(self.quiet)}]"


def measure(cells: dict[str, Cell], rounds: int) -> dict[str, Figures]:
    """Run all cells `rounds` times, in turn."""
    figures = {name: Figures() for name in cells}
    for _ in range(rounds):
        for name, cell in cells.items():
            before = cpu_times()
            value = cell()
            figures[name].values.append((steal_percent(before, cpu_times()), value))
    return figures
