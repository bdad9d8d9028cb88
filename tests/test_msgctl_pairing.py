"""msgctl where a peer is not trusted yet: what is printed and asked, with a terminal and without."""

import json
from typing import Any

import pytest

from msgd.wire.varlink import Call
from tests.control_server import PEER, Connection, ControlServer
from tests.msgctl_run import Runner
from tests.terminal import Terminal

ADDRESS = "192.168.1.5:6743"
WORDS = "receive action stone hire"
KEY = "7UIQ2MA-5F4DX3Y-KBJOHZT-5CBWFAD-7KZAPMQ-FF66SYB-S6J3UOP-XBDIHCP"
PAIRING: dict[str, Any] = {
    "name": "node3",
    "identity": KEY,
    "address": ADDRESS,
    "words": WORDS,
    "accepted": False,
    "theirs": None,
    "detail": f"{ADDRESS} answers as node3, never paired: nothing has been sent to it.",
    "next": "msgctl pair accept node3",
    "there": "msgctl pair",
}
REQUEST: dict[str, Any] = {
    "identity": KEY,
    "name": "node3",
    "address": ADDRESS,
    "words": WORDS,
    "is_ours": False,
    "age_s": 12.0,
    "expires_in_s": 588.0,
    "peer": None,
    "conflict": None,
    "rekey": False,
    "accepted": False,
    "theirs": None,
}
ACCEPTED = {**PAIRING, "accepted": True, "detail": "node3 is accepted here; it waits for the yes there."}


class Pairing:
    """The server's side of a pairing: what it says to each call, and which verdicts it heard."""

    def __init__(self, server: ControlServer) -> None:
        self.server = server
        self.request = dict(REQUEST)
        self.first: dict[str, Any] = dict(PAIRING)  # what the first send hears
        self.verdicts: list[tuple[str, dict[str, Any]]] = []
        self.refusal = ""
        for method in ("Send", "PairAccept", "PairReject", "Cancel", "Pairs", "PairAsk", "PeerRekey"):
            server.script[method] = getattr(self, method.lower())

    def send(self, connection: Connection, call: Call) -> None:
        message = self.server.keep(call.parameters["peer"], call.parameters["message"], "held")
        if self.verdicts and not self.refusal:
            told = self.server.receipt(message, reason="unpaired", pairing=ACCEPTED)
            connection.reply({"receipt": told}, continues=True)
            stored = {"state": "stored", "peer": "node3", "seq": 1, "receipt_at_ns": 1, "reason": None}
            connection.reply({"receipt": self.server.receipt(message, **stored)})
        else:
            first = self.server.receipt(message, reason="unpaired", pairing=self.first, next_try_s=None)
            self.first = dict(PAIRING)
            connection.reply({"receipt": first})

    def pairaccept(self, connection: Connection, call: Call) -> None:
        if self.refusal:
            connection.error("PermissionRefused", self.refusal, "As root: adduser")
            return
        self.verdicts.append(("accept", call.parameters))
        connection.reply({"peer": {**PEER, "name": "node3"}, "words": WORDS, "complete": False})

    def pairreject(self, connection: Connection, call: Call) -> None:
        self.verdicts.append(("reject", call.parameters))
        connection.reply({"name": "node3", "identity": KEY})

    def cancel(self, connection: Connection, call: Call) -> None:
        message = self.server.kept[call.parameters["id"]]
        connection.reply({"receipt": self.server.receipt(message, state="cancelled", reason="by root")})

    def pairs(self, connection: Connection, call: Call) -> None:
        connection.reply({"requests": [self.request]})

    def pairask(self, connection: Connection, call: Call) -> None:
        connection.reply({"request": self.request, "reason": None, "peer": {**PEER, "hold": "unpaired"}})

    peerrekey = pairask


@pytest.fixture
def pairing(server: ControlServer) -> Pairing:
    return Pairing(server)


def on_terminal(pairing: Pairing, *words: str) -> Terminal:
    return Terminal("--socket", pairing.server.path, *words)


# --- without a terminal -------------------------------------------------------------------------------------


def test_held_message_names_the_next_command(pairing: Pairing, run: Runner) -> None:
    """One line on standard output as ever, the sentence and both commands on standard error, and 4."""
    done = run("send", "192.168.1.5", "hola")
    assert done.out.endswith(" held 192.168.1.5 (unpaired)\n")
    expected = (
        f"  {PAIRING['detail']}\n  words: {WORDS}\n  here:  msgctl pair accept node3\n  there: msgctl pair\n"
    )
    assert (4, expected) == (done.code, done.err)
    assert len(pairing.server.called("Send")) == 1


def test_held_message_as_json(pairing: Pairing, run: Runner) -> None:
    """All that a script needs, in the receipt; nothing is asked."""
    done = run("send", "192.168.1.5", "hola", "-o", "json")
    (receipt,) = done.objects
    assert ("held", "unpaired", PAIRING) == (receipt["state"], receipt["reason"], receipt["pairing"])
    assert (4, "") == (done.code, done.err)


def test_no_hold_is_passed_on(pairing: Pairing, run: Runner) -> None:
    """Without it nothing is said about it."""
    run("send", "192.168.1.5", "hola", "--no-hold")
    run("send", "192.168.1.5", "hola")
    assert [False, None] == [call.get("hold") for call in pairing.server.called("Send")]


def test_held_lines_say_once_what_to_do(pairing: Pairing, run: Runner) -> None:
    """Behind the lines, however many they are."""

    def held(connection: Connection, call: Call) -> None:
        many = {"count": 2, "state": "held", "reason": "unpaired", "first_seq": None, "pairing": PAIRING}
        connection.reply(many)

    pairing.server.script["SendMany"] = held
    done = run("send", "-l", "192.168.1.5", stdin=b"a\nb\n")
    assert 4 == done.code
    assert 2 == done.out.count(" held 192.168.1.5 (unpaired)\n")
    assert 1 == done.err.count("here:  msgctl pair accept node3")


def test_requests_are_a_table_or_objects(pairing: Pairing, run: Runner) -> None:
    """Nobody is asked without a terminal."""
    table = run("pair").out.splitlines()
    assert f"node3  {ADDRESS}  {WORDS}  they" in table[1]
    assert [REQUEST] == run("pair", "ls", "-o", "json").objects
    assert [] == pairing.verdicts


def test_accept_without_a_terminal_is_done_at_once(pairing: Pairing, run: Runner) -> None:
    """With the words that were seen, where they are given, and another name."""
    done = run("pair", "accept", "node3", "--words", WORDS, "--name", "gate")
    assert [("accept", {"node": "node3", "words": WORDS, "name": "gate"})] == pairing.verdicts
    assert f"node3 is accepted here; it waits for the yes there (msgctl pair); words: {WORDS}\n" == done.out


def test_ask_prints_words_or_the_reason(pairing: Pairing, run: Runner) -> None:
    """0 with words, 4 without."""
    done = run("pair", "ask", "192.168.1.5")
    assert done.code == 0 and WORDS in done.out and "here:  msgctl pair accept node3" in done.out
    nobody = {"request": None, "reason": "no route to host", "peer": {**PEER, "hold": "unpaired"}}
    pairing.server.script["PairAsk"] = lambda connection, call: connection.reply(nobody)
    assert (4, "No words with node3: no route to host\n") == (
        (done := run("pair", "ask", "192.168.1.5")).code,
        done.out,
    )


INVITATION = "msgd1jh6rcdjqduxqo7pbiffy7gpuigyuap5leb5saux32laglzhorz64ebqgaydambqgaycqkbifaucqkbifaucqkbifau"


def invited(connection: Connection, call: Call) -> None:
    connection.reply(
        {
            "invitation": INVITATION,
            "expires_at": "2026-11-21T12:10:00.000000000Z",
            "expires_at_ns": 1_795_263_000_000_000_000,
            "identity": KEY,
            "addresses": [ADDRESS],
        }
    )


def test_invitation_stands_alone_in_a_pipe(server: ControlServer, run: Runner) -> None:
    """So that it can be piped into another machine; JSON has when it ends, too."""
    server.script["PairInvite"] = invited
    assert (f"{INVITATION}\n", "") == ((done := run("pair", "invite")).out, done.err)
    (answer,) = run("pair", "invite", "--ttl", "1h", "--address", "a", "--address=b", "-o", "json").objects
    assert (INVITATION, "2026-11-21T12:10:00.000000000Z") == (answer["invitation"], answer["expires_at"])
    assert {"ttl_ms": 3_600_000, "addresses": ["a", "b"]} == server.called("PairInvite")[1]


@pytest.mark.parametrize("joined", [True, False])
def test_join_takes_the_string_in_pieces_or_from_standard_input(
    server: ControlServer, run: Runner, joined: bool
) -> None:
    """0 when the other side has taken it, 5 while msgd is still trying."""
    answer = {"peer": PEER, "joined": joined, "reason": None if joined else "no route"}
    server.script["PairJoin"] = lambda connection, call: connection.reply(answer)
    pieces = run("pair", "join", INVITATION[:40], INVITATION[40:])
    piped = run(
        "pair", "join", "-", "--name", "gate", stdin=f"{INVITATION[:30]}\n {INVITATION[30:]}\n".encode()
    )
    assert {0 if joined else 5} == {pieces.code, piped.code}
    assert [INVITATION, INVITATION] == [call["invitation"] for call in server.called("PairJoin")]
    assert ("is a peer now" if joined else "no route") in pieces.out


def test_adding_a_peer_tells_whether_that_changed_anything(server: ControlServer, run: Runner) -> None:
    """The exit code is 0 both times."""
    for changed, text in ((True, "node3 is a peer now\n"), (False, "node3 was a peer already\n")):
        server.script["PeerAdd"] = lambda connection, call, changed=changed: connection.reply(
            {"changed": changed, "peer": PEER}
        )
        assert (0, text) == ((done := run("peer", "add", "node3", "--key", KEY)).code, done.out)
        assert [changed] == [
            one["changed"] for one in run("peer", "add", "x", "--key", KEY, "-o", "json").objects
        ]


def test_status_tells_what_a_person_must_know(server: ControlServer, run: Runner) -> None:
    """Below the table: why it holds, what to do, what happened to the logs."""
    told = {
        "hold_detail": "node3 was pinned; now another key answers.",
        "next": "msgctl peer rekey node3",
        "breaks": [{"detail": "On Monday both logs differed."}],
        "notes": ["Two live nodes use the key of node3."],
    }
    server.script["Peers"] = lambda connection, call: connection.reply({"peers": [{**PEER, **told}]})
    lines = run("peer").out.splitlines()
    assert [
        "node3:",
        "  node3 was pinned; now another key answers.",
        "  What to do: msgctl peer rekey node3",
        "  On Monday both logs differed.",
        "  Two live nodes use the key of node3.",
    ] == lines[-5:]


# --- on a terminal ------------------------------------------------------------------------------------------


def test_yes_pairs_and_waits_until_the_message_is_there(pairing: Pairing) -> None:
    """One letter; the words go with the yes, and the second call of Send is about the same message."""
    with on_terminal(pairing, "send", "192.168.1.5", "hola") as terminal:
        terminal.see("held 192.168.1.5 (unpaired)")
        terminal.see("Run there:          msgctl pair")
        terminal.see(f"Compare the words:  {WORDS}")
        terminal.see("[c] cancel the message: ")
        terminal.answer("y")
        terminal.see("it waits for the yes there")
        terminal.see(" stored node3 ")
        assert 0 == terminal.end()
    assert [("accept", {"node": KEY, "words": WORDS})] == pairing.verdicts
    first, second = pairing.server.called("Send")
    assert (first["message"], "stored") == (second["message"], second["wait"])


def test_words_that_are_not_there_yet_are_waited_for(pairing: Pairing) -> None:
    """A slow machine: the question comes when the words do."""
    pairing.first = {**PAIRING, "name": None, "identity": None, "words": None, "next": "msgctl pair ask"}
    with on_terminal(pairing, "send", "192.168.1.5", "hola") as terminal:
        terminal.see(f"Asking {ADDRESS} who it is...")
        terminal.see(f"Compare the words:  {WORDS}")
        terminal.answer("n")
        terminal.see("here:  msgctl pair accept node3")
        assert 4 == terminal.end()


@pytest.mark.parametrize(("answer", "code", "said"), [("c", 6, " cancelled "), ("", 4, "stays held")])
def test_other_answers_pair_nobody(pairing: Pairing, answer: str, code: int, said: str) -> None:
    """[c] cancels; an empty line keeps holding."""
    with on_terminal(pairing, "send", "192.168.1.5", "hola") as terminal:
        terminal.see("[c] cancel the message: ")
        terminal.answer(answer)
        terminal.see(said)
        assert code == terminal.end()
    assert [] == pairing.verdicts


def test_interrupt_leaves_the_message_held_and_says_so(pairing: Pairing) -> None:
    """130, as of every interrupted command."""
    with on_terminal(pairing, "send", "192.168.1.5", "hola") as terminal:
        terminal.see("[c] cancel the message: ")
        terminal.interrupt()
        terminal.see("The message stays here as held")
        terminal.see("here:  msgctl pair accept node3")
        assert 130 == terminal.end()
    assert [] == pairing.server.called("Cancel")


def test_user_who_may_not_pair_keeps_the_message(pairing: Pairing) -> None:
    """The refusal is told with its way out; the message stays held."""
    pairing.refusal = "User ana may not decide who becomes a peer: access.pair is root."
    with on_terminal(pairing, "send", "192.168.1.5", "hola") as terminal:
        terminal.see("[c] cancel the message: ")
        terminal.answer("y")
        terminal.see("access.pair is root. The message stays held.")
        terminal.see("As root: adduser")
        assert 4 == terminal.end()


@pytest.mark.parametrize(
    ("answer", "heard", "said"),
    [("y", "accept", "node3 is accepted here"), ("n", "reject", "node3 is rejected"), ("", "", "Later: ")],
)
def test_pair_walks_through_the_requests(pairing: Pairing, answer: str, heard: str, said: str) -> None:
    """Each with its words; Enter decides nothing."""
    with on_terminal(pairing, "pair") as terminal:
        terminal.see(f"node3 at {ADDRESS} asks to become peers.")
        terminal.see(f"Compare the words:  {WORDS}")
        terminal.see("decide later: ")
        terminal.answer(answer)
        terminal.see(said)
        assert 0 == terminal.end()
    assert ([heard] if heard else []) == [verdict for verdict, _ in pairing.verdicts]


def test_name_that_another_peer_has_is_replaced(pairing: Pairing) -> None:
    """The question says so, and asks for another one."""
    pairing.request["conflict"] = "node3"
    with on_terminal(pairing, "pair", "accept", "192.168.1.5") as terminal:
        terminal.see("with another key.")
        terminal.answer("y")
        terminal.see("Another name for this one: ")
        terminal.answer("node4")
        assert 0 == terminal.end()
    assert [("accept", {"node": KEY, "words": WORDS, "name": "node4"})] == pairing.verdicts


@pytest.mark.slow
def test_invitation_on_a_terminal_has_a_qr_code_where_it_fits(server: ControlServer) -> None:
    """And none with --no-qr."""
    server.script["PairInvite"] = invited
    for words, has_code in (([], True), (["--no-qr"], False)):
        with Terminal("--socket", server.path, "pair", "invite", *words) as terminal:
            terminal.see(f"{INVITATION}\n")
            terminal.see("msgctl pair join STRING")
            assert 0 == terminal.end()
            assert has_code == ("\u2580" in terminal.shown or "\u2588" in terminal.shown)


def test_json_error_of_a_refused_invitation_has_its_code(server: ControlServer, run: Runner) -> None:
    """4: not trusted."""
    server.script["PairJoin"] = lambda connection, call: connection.error("NotTrusted", "used", "again")
    done = run("-o", "json", "pair", "join", INVITATION)
    assert {"code": 4, "error": "used", "hint": "again"} == json.loads(done.err)
