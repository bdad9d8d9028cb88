"""Frames: every struct and its bytes, both ways; not a frame, and not a frame yet, are told apart."""

import re
import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.model import IN, OUT
from msgd.peer.buffer import TLS_RECORD, ReceiveBuffer
from msgd.peer.codec import decode, decode_hello, encode, encode_batch, encode_hello
from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import (
    CODES,
    HANDSHAKE_BYTES,
    LINK_BYTES,
    MAX_SEQ,
    TYPES,
    Batch,
    Frame,
    Hello,
    Pong,
    Refuse,
    clock_sample,
    other,
)
from tests.peer_pair import HEAD, LIMITS, SAMPLES, D, hello

GOLDEN = Path(__file__).parent / "golden" / "peer_frames.txt"
pack = msgspec.msgpack.encode


def golden() -> dict[str, bytes]:
    lines = (line.split() for line in GOLDEN.read_text().splitlines() if line and not line.startswith("#"))
    return {name: bytes.fromhex(digits) for name, digits in lines}


def fill(buffer: ReceiveBuffer, data: bytes) -> None:
    while data:
        space = buffer.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        buffer.filled(count)
        data = data[count:]


def parse(data: bytes | memoryview) -> Frame | None:
    return decode(data[0], data[1:])


@pytest.mark.parametrize("name", SAMPLES)
def test_a_frame_has_its_golden_bytes(name: str) -> None:
    """A frame of version 1 is written today as it was on the first day."""
    assert golden()[name] == encode(SAMPLES[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_golden_bytes_are_read(name: str) -> None:
    """What the first day wrote is read today."""
    buffer = ReceiveBuffer()
    fill(buffer, golden()[name])
    frame = buffer.frame(LINK_BYTES)
    assert frame is not None
    assert SAMPLES[name] == parse(frame)
    assert buffer.frame(LINK_BYTES) is None


@pytest.mark.parametrize("name", SAMPLES)
def test_a_frame_is_read_byte_by_byte(name: str) -> None:
    """Not enough yet is None, at every byte but the last."""
    data, buffer = encode(SAMPLES[name]), ReceiveBuffer()
    for byte in data[:-1]:
        fill(buffer, bytes([byte]))
        assert buffer.frame(LINK_BYTES) is None
    fill(buffer, data[-1:])
    frame = buffer.frame(LINK_BYTES)
    assert frame is not None
    assert SAMPLES[name] == parse(frame)


@pytest.mark.parametrize("name", SAMPLES)
def test_what_follows_a_frame_stays(name: str) -> None:
    """Trailing bytes belong to the next frame."""
    buffer = ReceiveBuffer()
    fill(buffer, encode(SAMPLES[name]) + encode(SAMPLES["ping"])[:-1])
    first = buffer.frame(LINK_BYTES)
    assert first is not None
    assert SAMPLES[name] == parse(first)
    assert buffer.frame(LINK_BYTES) is None
    fill(buffer, encode(SAMPLES["ping"])[-1:])
    second = buffer.frame(LINK_BYTES)
    assert second is not None
    assert SAMPLES["ping"] == parse(second)


def test_every_type_has_a_sample() -> None:
    """No frame is left out of the tables above."""
    assert set(TYPES.values()) == {type(frame) for frame in SAMPLES.values()}


@pytest.mark.parametrize(
    "length", [0, HANDSHAKE_BYTES + 1, LINK_BYTES, 0xFFFFFFFF], ids=["none", "one more", "link", "biggest"]
)
def test_a_length_out_of_bounds_is_refused_at_its_fourth_byte(length: int) -> None:
    """Nothing of the frame is waited for, nor memory taken for it."""
    buffer = ReceiveBuffer()
    head = struct.pack(">I", length)
    fill(buffer, head[:3])
    assert buffer.frame(HANDSHAKE_BYTES) is None
    before = len(buffer.space())
    fill(buffer, head[3:])
    with pytest.raises(RemoteProtocolError, match=f"{length} bytes, expected 1 to {HANDSHAKE_BYTES}"):
        buffer.frame(HANDSHAKE_BYTES)
    assert before - 1 == len(buffer.space())


def test_the_biggest_frames_pass() -> None:
    """The limits themselves are allowed."""
    for limit in (HANDSHAKE_BYTES, LINK_BYTES):
        buffer = ReceiveBuffer()
        fill(buffer, struct.pack(">I", limit) + bytes(limit))
        frame = buffer.frame(limit)
        assert frame is not None
        assert len(frame) == limit


@given(
    st.lists(st.binary(min_size=1, max_size=70_000), max_size=6),
    st.lists(st.integers(1, 40_000), min_size=1, max_size=20),
)
def test_frames_survive_any_chunking(bodies: list[bytes], cuts: list[int]) -> None:
    """Whatever pieces arrive, the frames are the same, views stay whole, and a TLS record always fits."""
    data = b"".join(struct.pack(">I", len(body)) + body for body in bodies)
    buffer, found, at, turn = ReceiveBuffer(), list[memoryview](), 0, 0
    while at < len(data):
        space = buffer.space()
        assert len(space) >= TLS_RECORD
        count = min(cuts[turn % len(cuts)], len(space), len(data) - at)
        turn += 1
        space[:count] = data[at : at + count]
        buffer.filled(count)
        at += count
        while (frame := buffer.frame(LINK_BYTES)) is not None:
            found.append(frame)
    assert bodies == [bytes(frame) for frame in found]


def test_more_than_the_space_cannot_be_filled() -> None:
    """A wrong count is our own mistake, told at once."""
    buffer = ReceiveBuffer()
    with pytest.raises(ValueError, match="more bytes"):
        buffer.filled(len(buffer.space()) + 1)


def test_a_payload_is_never_copied() -> None:
    """Decoded it is a view of what was read; encoded it is the very object."""
    data = bytearray(encode(SAMPLES["batch"])[4:])
    batch = parse(memoryview(data))
    assert isinstance(batch, Batch)
    assert batch.payload.obj is data
    prefix, payload = encode_batch(batch)
    assert payload is batch.payload
    assert encode(SAMPLES["batch"]) == prefix + payload


def test_the_biggest_batch_is_one_frame() -> None:
    """A batch may fill a frame, and not one byte more."""
    prefix, payload = encode_batch(Batch(1, 1, HEAD, memoryview(b"")))
    room = LINK_BYTES - (len(prefix) - 4)
    prefix, payload = encode_batch(Batch(MAX_SEQ, 0xFFFFFFFF, HEAD, memoryview(bytes(room))))
    assert len(prefix) + len(payload) == LINK_BYTES + 4
    with pytest.raises(LocalProtocolError, match=f"more than {room}"):
        encode_batch(Batch(1, 1, HEAD, memoryview(bytes(room + 1))))


POSITION = [b"e" * 16, 0, HEAD]
ROTATION = [b"s" * 44, b"x" * 64, b"y" * 64]


def greet_body(**changes: object) -> bytes:
    return pack({"versions": [1], "bindings": [], "nonce": HEAD, "chain": [], **changes})


def welcome_body(**changes: object) -> bytes:
    link = {"out": POSITION, "in": POSITION}
    return pack({"version": 1, "name": "n", "instance": b"i" * 16, "limits": LIMITS, "link": link, **changes})


BAD = {
    "not msgpack": (1, b"\xc1", "malformed"),
    "empty": (18, b"", "truncated"),
    "map for array": (18, pack({"a": 1}), "Expected `array`"),
    "cut short": (17, pack([6, HEAD, 1, 2])[:-1], "truncated"),
    "something behind": (18, pack([1, 2]) + b"\x00", "trailing"),
    "place missing": (17, pack([6, HEAD, 1]), "at least length 4"),
    "head too short": (17, pack([6, HEAD[1:], 1, 2]), "length >= 32"),
    "head too long": (17, pack([6, HEAD + b"\x00", 1, 2]), "length <= 32"),
    "head is text": (17, pack([6, "a" * 32, 1, 2]), "Expected `bytes`"),
    "negative": (17, pack([-1, HEAD, 1, 2]), "`int` >= 0"),
    "seq of no log": (17, pack([MAX_SEQ + 1, HEAD, 1, 2]), "`int` <="),
    "first seq 0": (16, pack([0, 1, HEAD, b"x"]), "`int` >= 1"),
    "count 0": (16, pack([1, 0, HEAD, b"x"]), "`int` >= 1"),
    "count above u32": (16, pack([1, 1 << 32, HEAD, b"x"]), "`int` <="),
    "payload is text": (16, pack([1, 1, HEAD, "x"]), "Expected `bytes`"),
    "direction 3": (20, pack([3, 1, HEAD]), "`int` <= 2"),
    "epoch of zeros": (21, pack([bytes(16), 1, 0, HEAD, 0, HEAD]), "zeros"),
    "base too high": (21, pack([b"e" * 16, 9, 7, HEAD, 3, HEAD]), "does not follow"),
    "base too low": (21, pack([b"e" * 16, 4, 7, HEAD, 3, HEAD]), "does not follow"),
    "key missing": (4, pack({"retry_s": 1}), "missing required field `code`"),
    "nil code": (4, pack({"code": None}), "Expected `str`"),
    "retry above u32": (4, pack({"code": "limit", "retry_s": 1 << 32}), "`int` <="),
    "detail of 201 bytes": (4, pack({"code": "limit", "detail": "é" * 100 + "x"}), "200 bytes"),
    "bad UTF-8": (4, b"\x81\xa4code\xa1\xff", "utf-8"),
    "nested": (4, b"\x81\xa3new" + b"\x91" * 8000, "recursion"),
    "no version": (1, greet_body(versions=[]), "length >= 1"),
    "version above u16": (1, greet_body(versions=[65536]), "`int` <= 65535"),
    "nonce of 31": (1, greet_body(nonce=HEAD[1:]), "length >= 32"),
    "chain of 9": (1, greet_body(chain=[ROTATION] * 9), "length <= 8"),
    "signature of 63": (2, pack([b"content", b"x" * 63]), "length >= 64"),
    "bad name": (3, welcome_body(name="Node 3"), "name of 6 letters"),
    "commit without name": (5, pack({"commit": HEAD}), "missing required field `name`"),
    "commit under a bad name": (5, pack({"name": "a b", "commit": HEAD}), "name of 3 letters"),
    "commit of 31": (5, pack({"name": "n", "commit": HEAD[1:]}), "length >= 32"),
    "nonce of 33": (6, pack({"nonce": HEAD + b"x"}), "length <= 32"),
    "reveal of nothing": (7, pack({}), "missing required field `nonce`"),
    "reveal is text": (7, pack({"nonce": "a" * 32}), "Expected `bytes`"),
    "verdict of 1": (8, pack({"accept": 1}), "Expected `bool`"),
    "joined under no name": (9, pack({"name": ""}), "name of 0 letters"),
    "no window": (3, welcome_body(limits={"window_bytes": 0}), "`int` >= 1"),
    "link without in": (3, welcome_body(link={"out": POSITION}), "missing required field `in`"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_a_frame_is_the_peers_error(name: str) -> None:
    """Missing, wrongly sized and unreadable bodies: one exception, naming the frame and what is wrong."""
    code, body, why = BAD[name]
    with pytest.raises(RemoteProtocolError, match=f"{TYPES[code].__name__}: .*{re.escape(why)}"):
        decode(code, body)


@given(st.sampled_from(sorted(TYPES)), st.binary(max_size=300))
def test_garbage_is_a_frame_or_the_peers_error(code: int, body: bytes) -> None:
    """Any other exception would be our bug."""
    try:
        frame = decode(code, body)
    except RemoteProtocolError:
        return
    assert isinstance(frame, TYPES[code])


def test_a_newer_version_may_add_keys_and_places() -> None:
    """Unknown keys of maps and further places of arrays are ignored."""
    assert Refuse("limit", 3) == decode(4, pack({"code": "limit", "retry_s": 3, "news": [1, {"x": None}]}))
    assert SAMPLES["ping"] == decode(18, encode(SAMPLES["ping"])[5:].replace(b"\x92", b"\x93", 1) + b"\xc0")


@pytest.mark.parametrize("code", [0, 10, 15, 24, 255])
def test_an_unknown_type_is_no_frame(code: int) -> None:
    """What becomes of it depends on the moment, so it is a value."""
    assert decode(code, b"\xc1\xff") is None


def test_what_the_peer_would_refuse_is_not_sent() -> None:
    """Our own mistakes stay at home."""
    with pytest.raises(LocalProtocolError, match="Expected `int` <="):
        encode(msgspec.structs.replace(SAMPLES["refuse"], retry_s=1 << 32))
    with pytest.raises(LocalProtocolError, match="more than"):
        encode(msgspec.structs.replace(SAMPLES["hello"], content=bytes(HANDSHAKE_BYTES)))
    with pytest.raises(LocalProtocolError, match="length"):
        encode_hello(msgspec.structs.replace(hello(), spki=D.spki[1:]))


def content(**changes: object) -> bytes:
    """A hello as a map, with some keys changed; None takes one out."""
    keys = {**msgspec.msgpack.decode(encode_hello(hello())), **changes}
    return pack({key: value for key, value in keys.items() if value is not None})


def test_a_hello_is_read_back() -> None:
    """What is signed is the map, keys of other wants left out."""
    assert hello() == decode_hello(content())
    keys = set(msgspec.msgpack.decode(content()))
    assert keys == {
        "spki",
        "want",
        "version",
        "binding",
        "instance",
        "dial",
        "name",
        "chain",
        "limits",
        "link",
    }


JOIN = {
    "want": "join",
    "limits": None,
    "link": None,
    "port": 6743,
    "invitation": b"i" * 8,
    "proof": b"p" * 32,
}
PAIR = {"want": "pair", "limits": None, "link": None, "port": 6743}
SERVICE = {"want": "service", "link": None}


@pytest.mark.parametrize("keys", [PAIR, JOIN, SERVICE, {"news": 1}], ids=["pair", "join", "service", "link"])
def test_each_want_has_its_keys(keys: dict[str, object]) -> None:
    """With all of its own keys a hello is good, whatever it asks for."""
    assert isinstance(decode_hello(content(**keys)), Hello)


@pytest.mark.parametrize(
    "keys",
    [
        {"want": "dance"},
        {"binding": "tls-exporter"},
        {"name": ""},
        {"name": "x" * 64},
        {"spki": D.spki[:-1]},
        {"instance": b"i" * 17},
        {"dial": -1},
        {"chain": None},
        {"limits": None},
        {"link": None},
        {**SERVICE, "limits": None},
        {**PAIR, "port": None},
        {**JOIN, "invitation": None},
        {**JOIN, "proof": None},
        {**JOIN, "proof": b"p" * 31},
    ],
)
def test_a_hello_without_form_is_refused(keys: dict[str, object]) -> None:
    """Missing and wrongly sized keys, and values that version 1 does not know."""
    with pytest.raises(RemoteProtocolError, match="Hello"):
        decode_hello(content(**keys))


def test_a_hello_of_garbage_is_refused() -> None:
    """The content is foreign bytes as well."""
    for garbage in (b"", b"\xc1", b"\x81\xa4name\xa1\xff", b"\x91" * 8000):
        with pytest.raises(RemoteProtocolError, match="Hello"):
            decode_hello(garbage)


MS = 1_000_000


@pytest.mark.parametrize(
    ("ahead_ms", "there_ms", "stay_ms", "back_ms", "offset_ms", "round_trip_ms"),
    [
        (0, 5, 0, 5, 0, 10),
        (250, 5, 3, 5, 250, 10),
        (-86_400_000, 5, 3, 5, -86_400_000, 10),
        (0, 8, 0, 2, 3, 10),  # an uneven way is the error of it: at most half the round trip
    ],
)
def test_four_clocks_give_offset_and_round_trip(
    ahead_ms: int, there_ms: int, stay_ms: int, back_ms: int, offset_ms: int, round_trip_ms: int
) -> None:
    """The peer's clock against ours, and the way without the stay."""
    wall, mono = 1_700_000_000_000 * MS, 77 * MS
    t2 = wall + (there_ms + ahead_ms) * MS
    pong = Pong(wall, mono, t2, t2 + stay_ms * MS)
    t4_mono = mono + (there_ms + stay_ms + back_ms) * MS
    assert (offset_ms * MS, round_trip_ms * MS) == clock_sample(pong, t4_mono)


def test_a_round_trip_is_never_negative() -> None:
    """A peer whose clock is set while it answers does not make time run backwards here."""
    assert clock_sample(Pong(100, 0, 100, 10**9), 50)[1] == 0
    assert clock_sample(Pong(100, 0, 10**9, 100), 50)[1] == 50


def test_directions_are_named_from_both_ends() -> None:
    """What is out here is in there."""
    assert (other(OUT), other(IN)) == (IN, OUT)


def test_codes_and_types_agree() -> None:
    """One number, one frame."""
    assert {code: kind for kind, code in CODES.items()} == TYPES
