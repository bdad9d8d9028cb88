"""The store of files: what is put is there, whole, durable and under a good name, or the reason is told."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from msgctl import labnode
from msgd.config import load
from msgd.errors import MsgdError, NotTrusted, PeerAway, StorageRefused, UnknownFile, UsageError
from msgd.files.depot import Depot
from msgd.files.frames import CONTROL_BYTES, Begin, Event, Piece
from msgd.files.getting import Getting
from msgd.files.goods import Progress
from msgd.files.intake import Incoming
from msgd.files.outflow import SMALL_BYTES
from msgd.files.stream import CHUNK_BYTES
from msgd.peer.errors import RemoteProtocolError
from msgd.session import MeetingFailed
from msgd.shipping import Outcome, Source, local_store
from tests.file_world import MTIME_NS, FileWorld, nobody, only


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileWorld]:
    made = FileWorld(tmp_path, monkeypatch)
    yield made
    made.close()


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def hexed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SIZES = [0, 1, *(n + d for n in (SMALL_BYTES, CHUNK_BYTES, CHUNK_BYTES * 5) for d in (-1, 0, 1))]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_put_is_there_and_is_got_back(world: FileWorld, size: int) -> None:
    data, store = content(size), world.remote()
    put = only(list(store.put([world.source("a/b", data, executable=True)], nobody)))
    assert (None, hexed(data), size) == (put.error, put.sha256, put.size)
    path = world.store / "a" / "b"
    assert data == path.read_bytes()
    assert (MTIME_NS, True) == (path.stat().st_mtime_ns, bool(path.stat().st_mode & 0o100))
    target = world.target("a/b")
    assert Outcome("a/b", size, hexed(data), MTIME_NS, True) == only(list(store.get([target], nobody)))
    assert data == os.pread(target.fd, size + 1, 0)
    assert [] == parts(world)


def parts(world: FileWorld) -> list[Path]:
    """What lies there and is not whole."""
    return [path for path in (world.store / ".msgd-parts").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_many_files_of_all_sizes_are_answered_in_their_order(world: FileWorld) -> None:
    sizes = [n * 997 % 9000 for n in range(700)]
    sizes[100], sizes[300] = 3 * CHUNK_BYTES, SMALL_BYTES + 1
    sources = [world.source(f"d{n % 7}/{n}", content(size)) for n, size in enumerate(sizes)]
    store = world.remote()
    outcomes = list(store.put(sources, nobody))
    assert [(s.name, s.size, None) for s in sources] == [(o.name, o.size, o.error) for o in outcomes]
    got = list(store.get([world.target(s.name) for s in sources], nobody))
    assert [o.sha256 for o in outcomes] == [o.sha256 for o in got]
    assert {s.name for s in sources} == {entry.name for entry in store.ls("", True)}
    assert 1 == world.tries


def test_a_refused_file_does_not_disturb_the_others(world: FileWorld) -> None:
    names = ["a", "../b", "c", "d/" * 600 + "x", "e"]
    outcomes = list(world.remote().put([world.source(n, content(200_000)) for n in names], nobody))
    assert [None, UsageError, None, UsageError, None] == [o.error and type(o.error) for o in outcomes]
    assert ["a", "c", "e"] == sorted(path.name for path in world.store.iterdir() if path.is_file())


# --- what was begun ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cut", "tries"), [(5_000, 3), (100_000, 3), (1_500_000, 3), (3_000_000, 2)])
def test_a_put_goes_on_where_it_stopped(world: FileWorld, cut: int, tries: int) -> None:
    data = content(3_000_001)
    world.cuts = [cut, cut]
    outcome = only(list(world.remote().put([world.source("big", data)], nobody)))
    assert (None, tries) == (outcome.error, world.tries)
    assert data == (world.store / "big").read_bytes()
    assert [] == parts(world)


@pytest.mark.parametrize(("cut", "tries"), [(5_000, 3), (100_000, 3), (1_500_000, 3), (3_000_000, 2)])
def test_a_get_goes_on_where_it_stopped(world: FileWorld, cut: int, tries: int) -> None:
    data = content(3_000_001)
    (world.store).mkdir()
    (world.store / "big").write_bytes(data)
    world.cuts = [cut, cut]
    target = world.target("big")
    assert None is only(list(world.remote().get([target], nobody))).error
    assert data == os.pread(target.fd, len(data) + 1, 0)
    assert tries == world.tries


@pytest.mark.slow
def test_small_files_survive_any_break(world: FileWorld) -> None:
    sources = [world.source(f"{n}", content(n * 37)) for n in range(300)]
    world.cuts = [20_000 * n for n in range(1, 9)]
    outcomes = list(world.remote().put(sources, nobody))
    assert [s.name for s in sources] == [o.name for o in outcomes]
    assert [] == [o.error for o in outcomes if o.error]
    for source in sources:
        assert os.pread(source.fd, source.size, 0) == (world.store / source.name).read_bytes()


def test_what_an_earlier_call_has_left_is_not_sent_again(world: FileWorld) -> None:
    data = content(3_000_000)
    source = world.source("big", data)
    break_off(world, source, 2_000_000)
    [part] = parts(world)
    there = part.stat().st_size
    assert there > 1_000_000
    world.cuts = [len(data) - there + 200_000]  # enough for the rest, not for all
    assert None is only(list(world.remote().put([source], nobody))).error
    assert 2 == world.tries
    assert data == (world.store / "big").read_bytes()


def break_off(world: FileWorld, source: Source, after: int) -> None:
    """A put that ends with the connection."""
    world.cuts, world.most_tries = [after], 1
    with pytest.raises(PeerAway):
        list(world.remote(patience_s=0.0).put([source], nobody))
    world.wait_ended()
    world.most_tries, world.tries = 1000, 1


@pytest.mark.parametrize("error", [None, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_what_stands_there_already_is_not_sent_again(
    world: FileWorld, error: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel does not copy between files; its size may be no multiple of a piece's."""
    if error is not None:
        monkeypatch.setattr(os, "copy_file_range", failing(error))
    data = content(5_000_001)
    sources = [world.source(name, data, executable=True) for name in ("a", "d/b")]
    list(world.remote().put(sources, nobody))
    before = [(world.store / source.name).stat().st_ino for source in sources]
    world.cuts, world.most_tries = [200_000], world.tries + 1
    outcomes = list(world.remote().put([source._replace(executable=False) for source in sources], nobody))
    assert [(None, hexed(data), len(data))] * 2 == [(o.error, o.sha256, o.size) for o in outcomes]
    for source, inode in zip(sources, before, strict=True):
        path = world.store / source.name
        assert (data, MTIME_NS) == (path.read_bytes(), path.stat().st_mtime_ns)
        assert not path.stat().st_mode & 0o111
        assert inode != path.stat().st_ino, "it came in as all do"
    assert [] == parts(world)


def failing(code: int) -> Callable[..., int]:
    """A call of the system that fails."""

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_what_stands_there_with_other_content_is_replaced(world: FileWorld) -> None:
    """Its size and time say nothing of it: the digest does."""
    one, other = content(2_000_000), content(2_000_000)[::-1]
    for data in (one, other):
        outcome = only(list(world.remote().put([world.source("big", data)], nobody)))
        assert (None, hexed(data)) == (outcome.error, outcome.sha256)
        assert data == (world.store / "big").read_bytes()
    assert [] == parts(world)


def test_what_stands_there_and_cannot_be_copied_is_sent(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in its middle leaves no beginning; a link is not followed."""
    data, real, pieces = content(5_000_000), os.copy_file_range, list[int]()

    def fail(source: int, target: int, count: int, at: int, to: int) -> int:
        pieces.append(at)
        return failing(errno.EIO)() if at else real(source, target, count, at, to)

    monkeypatch.setattr(os, "copy_file_range", fail)
    source = world.source("big", data)
    list(world.remote().put([source], nobody))
    assert [] == pieces
    assert None is only(list(world.remote().put([source], nobody))).error
    assert (2, data) == (len(pieces), (world.store / "big").read_bytes())
    (world.store / "big").rename(world.directory / "outside")
    (world.store / "big").symlink_to(world.directory / "outside")
    assert None is only(list(world.remote().put([source], nobody))).error
    assert (2, False) == (len(pieces), (world.store / "big").is_symlink())


def test_who_leaves_while_what_stands_there_is_copied_leaves_nothing_behind(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = world.source("big", content(5_000_000))
    list(world.remote().put([source], nobody))
    with monkeypatch.context() as patched:
        patched.setattr("msgd.sharing.Sharing.tick", failing(errno.EPIPE))
        with pytest.raises(PeerAway):
            list(world.remote(patience_s=0.0).put([source], nobody))
        world.wait_ended()
    assert [] == parts(world)
    assert source.size == (world.store / "big").stat().st_size


def test_what_stands_there_counts_once_against_a_quota(world: FileWorld) -> None:
    world.set('[files]\npeers = "write"\nquota = "1M"\n')
    store, source = world.remote(), world.source("f", content(900_000))
    for _ in range(3):
        assert None is only(list(store.put([source], nobody))).error
    refused = only(list(store.put([world.source("g", content(200_000))], nobody)))
    assert isinstance(refused.error, StorageRefused)


def test_another_beginning_is_not_gone_on_with(world: FileWorld) -> None:
    data = content(2_000_000)
    source = world.source("big", data)
    break_off(world, source, 1_500_000)
    [part] = parts(world)
    with part.open("r+b") as file:
        file.write(b"!")
    assert None is only(list(world.remote().put([source], nobody))).error
    assert data == (world.store / "big").read_bytes()


def test_a_get_keeps_what_is_there_only_where_it_is_the_same(world: FileWorld) -> None:
    data = content(500_000)
    world.store.mkdir()
    (world.store / "f").write_bytes(data)
    for have in (data[:300_000], b"!" * 300_000, data + b"more"):
        target = world.target("f", have)
        assert hexed(data) == only(list(world.remote().get([target], nobody))).sha256
        assert data == os.pread(target.fd, len(data) + 10, 0)


def test_two_writers_of_one_file_do_not_mix(world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second has a part of its own; who is whole last has the name."""
    monkeypatch.setattr("msgd.files.parts.PATIENCE_S", 0.0)
    data = content(1_000_000)
    source = world.source("same", data)
    second = world.remote()
    others: list[Outcome] = []

    def meanwhile(name: str, done: int, size: int) -> None:
        if not others and done:
            others.extend(second.put([source], nobody))

    assert None is only(list(world.remote().put([source], meanwhile))).error
    assert None is only(others).error
    assert data == (world.store / "same").read_bytes()
    assert [] == parts(world)


# --- what changes -----------------------------------------------------------------------------------------


def change(path: Path, how: str) -> None:
    with path.open("r+b") as file:
        if how == "shorter":
            file.truncate(10)
        else:
            file.seek(0, os.SEEK_END if how == "longer" else os.SEEK_SET)
            file.write(b"changed")


@pytest.mark.parametrize("how", ["shorter", "longer", "other"])
@pytest.mark.parametrize("size", [100, 4_000_000])
def test_a_source_that_changed_before_or_while_it_is_sent_is_noticed(
    world: FileWorld, how: str, size: int
) -> None:
    source = world.source("f", content(size))
    path = Path(os.readlink(f"/proc/self/fd/{source.fd}"))
    changed: list[int] = []

    def meanwhile(name: str, done: int, _: int) -> None:
        if done and not changed:
            changed.append(done)
            change(path, how)

    if size == 100:
        change(path, how)
    outcome = only(list(world.remote().put([source], meanwhile)))
    assert isinstance(outcome.error, MsgdError)
    assert "it changed" in outcome.error.message
    assert not (world.store / "f").exists()


def test_a_source_cut_while_its_beginning_is_compared_costs_only_itself(world: FileWorld) -> None:
    source, other = world.source("f", content(9_000_000)), world.source("g", b"x")
    world.cuts = [6_000_000]
    heard: list[int] = []

    def cut(name: str, done: int, size: int) -> None:
        if world.tries == 2 and not heard:  # both ends compute the digest of what is there
            heard.append(done)
            os.truncate(world.directory / "source-0", 10)

    first, second = world.remote().put([source, other], cut)
    assert [True] == [done > 0 for done in heard]
    assert first.error is not None
    assert ("it changed" in first.error.message, None) == (True, second.error)


def test_a_file_that_changes_while_it_is_got_is_noticed(world: FileWorld) -> None:
    world.store.mkdir()
    (world.store / "f").write_bytes(content(8_000_000))
    done: list[int] = []

    def meanwhile(name: str, at: int, _: int) -> None:
        if at and not done:
            done.append(at)
            change(world.store / "f", "other")

    outcome = only(list(world.remote().get([world.target("f")], meanwhile)))
    assert outcome.error is not None
    assert "it changed" in outcome.error.message


# --- names ------------------------------------------------------------------------------------------------


def test_the_deepest_name_is_listed_with_its_tree(world: FileWorld) -> None:
    name, store = "a/" * 127 + "b", world.remote()
    assert None is only(list(store.put([world.source(name, b"x")], nobody))).error
    assert [name] == [entry.name for entry in store.ls("", recursive=True)]


HOSTILE = [
    "", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a//", ".msgd-parts/x", ".msgd", "a\nb",
    "a\x7fb", "a\x85b", "\x00", "x" * 256, "a/" * 512 + "b", "a/" * 128 + "b",
    "\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused_by_every_verb(tmp_path: Path, name: str) -> None:
    config = FileWorldConfig(tmp_path)
    store = local_store(config)  # type: ignore[arg-type]
    fd = os.open(tmp_path / "s", os.O_RDWR | os.O_CREAT)
    source = Source(name, fd, 0, os.fstat(fd).st_mtime_ns, False)
    assert isinstance(only(list(store.put([source], nobody))).error, UsageError)
    if name:
        assert isinstance(store.dup("s", name, nobody).error, UsageError)
        for act in (lambda: list(store.ls(name)), lambda: store.rm(name)):
            if name != "a//":
                assert_refused(act)
    assert ["s"] == sorted(p.name for p in tmp_path.iterdir() if p.is_file() and "sqlite" not in p.name)
    store.close()
    os.close(fd)


def assert_refused(act: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        act()


class FileWorldConfig:
    """Where a store of this node's own lies."""

    def __init__(self, directory: Path) -> None:
        self.store = str(directory / "store")
        self.state = str(directory)


def test_no_link_is_followed_in_any_place(world: FileWorld, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    world.store.mkdir()
    (world.store / "dir").symlink_to(outside)
    (world.store / "file").symlink_to(outside / "secret")
    os.mkfifo(world.store / "pipe")
    store = world.remote()
    targets = [world.target(n) for n in ("dir/secret", "file", "pipe")]
    assert [UsageError] * 3 == [type(o.error) for o in store.get(targets, nobody)]
    put = only(list(store.put([world.source("dir/new", b"x")], nobody)))
    assert isinstance(put.error, UsageError)
    assert [] == list(store.ls("*"))
    assert [] == list(store.ls("", True))
    store.put([world.source("file", b"x")], nobody)
    assert ["secret"] == [path.name for path in outside.iterdir()]
    assert 1 == store.rm("file")
    assert (outside / "secret").read_text() == "secret"


def test_a_removed_tree_takes_its_links_and_nothing_behind_them(world: FileWorld, tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("x")
    store = world.remote()
    list(store.put([world.source("t/a", b"1"), world.source("t/u/b", b"2")], nobody))
    (world.store / "t" / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is a directory"):
        store.rm("t")
    assert 3 == store.rm("t", True)
    assert (tmp_path / "keep").exists()
    with pytest.raises(UnknownFile):
        store.rm("t", True)


@pytest.mark.parametrize(
    ("pattern", "recursive", "names"),
    [
        ("", False, ["a.txt", "b.bin", "d/"]),
        ("", True, ["a.txt", "b.bin", "d/c.txt", "d/e/f.txt"]),
        ("*.txt", False, ["a.txt"]),
        ("*", True, ["a.txt", "b.bin", "d/c.txt", "d/e/f.txt"]),
        ("d", False, ["d/c.txt", "d/e/"]),
        ("d/", True, ["d/c.txt", "d/e/f.txt"]),
        ("*/*.txt", False, ["d/c.txt"]),
        ("[ab].*", False, ["a.txt", "b.bin"]),
        ("nothing*", False, []),
        ("a.txt", False, ["a.txt"]),
    ],
)
def test_what_fits_a_glob_is_listed(
    world: FileWorld, pattern: str, recursive: bool, names: list[str]
) -> None:
    store = world.remote()
    there = ["a.txt", "b.bin", "d/c.txt", "d/e/f.txt"]
    list(store.put([world.source(name, name.encode()) for name in there], nobody))
    found = list(store.ls(pattern, recursive))
    assert names == [entry.name + "/" * entry.is_directory for entry in found]
    assert {hexed(e.name.encode()) for e in found if not e.is_directory} == {
        e.sha256 for e in found if e.sha256
    }


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x[1]", ["x[1]"]),
        ("x[1]/", ["x[1]"]),
        ("x[12]", ["x1", "x2"]),
        ("x[[]1]", ["x[1]"]),
        ("[x]*", ["x1", "x2", "x[1]"]),
        ("d[1]", ["d[1]/a", "d[1]/e/"]),
        ("d[1]/a", ["d[1]/a"]),
        ("d[1]/[a]", []),
        ("[d]1", ["d1/b"]),
        ("y[1]", ["y1"]),
        (".msgd-[p]arts", []),
        (".msgd-[1]", []),
    ],
)
def test_a_name_with_brackets_means_itself_where_it_is_there(
    world: FileWorld, pattern: str, names: list[str]
) -> None:
    store = world.remote()
    there = ["x[1]", "x1", "x2", "d[1]/a", "d1/b", "y1"]
    list(store.put([world.source(name, name.encode()) for name in there], nobody))
    (world.store / "d[1]/e").mkdir()
    (world.store / "y[1]").symlink_to("x1")
    (world.store / ".msgd-[1]").mkdir()
    assert names == [entry.name + "/" * entry.is_directory for entry in store.ls(pattern, True)]


def test_directories_in_which_there_is_nothing_are_made_and_listed(world: FileWorld, tmp_path: Path) -> None:
    store = world.remote()
    (tmp_path / "bare").mkdir()

    def bare(name: str) -> Source:
        return world.source_of(name, tmp_path / "bare")

    sources = [bare("t/e/"), world.source("t/a", b"1"), bare("t/d/e/"), bare("t/"), bare("top/")]
    for _ in range(2):  # they may be there already
        outcomes = list(store.put(sources, nobody))
        assert [(s.name, 0, "", None) for s in sources if s.name != "t/a"] == [
            (o.name, o.size, o.sha256, o.error) for o in outcomes if o.name != "t/a"
        ]
    assert ["t/a", "t/d/e/", "t/e/", "top/"] == [e.name + "/" * e.is_directory for e in store.ls("", True)]
    assert ["t/e/"] == [e.name + "/" * e.is_directory for e in store.ls("t/e", True)]
    assert [] == list(store.ls("t/e"))
    refused = list(store.put([bare("t/a/"), bare("../e/"), bare("/"), bare("t//"), bare(".msgd/")], nobody))
    assert [UsageError] * 5 == [type(o.error) for o in refused]
    assert isinstance(only(list(store.get([world.target("t/e/")], nobody))).error, UsageError)


def test_what_is_said_to_be_a_directory_has_no_content(world: FileWorld) -> None:
    """Whatever a peer says."""
    depot = Depot(str(world.store), str(world.directory / "files.sqlite"), b"", None, lambda why: None)
    intake = depot.take(Incoming("d/", 1, 0, False), resumes=False)
    intake.write(memoryview(b"x"))
    intake.finish(hashlib.sha256(b"x").digest(), "", b"")
    depot.landing.land([intake])
    assert isinstance(intake.error, UsageError)
    assert [] == list(depot.ls("", True))
    depot.close()


def test_what_is_not_there_is_said(world: FileWorld) -> None:
    store = world.remote()
    with pytest.raises(UnknownFile):
        list(store.ls("x"))
    assert isinstance(only(list(store.get([world.target("x")], nobody))).error, UnknownFile)
    assert isinstance(store.dup("x", "y", nobody).error, UnknownFile)
    with pytest.raises(UnknownFile):
        store.rm("x")


def test_a_list_that_lacks_something_is_an_error(world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.store / "t" / "bad").mkdir(parents=True)
    number, real = (world.store / "t" / "bad").stat().st_ino, os.listdir

    def listdir(fd: int) -> list[str]:
        if os.fstat(fd).st_ino == number:
            raise OSError(5, "Input/output error")
        return real(fd)

    monkeypatch.setattr(os, "listdir", listdir)
    store = world.remote()
    assert ["t/bad"] == [entry.name for entry in store.ls("t")]
    for pattern in ("t", "t/*", "*"):
        with pytest.raises(StorageRefused, match="Input/output"):
            list(store.ls(pattern, recursive=True))


def test_a_list_of_more_than_one_frame_is_whole(world: FileWorld) -> None:
    names = [f"{n:03}-" + "ñ" * 120 for n in range(700)]
    world.store.mkdir()
    for name in names:
        (world.store / name).touch()
    assert 700 * 240 > CONTROL_BYTES
    assert names == [entry.name for entry in world.remote().ls()]


def test_a_copy_is_a_file_of_its_own(world: FileWorld) -> None:
    store, data = world.remote(), content(700_000)
    list(store.put([world.source("a", data)], nobody))
    copy = store.dup("a", "b/c", nobody)
    assert Outcome("b/c", len(data), hexed(data)) == copy
    store.rm("a")
    assert data == (world.store / "b" / "c").read_bytes()


# --- rights, quota, room ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "reads", "writes"),
    [
        ("[files]\n", False, False),
        ('[files]\npeers = "read"\n', True, False),
        ('[files]\npeers = "write"\n[peer.asker]\nfiles = "none"\n', False, False),
        ('[files]\n[peer.asker]\nfiles = "write"\n', True, True),
        ('[files]\n[peer.other]\nfiles = "write"\n', False, False),
    ],
)
def test_a_peer_may_do_what_the_configuration_says(
    world: FileWorld, settings: str, reads: bool, writes: bool
) -> None:
    world.store.mkdir()
    (world.store / "f").write_bytes(b"hola")
    world.set(settings)
    store = world.remote()
    got = only(list(store.get([world.target("f")], nobody)))
    big, small = (only(list(store.put([world.source("g", b"x" * n)], nobody))) for n in (200_000, 2))
    assert [reads, writes, writes] == [not isinstance(o.error, NotTrusted) for o in (got, big, small)]
    assert reads == works(lambda: list(store.ls()))
    assert writes == works(lambda: store.rm("f"))
    assert writes == (store.dup("g", "h", nobody).error is None)


def works(act: Callable[[], object]) -> bool:
    try:
        act()
    except NotTrusted as error:
        assert "under [peer.asker]" in error.hint
        return False
    return True


def test_a_quota_holds_for_what_one_peer_has_put(world: FileWorld) -> None:
    world.set('[files]\npeers = "write"\nquota = "1M"\n')
    world.store.mkdir()
    (world.store / "ours").write_bytes(content(3 << 20))  # nobody's
    store = world.remote()
    sources = [world.source(f"f{n}", content(300_000)) for n in range(4)]
    outcomes = list(store.put(sources, nobody))
    assert [None, None, None, StorageRefused] == [o.error and type(o.error) for o in outcomes]
    assert None is only(list(store.put([world.source("f0", content(400_000))], nobody))).error
    big = only(list(store.put([world.source("big", content(2 << 20))], nobody)))
    assert isinstance(big.error, StorageRefused)
    assert "quota" in big.error.message
    store.rm("f1")
    assert None is only(list(store.put([sources[3]], nobody))).error


def test_a_quota_is_known_after_the_loss_of_the_catalogue(world: FileWorld) -> None:
    world.set('[files]\npeers = "write"\nquota = "1M"\n')
    first = world.remote()
    list(first.put([world.source("f", content(900_000))], nobody))
    first.close()
    if not os.listxattr(world.store / "f"):
        pytest.skip("the file system has no extended attributes")
    for path in world.directory.glob("files.sqlite*"):
        path.unlink()
    refused = only(list(world.remote().put([world.source("g", content(200_000))], nobody)))
    assert isinstance(refused.error, StorageRefused)


def test_a_spoiled_catalogue_is_made_anew(world: FileWorld) -> None:
    (world.directory / "files.sqlite").write_bytes(b"garbage" * 1000)
    store = world.remote()
    assert None is only(list(store.put([world.source("f", b"x")], nobody))).error
    assert [hexed(b"x")] == [entry.sha256 for entry in store.ls()]


def test_lack_of_room_is_told_before_anything_flows(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msgd.files.disk.KEPT_FREE_BYTES", 1 << 62)
    monkeypatch.setattr("msgd.files.disk.os.fstatvfs", lambda fd: os.statvfs("/proc"))
    seen: list[int] = []
    source = world.source("big", content(2 << 20))
    outcome = only(list(world.remote().put([source], lambda _, done, __: seen.append(done))))
    assert isinstance(outcome.error, StorageRefused)
    assert "disk of the store is full" in outcome.error.message
    assert {0} >= set(seen)


# --- the way there ----------------------------------------------------------------------------------------


def test_who_is_too_many_waits_and_comes_in(world: FileWorld) -> None:
    world.refusals = [MeetingFailed("it takes no more connections now", code="limit") for _ in range(5)]
    assert [] == list(world.remote().ls())
    assert 6 == world.tries


def test_a_peer_that_is_away_is_told_when_the_patience_is_over(world: FileWorld) -> None:
    world.refusals = [MeetingFailed("connection refused") for _ in range(1000)]
    with pytest.raises(PeerAway, match="giver cannot be reached: connection refused"):
        list(world.remote(patience_s=0.05).ls())


def test_a_connection_that_breaks_again_and_again_is_given_up(world: FileWorld) -> None:
    """Patience is for something that moves."""
    world.cuts = [3000] * 1000
    with pytest.raises(PeerAway):
        list(world.remote(patience_s=0.3).put([world.source("big", content(1_000_000))], nobody))
    assert 3 < world.tries < 200


def test_a_worker_that_dies_at_the_same_file_each_time_is_given_up(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes once more are no way forward, neither of that file nor of those before it."""

    def die(*_: object) -> None:
        raise OSError("it died")

    monkeypatch.setattr("msgd.files.landing.Landing.finish", die)
    sources = [world.source(name, content(size)) for name, size in (("a", 10), ("b", 9_000_000))]
    with pytest.raises(PeerAway):
        list(world.remote(patience_s=0.3).put(sources, nobody))
    assert 3 < world.tries < 200


def test_who_is_not_trusted_there_is_told_at_once(world: FileWorld) -> None:
    world.refusals = [MeetingFailed("it has blocked us", code="blocked")]
    with pytest.raises(NotTrusted):
        list(world.remote().ls())
    assert 1 == world.tries


def test_the_nodes_of_a_lab_grant_each_other_write(tmp_path: Path) -> None:
    node = labnode.Node(str(tmp_path), 1, "127.0.0.")
    node.make()
    made = load(node.path("msgd.toml"), {}, os.geteuid())
    assert ("write", f"{node.path('state')}/files") == (made.files_right("node2"), made.store)


class GoneError(Exception):
    """Nobody waits any more."""


def test_what_progress_raises_ends_the_call_and_the_next_one_works(world: FileWorld) -> None:
    store = world.remote()

    def leave(name: str, done: int, size: int) -> None:
        if done:
            raise GoneError

    with pytest.raises(GoneError):
        list(store.put([world.source("a", content(9_000_000))], leave))
    assert None is only(list(store.put([world.source("b", b"x")], nobody))).error


def test_a_pipe_takes_a_file_also_over_a_break(world: FileWorld) -> None:
    import threading

    data = content(2_000_000)
    world.store.mkdir()
    (world.store / "f").write_bytes(data)
    world.cuts = [700_000]
    read, write = os.pipe()
    chunks: list[bytes] = []
    with open(read, "rb") as reader:
        thread = threading.Thread(target=lambda: chunks.append(reader.read()))
        thread.start()
        outcome = only(list(world.remote().get([world.target("f")._replace(fd=write)], nobody)))
        os.close(write)
        thread.join()
    assert (None, data) == (outcome.error, b"".join(chunks))


def test_a_target_that_cannot_be_written_costs_only_itself(world: FileWorld) -> None:
    world.store.mkdir()
    for name in ("a", "b"):
        (world.store / name).write_bytes(content(30 << 20 if name == "a" else 100))
    full = world.target("a")._replace(fd=os.open("/dev/full", os.O_RDWR))
    first, second = world.remote().get([full, world.target("b")], nobody)
    os.close(full.fd)
    assert (True, None) == (first.error is not None, second.error)


def test_a_store_that_sends_more_than_it_announced_fills_no_disk(world: FileWorld) -> None:
    target = world.target("f")
    said: list[Event] = [Begin(1, 5, 0, False, 0), *[Piece(memoryview(b"1234"))] * 9]
    stream: Any = SimpleNamespace(say=lambda frame: None, hear=lambda: said.pop(0))
    with pytest.raises(RemoteProtocolError, match="announced"):
        list(Getting([target], Progress(nobody)).run(stream))
    assert b"1234" == os.pread(target.fd, 100, 0)


def test_lack_of_room_for_a_target_is_told_before_anything_is_written(
    world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store.mkdir()
    (world.store / "f").write_bytes(content(3_000_000))
    target = world.target("f", content(1_000_000))
    room = SimpleNamespace(f_bavail=100, f_frsize=4096, f_blocks=1000)
    monkeypatch.setattr("msgd.files.disk.os.fstatvfs", lambda fd: room)
    error = only(list(world.remote().get([target], nobody))).error
    assert isinstance(error, StorageRefused)
    assert "2,000,000 bytes are needed, 409,600 are free" in error.message
    assert 1_000_000 == os.fstat(target.fd).st_size, "what was there stays"


def test_the_own_store_has_the_same_methods(tmp_path: Path, world: FileWorld) -> None:
    config = FileWorldConfig(tmp_path)
    store = local_store(config)  # type: ignore[arg-type]
    sources = [world.source(f"d/{n}", content(n * 100_000)) for n in range(5)]
    assert [None] * 5 == [o.error for o in store.put(sources, nobody)]
    targets = [world.target(f"d/{n}", b"old" * n) for n in range(5)]
    got = list(store.get([*targets, world.target("none")], nobody))
    assert [hexed(content(n * 100_000)) for n in range(5)] == [o.sha256 for o in got[:5]]
    assert isinstance(got[5].error, UnknownFile)
    assert hexed(content(100_000)) == store.dup("d/1", "e", nobody).sha256
    assert 5 == store.rm("d", True)
    assert ["e"] == [entry.name for entry in store.ls()]
    store.close()
