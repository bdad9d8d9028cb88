"""Times and durations as people write them. Pure: the present comes in, the zone is the C library's.

| form | |
|---|---|
| `30` `30s` `2h` `1h30m` `1.5d` | a duration; a bare number is seconds |
| `-2h` `+5min` `2h ago` `2 hours ago` | before or after now |
| `now` `today` `yesterday` `tomorrow` | the days at 00:00 |
| `2026-11-21` `2026-11-21 12:00[:30[.5]]` | local time; also with `T`, and with `Z`, `UTC`, `+02:00` behind |
| `12:00[:30]` | today |
| `@1795262400[.5]` | Unix time |

No `datetime` and no `re`: with them reading one option would take longer than all the rest of msgctl.
"""

import time

from msgd.errors import UsageError

UNITS_MS = {  # as systemd.time(7): m is minutes, M is months
    "ms": 1, "msec": 1,
    "s": 1000, "sec": 1000, "second": 1000, "seconds": 1000,
    "m": 60_000, "min": 60_000, "minute": 60_000, "minutes": 60_000,
    "h": 3_600_000, "hr": 3_600_000, "hour": 3_600_000, "hours": 3_600_000,
    "d": 86_400_000, "day": 86_400_000, "days": 86_400_000,
    "w": 604_800_000, "week": 604_800_000, "weeks": 604_800_000,
    "M": 2_629_800_000, "month": 2_629_800_000, "months": 2_629_800_000,
    "y": 31_557_600_000, "year": 31_557_600_000, "years": 31_557_600_000,
}  # fmt: skip
DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
MAX_MS = 100 * 31_557_600_000  # a hundred years: beyond it somebody mistyped
NS_PER_S = 1_000_000_000
MAX_NS = (1 << 63) - 1  # the log's clocks end there, in 2262
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def duration_ms(text: str) -> int:
    """Milliseconds of a duration. Raises UsageError."""
    value = _duration(text.strip(), bare="s")
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
    for form in (_word, _relative, _unix, _calendar):
        value = form(words, now_ns)
        if value is not None:
            return min(value, MAX_NS)
    raise UsageError(
        f"{text!r} is not a time",
        "expected a form like 'yesterday', '-2h', '12:00', '2026-11-21 12:00' or '@1795262400'",
    )


def _duration(text: str, bare: str = "") -> int | None:
    """Milliseconds; None if it is something else. `bare`: the unit of a number without one."""
    total, rest = 0.0, text
    while rest := rest.lstrip():
        digits = _leading(rest, "0123456789.")
        unit = _letters(rest[len(digits) :].lstrip())
        rest = rest[len(digits) :].lstrip()[len(unit) :]
        scale = UNITS_MS.get(unit) or (UNITS_MS[bare] if bare and not unit and digits == text else None)
        number = _number(digits)
        if scale is None or number is None:
            return None
        total += number * scale
    return round(total) if text and total <= MAX_MS else None


def _word(text: str, now_ns: int) -> int | None:
    if text == "now":
        return now_ns
    if text in DAYS:
        today = time.localtime(now_ns // NS_PER_S)
        return _local_ns(today.tm_year, today.tm_mon, today.tm_mday + DAYS[text], 0, 0, 0)
    return None


def _relative(text: str, now_ns: int) -> int | None:
    if text.endswith(" ago"):
        ms, sign = _duration(text[:-4]), -1
    elif text[:1] in ("-", "+"):
        ms, sign = _duration(text[1:], bare="s"), -1 if text[0] == "-" else 1
    else:
        return None
    return None if ms is None else max(0, now_ns + sign * ms * 1_000_000)


def _unix(text: str, now_ns: int) -> int | None:
    if not text.startswith("@"):
        return None
    seconds = _fraction(text[1:])
    return None if seconds is None else seconds[0] * NS_PER_S + seconds[1]


def _calendar(text: str, now_ns: int) -> int | None:
    moment, offset_s = _zone(text)
    date, _, clock = moment.replace("T", " ", 1).partition(" ")
    if ":" in date and not clock:
        date, clock = time.strftime("%Y-%m-%d", time.localtime(now_ns // NS_PER_S)), date
    day, hour = _date(date), _clock(clock.strip())
    if day is None or hour is None:
        return None
    if offset_s is None:
        return _local_ns(*day, *hour[:3]) + hour[3]
    return (_utc_s(*day, *hour[:3]) - offset_s) * NS_PER_S + hour[3]


def _zone(text: str) -> tuple[str, int | None]:
    """The text without its zone, and the zone's seconds east of UTC; None: local time."""
    for suffix in ("Z", " UTC"):
        if text.endswith(suffix):
            return text.removesuffix(suffix), 0
    at = max(text.rfind("+"), text.rfind("-"))
    if at > 0 and ":" in text[:at]:  # a date has its hyphens before the first colon
        digits = text[at + 1 :].replace(":", "")
        if digits.isdecimal() and len(digits) in (2, 4) and digits[:2] < "24" and digits[2:] < "60":
            seconds = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
            return text[:at].rstrip(), seconds if text[at] == "+" else -seconds
    return text, None


def _date(text: str) -> tuple[int, int, int] | None:
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or len(parts[0]) != 4:
        return None
    year, month, day = (int(part) for part in parts)
    if year < 1970 or not 1 <= month <= 12:
        return None
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (year, month, day) if 1 <= day <= MONTH_DAYS[month - 1] + leap else None


def _clock(text: str) -> tuple[int, int, int, int] | None:
    """Hour, minute, second, nanosecond; midnight where there is none."""
    if not text:
        return (0, 0, 0, 0)
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts[:2]):
        return None
    second = _fraction(parts[2]) if len(parts) == 3 else (0, 0)
    hour, minute = int(parts[0]), int(parts[1])
    if second is None or hour > 23 or minute > 59 or second[0] > 60:
        return None
    return (hour, minute, *second)


def _fraction(text: str) -> tuple[int, int] | None:
    """Seconds and nanoseconds of `12` or `12.5`, exactly."""
    whole, point, digits = text.partition(".")
    if not whole.isdecimal() or len(whole) > 11 or (point and not digits.isdecimal()):
        return None
    return int(whole), int(digits[:9].ljust(9, "0")) if digits else 0


def _local_ns(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    return int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1))) * NS_PER_S


def _utc_s(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """Unix seconds of a date in UTC (`calendar.timegm` costs an import of `datetime`)."""
    years = year - 1 if month < 3 else year  # years begin in March: the leap day is the last one
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day
    return (days - 719_469) * 86_400 + hour * 3600 + minute * 60 + second


def _leading(text: str, letters: str) -> str:
    return text[: len(text) - len(text.lstrip(letters))]


def _letters(text: str) -> str:
    count = 0
    while count < len(text) and text[count].isalpha():
        count += 1
    return text[:count]


def _number(digits: str) -> float | None:
    try:
        return float(digits)
    except ValueError:
        return None
