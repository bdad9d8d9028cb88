"""Two fresh nodes and two persons at terminals who know only `msgctl send ADDRESS TEXT`."""

import pytest

from tests.nodes import Node, Nodes
from tests.terminal import Terminal

pytestmark = pytest.mark.slow


def at(node: Node, *words: str) -> Terminal:
    return Terminal("--socket", str(node.socket), *words)


def words_of(terminal: Terminal) -> str:
    return terminal.shown.split("Compare the words:")[1].splitlines()[0].strip()


def test_first_message_arrives_with_two_commands_and_two_letters(nodes: Nodes) -> None:
    """Both screens show the same words; the message goes out after both yeses, once, also when the call is
    made again with its key, by the name that the peer has now."""
    a, b = nodes.start("a"), nodes.start("b")
    with at(a, "send", b.host, "hola", "--id", "first") as one:
        one.see("Run there:          msgctl pair")
        one.see("[c] cancel the message: ")
        assert [] == b.query("log", "--kind", "text")
        with at(b, "pair") as other:
            other.see("decide later: ")
            assert words_of(one) == words_of(other)
            other.answer("y")
            other.see("a is accepted here")
            assert 0 == other.end()
        one.answer("y")
        one.see(" stored b ")
        assert 0 == one.end()
    assert 0 == a.ctl("send", "b", "hola", "--id", "first", "--wait").returncode
    assert ["hola"] == [message["text"] for message in b.query("log", "--kind", "text")]


def test_verdicts_may_come_in_the_other_order(nodes: Nodes) -> None:
    """The sender says yes first, and is told what is missing on the other machine."""
    a, b = nodes.start("a"), nodes.start("b")
    with at(a, "send", b.host, "hola") as one:
        one.see("[c] cancel the message: ")
        one.answer("y")
        one.see("b is accepted here; it waits for the yes there.")
        one.see("there: msgctl pair")
        assert 0 == b.ctl("pair", "accept", "a").returncode
        one.see(" stored b ")
        assert 0 == one.end()
