"""Who holds messages of consumers, and on which channels; and until when the absent may come again.

A holder that says goodbye is gone at once. One whose process dies, or ours, may have handled meanwhile what
it has, and is waited for.
"""

from collections.abc import Callable, Iterable

from msgd.channel import Channel

GRACE_S = 10.0  # a program that lost its connection has come again by then, or is gone

Holding = tuple[str, bytes]  # a consumer's name, and a holder


class Holders:
    """Present and missed ones. `now_s`: CLOCK_MONOTONIC."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._present: dict[Holding, set[Channel]] = {}
        self._missed: dict[Holding, float] = {}  # until when it may come again

    def join(self, channel: Channel, holding: Holding) -> None:
        """It is here, on this channel."""
        self._present.setdefault(holding, set()).add(channel)
        self._missed.pop(holding, None)

    def leave(self, channel: Channel, holding: Holding) -> bool:
        """It has said goodbye on this channel; whether that was the last one."""
        channels = self._present.get(holding, set())
        channels.discard(channel)
        if channels:
            return False
        self._present.pop(holding, None)
        self._missed.pop(holding, None)
        return True

    def gone(self, channel: Channel) -> None:
        """A channel ended without a word."""
        for holding in [h for h, channels in self._present.items() if channel in channels]:
            if self.leave(channel, holding):
                self.miss([holding])

    def miss(self, holdings: Iterable[Holding]) -> None:
        """These hold something: those who are not here may come again."""
        until_s = self._now_s() + GRACE_S
        self._missed |= {holding: until_s for holding in holdings if holding not in self._present}

    def next_s(self) -> float | None:
        """In how many seconds `take_due` has something; None: nobody is missed."""
        return max(0.0, min(self._missed.values()) - self._now_s()) if self._missed else None

    def take_due(self) -> list[Holding]:
        """Those who did not come again; they are not missed any more."""
        now_s = self._now_s()
        due = [holding for holding, until_s in self._missed.items() if until_s <= now_s]
        for holding in due:
            del self._missed[holding]
        return due
