"""One node of the lab: its directory, its process.

| in $MSGD_LAB_DIR/nodeK | |
|---|---|
| msgd.toml | made by `lab up`, then left alone: it may be edited |
| msgd.d/ | more settings, of the user |
| state/ control.sock | msgd's |
| msgd.out | what msgd prints |
| msgd.pid | the supervisor's process id |

A process is ours when the pid file names it and its command line or, once msgd has given itself a title
for ps, its first environment names the directory. Whatever else has that number now is never signalled.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

import msgd
from msgctl.client import Client
from msgctl.processes import Watch, descendants, proc, send_signal
from msgctl.reaching import MAX_PATH_BYTES
from msgd.errors import MsgdError, UsageError
from msgd.model import DEFAULT_PORT
from msgd.wire.varlink import Json

MARK = "# made by `msgctl lab up`; may be edited: it is not written again\n"
FRIENDS = '[files]\npeers = "write"\n'  # the nodes of a lab are one person's
FILES = ("msgd.toml", "msgd.pid", "msgd.out", "control.sock")
TREES = ("msgd.d", "state")
START_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 10.0
LOOK_AGAIN_MS = 20
SYSTEMD = (
    "NOTIFY_SOCKET",
    "LISTEN_",
    "WATCHDOG_",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
)


class Node:
    """A node by its number. Nothing is read or made before it is asked for."""

    def __init__(self, lab: str, number: int, net: str) -> None:
        self.name = f"node{number}"
        self.number = number
        self.directory = os.path.join(lab, self.name)
        self.socket = self.path("control.sock")
        self.wanted_address = f"{net}{number}:{DEFAULT_PORT}"

    def path(self, name: str) -> str:
        """A file of this node."""
        return os.path.join(self.directory, name)

    @property
    def address(self) -> str:
        """Where it listens, by its configuration."""
        import tomllib

        try:
            with open(self.path("msgd.toml"), "rb") as reader:
                listen = tomllib.load(reader).get("listen", "?")
        except (OSError, tomllib.TOMLDecodeError):
            return "?"
        return str(listen[0] if isinstance(listen, list) and listen else listen)

    def client(self) -> Client:
        """A connection to its control socket."""
        return Client(self.socket, timeout_s=ANSWER_TIMEOUT_S)

    def status(self) -> Json:
        """What it says of itself and its peers."""
        with self.client() as client:
            return client.call("Status")

    # --- start ------------------------------------------------------------------------------------------

    def check_path(self) -> None:
        """Raises UsageError where no socket fits."""
        size = len(os.fsencode(self.socket))
        if size > MAX_PATH_BYTES:
            raise UsageError(
                f"{self.socket} has {size} bytes; a socket's path has at most {MAX_PATH_BYTES}",
                "set MSGD_LAB_DIR to a shorter directory",
            )

    def make(self) -> None:
        """Its directory and configuration, where they are not there yet."""
        os.makedirs(self.path("msgd.d"), exist_ok=True)
        if os.path.exists(self.path("msgd.toml")):
            return
        values = {
            "name": self.name,
            "listen": self.wanted_address,
            "state": self.path("state"),
            "socket": self.socket,
        }
        lines = [
            f"{key} = {json.dumps(value)}\n" for key, value in values.items()
        ]  # a TOML string is like JSON's
        _replace(self.path("msgd.toml"), MARK + "".join(lines) + FRIENDS)

    def start(self) -> int:
        """Start msgd in a session of its own; its process id. Does not wait for it."""
        config = self.path("msgd.toml")
        with open(self.path("msgd.out"), "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "msgd", "--config", config],
                cwd=os.path.dirname(os.path.dirname(os.path.abspath(msgd.__file__))),  # where -m finds it
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _replace(self.path("msgd.pid"), f"{process.pid}\n")
        process.returncode = 0  # it outlives us: nobody is to wait for it or to warn of it
        return process.pid

    def _environment(self) -> dict[str, str]:
        """Ours, without what systemd told our own unit, and with the mark that `is_ours` looks for."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(SYSTEMD)}
        return {**ours, "MSGD_LAB_NODE": self.directory}

    def wait_answer(self, pid: int) -> Json:
        """Its Status as soon as it gives one. Raises MsgdError with the end of its output."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        with Watch([pid]) as watch:
            while True:
                try:
                    return self.status()
                except MsgdError as exc:
                    if watch.ended(LOOK_AGAIN_MS):
                        raise self._failed("ended at once") from None
                    if time.monotonic() > deadline_s:
                        raise self._failed(f"does not answer after {START_TIMEOUT_S:.0f} s ({exc})") from None

    def _failed(self, what: str) -> MsgdError:
        tail = "".join(f"\n    {line}" for line in self.tail())
        return MsgdError(f"{self.name} {what}; the end of {self.path('msgd.out')}:{tail}")

    def tail(self, lines: int = 8) -> list[str]:
        """The end of what it printed."""
        try:
            with open(self.path("msgd.out"), encoding="utf-8", errors="backslashreplace") as reader:
                return [line.rstrip() for line in reader.readlines()[-lines:]]
        except OSError:
            return []

    # --- the process ------------------------------------------------------------------------------------

    def pid(self) -> int | None:
        """The process id of its running supervisor, or None."""
        try:
            with open(self.path("msgd.pid"), encoding="ascii") as reader:
                pid = int(reader.read(32))
        except (OSError, ValueError):
            return None
        return pid if self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        words = proc(pid, "cmdline")
        if os.fsencode(self.path("msgd.toml")) in words and b"--config" in words:
            return True
        mark = os.fsencode(f"MSGD_LAB_NODE={self.directory}")
        return words[:1] != [] and words[0].startswith(b"msgd") and mark in proc(pid, "environ")

    def remove(self) -> bool:
        """Remove what `lab up` and msgd made; whether nothing of anybody else is left in the directory."""
        import shutil

        try:
            with open(self.path("msgd.toml"), encoding="utf-8", errors="replace") as reader:
                if reader.read(len(MARK)) != MARK:
                    return False
        except OSError:
            return False
        for name in TREES:
            shutil.rmtree(self.path(name), ignore_errors=True)
        for name in reversed(FILES):  # the configuration, which says that it is ours, goes last
            try:
                os.unlink(self.path(name))
            except OSError:
                pass
        try:
            os.rmdir(self.directory)
        except OSError:
            return False
        return True


def stop(nodes: Iterable[Node], timeout_s: float) -> tuple[list[Node], list[Node]]:
    """End the running ones of these nodes, SIGTERM first; who ran, and who had to be killed.

    Returns when their children are gone as well, or after twice the time.
    """
    running = [(node, pid) for node in nodes if (pid := node.pid()) is not None]
    everyone = [pid for _, supervisor in running for pid in (supervisor, *descendants(supervisor))]
    with Watch([pid for _, pid in running]) as supervisors, Watch(everyone) as watch:
        for _, pid in running:
            send_signal(pid, signal.SIGTERM)
        late = supervisors.wait(timeout_s)
        for pid in late:
            send_signal(pid, signal.SIGKILL)
        watch.wait(timeout_s)
    return [node for node, _ in running], [node for node, pid in running if pid in late]


def _replace(path: str, text: str) -> None:
    new = path + ".new"
    with open(new, "w", encoding="utf-8") as writer:
        writer.write(text)
    os.replace(new, path)
