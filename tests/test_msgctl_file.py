"""`msgctl file` against a real socket: names, trees, parts, what is printed, what a lost daemon means."""

import os
import socket
import threading
from pathlib import Path

import pytest

from msgctl import ferry, filebar, fileget, filenames, fileparts, fileput
from msgd.errors import MsgdError
from msgd.wire.varlink import Call
from tests.control_server import Connection, ControlServer
from tests.file_store import MTIME_NS, FileStore
from tests.forked import in_child
from tests.msgctl_run import Runner
from tests.nodes import wait_for
from tests.require import require
from tests.terminal import Terminal


@pytest.fixture
def store(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> FileStore:
    monkeypatch.setattr(ferry, "LEAST_PAUSE_S", 0.01)
    return FileStore(server)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty present directory."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def plant(top: Path, **files: str) -> None:
    """`a__b="x"` is the file a/b with x in it."""
    for name, text in files.items():
        path = top.joinpath(*name.split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# --- put ----------------------------------------------------------------------------------------------------


def test_a_file_is_put_under_its_own_name(store: FileStore, run: Runner, here: Path) -> None:
    plant(here, report="one")
    done = run("file", "put", "node3", "report")
    assert (0, "id-of-report put node3 report (3B)\n", "") == (done.code, done.out, done.err)
    assert {"report": b"one"} == store.files


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("a", "b"), ["b"]),
        (("a", "x/y"), ["x/y"]),
        (("a", "x/"), ["x/a"]),
        (("./a",), ["a"]),
        (("-d", "x", "a", "c"), ["x/a", "x/c"]),
        (("-d", "/", "a"), ["a"]),
        (("t",), ["t/u", "t/v/w"]),
        (("t/", "z"), ["z/u", "z/v/w"]),
        (("t/v/..",), ["t/u", "t/v/w"]),
        (("-d", "x", "a", "t"), ["x/a", "x/t/u", "x/t/v/w"]),
        ((".", "all"), ["all/a", "all/c", "all/t/u", "all/t/v/w"]),
        ((".",), ["here/a", "here/c", "here/t/u", "here/t/v/w"]),
    ],
)
def test_where_it_is_put(
    words: tuple[str, ...], names: list[str], store: FileStore, run: Runner, here: Path
) -> None:
    plant(here, a="1", c="3", t__u="4", t__v__w="5")
    assert 0 == run("file", "put", "node3", *words).code
    assert names == sorted(store.files)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "b", "c"), "several files are put into a directory"),
        (("missing",), "cannot read missing: No such file or directory"),
        (("-",), "needs a name in the store"),
        (("/",), "needs a name in the store"),
        (("-d", "x", "a", "t/a"), "would both be x/a"),
    ],
)
def test_what_cannot_be_put_is_refused_before_anything_is(
    words: tuple[str, ...], said: str, store: FileStore, run: Runner, here: Path
) -> None:
    plant(here, a="1", t__a="2")
    done = run("file", "put", "node3", *words)
    assert 2 == done.code
    assert said in done.err
    assert not store.calls


def test_standard_input_and_pipes_are_put_whole(store: FileStore, run: Runner, here: Path) -> None:
    assert 0 == run("file", "put", "node3", "-", "from-stdin", stdin=b"x" * 100_000).code
    os.mkfifo(here / "pipe")
    writer = threading.Thread(target=lambda: (here / "pipe").write_bytes(b"y" * 200_000))
    writer.start()
    assert 0 == run("file", "put", "node3", "pipe").code
    writer.join()
    assert {"from-stdin": b"x" * 100_000, "pipe": b"y" * 200_000} == store.files
    assert 0 == run("file", "put", "node3", "/proc/self/status").code  # its size is told as 0
    assert b"VmRSS" in store.files["status"]


def test_a_tree_takes_files_only_and_says_what_it_passes_over(
    store: FileStore, run: Runner, here: Path
) -> None:
    plant(here, t__a="1", t__b="2")
    (here / "t" / "b").chmod(0o700)
    (here / "t" / "link").symlink_to("/etc/passwd")
    (here / "t" / "dirlink").symlink_to("/etc")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(here / "t" / "socket"))
    done = run("file", "put", "node3", "t")
    assert 0 == done.code
    assert {"t/a": b"1", "t/b": b"2"} == store.files
    assert {"t/b"} == store.executable
    assert ["t/dirlink", "t/link", "t/socket"] == [line.split()[1] for line in done.err.splitlines()]


def test_a_tree_takes_directories_in_which_there_is_nothing(
    store: FileStore, run: Runner, here: Path
) -> None:
    plant(here, t__a="1")
    (here / "t/bare/deep").mkdir(parents=True)
    (here / "t/links").mkdir()
    (here / "t/links/x").symlink_to("/etc/passwd")
    done = run("file", "put", "node3", "t")
    assert {"t/a": b"1", "t/bare/deep/": b"", "t/links/": b""} == store.files
    assert "id-of-t/links/ put node3 t/links/ (0B)" == done.out.splitlines()[-1]
    assert 0 == run("file", "put", "node3", "t/bare/deep", "x/").code
    assert "x/deep/" in store.files


def test_one_file_that_fails_stops_no_other(store: FileStore, run: Runner, here: Path) -> None:
    plant(here, t__a="1", t__b="2", t__c="3")
    os.rename(here / "t" / "c", bytes(here / "t") + b"/\xff")
    store.refused = {"t/a": "StorageRefused"}
    done = run("file", "put", "node3", "t/a", "t/a")
    assert (8, "msgctl: t/a is refused.\n  Do not.\n") == (done.code, done.err)
    (here / "t" / os.fsdecode(b"\xff")).unlink()
    done = run("-o", "json", "file", "put", "node3", "t")
    assert (8, ["t/b"]) == (done.code, [o["name"] for o in done.objects])
    assert '{"code":8,"error":"t/a is refused.","hint":"Do not.","file":"t/a"}\n' == done.err


def test_a_name_that_is_no_text_is_told(store: FileStore, run: Runner, here: Path) -> None:
    (here / os.fsdecode(b"bad\xff")).write_text("x")
    done = run("file", "put", "node3", os.fsdecode(b"bad\xff"))
    assert (2, "msgctl: b'bad\\xff' is not UTF-8: a store takes no such name\n") == (done.code, done.err)


def test_json_tells_all_of_a_file(store: FileStore, run: Runner, here: Path) -> None:
    plant(here, a="1")
    told = run("-o", "json", "file", "put", "node3", "a", "b").objects
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    expected = {"op": "put", "peer": "node3", "local": "a", "name": "b", "size": 1, "sha256": digest}
    assert [{**expected, "mtime_ns": MTIME_NS, "message": "id-of-b"}] == told


def test_many_files_are_few_calls_of_64(store: FileStore, run: Runner, here: Path) -> None:
    plant(here, **{f"t__{number:03}": str(number) for number in range(300)})
    before = len(os.listdir("/proc/self/fd"))
    done = run("file", "put", "node3", "-q", "t")
    assert (0, "", "") == (done.code, done.out, done.err)
    assert [64, 64, 64, 64, 44] == store.calls
    assert 300 == len(store.files)
    wait_for(lambda: before == len(os.listdir("/proc/self/fd")), 5, "every descriptor to be closed")


def test_a_lost_daemon_is_asked_again_for_what_had_no_result(
    store: FileStore, run: Runner, here: Path
) -> None:
    """Under the same transfer, so that the peer hears of each file once; each is printed once."""
    plant(here, **{f"t__{number:03}": str(number) for number in range(100)})
    store.breaks = 3
    done = run("file", "put", "node3", "t")
    assert 0 == done.code
    assert 100 == len(set(done.out.splitlines())) == len(done.out.splitlines())
    assert 1 == len({transfer for transfer, _ in store.put})
    assert 1 <= done.err.count("msgd closed the connection; it goes on there when it can")
    assert store.put.count((store.put[0][0], "t/000")) == 1
    assert store.put.count((store.put[0][0], "t/001")) == 2  # its answer was lost


def test_patience_ends_when_msgd_stays_away(
    store: FileStore, run: Runner, here: Path, server: ControlServer
) -> None:
    plant(here, a="1")
    store.breaks = 10_000
    done = run("file", "put", "node3", "--timeout", "0.2", "a")
    assert 3 == done.code
    assert "closed the connection" in done.err
    assert 2 < len(store.put)


def test_nothing_moving_is_told_once(
    store: FileStore, run: Runner, server: ControlServer, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the daemon, or the peer behind it, is silent; and again only when something moved in between."""
    monkeypatch.setattr(ferry, "SILENCE_S", 0.0)
    plant(here, a="1")

    def stand(connection: Connection, call: Call) -> None:
        for done in (1, 1, 1, 1, 2, 2, 2):
            progress = {"name": "a", "done": done, "size": 3}
            connection.reply({"progress": progress}, continues=True)
        store.answer_put(connection, call)

    server.script["FilePut"] = stand
    done = run("file", "put", "node3", "a")
    assert 0 == done.code
    told = "msgctl: node3 does not answer; it goes on there when it can (Ctrl-C: next time)"
    assert [told] * 2 == done.err.splitlines()[:2]


def test_a_terminal_sees_the_bar_and_a_pipe_does_not(
    store: FileStore, server: ControlServer, here: Path
) -> None:
    with (here / "big").open("wb") as out:
        out.truncate(1 << 20)
    has_seen = threading.Event()

    def grow(connection: Connection, call: Call) -> None:
        done = 0
        while not has_seen.wait(0.02) and done < 1 << 20:
            done += 4096
            progress = {"name": "big", "done": done, "size": 1 << 20}
            connection.reply({"progress": progress}, continues=True)
        store.answer_put(connection, call)

    server.script["FilePut"] = grow
    with Terminal("--socket", server.path, "file", "put", "node3", str(here / "big")) as terminal:
        terminal.see(" of 1.0M  ")
        terminal.see("/s  ")
        terminal.see(" left  big")
        has_seen.set()
        terminal.see("id-of-big put node3 big (1.0M)\n")
        assert 0 == terminal.end()
    assert terminal.shown.split("\r\x1b[K")[-1] == "id-of-big put node3 big (1.0M)\n"


def test_an_error_of_a_whole_call_ends_it(
    store: FileStore, run: Runner, server: ControlServer, here: Path
) -> None:
    plant(here, a="1")
    server.script["FilePut"] = lambda connection, call: connection.error(
        "PeerAway", "node3 is away.", "Wait."
    )
    done = run("file", "put", "node3", "a")
    assert (5, "msgctl: node3 is away.\n  Wait.\n") == (done.code, done.err)


# --- get ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (("a",), ["a"]),
        (("t/u",), ["u"]),
        (("a", "b"), ["b"]),
        (("a", "new/deep/b"), ["new/deep/b"]),
        (("a", "dir"), ["dir/a"]),
        (("a", "made/"), ["made/a"]),
        (("t",), ["t/u", "t/v/w"]),
        (("t/",), ["t/u", "t/v/w"]),
        (("t", "z"), ["z/u", "z/v/w"]),
        (("t/v", "dir"), ["dir/v/w"]),
        (("-d", "z", "a", "t"), ["z/a", "z/t/u", "z/t/v/w"]),
        (("t/*", "z"), ["z/u", "z/v/w"]),
        (("-d", "z", "t/v/*", "a"), ["z/a", "z/w"]),
        (("/", "z"), ["z/a", "z/t/u", "z/t/v/w"]),
    ],
)
def test_where_it_is_got(
    words: tuple[str, ...], paths: list[str], store: FileStore, run: Runner, here: Path
) -> None:
    store.files = {"a": b"1", "t/u": b"2", "t/v/w": b"3"}
    (here / "dir").mkdir()
    done = run("file", "get", "node3", *words)
    assert (0, "") == (done.code, done.err)
    assert paths == sorted(str(p.relative_to(here)) for p in here.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("words", "paths"),
    [
        (("t",), ["t", "t/a", "t/e"]),
        (("t", "z"), ["z", "z/a", "z/e"]),
        (("t/e",), ["e"]),
        (("t/e", "z"), ["z"]),
        (("-d", "z", "t/e"), ["z", "z/e"]),
        (("t/*", "z"), ["z", "z/a", "z/e"]),
        (("-d", "z", "t"), ["z", "z/t", "z/t/a", "z/t/e"]),
    ],
)
def test_directories_in_which_there_is_nothing_are_got(
    words: tuple[str, ...], paths: list[str], store: FileStore, run: Runner, here: Path
) -> None:
    store.files = {"t/a": b"1", "t/e/": b""}
    done = run("file", "get", "node3", *words)
    assert (0, "") == (done.code, done.err)
    assert paths == sorted(str(p.relative_to(here)) for p in here.rglob("*"))
    assert 0 == run("file", "get", "node3", *words).code, "also where it is there already"


def test_a_directory_that_cannot_be_made_here_is_told(store: FileStore, run: Runner, here: Path) -> None:
    (here / "z").write_text("a file")
    store.files = {"t/e/": b""}
    done = run("file", "get", "node3", "t", "z")
    assert (2, "msgctl: cannot make the directory z: File exists\n") == (done.code, done.err)
    (here / "y").mkdir()
    (here / "y/e").write_text("a file")
    store.files["t/f"] = b"1"
    done = run("file", "get", "node3", "t/*", "y")
    assert (2, "msgctl: cannot make the directory y/e: File exists\n") == (done.code, done.err)
    assert b"1" == (here / "y/f").read_bytes(), "the others come"


def test_a_tree_that_did_not_come_whole_goes_on_at_its_place(
    store: FileStore, run: Runner, here: Path
) -> None:
    """Not below it, though by then there is a directory of that name."""
    store.files, store.refused = {"t/a": b"1", "t/b": b"2"}, {"t/b": "StorageRefused"}
    assert 8 == run("file", "get", "node3", "t", "z").code
    store.refused = {}
    assert 0 == run("file", "get", "node3", "t", "z").code
    assert ["z/a", "z/b"] == sorted(str(p.relative_to(here)) for p in here.rglob("*") if p.is_file())
    assert 0 == run("file", "get", "node3", "t", "z").code
    assert (here / "z/t/b").is_file(), "now it is a directory as any other"


def test_the_name_of_an_open_file_is_written_to(store: FileStore, run: Runner, here: Path) -> None:
    """/dev/stdout is such a link; it stays."""
    store.files = {"a": b"content"}
    with (here / "out").open("w+b") as file:
        (here / "link").symlink_to(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        (here / "second").symlink_to("link")
        for name in ("link", "second"):
            assert 0 == run("file", "get", "node3", "a", name).code
            assert (here / name).is_symlink()
            assert b"content" == file.read()
            file.seek(0)
            file.truncate()


def test_a_directory_that_may_not_be_entered_costs_only_its_files(tmp_path: Path) -> None:
    """Its names can be read, nothing of its files: opening them says so."""
    require("root")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    (tmp_path / "t/d").mkdir(parents=True)
    (tmp_path / "t/a").write_text("1")
    (tmp_path / "t/d/b").write_text("2")
    (tmp_path / "t/d").chmod(0o744)

    def found() -> list[tuple[str, int]]:
        os.setuid(65534)
        return [(name, size) for _, name, size in filenames.tree(str(tmp_path / "t"), "t", [])]

    assert [("t/a", 1), ("t/d/b", 0)] == in_child(found)


def test_a_got_file_has_content_time_and_mode(store: FileStore, run: Runner, here: Path) -> None:
    store.files, store.executable = {"a": b"1", "b": b"2"}, {"b"}
    os.umask(0o027)
    assert 0 == run("file", "get", "node3", "-d", ".", "a", "b").code
    found = [
        (p.read_bytes(), p.stat().st_mode & 0o777, p.stat().st_mtime_ns) for p in (here / "a", here / "b")
    ]
    os.umask(0o022)
    assert [(b"1", 0o640, MTIME_NS), (b"2", 0o750, MTIME_NS)] == found


def test_a_part_goes_on_and_is_gone_in_the_end(store: FileStore, run: Runner, here: Path) -> None:
    store.files = {"a": b"0123456789", "b": b"0123456789"}
    (here / ".a.msgd-part").write_bytes(b"01234")
    (here / ".b.msgd-part").write_bytes(b"other bytes, and more")
    assert 0 == run("file", "get", "node3", "-d", ".", "a", "b").code
    assert {"a": 5, "b": 21} == store.have
    assert [b"0123456789"] * 2 == [(here / name).read_bytes() for name in "ab"]
    assert ["a", "b"] == sorted(os.listdir(here))


def stand(path: Path, content: bytes, mtime_ns: int = MTIME_NS) -> None:
    """A file that an earlier call has got."""
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def test_what_stands_there_with_its_size_and_time_is_only_compared(
    store: FileStore, run: Runner, here: Path
) -> None:
    """Neither what is small, nor a link, nor what has another size or time."""
    size = fileparts.SMALL_BYTES + 1
    store.files = dict.fromkeys(["other", "same", "size", "time", "link"], b"x" * size)
    store.files["small"] = b"x" * fileparts.SMALL_BYTES
    stand(here / "same", b"x" * size)
    stand(here / "other", b"y" * size)
    stand(here / "size", b"x" * (size + 1))
    stand(here / "time", b"x" * size, MTIME_NS + 1)
    stand(here / "small", b"x" * (size - 1))
    stand(here / "target", b"x" * size)
    (here / "link").symlink_to("target")
    assert 0 == run("file", "get", "node3", "-d", ".", *store.files).code
    assert {"same": size, "other": size, "size": 0, "time": 0, "small": 0, "link": 0} == store.have
    assert store.files == {name: (here / name).read_bytes() for name in store.files}
    assert sorted([*store.files, "target"]) == sorted(os.listdir(here))


def test_an_earlier_part_is_gone_on_with_before_what_stands_there(
    store: FileStore, run: Runner, here: Path
) -> None:
    store.files = {"a": b"x" * 100_000}
    stand(here / "a", b"x" * 100_000)
    (here / ".a.msgd-part").write_bytes(b"x" * 7)
    assert 0 == run("file", "get", "node3", "a").code
    assert {"a": 7} == store.have


def test_what_stands_there_and_cannot_be_copied_is_got(
    store: FileStore, run: Runner, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, whose file then begins anew."""
    store.files = {"a": b"x" * 100_000}
    stand(here / "a", b"x" * 100_000)

    def full(source: int, target: int, at: int, size: int) -> int:
        if at:
            raise OSError(28, "No space left on device")
        return os.pwrite(target, b"x" * 10, 0)

    monkeypatch.setattr(fileparts, "copy_piece", full)
    assert 0 == run("file", "get", "node3", "a").code
    assert {"a": 0} == store.have
    assert store.files["a"] == (here / "a").read_bytes()


def test_a_mere_copy_of_what_stands_there_is_nothing_to_go_on_with(
    here: Path,
) -> None:
    stand(here / "a", b"x" * 100_000)
    item = fileget.Wanted("a", "a", 100_000, set(), MTIME_NS)
    assert 100_000 == item.open()["have"]
    item.give_up()
    item.close()
    assert ["a"] == os.listdir(here)


def test_few_files_are_copied_ahead(
    store: FileStore, run: Runner, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that stands there whole takes no second room for all of it at once."""
    monkeypatch.setattr(ferry, "HAVE_SHARE", 1)
    store.files = dict.fromkeys("abc", b"x" * 100000)
    for name in store.files:
        stand(here / name, b"x" * 100_000)
    assert 0 == run("file", "get", "node3", "-d", ".", *store.files).code
    assert [1, 1, 1] == store.calls


def test_what_stands_there_is_replaced_whole_or_not_at_all(store: FileStore, run: Runner, here: Path) -> None:
    (here / "a").write_text("old")
    store.files, store.refused = {"a": b"new"}, {"a": "StorageRefused"}
    assert 8 == run("file", "get", "node3", "a").code
    assert "old" == (here / "a").read_text()
    assert ["a"] == os.listdir(here), "nothing came, so there is nothing to go on with"
    store.refused = {}
    assert 0 == run("file", "get", "node3", "a").code
    assert "new" == (here / "a").read_text()


def test_two_commands_for_one_file_do_not_mix(
    store: FileStore, run: Runner, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds the part in use takes one of its own."""
    monkeypatch.setattr(fileparts, "LOCK_S", 0.1)
    store.files = {"a": b"0123456789"}
    other = fileget.Wanted("a", "a", 0, set())
    other.open()
    os.write(other.fd, b"XXXX")
    assert 0 == run("file", "get", "node3", "a").code
    assert b"0123456789" == (here / "a").read_bytes()
    other.close()
    assert b"XXXX" == (here / ".a.msgd-part").read_bytes()


def test_a_part_that_is_somebody_elses_is_not_written(
    store: FileStore, run: Runner, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, a symbolic link, a second name of another file."""
    monkeypatch.setattr(fileparts, "LOCK_S", 0.0)
    store.files = dict.fromkeys("abc", b"secret")
    (here / "victim").write_text("as it was")
    (here / ".a.msgd-part").symlink_to(here / "victim")
    os.link(here / "victim", here / ".b.msgd-part")
    (here / ".c.msgd-part").write_text("as it was")
    codes = [run("file", "get", "node3", name).code for name in "ab"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "geteuid", lambda: 4711)
        patched.setattr(os.path, "isdir", lambda path: True)
        with pytest.raises(TimeoutError):
            given_up(patched)
    assert [2, 0] == codes
    assert "as it was" == (here / "victim").read_text() == (here / ".c.msgd-part").read_text()
    assert b"secret" == (here / "b").read_bytes()


def given_up(patched: pytest.MonkeyPatch) -> None:
    """No part is ever taken."""

    def sleep(seconds: float) -> None:
        raise TimeoutError

    patched.setattr(fileparts.time, "sleep", sleep)
    fileparts.open_part("c")


def test_standard_output_has_the_bytes_and_nothing_else(store: FileStore, run: Runner, here: Path) -> None:
    store.files = {"a": bytes(range(256)) * 1000}
    done = run("file", "get", "node3", "a", "-")
    assert (0, store.files["a"], "") == (done.code, done.raw, done.err)
    assert [] == os.listdir(here)
    text = run("file", "get", "node3", "a", "-", terminal=True).out
    assert "\x1b" not in text
    assert "\\x1b" in text


def test_two_files_for_one_place_are_refused_before_anything_is_got(
    store: FileStore, run: Runner, here: Path
) -> None:
    store.files = {"a/x": b"1", "b/x": b"2"}
    done = run("file", "get", "node3", "-d", ".", "a/x", "b/x")
    assert (2, []) == (done.code, os.listdir(here))
    assert "a/x and b/x would both be ./x" in done.err
    assert 0 == run("file", "get", "node3", "-d", ".", "a/x", "a/*").code
    assert [1] == store.calls, "what is named twice is got once"


def test_a_full_disk_here_is_8(store: FileStore, run: Runner, here: Path) -> None:
    store.files = {"a": b"x"}
    done = run("file", "get", "node3", "a", "/dev/full")
    assert (8, "") == (done.code, done.out)
    assert "/dev/full cannot be written: No space left" in done.err


def test_a_tree_is_nothing_for_standard_output(store: FileStore, run: Runner) -> None:
    store.files = {"t/a": b"1"}
    done = run("file", "get", "node3", "t", "-")
    assert (2, "msgctl: t is not one file: standard output takes no tree\n") == (done.code, done.err)


def test_a_name_that_is_not_there_is_7(store: FileStore, run: Runner) -> None:
    store.files = {"a": b"1"}
    assert 7 == run("file", "get", "node3", "b").code


@pytest.mark.parametrize("name", ["../x", "/etc/x", "t/../../x", "t//x", "t/./x", "t/x\n", "other/x", "t/"])
def test_a_hostile_list_writes_nothing_elsewhere(name: str) -> None:
    with pytest.raises(MsgdError, match="that is no name for a file here"):
        filenames.below("dir", "t", name)


def test_a_lost_daemon_does_not_end_a_get(store: FileStore, run: Runner, here: Path) -> None:
    store.files = {f"t/{number:03}": str(number).encode() for number in range(100)}
    store.breaks = 3
    done = run("file", "get", "node3", "t")
    assert 0 == done.code
    assert store.files == {f"t/{p.name}": p.read_bytes() for p in (here / "t").iterdir()}


def test_a_list_that_was_lost_is_asked_for_again(store: FileStore, run: Runner, here: Path) -> None:
    store.files, store.uncertain = {"a": b"x"}, 2
    done = run("file", "get", "node3", "a")
    assert (0, "") == (done.code, done.err)
    assert b"x" == (here / "a").read_bytes()


# --- the others ---------------------------------------------------------------------------------------------


def test_a_store_is_listed(store: FileStore, run: Runner) -> None:
    store.files = {"a": b"1" * 2000, "t/b\x1b": b"2"}
    out = run("file", "ls", "node3").out
    assert ["SIZE", "MODIFIED", "SHA-256", "NAME"] == out.splitlines()[0].split()
    assert ["2.0K", "2026-11-21", "12:00:00", "0b9c1cd6f9dd", "a"][0:3:2] == out.splitlines()[1].split()[
        0:3:2
    ]
    assert "\x1b" not in out
    objects = run("-o", "json", "file", "ls").objects
    assert ["a", "t/b\x1b"] == [o["name"] for o in objects]
    assert objects[0]["mtime_at"].startswith("2026-11-2")


def test_a_copy_and_a_removal_are_told(store: FileStore, run: Runner) -> None:
    store.files = {"a": b"1"}
    assert "a is b, too (1B)\n" == run("file", "dup", "node3", "a", "b").out
    assert {"a": b"1", "b": b"1"} == store.files
    assert "removed 1 file: a\n" == run("file", "rm", "node3", "a").out
    assert {"b": b"1"} == store.files


def test_the_whole_store_is_not_removed(store: FileStore, run: Runner) -> None:
    store.files["a"] = b"x"
    for name in ("/", "//", ""):
        done = run("file", "rm", "-r", "node3", name)
        assert (2, True) == (done.code, "the whole store cannot be removed" in done.err)
    assert {"a": b"x"} == store.files


@pytest.mark.parametrize("brackets", [True, False])
def test_a_tree_whose_name_has_brackets_is_got_as_a_tree(
    brackets: bool, store: FileStore, run: Runner, here: Path
) -> None:
    top = "d[1]" if brackets else "d1"
    store.files.update({f"s/{top}/a": b"1", f"s/{top}/e/": b""})
    answer = store._entry

    def listed(connection: Connection, call: Call) -> None:
        connection.reply({"entries": [answer(name) for name in sorted(store.files)]})

    store.server.script["FileList"] = listed
    assert 0 == run("file", "get", "node3", "s/d[1]").code
    assert ([b"1"], 2) == ([(here / top / "a").read_bytes()], len([*(here / top).iterdir()]))
    assert 0 == run("file", "get", "node3", "s/d[1]", "there").code
    assert b"1" == (here / "there" / ("a" if brackets else "d1/a")).read_bytes()


# --- cast ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (PermissionError(13, "Permission denied"), 2, "a: Permission denied. Nothing is cast."),
        (MsgdError("It is not good."), 1, "It is not good. Nothing is cast."),
        (KeyboardInterrupt(), 130, ""),
    ],
)
@pytest.mark.parametrize("answer", ["UnknownFile", "StorageRefused", "cut"])
def test_what_is_not_handed_over_whole_is_taken_back(
    fault: BaseException,
    code: int,
    says: str,
    answer: str,
    server: ControlServer,
    run: Runner,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever msgd answers to that."""

    def unreadable(local: str) -> int:
        raise fault

    def taken_back(connection: Connection, call: Call) -> None:
        connection.cut() if answer == "cut" else connection.error(answer)

    server.script["FileCastCancel"] = taken_back
    monkeypatch.setattr(fileput, "_readable", unreadable)
    plant(here, a="x")
    done = run("file", "cast", "a", "@web")
    assert (code, True) == (done.code, says in done.err), done.err
    assert [] == server.called("FileCastBegin")
    [asked] = server.called("FileCastCancel")
    assert 36 == len(asked["id"])


def test_what_had_not_begun_is_cancelled_without_members(server: ControlServer, run: Runner) -> None:
    server.script["FileCastCancel"] = lambda connection, call: connection.reply({"cast": None})
    done = run("file", "cancel", "0" * 8)
    assert (0, "it had not begun: what was handed over is removed\n") == (done.code, done.out)
    assert "" == run("file", "cancel", "0" * 8, "-o", "json").out


# --- the bar ------------------------------------------------------------------------------------------------


def test_the_bar_says_how_far_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    clock = [100.0]
    monkeypatch.setattr(filebar.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv("COLUMNS", "120")
    bar = filebar.Bar(2, 4 << 30, is_shown=True)
    monkeypatch.setattr(bar._line, "show", shown.append)
    bar.show("a", 0, 0)  # too early
    clock[0] += 1
    bar.show("a", 0, 1 << 30)
    clock[0] += 1
    bar.show("a\n", 1, 2 << 30)
    half = "━" * 12 + "─" * 12
    expected = [
        "━" * 6 + "─" * 18 + "  25 %  1.0G of 4.0G  1.0G/s  3 s left  0 of 2 files  a",
        f"{half}  50 %  2.0G of 4.0G  1.0G/s  2 s left  1 of 2 files  a\\n",
    ]
    assert expected == shown
