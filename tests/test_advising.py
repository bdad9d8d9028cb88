"""What a person is told about a peer that gets nothing, and about logs that differed."""

import pytest

from msgd import advising
from msgd.model import IN, OUT
from msgd.wire.ledger import Break
from msgd.wire.trust import RequestState
from tests.test_finding import ONE, OTHER, peer


def asked(**changes: object) -> RequestState:
    given = {"rekey": False, "theirs": "", "conflict": "", **changes}
    words = ["receive", "action", "stone", "hire"]
    return RequestState(OTHER, "node3", "10.0.0.5:6743", words, True, 0, 0, 1, **given)  # type: ignore[arg-type]


ADDRESS = peer(1, "10.0.0.5:6743", "10.0.0.5:6743", hold="unpaired")


@pytest.mark.parametrize(
    ("state", "request_", "here", "there"),
    [
        (ADDRESS, None, "msgctl pair ask 10.0.0.5:6743", None),
        (ADDRESS, asked(), "msgctl pair accept node3", "msgctl pair"),
        (ADDRESS, asked(theirs="rejected"), None, None),
        (ADDRESS, asked(conflict="node3"), "msgctl pair accept 10.0.0.5:6743 --name NAME", "msgctl pair"),
        (peer(1, "node3", "x:1", OTHER, hold="unpaired"), asked(), None, "msgctl pair"),
        (peer(1, "node3", "x:1", ONE, hold="unpaired"), None, "msgctl pair ask node3", "msgctl pair"),
        (peer(1, "node3", "x:1", ONE, hold="forgotten"), None, "msgctl pair ask node3", "msgctl pair"),
        (peer(1, "node3", "x:1", ONE, hold="key-changed"), None, "msgctl peer rekey node3", "msgctl pair"),
        (
            peer(1, "node3", "x:1", ONE, hold="key-changed"),
            asked(rekey=True),
            "msgctl pair accept node3",
            "msgctl pair",
        ),
        (peer(1, "node3", "x:1", ONE, hold="blocked"), None, None, "msgctl peer unblock node1"),
        (
            peer(1, "node3", "x:1", ONE, hold="blocked", blocked=True),
            None,
            "msgctl peer unblock node3",
            None,
        ),
    ],
)
def test_next_step_of_every_hold(
    state: object, request_: RequestState | None, here: str | None, there: str | None
) -> None:
    """What to run on this machine, and what on the other one."""
    steps = advising.pairing(state, request_, "node1")  # type: ignore[arg-type]
    assert (here, there) == (steps["next"], steps["there"])


@pytest.mark.parametrize(
    ("direction", "sender_last", "receiver_last", "part"),
    [
        (
            OUT,
            10,
            15,
            "this node had lost 11 to 15, which node3 still has. To get it back, here: `msgctl recover",
        ),
        (
            IN,
            10,
            15,
            "node3 had lost 11 to 15, which this node still has. To get it back, there: `msgctl recover",
        ),
        (OUT, 15, 15, "each holds other bytes: `msgctl verify node3` names the first"),
        (OUT, 14, 15, "this node had lost 15, which node3 still has."),
        (IN, 20, 15, "lacks some of it, or holds other bytes: `msgctl verify node3` tells"),
    ],
)
def test_break_says_which_side_lost_what(
    direction: int, sender_last: int, receiver_last: int, part: str
) -> None:
    """And where it went on."""
    found = Break(1_795_262_400_000_000_000, direction, 21, sender_last, receiver_last)
    told = advising.broken(peer(1, "node3", "x:1", ONE), found, "node1")
    assert part in told["detail"]
    assert "On 2026-11-21 12:00 UTC" in told["detail"] and "from seq 21" in told["detail"]
