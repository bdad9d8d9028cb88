"""Times and durations are read as people write them, in the local zone, and nothing else is."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgctl.dates import _utc_s
from msgctl.timespec import MAX_NS, duration_ms, time_ns
from msgd.errors import UsageError
from tests.require import require

S = 1_000_000_000
NOW_S = 1_795_262_400  # 2026-11-21 12:00:00 UTC, a Saturday
NOW = NOW_S * S + 500
DAY = 86_400


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two hours east of UTC in winter, three in summer."""
    monkeypatch.setenv("TZ", "EET-2EEST,M3.5.0/3,M10.5.0/4")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("now", NOW),
        ("today", (NOW_S - 14 * 3600) * S),
        ("yesterday", (NOW_S - 14 * 3600 - DAY) * S),
        ("tomorrow", (NOW_S - 14 * 3600 + DAY) * S),
        ("-2h", NOW - 7200 * S),
        ("2h ago", NOW - 7200 * S),
        ("2 hours ago", NOW - 7200 * S),
        ("1h 30min ago", NOW - 5400 * S),
        ("1h 30 ago", NOW - 3630 * S),
        ("2min left", NOW + 120 * S),
        ("-90", NOW - 90 * S),
        ("-.5h", NOW - 1800 * S),
        ("+5min", NOW + 300 * S),
        ("-1000y", None),
        ("-60y", 0),
        ("@1795262400", NOW_S * S),
        ("@1.5", S * 3 // 2),
        ("@1795262400.123456789", NOW_S * S + 123_456_789),
        ("@99999999999", MAX_NS),
        ("2026-11-21", (NOW_S - 14 * 3600) * S),
        ("26-11-21", (NOW_S - 14 * 3600) * S),
        ("70-1-2", (DAY - 7200) * S),
        ("2026-11-21 14:00", NOW_S * S),
        ("sat 2026-11-21 14:00", NOW_S * S),
        ("Saturday 14:00", NOW_S * S),
        ("2026-11-21 14:00:30.25", (NOW_S + 30) * S + S // 4),
        ("2026-11-21T12:00:00Z", NOW_S * S),
        ("2026-11-21 12:00 UTC", NOW_S * S),
        ("today utc", (NOW_S - 12 * 3600) * S),
        ("2026-11-21T14:30:00+02:30", NOW_S * S),
        ("2026-11-21T07:00:00-0500", NOW_S * S),
        ("2026-11-21 14:00 EET", NOW_S * S),
        ("2026-11-21 15:00 EEST", NOW_S * S),
        ("2026-07-01 03:00", 1_782_864_000 * S),  # summer: three hours east
        ("14:00", NOW_S * S),
        ("14:00:01", (NOW_S + 1) * S),
        ("2024-02-29", 1_709_157_600 * S),
    ],
)
def test_time_is_read(text: str, expected_ns: int | None) -> None:
    """Every documented form, to the nanosecond; a thousand years are a mistake."""
    if expected_ns is None:
        with pytest.raises(UsageError):
            time_ns(text, NOW)
    else:
        assert expected_ns == time_ns(text, NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "foo",
        "2h",
        "ago",
        " ago",
        "-",
        "Z",
        "T",
        "Sat",
        "Sun 2026-11-21",
        "Fri 14:00",
        "sat today",
        "2026-11-21 12:00 Europe/Nowhere",
        "2026-11-21 12:00 ../../etc/passwd",
        "2026-02-30",
        "2025-02-29",
        "2026-13-01",
        "25:00",
        "12:60",
        "12",
        "1e5 ago",
        "5. ago",
        "--5",
        "@",
        "@x",
        "@1.",
        "20261121",
        "2026-11-21T12:00:00+99:00",
        "2026-11-21 12",
        "1969-01-01",
        "70-1-1",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    """Refused with the forms that there are; a day that does not exist is not moved to the next month."""
    with pytest.raises(UsageError, match="is not a time"):
        time_ns(text, NOW)


# --- systemd's own answer -----------------------------------------------------------------------------------


ABSOLUTE = (
    "today", "yesterday", "tomorrow", "today UTC", "tomorrow utc",
    "2026-11-21", "26-11-21", "68-11-21", "70-11-21", "2026-1-5",
    "2026-11-21 12:00", "2026-11-21  12:00", "2026-11-21 1:2", "2026-11-21 12:00:30",
    "2026-11-21 12:00:30.25", "2026-11-21 12:00:60", "2026-11-21 12:00:61", "26-11-21 12:00:30.123456",
    "2026-11-21 12:00 UTC", "Sat 2026-11-21", "saturday 2026-11-21 12:00", "SAT 26-11-21 12:00 UTC",
    "Tue 2024-02-29", "Thu 2024-02-29", "Sun 2026-11-21", "Sa 2026-11-21", "Sat, 2026-11-21",
    "9:5", "09:05", "9:05:07.5", "12:00 UTC", "24:00", "12:60", "12", "9:05.5",
    "2026-03-08 02:30", "2026-11-01 01:30", "2026-11-01 01:30 EDT", "2026-07-01 12:00 EDT", "today EDT",
    "2026-07-01 12:00 edt", "2026-13-01", "2026-00-01", "2026-11-21 24:00", "2026-11-21 12:00:00.",
    "20261121", "69-01-01", "epoch", "Today", "now UTC", "-2h UTC", "2200-01-01 UTC",
    "@0", "@1.5", "@1h", "@1795262400.5s", "@", "@x", "@-1",
)  # fmt: skip
RELATIVE = (
    "now", "-2h", "+2h", "-90", "+3h30min", "-3h 30min", "11min ago", "2h ago", "2 hours ago", "1 h 20 ago",
    "3 weeks 2 days ago", "5 M ago", "5m ago", "5 month ago", "1y ago", "1year 3months ago", "2h left",
    "-.5h", "-1.5days", "5us ago", "5\u00b5s ago", "5\u03bcs ago", "-20msec", "1hr 2minutes 3sec ago",
    "2h  ago", "-0", "1 2 ago", "--5", "-", "ago", "5 foo ago", "-5.5.5s", "1e5 ago",
)  # fmt: skip
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Europe/Lisbon")


def asked(forms: tuple[str, ...], zone: str) -> dict[str, int | None]:
    """What `systemd-analyze timestamp` reads, in microseconds; None: it refuses."""
    command = ["systemd-analyze", "timestamp", "--", *forms]
    done = subprocess.run(
        command, env={**os.environ, "TZ": zone}, capture_output=True, text=True, check=False, timeout=60
    )
    read: dict[str, int | None] = dict.fromkeys(forms)
    for line in done.stdout.splitlines():
        name, _, value = line.strip().partition(": ")
        if name == "Original form":
            form = value
        elif name == "UNIX seconds":
            whole, _, part = value[1:].partition(".")
            read[form] = int(whole) * 1_000_000 + int(part.ljust(6, "0"))
    return read


def ours(text: str, now_ns: int) -> int | None:
    """Microseconds; None: refused."""
    try:
        return time_ns(text, now_ns) // 1000
    except UsageError:
        return None


@pytest.fixture(params=ZONES)
def in_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    require("systemd", "zones")
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    return str(request.param)


def test_points_in_time_are_those_of_systemd(in_zone: str) -> None:
    """Every form is read to the same microsecond, or refused by both."""
    before_ns = time.time_ns()
    expected = asked(ABSOLUTE, in_zone)
    found = {text: ours(text, before_ns) for text in ABSOLUTE}
    if time.localtime(before_ns // S).tm_yday != time.localtime().tm_yday:
        expected = asked(ABSOLUTE, in_zone)  # midnight passed between the two
        found = {text: ours(text, time.time_ns()) for text in ABSOLUTE}
    assert expected == found
    assert sum(value is not None for value in expected.values()) > 30


def test_distances_are_those_of_systemd() -> None:
    """Between what they are before and after systemd was asked."""
    require("systemd")
    before_ns = time.time_ns()
    expected = asked(RELATIVE, "UTC")
    after_ns = time.time_ns()
    for text, value in expected.items():
        low, high = ours(text, before_ns), ours(text, after_ns)
        if value is None or low is None or high is None:
            assert (text, value) == (text, low)
        else:
            assert low - 1 <= value <= high + 1, text  # it rounds to microseconds
    assert sum(value is not None for value in expected.values()) > 20


@pytest.mark.parametrize("text", ["2026-11-21 12:00", "2026-07-01 3:30:01", "today", "yesterday", "12:00"])
def test_name_of_a_zone_is_as_living_there(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As systemd defines it; the local zone is what it was afterwards."""
    require("zones")
    local = time_ns("2026-11-21 12:00", NOW)
    for name in (*ZONES, "EST5EDT"):
        found = time_ns(f"{text} {name}", NOW)
        monkeypatch.setenv("TZ", name)
        time.tzset()
        assert time_ns(text, NOW) == found
        monkeypatch.setenv("TZ", "EET-2EEST,M3.5.0/3,M10.5.0/4")
        time.tzset()
    assert local == time_ns("2026-11-21 12:00", NOW)


# --- durations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("30", 30_000),
        ("0", 0),
        ("0.5", 500),
        ("30s", 30_000),
        ("250ms", 250),
        ("5 min", 300_000),
        ("2h", 7_200_000),
        ("1h30m", 5_400_000),
        ("1.5d", 129_600_000),
        ("7d", 604_800_000),
        ("2 weeks", 1_209_600_000),
    ],
)
def test_duration_is_read(text: str, expected_ms: int) -> None:
    """A bare number is seconds."""
    assert expected_ms == duration_ms(text)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1x", "1 2", "1h 30", "h", "nan", "inf", "999999y", "1.2.3s", "5."]
)
def test_anything_else_is_no_duration(text: str) -> None:
    """Refused, not guessed."""
    with pytest.raises(UsageError, match="is not a duration"):
        duration_ms(text)


@given(st.integers(0, 253_402_300_799))
def test_utc_seconds_invert_gmtime(seconds: int) -> None:
    """For every second from 1970 to 9999."""
    assert seconds == _utc_s(*time.gmtime(seconds)[:6])


@given(st.text(max_size=20))
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever is typed, it is a time or a UsageError."""
    for reader in (lambda: time_ns(text, NOW), lambda: duration_ms(text)):
        try:
            assert reader() >= 0
        except UsageError as exc:
            assert "expected" in exc.hint
