"""The message's bytes, the same on disk, on the wire and in the other node's log."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.wire.codec import CONTROL, NESTED, Message, check_payload, decode_ids, decode_payload, encode

SAMPLE = Message(bytes(range(16)), 0, 1_700_000_000_000_000_000, "ana", {"k": "v"}, b"hola\xff")
SAMPLE_BYTES = bytes.fromhex(
    "96"  # six places
    "c410" + bytes(range(16)).hex() + "00"  # id, kind
    "cf17979cfe362a0000"  # sent_ns
    "a3616e61"  # user
    "81a16ba176"  # headers
    "c405686f6c61ff"  # body
)

messages = st.builds(
    Message,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 255),
    st.integers(0, (1 << 64) - 1),
    st.text(max_size=20),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    st.binary(max_size=100),
)


def test_a_message_has_these_bytes() -> None:
    """Once written, every later msgd must read them."""
    assert SAMPLE_BYTES == encode(SAMPLE)
    assert [SAMPLE] == decode_payload(SAMPLE_BYTES, 1)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(messages, max_size=20))
def test_payloads_put_together_are_a_payload(several: list[Message]) -> None:
    payload = b"".join(encode(m) for m in several)
    assert several == decode_payload(payload, len(several))
    assert several == decode_payload(memoryview(payload), len(several))
    assert [m.id for m in several] == decode_ids(payload, len(several))


@pytest.mark.slow
@settings(deadline=None)
@given(messages)
def test_encoding_what_was_decoded_gives_the_same_bytes(message: Message) -> None:
    """Pieces of a record are found by the length of their messages, so this must hold."""
    raw = encode(message)
    assert raw == encode(decode_payload(raw, 1)[0])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_is_an_error(count: int) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_payload(SAMPLE_BYTES * 2, count)


def test_every_cut_is_an_error() -> None:
    for end in range(len(SAMPLE_BYTES)):
        with pytest.raises(msgspec.MsgspecError):
            decode_payload(SAMPLE_BYTES[:end], 1)


def test_bytes_behind_are_an_error() -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_payload(SAMPLE_BYTES + b"\0", 1)


def test_further_places_of_a_newer_version_are_ignored() -> None:
    newer = b"\x97" + SAMPLE_BYTES[1:] + b"\xa3new"
    assert [SAMPLE, SAMPLE] == decode_payload(newer + SAMPLE_BYTES, 2)
    assert [SAMPLE.id, SAMPLE.id] == decode_ids(newer + SAMPLE_BYTES, 2)


def test_a_body_that_is_text_or_a_wrong_type_is_an_error() -> None:
    for wrong in (
        [b"\0" * 16, 0, 1, "u", {}, 5],
        [b"\0" * 16, "text", 1, "u", {}, b""],
        [b"\0" * 16, 0, 1, "u"],
    ):
        with pytest.raises(msgspec.MsgspecError):
            decode_payload(msgspec.msgpack.encode(wrong), 1)


# --- at the door --------------------------------------------------------------------------------------------


def with_more(more: bytes) -> bytes:
    """A message of a newer version: one more place."""
    return b"\x97" + SAMPLE_BYTES[1:] + more


def nested(depth: int, around: bytes = b"\x91") -> bytes:
    return around * depth + b"\x90"


@pytest.mark.parametrize("more", [b"\x01", b"\xc0", nested(NESTED - 4), nested(NESTED - 4, b"\x81\xa1a")])
def test_what_a_newer_version_adds_is_kept(more: bytes) -> None:
    check_payload(SAMPLE_BYTES + with_more(more), 2)


@pytest.mark.parametrize(
    "more",
    [
        nested(NESTED),
        nested(NESTED, b"\x81\xa1a"),
        b"\x81" + nested(NESTED) + b"\x01",
        nested(900),
        nested(90_000),
    ],
    ids=["lists", "maps", "keys", "near the end of the stack", "beyond it"],
)
def test_what_is_nested_without_end_is_refused(more: bytes) -> None:
    """Else the link's worker could still read it, and the index, deeper in its stack, could not."""
    with pytest.raises(ValueError, match="nested"):
        check_payload(with_more(more), 1)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"id": bytes(15)}, "id"),
        ({"kind": CONTROL}, "kind 5"),
        ({"kind": -1}, "kind -1"),
        ({"kind": 256}, "kind 256"),
        ({"sent_ns": -1}, "sent at"),
    ],
)
def test_a_message_that_nobody_sends_is_refused(change: dict[str, object], word: str) -> None:
    """A peer cannot write lines into this node's own story, which `log --kind control` shows."""
    with pytest.raises(ValueError, match=word):
        check_payload(encode(msgspec.structs.replace(SAMPLE, **change)), 1)
