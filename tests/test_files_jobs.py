"""Casts on the disk: kept until they end, whole or not at all, and told about for a day."""

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from msgd.files import jobs
from msgd.files.jobs import Addressee, Job, Jobs, Part, Stand, Standing

ID = "01a2024e-925d-7215-b596-3ab7f5a12ea6"
LATER = "01a2024e-925d-7215-b596-3ab7f5a12ea7"


@pytest.fixture
def known(tmp_path: Path) -> Jobs:
    return Jobs(str(tmp_path / "store"))


def job(id: str = ID) -> Job:
    return Job(id, "web", "ana", 7, [Part("a", 3), Part("d/b", 4)], [Addressee(1, "b"), Addressee(2, "c")])


def begun(known: Jobs, id: str = ID) -> Job:
    made = job(id)
    directory, _ = known.staging(id)
    Path(directory, "a").write_bytes(b"abc")
    known.begin(made)
    return made


def test_what_is_handed_over_is_no_cast_before_it_begins(known: Jobs) -> None:
    assert [] == known.open_ids(), "without a store, too"
    known.staging(ID)
    assert ([], None, True) == (known.open_ids(), known.standing(ID), known.is_staged(ID))
    known.begin(job())
    assert ([ID], job(), False) == (known.open_ids(), known.load(ID), known.is_staged(ID))
    assert 7 == known.load(ID).size  # type: ignore[union-attr]


def test_its_files_go_with_it(known: Jobs) -> None:
    begun(known)
    directory, _ = known.files_of(ID)
    assert b"abc" == Path(directory, "a").read_bytes()


def test_how_far_it_is_is_told_from_the_beginning(known: Jobs) -> None:
    made = begun(known)
    assert Standing(made, [Stand("b"), Stand("c")]) == known.standing(ID)
    noted = Standing(made, [Stand("b", jobs.STORED, None, 2, 7, 9), Stand("c", jobs.QUEUED, "offline")])
    known.note(noted)
    assert noted == known.standing(ID)
    begun(known, LATER)
    assert [ID, LATER] == [each.job.id for each in known.standings()]


def test_how_it_ended_is_told_for_a_day(known: Jobs, tmp_path: Path) -> None:
    ended = Standing(begun(known), [Stand("b", jobs.STORED), Stand("c", jobs.CANCELLED, "by ana")])
    known.end(ended)
    assert ([], None, ended) == (known.open_ids(), known.load(ID), known.standing(ID))
    known.sweep()
    assert ended == known.standing(ID)
    done = tmp_path / "store" / jobs.DIRECTORY / f"{ID}{jobs.DONE}"
    os.utime(done, (0, time.time() - 86_500))
    known.sweep()
    assert (None, []) == (known.standing(ID), os.listdir(done.parent))


def test_who_comes_second_cannot_end_it(known: Jobs) -> None:
    ended = Standing(begun(known), [Stand("b", jobs.STORED), Stand("c", jobs.STORED)])
    known.end(ended)
    with pytest.raises(FileNotFoundError):
        known.end(ended)
    with pytest.raises(FileNotFoundError):
        known.note(ended)


def test_what_a_death_has_left_is_swept(known: Jobs, tmp_path: Path) -> None:
    """Half removed at once, half handed over after a day, for it may still go on."""
    begun(known)
    top = tmp_path / "store" / jobs.DIRECTORY
    os.rename(top / ID, top / f"{ID}{jobs.OLD}")
    known.staging(LATER)
    known.sweep()
    assert [f"{LATER}{jobs.NEW}"] == os.listdir(top)
    os.utime(top / f"{LATER}{jobs.NEW}", (0, time.time() - 86_500))
    known.sweep()
    assert [] == os.listdir(top)


def test_what_was_handed_over_is_dropped_unless_it_has_begun(known: Jobs, tmp_path: Path) -> None:
    top = tmp_path / "store" / jobs.DIRECTORY
    assert not known.drop(ID), "without a store, too"
    for _ in range(2):
        directory, _ = known.staging(ID)
        Path(directory, "a").write_bytes(b"abc")
        half = top / f"{ID}{jobs.OLD}"
        half.mkdir()
        (half / "a").touch()  # what a death in between has left
        assert known.drop(ID)
        assert [] == os.listdir(top)
    begun(known)
    assert (False, [ID]) == (known.drop(ID), os.listdir(top))


def test_what_cannot_be_removed_keeps_nobody_from_sweeping(
    known: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.end(Standing(begun(known), [Stand("b", jobs.STORED)]))
    known.staging(LATER)
    top = tmp_path / "store" / jobs.DIRECTORY
    for path in top.iterdir():
        os.utime(path, (0, time.time() - 86_500))

    def unlink(path: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", unlink)
    known.sweep()
    assert f"{ID}{jobs.DONE}" in os.listdir(top)


@pytest.mark.parametrize("content", [b"", b"{", b'{"id":"x"}'])
def test_a_note_that_is_broken_costs_nothing(known: Jobs, content: bytes, tmp_path: Path) -> None:
    made = begun(known)
    (tmp_path / "store" / jobs.DIRECTORY / ID / "standing.json").write_bytes(content)
    assert Standing(made, [Stand("b"), Stand("c")]) == known.standing(ID)


def test_an_id_that_is_a_path_is_none(known: Jobs) -> None:
    with pytest.raises(AssertionError):
        known.load("../../etc")


def test_a_disk_that_takes_half_of_a_job_takes_none(known: Jobs) -> None:
    known.staging(ID)
    big = Job(ID, "web", "ana", 7, [Part("x" * 900, 1)] * 100, [Addressee(1, "b")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the first write is cut short there
    try:
        with pytest.raises(OSError, match="too large"):
            known.begin(big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, former)
    assert ([], True) == (known.open_ids(), known.is_staged(ID))
    known.begin(big)
    assert big == known.load(ID)
