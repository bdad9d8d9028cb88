"""Varlink's framing, pure: bytes to calls and replies and back, whatever the chunks."""

import json
import subprocess
import sys
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from varlink import scanner

from msgd import errors
from msgd.wire import varlink

CALLS = [
    (b'{"method":"a.B","parameters":{}}', ("a.B", {}, False, False)),
    (b'{"method":"a.B"}', ("a.B", {}, False, False)),
    (b'{"method":"a.B","parameters":null}', ("a.B", {}, False, False)),
    (b'{"method":"a.B","parameters":{"x":[1]},"more":true}', ("a.B", {"x": [1]}, True, False)),
    (b' {"method": "a.B", "oneway": true, "unknown": 1} ', ("a.B", {}, False, True)),
]
BAD_CALLS = [b"", b"{", b"[]", b'"a.B"', b"{}", b'{"method":1}', b'{"method":"B"}', b"\xff{}", b"{}{}"]
BAD_CALLS += [
    b'{"method":"a.B","parameters":[]}',
    b'{"method":"a.B","more":1}',
    b'{"method":"a.B","parameters":{"x":NaN}}',
]
BAD_CALLS += [b"[" * 100_000, b'{"method":"a.B","parameters":{"x":' + b"9" * 5000 + b"}}"]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@pytest.mark.parametrize(("frame", "expected"), CALLS)
def test_call_is_parsed_whatever_is_left_out(frame: bytes, expected: tuple[object, ...]) -> None:
    """Missing, null and {} parameters are the same; unknown members are skipped."""
    call = varlink.parse_call(frame)
    assert expected == (call.method, call.parameters, call.more, call.oneway)


@pytest.mark.parametrize("frame", BAD_CALLS)
def test_bytes_that_are_no_call_are_refused(frame: bytes) -> None:
    """Whatever is wrong with them, it is a FrameError and no other exception."""
    with pytest.raises(varlink.FrameError):
        varlink.parse_call(frame)


def test_built_call_and_replies_are_parsed_back() -> None:
    """What one end builds is what the other end reads."""
    frame = varlink.call("a.B", {"text": "é\0\n\ud800", "none": None}, more=True)
    assert frame.endswith(b"\0") and frame.count(b"\0") == 1
    call = varlink.parse_call(frame[:-1])
    assert (call.method, call.parameters, call.more) == ("a.B", {"text": "é\0\n\ud800"}, True)

    reply = varlink.parse_reply(varlink.reply({"n": 1}, continues=True)[:-1])
    assert (reply.parameters, reply.continues, reply.error) == ({"n": 1}, True, "")
    refusal = varlink.parse_reply(varlink.error("a.No", {"message": "m"})[:-1])
    assert (refusal.parameters, refusal.continues, refusal.error) == ({"message": "m"}, False, "a.No")
    assert varlink.parse_reply(varlink.reply()[:-1]).parameters == {}


@pytest.mark.parametrize("frame", [b'{"error":1}', b'{"continues":"yes"}', b'{"parameters":1}', b"null"])
def test_bytes_that_are_no_reply_are_refused(frame: bytes) -> None:
    """A client hears of it as a FrameError."""
    with pytest.raises(varlink.FrameError):
        varlink.parse_reply(frame)


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\0", b"")), max_size=8), st.data())
def test_frames_are_the_same_under_any_chunking(frames: list[bytes], data: st.DataObject) -> None:
    """Fed in any pieces, a stream gives the same frames, and keeps the beginning of the next one."""
    stream = b"".join(frame + b"\0" for frame in frames) + b"tail"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    splitter = varlink.Splitter()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        splitter.feed(stream[start:end])
        while (frame := splitter.next()) is not None:
            found.append(frame)
    assert frames == found
    splitter.feed(b"\0")
    assert splitter.next() == b"tail"


def test_frame_over_the_limit_is_refused_whole_or_not() -> None:
    """A frame of the limit passes; one byte more does not, ended or not; frames before it are given first."""
    splitter = varlink.Splitter(limit_bytes=10)
    splitter.feed(b"x" * 10 + b"\0ok\0" + b"y" * 11 + b"\0")
    assert splitter.next() == b"x" * 10
    assert splitter.next() == b"ok"
    with pytest.raises(varlink.FrameTooLongError):
        splitter.next()
    splitter = varlink.Splitter(limit_bytes=10)
    splitter.feed(b"z" * 6)
    assert splitter.next() is None
    splitter.feed(b"z" * 5)
    with pytest.raises(varlink.FrameTooLongError):
        splitter.next()


@given(json_values)
def test_json_is_that_of_the_standard_library(value: object) -> None:
    """The C scanner and encoder taken directly say what `json` says."""
    assert json.loads(json.dumps(value)) == varlink.loads(varlink.dumps(value))
    assert value == json.loads(varlink.dumps(value))


def test_frame_text_is_safe_in_a_stream() -> None:
    """No NUL gets out, whatever the text, and half a surrogate pair is still UTF-8."""
    data = varlink.dumps({"a": "\0\ud83d", "é": "\x01"})
    assert b"\0" not in data
    assert varlink.loads(data) == {"a": "\0\ud83d", "é": "\x01"}


@pytest.mark.slow
def test_without_the_c_parts_json_itself_serves() -> None:
    """Another Python has no `_json`: everything is as before, only slower to import."""
    program = (
        "import sys; sys.modules['_json'] = None\n"
        "from msgd.wire import varlink as v\n"
        "assert v.loads(v.dumps({'a': [1.5, 'é\\0']})) == {'a': [1.5, 'é\\0']}\n"
        "assert v.quote('\"') == '\"\\\\\"\"'\n"
        "try: v.loads(b'[NaN]')\n"
        "except v.FrameError: print('fine')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("fine\n", "")


# --- the interface's description ------------------------------------------------------------------------


def interface() -> scanner.Interface:
    return scanner.Interface(files("msgd").joinpath("org.msgd.Control.varlink").read_text())


def test_description_is_parsed_by_a_foreign_client() -> None:
    """The package `varlink` from PyPI reads the file that the daemon serves, every member with a comment."""
    found = interface()
    assert found.name == errors.INTERFACE
    methods = {name for name, member in found.members.items() if isinstance(member, scanner._Method)}
    assert {
        "Send", "SendMany", "Log", "Show", "Why", "Queue", "Cancel", "Retry", "Peers", "PeerAdd",
        "PeerRemove", "PeerRename", "PeerBlock", "PeerUnblock", "PeerRekey", "Pairs", "PairAsk", "PairAccept",
        "PairReject", "PairInvite", "PairJoin", "Identity", "IdentityRotate", "Verify", "Recover", "Status",
        "Reload", "DiskUsage", "Vacuum",
        "Export", "ImportPart", "Import",
        "FileList", "FilePut", "FileGet", "FileDup", "FileRemove",
        "SendGroup", "Groups", "FileCast", "FileCastBegin", "FileCasts", "FileCastCancel",
        "RecvBegin", "RecvNext", "RecvSettle",
        "Consumers", "ConsumerQueue", "ConsumerRetry", "ConsumerRemove",
    } == methods  # fmt: skip
    assert [name for name, member in found.members.items() if not member.doc.strip()] == []


def test_description_names_every_error_that_the_socket_carries() -> None:
    """And no other; `Unreachable` is msgctl's own."""
    described = {n for n, member in interface().members.items() if isinstance(member, scanner._Error)}
    assert set(errors.BY_NAME) - {"Unreachable"} == described
