"""Finished JSON lines: the same, byte by byte, as what msgctl makes of each message."""

import tempfile
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msgctl.messages import as_json
from msgd import model, showing
from msgd.lines import BETWEEN, Lines, rfc3339
from msgd.parts import Part
from msgd.rows import Filter, kind_name
from msgd.wire.codec import Message
from msgd.wire.varlink import dump_text
from tests.message_world import World

TEXTS = st.text() | st.text(',"\\\n\t\x00\x1f\x7f\u2028é😀a', max_size=8)
MESSAGES = st.builds(
    Message,
    id=st.binary(min_size=16, max_size=16),
    kind=st.integers(0, 255),
    sent_ns=st.integers(0, (1 << 64) - 1) | st.integers(0, 2_000_000_000),
    user=TEXTS,
    headers=st.dictionaries(TEXTS, TEXTS, max_size=2),
    body=st.binary() | TEXTS.map(str.encode),
)
CALM = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def as_before(message: dict[str, Any]) -> str:
    """The line that msgctl prints of a message that came as an object."""
    return dump_text(as_json(message))


@settings(CALM, max_examples=300)
@given(
    st.lists(MESSAGES, min_size=1, max_size=3),
    st.sampled_from((model.OUT, model.IN, 0)),
    st.integers(0, 3),
    st.none() | TEXTS,
    st.none() | st.integers(0, 1 << 62),
)
def test_line_is_what_msgctl_makes_of_the_object(
    messages: list[Message], direction: int, seq: int, reason: str | None, receipt_at_ns: int | None
) -> None:
    """Every field, whatever it holds."""
    way = ("node b", "home") if direction == model.IN else ("home", "node b")
    expected = []
    for index, message in enumerate(messages):
        row = SimpleNamespace(
            id=message.id,
            peer="node b",
            direction=model.DIRECTIONS.get(direction, ""),
            seq=seq + index if seq else None,
            kind=kind_name(message.kind),
            state="stored",
            reason=reason,
            from_=way[0],
            to=way[1],
            user=message.user,
            sent_at_ns=message.sent_ns,
            stored_at_ns=77,
            receipt_at_ns=receipt_at_ns,
            headers=message.headers,
            cursor="",
            handled_at_ns=None,
            handled_by=None,
            body=message.body,
        )
        expected.append(as_before(showing.message(row)))  # type: ignore[arg-type]
    lines, count = Lines("home"), len(messages)
    heads = [lines.head(direction, "node b", "stored", reason)] * count
    seqs = [seq + index if seq else 0 for index in range(count)]
    found = lines.of(messages, seqs, heads, [77] * count, [receipt_at_ns] * count)
    assert [line.encode() for line in expected] == found.split(BETWEEN)


@pytest.mark.parametrize("reverse", [False, True])
def test_parts_hold_the_lines_of_all_rows(reverse: bool) -> None:
    """The same messages in the same order, with the cursor of the last one of each part."""
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        world.send(1, 300, salt=0)
        world.receipt(1, 7)
        world.receive(2, 600, salt=1)
        world.end(1, world.hold(1, 5)[1:3], model.EXPIRED)
        world.commit()
        history = world.history()
        for wanted in (Filter(reverse=reverse), Filter(reverse=reverse, lines=450), Filter(grep="hello")):
            rows = [row for part in history.query(wanted) for row in part]
            cursors = [row.cursor for row in rows]
            told = list(history.told(wanted, as_lines=True))
            lines = [line for part in told if isinstance(part, Part) for line in part.lines.split(BETWEEN)]
            assert [as_before(showing.message(row)).encode() for row in rows] == lines
            at = -1
            for part in told:
                assert isinstance(part, Part)
                at += part.size
                assert cursors[at] == part.cursor
            assert len(rows) - 1 == at
        history.close()
        world.close()


@pytest.mark.parametrize("ns", [0, 1, 999_999_999, 1_000_000_000, (1 << 64) - 1])
def test_time_has_nine_digits_of_fraction(ns: int) -> None:
    """From the first nanosecond on."""
    assert len("1970-01-01T00:00:00.000000000Z") == len(rfc3339(ns))
    assert f"{ns % 1_000_000_000:09d}Z" == rfc3339(ns)[-10:]
