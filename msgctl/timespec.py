"""Durations, and points in time in every form of systemd.time(7). Pure: the present comes in.

| form | |
|---|---|
| `30` `30s` `2h` `1h30m` `1.5d` | a duration (`msgd.amounts`); a bare number is seconds |
| `-2h` `2h ago` `2 hours ago` `+3h30min` `5min left` | before or after now |
| `@1795262400[.5]` | Unix time |
| `now` | |
| all others | a day, a clock or both: `dates` |

No `datetime` and no `re`: with them reading one option would take longer than all the rest of msgctl.
"""

from msgd import amounts
from msgd.amounts import MAX_SPAN_NS, span_ns
from msgd.errors import UsageError

MAX_NS = (1 << 63) - 1  # the log's clocks end there, in 2262


def duration_ms(text: str) -> int:
    """Milliseconds of a duration. Raises UsageError."""
    value = amounts.duration_ms(text)
    if value is None:
        raise UsageError(f"{text!r} is not a duration", "expected seconds, or a form like 30s, 2h, 7d, 1h30m")
    return value


def option_ms(text: str | None, option: str, least: str, most: str) -> int | None:
    """Milliseconds of an option's duration between two others; None: not given. Raises UsageError."""
    if text is None:
        return None
    value = duration_ms(text)
    if not duration_ms(least) <= value <= duration_ms(most):
        raise UsageError(f"--{option} {text} is out of range", f"expected {least} to {most}")
    return value


def time_ns(text: str, now_ns: int) -> int:
    """Unix nanoseconds of a point in time. Raises UsageError."""
    words = text.strip()
    value = now_ns if words == "now" else _counted(words, now_ns)
    if value is None:
        from msgctl.dates import moment_ns

        value = moment_ns(words, now_ns)
    if value is None:
        raise UsageError(
            f"{text!r} is not a time",
            "expected a form like 'yesterday', '-2h', '12:00', '2026-11-21 12:00' or '@1795262400'",
        )
    return min(value, MAX_NS)


def _counted(text: str, now_ns: int) -> int | None:
    """Forms that count from now or from 1970."""
    if text.startswith("@"):
        return span_ns(text[1:], mixed=True)
    if text.endswith(" ago"):
        distance_ns, sign = span_ns(text[:-4], mixed=True), -1
    elif text.endswith(" left"):
        distance_ns, sign = span_ns(text[:-5], mixed=True), 1
    elif text[:1] in ("-", "+"):
        distance_ns, sign = span_ns(text[1:], mixed=True), -1 if text[0] == "-" else 1
    else:
        return None
    if distance_ns is None or distance_ns > MAX_SPAN_NS:
        return None
    return max(0, now_ns + sign * distance_ns)
