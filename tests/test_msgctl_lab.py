"""`msgctl lab` with real daemons, in a directory and on addresses of the test's own; sockets it finds."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgctl.labnode import Node
from msgctl.places import control_socket, lab_dir, lab_nodes
from msgd.errors import UsageError
from tests.msgctl_run import Runner
from tests.require import REPOSITORY


def free_net() -> str:
    """The beginning of three free addresses in 127.77.0.0/16, so that runs side by side do not meet."""
    for part in (os.getpid() % 200 + shift for shift in range(50)):
        try:
            for last in (1, 2, 3):
                with socket.socket() as trial:
                    trial.bind((f"127.77.{part}.{last}", 6743))
        except OSError:
            continue
        return f"127.77.{part}."
    raise AssertionError("no free address in 127.77.0.0/16")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """msgctl with a lab of its own, which is taken down afterwards whatever the test did."""
    runner = Runner("", monkeypatch)
    monkeypatch.setenv("MSGD_LAB_DIR", str(tmp_path / "lab"))
    monkeypatch.setenv("MSGD_LAB_NET", free_net())
    yield runner
    if (tmp_path / "lab").is_dir():
        runner("lab", "down")


def net() -> str:
    return os.environ["MSGD_LAB_NET"]


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# --- real nodes ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_lab_comes_up_paired_grows_and_goes(run: Runner, tmp_path: Path) -> None:
    """Two nodes talk; a third joins the running two; down removes all of it and nothing else."""
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "notes.txt").write_text("mine")
    done = run("lab", "up", "2", "-o", "json")
    assert (done.code, done.err) == (0, "")
    first = done.objects
    assert [(one["name"], one["address"], one["state"]) for one in first] == [
        ("node1", f"{net()}1:6743", "running"),
        ("node2", f"{net()}2:6743", "running"),
    ]
    assert sorted(os.listdir(lab / "node1")) == [
        "control.sock",
        "msgd.d",
        "msgd.out",
        "msgd.pid",
        "msgd.toml",
        "state",
    ]

    assert " stored node2 " in run("--node", "node1", "send", "node2", "hola", "--wait=stored").out
    assert run("--node", "node2", "log", "-o", "cat").out == "hola\n"
    node, peer = run("--node", "node1", "status", "-o", "json").objects
    assert (node["name"], peer["name"], peer["state"]) == ("node1", "node2", "connected")

    grown = run("lab", "up", "3", "-o", "json").objects
    assert grown[:2] == first and grown[2]["state"] == "running"
    assert run("--node", "node3", "send", "node2", "from three", "--wait=stored").code == 0
    done = run("--node", "node9", "status")
    assert "there is no lab node 'node9'" in done.err
    assert done.code == 2 and "node1, node2, node3" in done.err

    assert run("lab", "down").out == "3 nodes stopped and removed\n"
    assert os.listdir(lab) == ["notes.txt"]
    assert [one["pid"] for one in grown if is_alive(one["pid"])] == []
    assert "no nodes" in run("lab", "ls").out
    assert run("lab", "down").code == 0


@pytest.mark.slow
def test_lab_that_is_kept_comes_back_as_it_was(run: Runner, tmp_path: Path) -> None:
    """--keep: the same keys and the same log after the next up; edited settings are not written again."""
    run("lab", "up", "2")
    before = run("--node", "node1", "status", "-o", "json").objects[0]["identity"]
    run("--node", "node1", "send", "node2", "hola", "--wait")
    assert run("lab", "down", "--keep").out == "2 nodes stopped\n"
    config = tmp_path / "lab" / "node1" / "msgd.toml"
    config.write_text(config.read_text() + "# edited\n")
    assert [one["state"] for one in run("lab", "ls", "-o", "json").objects] == ["stopped", "stopped"]
    assert run("lab", "up", "2").code == 0
    assert run("--node", "node1", "status", "-o", "json").objects[0]["identity"] == before
    assert run("--node", "node2", "log", "-o", "cat").out == "hola\n"
    assert config.read_text().endswith("# edited\n")


@pytest.mark.slow
def test_node_that_cannot_start_is_told_with_its_last_words(run: Runner) -> None:
    """Its address is taken: the end of msgd.out is in the sentence, and it does not take long."""
    with socket.socket() as taken:
        taken.bind((f"{net()}1", 6743))
        taken.listen()
        began_s = time.monotonic()
        done = run("lab", "up", "1")
    assert done.code == 1
    assert "node1 ended at once; the end of " in done.err and f"{net()}1:6743" in done.err
    assert time.monotonic() - began_s < 15


@pytest.mark.slow
def test_down_leaves_a_process_that_is_not_ours(run: Runner, tmp_path: Path) -> None:
    """A pid file whose number belongs to somebody else by now: it is not signalled."""
    run("lab", "up", "1")
    pid_file = tmp_path / "lab" / "node1" / "msgd.pid"
    ours = int(pid_file.read_text())
    stranger = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        pid_file.write_text(f"{stranger.pid}\n")
        assert run("lab", "ls", "-o", "json").objects[0]["state"] == "stopped"
        assert run("lab", "down", "--keep").code == 0
        assert stranger.poll() is None and is_alive(ours)
        pid_file.write_text(f"{ours}\n")
        assert run("lab", "down").code == 0
        assert not is_alive(ours)
    finally:
        stranger.communicate(timeout=10)
    assert stranger.returncode == 0


@pytest.mark.slow
def test_node_that_does_not_end_is_killed_with_a_sentence(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process takes no SIGTERM; after the deadline it is killed, and that is said."""
    monkeypatch.setattr("msgctl.lab.STOP_TIMEOUT_S", 0.3)
    run("lab", "up", "1")
    pid = int((tmp_path / "lab" / "node1" / "msgd.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    done = run("lab", "down")
    assert "node1 did not end within" in done.err and "was killed" in done.err
    assert not is_alive(pid)


@pytest.mark.slow
def test_send_reaches_a_real_daemon_as_a_process(run: Runner) -> None:
    """Lines, bytes and exit codes end to end, by the program itself."""
    assert run("lab", "up", "2").code == 0
    command = [
        sys.executable,
        "-m",
        "msgctl",
        "--node",
        "node1",
        "send",
        "node2",
        "-l",
        "--wait=stored",
        "-q",
    ]
    lines = b"".join(b"line %d\n" % n for n in range(5000)) + b"\xff\n"
    done = subprocess.run(command, cwd=REPOSITORY, input=lines, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert run("--node", "node2", "log", "-o", "cat").raw == lines
    assert len(run("--node", "node2", "log", "-n", "-o", "json").objects) == 10
    assert run("--node", "node1", "send", "node7", "x").code == 7
    assert run("--node", "node1", "cancel", "00000000").code == 7


# --- without any node ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", ["0", "251", "two", "-1", "9" * 30])
def test_number_of_nodes_is_checked(run: Runner, count: str) -> None:
    """From 1 to 250."""
    done = run("lab", "up", "--", count)
    assert (done.code, "from 1 to 250" in done.err) == (2, True)


def test_lab_in_a_long_directory_is_refused(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sockets' paths would not fit; nothing is made."""
    monkeypatch.setenv("MSGD_LAB_DIR", str(tmp_path / ("x" * 100)))
    done = run("lab", "up", "2")
    assert done.code == 2
    assert "at most 107" in done.err and "shorter directory" in done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("prefix", ["10.0.0.", "127.0", "127.0.0.1", "127.x.0."])
def test_lab_stays_on_loopback(run: Runner, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    """MSGD_LAB_NET is the beginning of a loopback address, and nothing else."""
    monkeypatch.setenv("MSGD_LAB_NET", prefix)
    done = run("lab", "up", "1")
    assert (done.code, "loopback" in done.err) == (2, True)


def test_down_leaves_what_the_lab_did_not_make(run: Runner, tmp_path: Path) -> None:
    """A directory of the same name without our mark, and a foreign file beside ours."""
    lab = tmp_path / "lab"
    foreign = lab / "node1"
    foreign.mkdir(parents=True)
    (foreign / "msgd.toml").write_text('name = "node1"\n')
    ours = Node(str(lab), 2, net())
    ours.make()
    Path(ours.path("todo")).write_text("x")
    done = run("lab", "down")
    assert done.code == 0 and done.err.count("did not make; they stay") == 2
    assert os.listdir(foreign) == ["msgd.toml"] and os.listdir(ours.directory) == ["todo"]


def test_names_of_lab_nodes_are_no_paths(tmp_path: Path) -> None:
    """`--node ../x` finds nothing; other entries of the directory are no nodes."""
    (tmp_path / "node2").mkdir()
    (tmp_path / "node2" / "msgd.toml").touch()
    (tmp_path / "node10").mkdir()
    (tmp_path / "nodes").mkdir()
    assert lab_nodes(str(tmp_path)) == ["node2"]
    env = {"MSGD_LAB_DIR": str(tmp_path / "node2")}
    with pytest.raises(UsageError, match=r"no lab node '\.\./node2'"):
        control_socket(None, "../node2", env)


def test_socket_is_found_in_the_documented_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--socket, --node, MSGD_SOCKET, the user's own, the system's."""
    (tmp_path / "msgd").mkdir()
    mine = tmp_path / "msgd" / "control.sock"
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert control_socket(None, None, runtime) == "/run/msgd/control.sock"
    mine.touch()
    assert control_socket(None, None, runtime) == str(mine)
    assert control_socket(None, None, {**runtime, "MSGD_SOCKET": "/s"}) == "/s"
    assert control_socket("/t", None, {**runtime, "MSGD_SOCKET": "/s"}) == "/t"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert control_socket(None, None, runtime) == "/run/msgd/control.sock"
    with pytest.raises(UsageError, match="two ways"):
        control_socket("/t", "node1", {})


def test_lab_directory_follows_the_environment() -> None:
    """MSGD_LAB_DIR, XDG_STATE_HOME, the home directory."""
    assert lab_dir({"MSGD_LAB_DIR": "/l", "HOME": "/h"}) == "/l"
    assert lab_dir({"XDG_STATE_HOME": "/s", "HOME": "/h"}) == "/s/msgd-lab"
    assert lab_dir({"HOME": "/h"}) == "/h/.local/state/msgd-lab"
