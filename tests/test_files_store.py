"""A store on the disk: in which order things become durable, what a failure leaves, what is tidied up."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.errors import MsgdError, StorageRefused
from msgd.files import lanes, parts
from msgd.files.depot import Depot
from msgd.files.intake import Incoming, Intake

IDENTITY = bytes(range(32))


class Made:
    """Stores below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.depots: list[Depot] = []

    def depot(self, quota: int | None = None, owner: bytes = IDENTITY) -> Depot:
        catalogue = str(self.directory / "files.sqlite")
        self.depots.append(Depot(str(self.store), catalogue, owner, quota, lambda why: None))
        return self.depots[-1]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    stores = Made(tmp_path)
    yield stores
    for depot in stores.depots:
        depot.close()


def taken(depot: Depot, name: str, content: bytes, *, resumes: bool = False) -> Intake:
    """A file that has come whole, and is not there yet."""
    intake = depot.take(Incoming(name, len(content), 5, False), resumes=resumes)
    intake.write(memoryview(content))
    intake.finish(hashlib.sha256(content).digest(), "", depot.owner)
    return intake


def test_contents_are_synced_before_names_and_names_before_the_answer(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot, steps = made.depot(), list[str]()
    intakes = [taken(depot, f"new/{n}", b"x") for n in range(3)]
    for name in ("fdatasync", "rename", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real, **k: (steps.append(_n), _r(*a, **k))[1])
    depot.landing.land(intakes)
    # the new directory, and the one that it was made in
    assert ["fdatasync"] * 3 + ["rename"] * 3 + ["fsync"] * 2 == steps


def test_a_directory_is_durable_with_the_way_to_it(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    depot, synced = made.depot(), list[str]()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    depot.landing.land([taken(depot, "a/b/", b"")])
    assert {str(made.store), str(made.store / "a")} == set(synced)
    assert (made.store / "a/b").is_dir()


def test_the_way_to_a_new_store_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    top = str(tmp_path)
    Depot(f"{top}/a/b/store", f"{top}/files.sqlite", IDENTITY, None, lambda why: None).close()
    assert [f"{top}/a/b", f"{top}/a", top] == synced


def test_many_are_synced_side_by_side_and_none_is_left_out(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot, synced = made.depot(), list[int]()
    intakes = [taken(depot, f"{n}", b"x") for n in range(lanes.MANY + 3)]
    fds = {intake.fd for intake in intakes}
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(fd), real(fd))[1])
    depot.landing.land(intakes)
    assert (fds, len(fds)) == (set(synced), len(synced))


def test_a_failed_sync_leaves_nothing_at_the_place(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    depot = made.depot()
    good, bad = taken(depot, "good", b"x"), taken(depot, "bad", b"y")
    real, bad_fd = os.fdatasync, bad.fd

    def fail(fd: int) -> None:
        if fd == bad_fd:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fail)
    depot.landing.land([good, bad])
    assert (None, StorageRefused) == (good.error, type(bad.error))
    assert ["good"] == [found.name for found in depot.ls("", True)]


def test_a_directory_that_cannot_be_synced_is_no_success(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    depot = made.depot()
    intake = taken(depot, "a/b", b"x")

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    depot.landing.land([intake])
    assert StorageRefused is type(intake.error)


def test_two_connections_cannot_exceed_a_quota_together(made: Made) -> None:
    """Both were admitted before either was there; the second is refused when it would become visible."""
    one, other = made.depot(quota=1000), made.depot(quota=1000)
    first, second = taken(one, "a", b"x" * 600), taken(other, "b", b"y" * 600)
    assert (None, StorageRefused) == (first.error, type(second.error))  # parts count, too
    one.landing.land([first])
    third, fourth = taken(one, "c", b"z" * 300), taken(other, "a", b"z" * 900)
    one.landing.land([third])
    other.landing.land([fourth])
    assert (None, StorageRefused) == (third.error, type(fourth.error))


def test_parts_count_with_their_content_and_the_empty_not_at_all(made: Made) -> None:
    """Not with the blocks of the disk, which are more for each small file."""
    one, other = made.depot(quota=1000), made.depot(quota=1000)
    waiting = [taken(one, f"a{n}", b"x" * 10) for n in range(20)]
    last = taken(other, "b", b"y" * 800)
    assert [None] * 21 == [intake.error for intake in (*waiting, last)]
    one.landing.land(waiting)
    other.landing.land([last])
    full = taken(one, "c", b"z")
    assert StorageRefused is type(full.error)
    empty = [taken(one, "d/", b""), taken(one, "e", b"")]
    one.landing.land(empty)
    assert [None, None] == [intake.error for intake in empty]
    low = made.depot(quota=500)
    empty = [taken(low, "f/", b""), taken(low, "g", b"")]
    low.landing.land(empty)
    assert [None, None] == [intake.error for intake in empty], "with a quota that is exceeded, too"


def test_what_nobody_goes_on_with_is_removed_and_the_rest_kept(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot = made.depot()
    big = depot.take(Incoming("big", 100, 5, False), resumes=True)
    big.write(memoryview(b"x" * 50))
    big.abandon()
    directory = next(made.store.glob(".msgd-parts/*"))
    (directory / "n1-2").write_bytes(b"of a process that was killed")
    (directory / "n3-4").write_bytes(b"of one that writes")
    with (directory / "n3-4").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(parts, "LOST_AGE_S", -1.0)
        assert isinstance(made.depot().take(Incoming("f", 0, 0, False), resumes=False), Intake)
        left = {path.name[:2] for path in directory.iterdir() if path.stat().st_size}
    assert (2, True) == (len(left), "n3" in left)
    monkeypatch.setattr(parts, "AGE_S", -1.0)
    made.depot().take(Incoming("f", 0, 0, False), resumes=False).abandon()
    assert {b""} >= {path.read_bytes() for path in directory.iterdir()}


def test_what_was_taken_for_a_big_file_is_given_back_when_it_breaks_off(made: Made) -> None:
    depot = made.depot()
    big = depot.take(Incoming("big", 8 << 20, 5, False), resumes=True)
    big.write(memoryview(bytes(range(256)) * 4096))
    part = next(path for path in made.store.rglob("*") if path.is_file())
    if part.stat().st_blocks * 512 < 8 << 20:
        pytest.skip("the file system does not reserve room")
    big.abandon()
    assert 2 << 20 > part.stat().st_blocks * 512


def test_what_was_taken_for_a_big_file_is_given_back_when_its_writer_was_killed(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = made.depot().take(Incoming("big", 8 << 20, 5, False), resumes=True)
    big.write(memoryview(b"x" * (1 << 20)))
    part = next(path for path in made.store.rglob("*") if path.is_file())
    if part.stat().st_blocks * 512 < 8 << 20:
        pytest.skip("the file system does not reserve room")
    monkeypatch.setattr("msgd.files.parts.LOST_AGE_S", -1.0)
    assert made.depot().landing
    assert 8 << 20 <= part.stat().st_blocks * 512, "it is being written"
    os.close(big.fd)
    big._part = None  # what a death does
    assert made.depot().landing
    assert (2 << 20 > part.stat().st_blocks * 512, 1 << 20) == (True, part.stat().st_size)


def test_another_store_is_counted_by_itself(made: Made) -> None:
    """The catalogue lies elsewhere, and has the files of the former store."""
    depot = made.depot(quota=10)
    depot.landing.land([taken(depot, "a", b"12345678")])
    made.store = made.directory / "other"
    depot = made.depot(quota=10)
    second = taken(depot, "b", b"12345678")
    depot.landing.land([second])
    assert None is second.error
    made.store = made.directory / "store"
    back = taken(made.depot(quota=10), "c", b"12345678")
    assert StorageRefused is type(back.error), "its files say whose they are"


def test_a_digest_counts_only_for_the_file_that_it_was_taken_of(made: Made) -> None:
    depot = made.depot()
    depot.landing.land([taken(depot, "f", b"old")])
    assert [hashlib.sha256(b"old").digest()] == [found.digest for found in depot.ls("", False)]
    status = (made.store / "f").stat()
    (made.store / "f").write_bytes(b"new")
    os.utime(made.store / "f", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert [b""] == [found.digest for found in depot.ls("", False)]


def test_a_removal_that_stops_says_where_and_what_is_gone(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot = made.depot()
    depot.landing.land([taken(depot, f"t/{n}", b"x") for n in ("a", "b", "d/c")])
    real_listdir, real_unlink = os.listdir, os.unlink

    def unlink(path: str, *, dir_fd: int | None = None) -> None:
        if path == "c":
            raise PermissionError(1, "Operation not permitted")
        real_unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "listdir", lambda fd: sorted(real_listdir(fd)))
    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(StorageRefused, match=r'"t/d/c": Operation .*\. 2 files were removed before'):
        depot.rm("t", True)
    assert ["t/d/c"] == [found.name for found in depot.ls("", True)]
    with pytest.raises(StorageRefused, match=r"not permitted\. 0 files were removed before"):
        depot.rm("t", True)


def test_a_tree_that_somebody_puts_into_is_not_called_a_wrong_name(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot = made.depot()
    depot.landing.land([taken(depot, "t/d/a", b"x")])
    real = os.rmdir

    def rmdir(path: str, *, dir_fd: int | None = None) -> None:
        (made.store / "t" / "d" / "new").touch()
        real(path, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", rmdir)
        with pytest.raises(MsgdError, match=r'"t/d" .*put into it meanwhile\. 1 file was removed') as told:
            depot.rm("t", True)
    assert (MsgdError, "Repeat the command.") == (type(told.value), told.value.hint)
    assert 1 == depot.rm("t", True)
