"""A short, a middle and a long history of one and the same beginning, made once for all who measure them."""

import time
from pathlib import Path

from tests.bench.making import Maker, copy_tree

SHORT = 10_000
MIDDLE = 1_000_000


class Histories:
    """Gives copies of `short`, `middle` and `long`; nothing is made before the first is asked for."""

    def __init__(self, directory: Path, messages: int, kept: Path | None) -> None:
        self.lengths = {"short": SHORT, "middle": min(MIDDLE, messages), "long": messages}
        self._directory = directory if kept is None else kept
        self._is_made = kept is not None

    def copy(self, name: str, directory: Path, *nodes: str) -> Path:
        """A copy below `directory` of the history called `name`, with the states of these nodes."""
        if not self._is_made:
            self._make()
        for node in nodes:
            copy_tree(self._directory / str(self.lengths[name]) / node, directory / name / node)
        return directory / name

    def _make(self) -> None:
        self._is_made = True
        began_s = time.monotonic()
        maker = Maker(self._directory / "nodes")
        try:
            for length in sorted(set(self.lengths.values())):
                maker.grow(length)
                maker.keep(self._directory / str(length))
        finally:
            maker.nodes.end()
        print(f"{maker.sent:,} messages made in {time.monotonic() - began_s:.0f} s", flush=True)
