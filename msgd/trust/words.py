"""Four words on both screens: what they are made of, and how a person's are read.

| thing | value |
|---|---|
| T | `proof.transcript`: both identities, greet, hello, binding; the same at both ends |
| commit | H(`msgd/1 commit\\0` ‖ T ‖ rA): binds the acceptor to its nonce before it knows the dialler's |
| words | the first 44 bits of H(`msgd/1 words\\0` ‖ T ‖ rA ‖ rD), 11 bits each |

rA and rD are 32 fresh bytes of acceptor and dialler. The list is BIP-39's English one: 2,048 words, told
apart by their first four letters. It is a file of the package `mnemonic`, whose code is not imported: that
takes 8 ms and is not used here. Another list would show other words than the peer's screen: its digest is
checked.
"""

import importlib.util
import re
from functools import cache
from hashlib import sha256
from hmac import compare_digest

from msgd.errors import ConfigError, UsageError

COMMIT_LABEL = b"msgd/1 commit\0"
WORDS_LABEL = b"msgd/1 words\0"
NONCE_BYTES = 32
WORDS = 4
WORD_BITS = 11
TELLING_LETTERS = 4
LIST_SHA256 = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"

_BETWEEN = re.compile(r"[\s,;.\-]+")
_AS_SHOWN = "Give them as both screens show them."


def commit_of(t: bytes, nonce: bytes) -> bytes:
    """The acceptor's commitment to its nonce, 32 bytes."""
    return sha256(COMMIT_LABEL + t + nonce).digest()


def is_commit(commit: bytes, t: bytes, nonce: bytes) -> bool:
    """Whether the revealed nonce is the one that was committed to."""
    return compare_digest(commit, commit_of(t, nonce))


def words_of(t: bytes, acceptor_nonce: bytes, dialler_nonce: bytes) -> list[str]:
    """The words of this exchange."""
    digest = sha256(WORDS_LABEL + t + acceptor_nonce + dialler_nonce).digest()
    bits = int.from_bytes(digest, "big") >> (len(digest) * 8 - WORDS * WORD_BITS)
    mask = (1 << WORD_BITS) - 1
    return [word_list()[bits >> at & mask] for at in range((WORDS - 1) * WORD_BITS, -1, -WORD_BITS)]


def parse_words(text: str) -> list[str]:
    """The words that a person means: any case, anything between them, four letters of each are enough.

    Raises UsageError saying which one is not of the list.
    """
    found = [_parse_word(word) for word in _BETWEEN.split(text.strip().lower()) if word]
    if len(found) != WORDS:
        raise UsageError(f"{len(found)} words are given, expected {WORDS}.", _AS_SHOWN)
    return found


@cache
def word_list() -> tuple[str, ...]:
    """All 2,048 words in order. Raises ConfigError where the list is missing or another one."""
    package = importlib.util.find_spec("mnemonic")
    places = package.submodule_search_locations if package else None
    if not places:
        raise ConfigError("the Python package `mnemonic` is not installed", "install msgd anew")
    path = f"{places[0]}/wordlist/english.txt"
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}, expected a word list", "install msgd anew") from error
    if sha256(data).hexdigest() != LIST_SHA256:
        raise ConfigError(
            f"{path}: not the BIP-39 word list, expected SHA-256 {LIST_SHA256}", "install msgd anew"
        )
    return tuple(data.decode().split())


@cache
def _by_letters() -> dict[str, str]:
    return {word[:TELLING_LETTERS]: word for word in word_list()}


def _parse_word(text: str) -> str:
    word = _by_letters().get(text[:TELLING_LETTERS])
    if word is None or not word.startswith(text):
        near = f"; perhaps {word}" if word else ""
        raise UsageError(f"{text!r} is none of the words{near}.", _AS_SHOWN)
    return word
