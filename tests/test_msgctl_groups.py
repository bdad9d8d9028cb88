"""`msgctl send @GROUP` against a real socket: lines, exit codes, a terminal's table, lost connections."""

import json
import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from msgd.wire.varlink import Call
from tests.control_server import Connection, ControlServer
from tests.msgctl_run import Runner
from tests.terminal import Terminal

CLOCK_NS = 1_795_262_400_131_000_000  # 12:00:00.131


def receipt(peer: str, state: str, **more: Any) -> dict[str, Any]:
    is_there = state in ("stored", "handled")
    stored = {"receipt_at_ns": CLOCK_NS, "elapsed_ms": 8.2} if is_there else {"receipt_at_ns": None}
    if state == "handled":
        state, stored = "stored", {**stored, "handled_at_ns": CLOCK_NS, "handled_by": "print"}
    common = {
        "id": "i-d",
        "seq": None,
        "reason": None,
        "stored_at_ns": 1,
        "queued_at_ns": 1,
        "elapsed_ms": 1.0,
    }
    waits = {"next_try_s": None, "duplicate": False, "pairing": None}
    return {"peer": peer, "state": state, **common, **waits, **stored, **more}


def answers(wanted: int, *each: Sequence[dict[str, Any]], last: threading.Event | None = None) -> Any:
    """A script: a reply for each of these lists of receipts, the last one after the event."""

    def script(connection: Connection, call: Call) -> None:
        stored: set[str] = set()
        for at, receipts in enumerate(each):
            assert last is None or at < len(each) - 1 or last.wait(20)
            level = call.parameters["wait"]
            stored |= {
                r["peer"] for r in receipts if level in (r["state"], r.get("handled_at_ns") and "handled")
            }
            reply = {"receipts": list(receipts), "reached": len(stored), "wanted": wanted}
            connection.reply(reply, continues=at < len(each) - 1)

    return script


QUEUED = [receipt("node2", "queued"), receipt("node3", "queued")]


def test_in_a_pipe_each_member_has_one_line(server: ControlServer, run: Runner) -> None:
    """First those that are final, as they come."""
    away = receipt("node2", "queued", reason="offline", next_try_s=20.0)
    server.script["SendGroup"] = answers(2, QUEUED, [receipt("node3", "stored")], [away])
    done = run("send", "@web", "hola", "-H", "a=b")
    assert (
        "i-d stored node3 12:00:00.131 (8 ms)\ni-d queued node2 (offline, next try in 20 s)\n",
        0,
    ) == (done.out, done.code)
    (sent,) = server.called("SendGroup")
    assert {
        "group": "@web",
        "message": {"id": sent["message"]["id"], "text": "hola", "headers": {"a": "b"}},
        "wait": "stored",
        "timeout_ms": pytest.approx(3000, abs=200),
    } == sent


def test_json_is_one_receipt_a_line(server: ControlServer, run: Runner) -> None:
    server.script["SendGroup"] = answers(2, QUEUED, [receipt("node3", "stored")])
    found = run("send", "@web", "hola", "-o", "json").objects
    assert [("node3", "stored"), ("node2", "queued")] == [(each["peer"], each["state"]) for each in found]
    assert "2026-11-21T12:00:00.131000000Z" == found[0]["receipt_at"]


@pytest.mark.parametrize(
    ("words", "states", "code"),
    [
        ((), ("queued", "stored"), 0),
        ((), ("held", "stored"), 4),
        ((), ("expired", "queued"), 6),
        (("--wait=queued",), ("queued", "queued"), 0),
        (("--wait",), ("stored", "stored"), 0),
        (("--wait", "stored"), ("queued", "stored"), 5),
        (("--wait",), ("held", "stored"), 4),
        (("--wait",), ("rejected", "stored"), 6),
        (("--quorum", "1"), ("queued", "stored"), 0),
        (("--quorum", "1"), ("expired", "stored"), 0),
        (("--quorum", "1"), ("expired", "queued"), 5),
        (("--quorum", "2"), ("expired", "queued"), 6),
        (("--wait", "stored", "--quorum", "2", "--timeout", "30s"), ("held", "queued"), 4),
        (("--wait", "handled"), ("stored", "handled"), 5),
        (("--wait", "handled", "--quorum", "1"), ("stored", "handled"), 0),
        (("--wait=handled",), ("handled", "expired"), 6),
    ],
)
def test_the_exit_code_is_the_quorums(
    server: ControlServer, run: Runner, words: tuple[str, ...], states: tuple[str, str], code: int
) -> None:
    wanted = int(words[words.index("--quorum") + 1]) if "--quorum" in words else 2
    rows = [receipt(peer, state) for peer, state in zip(("node2", "node3"), states, strict=True)]
    server.script["SendGroup"] = answers(wanted, rows)
    done = run("send", "@web", "hola", *words, "-q")
    assert (code, "", "") == (done.code, done.out, done.err)
    assert ("--quorum" in words) == ("quorum" in server.called("SendGroup")[0])


def test_whoever_waits_for_handled_sees_a_line_when_it_is(server: ControlServer, run: Runner) -> None:
    steps = ([receipt("node2", "stored")], [receipt("node2", "handled")], [receipt("node3", "stored")])
    server.script["SendGroup"] = answers(2, *steps)
    done = run("send", "@web", "hola", "--wait=handled")
    assert (
        "i-d handled node2 12:00:00.131 (by print, 8 ms)\ni-d stored node3 12:00:00.131 (8 ms)\n" == done.out
    )
    assert 5 == done.code


def test_a_held_member_is_told_with_the_next_step(server: ControlServer, run: Runner) -> None:
    pairing = {"detail": "node2 has another key.", "next": "msgctl peer rekey node2", "there": None}
    held = receipt(
        "node2", "held", reason="key-changed", pairing={**pairing, "words": None, "accepted": False}
    )
    server.script["SendGroup"] = answers(2, [held, receipt("node3", "stored")])
    done = run("send", "@web", "hola")
    assert 4 == done.code
    assert "node2 has another key." in done.err
    assert "msgctl peer rekey node2" in done.err


def test_a_lost_connection_repeats_the_call_with_the_same_id(server: ControlServer, run: Runner) -> None:
    calls = iter(range(3))
    whole = answers(1, [receipt("node2", "stored", duplicate=True)])

    def script(connection: Connection, call: Call) -> None:
        match next(calls):
            case 0:
                connection.cut()
            case 1:
                connection.error("Uncertain", "the log process ended")
            case _:
                whole(connection, call)

    server.script["SendGroup"] = script
    done = run("send", "@web", "hola", "--timeout", "20")
    assert ("i-d stored node2 12:00:00.131 (8 ms)\n", 0) == (done.out, done.code), "not `sent before`"
    assert 1 == len({call["message"]["id"] for call in server.called("SendGroup")})


def test_whatever_stays_unknown_is_told(server: ControlServer, run: Runner) -> None:
    server.script["SendGroup"] = lambda connection, call: connection.cut()
    done = run("send", "@web", "hola", "--timeout", "0.1")
    assert 1 == done.code
    assert "unknown for whom the message was kept" in done.err


def test_groups_are_listed_with_their_members(server: ControlServer, run: Runner) -> None:
    members = [
        {"peer": "node2", "state": "connected", "reason": None, "queued": 0},
        {"peer": "node3", "state": "away", "reason": "offline", "queued": 7},
    ]
    groups = [{"name": "web", "members": members}, {"name": "all", "members": []}]
    server.script["Groups"] = lambda connection, call: connection.reply({"groups": groups})
    assert [
        ["GROUP", "MEMBER", "STATE", "QUEUED", "REASON"],
        ["@web", "node2", "connected", "0"],
        ["@web", "node3", "away", "7", "offline"],
        ["@all", "-", "nobody", "0"],
    ] == [line.split() for line in run("group").out.splitlines()]
    assert groups == run("group", "ls", "-o", "json").objects


# --- on a terminal ------------------------------------------------------------------------------------------


def screen_of(written: str) -> list[str]:
    """What stands on a terminal's screen: lines, moved in by CSI A and B, ended by CSI K."""
    lines, row, column = [""], 0, 0
    for piece in re.findall(r"\x1b\[\d*[A-Za-z]|[^\x1b]", written):
        if piece[0] == "\x1b":
            count, what = int(piece[2:-1] or 1), piece[-1]
            row += {"A": -count, "B": count}.get(what, 0)
            lines[row] = lines[row][:column] if what == "K" else lines[row]
        elif piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


@pytest.mark.slow
def test_on_a_terminal_the_rows_fill_in_where_they_stand(server: ControlServer) -> None:
    queued = [receipt(f"node{n}", "queued", reason="offline") for n in (2, 3, 4)]
    may_end = threading.Event()
    steps = (queued, [receipt("node3", "stored")], [receipt("node2", "stored")])
    server.script["SendGroup"] = answers(2, *steps, last=may_end)
    words = ("--socket", server.path, "send", "@web", "hola", "--quorum", "2")
    with Terminal(*words, env={"TERM": "xterm", "TZ": "UTC0", "NO_COLOR": "1"}) as terminal:
        terminal.see("1 stored, 2 queued of 3; 1 of 2 needed")
        terminal.see("node3  stored     12:00:00.131  8 ms")
        before = len(terminal.shown)
        may_end.set()
        assert 0 == terminal.end()
    assert [
        "i-d @web: 2 stored, 1 queued of 3; 2 of 2 needed",
        "  node2  stored     12:00:00.131  8 ms",
        "  node3  stored     12:00:00.131  8 ms",
        "  node4  queued                   offline",
        "",
    ] == screen_of(terminal.shown)
    assert len(terminal.shown) - before < 150, "one row and the title, not the whole table"


@pytest.mark.slow
@pytest.mark.parametrize(("members", "columns"), [(3, 20), (100, 80)])
def test_what_does_not_fit_breaks_nothing(server: ControlServer, members: int, columns: int) -> None:
    """Rows are cut; of more members than the terminal has lines the counts are shown until the end."""
    names = [f"node{n}" for n in range(members)]
    queued = [receipt(name, "queued", reason="a long reason for that") for name in names]
    server.script["SendGroup"] = answers(members, queued, [receipt("node1", "stored")], [])
    words = ("--socket", server.path, "send", "@web", "hola")
    env = {"TERM": "xterm", "TZ": "UTC0", "NO_COLOR": "1", "COLUMNS": str(columns)}
    with Terminal(*words, env=env) as terminal:
        assert 0 == terminal.end()
    lines = screen_of(terminal.shown)
    assert members + 2 == len(lines)
    assert columns > max(map(len, lines))
    assert 1 == sum("stored  " in line for line in lines)


def test_without_a_terminal_that_moves_there_are_lines(
    server: ControlServer, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    server.script["SendGroup"] = answers(2, QUEUED)
    assert "\x1b" not in run("send", "@web", "hola", terminal=True).out


def test_foreign_text_moves_nothing(server: ControlServer, run: Runner) -> None:
    bad = receipt("node2", "queued", reason="\x1b[2J")
    server.script["SendGroup"] = answers(1, [bad])
    assert "\\x1b[2J" in run("send", "@web", "hola").out
    assert json.loads(run("send", "@web", "hola", "-o", "json").out)["reason"] == "\x1b[2J"
