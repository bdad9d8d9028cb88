"""Four words: the check values, the list, and how a person's words are read."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.errors import ConfigError, UsageError
from msgd.trust import words
from msgd.trust.proof import transcript, transcript_hash
from msgd.trust.words import commit_of, is_commit, parse_words, word_list, words_of
from tests.peer_pair import A, D

T = transcript(A.identity, D.identity, b"greet", b"content", b"")
R_A, R_D = bytes([3]) * 32, bytes([4]) * 32
SHOWN = ["receive", "action", "stone", "hire"]


def test_commit_and_words_are_the_check_values() -> None:
    """Section 10 of the trust protocol."""
    commit = commit_of(T, R_A).hex()
    assert ("6510d5e2", "c9a288a3") == (commit[:8], commit[-8:])
    assert SHOWN == words_of(T, R_A, R_D)
    digest = transcript_hash(T).hex()
    assert ("b7c84b58", "cb933e42") == (digest[:8], digest[-8:])


def test_the_list_is_the_one_of_the_protocol() -> None:
    """The file's bytes, 2,048 words, told apart by four letters."""
    found = word_list()
    assert (
        "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
        == sha256("".join(f"{word}\n" for word in found).encode()).hexdigest()
    )
    assert (2048, "abandon", "zoo") == (len(found), found[0], found[-1])
    assert 2048 == len({word[:4] for word in found})


def test_words_are_the_first_44_bits() -> None:
    """In the order of the digest, 11 bits each."""
    digest = sha256(b"msgd/1 words\0" + T + R_A + R_D).digest()
    bits = "".join(f"{byte:08b}" for byte in digest)
    assert [word_list()[int(bits[at : at + 11], 2)] for at in (0, 11, 22, 33)] == SHOWN


@pytest.mark.parametrize(
    "other",
    [
        (transcript(D.identity, A.identity, b"greet", b"content", b""), R_A, R_D),
        (transcript(A.identity, D.identity, b"greet2", b"content", b""), R_A, R_D),
        (transcript(A.identity, D.identity, b"greet", b"content", b"finished"), R_A, R_D),
        (T, R_D, R_A),
        (T, R_A, R_A),
    ],
)
def test_anything_else_has_other_words(other: tuple[bytes, bytes, bytes]) -> None:
    """Roles, connection and both nonces are inside."""
    assert words_of(*other) != SHOWN


def test_a_commitment_fits_one_nonce_and_one_exchange() -> None:
    """Neither another nonce nor another T can be revealed under it."""
    commit = commit_of(T, R_A)
    assert is_commit(commit, T, R_A)
    assert not is_commit(commit, T, R_D)
    assert not is_commit(commit, T[:-1] + b"x", R_A)
    assert not is_commit(b"", T, R_A)


@pytest.mark.parametrize(
    "written",
    [
        "receive action stone hire",
        "  Receive ACTION\tstone\nhire ",
        "receive-action-stone-hire",
        "receive, action, stone, hire.",
        "rece acti ston hire",
        "receiv actio stone hire",
    ],
)
def test_words_are_read_with_tolerance(written: str) -> None:
    """Any case, anything between them, four letters of each."""
    assert SHOWN == parse_words(written)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "0 words are given, expected 4"),
        ("receive action stone", "3 words are given, expected 4"),
        ("receive action stone hire zoo", "5 words are given, expected 4"),
        ("rec action stone hire", "'rec' is none of the words"),
        ("receipt action stone hire", "'receipt' is none of the words; perhaps receive"),
        ("receive action stone hola", "'hola' is none of the words"),
        ("receive action stone ñandú", "'ñandú' is none of the words"),
    ],
)
def test_wrong_words_say_what_is_wrong(written: str, why: str) -> None:
    """Which one, and what to do."""
    with pytest.raises(UsageError, match=why) as caught:
        parse_words(written)
    assert caught.value.hint


@given(st.lists(st.sampled_from(word_list()), min_size=4, max_size=4))
def test_every_four_words_are_read_back(shown: list[str]) -> None:
    """Whole, and by their first four letters."""
    assert shown == parse_words(" ".join(shown))
    assert shown == parse_words(" ".join(word[:4].upper() for word in shown))


@given(st.text(max_size=60))
def test_garbage_is_four_words_or_a_users_error(text: str) -> None:
    """Nothing else comes out of what a person types."""
    try:
        assert len(parse_words(text)) == 4
    except UsageError:
        pass


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (None, "`mnemonic` is not installed"),
        ("missing", "No such file or directory, expected a word list"),
        ("other", "not the BIP-39 word list"),
    ],
)
def test_another_list_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None, why: str
) -> None:
    """The other screen would show other words."""
    (tmp_path / "other" / "wordlist").mkdir(parents=True)
    (tmp_path / "other" / "wordlist" / "english.txt").write_text("abandon\n")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / place)]) if place else None
    monkeypatch.setattr(words.importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(ConfigError, match=why):
        word_list.__wrapped__()
