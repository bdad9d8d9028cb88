"""`msgctl vacuum --time 90d | --size 10G`: remove the oldest of the history."""

from msgctl.client import Client
from msgctl.grammar import Args
from msgctl.output import Screen, counted
from msgctl.usage import size
from msgctl.working import work
from msgd.amounts import duration_ms, size_bytes
from msgd.errors import UsageError
from msgd.wire.varlink import Json


def run(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Ends with 0 also where nothing had to go, or nothing could."""
    asked: Json = {}
    time, most = args.get("time"), args.get("size")
    if time is not None:
        asked["time_ms"] = _read(duration_ms(time), time, "a duration, as 90d, 12h or 2weeks")
    if most is not None:
        asked["size_bytes"] = _read(size_bytes(most), most, "a size, as 10G or 500M")
    if not asked:
        raise UsageError("vacuum needs --time or --size", "`msgctl vacuum --time 90d` keeps the last 90 days")
    work(screen, client, form, _line, "Vacuum", {**asked, "dry_run": args.has("dry_run")})
    return 0


def _read(value: int | None, text: str, expected: str) -> int:
    if value is None:
        raise UsageError(f"{text!r} is not {expected}")
    return value


def _line(result: Json) -> str:
    left = f"the log holds {size(result['left_bytes'])}"
    if not result["segments"]:
        return f"nothing {'to remove' if result['dry_run'] else 'removed'}: {left}"
    some = f"{counted(result['segments'], 'segment')} of {size(result['bytes'])}"
    did = "would remove" if result["dry_run"] else "removed"
    return f"{did} {some} with {counted(result['messages'], 'message')}: {left}"
