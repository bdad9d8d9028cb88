"""Times and durations are read as people write them, in the local zone, and nothing else is."""

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgctl.timespec import MAX_NS, _utc_s, duration_ms, time_ns
from msgd.errors import UsageError

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
        ("-90", NOW - 90 * S),
        ("+5min", NOW + 300 * S),
        ("-1000y", None),
        ("@1795262400", NOW_S * S),
        ("@1.5", S * 3 // 2),
        ("@1795262400.123456789", NOW_S * S + 123_456_789),
        ("@99999999999", MAX_NS),
        ("2026-11-21", (NOW_S - 14 * 3600) * S),
        ("2026-11-21 14:00", NOW_S * S),
        ("2026-11-21 14:00:30.25", (NOW_S + 30) * S + S // 4),
        ("2026-11-21T12:00:00Z", NOW_S * S),
        ("2026-11-21 12:00 UTC", NOW_S * S),
        ("2026-11-21T14:30:00+02:30", NOW_S * S),
        ("2026-11-21T07:00:00-0500", NOW_S * S),
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
        "2026-02-30",
        "2025-02-29",
        "2026-13-01",
        "25:00",
        "12:60",
        "12",
        "1e5 ago",
        "@",
        "@x",
        "@1.",
        "20261121",
        "1 2 ago",
        "2026-11-21T12:00:00+99:00",
        "2026-11-21 12",
        "1969-01-01",
    ],
)
def test_anything_else_is_no_time(text: str) -> None:
    """Refused with the forms that there are; a day that does not exist is not moved to the next month."""
    with pytest.raises(UsageError, match="is not a time"):
        time_ns(text, NOW)


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
    "text", ["", "x", "-1", "1x", "1 2", "1h 30", "h", "nan", "inf", "999999y", "1.2.3s"]
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
