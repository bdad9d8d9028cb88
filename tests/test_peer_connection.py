"""A connection: who may say what when, the same for both ends; a hello is checked before it is believed."""

from itertools import pairwise, product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.model import IN, OUT
from msgd.peer.codec import encode, encode_hello
from msgd.peer.connection import JOIN_BYTES, Connection, Event
from msgd.peer.errors import LocalProtocolError, RemoteProtocolError
from msgd.peer.frames import (
    CODES,
    HANDSHAKE_BYTES,
    HELLO_KEYS,
    NOWHERE,
    TYPES,
    Batch,
    Commit,
    Epoch,
    EpochDone,
    Frame,
    Goodbye,
    Greet,
    Hello,
    Joined,
    Link,
    Nonce,
    Ping,
    Pong,
    Position,
    Receipt,
    Refuse,
    Reveal,
    SignedHello,
    State,
    Verdict,
    Welcome,
)
from msgd.peer.reconcile import RECEIVER, SENDER, Agree, Ahead, NewEpoch, Resend, epoch_head
from msgd.peer.state import (
    ACCEPTOR,
    ACCEPTOR_LEFT,
    ACCEPTOR_VERDICT_DUE,
    ANSWER_DUE,
    CLOSED,
    COMMIT_DUE,
    CONNECTION,
    DIALLER,
    DIALLER_LEFT,
    DIALLER_VERDICT_DUE,
    DIRECTION,
    EPOCH_DUE,
    EPOCH_OPEN,
    FLOWS,
    GREET_DUE,
    HELLO_DUE,
    JOINED_DUE,
    LINKED,
    NONCE_DUE,
    RECEIVER_STATE_DUE,
    REVEAL_DUE,
    SENDER_STATE_DUE,
    SERVICE_DUE,
    SERVING,
    VERDICTS_DUE,
    WANTED,
    WELCOME_DUE,
    Role,
    advance,
)
from tests.peer_pair import (
    EPOCH,
    EVEN,
    HEAD,
    OTHER_HEAD,
    SAMPLES,
    UNLINKED,
    A,
    D,
    LinkPair,
    acceptor,
    dialler,
    greet,
    hello,
    welcome,
)

ROLES: tuple[Role, Role] = (DIALLER, ACCEPTOR)
BATCH = Batch(1, 2, OTHER_HEAD, memoryview(b"messages"))


def at(last: int, head: bytes = HEAD, epoch: bytes = EPOCH) -> Position:
    return Position(epoch, last, head)


def links(sender: Position, receiver: Position) -> tuple[Link, Link]:
    """The dialler is the sender of the direction in question, the acceptor its receiver; back all is even."""
    return Link(out=sender, in_=EVEN.in_), Link(out=EVEN.out, in_=receiver)


# -- the tables


STRANGER_STATES = [GREET_DUE, HELLO_DUE, ANSWER_DUE]
PAIR_STATES = [COMMIT_DUE, NONCE_DUE, REVEAL_DUE, VERDICTS_DUE, DIALLER_VERDICT_DUE, ACCEPTOR_VERDICT_DUE]
LINK_STATES = [WELCOME_DUE, LINKED, DIALLER_LEFT, ACCEPTOR_LEFT]
OTHER_STATES = [JOINED_DUE, SERVICE_DUE, SERVING, CLOSED]


@pytest.mark.parametrize(
    ("table", "roles", "states"),
    [
        (CONNECTION, ROLES, STRANGER_STATES + PAIR_STATES + LINK_STATES + OTHER_STATES),
        (
            DIRECTION,
            (SENDER, RECEIVER),
            [SENDER_STATE_DUE, RECEIVER_STATE_DUE, EPOCH_DUE, EPOCH_OPEN, FLOWS],
        ),
    ],
    ids=["connection", "direction"],
)
def test_a_missing_key_is_the_error(table, roles, states) -> None:  # type: ignore[no-untyped-def]
    """Every key outside the table raises, naming role, state and frame; every one inside leads to a state."""
    assert {(role, state) for role, state, _ in table} <= set(product(roles, states))
    for role, state, kind in product(roles, states, TYPES.values()):
        if (role, state, kind) in table:
            assert advance(table, role, state, kind) in states
        else:
            with pytest.raises(LocalProtocolError, match=f"{role} may not say {kind.__name__} in .*{state}"):
                advance(table, role, state, kind)


def test_nobody_may_speak_out_of_turn_in_the_handshake() -> None:
    """Outside a link each state has one frame, with the refusals; only the verdicts come in any order."""
    said = {
        (who, state, kind)
        for who, state, kind in CONNECTION
        if state not in (LINKED, DIALLER_LEFT, ACCEPTOR_LEFT)
    }
    assert said == {
        (ACCEPTOR, GREET_DUE, Greet),
        (DIALLER, HELLO_DUE, SignedHello),
        (ACCEPTOR, ANSWER_DUE, Refuse),
        (ACCEPTOR, WELCOME_DUE, Welcome),
        (ACCEPTOR, WELCOME_DUE, Refuse),
        (ACCEPTOR, SERVICE_DUE, Welcome),
        (ACCEPTOR, SERVICE_DUE, Refuse),
        (ACCEPTOR, JOINED_DUE, Joined),
        (ACCEPTOR, JOINED_DUE, Refuse),
        (ACCEPTOR, COMMIT_DUE, Commit),
        (ACCEPTOR, COMMIT_DUE, Refuse),
        (DIALLER, NONCE_DUE, Nonce),
        (ACCEPTOR, NONCE_DUE, Refuse),
        (ACCEPTOR, REVEAL_DUE, Reveal),
        (ACCEPTOR, REVEAL_DUE, Refuse),
        (DIALLER, VERDICTS_DUE, Verdict),
        (ACCEPTOR, VERDICTS_DUE, Verdict),
        (DIALLER, VERDICTS_DUE, Refuse),
        (DIALLER, DIALLER_VERDICT_DUE, Verdict),
        (DIALLER, DIALLER_VERDICT_DUE, Refuse),
        (ACCEPTOR, ACCEPTOR_VERDICT_DUE, Verdict),
    }
    assert HELLO_KEYS.keys() == WANTED.keys()


# -- greet, hello, welcome


def test_two_ends_come_to_a_link() -> None:
    """Greet, hello, welcome, and the link stands at both ends."""
    pair = LinkPair()
    said = greet()
    assert pair.send(ACCEPTOR, said) == [said]
    assert pair.dialler.version == 1
    wanted = hello()
    assert pair.send(DIALLER, wanted) == [wanted]
    assert pair.acceptor.peer_identity == D.identity
    taken = welcome()
    assert pair.send(ACCEPTOR, taken) == [taken]
    assert pair.dialler.state == pair.acceptor.state == LINKED
    assert pair.dialler.peer_limits == taken.limits
    assert pair.acceptor.peer_limits == wanted.limits


def test_both_ends_know_what_the_proof_is_about() -> None:
    """Greet body and content are the same bytes at both ends; words and records rest on them later."""
    pair = LinkPair().link()
    assert pair.dialler.greet_body == pair.acceptor.greet_body == encode(greet())[5:]
    assert pair.dialler.content == pair.acceptor.content == encode_hello(hello())


@pytest.mark.parametrize(
    ("at_acceptor", "at_dialler", "name"),
    [
        (b"finished", b"finished", "tls-unique"),
        (b"finished", b"", "none"),
        (b"", b"finished", "none"),
        (b"", b"", "none"),
    ],
)
def test_the_binding_is_used_where_both_have_it(at_acceptor: bytes, at_dialler: bytes, name: str) -> None:
    """It is offered by who has it, used by who has it too, and its absence is accepted."""
    pair = LinkPair(dialler(binding=at_dialler), acceptor(binding=at_acceptor)).link()
    assert pair.acceptor.hello is not None
    assert pair.acceptor.hello.binding == name


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"), [((1,), (1, 2), 1), ((1, 2), (1, 2), 2), ((2, 3), (1, 3), 3)]
)
def test_the_highest_common_version_is_chosen(
    ours: tuple[int, ...], theirs: tuple[int, ...], chosen: int
) -> None:
    """The acceptor offers, the dialler chooses."""
    pair = LinkPair(dialler(versions=ours), acceptor(versions=theirs))
    pair.send(ACCEPTOR, greet(versions=theirs))
    pair.send(DIALLER, hello(version=pair.dialler.version))
    assert pair.acceptor.version == chosen


def test_a_dialler_without_a_common_version_leaves() -> None:
    """The error has the code that tells the owner how to go on."""
    with pytest.raises(RemoteProtocolError, match=r"versions \[7\], expected one of \[1\]") as caught:
        LinkPair().send(ACCEPTOR, greet(versions=[7]))
    assert caught.value.code == "version"


def refused(pair: LinkPair, said: Frame | Hello) -> str:
    """The code with which the acceptor refuses; the refusal can be sent and is heard."""
    with pytest.raises(RemoteProtocolError) as caught:
        pair.send(DIALLER, said)
    assert pair.acceptor.hello is None
    with pytest.raises(LocalProtocolError):
        pair.acceptor.send(welcome())
    answer = Refuse(caught.value.code, None, str(caught.value))
    assert pair.send(ACCEPTOR, answer) == [answer]
    assert pair.acceptor.state == pair.dialler.state == CLOSED
    return caught.value.code


def greeted(dialler_end: Connection | None = None, acceptor_end: Connection | None = None) -> LinkPair:
    pair = LinkPair(dialler_end, acceptor_end)
    pair.send(ACCEPTOR, greet(bindings=pair.acceptor.bindings))
    return pair


def signed(pair: LinkPair, said: Hello, binding: bytes = b"") -> SignedHello:
    """A hello made beside the rules, with a good signature."""
    content = encode_hello(said)
    return SignedHello(content, D.sign_hello(A.identity, pair.dialler.greet_body, content, binding))


def test_a_version_that_was_not_offered_is_refused() -> None:
    """Before the signature is looked at: it costs 0.1 ms."""
    pair = greeted()
    assert refused(pair, SignedHello(encode_hello(hello(version=2)), bytes(64))) == "version"


def test_a_forged_hello_is_refused() -> None:
    """Somebody else's key, or another byte in the content."""
    pair = greeted()
    good = signed(pair, hello())
    assert refused(pair, SignedHello(good.content, bytes(64))) == "proof"
    pair = greeted()
    assert refused(pair, SignedHello(encode_hello(hello(dial=2)), good.signature)) == "proof"


def test_a_replayed_hello_is_refused() -> None:
    """Another connection has another nonce."""
    recorded = signed(greeted(), hello())
    pair = LinkPair()
    pair.send(ACCEPTOR, msgspec.structs.replace(greet(), nonce=bytes([8]) * 32))
    assert refused(pair, recorded) == "proof"


def test_a_relayed_hello_is_refused() -> None:
    """What was signed for one acceptor is nothing to another, the dialler itself included (reflected)."""
    for key in (D, A):
        pair = greeted(acceptor_end=acceptor(key=key))
        said = hello()
        content = encode_hello(said)
        signature = D.sign_hello(b"\x0f" * 32, pair.dialler.greet_body, content, b"")
        assert refused(pair, SignedHello(content, signature)) == "proof"


def test_a_hello_with_our_own_identity_is_refused() -> None:
    """A node that dials itself, with a proof that is good."""
    pair = greeted(dialler(key=A, to=A))
    assert refused(pair, hello(key=A)) == "self"


def test_a_binding_that_was_not_offered_is_refused() -> None:
    """Even with a good signature over it: the offer was stripped on the way, or the dialler errs."""
    pair = greeted()
    assert refused(pair, signed(pair, hello(binding="tls-unique"), b"finished")) == "proof"


def test_another_binding_is_refused() -> None:
    """Two TLS connections with somebody between them."""
    pair = greeted(dialler(binding=b"one"), acceptor(binding=b"another"))
    assert refused(pair, hello(binding="tls-unique")) == "proof"


def test_a_stripped_offer_is_refused() -> None:
    """The greet on the way is inside the proof."""
    pair = LinkPair(dialler(binding=b"finished"), acceptor(binding=b"finished"))
    pair.acceptor.send(greet(bindings=["tls-unique"]))
    list(pair.dialler.receive_data(encode(greet())))
    assert refused(pair, hello()) == "proof"


def test_a_dialler_says_what_was_chosen() -> None:
    """Another version or binding than the connection's is our own mistake."""
    pair = greeted()
    with pytest.raises(LocalProtocolError, match="a hello with 2, none, expected 1, none"):
        pair.dialler.send(hello(version=2))
    with pytest.raises(LocalProtocolError, match="expected 1, none"):
        pair.dialler.send(hello(binding="tls-unique"))
    assert pair.dialler.hello is None


def test_a_welcome_in_another_version_is_refused() -> None:
    """The choice was made by the hello."""
    pair = greeted()
    pair.send(DIALLER, hello())
    with pytest.raises(RemoteProtocolError, match="a welcome in version 2, expected 1"):
        list(pair.dialler.receive_data(encode(welcome(version=2))))
    assert pair.dialler.state == CLOSED


@pytest.mark.parametrize("code", [0, 5, 9, 16, 18, 99])
def test_before_the_welcome_any_other_type_closes(code: int) -> None:
    """Known or not, of the link or of pairing."""
    frame = bytes([0, 0, 0, 2, code, 0xC0])
    for connection in (dialler(), greeted().acceptor):
        with pytest.raises(RemoteProtocolError):
            list(connection.receive_data(frame))
        assert connection.state == CLOSED
        assert list(connection.receive_data(b"whatever follows")) == []


def test_before_the_welcome_a_frame_is_at_most_8_kib() -> None:
    """After it, a batch may fill an append."""
    big = (HANDSHAKE_BYTES + 1).to_bytes(4, "big")
    for connection in (dialler(), greeted().acceptor):
        with pytest.raises(RemoteProtocolError, match=f"expected 1 to {HANDSHAKE_BYTES}"):
            list(connection.receive_data(big))
    assert list(LinkPair().link().dialler.receive_data(big)) == []


def test_what_follows_a_hello_waits_for_the_answer() -> None:
    """A dialler that does not wait for its welcome is out of turn."""
    pair = greeted()
    data = b"".join(pair.dialler.send(hello())) + encode(Ping(1, 1))
    with pytest.raises(RemoteProtocolError, match="dialler may not say Ping in state WELCOME_DUE"):
        list(pair.acceptor.receive_data(data))


# -- the link


@pytest.mark.parametrize(
    "frame", [Ping(1, 2), Pong(1, 2, 3, 4), Goodbye("closing", 5), BATCH], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize("role", ROLES)
def test_a_link_frame_arrives_as_it_was_sent(role: Role, frame: Frame) -> None:
    """In both directions."""
    assert LinkPair().link().send(role, frame) == [frame]


def test_a_batch_and_its_receipt() -> None:
    """One way there, one way back, for each direction."""
    for sender, receiver in (ROLES, ROLES[::-1]):
        pair = LinkPair().link()
        assert pair.send(sender, BATCH) == [BATCH]
        receipt = Receipt(2, OTHER_HEAD, 1, 1)
        assert pair.send(receiver, receipt) == [receipt]


def test_a_small_batch_goes_in_one_piece_and_a_big_one_is_not_copied() -> None:
    """One write less for small ones, no copy for big ones."""
    pair = LinkPair().link()
    assert len(pair.dialler.send(BATCH)) == 1
    payload = memoryview(bytes(JOIN_BYTES))
    pieces = pair.dialler.send(Batch(3, 1, HEAD, payload))
    assert pieces[1] is payload
    assert len(pieces) == 2


def test_unknown_types_are_skipped_on_a_link() -> None:
    """A newer peer may say more; what it says of known types still counts."""
    pair = LinkPair().link()
    news = b"\x00\x00\x00\x04\xc8\xc1\xff\x00"
    data = news + encode(Ping(1, 2)) + news + encode(Ping(3, 4)) + news
    assert list(pair.dialler.receive_data(data)) == [Ping(1, 2), Ping(3, 4)]


def test_frames_of_the_handshake_are_out_of_turn_on_a_link() -> None:
    """A second greet, hello, welcome or refusal, and what belongs to pairing."""
    for name in ("greet", "hello", "welcome", "refuse", "commit", "nonce", "reveal", "verdict-yes", "joined"):
        pair = LinkPair().link()
        for connection, role in ((pair.dialler, ACCEPTOR), (pair.acceptor, DIALLER)):
            with pytest.raises(RemoteProtocolError, match=f"{role} may not say .* in state LINKED"):
                list(connection.receive_data(encode(SAMPLES[name])))


def test_a_goodbye_is_the_last_word() -> None:
    """Its speaker is silent from then on; what the other has under way still arrives, and its goodbye."""
    for leaver, other in (ROLES, ROLES[::-1]):
        pair = LinkPair().link()
        pair.send(leaver, Goodbye("closing", 5))
        with pytest.raises(LocalProtocolError, match="may not say Ping"):
            pair.send(leaver, Ping(1, 1))
        assert pair.send(other, BATCH) == [BATCH]
        assert pair.send(other, Goodbye("closing", 5)) == [Goodbye("closing", 5)]
        assert pair.dialler.state == pair.acceptor.state == CLOSED


def test_events_before_an_error_are_heard() -> None:
    """Frame by frame: the good ones count, then comes the error, then nothing more."""
    connection = LinkPair().link().dialler
    events = connection.receive_data(encode(Ping(1, 2)) + b"\x00\x00\x00\x00" + encode(Ping(3, 4)))
    assert next(events) == Ping(1, 2)
    with pytest.raises(RemoteProtocolError, match="a frame of 0 bytes"):
        next(events)
    assert list(connection.receive_data(encode(Ping(5, 6)))) == []


def test_who_stops_early_finds_the_rest_the_next_time() -> None:
    """Events are taken one by one; nothing is lost between two calls."""
    connection = LinkPair().link().dialler
    data = encode(Ping(1, 2)) + encode(Ping(3, 4))
    space = connection.receive_buffer()
    space[: len(data)] = data
    assert next(connection.received(len(data))) == Ping(1, 2)
    assert list(connection.received(0)) == [Ping(3, 4)]


# -- directions

FIVE, NINE = at(5), at(9, OTHER_HEAD)


@pytest.mark.parametrize(
    ("sender", "receiver", "conclusion"),
    [
        (FIVE, FIVE, Agree(6)),
        (NINE, FIVE, Ahead(SENDER, 5)),
        (FIVE, NINE, Ahead(RECEIVER, 5)),
        (FIVE, at(5, OTHER_HEAD), NewEpoch(6)),
        (NOWHERE, NOWHERE, NewEpoch(1)),
    ],
)
def test_both_ends_conclude_the_same(sender: Position, receiver: Position, conclusion: object) -> None:
    """What is out at one end is in at the other, whoever dials."""
    pair = LinkPair().link(*links(sender, receiver))
    assert pair.dialler.conclusion(OUT) == pair.acceptor.conclusion(IN) == conclusion
    assert pair.dialler.conclusion(IN) == pair.acceptor.conclusion(OUT) == Agree(1)
    theirs, ours = links(sender, receiver)
    pair = LinkPair().link(ours, theirs)
    assert pair.acceptor.conclusion(OUT) == pair.dialler.conclusion(IN) == conclusion


@pytest.mark.parametrize(
    ("sender", "receiver", "speaker", "stated", "conclusion"),
    [
        (NINE, FIVE, DIALLER, HEAD, Resend(6)),
        (NINE, FIVE, DIALLER, OTHER_HEAD, NewEpoch(10)),
        (NINE, FIVE, DIALLER, None, NewEpoch(10)),
        (FIVE, NINE, ACCEPTOR, HEAD, NewEpoch(10, 5)),
        (FIVE, NINE, ACCEPTOR, OTHER_HEAD, NewEpoch(10, 0)),
        (FIVE, NINE, ACCEPTOR, None, NewEpoch(10, 0)),
    ],
)
def test_the_state_of_the_side_ahead_decides(
    sender: Position, receiver: Position, speaker: Role, stated: bytes | None, conclusion: object
) -> None:
    """Both ends know the end of it at once."""
    pair = LinkPair().link(*links(sender, receiver))
    pair.send(speaker, State(OUT if speaker == DIALLER else IN, 5, stated))
    assert pair.dialler.conclusion(OUT) == pair.acceptor.conclusion(IN) == conclusion


def test_a_state_at_another_seq_is_an_error() -> None:
    """The seq is the other's last, as named in hello and welcome."""
    pair = LinkPair().link(*links(NINE, FIVE))
    with pytest.raises(LocalProtocolError, match="the state at seq 4, expected 5"):
        pair.dialler.send(State(OUT, 4, HEAD))
    with pytest.raises(RemoteProtocolError, match="the state at seq 4, expected 5"):
        list(pair.acceptor.receive_data(encode(State(OUT, 4, HEAD))))


def test_a_new_epoch_and_then_batches() -> None:
    """The sender opens it, the receiver confirms, and only then something flows."""
    pair = LinkPair().link(*links(FIVE, at(5, OTHER_HEAD)))
    epoch = Epoch(b"e" * 16, 6, 5, HEAD, 5, OTHER_HEAD)
    late = Batch(6, 1, HEAD, memoryview(b"m"))
    with pytest.raises(LocalProtocolError, match="sender may not say Batch in state EPOCH_DUE"):
        pair.dialler.send(late)
    assert pair.send(DIALLER, epoch) == [epoch]
    with pytest.raises(LocalProtocolError, match="sender may not say Batch in state EPOCH_OPEN"):
        pair.dialler.send(late)
    assert pair.send(ACCEPTOR, EpochDone(epoch.epoch)) == [EpochDone(epoch.epoch)]
    begun = Position(epoch.epoch, 5, epoch_head(epoch.epoch, 6, HEAD, OTHER_HEAD))
    assert pair.dialler.positions(OUT) == pair.acceptor.positions(IN) == (begun, begun)
    assert pair.dialler.conclusion(OUT) == pair.acceptor.conclusion(IN) == Agree(6)
    assert pair.send(DIALLER, late) == [late]


@pytest.mark.parametrize(
    "epoch",
    [Epoch(EPOCH, 10, 9, HEAD, 5, HEAD), Epoch(b"e" * 16, 5, 4, HEAD, 4, HEAD)],
    ids=["the present one", "a used seq"],
)
def test_an_epoch_that_would_use_a_seq_twice_is_refused(epoch: Epoch) -> None:
    """The receiver keeps what it has."""
    pair = LinkPair().link(*links(FIVE, at(5, OTHER_HEAD)))
    with pytest.raises(RemoteProtocolError, match=r"present one|is here already"):
        list(pair.acceptor.receive_data(encode(epoch)))


def test_done_with_another_epoch_is_refused() -> None:
    """Confirmed is what was opened."""
    pair = LinkPair().link(*links(NOWHERE, NOWHERE))
    pair.send(DIALLER, Epoch(b"e" * 16, 1, 0, bytes(32), 0, bytes(32)))
    with pytest.raises(LocalProtocolError, match="another epoch than the one opened"):
        pair.acceptor.send(EpochDone(b"f" * 16))


@pytest.mark.parametrize(
    ("sender", "receiver", "speaker", "frame", "state"),
    [
        (NINE, FIVE, DIALLER, BATCH, SENDER_STATE_DUE),
        (NINE, FIVE, ACCEPTOR, State(IN, 5, HEAD), SENDER_STATE_DUE),
        (NINE, FIVE, ACCEPTOR, Receipt(5, HEAD, 1, 1), SENDER_STATE_DUE),
        (FIVE, NINE, DIALLER, State(OUT, 5, HEAD), RECEIVER_STATE_DUE),
        (FIVE, NINE, DIALLER, Epoch(b"e" * 16, 10, 5, HEAD, 9, HEAD), RECEIVER_STATE_DUE),
        (FIVE, FIVE, DIALLER, Epoch(b"e" * 16, 6, 5, HEAD, 5, HEAD), FLOWS),
        (FIVE, FIVE, ACCEPTOR, EpochDone(EPOCH), FLOWS),
        (FIVE, FIVE, ACCEPTOR, State(IN, 5, HEAD), FLOWS),
    ],
)
def test_a_direction_is_followed_by_both_ends(
    sender: Position, receiver: Position, speaker: Role, frame: Frame, state: str
) -> None:
    """A frame that is legal on a link, but not where its direction stands."""
    pair = LinkPair().link(*links(sender, receiver))
    ends = {DIALLER: (pair.dialler, pair.acceptor), ACCEPTOR: (pair.acceptor, pair.dialler)}
    speaking, listening = ends[speaker]
    with pytest.raises(LocalProtocolError, match=state):
        speaking.send(frame)
    with pytest.raises(RemoteProtocolError, match=state):
        list(listening.receive_data(encode(frame)))


def test_each_event_finds_the_direction_as_it_left_it() -> None:
    """Frames in one piece are judged one by one: at the welcome, the state behind it has not been heard."""
    pair = greeted()
    ours, theirs = links(FIVE, NINE)
    pair.send(DIALLER, hello(link=ours))
    data = b"".join(pair.acceptor.send(welcome(link=theirs)) + pair.acceptor.send(State(IN, 5, HEAD)))
    events = pair.dialler.receive_data(data)
    assert isinstance(next(events), Welcome)
    assert pair.dialler.conclusion(OUT) == Ahead(RECEIVER, 5)
    assert isinstance(next(events), State)
    assert pair.dialler.conclusion(OUT) == NewEpoch(10, 5)


# -- any pieces, any bytes


def conversation() -> bytes:
    """What an acceptor says from its greet on; the same bytes each time."""
    pair = LinkPair()
    said = b"".join(pair.acceptor.send(greet()))
    list(pair.dialler.receive_data(said))
    list(pair.acceptor.receive_data(b"".join(pair.dialler.send(hello()))))
    for frame in (
        welcome(),
        BATCH,
        Ping(1, 2),
        Batch(3, 1, HEAD, memoryview(bytes(100_000))),
        Goodbye("closing", 0),
    ):
        said += b"".join(pair.acceptor.send(frame))
    return said


SAID = conversation()


def listen(pieces: list[bytes]) -> list[Event]:
    """What a dialler hears, answering the greet."""
    connection, heard = dialler(), list[Event]()
    for piece in pieces:
        for event in connection.receive_data(piece):
            if isinstance(event, Greet):
                connection.send(hello())
            heard.append(event)
    return heard


WHOLE = listen([SAID])


@pytest.mark.slow
@given(st.lists(st.integers(0, len(SAID)), max_size=12))
def test_any_pieces_give_the_same_events(cuts: list[int]) -> None:
    """Whole, byte by byte, and everything between: the events do not depend on it."""
    places = [0, *sorted(cuts), len(SAID)]
    pieces = [SAID[start:stop] for start, stop in pairwise(places)]
    assert listen(pieces) == WHOLE


def test_byte_by_byte_gives_the_same_events() -> None:
    """The hardest case of the above."""
    small = SAID[: SAID.index(bytes(1000))]
    assert WHOLE[:4] == listen([bytes([byte]) for byte in small])


def linked_pair() -> LinkPair:
    return LinkPair().link()


@pytest.mark.slow
@given(st.binary(max_size=200), st.sampled_from([DIALLER, ACCEPTOR, LINKED]))
def test_any_garbage_is_heard_or_the_peers_error(data: bytes, where: str) -> None:
    """Any other exception would be our bug."""
    pair = {DIALLER: LinkPair, ACCEPTOR: greeted, LINKED: linked_pair}[where]()
    connection = pair.acceptor if where == ACCEPTOR else pair.dialler
    try:
        list(connection.receive_data(data))
    except RemoteProtocolError:
        assert connection.state == CLOSED


@pytest.mark.slow
@given(
    st.lists(
        st.one_of(
            st.sampled_from([frame for frame in SAMPLES.values() if CODES[type(frame)] >= 16]),
            st.builds(
                State,
                st.sampled_from([1, 2]),
                st.integers(4, 10),
                st.sampled_from([None, HEAD, OTHER_HEAD]),
            ),
            st.builds(lambda base: Epoch(b"e" * 16, base, base - 1, HEAD, 0, HEAD), st.integers(1, 20)),
        ),
        max_size=6,
    ),
    st.sampled_from([(FIVE, NINE), (NINE, FIVE), (NOWHERE, NINE), (FIVE, FIVE)]),
)
def test_any_frames_in_any_order_are_heard_or_the_peers_error(
    frames: list[Frame], positions: tuple[Position, Position]
) -> None:
    """A peer that means harm meets the same tables."""
    pair = LinkPair().link(*links(*positions))
    try:
        list(pair.acceptor.receive_data(b"".join(encode(frame) for frame in frames)))
    except RemoteProtocolError:
        assert pair.acceptor.state == CLOSED


def test_two_new_nodes_have_no_epoch() -> None:
    """First contact: both directions begin with a new epoch."""
    pair = LinkPair().link(UNLINKED, UNLINKED)
    assert pair.dialler.conclusion(OUT) == pair.dialler.conclusion(IN) == NewEpoch(1)
