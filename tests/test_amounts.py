"""Durations and sizes: every form people write, and nothing that only looks like one."""

import pytest

from msgd.amounts import duration_ms, size_bytes


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (90_000, "90"),
        (0, "0"),
        (1_500, "1.5"),
        (250, "250ms"),
        (7_776_000_000, "90d"),
        (5_400_000, "1h30m"),
        (129_600_000, "1.5d"),
        (1_209_600_000, "2 weeks"),
        (60_000, " 1m "),
        (2_629_800_000, "1M"),
        (3_601_000, "1 h 1 s"),
        (None, ""),
        (None, "d"),
        (None, "90 dys"),
        (None, "1h30"),
        (None, "1.2.3s"),
        (None, "-1h"),
        (None, "101y"),
        (None, "inf"),
    ],
)
def test_durations_are_read(ms: int | None, text: str) -> None:
    """A bare number is seconds; minutes and months differ by their case."""
    assert ms == duration_ms(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (4096, "4096"),
        (0, "0"),
        (1 << 20, "1M"),
        (10 << 30, "10G"),
        (3 << 29, "1.5GiB"),
        (1 << 40, " 1 T "),
        (512, "512B"),
        (None, ""),
        (None, "G"),
        (None, "10GB"),
        (None, "10g"),
        (None, "1G500M"),
        (None, "-1G"),
        (None, "2000P"),
    ],
)
def test_sizes_are_read(size: int | None, text: str) -> None:
    """A bare number is bytes; letters are powers of 1,024."""
    assert size == size_bytes(text)
