"""Durations and sizes as people write them, in the configuration and to msgctl. Pure.

| | forms | a bare number |
|---|---|---|
| duration | `90d` `2h` `1h30m` `1.5d` `2 weeks` | seconds |
| size | `10G` `500M` `1.5T` `10GiB` | bytes |

Units of time are those of systemd.time(7): m is minutes, M is months. K, M, G, T are powers of 1,024, as
journald's sizes are; `GB` is not read, since it means one thing to disks and another to people.

Imports nothing: a plain `msgctl send --ttl` reads with it.
"""

US, MS, S = 1000, 1_000_000, 1_000_000_000
UNITS_NS = {
    "us": US, "usec": US, "\u00b5s": US, "\u03bcs": US,
    "ms": MS, "msec": MS,
    "s": S, "sec": S, "second": S, "seconds": S,
    "m": 60 * S, "min": 60 * S, "minute": 60 * S, "minutes": 60 * S,
    "h": 3600 * S, "hr": 3600 * S, "hour": 3600 * S, "hours": 3600 * S,
    "d": 86_400 * S, "day": 86_400 * S, "days": 86_400 * S,
    "w": 604_800 * S, "week": 604_800 * S, "weeks": 604_800 * S,
    "M": 2_629_800 * S, "month": 2_629_800 * S, "months": 2_629_800 * S,
    "y": 31_557_600 * S, "year": 31_557_600 * S, "years": 31_557_600 * S,
}  # fmt: skip
UNITS_BYTES = {unit: 1 << 10 * power for power, unit in enumerate(("B", "K", "M", "G", "T", "P"))}
MAX_SPAN_NS = 100 * UNITS_NS["y"]  # beyond it somebody mistyped
MAX_BYTES = 1 << 60


class Duration:
    """A stretch of time above 0. `str` gives it as it was written."""

    __slots__ = ("ns", "text")

    def __init__(self, text: str, ns: int) -> None:
        self.text = text
        self.ns = ns

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """'90d', '1h30m'. Raises ValueError."""
        return cls(text, _above_0(duration_ms(text), "a duration") * 1_000_000)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ns == other.ns

    def __hash__(self) -> int:
        return hash(self.ns)


class Size:
    """Bytes, above 0. `str` gives it as it was written."""

    __slots__ = ("bytes", "text")

    def __init__(self, text: str, size: int) -> None:
        self.text = text
        self.bytes = size

    @classmethod
    def parse(cls, text: str) -> "Size":
        """'10G', '500M'. Raises ValueError."""
        return cls(text, _above_0(size_bytes(text), "a size"))

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self.bytes == other.bytes

    def __hash__(self) -> int:
        return hash(self.bytes)


def _above_0(value: int | None, kind: str) -> int:
    if value is None:
        raise ValueError(f"not {kind}")
    if value == 0:
        raise ValueError("to keep everything, leave it out")
    return value


def duration_ms(text: str) -> int | None:
    """Milliseconds; None if it is no duration, or one above a hundred years."""
    value = span_ns(text)
    return None if value is None or value > MAX_SPAN_NS else round(value / MS)


def span_ns(text: str, *, mixed: bool = False) -> int | None:
    """Nanoseconds, exactly; None if it is no duration.

    `mixed`: a number without a unit is seconds also beside others, as systemd has it for points in time.
    """
    total, rest = 0, text.strip()
    alone = rest
    while rest:
        digits, unit, rest = _part(rest)
        scale = S if not unit and (mixed or digits == alone) else UNITS_NS.get(unit)
        value = None if scale is None else _scaled(digits, scale)
        if value is None:
            return None
        total += value
    return total if alone else None


def size_bytes(text: str) -> int | None:
    """Bytes; None if it is no size, or one above 1,024 P."""
    number, unit, rest = _part(text.strip())
    scale = UNITS_BYTES.get(unit.removesuffix("iB") or "B")
    value = None if rest or scale is None else _scaled(number, scale)
    return value if value is not None and value <= MAX_BYTES else None


def _part(text: str) -> tuple[str, str, str]:
    """The number that a text begins with, the letters behind it, and the rest."""
    after = text.lstrip("0123456789.")
    digits, after = text[: len(text) - len(after)], after.lstrip()
    count = 0
    while count < len(after) and after[count].isalpha():
        count += 1
    return digits, after[:count], after[count:].lstrip()


def _scaled(digits: str, scale: int) -> int | None:
    """A decimal number times `scale`, exactly; None if it is no number."""
    whole, point, part = digits.partition(".")
    if len(digits) > 40 or not (whole + part).isdigit() or (point and not part.isdigit()):
        return None
    return int(whole or "0") * scale + (int(part) * scale // 10 ** len(part) if part else 0)
