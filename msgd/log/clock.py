"""The clocks of the log: what is stamped into records, and what the length of a sync is measured with.

Within one start of the machine the age of a record is the difference of `boot_ns`; across starts that of
`wall_ns`, never below zero. `start` tells which of the two holds, and also one start of msgd from another.
"""

import functools
import os
import time
from collections.abc import Callable

BOOT_ID = "/proc/sys/kernel/random/boot_id"
START_BYTES = 16


class Clock:
    """The machine's clocks. A test gives its own functions.

    `start` is 16 bytes: the first 8 of the kernel's boot id, then 8 random ones per start of msgd.
    """

    wall_ns: Callable[[], int]  # CLOCK_REALTIME
    boot_ns: Callable[[], int]  # CLOCK_BOOTTIME: goes on while the machine sleeps
    mono_ns: Callable[[], int]  # CLOCK_MONOTONIC
    start: bytes

    def __init__(self) -> None:
        # the C functions themselves, not methods around them: two calls for every record
        self.wall_ns = time.time_ns
        self.boot_ns = functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
        self.mono_ns = time.monotonic_ns
        self.start = boot_id()[:8] + os.urandom(8)


def boot_id() -> bytes:
    """The kernel's id of this start of the machine, 16 bytes."""
    with open(BOOT_ID, encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))
