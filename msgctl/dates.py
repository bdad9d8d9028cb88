"""Days and clocks with their zones, in every form of systemd.time(7) and ISO 8601.

| form | |
|---|---|
| `today` `yesterday` `tomorrow` | the day at 00:00 |
| `2026-11-21` `26-11-21` | the day at 00:00; of two digits 69 to 99 are 1969 to 1999 |
| `12:00` `12:00:30.5` | today |
| `2026-11-21 12:00` | also with `T` between |
| `Sat 2026-11-21` | refused where it is another day of the week |
| `… UTC` `… Europe/Paris` `… CET` | in that zone; a short name where it is the local zone's, or a zone file |
| `…Z` `…+02:00` `…-0500` | so far east of UTC |

A zone's name becomes the C library's zone while the text is read: `zoneinfo` would import `datetime`.
Other than in systemd a day that does not exist (30 February) is refused, not moved to the next month.
"""

import os
import time

S = 1_000_000_000
DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
ZONE_FILES = "/usr/share/zoneinfo"

Clock = tuple[int, int, int, int]  # hour, minute, second, nanosecond


class Zone:
    """Where a day begins: the C library's local zone, or so many seconds east of UTC."""

    __slots__ = ("east_s", "is_dst")

    def __init__(self, east_s: int | None = None, is_dst: int = -1) -> None:
        self.east_s = east_s
        self.is_dst = is_dst  # 1: summer time was named, 0: winter time; -1: whatever it is then

    def day(self, now_s: int) -> tuple[int, int, int]:
        """Year, month and day."""
        now = time.localtime(now_s) if self.east_s is None else time.gmtime(now_s + self.east_s)
        return now.tm_year, now.tm_mon, now.tm_mday

    def unix_s(self, year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
        """Unix seconds; a day beyond the month's end is one of the next month."""
        if self.east_s is None:
            return int(time.mktime((year, month, day, hour, minute, second, 0, 0, self.is_dst)))
        return _utc_s(year, month, day, hour, minute, second) - self.east_s


def moment_ns(text: str, now_ns: int) -> int | None:
    """Unix nanoseconds; None if it is nothing of the kind."""
    head, _, last = text.rpartition(" ")
    if head and last.lower() == "utc":
        return _read(head, now_ns, Zone(0))
    if head and _is_zone(last):
        return _in_named_zone(head, now_ns, last)
    local = [name.lower() for name in time.tzname]
    if head and last.lower() in local:
        return _read(head, now_ns, Zone(is_dst=local.index(last.lower())))
    shorter, east_s = _offset(text)
    return _read(shorter, now_ns, Zone(east_s))


def _in_named_zone(text: str, now_ns: int, name: str) -> int | None:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        is_dst = time.tzname.index(name) if name in time.tzname else -1
        return _read(text, now_ns, Zone(is_dst=is_dst))
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


def _is_zone(name: str) -> bool:
    """Whether the machine has this zone."""
    letters = name.replace("-", "").replace("_", "").replace("+", "").replace("/", "")
    if not letters.isalnum() or name.startswith("/"):
        return False
    try:
        with open(os.path.join(os.environ.get("TZDIR") or ZONE_FILES, name), "rb") as file:
            return file.read(4) == b"TZif"
    except OSError:
        return False


def _offset(text: str) -> tuple[str, int | None]:
    """The text without `Z` or `+02:00`, and its seconds east of UTC; None: local time."""
    if text.endswith("Z"):
        return text[:-1].rstrip(), 0
    at = max(text.rfind("+"), text.rfind("-"))
    if at > 0 and ":" in text[:at]:  # a date has its hyphens before the first colon
        digits = text[at + 1 :].replace(":", "")
        if digits.isdecimal() and len(digits) in (2, 4) and digits[:2] < "24" and digits[2:] < "60":
            seconds = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
            return text[:at].rstrip(), seconds if text[at] == "+" else -seconds
    return text, None


def _read(text: str, now_ns: int, zone: Zone) -> int | None:
    """A day, a clock or both, in this zone."""
    today = zone.day(now_ns // S)
    if text in DAYS:
        return zone.unix_s(today[0], today[1], today[2] + DAYS[text], 0, 0, 0) * S
    text, weekday = _weekday(text)
    date, _, clock = text.replace("T", " ", 1).partition(" ")
    if ":" in date and not clock:
        date, clock = "", date
    day = _day(date) if date else today if clock else None
    hour = _clock(clock.lstrip()) if clock else (0, 0, 0, 0)
    if day is None or hour is None or (weekday is not None and weekday != _weekday_of(day)):
        return None
    seconds = zone.unix_s(*day, *hour[:3])
    return seconds * S + hour[3] if seconds >= 0 else None


def _weekday(text: str) -> tuple[str, int | None]:
    """The text behind a day of the week, and which one, Monday 0."""
    word, space, rest = text.partition(" ")
    for place, name in enumerate(WEEKDAYS):
        if space and word.lower() in (name, name[:3]):
            return rest.lstrip(), place
    return text, None


def _weekday_of(day: tuple[int, int, int]) -> int:
    return time.gmtime(_utc_s(*day, 0, 0, 0)).tm_wday


def _day(text: str) -> tuple[int, int, int] | None:
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isdecimal() and len(part) in (1, 2, 4) for part in parts):
        return None
    year, month, day = (int(part) for part in parts)
    if len(parts[0]) < 4:
        year += 1900 if year > 68 else 2000
    if year < 1970 or not 1 <= month <= 12:
        return None
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (year, month, day) if 1 <= day <= MONTH_DAYS[month - 1] + leap else None


def _clock(text: str) -> Clock | None:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and len(part) < 3 for part in parts[:2]):
        return None
    second = _fraction(parts[2]) if len(parts) == 3 else (0, 0)
    hour, minute = int(parts[0]), int(parts[1])
    if second is None or hour > 23 or minute > 59 or second[0] > 61:  # leap seconds, as strptime has them
        return None
    return (hour, minute, *second)


def _fraction(text: str) -> tuple[int, int] | None:
    """Seconds and nanoseconds of `12` or `12.5`, exactly."""
    whole, point, digits = text.partition(".")
    if not whole.isdecimal() or len(whole) > 2 or (point and not digits.isdecimal()):
        return None
    return int(whole), int(digits[:9].ljust(9, "0")) if digits else 0


def _utc_s(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """Unix seconds of a date in UTC (`calendar.timegm` costs an import of `datetime`)."""
    years = year - 1 if month < 3 else year  # years begin in March: the leap day is the last one
    days = 365 * years + years // 4 - years // 100 + years // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day
    return (days - 719_469) * 86_400 + hour * 3600 + minute * 60 + second
