"""The message's bytes, the same on disk, on the wire and in the other node's log."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msgd.wire.codec import Message, decode_ids, decode_payload, encode

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
