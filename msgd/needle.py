"""Bytes that every text must hold in which a regular expression finds anything.

Most patterns hold a word as it is. To look for its bytes in a whole batch costs a hundredth of decoding the
batch and searching each text, so what lacks them need not be decoded. A text here is a body read as UTF-8
with U+FFFD for what is none: any other character of it stands in the body as its own bytes, and neighbours
as neighbours. Where capitals do not matter, only those letters count whose two cases are all there is: `k`
finds the Kelvin sign, too, `s` the long s, and `i` the dotless one.
"""

import re
from collections.abc import Callable
from typing import Any

_parse: Any = re._parser  # type: ignore[attr-defined]  # of the standard library, but not documented
_codes: Any = re._constants  # type: ignore[attr-defined]

AMBIGUOUS = frozenset("iIkKsS")
REPLACED = "\ufffd"  # stands for bytes that are no character

Has = Callable[[bytes], bool]


def needle_test(pattern: str) -> Has | None:
    """Whether bytes may hold a text in which `pattern` finds something; None where nothing can be said."""
    folded, word = needle(pattern)
    raw = word.encode()
    if not raw:
        return None
    return (lambda data: raw in data.lower()) if folded else (lambda data: raw in data)


def needle(pattern: str) -> tuple[bool, str]:
    """The longest word that the pattern needs, and whether its letters, small here, stand for both cases."""
    runs = _Runs()
    try:
        tree = _parse.parse(pattern)
        runs.add(tree, bool(tree.state.flags & re.IGNORECASE))
    except (AttributeError, TypeError, ValueError, KeyError):  # another parser than this was written for
        return False, ""
    runs.end()
    return max(runs.found, key=lambda run: (len(run[1]), not run[0]), default=(False, ""))


class _Runs:
    """Words that a pattern needs, one after another."""

    def __init__(self) -> None:
        self.found: list[tuple[bool, str]] = []
        self._folded = False
        self._word = ""

    def end(self) -> None:
        """What follows does not stand beside what was."""
        if self._word:
            self.found.append((self._folded, self._word))
        self._word = ""

    def add(self, items: Any, folded: bool) -> None:
        """The parts of a pattern, in the parser's form, which all have to be found in a row."""
        for code, value in items:
            if code is _codes.LITERAL:
                self._letter(chr(value), folded)
            elif code is _codes.AT:
                pass  # has no width
            elif code is _codes.SUBPATTERN:
                _, more, less, inner = value
                self.add(inner, (folded or bool(more & re.IGNORECASE)) and not less & re.IGNORECASE)
            elif code in (_codes.MAX_REPEAT, _codes.MIN_REPEAT, _codes.POSSESSIVE_REPEAT) and value[0] > 0:
                self.end()
                self.add(value[2], folded)
                self.end()
            else:
                self.end()

    def _letter(self, c: str, folded: bool) -> None:
        if c == REPLACED or "\ud800" <= c <= "\udfff" or (folded and (c in AMBIGUOUS or not c.isascii())):
            self.end()
            return
        if folded != self._folded:
            self.end()
            self._folded = folded
        self._word += c.lower() if folded else c
