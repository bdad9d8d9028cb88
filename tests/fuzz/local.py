"""What programs on this machine say on the control socket: frames, and the parameters of every call.

The samples to begin with are made from the parameters' types, so a new method is fuzzed from its first day.
"""

import json
from random import Random
from typing import Any

import msgspec
from msgspec import inspect

from msgd.commands import COMMANDS, SERVICE_COMMANDS
from msgd.errors import INTERFACE
from msgd.trust.identity import identity_text
from msgd.trust.invitation import Invitation, format_invitation
from msgd.wire import varlink
from tests.fuzz.engine import Target
from tests.fuzz.mutate import change_json
from tests.peer_pair import A

METHODS = {**COMMANDS, **SERVICE_COMMANDS}
PEER = "fuzz"
JOIN = Invitation(
    identity=A.identity, invitation=bytes(8), secret=bytes(16), expires_s=1 << 31, addresses=("127.0.0.1:1",)
)
SAMPLES: dict[str, Any] = {  # of a field, by its name; other strings are "x"
    "peer": PEER,
    "node": PEER,
    "name": "fuzz-2",
    "address": "127.0.0.1:1",
    "addresses": "127.0.0.1:1",
    "key": identity_text(A.identity),
    "id": "01a200e7-31a5-7d79-9e69-61d8248719af",
    "invitation": format_invitation(JOIN),
    "words": "receive action stone hire",
    "wait": "queued",
    "kind": "text",
    "direction": "out",
    "data": None,
    "interface": INTERFACE,
}


def sample(kind: inspect.Type, name: str = "") -> Any:
    """A value of this type, with every field of a struct."""
    match kind:
        case inspect.UnionType():
            return sample(next(t for t in kind.types if not isinstance(t, inspect.NoneType)), name)
        case inspect.StructType():
            return {field.encode_name: sample(field.type, field.name) for field in kind.fields}
        case inspect.ListType():
            return [sample(kind.item_type, name)] * 2
        case inspect.DictType():
            return {"key": sample(kind.value_type)}
        case inspect.StrType():
            return SAMPLES.get(name, "x")
        case inspect.BytesType():
            return "aG9sYQ=="  # base64
        case inspect.IntType():
            return kind.ge or 1
        case inspect.BoolType():
            return True
        case inspect.FloatType():
            return 1.5
    raise TypeError(f"no sample of {kind}")


def kind_of(method: str) -> inspect.Type:
    """The type of a method's parameters."""
    return inspect.type_info(METHODS[method].parse.__self__.type)


def calls() -> list[bytes]:
    """One call of each method, with all parameters and with none."""
    made = []
    for method in METHODS:
        full = {"method": method, "parameters": sample(kind_of(method)), "more": True, "oneway": False}
        made += [json.dumps(full).encode() + b"\0", json.dumps({"method": method}).encode() + b"\0"]
    return made


def run_stream(data: bytes) -> str:
    """Bytes in pieces of any size become the same frames, and each a call or a refusal."""
    rng, splitter, whole = Random(len(data)), varlink.Splitter(1 << 12), []
    at = 0
    while at < len(data):
        size = rng.choice((1, 7, 4096))
        splitter.feed(data[at : at + size])
        at += size
        while (frame := splitter.next()) is not None:
            whole.append(frame)
    assert whole == data.split(b"\0")[: len(whole)]
    return " ".join(varlink.parse_call(frame).method[:40] for frame in whole[:2])


def run_call(data: bytes) -> str:
    """The parameters of a call, decoded as its method wants them."""
    call = varlink.parse_call(data.rstrip(b"\0"))
    command = METHODS.get(call.method)
    if command is None:
        return "unknown method"
    taken = command.parse(json.dumps(call.parameters).encode(errors="surrogatepass"))
    return f"{call.method} {[name for name in taken.__struct_fields__ if getattr(taken, name) is not None]}"


REFUSED = (varlink.FrameError, msgspec.MsgspecError, UnicodeDecodeError)
TARGETS = [
    Target("varlink", calls, run_stream, change_json, (varlink.FrameError,)),
    Target("calls", calls, run_call, change_json, REFUSED, weight=3),
]
