"""msgd: reads its configuration, builds the parts, runs the supervisor.

How everything is joined can be read in `_serve`. Exit codes: 0 after an orderly stop, 1 unexpected, 2 usage,
74 the disk failed under a promise, 78 configuration, key or state cannot be used. After 74 and 78 only a
person should start it again.
"""

import argparse
import os
import resource
import sys

from msgd import __version__, background, checking, children, journal, systemd
from msgd.config import Config, is_system, load, reloadable_difference
from msgd.errors import OK, ConfigError, MsgdError
from msgd.listening import Listener, listeners
from msgd.meeting import rehearse
from msgd.node import node_of
from msgd.supervisor import Supervisor
from msgd.trust import identity

HELP = """\
The daemon that gets messages from this node to its peers, and keeps them on both disks. systemd runs it
(`systemctl start msgd`); without systemd, `msgd --daemon`. Use msgctl to talk to it.

Configuration: /etc/msgd/msgd.toml and msgd.d/*.toml beside it; for a user's own, $XDG_CONFIG_HOME/msgd/.
State: $STATE_DIRECTORY or /var/lib/msgd; for a user's own, $XDG_STATE_HOME/msgd.
Signals: SIGTERM stops orderly, SIGHUP reads the configuration again.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run msgd; returns the exit code."""
    background.open_standard_fds()
    options = _parser().parse_args(arguments)
    if options.config:
        options.config = os.path.abspath(options.config)  # a reload in the background reads it from "/"
    try:
        config = load(options.config, os.environ, os.geteuid())
        if options.check_config:
            checking.check(config, options.config is None and is_system(os.environ, os.geteuid()))
            print("The configuration is good.")
            return OK
        return _run(options, config)
    except MsgdError as error:
        print(f"msgd: {error.message}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return error.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="msgd", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="read this file (and msgd.d/*.toml beside it)")
    parser.add_argument("--check-config", action="store_true", help="check the configuration and end")
    parser.add_argument("--daemon", action="store_true", help="go to the background once it is ready")
    parser.add_argument("--pid-file", metavar="FILE", help="with --daemon (default: STATE/msgd.pid)")
    parser.add_argument("--log-file", metavar="FILE", help="with --daemon: events (default: STATE/msgd.out)")
    parser.add_argument("--version", action="version", version=f"msgd {__version__}")
    return parser


def _run(options: argparse.Namespace, config: Config) -> int:
    passed = systemd.listen_fds()
    _make_state(config.state)
    if not options.daemon:
        journal.setup(config.log_level)
        return _serve(options, config, passed, None)
    pid_file = background.PidFile(options.pid_file or os.path.join(config.state, "msgd.pid"))
    pid_file.acquire()
    log_file = options.log_file or os.path.join(config.state, "msgd.out")
    waiting = background.detach(pid_file, log_file, [sock.fileno() for _, sock in passed])
    journal.setup(config.log_level)
    pid_file.tell_stale()
    try:
        return _serve(options, config, passed, waiting)
    except MsgdError as error:
        waiting.failed(error)
        raise


def _serve(
    options: argparse.Namespace,
    config: Config,
    passed: list[Listener],
    waiting: background.Background | None,
) -> int:
    """Build the parts and run until the end."""
    _raise_fd_limit()
    os.umask(0o077)

    def load_key() -> identity.NodeKey:
        return identity.load_or_create(config.state, os.environ.get("CREDENTIALS_DIRECTORY"))

    node = node_of(config, load_key())
    children.prepare("msgd")

    def warm_up() -> None:
        rehearse(node)
        children.freeze()
        children.fill_gaps()

    def reload() -> Config:
        new = load(options.config, os.environ, os.geteuid())
        for name in reloadable_difference(config, new):
            journal.event("setting.ignored", key=name)
        return new

    supervisor = Supervisor(
        config,
        node,
        lambda: listeners(config, passed),
        systemd.Notifier(),
        reload,
        load_key,
        warm_up,
        waiting.ready if waiting else lambda: None,
    )
    supervisor.unlink_socket = all(name != "control" for name, _ in passed)
    return supervisor.run()


def _make_state(path: str) -> None:
    """The state directory: made, ours, closed to others. Raises ConfigError."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(
            f"Cannot make the state directory {path}: {error.strerror}.",
            "Correct `state` in the configuration, or make it for this user.",
        ) from error
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"The state directory {path} belongs to uid {status.st_uid}, expected uid {os.geteuid()}.",
            "Start msgd as its owner, or correct `state` in the configuration.",
        )
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigError(f"The state directory {path} cannot be written.", "Is its disk mounted read-only?")


def _raise_fd_limit() -> None:
    """As many descriptors as we may have: the log process holds one for every link and client."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
