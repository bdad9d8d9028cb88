"""How far the index is behind the log, in words: for `status` and for STATUS= of systemd. Pure."""

READY_BYTES = 32 << 20  # of the log: what a query reads by itself while the next burst is gathered

READY = "ready"
CATCHING_UP = "catching up"
REBUILDING = "rebuilding"


def state(behind_bytes: int, is_new: bool) -> str:
    """`is_new`: the index is being filled from nothing."""
    if behind_bytes <= READY_BYTES:
        return READY
    return REBUILDING if is_new else CATCHING_UP


def told(behind_bytes: int, is_new: bool, done: float) -> str:
    """A few words while it is worth telling, else none."""
    now = state(behind_bytes, is_new)
    return "" if now == READY else f"index {now} {done * 100:.0f} %"
