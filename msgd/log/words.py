"""The words of all messages, so that a search need not read all of the log. Derived (`derived`), deletable.

One SQLite file beside the log, written by the index process only, and only where `[history] search` asks for
it. Tables of FTS5, contentless: they say which messages hold a word, and nothing else of them.

| table | |
|---|---|
| shelf | lo, hi: log offsets; messages of the records in [lo, hi) are in the table words_<lo> |
| words_<lo> | FTS5; rowid = offset · 2¹⁷ + index · 2, as in the index: in the order of the log |
| unread | offset of a record that could not be read: whatever is asked, it may hold it |

A shelf holds whole segments, usually one. When none of them is kept any more it is dropped whole: SQLite of
Debian 12 (3.40) cannot delete single rows without having their text. It also bounds what one question or one
merge inside FTS5 costs, however long the log is.

detail=full: 149 bytes for a message of 115, 96,000 a second. `column` takes as much (there is one column),
`none` 110 bytes at the same rate, but knows nothing of words in a row: each message that has them all would
have to be read, and of common words that is the whole log (100,000 messages, 2026-11).
"""

from collections.abc import Iterable, Iterator

from msgd.log.derived import ABOUT, Derived
from msgd.log.terms import TOKENIZE

NAME = "search.sqlite"
SETTINGS = {
    "hashsize": 8 << 20,  # bytes of words gathered before FTS5 writes them: 1 MiB makes it a fifth slower
    "automerge": 8,  # parts of the same size that it merges: a tenth faster than its default, 4
}
INDEX_BITS = 17
FIRST_ROWS = 64  # asked for at once, then
MORE_TIMES = 4  # as many, up to
MOST_ROWS = 16_384
FREE_PAGES = 4096  # given back to the disk at a time: 16 MiB
SLACK_PAGES = 4096  # left free in the file: merges of FTS5 take and leave as many all the time

Hit = tuple[int, list[int] | None]  # log offset of a record; which of its messages, None: it has to be read


class Words(Derived):
    """The shelves of one open file. Reading them raises sqlite3.Error where it is damaged."""

    version = 1
    empty = "PRAGMA auto_vacuum = INCREMENTAL"
    schema = ABOUT + (
        "CREATE TABLE shelf (lo INTEGER PRIMARY KEY, hi INTEGER);"
        "CREATE TABLE unread (offset INTEGER PRIMARY KEY);"
    )

    # --- reading ----------------------------------------------------------------------------------------

    def hits(self, expression: str, lo: int, hi: int, reverse: bool) -> Iterator[list[Hit]]:
        """The records at [lo, hi) with messages that an expression of FTS5 finds; in order or the opposite
        one, some at a time. No record stands in two lists."""
        shelves = [(max(lo, low), min(hi, high), low) for low, high in self.shelves()]
        for start, stop, shelf in reversed(shelves) if reverse else shelves:
            count = FIRST_ROWS
            while start < stop:
                found = self._rows(shelf, expression, start, stop, count, reverse)
                low, high = start, stop
                if len(found) == count and (found := self._whole(shelf, expression, found)):
                    edge = found[-1] >> INDEX_BITS
                    low, high = (edge, stop) if reverse else (start, edge + 1)
                hits = self._grouped(found, low, high, reverse)
                if hits:
                    yield hits
                start, stop = (start, low) if reverse else (high, stop)
                count = min(count * MORE_TIMES, MOST_ROWS)

    def shelves(self) -> list[tuple[int, int]]:
        """The stretches [lo, hi) of log offsets that have a shelf each, in order."""
        return list(self.db.execute("SELECT lo, hi FROM shelf ORDER BY lo"))

    def _rows(
        self, shelf: int, expression: str, lo: int, hi: int, count: int, reverse: bool = False
    ) -> list[int]:
        """At most `count` rowids. The shelf may have been dropped meanwhile: then nothing of it is kept."""
        name = f"words_{shelf}"
        where = f"{name} MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid {'DESC' if reverse else 'ASC'}"
        bounds = (expression, lo << INDEX_BITS, hi << INDEX_BITS, count)
        self.db.execute("BEGIN")
        try:
            if self.db.execute("SELECT 1 FROM shelf WHERE lo = ?", (shelf,)).fetchone() is None:
                return []
            rows = self.db.execute(f"SELECT rowid FROM {name} WHERE {where} LIMIT ?", bounds)
            return [row for (row,) in rows]
        finally:
            self.db.execute("ROLLBACK")

    def _whole(self, shelf: int, expression: str, found: list[int]) -> list[int]:
        """Those of records that have no more than these."""
        edge = found[-1] >> INDEX_BITS
        inner = [row for row in found if row >> INDEX_BITS != edge]
        return inner or self._rows(shelf, expression, edge, edge + 1, 1 << INDEX_BITS)

    def _grouped(self, rows: list[int], lo: int, hi: int, reverse: bool) -> list[Hit]:
        unread = self.db.execute("SELECT offset FROM unread WHERE offset >= ? AND offset < ?", (lo, hi))
        found: dict[int, list[int] | None] = {offset: None for (offset,) in unread}
        for row in sorted(rows):
            indexes = found.setdefault(row >> INDEX_BITS, [])
            if indexes is not None:
                indexes.append(row >> 1 & 0xFFFF)
        return sorted(found.items(), reverse=reverse)

    # --- writing; the transaction is the caller's -------------------------------------------------------

    def begin_shelf(self, lo: int) -> None:
        """An empty one, from this log offset on."""
        name = f"words_{lo}"
        columns = f"body, content = '', columnsize = 0, detail = full, {TOKENIZE}"
        self.db.execute(f"CREATE VIRTUAL TABLE {name} USING fts5({columns})")
        for setting, value in SETTINGS.items():
            self.db.execute(f"INSERT INTO {name}({name}, rank) VALUES (?, ?)", (setting, value))
        self.db.execute("INSERT INTO shelf VALUES (?, ?)", (lo, lo))

    def add(self, shelf: int, hi: int, texts: Iterable[tuple[int, int, str]], unread: Iterable[int]) -> None:
        """Put texts, with log offset of the record and index, on a shelf, which then goes to `hi`."""
        rows = ((offset << INDEX_BITS | index << 1, text) for offset, index, text in texts)
        self.db.executemany(f"INSERT INTO words_{shelf}(rowid, body) VALUES (?, ?)", rows)
        self.db.executemany("REPLACE INTO unread VALUES (?)", ((offset,) for offset in unread))
        self.db.execute("UPDATE shelf SET hi = ? WHERE lo = ?", (hi, shelf))

    def drop_shelf(self, lo: int, hi: int) -> None:
        """Forget all of one."""
        self.db.execute(f"DROP TABLE words_{lo}")
        self.db.execute("DELETE FROM unread WHERE offset >= ? AND offset < ?", (lo, hi))
        self.db.execute("DELETE FROM shelf WHERE lo = ?", (lo,))

    def give_back(self) -> bool:
        """Let the file shrink by some of what is free in it; whether that was much. In no transaction."""
        if self.db.execute("PRAGMA freelist_count").fetchone()[0] <= SLACK_PAGES:
            return False
        self.db.execute(f"PRAGMA incremental_vacuum({FREE_PAGES})").fetchall()
        return True
