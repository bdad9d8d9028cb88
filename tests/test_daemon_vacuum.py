"""`msgctl vacuum` and the settings of [history]: what goes, what stays and why, and all else is as before."""

import json
import shutil

import pytest

from tests.nodes import Node, Nodes, pair, wait_for
from tests.test_recover import linked
from tests.test_verify import fill, findings

pytestmark = pytest.mark.slow


def vacuumed(node: Node, *words: str) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The result, and what stays."""
    done = node.ctl("-o", "json", "vacuum", *words)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return told[-1], [t["finding"] for t in told if "finding" in t]


def end_segment(node: Node) -> None:
    """What would go, were all wanted: for that the newest segment, which is old enough, is ended."""
    vacuumed(node, "--time", "0", "--dry-run")


def texts(node: Node, *words: str) -> list[str]:
    return [row["text"] for row in node.query("log", *words)]


def check_same(a: Node, b: Node, *kinds: str) -> None:
    """Each log alone and both compared, from either side, find only what is missing for these reasons."""
    for node, other in ((a, b), (b, a)):
        assert 0 == findings(node)[0]
        code, found, result = findings(node, other.name)
        assert (0, "same", set(kinds)) == (code, result["state"], {f["kind"] for f in found})


def test_what_is_final_goes_and_the_rest_is_as_before(nodes: Nodes) -> None:
    """Pairing, numbers, heads and receipts stay; both sides agree, also when one of them was vacuumed."""
    a, b = nodes.pair()
    fill(a, b, 5)
    before = a.query("status")[1]
    result, staying = vacuumed(a, "--time", "0", "--dry-run")
    assert (10, []) == (result["messages"], staying)
    assert 10 == len(texts(a)), "a dry run removes nothing"
    result, staying = vacuumed(a, "--time", "0")
    assert (10, []) == (result["messages"], staying)
    assert [] == texts(a)
    after = a.query("status")[1]
    assert [before[key] for key in ("sent", "received", "state")] == [
        after[key] for key in ("sent", "received", "state")
    ]
    fill(a, b, 3)
    assert 6 == len(texts(a))
    a.restart()
    linked(a, b)
    fill(a, b, 1)
    assert 8 == len(texts(a))
    check_same(a, b, "gone")


def test_the_id_of_a_message_that_is_gone_may_be_used_again(nodes: Nodes) -> None:
    """Once, whether or not the daemon was started anew since, and whatever it remembers."""
    a, _ = nodes.pair()

    def sent() -> list[bool]:
        send = ("send", "b", "--id", "nightly", "--wait=stored", "hola")
        return [a.query(*send)[-1]["duplicate"] for _ in range(2)]

    assert [False, True] == sent()
    for _ in range(2):
        vacuumed(a, "--time", "0")
        assert [False, True] == sent()
    assert ["hola"] == texts(a, "--direction", "out")


def test_what_waits_stays_and_leaves_a_hole_behind(nodes: Nodes) -> None:
    """The peer that is away gets its message; what became of it, and of all else, is told as before."""
    a, b = nodes.pair()
    c = nodes.start("c")
    pair(a, c)
    c.stop()
    first = a.query("send", "c", "--wait=queued", "for c")[-1]["id"]
    end_segment(a)
    fill(a, b, 4)
    result, staying = vacuumed(a, "--time", "0")
    assert (8, ["with messages to c that are not final"]) == (
        result["messages"],
        [f["holds"] for f in staying],
    )
    assert ["for c"] == texts(a)
    fill(b, a, 2)
    code, found, _ = findings(a)
    assert (0, {("out", 1, 4), ("in", 1, 4)}) == (
        code,
        {(f["direction"], f["first_seq"], f["last_seq"]) for f in found},
    )
    check_same(a, b, "gone")
    c.start()
    linked(a, c)
    wait_for(lambda: "stored" == a.query("show", first)[0]["state"], 10, "the message to arrive")
    assert ["for c"] == texts(c)
    a.kill9()
    (a.state / "index.sqlite").unlink()
    a.start()
    assert "stored" == a.query("show", first)[0]["state"]
    vacuumed(a, "--time", "0")
    assert [] == texts(a)
    done = a.ctl("why", first)
    assert (7, True) == (done.returncode, "or it is not kept any more" in done.stderr)
    linked(a, c)
    fill(a, c, 1)
    told = [row for row in a.query("log", "--kind", "control") if row["headers"]["record"] == "vacuumed"]
    assert "root vacuumed the history: all older than 0s" in told[-1]["text"]


def test_settings_remove_by_themselves(nodes: Nodes) -> None:
    """By age without anybody sending; by size once a reload says so. The journal tells it."""
    a, b = nodes.pair()
    fill(a, b, 3)
    a.restart('[history]\nkeep_time = "2s"')
    wait_for(lambda: [] == texts(a), 15, "the messages to go")
    assert 6 == len(texts(b))
    events = [e for e in a.events() if e["event"] == "log.vacuumed"]
    assert (6, {"keep_time = 2s"}) == (sum(e["messages"] for e in events), {e["reason"] for e in events})
    end_segment(b)
    b.config.write_text(b.config.read_text() + '[history]\nkeep_size = "1K"\n')
    assert 0 == b.ctl("reload").returncode
    wait_for(lambda: [] == texts(b), 15, "the messages to go")
    linked(a, b)
    fill(a, b, 2)
    assert 4 == len(texts(b)), "the newest segment stays"
    assert "b vacuumed the history: keep_size = 1K" in texts(b, "--kind", "control")[-1]


def test_restored_receiver_meets_a_sender_that_keeps_no_more(nodes: Nodes) -> None:
    """It cannot get back what is gone there: both agree on a new epoch, and say what is lost."""
    a, b = nodes.pair()
    fill(a, b, 3)
    b.stop()
    shutil.copytree(b.state, b.directory / "copy")
    b.start()
    linked(a, b)
    fill(a, b, 3)
    end_segment(a)
    fill(a, b, 2)
    vacuumed(a, "--time", "0")
    b.stop()
    shutil.rmtree(b.state)
    shutil.move(b.directory / "copy", b.state)
    b.start()
    linked(a, b)
    fill(a, b, 2)
    check_same(a, b, "gone")
    done = b.ctl("-o", "json", "recover", "--from", "a")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert (0, 10) == (done.returncode, told[-1]["gone"])
    assert [("gone", 4, 8)] * 2 == [
        (t["finding"]["kind"], t["finding"]["first_seq"], t["finding"]["last_seq"]) for t in told[:-1]
    ]


def test_nothing_to_do_and_nothing_asked(nodes: Nodes) -> None:
    """Sentences, and the right exit codes."""
    a = nodes.start("a")
    for words, sentence in (
        ((), "--time 90d"),
        (("--size", "10GB"), "as 10G or 500M"),
        (("--time", "x"), "as 90d"),
    ):
        done = a.ctl("vacuum", *words)
        assert (2, True) == (done.returncode, sentence in done.stderr)
    done = a.ctl("vacuum", "--time", "90d", "--size", "10G")
    assert (0, True) == (done.returncode, done.stdout.startswith("nothing removed: the log holds "))
