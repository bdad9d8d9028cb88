"""The key to come: a stop at any instant leaves the key that the log names."""

import os
from pathlib import Path

import pytest

from msgd.errors import StorageRefused
from msgd.trust.identity import load_or_create
from msgd.trust.nextkey import adopt_next, drop_next, settle_next, write_next
from tests.peer_pair import A, D


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory of a node with the key A."""
    (tmp_path / "node.key").write_bytes(A.pem())
    (tmp_path / "node.key").chmod(0o600)
    return tmp_path


def names(state: Path) -> list[str]:
    return sorted(path.name for path in state.iterdir())


def test_a_key_is_kept_adopted_and_read(state: Path) -> None:
    """Mode 0600 whatever the umask; the old one is gone."""
    before = os.umask(0)
    try:
        write_next(os.fspath(state), D)
    finally:
        os.umask(before)
    assert 0o600 == (state / "node.key.next").stat().st_mode & 0o7777
    assert A.identity == load_or_create(os.fspath(state)).identity
    adopt_next(os.fspath(state))
    assert ["node.key"] == names(state)
    assert D.identity == load_or_create(os.fspath(state)).identity


def test_each_step_is_on_disk_before_the_next(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File before name, name before the caller goes on; the same for the adoption and for forgetting."""
    steps: list[str] = []

    def fsync(fd: int) -> None:
        steps.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")

    rename = os.rename

    def renamed(old: str, new: str) -> None:
        steps.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    write_next(os.fspath(state), D)
    assert ["fsync node.key.next", f"fsync {state.name}"] == steps
    steps.clear()
    adopt_next(os.fspath(state))
    assert ["rename", f"fsync {state.name}"] == steps
    write_next(os.fspath(state), A)
    steps.clear()
    drop_next(os.fspath(state))
    assert [f"fsync {state.name}"] == steps


def test_a_key_kept_before_is_replaced(state: Path) -> None:
    """Of a rotation that was never committed: nobody knows that key."""
    (state / "node.key.next").write_bytes(b"half a k")
    write_next(os.fspath(state), D)
    assert D.pem() == (state / "node.key.next").read_bytes()


def test_a_key_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    """With the path, and what to do; the node goes on with its key."""
    with pytest.raises(StorageRefused, match=r"node\.key\.next: the new key cannot be kept") as caught:
        write_next(os.fspath(tmp_path / "missing"), D)
    assert "keeps its key" in caught.value.hint


def test_nothing_kept_is_nothing_to_forget(state: Path) -> None:
    """Twice is as good as once."""
    write_next(os.fspath(state), D)
    drop_next(os.fspath(state))
    drop_next(os.fspath(state))
    assert ["node.key"] == names(state)


@pytest.mark.parametrize("committed", [b"", A.identity], ids=["never rotated", "rotated before"])
def test_a_rotation_without_record_is_forgotten(state: Path, committed: bytes) -> None:
    """It stopped between the file and the log; half a file is no obstacle."""
    for kept in (D.pem(), b"half a k"):
        (state / "node.key.next").write_bytes(kept)
        assert A is settle_next(os.fspath(state), A, committed)
        assert ["node.key"] == names(state)


def test_a_committed_rotation_is_finished(state: Path) -> None:
    """It stopped between the log and the rename."""
    write_next(os.fspath(state), D)
    assert D.identity == settle_next(os.fspath(state), A, D.identity).identity
    assert ["node.key"] == names(state)
    assert D.identity == load_or_create(os.fspath(state)).identity


def test_a_key_that_a_person_put_there_stays(state: Path) -> None:
    """An old one from a backup: peers will say `retired`, which tells more than a refusal to start."""
    assert A is settle_next(os.fspath(state), A, D.identity)
    write_next(os.fspath(state), A)
    assert A is settle_next(os.fspath(state), A, D.identity)
    assert ["node.key", "node.key.next"] == names(state)


def test_a_credential_is_not_ours_to_rotate(state: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The flag says so, and a start touches neither it nor what was kept for a key of ours."""
    credentials = tmp_path_factory.mktemp("credentials")
    (credentials / "node.key").write_bytes(A.pem())
    (credentials / "node.key").chmod(0o440)
    key = load_or_create(os.fspath(state), os.fspath(credentials))
    assert not key.is_ours
    assert load_or_create(os.fspath(state)).is_ours
    write_next(os.fspath(state), D)
    assert key is settle_next(os.fspath(state), key, D.identity)
    assert ["node.key", "node.key.next"] == names(state)
