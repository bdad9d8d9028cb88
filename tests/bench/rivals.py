"""The same messages elsewhere: a journal that systemd wrote, for journalctl, and lines of JSON, for grep."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import IO

import msgspec

WRITER = "/lib/systemd/systemd-journal-remote"
BOOT = "0123456789abcdef0123456789abcdef"


class Line(msgspec.Struct, gc=False):
    """What a journal keeps of a message as `msgctl log -o json` prints it."""

    id: str
    peer: str
    direction: str
    seq: int
    state: str
    stored_at_ns: int
    text: str


_decode = msgspec.json.Decoder(Line).decode


class Journal:
    """A journal of the messages in a file of JSON lines."""

    def __init__(self, lines: Path, directory: Path) -> None:
        """Write it; `messages` stays 0 where the tools are not installed."""
        self.messages = 0
        self.seconds = 0.0
        self.bytes = 0
        directory.mkdir()
        self._files = f"{directory}/*.journal"
        if not Path(WRITER).exists() or not shutil.which("journalctl"):
            return
        began_s = time.monotonic()
        command = [WRITER, "--split-mode=none", f"--output={directory}/all.journal", "-"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            assert writer.stdin is not None
            self.messages = _export(lines, writer.stdin)
            writer.stdin.close()
        self.seconds = time.monotonic() - began_s
        self.bytes = sum(file.stat().st_blocks * 512 for file in directory.glob("*.journal"))

    def __str__(self) -> str:
        if not self.messages:
            return "journalctl or systemd-journal-remote: not installed"
        rate, size = self.messages / self.seconds, self.bytes / self.messages
        return f"journal of {self.messages:,} messages: written at {rate:,.0f}/s, {size:.0f} bytes a message"

    def command(self, *words: str) -> list[str] | None:
        """journalctl with these options; None where there is no journal."""
        return ["journalctl", f"--file={self._files}", "--no-pager", "-q", *words] if self.messages else None


class Lines:
    """The JSON lines of a history in a file, for grep."""

    def __init__(self, dump: list[str], path: Path) -> None:
        self.path = path
        with path.open("wb") as out:
            subprocess.run(dump, stdout=out, check=True)

    def grep(self, text: str, last: int) -> list[str]:
        """The last lines in which `text` stands."""
        return ["sh", "-c", 'grep -F -e "$0" "$1" | tail -n "$2"', text, str(self.path), str(last)]


def _export(lines: Path, out: IO[bytes]) -> int:
    """Write the journal export format (systemd.io/JOURNAL_EXPORT_FORMATS); the number of entries."""
    count = 0
    with lines.open("rb") as source:
        for count, line in enumerate(source, 1):
            m = _decode(line)
            at_us = m.stored_at_ns // 1000
            out.write(
                f"__REALTIME_TIMESTAMP={at_us}\n__MONOTONIC_TIMESTAMP={count}\n_BOOT_ID={BOOT}\n"
                f"PRIORITY=6\nSYSLOG_IDENTIFIER=msgd\nPEER={m.peer}\nDIRECTION={m.direction}\n"
                f"STATE={m.state}\nSEQ={m.seq}\nMSG_ID={m.id}\nMESSAGE={m.text}\n\n".encode()
            )
    return count
