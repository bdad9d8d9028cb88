r"""What a person searches for: words, as an expression of FTS5 and as a test of single texts.

| written | finds |
|---|---|
| disk full | texts with both words, anywhere |
| "disk full" | the words in a row; a quotation that is not closed goes to the end |
| disk\* | words that begin so; "disk fu"\* the same of the last one |

Everything else is what stands between words: a-b is the same as "a b". SQLite's tokenizer says what a word
is, of what is asked and of what is in the file: letters and digits, without regard to capitals and accents.
"""

import functools
import re
import sqlite3
from collections.abc import Callable, Sequence

from msgd.errors import UsageError

TOKENIZE = "tokenize = 'unicode61 remove_diacritics 2'"
MAX_PARTS = 64  # FTS5 has limits of its own, at several hundred
MAX_CHARACTERS = 8192

PART = re.compile(r'"([^"]*)"?(\*?)|([^\s"]+)')
HINT = 'Words, all of which a text has to contain; "in quotes" in a row; a* for what begins so.'


class Terms:
    """What is searched for. Raises UsageError if it has no word in it."""

    def __init__(self, text: str) -> None:
        parts = [part for part in _parts(text) if part[0]]
        if not parts:
            raise UsageError(f"There is no word to search for in {text!r}.", HINT)
        if len(parts) > MAX_PARTS or len(text) > MAX_CHARACTERS:
            raise UsageError(
                f"The search is too long: {len(parts)} parts, {len(text)} characters; at most {MAX_PARTS} and"
                f" {MAX_CHARACTERS} are taken.",
                "Give fewer words.",
            )
        self.expression = " AND ".join(part for _, part in parts)
        tokens = [token for tokens, _ in parts for token in tokens]
        self._needles = [_needle(token) for token in sorted(tokens, key=len, reverse=True)]

    def may_fit(self, data: bytes) -> bool:
        """Whether bytes that hold a body may hold one that has it. 1 us for 100 bytes."""
        return all(needle(data) for needle in self._needles)

    def fits(self, body: bytes) -> bool:
        """Whether this one has it. 25 us, where it may."""
        return bool(self.fitting([body]))

    def fitting(self, bodies: Sequence[bytes]) -> list[int]:
        """Which of these have it, in order. 4 us for each that may, 1 us for others."""
        texts = [(at, text_of(body)) for at, body in enumerate(bodies) if self.may_fit(body)]
        if not texts:
            return []
        db = _own()
        db.execute("BEGIN")
        try:
            db.executemany("INSERT INTO one(rowid, body) VALUES (?, ?)", texts)
            found = db.execute("SELECT rowid FROM one WHERE one MATCH ? ORDER BY rowid", (self.expression,))
            return [at for (at,) in found]
        finally:
            db.execute("ROLLBACK")


def text_of(body: bytes) -> str:
    """A body as the text whose words are found."""
    return body.decode("utf-8", "replace")


def _parts(text: str) -> list[tuple[list[str], str]]:
    """Of each part its words as the tokenizer sees them, and the expression for it."""
    sound = text.encode("utf-8", "replace").decode().replace("\0", " ")[: MAX_CHARACTERS + 1]
    found = []
    for phrase, star, word in PART.findall(sound):
        part = word.rstrip("*") if word else phrase
        is_prefix = star or part != (word or phrase)
        found.append((_tokens(part), f'"{part}"{"*" if is_prefix else ""}'))
    return found


def _needle(token: str) -> Callable[[bytes], object]:
    """Finds the bytes of any text with this word: those beyond ASCII may stand for any letter, or none."""
    letters = [re.escape(f"{sign}{sign.upper()}").encode() if sign.isascii() else b"" for sign in token]
    return re.compile(b"".join(b"[%b\x80-\xff][\x80-\xff]*" % letter for letter in letters)).search


def _tokens(text: str) -> list[str]:
    db = _own()
    db.execute("BEGIN")
    try:
        db.execute("INSERT INTO one(rowid, body) VALUES (0, ?)", (text,))
        return [term for (term,) in db.execute("SELECT term FROM term")]
    finally:
        db.execute("ROLLBACK")


@functools.cache
def _own() -> sqlite3.Connection:
    """A table in memory that is empty between two questions, and the list of its words."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute(f"CREATE VIRTUAL TABLE one USING fts5(body, content = '', columnsize = 0, {TOKENIZE})")
    db.execute("CREATE VIRTUAL TABLE term USING fts5vocab(one, row)")
    return db
