"""What a command says: its lines as text, so many and so long at most. Pure."""

from collections.abc import Callable

MOST_LINES = 100  # of one run that are told
MOST_BYTES = 1000  # of one line


class Lines:
    """What a command says, line by line, within bounds; `say` hears each line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rest = b""
        self._told = 0
        self._untold = 0
        self._is_cut = False  # the rest of this line is not told

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._tell(line)
        if len(self._rest) > MOST_BYTES:
            self._tell(self._rest)
            self._rest, self._is_cut = b"", True

    def end(self) -> None:
        """The last line may lack its end; what was too much is counted."""
        if self._rest:
            self._tell(self._rest)
        if self._untold:
            self._say(f"… {self._untold} more lines")

    def _tell(self, line: bytes) -> None:
        if self._is_cut:
            self._is_cut = False
        elif self._told == MOST_LINES:
            self._untold += 1
        else:
            self._told += 1
            text = line[:MOST_BYTES].decode("utf-8", "backslashreplace")
            self._say(text + ("…" if len(line) > MOST_BYTES else ""))
