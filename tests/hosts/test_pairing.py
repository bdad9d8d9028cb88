"""Two hosts, freshly installed; a person at each, who knows `msgctl send 192.168.1.5 hola` and reads."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.hosts.service import SOCKETS, UNIT, Service
from tests.terminal import Terminal

pytestmark = [pytest.mark.hosts, pytest.mark.slow, pytest.mark.timeout(240)]

Services = tuple[Service, Service]
WORDS = r"Compare the words: +([a-z]+ [a-z]+ [a-z]+ [a-z]+)"
THERE = r"Run there: +(.+)"


class Person:
    """Types at a shell on a host, and reads; what was typed is counted."""

    def __init__(self, service: Service) -> None:
        self.screen = Terminal(command=(*service.host.enter(), "PS1=# ", "bash", "--norc", "--noediting"))
        self.commands = 0
        self.keys = 0

    def run(self, command: str) -> None:
        self.commands += 1
        self.type(command)

    def type(self, line: str) -> None:
        """A line, and Enter."""
        self.keys += len(line) + 1
        self.screen.answer(line)

    def read(self, pattern: str, until: str) -> str:
        """What the screen shows there, once `until` stands behind it."""
        self.screen.see(until)
        return re.findall(pattern, self.screen.shown)[-1].strip()


@contextmanager
def persons(*services: Service) -> Iterator[list[Person]]:
    with ExitStack() as stack:
        people = [Person(service) for service in services]
        for person in people:
            stack.enter_context(person.screen)
        yield people


def as_installed(service: Service) -> None:
    """The state of the first start: no peers, no log, no key."""
    service.systemctl("stop", UNIT, *SOCKETS)
    service.host.run("sh", "-c", "rm -r /var/lib/msgd/*")
    service.systemctl("start", *SOCKETS, UNIT)


def test_who_knows_only_send_gets_a_message_delivered(services: Services) -> None:
    """Following what the tools print: the same words on both screens, a yes on each, and it is stored."""
    for service in services:
        as_installed(service)
    a, b = services
    with persons(a, b) as (ana, ben):
        ana.run(f'msgctl send {b.host.address} "hola"')
        words = ana.read(WORDS, "[y] pair")
        ben.run(ana.read(THERE, ""))
        assert words == ben.read(WORDS, "[y] pair")
        ben.type("y")
        ben.screen.see("is accepted here")
        ana.type("y")
        ana.screen.see(f" stored {b.name} ")
        commands, keys = ana.commands + ben.commands, ana.keys + ben.keys
    print(f"{commands} commands, {keys} keystrokes")
    assert commands == 2
    assert keys <= 60
    (message,) = b.query("log", "--peer", a.name, "--kind", "text")
    assert ("hola", "root") == (message["text"], message["user"])
    for service, other in ((a, b), (b, a)):
        assert "EVENT=pair.accepted" in service.journal("-o", "verbose", f"PEER={other.name}")


def test_an_invitation_needs_one_command_on_each_host(services: Services) -> None:
    """`pair invite` there, `pair join STRING` here, no question; the message that was held flows."""
    for service in services:
        as_installed(service)
    a, b = services
    with persons(a, b) as (ana, ben):
        ben.run("msgctl pair invite")
        string = ben.read(r"(msgd1[a-z2-7]{60,})", "pair join STRING")
        ana.run(f"msgctl pair join {string}")
        ana.screen.see("is a peer now")
    assert a.ctl("send", b.name, "--wait=stored", "--timeout=20", "hola").returncode == 0
    a.wait_connected()
    b.wait_connected()
