"""How wide a text is on a terminal, and texts made to fit: wide and invisible characters counted right.

`unicodedata` is imported only for a text that is not ASCII.
"""

import os
from _collections_abc import Mapping

FALLBACK = 80  # where neither $COLUMNS nor a terminal says how many there are
ELLIPSIS = "\u2026"
INVISIBLE = ("Mn", "Me", "Cf")  # accents of their own, joiners, marks


def available(env: Mapping[str, str], fd: int = 1) -> int:
    """The columns of the terminal behind `fd`."""
    given = env.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and 0 < int(given) < 10_000:
        return int(given)
    try:
        return os.get_terminal_size(fd).columns or FALLBACK
    except OSError:
        return FALLBACK


def width(text: str) -> int:
    """The columns that a text without line ends takes."""
    return len(text) if text.isascii() else sum([_width(c) for c in text])


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """A text filled with spaces up to so many columns, behind it or (`right`) before it."""
    space = " " * (columns - width(text))
    return space + text if right else text + space


def cut(text: str, columns: int) -> str:
    """A text of one line, its end replaced by an ellipsis where it does not fit."""
    if width(text) <= columns:
        return text
    kept, left = 0, columns - 1
    for c in text:
        left -= _width(c)
        if left < 0:
            break
        kept += 1
    return text[:kept] + ELLIPSIS


def _width(c: str) -> int:
    if c.isascii():
        return 1
    import unicodedata

    if unicodedata.category(c) in INVISIBLE:
        return 0
    return 2 if unicodedata.east_asian_width(c) in ("W", "F") else 1
