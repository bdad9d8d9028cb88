"""Messages as finished JSON lines, as `msgctl log -o json` prints them; many times a second.

Lines are put together many at a time, as bytes, out of columns of pieces: what neighbours have in common is
encoded once, ids become digits column by column. So a message of a batch costs a tenth of what an object
costs that msgspec encodes, one that is alone in its record a quarter (0.7 and 1.7 against 7.0 µs of CPU time,
Python 3.11, 2026-11).
"""

import base64
import time
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from msgd import model
from msgd.rows import kind_name
from msgd.wire.codec import ID_BYTES, Message

NS_PER_S = 1_000_000_000
NS_DIGITS = 9  # of a second's fraction
LEAST_DIGITS = 1 + NS_DIGITS  # so that there is one of seconds
MOST_CACHED = 4096  # seconds, users

BETWEEN = b"\n,\n"  # two lines: each stands on a line of its own, and so does the comma
PIECES = 7  # of a line
FEW = 16  # messages: for fewer ids the columns do not pay
BEGIN = BETWEEN + b'{"id":"00000000-0000-0000-0000-000000000000'
NO_RECEIPT = ',"receipt_at":null,"receipt_at_ns":null,"'
ID_SIGNS = 36  # as people see one
DIGITS = [place for place, sign in enumerate(BEGIN) if sign == ord("0")]  # of the id

Head = tuple[bytes, str]  # before a seq, and between the kind and the user

_encode = msgspec.json.Encoder().encode
_headers_of = attrgetter("headers")


def rfc3339(ns: int) -> str:
    """Unix nanoseconds as RFC 3339 in UTC, with nine digits of fraction."""
    seconds, rest = divmod(ns, NS_PER_S)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def quoted(text: str) -> str:
    """A JSON string."""
    return _encode(text).decode()


class _Seconds(dict[str, str]):
    """The beginning of a time in RFC 3339 by the digits of its Unix seconds."""

    def __missing__(self, digits: str) -> str:
        if len(self) >= MOST_CACHED:
            self.clear()
        begin = self[digits] = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(int(digits)))
        return begin


class _Quoted(dict[str, str]):
    """JSON strings of words that come again and again."""

    def __missing__(self, text: str) -> str:
        if len(self) >= MOST_CACHED:
            self.clear()
        word = self[text] = quoted(text)
        return word


class _Kinds(dict[int, str]):
    """JSON strings of kinds."""

    def __missing__(self, kind: int) -> str:
        word = self[kind] = quoted(kind_name(kind))
        return word


class Lines:
    """Makes lines of one node's history; `own_name` is its name. Keeps what may be needed again."""

    def __init__(self, own_name: str) -> None:
        self._own_name = own_name
        self._seconds = _Seconds()
        self._words = _Quoted()
        self._kinds = _Kinds()

    def head(self, direction: int, peer: str, state: str, reason: str | None) -> Head:
        """What the lines of messages with the same fate have in common: pieces for `of`."""
        words = self._words
        own, other = words[self._own_name], words[peer]
        sender, receiver = (other, own) if direction == model.IN else (own, other)
        why = "null" if reason is None else quoted(reason)
        return (
            f'","peer":{other},"direction":"{model.DIRECTIONS.get(direction, "")}","seq":'.encode(),
            f',"state":"{state}","reason":{why},"from":{sender},"to":{receiver},"user":',
        )

    def of(
        self,
        messages: Sequence[Message],
        seqs: list[int],
        heads: Sequence[Head],
        walls: Sequence[int],
        receipts: Sequence[int | None],
        was: str | None = None,
    ) -> bytes:
        """The lines of messages, BETWEEN between two; the other columns have as many values.

        `seqs`: 0 for none. `walls` and `receipts`: the times of their records and of the receipts, ns. `was`:
        the state of all of them before, where they tell a change.
        """
        columns = (
            _begins([message.id for message in messages]),
            [way for way, _ in heads],
            _numbers(seqs),
            self._middles(messages, heads, walls, receipts),
            *_bodies([message.body for message in messages]),
            _ends(messages, was),
        )
        pieces = [b""] * (PIECES * len(messages))
        for number, column in enumerate(columns):
            pieces[number::PIECES] = column
        pieces[0] = pieces[0][len(BETWEEN) :]
        return b"".join(pieces)

    def _middles(
        self,
        messages: Sequence[Message],
        heads: Sequence[Head],
        walls: Sequence[int],
        receipts: Sequence[int | None],
    ) -> list[bytes]:
        """What stands between the seqs and the names of the bodies."""
        words, kinds, seconds = self._words, self._kinds, self._seconds
        middles = []
        before, middle = None, b""
        for message, (_, fate), wall_ns, receipt_ns in zip(messages, heads, walls, receipts, strict=True):
            kind, user, sent_ns = message.kind, message.user, message.sent_ns
            common = kind, user, sent_ns, fate, wall_ns, receipt_ns
            if common != before:
                before = common
                sent, wall = str(sent_ns), str(wall_ns)
                sent_at, stored_at = sent.zfill(LEAST_DIGITS), wall.zfill(LEAST_DIGITS)
                middle = (
                    f',"kind":{kinds[kind]}{fate}{words[user]},"sent_at":"{seconds[sent_at[:-NS_DIGITS]]}'
                    f'{sent_at[-NS_DIGITS:]}Z","sent_at_ns":{sent},"stored_at":"'
                    f'{seconds[stored_at[:-NS_DIGITS]]}{stored_at[-NS_DIGITS:]}Z","stored_at_ns":{wall}'
                    f"{self._receipt(receipt_ns) if receipt_ns else NO_RECEIPT}"
                ).encode()
            middles.append(middle)
        return middles

    def _receipt(self, ns: int) -> str:
        digits = str(ns).zfill(LEAST_DIGITS)
        at = f"{self._seconds[digits[:-NS_DIGITS]]}{digits[-NS_DIGITS:]}Z"
        return f',"receipt_at":"{at}","receipt_at_ns":{ns},"'


def _begins(ids: list[bytes]) -> list[bytes]:
    """The beginnings of lines, ids included."""
    if len(ids) < FEW:
        return [BEGIN[:-ID_SIGNS] + model.id_text(raw).encode() for raw in ids]
    digits, width = b"".join(ids).hex().encode(), len(BEGIN)
    text = bytearray(BEGIN * len(ids))
    for number, place in enumerate(DIGITS):
        text[place::width] = digits[number :: 2 * ID_BYTES]
    begins = bytes(text)
    return [begins[at : at + width] for at in range(0, len(begins), width)]


def _numbers(seqs: list[int]) -> list[bytes]:
    """Each in digits, null for 0."""
    numbers = str(seqs)[1:-1].encode().split(b", ")
    return numbers if all(seqs) else [b"null" if number == b"0" else number for number in numbers]


def _bodies(bodies: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The name of each body, `text` or `data`, and what follows: without the quotes at both ends."""
    names = [b'text":"'] * len(bodies)
    joined = b" ".join(bodies)
    try:
        text = joined.decode()
    except UnicodeDecodeError:
        if len(bodies) == 1:
            return [b'data":"'], [base64.b64encode(joined)]
        each = [_bodies([body]) for body in bodies]
        return [name for (name,), _ in each], [body for _, (body,) in each]
    if len(_encode(text)) == len(joined) + 2:
        return names, bodies  # nothing in them needs a backslash
    # inside a JSON string no quote stands without a backslash: this is found between two of them only
    return names, _encode([body.decode() for body in bodies])[2:-2].split(b'","')


def _ends(messages: Sequence[Message], was: str | None) -> list[bytes]:
    """The ends of lines, from the last quote of the body on."""
    more = b"}" if was is None else f',"was":"{was}"}}'.encode()
    if not any(map(_headers_of, messages)):
        return [b'","headers":{}' + more] * len(messages)
    return [b'","headers":%b%b' % (_encode(message.headers), more) for message in messages]
