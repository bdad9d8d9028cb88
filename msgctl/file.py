"""`msgctl file …`: the stores of files, of peers and this node's own."""

from msgctl import tables
from msgctl.client import Client, new_id
from msgctl.ferry import persisting
from msgctl.grammar import Args
from msgctl.output import Screen, counted, field, rfc3339
from msgctl.send import plain
from msgctl.timespec import option_ms
from msgctl.usage import size
from msgd.errors import UsageError
from msgd.wire.varlink import Json

PATIENCE_MS = 30_000
DIGITS = 12  # of a digest, in a table


def _patience_s(args: Args) -> float:
    """How long a peer may be away, and how long nothing may move."""
    given = option_ms(args.get("timeout"), "timeout", "0s", "366d")
    return (PATIENCE_MS if given is None else given) / 1000


def ls(args: Args, screen: Screen, client: Client, form: str) -> int:
    """The names in a store."""
    patience_s = _patience_s(args)
    peer, pattern = args.word(0), args.word(1)
    asked: Json = {
        "peer": None if peer is None else plain(peer),
        "pattern": None if pattern is None else plain(pattern).strip("/"),
        "recursive": args.has("recursive") or None,
        "timeout_ms": round(patience_s * 1000),
    }

    def ask(client: Client) -> list[Json]:
        pages = client.stream("FileList", endless=True, **asked)
        return [entry for page in pages for entry in page["entries"]]

    entries = persisting(client, patience_s, ask)
    if form == "json":
        for entry in entries:
            screen.json({**entry, "mtime_at": rfc3339(entry["mtime_ns"])})
        return 0
    rows = [_row(screen, entry) for entry in entries]
    if rows:
        tables.show(screen, ("SIZE", "MODIFIED", "SHA-256", "NAME"), rows)
    else:
        screen.write("no files\n")
    return 0


def _row(screen: Screen, entry: Json) -> list[str]:
    if entry["directory"]:
        return ["-", "-", "-", field(entry["name"]) + "/"]
    when = screen.clock(entry["mtime_ns"], "%Y-%m-%d %H:%M:%S")
    name = field(entry["name"]) + ("*" if entry["executable"] else "")
    return [size(entry["size"]), when, (entry.get("sha256") or "-")[:DIGITS], name]


def put(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Into a store."""
    from msgctl import fileput

    return fileput.run(args, screen, client, form, _patience_s(args))


def get(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Out of a store."""
    from msgctl import fileget

    return fileget.run(args, screen, client, form, _patience_s(args))


def dup(args: Args, screen: Screen, client: Client, form: str) -> int:
    """A copy within a store."""
    peer, name, new = (plain(word) for word in args.words)
    patience_s, transfer = _patience_s(args), new_id()

    def ask(client: Client) -> Json:
        asked: Json = {"peer": peer, "name": name, "new": new, "transfer": transfer}
        *_, last = client.stream("FileDup", endless=True, timeout_ms=round(patience_s * 1000), **asked)
        file: Json = last["file"]
        return file

    done = persisting(client, patience_s, ask)
    if form == "json":
        known = {name: done.get(name) for name in ("name", "size", "sha256", "message")}
        screen.json({"op": "dup", "peer": peer, "source": name, **known})
    else:
        screen.write(f"{field(name)} is {field(new)}, too ({size(done['size'])})\n")
    return 0


def rm(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Out of a store, for good."""
    peer, name = (plain(word) for word in args.words)
    if not name.strip("/"):
        raise UsageError(
            "the whole store cannot be removed", f"name what is in it: `msgctl file ls {peer}` lists it"
        )
    patience_s = _patience_s(args)
    asked: Json = {"peer": peer, "name": name.rstrip("/"), "recursive": args.has("recursive") or None}
    done = client.call(
        "FileRemove",
        timeout_s=patience_s + client.timeout_s,
        timeout_ms=round(patience_s * 1000),
        transfer=new_id(),
        **asked,
    )
    if form == "json":
        screen.json({"op": "rm", "peer": peer, "name": name, **done})
    else:
        screen.write(f"removed {counted(done['removed'], 'file')}: {field(name)}\n")
    return 0


HANDLERS = {"file ls": ls, "file put": put, "file get": get, "file dup": dup, "file rm": rm}
