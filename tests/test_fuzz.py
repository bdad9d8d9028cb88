"""Fuzzing in short: every decoder that a stranger reaches, and a real daemon; `make fuzz` takes longer."""

from pathlib import Path

import pytest

from msgd.trust import tls
from tests.fuzz import __main__ as fuzz
from tests.fuzz import live
from tests.fuzz.decoders import TARGETS, shares
from tests.fuzz.engine import Report, Target, search
from tests.fuzz.mutate import change_bytes
from tests.fuzz.trust import Shown, certificates

SHORT = 24_000  # inputs of all decoders together
SEED = 1
SHARES = shares(list(TARGETS), SHORT)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_a_decoder_takes_an_input_or_refuses_it(name: str) -> None:
    """With the exceptions that it names and no other; both happen, so the inputs are worth their time."""
    report = search(TARGETS[name], SHARES[name], SEED)
    assert [] == [finding.text for finding in report.findings]
    assert 0 < report.accepted < report.inputs
    assert report.outcomes >= 3
    assert report.lines > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_real_daemon_loses_no_more_than_workers(tmp_path: Path) -> None:
    """On its peer port as stranger and as peer, and on its control socket."""
    reports = list(live.run(tmp_path, 400, SEED))
    assert {report.name: [] for report in reports} == {
        report.name: [finding.text for finding in report.findings] for report in reports
    }
    assert all(report.accepted for report in reports)


# --- the fuzzer itself --------------------------------------------------------------------------------------


def lock(data: bytes) -> str:
    """A decoder with a bug behind four checks, as a parser has them."""
    for place, wanted in enumerate(b"msgd"):
        if not data[place : place + 1] or data[place] // 32 != wanted // 32 or data[place] % 2 != wanted % 2:
            raise ValueError("wrong at " + "abcd"[place])
    raise KeyError(data[4:])


LOCK = Target("lock", lambda: [bytes(4)], lock, change_bytes, (ValueError,))


def test_a_planted_bug_is_found() -> None:
    """Step by step, since what leads further is kept; by chance it would be one input in 65,536."""
    report = search(LOCK, 20_000, SEED)
    assert report.findings
    assert "KeyError" in report.findings[0].text
    assert "KeyError" in report.findings[0].outcome


def test_a_finding_ends_the_run_with_its_input_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And with the command that shows it again; so does memory that grows."""
    monkeypatch.setattr(fuzz, "KEPT", tmp_path)
    report = search(LOCK, 20_000, SEED)
    assert fuzz.told([report]) == 1
    assert (tmp_path / "lock-0").read_bytes() == report.findings[0].data
    assert f"--again lock {tmp_path}/lock-0" in capsys.readouterr().out
    assert fuzz.told([Report("grown", grown_bytes=fuzz.MOST_GROWN + 1)]) == 1
    assert fuzz.told([Report("sound")]) == 0


def test_each_fault_of_a_decoder_is_told_once() -> None:
    """However many inputs meet it."""

    def broken(data: bytes) -> str:
        if len(data) % 2:
            raise KeyError(data)
        raise IndexError(data)

    report = search(Target("broken", lambda: [b"x"], broken, change_bytes, ()), 1000, SEED)
    assert {"IndexError", "KeyError"} == {finding.outcome.split()[0] for finding in report.findings}
    assert len(report.findings) == 2


def test_the_same_seed_gives_the_same_inputs() -> None:
    """And another one others."""
    target = TARGETS["hello"]
    first, again, other = (search(target, 500, seed) for seed in (7, 7, 8))
    assert (first.digest, first.outcomes) == (again.digest, again.outcomes)
    assert first.digest != other.digest


def test_the_long_run_has_a_million_inputs() -> None:
    """Shared out among the decoders, none lost to rounding."""
    assert fuzz.INPUTS >= 1_000_000
    assert sum(shares(list(TARGETS), fuzz.INPUTS).values()) >= 1_000_000


# --- what it found ------------------------------------------------------------------------------------------


def test_a_certificate_of_no_known_version_is_refused() -> None:
    """The library says so with an exception that is no ValueError: the dialling worker died of it."""
    certificate = certificates()[0].replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x7f")
    with pytest.raises(tls.SessionError, match="version"):
        tls.peer_spki(Shown(certificate))
