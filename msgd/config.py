"""Settings: read from TOML, checked key by key, frozen.

| | for the system | for a user |
|---|---|---|
| file | /etc/msgd/msgd.toml | $XDG_CONFIG_HOME/msgd/msgd.toml |
| state | $STATE_DIRECTORY, else /var/lib/msgd | $STATE_DIRECTORY, else $XDG_STATE_HOME/msgd |
| socket | $RUNTIME_DIRECTORY, else /run/msgd, /control.sock | $XDG_RUNTIME_DIR/msgd/control.sock |

"For the system" is uid 0, or a service of systemd's system manager: it sets $STATE_DIRECTORY and, unlike
a user's manager, no $XDG_RUNTIME_DIR. `--config FILE` replaces the file's place; `msgd.d/*.toml` beside
the file are read after it, by name, and a later value wins. A default file need not exist; a named one must.

Each key is declared once, below, with type, range and meaning; its description there is also what an
error says was expected (`msgd.settings` does the checking).

Left out: identities (they live in the log), and expansion of `~` and variables.
"""

import ipaddress
import os
import pwd
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from msgd.amounts import Duration, Size
from msgd.errors import ConfigError
from msgd.model import DEFAULT_PORT, MAX_NAME, NAME_LETTERS, is_name
from msgd.settings import Settings

SUN_PATH_BYTES = 107  # what fits into sockaddr_un, less the final zero
NOT_RELOADABLE = ("name", "listen", "state", "socket")
MIB = 1 << 20
ALL = "all"  # the group of every peer
ADDRESS = re.compile(r"(\[(?P<v6>[^\[\]]+)\]|(?P<name>[^:\[\]\s/]+))(:(?P<port>\d{1,5}))?")


def whole(low: int, high: int) -> Meta:
    """A whole number within limits."""
    return Meta(ge=low, le=high, description=f"a whole number from {low} to {high}")


def seconds(low: float, high: float) -> Meta:
    """Seconds, fractions allowed, within limits."""
    return Meta(ge=low, le=high, description=f"seconds from {low:g} to {high:g}")


class Address:
    """Where a node can be reached: a host, by name or by IP (no brackets), and a TCP port."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int = DEFAULT_PORT) -> None:
        self.host = host
        self.port = port

    @classmethod
    def parse(cls, text: str) -> Self:
        """'192.168.1.5', '192.168.1.5:6743', 'node3.example', '[::1]:6743', '::1'. Raises ValueError."""
        match = ADDRESS.fullmatch(text)
        if match and match["name"]:
            host = match["name"]
        else:
            host = str(ipaddress.IPv6Address(match["v6"] if match else text))
        port = int(match["port"] or DEFAULT_PORT) if match else DEFAULT_PORT
        if port > 65535:
            raise ValueError(f"port {port} is above 65535")
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and (self.host, self.port) == (other.host, other.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))


class ListenAddress(Address):
    """Where this node listens: an IP of this machine, since a name may mean several."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        address = super().parse(text)
        ipaddress.ip_address(address.host)
        return address


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[limits]: what one peer, client or stranger may take of this node."""

    # A peer's link: sent, receipt not yet here. Bounds what a reconnect sends again.
    window_bytes: Annotated[int, whole(MIB, 1024 * MIB)] = 8 * MIB
    window_batches: Annotated[int, whole(1, 65536)] = 1024
    # A silent link is asked after this time, and given up when nothing at all came for link_dead_s.
    keepalive_s: Annotated[float, seconds(0.1, 3600)] = 5.0
    link_dead_s: Annotated[float, seconds(0.3, 86400)] = 15.0
    # Between a failed try to reach a peer and the next one, at most.
    backoff_max_s: Annotated[float, seconds(0.1, 3600)] = 30.0
    # Strangers: from connection to a checked hello; how many at once, and from one address.
    handshake_s: Annotated[float, seconds(0.1, 600)] = 10.0
    unauthenticated: Annotated[int, whole(1, 4096)] = 64
    per_source: Annotated[int, whole(1, 4096)] = 4
    # Places above `unauthenticated` for addresses of known peers, so that strangers cannot shut them out.
    reserved_for_peers: Annotated[int, whole(0, 4096)] = 16
    # Connections to the control socket, for each local user.
    control_per_uid: Annotated[int, whole(1, 4096)] = 64
    # How long a disk may hold one fdatasync before msgd lets systemd's watchdog end it.
    watchdog_stall_s: Annotated[float, seconds(1, 86400)] = 120.0
    # A log segment is sealed at this size. Recovery reads one segment.
    segment_bytes: Annotated[int, whole(2 * MIB, 1024 * MIB)] = 64 * MIB


Who = Annotated[
    str,
    Meta(pattern=r"\A%?[^%\s:,]+\Z", description='a user, as "eva", or a group, as "%msgd"'),
]

Rule = Annotated[tuple[Who, ...], Meta(description='a list of users, as "eva", and groups, as "%msgd"')]


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[access]: which local users and groups may do what. Root and msgd's own user may do everything."""

    # Send messages, cancel their own and others', retry.
    send: Rule = ("%msgd",)
    # Read messages, of all users.
    history: Rule = ("%msgd",)
    # Decide who becomes a peer: accept, reject, invite, join, add.
    pair: Rule = ("%msgd",)
    # List, get, put, copy and remove files, of this node's store and of peers' where they permit it.
    files: Rule = ("%msgd",)
    # Everything else that changes this node: remove, block, rename peers, rotate the key, recover, reload.
    admin: Rule = ("%msgd",)


class Pairing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[pairing]: how unknown nodes are met."""

    # confirm: a person compares words on both sides. first-use: who answers at an address that somebody
    # here sends to is accepted on this side without asking. known-only: only `peer add` and invitations.
    trust: Annotated[
        Literal["confirm", "first-use", "known-only"],
        Meta(description='"confirm", "first-use" or "known-only"'),
    ] = "confirm"
    # How long a message to an address that was never paired waits.
    hold_s: Annotated[float, seconds(1, 366 * 86400)] = 86400.0


class History(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[history]: how long messages are kept, and how. What is not final is kept in any case."""

    # Segments of the log of which every record is older than this go by themselves. Default: none do.
    keep_time: Annotated[
        Duration | None, Meta(description='how long to keep messages, as "90d", "12h" or "2 years"')
    ] = None
    # The oldest segments go by themselves while the log is larger than this. Default: none do.
    keep_size: Annotated[
        Size | None, Meta(description='how large the log may become, as "10G" or "500M"')
    ] = None
    # Keep an index of words for `msgctl log --search`. Costs disk and time in the background.
    search: Annotated[bool, Meta(description="true or false")] = False


FilesRight = Annotated[Literal["none", "read", "write"], Meta(description='"none", "read" or "write"')]
FilesRightOrNone = Annotated[
    Literal["none", "read", "write"] | None, Meta(description='"none", "read" or "write"')
]
Quota = Annotated[Size | None, Meta(description='how much one peer may put there, as "10G" or "500M"')]


class Files(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[files]: this node's store, and what peers may do in it. For one of them: [peer.NAME]."""

    # The directory of the store. Default: files in `state`.
    store: Annotated[
        Annotated[str, Meta(pattern=r"\A/[^\0]*\Z")] | None, Meta(description="an absolute path")
    ] = None
    # What a peer without a setting of its own may do: nothing, list and get, or also put, copy and remove.
    peers: FilesRight = "none"
    # How many bytes of files one peer may put. Default: no limit but the disk's.
    quota: Quota = None


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[peer.NAME]: settings of a peer that is paired, or will be."""

    # Where to dial it, instead of the address known from pairing. The host may be a name.
    address: Annotated[Address | None, Meta(description='"HOST" or "HOST:PORT"')] = None
    # What it may do in this node's store. Default: what [files] says.
    files: FilesRightOrNone = None
    # How many bytes it may put there, as [files] quota.
    quota: Quota = None


NodeName = Annotated[
    str,
    Meta(pattern=rf"\A[a-z0-9-]{{1,{MAX_NAME}}}\Z", description=f"1 to {MAX_NAME} of a-z, 0-9 and '-'"),
]
AbsolutePath = Annotated[str, Meta(pattern=r"\A/[^\0]*\Z", description="an absolute path")]
ListenAddresses = Annotated[
    tuple[ListenAddress, ...],
    Meta(description='"IP" or "IP:PORT", as "0.0.0.0:6743" or "[::]:6743", or a list of them'),
]
HookName = Annotated[
    str,
    Meta(
        pattern=rf"\A[a-z0-9-]{{1,{MAX_NAME - 5}}}\Z",
        description=f"1 to {MAX_NAME - 5} of a-z, 0-9 and '-'",  # hook-NAME is a name, too
    ),
]
GroupName = Annotated[
    str,
    Meta(
        pattern=rf"\A(?!all\Z)[a-z0-9-]{{1,{MAX_NAME}}}\Z",
        description=f"1 to {MAX_NAME} of a-z, 0-9 and '-', and not {ALL}, which is every peer",
    ),
]


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[group.NAME]: peers that `msgctl send @NAME` sends to."""

    # By name, as the peers are called here; this node's own name stands for nobody.
    peers: Annotated[tuple[NodeName, ...], Meta(description='a list of names, as ["node2", "node3"]')] = ()


class Hook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[hook.NAME]: a command that is run for each message that comes, as the consumer hook-NAME."""

    # Only messages from this peer, of this kind. Default: of every peer; every kind but result and control.
    peer: Annotated[NodeName | None, Meta(description="the name of a peer")] = None
    kind: Annotated[
        Literal["text", "file", "call", "result", "ring"] | None,
        Meta(description='"text", "file", "call", "result" or "ring"'),
    ] = None
    # The program, by its whole path, and its arguments. Never a shell.
    command: Annotated[
        tuple[str, ...], Meta(description='a list, as ["/usr/local/bin/print", "--now"], with a whole path')
    ] = ()
    # Whom to run it as. Default: as msgd itself. Another one needs root, or packaging/msgd-exec.conf.
    user: Annotated[
        Annotated[str, Meta(pattern=r"\A[^\s:/\0]+\Z")] | None, Meta(description='a user, as "eva"')
    ] = None
    # One run: then it is ended, and has failed.
    timeout: Annotated[Duration, Meta(description='how long one run may take, as "60s" or "2h"')] = Duration(
        "60s", 60_000_000_000
    )
    # A message for which it has failed so often is set aside. Default: it is tried for ever.
    max_attempts: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="a whole number from 1")] = (
        None
    )
    # Where it begins when it is new: at the oldest message that is kept, or behind the newest.
    start: Annotated[Literal["oldest", "now"], Meta(description='"oldest" or "now"')] = "oldest"


LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], Meta(description='"debug", "info", "warning" or "error"')
]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a person may set, complete with defaults."""

    # What this node proposes to be called. Default: the first label of the host name, made legal.
    name: NodeName
    # Where peers reach it. An empty list: it only dials.
    listen: ListenAddresses = (ListenAddress("0.0.0.0"),)
    # The directory of log, index and key.
    state: AbsolutePath
    # The control socket.
    socket: AbsolutePath
    # The lowest level of events that is written.
    log_level: LogLevel = "info"
    limits: Limits = Limits()
    access: Access = Access()
    pairing: Pairing = Pairing()
    history: History = History()
    peer: dict[NodeName, PeerSettings] = {}
    group: dict[GroupName, Group] = {}
    hook: dict[HookName, Hook] = {}
    files: Files = Files()

    @property
    def store(self) -> str:
        """The directory of the node's files."""
        return self.files.store or os.path.join(self.state, "files")

    def files_right(self, peer: str) -> str:
        """What this peer may do in the store: none, read or write."""
        settings = self.peer.get(peer)
        return (settings.files if settings else None) or self.files.peers

    def files_quota(self, peer: str) -> int | None:
        """How many bytes this peer may put; None: as many as there is room for."""
        settings = self.peer.get(peer)
        quota = (settings.quota if settings else None) or self.files.quota
        return quota.bytes if quota is not None else None


def load(path: str | None, env: Mapping[str, str], uid: int) -> Config:
    """The settings of `--config` `path`, or of the default file if None. Raises ConfigError.

    A relative `path` is taken from the working directory of the moment.
    """
    settings = Settings(_defaults(env, uid))
    for file in files(path, env, uid):
        settings.read(file)
    if isinstance(listen := settings.table.get("listen"), str):
        settings.table["listen"] = [listen]
    _check_name(settings)
    config = settings.build(Config, _parse)
    _check_together(config, settings)
    return config


def _parse(kind: Any, text: Any) -> Any:
    if not isinstance(text, str):
        raise TypeError("not a text")
    return kind.parse(text)  # Address, ListenAddress, Duration, Size


def reloadable_difference(old: Config, new: Config) -> list[str]:
    """Which changed keys a reload does not apply: they need a restart."""
    return [key for key in NOT_RELOADABLE if getattr(old, key) != getattr(new, key)]


def _check_name(settings: Settings) -> None:
    """A wrong name is what people meet first, so the error offers a right one."""
    name = settings.table["name"]
    if isinstance(name, str) and not is_name(name):
        rule = f"1 to {MAX_NAME} of a-z, 0-9 and '-'"
        raise settings.wrong("name", name, rule, hint=f'Near it and legal: name = "{default_name(name)}"')


def _check_together(config: Config, settings: Settings) -> None:
    """What the type of a single key cannot say."""
    if len(os.fsencode(config.socket)) > SUN_PATH_BYTES:
        raise settings.wrong("socket", config.socket, f"a path of at most {SUN_PATH_BYTES} bytes")
    for name, hook in config.hook.items():
        command = f"hook.{name}.command"
        if not hook.command or not hook.command[0].startswith("/") or "\0" in "".join(hook.command):
            expected = 'a program by its whole path, and its arguments: ["/usr/local/bin/print", "--now"]'
            raise settings.wrong(command, list(hook.command), expected)
    limits = config.limits
    if limits.link_dead_s < 2 * limits.keepalive_s:
        least = f"at least twice limits.keepalive_s, which is {limits.keepalive_s:g}"
        raise settings.wrong("limits.link_dead_s", limits.link_dead_s, least)


# Where things are.


def is_system(env: Mapping[str, str], uid: int) -> bool:
    """Whether msgd serves the whole machine rather than one user."""
    return uid == 0 or bool(env.get("STATE_DIRECTORY") and not env.get("XDG_RUNTIME_DIR"))


def _defaults(env: Mapping[str, str], uid: int) -> dict[str, Any]:
    state = env.get("STATE_DIRECTORY", "").split(":")[0]
    if is_system(env, uid):
        run = env.get("RUNTIME_DIRECTORY", "").split(":")[0] or "/run/msgd"
        state = state or "/var/lib/msgd"
    else:
        run = os.path.join(env.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}", "msgd")
        state = state or os.path.join(_xdg(env, uid, "XDG_STATE_HOME", ".local/state"), "msgd")
    return {"name": default_name(os.uname().nodename), "state": state, "socket": f"{run}/control.sock"}


def _xdg(env: Mapping[str, str], uid: int, key: str, default: str) -> str:
    """A base directory; the XDG specification says to ignore a relative one."""
    given = env.get(key, "")
    return given if given.startswith("/") else os.path.join(env.get("HOME") or _home(uid), default)


def _home(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        raise ConfigError(f"user {uid} has no home directory", "Set HOME, or use --config FILE.") from None


def default_name(host: str) -> str:
    """A legal node name from a host name: 'Büro_3.example.org' gives 'b-ro-3'."""
    label = host.lower().split(".")[0]
    name = "".join(c if c in NAME_LETTERS else "-" for c in label).strip("-")[:MAX_NAME].strip("-")
    return name or "node"


def default_file(env: Mapping[str, str], uid: int) -> str:
    """The file that is read without `--config`."""
    home = "/etc" if is_system(env, uid) else _xdg(env, uid, "XDG_CONFIG_HOME", ".config")
    return os.path.join(home, "msgd", "msgd.toml")


def files(path: str | None, env: Mapping[str, str], uid: int) -> list[str]:
    """The files to read, in order: those that exist. Raises ConfigError when the named one does not."""
    main = default_file(env, uid) if path is None else path
    found = [main] if path is not None or os.path.lexists(main) else []
    parts = os.path.join(os.path.dirname(main), "msgd.d")
    try:
        names = sorted(name for name in os.listdir(parts) if name.endswith(".toml") and name[0] != ".")
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise ConfigError(f"{parts}: cannot be read: {error.strerror}") from error
    return found + [os.path.join(parts, name) for name in names]
