"""The environment of a command that handles a message: what stands in it, and that nobody can spoil it."""

import json
import subprocess
from typing import Any

import pytest

from msgd.wire.variables import LARGEST, MOST_HEADERS, variables

MESSAGE: dict[str, Any] = {
    "id": "0193",
    "peer": "node3",
    "direction": "in",
    "seq": 7,
    "kind": "text",
    "user": "ana",
    "from": "node3",
    "to": "node1",
    "sent_at": "2026-11-21T12:00:00.000000001Z",
    "stored_at": "2026-11-21T12:00:00.000000002Z",
    "headers": {},
    "text": "hola",
}


def of(**headers: str) -> dict[str, str]:
    return variables({**MESSAGE, "headers": headers}, "print", 3)


def test_a_message_is_in_the_environment_but_for_its_body() -> None:
    """Each field under its name in capitals."""
    expected = {
        "MSGD_ID": "0193",
        "MSGD_PEER": "node3",
        "MSGD_SEQ": "7",
        "MSGD_KIND": "text",
        "MSGD_USER": "ana",
        "MSGD_FROM": "node3",
        "MSGD_TO": "node1",
        "MSGD_SENT_AT": "2026-11-21T12:00:00.000000001Z",
        "MSGD_STORED_AT": "2026-11-21T12:00:00.000000002Z",
        "MSGD_CONSUMER": "print",
        "MSGD_ATTEMPT": "3",
        "MSGD_HEADERS": "{}",
    }
    assert expected == of()


def test_headers_have_variables_of_their_own() -> None:
    """Names in capitals, other signs as _; where two names become one, the first is told; JSON has all."""
    found = of(**{"reply-to": "0192", "reply_to": "no", "Größe": "9", "": "nameless"})
    assert ("0192", "9", "nameless") == (
        found["MSGD_HEADER_REPLY_TO"],
        found["MSGD_HEADER_GR__E"],
        found["MSGD_HEADER_"],
    )
    headers = {"reply-to": "0192", "reply_to": "no", "Größe": "9", "": "nameless"}
    assert headers == json.loads(found["MSGD_HEADERS"])


@pytest.mark.parametrize("name", ["PATH", "x\n", "a=b", "LD_PRELOAD=x", "BASH_FUNC_x%%", "\0", "é" * 300])
def test_no_header_becomes_another_variable(name: str) -> None:
    """Whatever its name, it begins with MSGD_HEADER_ and a shell can read it."""
    for variable in set(of(**{name: "() { :; }"})) - set(of()):
        assert variable.startswith("MSGD_HEADER_")
        assert variable.replace("_", "").isalnum() and variable.isascii()


def test_what_does_not_fit_is_left_out() -> None:
    """A NUL, a value above the limit, headers beyond the room for all: the rest stays, and a program runs."""
    assert "MSGD_HEADER_A" not in of(a="x\0y")
    assert "MSGD_HEADER_A" not in of(a="x" * LARGEST)
    assert "MSGD_USER" not in variables({**MESSAGE, "user": "x" * LARGEST}, "print", 1)
    found = of(**{f"h{number}": "x" * 1000 for number in range(1000)})
    assert "MSGD_HEADERS" not in found
    assert (
        MOST_HEADERS // 1100 < sum(name.startswith("MSGD_HEADER_") for name in found) < MOST_HEADERS // 1000
    )
    assert 0 == subprocess.run(["/bin/true"], env=found, check=False).returncode
