"""`msgctl disk-usage`: what this node keeps on the disk."""

from msgctl import tables
from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, field, rfc3339
from msgd.wire.varlink import Json


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """A table and two sentences, or one object."""
    usage = client.call("DiskUsage")
    if form == "json":
        screen.json({**usage, "oldest_at": rfc3339(usage.get("oldest_ns"))})
        return 0
    uses: list[Json] = usage["uses"]
    total = {"what": "total", "bytes": usage["total_bytes"], "files": sum(use["files"] for use in uses)}
    rows = [[field(use["what"]), size(use["bytes"]), str(use["files"])] for use in (*uses, total)]
    tables.show(screen, ("WHAT", "SIZE", "FILES"), rows)
    screen.write(f"\n{size(usage['available_bytes'])} are left on this file system.\n")
    if usage["sealed_bytes"]:
        sealed = f"{size(usage['sealed_bytes'])} of the log are in full segments"
        screen.write(f"{sealed}: `msgctl vacuum --size 1 --dry-run` says how much of that may go.\n")
    if usage.get("oldest_ns") is None:
        screen.write("No message is kept.\n")
    else:
        when = screen.clock(usage["oldest_ns"], "%Y-%m-%d %H:%M:%S")
        screen.write(f"The oldest message that is kept was stored here on {when}.\n")
    return 0


def size(count: int) -> str:
    """Bytes as `vacuum --size` reads them: powers of 1,024."""
    if count < 1024:
        return f"{count}B"
    units = "KMGTP"
    place = min((count.bit_length() - 1) // 10, len(units)) - 1
    return f"{count / 1024 ** (place + 1):.1f}{units[place]}"
