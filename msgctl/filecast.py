"""`msgctl file cast`, `casts` and `cancel`: files for all members of a group, also for who returns later.

The files are handed over to msgd first, all of them; from then on the cast is its business, and this command
only looks on. Whatever dies before that is made good by the same calls with the same id.
"""

import sys
import time

from msgctl import fileput, matrix, tables
from msgctl.client import Client, new_id
from msgctl.ferry import Ferry, Item, Result, Watch
from msgctl.filebar import Bar
from msgctl.grammar import Args
from msgctl.groupsend import exit_code, quorum_of
from msgctl.output import BrokenOutput, Screen, complain, field, rfc3339
from msgctl.send import DEFAULT_WAIT_S, plain
from msgctl.timespec import duration_ms
from msgctl.usage import size
from msgd import errors, model
from msgd.wire.varlink import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOW = "msgctl file cast LOCAL... @GROUP"
PATIENCE_S = 30.0  # while msgd is away
TAKE_BACK_S = 5.0  # for the answer to that: the command has failed already
FIRST_LOOK_S, LOOK_S = 0.05, 0.3  # between two looks at how far it is
OPEN = ("queued", "sending")
LEVELS = (None, model.QUEUED, model.STORED)
HEADS = ("CAST", "GROUP", "FILES", "SIZE", "MEMBER", "STATE", "REASON")


class _Handing(Watch):
    """Of the files that are handed over: the bar, and what went wrong."""

    def __init__(self, items: list[Item], *, is_shown: bool) -> None:
        self.error: errors.MsgdError | None = None
        self._files = self._bytes = 0
        self._bar = Bar(len(items), sum(item.size for item in items), is_shown=is_shown)

    def ended(self, results: list[Result]) -> None:
        for _, result in results:
            failed = result.get("error")
            if failed and self.error is None:
                kind = errors.BY_NAME.get(failed["name"], errors.MsgdError)
                self.error = kind(failed["message"], failed["hint"])
            self._bytes += result.get("size") or 0
        self._files += len(results)
        self._bar.show("", self._files, self._bytes)

    def moved(self, name: str, done: int) -> None:
        self._bar.show(name, self._files, self._bytes + done)

    def stands(self, sentence: str) -> None:
        self._bar.clear()
        complain(f"msgctl: {field(sentence)}; it goes on when msgd is there again\n")

    def clear(self) -> None:
        """Leave no bar behind."""
        self._bar.clear()


class _CastFerry(Ferry):
    """Files for a cast that is to begin."""

    def __init__(self, client: Client, group: str, transfer: str, watch: Watch) -> None:
        super().__init__(client, "FileCast", None, PATIENCE_S, transfer, watch)
        self._asked = {"group": group, "transfer": transfer}


class _Asking:
    """Calls to msgd that are made again while it is away; they may be made again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._client: Client | None = None

    def ask(self, method: str, **asked: "Any") -> Json:
        """Raises what msgd answers, and Unreachable in the end."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._client = self._client or Client(self._path)
                return self._client.call(method, **asked)
            except (errors.Unreachable, errors.Uncertain):
                if self._client is not None:
                    self._client.close()
                    self._client = None
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(FIRST_LOOK_S)


def cast(args: Args, screen: Screen, client: Client, form: str) -> int:
    """Hand the files over, begin, look on; the exit code."""
    *words, group = args.words
    if not group.startswith("@") or not words:
        raise errors.UsageError("the last word is the group, as @web or @all", HOW)
    wanted, quorum = _wish(args)
    if quorum is not None:
        _check_quorum(client, group, quorum)
    timeout = args.get("timeout")
    timeout_s = DEFAULT_WAIT_S if timeout is None else duration_ms(timeout) / 1000
    transfer = new_id()
    _hand_over(args, client, form, plain(group), words, transfer)
    asking = _Asking(client.path)
    begun = asking.ask("FileCastBegin", group=plain(group), transfer=transfer)["cast"]
    most = len(begun["members"])
    level = model.QUEUED if wanted == model.QUEUED else model.STORED
    shown = matrix.Shown(screen, form, field(group), level, is_quiet=args.has("quiet"))
    states = _look_on(asking, begun, shown, 0.0 if wanted == model.QUEUED else timeout_s, quorum)
    return exit_code(states, wanted, states.count(model.STORED), quorum or most)


def _wish(args: Args) -> tuple[str | None, int | None]:
    """The level that is asked for, and of how many."""
    quorum = quorum_of(args)
    wanted = args.get("wait") or (None if quorum is None else model.STORED)
    if wanted not in LEVELS:
        raise errors.UsageError(f"--wait={wanted}: expected queued or stored")
    if quorum is not None and wanted == model.QUEUED:
        raise errors.UsageError("--quorum counts who has all files, not with --wait=queued")
    return wanted, quorum


def _check_quorum(client: Client, group: str, quorum: int) -> None:
    """So many members there have to be. Of a group that is not there msgd says so."""
    groups = client.call("Groups")["groups"]
    members = next((len(each["members"]) for each in groups if "@" + each["name"] == group), quorum)
    if quorum > members:
        text = f"the quorum is {quorum}, but group {field(group)} has {members} members"
        raise errors.UsageError(text, "see `msgctl group ls`")


def _hand_over(args: Args, client: Client, form: str, group: str, words: list[str], transfer: str) -> None:
    """All or nothing. Raises what the first file failed with."""
    skipped: list[str] = []
    items = fileput.items_of(words, args.get("directory") or "/", skipped)
    fileput.check_different(items)
    for local in skipped:
        complain(f"msgctl: {field(local)} is passed over: neither a file nor a directory\n")
    if not items:
        raise errors.UsageError("there are no files to cast", HOW)
    is_shown = sys.stderr.isatty() and form != "json" and not args.has("quiet")
    handing = _Handing(items, is_shown=is_shown)
    try:
        _CastFerry(client, group, transfer, handing).run(items)
        if handing.error is not None:
            handing.error.message = f"{_ended(handing.error.message)} Nothing is cast."
            raise handing.error
    except BaseException:
        handing.clear()
        _take_back(client, transfer)
        raise
    handing.clear()


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith((".", "!", "?")) else sentence + "."


def _take_back(client: Client, transfer: str) -> None:
    """Have what was handed over removed; else msgd does so after a day."""
    client.close()  # nobody takes more of it
    try:
        with Client(client.path, timeout_s=TAKE_BACK_S) as other:
            other.call("FileCastCancel", id=transfer)
    except (errors.MsgdError, OSError):
        return


def _look_on(
    asking: _Asking, cast: Json, shown: matrix.Shown, timeout_s: float, quorum: int | None
) -> list[str]:
    """Until all have it, enough of them, or the time is over; the last states."""
    deadline_s, pause_s = time.monotonic() + timeout_s, FIRST_LOOK_S
    wanted = quorum or len(cast["members"])
    try:
        while True:
            states = _show(cast, shown, wanted)
            left_s = deadline_s - time.monotonic()
            reached, is_open = states.count(model.STORED), states.count(model.QUEUED)
            if left_s <= 0 or not is_open or (quorum is not None and not 0 < quorum - reached <= is_open):
                break
            time.sleep(min(pause_s, left_s))
            pause_s = min(LOOK_S, 1.5 * pause_s)
            cast = asking.ask("FileCasts", id=cast["id"])["casts"][0]
        shown.end()
    except KeyboardInterrupt:
        shown.end()
        raise
    except BrokenOutput:
        pass  # the cast goes on all the same
    return states


def _show(cast: Json, shown: matrix.Shown, wanted: int) -> list[str]:
    news = [_receipt(cast, member) for member in cast["members"]]
    states = [str(each["state"]) for each in news]
    shown.add(news, states.count(model.STORED), wanted)
    return states


def _receipt(cast: Json, member: Json) -> Json:
    """How far it is with one member, in the form of a message's receipt."""
    state, at_ns = member["state"], member.get("at_ns")
    is_stored = state == model.STORED
    return {
        "id": cast["id"],
        "peer": member["peer"],
        "state": model.QUEUED if state in OPEN else state,
        "reason": _reason(cast, member),
        "stored_at_ns": cast["made_at_ns"],
        "receipt_at_ns": at_ns if is_stored else None,
        "elapsed_ms": max(0.001, (at_ns - cast["made_at_ns"]) / 1e6) if is_stored and at_ns else 0.0,
        "duplicate": False,
        "files": member["files"],
        "size": member["size"],
    }


def _reason(cast: Json, member: Json) -> str | None:
    if member["state"] != "sending":
        return member.get("reason")
    return f"{member['files']} of {cast['files']} files, {size(member['size'])} of {size(cast['size'])}"


def casts(args: Args, screen: Screen, client: Client, form: str) -> int:
    """All casts, with their members."""
    found = client.call("FileCasts")["casts"]
    if form == "json":
        for each in found:
            screen.json({**each, "made_at": rfc3339(each["made_at_ns"])})
        return 0
    rows = [_row(each, member) for each in found for member in each["members"]]
    if rows:
        tables.show(screen, HEADS, rows)
    else:
        screen.write("no casts\n")
    return 0


def _row(cast: Json, member: Json) -> list[str]:
    state, reason = field(member["state"]), field(_reason(cast, member) or "")
    group, peer = "@" + field(cast["group"]), field(member["peer"])
    return [cast["id"], group, str(cast["files"]), size(cast["size"]), peer, state, reason]


def cancel(args: Args, screen: Screen, client: Client, form: str) -> int:
    """End a cast."""
    ended = client.call("FileCastCancel", id=plain(args.words[0])).get("cast")
    if ended is None:
        if form != "json":
            screen.write("it had not begun: what was handed over is removed\n")
        return 0
    shown = matrix.Shown(screen, form, "@" + ended["group"], model.STORED, is_quiet=False, is_live=False)
    _show(ended, shown, len(ended["members"]))
    shown.end()
    return 0


HANDLERS = {"file cast": cast, "file casts": casts, "file cancel": cancel}
