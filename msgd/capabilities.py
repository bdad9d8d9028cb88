"""Linux capabilities of this process: which it has, and giving them up where they are of no use.

The shipped unit has none. `packaging/msgd-exec.conf` gives the service some, so that a hook may run as
another user; all processes but the supervisor and the hooks give them up again. What a hook runs gets none.
"""

import ctypes
import os

KILL, SETGID, SETUID = 5, 6, 7  # linux/capability.h
AS_USER = (SETUID, SETGID, KILL)  # what running as another user takes, and ending what runs
NAMES = {KILL: "cap_kill", SETGID: "cap_setgid", SETUID: "cap_setuid"}

VERSION_3 = 0x20080522  # linux/capability.h
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4  # linux/prctl.h


def effective() -> frozenset[int]:
    """Those that count now; none where the kernel does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            words = next(line for line in stream if line.startswith("CapEff:")).split()
    except (OSError, StopIteration):
        return frozenset()
    bits = int(words[1], 16)
    return frozenset(number for number in range(64) if bits >> number & 1)


def give_up() -> None:
    """Have none any more, unless this is root, who would not be root without.

    A unit of one's own may give capabilities and forbid this call: then they stay.
    """
    if os.geteuid() == 0 or not effective():
        return
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, nothing)


def pass_none_on() -> None:
    """What this process executes gets none of its own. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot give up capabilities")
