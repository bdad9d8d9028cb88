"""The store's figures: counted as it works, handed out as a snapshot."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the store did since it was made."""

    appends: int  # successful commits
    records: int  # in them
    written_bytes: int  # in them
    refused: int  # times that there was no room
    rolls: int
    syncs: int
    sync_ns: int  # spent in fdatasync, all together
    sync_max_ns: int
    sync_last_ns: int
    segment_base: int  # log offset
    segment_bytes: int  # committed in the present segment
    allocated_bytes: int  # of the present segment's file


class Figures:
    """The counters behind `Statistics`; they mean what they mean there."""

    __slots__ = (
        "appends",
        "records",
        "refused",
        "rolls",
        "sync_last_ns",
        "sync_max_ns",
        "sync_ns",
        "syncs",
        "written_bytes",
    )

    def __init__(self) -> None:
        self.appends = self.records = self.written_bytes = self.refused = self.rolls = 0
        self.syncs = self.sync_ns = self.sync_max_ns = self.sync_last_ns = 0

    def synced(self, taken_ns: int) -> None:
        """Count one fdatasync."""
        self.syncs += 1
        self.sync_ns += taken_ns
        self.sync_last_ns = taken_ns
        if taken_ns > self.sync_max_ns:
            self.sync_max_ns = taken_ns

    def snapshot(self, segment_base: int, segment_bytes: int, allocated_bytes: int) -> Statistics:
        """The figures as they are now."""
        return Statistics(
            **{name: getattr(self, name) for name in self.__slots__},
            segment_base=segment_base,
            segment_bytes=segment_bytes,
            allocated_bytes=allocated_bytes,
        )
