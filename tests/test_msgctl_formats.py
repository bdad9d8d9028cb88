"""What `msgctl log` prints beside plain messages: chosen fields, changes, clock steps, lines that fit."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgctl import columns, export
from msgd.wire.varlink import Call
from tests.control_server import PEER, Connection, ControlServer
from tests.msgctl_run import Runner

AT_NS = 1_795_262_400_131_000_000  # 2026-11-21 12:00:00.131 UTC
HOUR_NS = 3_600_000_000_000


def keep(server: ControlServer, id: str, **fields: Any) -> dict[str, Any]:
    message = server.keep("node3", {"id": id, "text": "hola"})
    message.update({"sent_at_ns": AT_NS, "stored_at_ns": AT_NS, "receipt_at_ns": AT_NS, **fields})
    return message


# --- --fields -----------------------------------------------------------------------------------------------


def test_json_has_the_fields_that_were_asked_for(server: ControlServer, run: Runner) -> None:
    """In that order; the cursor as well; `text` is data where it is none, `data` always base64."""
    keep(server, "a", headers={"k": "v"})
    keep(server, "b", text=None, data="/wA=")
    found = run("log", "-o", "json", "--fields", "seq,id, cursor,headers,text").objects
    assert found == [
        {"seq": 1, "id": "a", "cursor": "c0", "headers": {"k": "v"}, "text": "hola"},
        {"seq": 2, "id": "b", "cursor": "c1", "headers": {}, "data": "/wA="},
    ]
    assert list(found[0]) == ["seq", "id", "cursor", "headers", "text"]
    data = [one["data"] for one in run("log", "-o", "json", "--fields=data").objects]
    assert [base64.b64decode(one) for one in data] == [b"hola", b"\xff\0"]


def test_cat_prints_chosen_values_one_a_line(server: ControlServer, run: Runner) -> None:
    """As journalctl; a field without a value has no line."""
    keep(server, "a", reason=None, headers={"k": "v", "l": "w"}, text="two\nlines")
    out = run("log", "-o", "cat", "--fields", "id,reason,stored_at_ns,headers,text").out
    assert out == f"a\n{AT_NS}\nk=v\nl=w\ntwo\nlines\n"


def test_verbose_shows_chosen_fields_under_the_id(server: ControlServer, run: Runner) -> None:
    """A time by either of its names."""
    keep(server, "a")
    out = run("log", "-o", "verbose", "--fields", "state,stored_at").out
    assert out == "a\n    state:     stored\n    stored:    2026-11-21 12:00:00.131000000 +0000\n\n"


# --- export -------------------------------------------------------------------------------------------------


def entries(raw: bytes) -> list[list[tuple[str, bytes]]]:
    """The journal export format, read as systemd documents it."""
    found: list[list[tuple[str, bytes]]] = [[]]
    while raw:
        line, _, raw = raw.partition(b"\n")
        if not line:
            found.append([])
        elif b"=" in line:
            name, _, value = line.partition(b"=")
            found[-1].append((name.decode(), value))
        else:
            size = int.from_bytes(raw[:8], "little")
            found[-1].append((line.decode(), raw[8 : 8 + size]))
            assert raw[8 + size : 9 + size] == b"\n"
            raw = raw[9 + size :]
    assert found.pop() == []
    return found


def test_export_is_the_journal_export_format(server: ControlServer, run: Runner) -> None:
    """Every field, a header for each, bodies of any bytes."""
    keep(server, "a", reason=None, headers={"k": "v", "x\ny": "="}, text="tab\tis plain é")
    keep(server, "b", text=None, data="/wA=", seq=None)
    first, second = entries(run("log", "-o", "export").raw)
    assert dict(first) | {"HEADER": b""} == {
        "__CURSOR": b"c0",
        "__REALTIME_TIMESTAMP": b"1795262400131000",
        "_HOSTNAME": b"node1",
        "SYSLOG_IDENTIFIER": b"msgd",
        "MSG_ID": b"a",
        "PEER": b"node3",
        "DIRECTION": b"out",
        "SEQ": b"1",
        "KIND": b"text",
        "STATE": b"stored",
        "FROM": b"node1",
        "TO": b"node3",
        "USER": b"ana",
        "SENT_AT": b"2026-11-21T12:00:00.000000001Z",
        "SENT_AT_NS": str(AT_NS).encode(),
        "STORED_AT": b"2026-11-21T12:00:00.000000002Z",
        "STORED_AT_NS": str(AT_NS).encode(),
        "RECEIPT_AT": b"2026-11-21T12:00:00.000000003Z",
        "RECEIPT_AT_NS": str(AT_NS).encode(),
        "HEADER": b"",
        "MESSAGE": "tab\tis plain é".encode(),
    }
    assert [value for name, value in first if name == "HEADER"] == [b"k=v", b"x\ny=="]
    assert dict(second)["MESSAGE"] == b"\xff\0" and "SEQ" not in dict(second)
    chosen = entries(run("log", "-o", "export", "--fields", "text,peer").raw)
    assert [name for name, _ in chosen[0]] == ["__CURSOR", "__REALTIME_TIMESTAMP", "MESSAGE", "PEER"]


@given(st.binary(max_size=60))
def test_any_body_survives_the_export(body: bytes) -> None:
    """Whatever bytes, read back as they were."""
    message = {"stored_at_ns": 1, "data": base64.b64encode(body).decode()}
    assert [[("__REALTIME_TIMESTAMP", b"0"), ("MESSAGE", body)]] == entries(export.entry(message, ("text",)))


# --- what people see ----------------------------------------------------------------------------------------


def test_change_shows_both_states(server: ControlServer, run: Runner) -> None:
    """Also the quiet ones; as `was` in JSON."""
    keep(server, "a", was="queued")
    keep(server, "b", was="queued", state="expired", reason="not sent in time")
    assert run("log").out == (
        "Nov 21 12:00:00 node1 -> node3 [queued -> stored]: hola\n"
        "Nov 21 12:00:00 node1 -> node3 [queued -> expired: not sent in time]: hola\n"
    )
    assert "    state:     stored\n    was:       queued\n" in run("log", "-o", "verbose").out
    assert [one["was"] for one in run("log", "-f", "-o", "json").objects] == ["queued", "queued"]


def test_clock_step_is_a_line_of_its_own(server: ControlServer, run: Runner) -> None:
    """Between the messages between which it happened; not where it was not asked for."""
    message = keep(server, "a")

    def stepped(connection: Connection, call: Call) -> None:
        connection.reply({"messages": [message]}, continues=True)
        if call.parameters.get("steps"):
            for by_ns in (HOUR_NS, -90_000_000_000):
                step = {"clock_step_ns": by_ns, "at_ns": AT_NS}
                connection.reply({"messages": [], "steps": [step]}, continues=True)
        connection.reply({"messages": [message]})

    server.script["Log"] = stepped
    line = "Nov 21 12:00:00 node1 -> node3: hola\n"
    assert run("log").out == (
        f"{line}-- The clock was set forward by 1 h, to Nov 21 12:00:00 --\n"
        f"-- The clock was set back by 1 min 30 s, to Nov 21 12:00:00 --\n{line}"
    )
    assert run("log", "-q").out == line + line
    assert run("log", "-o", "cat").out == "hola\nhola\n"


def test_person_is_told_that_there_is_nothing(server: ControlServer, run: Runner) -> None:
    """On a terminal, unless quiet; scripts hear nothing."""
    assert run("log", terminal=True).out == "-- No entries --\n"
    assert run("log", "-q", terminal=True).out == ""
    assert run("log", "-o", "json", terminal=True).out == ""


def test_nothing_is_no_sentence_in_a_pipe(server: ControlServer, run: Runner) -> None:
    """`[ -z "$(msgctl log …)" ]` is a question that scripts ask."""
    assert run("log").out == ""


def test_lines_are_cut_only_where_that_is_asked_for(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """journalctl's way: whole without --no-full, else one line with an ellipsis, wide letters counted."""
    keep(server, "a", text="日本語日本語 and more")
    keep(server, "b", text="one\ntwo")
    keep(server, "c", text="fits")
    before = "Nov 21 12:00:00 node1 -> node3: "
    monkeypatch.setenv("COLUMNS", str(len(before) + 6))
    assert run("log", "--no-full").out == f"{before}日本…\n{before}one…\n{before}fits\n"
    assert f"{before}日本語日本語 and more\n" in run("log").out


# --- columns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("abc", 3),
        ("é", 1),
        ("e\u0301", 1),
        ("日本", 4),
        ("👩\u200d🚀", 4),
        ("ｆ", 2),
        ("ﾃ", 1),
        ("ż", 1),
    ],
)
def test_width_counts_columns(text: str, expected: int) -> None:
    """Wide letters take two, accents of their own and joiners none."""
    assert expected == columns.width(text)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=30), st.integers(1, 40))
def test_cut_text_fits_and_is_whole_where_it_may(text: str, room: int) -> None:
    """Never wider than asked, and never cut without need."""
    shown = columns.cut(text, room)
    assert columns.width(shown) <= room
    assert shown == text or (shown.endswith("…") and columns.width(text) > room)


def test_pretty_json_says_the_same_as_json(server: ControlServer, run: Runner) -> None:
    """Also of a change."""
    keep(server, "a", was="held")
    assert json.loads(run("log", "-o", "json-pretty").out) == run("log", "-o", "json").objects[0]


def test_tables_stand_straight_with_wide_names(server: ControlServer, run: Runner) -> None:
    """Each column begins below its head."""
    peers = [{**PEER, "name": name} for name in ("日本", "node3")]
    server.script["Peers"] = lambda connection, call: connection.reply({"peers": peers})
    head, wide, plain = run("peer").out.splitlines()[:3]
    assert columns.width(wide[: wide.index("away")]) == head.index("STATE") == plain.index("away")
