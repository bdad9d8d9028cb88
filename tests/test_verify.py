"""`msgctl verify`: damage here or there is told, and of logs that differ the first message."""

import json
import os
from collections.abc import Callable, Iterator
from zlib import crc32

import pytest

from msgd.errors import NOT_TRUSTED
from msgd.log.files import REAL_FILES
from msgd.log.reader import Reader
from msgd.log.record import HEADER_BYTES, PREFIX_BYTES, Header, Kind
from msgd.log.segment import list_bases, segment_path
from tests.nodes import Node, Nodes, wait_for

pytestmark = pytest.mark.slow

TEXTS = 8


@pytest.fixture
def two(nodes: Nodes) -> tuple[Node, Node]:
    """Linked, with messages of both directions on both disks."""
    a, b = nodes.pair()
    fill(a, b)
    return a, b


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """The same once for all tests that change nothing in the logs by force."""
    made = Nodes(tmp_path_factory.mktemp("sound"))
    try:
        a, b = made.pair()
        fill(a, b)
        yield a, b
    finally:
        made.end()


def fill(a: Node, b: Node, count: int = TEXTS) -> None:
    for node, other in ((a, b), (b, a)):
        lines = "".join(f"{node.name} {number}\n" for number in range(count))
        done = node.ctl("send", other.name, "--lines", "--wait=stored", "--timeout", "20s", stdin=lines)
        assert done.returncode == 0, done.stderr


def records(node: Node) -> list[Header]:
    """The headers in a node's log that is not being written."""
    log = str(node.state / "log")
    last = list_bases(REAL_FILES, log)[-1]
    size = last + os.path.getsize(segment_path(log, last))
    return list(Reader(log, lambda: size).headers(on_damage=lambda damaged: None))


def overwrite(node: Node, offset: int, data: bytes) -> None:
    log = str(node.state / "log")
    base = max(base for base in list_bases(REAL_FILES, log) if base <= offset)
    with open(segment_path(log, base), "r+b") as file:
        file.seek(offset - base)
        file.write(data)


def read(node: Node, offset: int, size: int) -> bytes:
    log = str(node.state / "log")
    base = max(base for base in list_bases(REAL_FILES, log) if base <= offset)
    with open(segment_path(log, base), "rb") as file:
        file.seek(offset - base)
        return file.read(size)


def of_kind(node: Node, *kinds: int) -> list[Header]:
    return [header for header in records(node) if header.kind in kinds]


def flip(node: Node, header: Header) -> None:
    """One bit of the payload is another one."""
    place = header.offset + HEADER_BYTES + header.length // 2
    overwrite(node, place, bytes([read(node, place, 1)[0] ^ 1]))


def forge(node: Node, header: Header, change: Callable[[bytes], bytes]) -> None:
    """Other bytes of the same length, with the checksum that fits."""
    payload = change(read(node, header.offset + HEADER_BYTES, header.length))
    assert header.length == len(payload)
    overwrite(node, header.offset + HEADER_BYTES, payload + crc32(payload).to_bytes(4, "little"))


def findings(node: Node, *words: str) -> tuple[int, list[dict[str, object]], dict[str, object]]:
    """Exit code, findings and result of `verify`."""
    done = node.ctl("-o", "json", "verify", *words)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, [t["finding"] for t in told if "finding" in t], told[-1]


def test_sound_logs_are_the_same(sound: tuple[Node, Node]) -> None:
    """Both directions, asked from either side; the local check counts every message."""
    for node, other in (sound, sound[::-1]):
        code, found, result = findings(node, other.name)
        assert (0, [], "same") == (code, found, result["state"])
        assert TEXTS <= min(int(str(result["sent"])), int(str(result["received"])))
        code, found, result = findings(node)
        assert (0, [], "sound") == (code, found, result["state"])
        assert 2 * TEXTS <= int(str(result["messages"]))


def test_verify_runs_beside_traffic(sound: tuple[Node, Node]) -> None:
    """What arrives meanwhile is neither missing nor different."""
    a, b = sound
    for number in range(4):
        a.ctl("send", "b", "--wait=queued", f"during {number}")
        code, found, _ = findings(b, "a")
        assert (0, []) == (code, [f for f in found if f["kind"] == "difference"])


def test_worker_says_whom_it_serves(sound: tuple[Node, Node]) -> None:
    """Opened and closed are events with the peer's name."""
    a, b = sound
    assert 0 == findings(a, "b")[0]

    def told() -> bool:
        return {"service.opened", "service.closed"} <= {
            e["event"] for e in b.events() if e.get("peer") == "a"
        }

    wait_for(told, 5, "the events of the service")


def test_what_was_done_has_no_life(nodes: Nodes) -> None:
    """`why` and `show` take the row of a decision, also on a node without any peer."""
    a = nodes.start("a")
    a.query("pair", "invite", "--ttl", "60")
    (row,) = a.query("log", "--kind", "control")
    (told,) = a.query("why", row["id"])
    assert ([], row["text"]) == (told["life"], told["message"]["text"])
    assert 0 == a.ctl("why", row["id"]).returncode == a.ctl("show", row["id"]).returncode


def test_unknown_peer_is_a_sentence(sound: tuple[Node, Node]) -> None:
    """Exit code 7, as everywhere."""
    assert 7 == sound[0].ctl("verify", "nobody").returncode


def test_flipped_bit_is_found_and_the_node_goes_on(two: tuple[Node, Node]) -> None:
    """Here it names segment, place and what it held; the peer hears of it; the rest is served."""
    a, b = two
    broken = of_kind(b, Kind.IN)[0]
    flip(b, broken)
    code, found, result = findings(b)
    assert 8 == code
    assert [(broken.offset, "damage", "here")] == [(f["offset"], f["kind"], f["where"]) for f in found]
    assert "messages 1 to " in str(found[0]["holds"])
    code, found, result = findings(a, "b")
    assert (8, "damaged", [("damage", "b", broken.offset)]) == (
        code,
        result["state"],
        [(f["kind"], f["where"], f["offset"]) for f in found],
    )
    fill(a, b, 1)
    assert b.is_running


def test_lost_header_names_the_messages_behind_it(two: tuple[Node, Node]) -> None:
    """Nobody can say what stood there but the numbers that are missing then."""
    a, b = two
    fill(a, b, 3)
    broken = of_kind(a, Kind.IN)[0]
    overwrite(a, broken.offset + PREFIX_BYTES + 3, b"\xff")
    code, found, _ = findings(a)
    assert 8 == code
    assert [broken.offset] == [f["offset"] for f in found]
    assert f"messages 1 to {broken.count} from b" in str(found[0]["holds"])


def test_changed_message_is_the_first_that_differs(two: tuple[Node, Node]) -> None:
    """Its checksum fits, so only the heads and the other log can tell: 9, with number and ids."""
    a, b = two
    fill(a, b)
    forged = of_kind(b, Kind.IN)[0]
    forge(b, forged, lambda payload: payload.replace(b"a 1", b"z 1"))
    rows = b.query("log", "--direction", "in")
    expected = next(row for row in rows if row["text"] == "z 1")
    code, found, result = findings(a, "b")
    assert (9, "differ") == (code, result["state"])
    assert [("difference", "out", expected["seq"], expected["id"], expected["id"])] == [
        (f["kind"], f["direction"], f["first_seq"], f["id_here"], f["id_there"]) for f in found
    ]
    assert 8 == findings(b)[0], "the head does not fit the forged bytes"


def test_peer_that_is_away_cannot_be_compared(two: tuple[Node, Node]) -> None:
    """One sentence, and no guess."""
    a, b = two
    b.stop()
    done = a.ctl("verify", "b")
    assert 1 == done.returncode
    assert "b cannot be asked" in done.stderr


def test_only_a_peer_is_served(nodes: Nodes) -> None:
    """A node that is not accepted there hears so before anything else."""
    a, b = nodes.start("a"), nodes.start("b")
    a.trust(b)
    done = a.ctl("verify", "b")
    assert NOT_TRUSTED == done.returncode
    assert "has not accepted us" in done.stderr
