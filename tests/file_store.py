"""A store of files behind the control server of msgctl's tests: the daemon's answers, from memory."""

import fnmatch
import hashlib
import os
import stat
from typing import Any

from msgd.wire.varlink import Call
from tests.control_server import Connection, ControlServer

MTIME_NS = 1_795_262_400_123_456_789


class FileStore:
    """`files`: content by name, of directories in which there is nothing with "/" at the end. `breaks`: how
    many calls lose their connection behind their first file."""

    def __init__(self, server: ControlServer) -> None:
        self.server = server
        self.files: dict[str, bytes] = {}
        self.executable: set[str] = set()
        self.refused: dict[str, str] = {}  # name -> the name of the error
        self.put: list[tuple[str, str]] = []  # (transfer, name) as they came
        self.have: dict[str, int] = {}  # of what was got: what the client had already
        self.calls: list[int] = []  # files in each FilePut or FileGet
        self.breaks = 0
        self.uncertain = 0  # how many lists are answered so
        server.script.update(FileList=self._list, FileDup=self._dup, FileRemove=self._rm)
        server.script.update(FilePut=self.answer_put, FileGet=self._get)

    def result(self, index: int, name: str) -> dict[str, Any]:
        """As the daemon tells it."""
        if name in self.refused:
            error = {"name": self.refused[name], "message": f"{name} is refused.", "hint": "Do not."}
            return {"index": index, "name": name, "error": error}
        content = self.files[name]
        digest = hashlib.sha256(content).hexdigest()
        told = {"index": index, "name": name, "size": len(content), "sha256": digest, "mtime_ns": MTIME_NS}
        return {**told, "executable": name in self.executable, "message": f"id-of-{name}"}

    def _list(self, connection: Connection, call: Call) -> None:
        if self.uncertain:
            self.uncertain -= 1
            connection.error("Uncertain")
            return
        pattern = call.parameters.get("pattern") or ""
        names = sorted(n for n in self.files if _fits(n, pattern))
        if pattern and not names and "*" not in pattern:
            connection.error("UnknownFile", f"no file {pattern}")
            return
        half = len(names) // 2
        connection.reply({"entries": [self._entry(n) for n in names[:half]]}, continues=True)
        connection.reply({"entries": [self._entry(n) for n in names[half:]]})

    def _entry(self, name: str) -> dict[str, Any]:
        known = self.result(0, name) if name not in self.refused else {"size": 0, "mtime_ns": 0}
        told = {"directory": name.endswith("/"), "executable": False, "sha256": None, **known}
        return {**told, "name": name.rstrip("/")}

    def answer_put(self, connection: Connection, call: Call) -> None:
        """`FilePut`."""

        def take(name: str, fd: int, given: dict[str, Any]) -> None:
            self.put.append((call.parameters["transfer"], name))
            if name.endswith("/"):
                assert stat.S_ISDIR(os.fstat(fd).st_mode)
                self.files[name] = b""
                return
            assert stat.S_ISREG(os.fstat(fd).st_mode)
            self.files[name] = os.pread(fd, 1 << 24, 0)
            if os.fstat(fd).st_mode & stat.S_IXUSR:
                self.executable.add(name)

        self._each(connection, call, take)

    def _get(self, connection: Connection, call: Call) -> None:
        def give(name: str, fd: int, given: dict[str, Any]) -> None:
            self.have[name] = given["have"]
            content = self.files[name]
            at = given["have"] if os.pread(fd, given["have"], 0) == content[: given["have"]] else 0
            os.pwrite(fd, content[at:], at)
            os.ftruncate(fd, len(content))

        self._each(connection, call, give)

    def _each(self, connection: Connection, call: Call, do: Any) -> None:
        given = call.parameters["files"]
        assert len(given) == len(connection.fds)
        self.calls.append(len(given))
        for index, (one, fd) in enumerate(zip(given, connection.fds, strict=True)):
            if one["name"] not in self.refused:
                do(one["name"], fd, one)
            progress = {"name": one["name"], "done": 1, "size": 2}
            connection.reply({"progress": progress}, continues=True)
            is_last = index == len(given) - 1
            if self.breaks and index == min(1, len(given) - 1):
                self.breaks -= 1
                connection.cut()
                return
            connection.reply({"results": [self.result(index, one["name"])]}, continues=not is_last)

    def _dup(self, connection: Connection, call: Call) -> None:
        self.files[call.parameters["new"]] = self.files[call.parameters["name"]]
        connection.reply({"progress": {"name": "x", "done": 1, "size": 2}}, continues=True)
        connection.reply({"file": self.result(0, call.parameters["new"])})

    def _rm(self, connection: Connection, call: Call) -> None:
        gone = [n for n in self.files if _fits(n, call.parameters["name"])]
        for name in gone:
            del self.files[name]
        connection.reply({"removed": len(gone), "message": "id-of-rm"})


def _fits(name: str, pattern: str) -> bool:
    return not pattern or name == pattern or name.startswith(pattern + "/") or fnmatch.fnmatch(name, pattern)
