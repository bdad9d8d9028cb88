"""Changes of an input: of its bytes, of its frames, and of the values inside msgpack and JSON."""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

MOST_BYTES = 1 << 14  # longer inputs are cut: the limits of length are met long before
DEEP = 2000
BORDERS = sorted({n + d for n in (0, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32) for d in (-1, 0, 1)})
NUMBERS = [*BORDERS, *((1 << n) + d for n in (62, 63) for d in (-1, 0, 1)), (1 << 64) - 1, -(1 << 63)]
LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 43, 44, 45, 63, 64, 65, 200, 201, 8192, 20_000)
TEXTS = ("", "a", "-", "A", "node-1", "a" * 63, "a" * 64, "é", "\0", "\u202e", "link", "pair", "join",
         "service", "files", "tls-unique", "none", "unpaired", "x" * 201, "127.0.0.1:1", "[::1]:1", "🂡" * 60,
         "\x1b[2J")  # fmt: skip
WORDS = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
         b"\xc1", b"\x91" * DEEP, b"\x81\xa1a" * DEEP, b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff\0\0\0\0",
         b"\xca\x7f\xc0\0\0", b"\xa2\xff\xfe", b"\xc0", b"\0\0\0\0", b"\xff\xff\xff\xff",
         b"[" * DEEP, b'{"a":' * DEEP)  # fmt: skip

Mutation = Callable[[Random, bytes, list[bytes]], bytes]
Reseal = Callable[[Random, list[tuple[int, bytes]]], list[tuple[int, bytes]]]


# --- bytes --------------------------------------------------------------------------------------------------


def change_bytes(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """One to four small changes anywhere."""
    work = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(work) + 1)
        match rng.randrange(8):
            case 0 if work:
                work[at % len(work)] ^= 1 << rng.randrange(8)
            case 1 if work:
                work[at % len(work)] = rng.randrange(256)
            case 2:
                del work[at : at + rng.choice((1, 2, 4, 32, len(work)))]
            case 3:
                work[at:at] = rng.randbytes(rng.choice((1, 2, 4, 32)))
            case 4:
                work[at:at] = rng.choice(WORDS)
            case 5:
                work[at : at + 4] = struct.pack(">I", rng.choice(NUMBERS) & 0xFFFFFFFF)
            case 6:
                work[at:at] = work[at : at + rng.randrange(1, 64)]
            case _:
                other = rng.choice(corpus)
                work[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(work[:MOST_BYTES])


def change_text(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """The same with letters, as people mistype them."""
    text = list(data.decode(errors="replace"))
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(6):
            case 0:
                text[at : at + 1] = rng.choice("abcdefghijklmnopqrstuvwxyz234567018-9 \t\nAZ=é\0ſ٣")
            case 1:
                del text[at : at + rng.choice((1, 2, 8, 60))]
            case 2:
                text[at:at] = rng.choice(("-", " ", "\n", "msgd1", "aaaaaaaa", "\u2028", "K"))
            case 3:
                text = list("".join(text).swapcase())
            case 4:
                text[at : at + 2] = reversed(text[at : at + 2])
            case _:
                text[at:] = rng.choice(corpus).decode(errors="replace")[at:]
    return "".join(text)[:MOST_BYTES].encode(errors="replace")


# --- values -------------------------------------------------------------------------------------------------


def change_value(rng: Random, value: Any) -> Any:
    """The value with one place in it changed; containers are descended into, and bytes that hold msgpack."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        return _change_map(rng, value)
    if isinstance(value, list) and value and rng.random() < 0.85:
        return _change_list(rng, value)
    if isinstance(value, bytes) and rng.random() < 0.5:
        inner = unpacked(value)
        if isinstance(inner, dict | list):
            return packed(change_value(rng, inner))
    return _other(rng, value)


def _change_map(rng: Random, value: dict[Any, Any]) -> dict[Any, Any]:
    work, key = dict(value), rng.choice(list(value))
    match rng.randrange(10):
        case 0:
            del work[key]
        case 1:
            work[rng.choice(TEXTS)] = work[key]
        case 2:
            work[key] = work[rng.choice(list(work))]
        case _:
            work[key] = change_value(rng, work[key])
    return work


def _change_list(rng: Random, value: list[Any]) -> list[Any]:
    work, at = list(value), rng.randrange(len(value))
    match rng.randrange(8):
        case 0:
            del work[at]
        case 1:
            work.insert(at, work[at])
        case 2:
            work = work * rng.choice((2, 9, 33))
        case _:
            work[at] = change_value(rng, work[at])
    return work[:2048]


def _other(rng: Random, value: Any) -> Any:
    """Something near: the same type at a border; or of another type."""
    if rng.random() < 0.7:
        match value:
            case bool():
                return not value
            case int():
                return rng.choice((rng.choice(NUMBERS), value + 1, value - 1, rng.randrange(1 << 63)))
            case bytes():
                return _other_bytes(rng, value)
            case str():
                return rng.choice((rng.choice(TEXTS), value + "x", value[:-1], value * 100, value.upper()))
    return rng.choice((None, True, 0, -1, 1.5, "", b"", [], {}, [value], {"a": value}, float("nan"),
                       rng.choice(NUMBERS), rng.choice(TEXTS), nested()))  # fmt: skip


def _other_bytes(rng: Random, value: bytes) -> bytes:
    size = rng.choice(LENGTHS)
    match rng.randrange(4):
        case 0:
            return rng.randbytes(len(value))
        case 1:
            return (value + bytes(size))[:size]
        case 2:
            return bytes(len(value))
        case _:
            return bytes(change_bytes(rng, value, [value]))


def nested() -> Any:
    """Lists in lists, deep enough to be noticed and shallow enough to be encoded."""
    value: Any = []
    for _ in range(200):
        value = [value]
    return value


def packed(value: Any) -> bytes:
    """msgpack; numbers beyond 64 bits have none, so they become a text."""
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, TypeError, ValueError, msgspec.MsgspecError):
        return msgspec.msgpack.encode(repr(value))


def unpacked(data: bytes) -> Any:
    """The value, or None: it is no msgpack."""
    try:
        return msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError, TypeError):
        return None


# --- frames between nodes -----------------------------------------------------------------------------------


def split(data: bytes) -> list[tuple[int, bytes]]:
    """(type, body) of each whole frame."""
    frames, at = [], 0
    while at + 5 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if not 1 <= length <= len(data) - at - 4:
            break
        frames.append((data[at + 4], data[at + 5 : at + 4 + length]))
        at += 4 + length
    return frames


def join(frames: list[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack(">IB", len(body) + 1, code) + body for code, body in frames)


def frames_mutation(reseal: Reseal = lambda rng, frames: frames) -> Mutation:
    """Mostly one frame with one value changed and its length set right; `reseal` may sign it anew."""

    def mutate(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
        frames = split(data)
        if not frames or rng.random() < 0.15:
            return change_bytes(rng, data, corpus)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            frames = _change_frames(rng, frames, corpus)
        result = join(reseal(rng, frames))[:MOST_BYTES]
        return change_bytes(rng, result, corpus) if rng.random() < 0.05 else result

    return mutate


def _change_frames(
    rng: Random, frames: list[tuple[int, bytes]], corpus: list[bytes]
) -> list[tuple[int, bytes]]:
    if not frames:
        return split(rng.choice(corpus))
    work, at = list(frames), rng.randrange(len(frames))
    code, body = work[at]
    match rng.randrange(12):
        case 0:
            del work[at]
        case 1:
            work.insert(at, work[at])
        case 2:
            work[at:at] = split(rng.choice(corpus))[:8]
        case 3:
            work[at] = (rng.choice((rng.randrange(1, 10), rng.randrange(16, 32), rng.randrange(256))), body)
        case 4:
            work[at] = (code, change_bytes(rng, body, corpus))
        case _:
            value = unpacked(body)
            work[at] = (
                code,
                change_bytes(rng, body, corpus) if value is None else packed(change_value(rng, value)),
            )
    return work[:64]


# --- JSON ---------------------------------------------------------------------------------------------------


def change_json(rng: Random, data: bytes, corpus: list[bytes]) -> bytes:
    """One value inside a JSON text changed, mostly; NUL-ended frames one by one."""
    if rng.random() < 0.15:
        return change_bytes(rng, data, corpus)
    frames = data.split(b"\0")
    at = rng.randrange(len(frames))
    try:
        value = json.loads(frames[at])
    except (ValueError, RecursionError):
        return change_bytes(rng, data, corpus)
    frames[at] = json.dumps(change_value(rng, value), default=repr, ensure_ascii=rng.random() < 0.5).encode(
        errors="backslashreplace"
    )
    if rng.random() < 0.1:
        frames.insert(at, rng.choice(corpus))
    return b"\0".join(frames)[:MOST_BYTES]
