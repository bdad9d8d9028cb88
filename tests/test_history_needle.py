"""The bytes that a pattern needs: whatever it finds holds them."""

import re
import sys

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from msgd.needle import AMBIGUOUS, needle, needle_test

LETTERS = "abkKiIsSßſµéÉ1 .\ufffd\u212a\u0130\u0131"
ATOMS = st.sampled_from(
    [*map(re.escape, LETTERS), "[ab]", ".", r"\w", r"\b", "^", "$", "(?!x)", "(?=a)", r"[^a]"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map("({})".format),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{0}", "+?", "{1,3}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map("(?i:{})".format),
        inner.map("(?-i:{})".format),
        inner.map("(?P<n>{})?(?(n)a|b)".format),
    ),
    max_leaves=8,
)
BODIES = st.text(LETTERS, max_size=12).map(str.encode) | st.binary(max_size=6)
CALM = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@settings(CALM, max_examples=400)
@given(PATTERNS, st.sampled_from(["", "(?i)", "(?x)", "(?ai)"]), st.lists(BODIES, max_size=8), st.data())
def test_body_that_fits_is_never_passed_over(
    pattern: str, flags: str, bodies: list[bytes], data: st.DataObject
) -> None:
    """Against looking into each text: also one that the pattern itself made up."""
    try:
        compiled = re.compile(flags + pattern)
    except (re.error, OverflowError):
        assume(False)
    if data.draw(st.booleans()):
        bodies.append(data.draw(st.from_regex(compiled)).encode("utf-8", "replace"))
    may_fit = needle_test(flags + pattern)
    for body in bodies:
        if compiled.search(body.decode("utf-8", "replace")):
            assert may_fit is None or may_fit(b"\xc4\x10before" + body + b"behind")


def test_letters_taken_for_both_cases_have_no_third() -> None:
    """Of all characters only the two cases of the letter fit where capitals do not matter."""
    text = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        found = set(re.findall(f"(?i:{letter})", text))
        assert (found == {letter, letter.upper()}) == (letter not in AMBIGUOUS)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fox", (False, "fox")),
        ("a|fox", (False, "")),
        ("x*fox(ab)?", (False, "fox")),
        ("(jumped )over", (False, "jumped over")),
        ("(?i)Network down", (True, "networ")),
        ("^error: [0-9]+ of", (False, "error: ")),
        ("(?:needle){2}", (False, "needle")),
        ("f[o]x", (False, "fox")),
        ("", (False, "")),
    ],
)
def test_longest_word_is_taken(pattern: str, expected: tuple[bool, str]) -> None:
    """What stands in every text that fits."""
    assert expected == needle(pattern)
