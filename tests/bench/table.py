"""One line a row: what was measured, its figure, what it stands beside, and the goal."""

from collections.abc import Sequence
from typing import NamedTuple

from tests.bench.rounds import Figures


class Row(NamedTuple):
    """`beside`: ratios and the figures of others, as they are printed."""

    name: str
    figure: Figures | str
    beside: Sequence[str] = ()


def show(title: str, rows: Sequence[Row], figures: dict[str, Figures]) -> None:
    """Print the rows, and how much time the host took from the machine meanwhile."""
    print(f"\n{title}")
    for name, figure, beside in rows:
        print(f"  {name:44} {figure!s:40} {'   '.join(beside)}")
    noisy = max((figure.steal for figure in figures.values()), default=0.0)
    print(f"median over quiet rounds [min to max]; stolen time up to {noisy:.0f} % in a cell's median round")
