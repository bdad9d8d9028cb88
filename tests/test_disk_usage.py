"""`msgctl disk-usage`: what the files in the state directory take, by what they are for."""

import os
import subprocess
from pathlib import Path

import pytest

from msgctl.usage import size
from msgd.usage import uses
from tests.nodes import Node, Nodes


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0K"), (1 << 20, "1.0M"), (10 << 30, "10.0G"), (3 << 49, "1.5P")],
)
def test_sizes_are_those_of_vacuum(count: int, shown: str) -> None:
    """Powers of 1,024, as `vacuum --size` and journald read them."""
    assert shown == size(count)


NOBODY = "127.99.255.1"  # what is sent there is held


def du(node: Node, *paths: str) -> int:
    """What coreutils says that these files take."""
    done = subprocess.run(
        ["du", "-c", "-B1", *(str(node.state / path) for path in paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.split()[-2])


@pytest.mark.slow
def test_what_takes_how_much(nodes: Nodes) -> None:
    """Every file is counted once, at its size on the disk; the oldest message is named."""
    a = nodes.start("a", "[limits]\nsegment_bytes = 2097152\n")
    a.ctl("send", NOBODY, "first", "--timeout", "0")
    a.ctl("send", NOBODY, "--lines", "--timeout", "0", stdin=("x" * 900_000 + "\n") * 4)
    torn = a.state / "log" / f"{7:020d}.broken"
    torn.write_bytes(b"x" * 5000)
    kept = a.state / "files" / "tree" / "engine.broken"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x" * 5000)

    found = a.query("disk-usage")[0]
    sizes = {use["what"]: use["bytes"] for use in found["uses"]}
    segments = [f"log/{path.name}" for path in (a.state / "log").glob("*.log")]
    assert du(a, *segments) == sizes["log"]
    assert du(a, f"log/{torn.name}") == sizes["set aside"]
    assert du(a, "files/tree/engine.broken") == sizes["files"]
    assert {"log", "index", "files", "set aside", "other"} == sizes.keys()
    assert sum(sizes.values()) == found["total_bytes"]
    assert found["available_bytes"] > 0
    assert 2 == len(segments) == found["segments"]
    assert os.path.getsize(a.state / min(segments)) == found["sealed_bytes"]
    first = a.query("log")[0]
    assert ("first", first["stored_at_ns"]) == (first["text"], found["oldest_ns"])
    assert first["stored_at"] == found["oldest_at"]

    shown = a.ctl("disk-usage").stdout
    assert ["WHAT", "SIZE", "FILES"] == shown.splitlines()[0].split()
    assert ["set", "aside", size(sizes["set aside"]), "1"] in [line.split() for line in shown.splitlines()]
    assert f"{size(found['sealed_bytes'])} of the log are in full segments" in shown
    assert "The oldest message that is kept was stored here on 20" in shown


def test_files_that_nobody_knows_are_counted_too(tmp_path: Path) -> None:
    """Also in directories below."""
    (tmp_path / "log").mkdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "log" / f"{0:020d}.log").write_bytes(bytes(8192))
    (tmp_path / "spool" / "x").write_bytes(b"1" * 4096)
    (tmp_path / "index.sqlite-wal").write_bytes(b"1" * 4096)
    assert [("log", 1), ("index", 1), ("other", 1)] == [(use.what, use.files) for use in uses(str(tmp_path))]
