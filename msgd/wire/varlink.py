"""Varlink's framing: one JSON object and a NUL byte for each call and each reply (varlink.org).

| call | type | |
|---|---|---|
| method | string | `interface.Method` |
| parameters | object | missing, null and {} are the same |
| more | bool | the caller takes any number of replies |
| oneway | bool | the caller takes none |

| reply | type | |
|---|---|---|
| parameters | object | as above; of an error: what belongs to it |
| continues | bool | another reply to the same call follows; only where the call said `more` |
| error | string | `interface.Name` in place of an answer |

Calls may be sent without waiting for answers; replies come in the order of the calls. Unknown members
are skipped. A frame that is no such object is a `FrameError`, one over the limit a `FrameTooLongError`:
after either there is no way to go on reading.

Standard library only and pure: both ends use it, msgctl on its fast path. Importing `json` takes as long
as the whole rest of msgctl (8 ms, nearly all of it `re`; [M] Python 3.11), so the C scanner and encoder
beneath it are taken directly. They are details of CPython: where they are missing or behave otherwise,
and for every text that they do not take, `json` itself decides.
"""

TYPE_CHECKING = False  # `typing` would double the time that an import of this file takes
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Scan = Callable[[str, int], tuple[Any, int]]
    Encode = Callable[[Any], str]

Json = dict[str, "Any"]

SERVICE = "org.varlink.service"
MAX_CALL_BYTES = 2 << 20  # the biggest message in base64 is 1.4 MiB
MAX_REPLY_BYTES = 16 << 20  # a message of control characters takes six times its size as text
READ_BYTES = 1 << 18


class FrameError(ValueError):
    """The bytes of a frame are not a call or a reply; says what was read."""


class FrameTooLongError(FrameError):
    """A frame passes the limit."""


class Call:
    """One call, checked. `parameters` is always an object."""

    __slots__ = ("method", "more", "oneway", "parameters")

    def __init__(self, method: str, parameters: Json, more: bool, oneway: bool) -> None:
        self.method = method
        self.parameters = parameters
        self.more = more
        self.oneway = oneway


class Reply:
    """One reply, checked. `error` is the error's full name, or empty."""

    __slots__ = ("continues", "error", "parameters")

    def __init__(self, parameters: Json, continues: bool, error: str) -> None:
        self.parameters = parameters
        self.continues = continues
        self.error = error


class Splitter:
    """Cuts a stream of bytes into frames: `feed` what arrived, then `next` until it gives None.

    Keeps what is not whole yet, and no more than the limit and one read of it.
    """

    def __init__(self, limit_bytes: int = MAX_CALL_BYTES) -> None:
        self._limit = limit_bytes
        self._whole: list[bytes] = []  # newest first, so that pop() gives the oldest
        self._parts: list[bytes] = []
        self._size = 0  # of the parts

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        start, whole = 0, []
        while (end := data.find(b"\0", start)) >= 0:  # `split` looks at every byte, this at 32 at once
            self._parts.append(data[start:end])
            whole.append(b"".join(self._parts))
            self._parts, self._size = [], 0
            start = end + 1
        if whole:
            self._whole = whole[::-1] + self._whole
        self._parts.append(data[start:])
        self._size += len(data) - start

    @property
    def has_part(self) -> bool:
        """Whether the beginning of a frame is here whose end is not."""
        return self._size > 0

    def next(self) -> bytes | None:
        """The oldest whole frame without its NUL, or None: not enough yet. Raises FrameTooLongError."""
        if not self._whole:
            if self._size > self._limit:
                raise FrameTooLongError(f"a frame of more than {self._limit} bytes")
            return None
        frame = self._whole.pop()
        if len(frame) > self._limit:
            raise FrameTooLongError(f"a frame of {len(frame)} bytes; the limit is {self._limit}")
        return frame


def call(method: str, parameters: Json | None = None, *, more: bool = False, oneway: bool = False) -> bytes:
    """The bytes of one call. Parameters that are None are left out."""
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    message: Json = {"method": method, "parameters": given}
    if more:
        message["more"] = True
    if oneway:
        message["oneway"] = True
    return dumps(message) + b"\0"


def reply(parameters: Json | None = None, *, continues: bool = False) -> bytes:
    """The bytes of one answer."""
    message: Json = {"parameters": parameters or {}}
    if continues:
        message["continues"] = True
    return dumps(message) + b"\0"


def error(name: str, parameters: Json | None = None) -> bytes:
    """The bytes of an error reply; `name` with its interface."""
    return dumps({"error": name, "parameters": parameters or {}}) + b"\0"


def parse_call(frame: bytes) -> Call:
    """The call in a frame. Raises FrameError."""
    members = _members(frame)
    method = members.get("method")
    if not isinstance(method, str) or "." not in method:
        raise FrameError(f"no method in the call {frame[:80]!r}")
    return Call(method, _object(members, frame), _flag(members, "more"), _flag(members, "oneway"))


def parse_reply(frame: bytes) -> Reply:
    """The reply in a frame. Raises FrameError."""
    members = _members(frame)
    name = members.get("error") or ""
    if not isinstance(name, str):
        raise FrameError(f"the error's name is not a string in {frame[:80]!r}")
    return Reply(_object(members, frame), _flag(members, "continues"), name)


def _members(frame: bytes) -> Json:
    members = loads(frame)
    if not isinstance(members, dict):
        raise FrameError(f"expected a JSON object, read {frame[:80]!r}")
    return members


def _object(members: Json, frame: bytes) -> Json:
    parameters = members.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise FrameError(f"the parameters are not an object in {frame[:80]!r}")
    return parameters


def _flag(members: Json, name: str) -> bool:
    value = members.get(name)
    if value is not None and not isinstance(value, bool):
        raise FrameError(f"{name!r} is {value!r}, expected true or false")
    return bool(value)


def dumps(value: "Any") -> bytes:
    """Compact JSON in UTF-8, non-ASCII letters as they are; half a surrogate pair stays an escape."""
    return dump_text(value).encode("utf-8", "backslashreplace")


def loads(data: bytes) -> "Any":
    """The value of a JSON text. Raises FrameError; NaN and Infinity are no JSON."""
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise FrameError(f"not UTF-8 at byte {exc.start}") from None
    try:
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (ValueError, TypeError, StopIteration, SystemError, RecursionError):
        pass  # json decides; before 3.12 the scanner itself cannot say what is wrong (SystemError)
    return _loads_checked(text)


def _loads_checked(text: str) -> "Any":
    import json

    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as exc:
        raise FrameError(f"not JSON: {exc}") from None


def _refuse(word: str) -> None:
    raise ValueError(f"{word!r} is no JSON")


class _Plain:
    """What `make_scanner` asks its owner for: the defaults of json.JSONDecoder, less NaN."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)


def _from_c() -> "tuple[Scan, Encode, Encode]":
    import _json

    scan: Any = _json.make_scanner(_Plain)  # type: ignore[arg-type]
    chunks: Any = _json.make_encoder(
        None, _refuse, _json.encode_basestring, None, ":", ",", False, False, False
    )
    sample = {"a": [1.5, None, True, "\u00e9\0"]}
    if scan("".join(chunks(sample, 0)), 0)[0] != sample:
        raise TypeError("another scanner than expected")
    return scan, lambda value: "".join(chunks(value, 0)), _json.encode_basestring


def _from_json() -> "tuple[Scan, Encode, Encode]":
    from json import JSONDecoder, JSONEncoder

    encode = JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
    return JSONDecoder(parse_constant=_refuse).raw_decode, encode, encode


try:
    _scan, dump_text, quote = _from_c()  # dump_text: `dumps` as a str; quote: of a str only, faster
except (ImportError, TypeError, AttributeError, ValueError):
    _scan, dump_text, quote = _from_json()
