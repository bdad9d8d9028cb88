"""What a query with `search` knows: which messages the file of words names, and a test for all others.

The file may lag, be missing, damaged or another log's. What it does not hold is tested by the same tokenizer,
as the query reads it. A file that turns out to be damaged is removed, so that the index process makes a new
one, and the query goes on without it.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from msgd.log.derived import NotUsableError, inode_of, is_damage
from msgd.log.reader import Reader
from msgd.log.terms import Terms
from msgd.log.words import Hit, Words
from msgd.wire.codec import Message


class SearchLost(sqlite3.Error):
    """The file of words failed, `__cause__` says how."""


class Search:
    """One pass over the history. `words` is None where there is no file that can be used."""

    def __init__(self, terms: Terms, words: Words | None) -> None:
        self.position = 0 if words is None else words.position  # log offset before which it knows all
        self._terms = terms
        self._words = words
        self._hits: dict[int, list[int]] = {}  # of the last places

    def places(self, lo: int, hi: int, reverse: bool) -> Iterator[list[int]]:
        """Log offsets of the records in [lo, hi), before `position`, that may hold it. Raises SearchLost."""
        assert self._words is not None
        hits = self._words.hits(self._terms.expression, lo, hi, reverse)
        while found := _next(hits):
            self._hits = {offset: indexes for offset, indexes in found if indexes is not None}
            yield [offset for offset, _ in found]

    def chosen(self, offset: int, indexes: Sequence[int], messages: Sequence[Message]) -> Sequence[int]:
        """Those of `indexes` whose messages, of all at this log offset, have it."""
        known = self._hits.get(offset)
        if known is not None:
            some = set(indexes) if not isinstance(indexes, range) else indexes
            return [index for index in known if index in some]
        return [indexes[at] for at in self._terms.fitting([messages[index].body for index in indexes])]


class Searching:
    """The file of words at `path`, as derived from the log that `reader` reads."""

    def __init__(self, reader: Reader, committed: Callable[[], int], path: str) -> None:
        self._reader = reader
        self._committed = committed
        self._path = path
        self._inode = 0  # of the file used last
        self._is_lost = False

    def begin(self, terms: Terms) -> Search:
        """A search with what the file knows now."""
        words = None if self._is_lost else self._open()
        self._inode = 0 if words is None else words.inode
        return Search(terms, words)

    def distrust(self, lost: SearchLost) -> None:
        """Do without the file from now on; remove it if it is damaged."""
        self._is_lost = True
        cause = lost.__cause__
        if isinstance(cause, sqlite3.Error) and is_damage(cause) and inode_of(self._path) == self._inode:
            os.unlink(self._path)

    def _open(self) -> Words | None:
        try:
            words = Words.open(self._path, self._reader.log_id)
            words.check(self._reader, self._committed())
        except (NotUsableError, sqlite3.Error):
            return None
        return words


def _next(hits: Iterator[list[Hit]]) -> list[Hit] | None:
    try:
        return next(hits, None)
    except sqlite3.Error as error:
        raise SearchLost(str(error)) from error
