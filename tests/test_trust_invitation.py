"""Invitations: the check values, written and read back, and every way to get one wrong."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.errors import UsageError
from msgd.trust.invitation import (
    Invitation,
    format_invitation,
    is_join_proof,
    join_proof,
    letters_of,
    parse_invitation,
)
from tests.peer_pair import A, D
from tests.trust_strings import pack_invitation

TEXT = (
    "msgd1jh6rcdjqduxqo7pbiffy7gpuigyuap5leb5saux32laglzhorz64ebqgaydambqgaycqkbifaucqkbifaucqkbifaucxonmuaaa"
    "qjqfiaecruvz3w2rr2"
)
SECRET, ID = bytes([5]) * 16, bytes([6]) * 8
GREET_HASH = sha256(b"greet").digest()
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def invitation(*addresses: str) -> Invitation:
    return Invitation(
        identity=A.identity,
        invitation=ID,
        secret=SECRET,
        expires_s=2_000_000_000,
        addresses=addresses or ("192.168.1.5:6743",),
    )


def test_an_invitation_is_the_check_value() -> None:
    """Section 10 of the trust protocol, both ways."""
    assert TEXT == format_invitation(invitation())
    assert invitation() == parse_invitation(TEXT)
    assert 122 == len(TEXT) == letters_of(73)


def test_the_proof_is_the_check_value() -> None:
    """Section 10 of the trust protocol."""
    proof = join_proof(SECRET, A.identity, D.identity, GREET_HASH)
    assert ("781506a3", "b4b6962a") == (proof.hex()[:8], proof.hex()[-8:])
    assert is_join_proof(proof, SECRET, A.identity, D.identity, GREET_HASH)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": bytes(16)},
        {"acceptor": D.identity},
        {"dialler": A.identity},
        {"greet_hash": bytes(32)},
        {"proof": bytes(32)},
        {"proof": b""},
    ],
)
def test_a_proof_fits_one_connection_and_one_joiner(changes: dict[str, bytes]) -> None:
    """Another secret, inviter, joiner or nonce, or no proof at all."""
    said = {
        "proof": join_proof(SECRET, A.identity, D.identity, GREET_HASH),
        "secret": SECRET,
        "acceptor": A.identity,
        "dialler": D.identity,
        "greet_hash": GREET_HASH,
    }
    assert not is_join_proof(**{**said, **changes})


@pytest.mark.parametrize(
    "pieces",
    [
        TEXT.upper(),
        f"  {TEXT[:50]}\r\n{TEXT[50:]}\n",
        " ".join(TEXT),
        [TEXT[:3], TEXT[3:40], TEXT[40:].upper()],
        ["", TEXT, " "],
    ],
)
def test_an_invitation_is_read_with_tolerance(pieces: str | list[str]) -> None:
    """In any case, broken over lines, in several arguments."""
    assert invitation() == parse_invitation(pieces)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "no invitation: it is empty"),
        ("hola", "no invitation: it begins with 'hola', expected 'msgd1'"),
        ("msgd2" + TEXT[5:], "begins with 'msgd2'"),
        ("msgdl" + TEXT[5:], "begins with 'msgdl'"),
        ("msgd1", "only the beginning of an invitation"),
        (TEXT[:6], "only the beginning of an invitation"),
        (TEXT[:7], "7 of 122 letters"),
        (TEXT[:80], "80 of 122 letters"),
        (TEXT[:-1], "121 of 122 letters"),
        (TEXT + "a", "Something follows the invitation: 123 letters, expected 122"),
        (TEXT + TEXT[5:], "Something follows the invitation: 239 letters, expected 122"),
        (TEXT[:9] + "0" + TEXT[10:], r"has no '0' \(letter 10\)"),
        (TEXT[:50] + "-" + TEXT[50:], r"has no '-' \(letter 51\)"),
        (TEXT[:50] + "ñ" + TEXT[51:], "has no 'ñ'"),
        (TEXT[:30] + "a" + TEXT[31:], "A letter of this invitation is wrong"),
        (TEXT[:20] + TEXT[21] + TEXT[20] + TEXT[22:], "A letter of this invitation is wrong"),
        (TEXT[:-1] + "3", "A letter of this invitation is wrong"),
    ],
)
def test_a_wrong_invitation_says_what_is_wrong(written: str, why: str) -> None:
    """Cut, mistyped, swapped, or something else: a person can act on the sentence."""
    with pytest.raises(UsageError, match=why) as caught:
        parse_invitation(written)
    assert caught.value.hint


@pytest.mark.parametrize("at", range(5, len(TEXT)))
def test_no_single_mistake_passes(at: int) -> None:
    """Any other letter at any place, the spare bit at the end included; nor one left out, nor one doubled."""
    for letter in LETTERS:
        if letter != TEXT[at]:
            with pytest.raises(UsageError):
                parse_invitation(TEXT[:at] + letter + TEXT[at + 1 :])
    for wrong in (TEXT[:at] + TEXT[at + 1 :], TEXT[:at] + TEXT[at] + TEXT[at:]):
        with pytest.raises(UsageError, match="letters"):
            parse_invitation(wrong)


# -- addresses


@pytest.mark.parametrize(
    ("addresses", "bytes_of_them"),
    [
        (["10.0.0.1:1"], "040a0000010001"),
        (["[2001:db8::1]:6743"], "0620010db80000000000000000000000011a57"),
        (["node3.example:65535"], "8d6e6f6465332e6578616d706c65ffff"),
        (["192.168.1.5:6743", "n:2"], "04c0a801051a57816e0002"),
    ],
)
def test_addresses_are_written_as_the_protocol_says(addresses: list[str], bytes_of_them: str) -> None:
    """By an encoder that knows only the table, and read back."""
    body = A.identity + ID + SECRET + (2_000_000_000).to_bytes(4, "big") + bytes([len(addresses)])
    expected = pack_invitation(body + bytes.fromhex(bytes_of_them))
    assert expected == format_invitation(invitation(*addresses))
    assert invitation(*addresses) == parse_invitation(expected)


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        ((), "0 addresses are given; an invitation holds 1 to 4"),
        (("10.0.0.1:1",) * 5, "5 addresses are given; an invitation holds 1 to 4"),
        (("[fe80::1%eth0]:6743",), "fe80::1%eth0 means nothing on another machine"),
        (("n" * 128 + ":1",), "A host name of 128 bytes is too long, at most 127 fit"),
        (("n" * 100 + ":1", "m" * 100 + ":1"), "The invitation would have 272 bytes; at most 255 fit"),
    ],
)
def test_addresses_that_do_not_fit_are_refused(addresses: tuple[str, ...], why: str) -> None:
    """Before a string is printed that nobody could read."""
    made = Invitation(identity=A.identity, invitation=ID, secret=SECRET, expires_s=0, addresses=addresses)
    with pytest.raises(UsageError, match=why):
        format_invitation(made)


@pytest.mark.parametrize(
    "tail",
    [
        "00",  # no address
        "05" + "040a0000010001" * 5,
        "01",  # the address is missing
        "01040a000001",  # its port is
        "01040a0000010000",  # port 0
        "02040a0000010001",  # the second one is missing
        "01040a0000010001ff",  # something behind it
        "0105aabbccddee0001",  # of no known kind
        "01800001",  # a name of no letters
        "0183c3283a0001",  # not UTF-8
        "0183613a620001",  # a:b
        "0183611b620001",  # a, escape, b
        "0183612f620001",  # a/b
    ],
)
def test_a_form_that_we_do_not_know_is_refused(tail: str) -> None:
    """With a good check: made by a newer msgd, or by somebody who tries."""
    body = A.identity + ID + SECRET + bytes(4) + bytes.fromhex(tail)
    with pytest.raises(UsageError, match="has a form that this msgd does not know") as caught:
        parse_invitation(pack_invitation(body))
    assert caught.value.hint


def test_a_short_form_is_refused() -> None:
    """A good check over next to nothing."""
    for body in (b"", A.identity):
        with pytest.raises(UsageError, match="has a form"):
            parse_invitation(pack_invitation(body))


ports = st.integers(1, 65535)
hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
    st.from_regex(r"[a-z][a-z0-9\-]{0,20}(\.[a-z]{2,8})?", fullmatch=True),
)
invitations = st.builds(
    Invitation,
    identity=st.binary(min_size=32, max_size=32),
    invitation=st.binary(min_size=8, max_size=8),
    secret=st.binary(min_size=16, max_size=16),
    expires_s=st.integers(0, 0xFFFFFFFF),
    addresses=st.lists(st.builds("{}:{}".format, hosts, ports), min_size=1, max_size=4).map(tuple),
)


@pytest.mark.slow
@given(invitations)
def test_every_invitation_is_read_back(made: Invitation) -> None:
    """And is as long as its first byte says."""
    text = format_invitation(made)
    assert made == parse_invitation(text) == parse_invitation(text.upper())
    assert text.isalnum()


@pytest.mark.slow
@given(invitations, st.data())
def test_every_cut_is_told(made: Invitation, data: st.DataObject) -> None:
    """With how much is there and how much there should be."""
    text = format_invitation(made)
    size = data.draw(st.integers(7, len(text) - 1))
    with pytest.raises(UsageError, match=f"^{size} of {len(text)} letters"):
        parse_invitation(text[:size])


@given(st.sampled_from([b"", A.identity + ID + SECRET + bytes(4)]), st.binary(max_size=180))
def test_bytes_with_a_good_check_are_an_invitation_or_a_users_error(head: bytes, tail: bytes) -> None:
    """Nothing else comes out of what somebody else has made."""
    try:
        made = parse_invitation(pack_invitation(head + tail))
    except UsageError:
        return
    assert 1 <= len(made.addresses) <= 4
    assert all(address.isprintable() for address in made.addresses)


@given(st.text(max_size=200), st.booleans())
def test_garbage_is_a_users_error(text: str, begins_well: bool) -> None:
    """Nothing else comes out of what a person types."""
    with pytest.raises(UsageError):
        parse_invitation(("msgd1" if begins_well else "") + text)
