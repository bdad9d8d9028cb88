"""Who is at the other end of the control socket, and what `[access]` lets them do.

Root and msgd's own user may do everything. For the others each method of the control socket belongs to one
verb of the table `VERBS`, and the setting of that name lists users and, with `%`, groups; supplementary
groups count. `any` is a method for whoever may do at least one thing.
"""

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass

from msgd.config import Access
from msgd.errors import PermissionRefused

SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h; Python has no name for it

ANY = "any"
VERBS = {
    "send": "send messages",
    "history": "read the history",
    "pair": "decide who becomes a peer",
    "files": "handle files",
    "admin": "administer this node",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int
    gids: frozenset[int]

    @property
    def user(self) -> str:
        """The user's name, or the number where there is none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


def credentials(sock: socket.socket) -> Credentials:
    """SO_PEERCRED and SO_PEERGROUPS (supplementary groups count)."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)  # Python takes no more: 256 groups
    except OSError:
        raw = b""  # a user with more: only the first group counts
    return Credentials(pid, uid, frozenset((gid, *struct.unpack(f"{len(raw) // 4}I", raw))))


def may(who: Credentials, access: Access, verb: str) -> bool:
    """Whether this user may do that: one of `VERBS`, or `any` of them."""
    if who.uid in (0, os.geteuid()):
        return True
    verbs = tuple(VERBS) if verb == ANY else (verb,)
    return any(_is_named(who, rule) for each in verbs for rule in getattr(access, each))


def check(who: Credentials, access: Access, verb: str) -> None:
    """Raises PermissionRefused, which names the user, the verb, the rule and the way out."""
    if may(who, access, verb):
        return
    if verb == ANY:
        what, name = "use msgd here", "send"
        rule = "; ".join(dict.fromkeys(_rule(access, each) for each in VERBS))
    else:
        what, name, rule = VERBS[verb], verb, _rule(access, verb)
    raise PermissionRefused(f"User {who.user} may not {what}: {rule}.", _way_out(who, access, name))


def _is_named(who: Credentials, rule: str) -> bool:
    if not rule.startswith("%"):
        return rule == who.user
    try:
        return grp.getgrnam(rule[1:]).gr_gid in who.gids
    except KeyError:
        return False


def _rule(access: Access, verb: str) -> str:
    """A setting as it stands."""
    given = getattr(access, verb)
    named = ", ".join(given) if given else "empty: only root"
    origin = "the default" if given == getattr(Access(), verb) else "as configured"
    return f"access.{verb} is {named} ({origin})"


def _way_out(who: Credentials, access: Access, verb: str) -> str:
    group = next((rule[1:] for rule in getattr(access, verb) if rule.startswith("%")), None)
    name_it = f'add "{who.user}" to {verb} under [access] in the configuration, then `msgctl reload`'
    if group is None:
        return f"As root: {name_it}."
    return f"As root: `adduser {who.user} {group}` and log in again; or {name_it}."
