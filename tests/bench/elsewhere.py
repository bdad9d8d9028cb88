"""What else carries a file: scp and rsync through an sshd of the bench's own, with keys to throw away."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")

PRIVSEP = Path("/run/sshd")


class Sshd:
    """Who is not installed, or does not start, has `why`."""

    def __init__(self, directory: Path) -> None:
        self.why = "" if SSHD else "sshd is not installed"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._has_made = False  # the directory that sshd wants below root, and that a boot makes elsewhere
        if SSHD and os.geteuid() == 0 and not PRIVSEP.exists():
            PRIVSEP.mkdir(0o755)
            self._has_made = True
        if SSHD:
            self._start(SSHD)

    def _start(self, program: str) -> None:
        for name in ("host", "user"):
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._directory / name)]
            subprocess.run(key, check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        options = {
            "ListenAddress": f"127.0.0.1:{self._port}",
            "HostKey": self._directory / "host",
            "AuthorizedKeysFile": self._directory / "user.pub",
            "StrictModes": "no",
            "PidFile": "none",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "Subsystem": "sftp internal-sftp",
        }
        words = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
        log = self._directory / "sshd.log"
        command = [program, "-D", "-e", "-f", "/dev/null", *words]
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        while not self._listens():
            if self._process.poll() is not None:
                self.why = f"sshd does not start: {log.read_text().strip()[-200:]}"
                return
            time.sleep(0.01)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """No more connections."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        if self._has_made:
            PRIVSEP.rmdir()

    def why_not(self, tool: str) -> str:
        """Why this tool cannot be measured; empty: it can."""
        return self.why or ("" if shutil.which(tool) else f"{tool} is not installed")

    def copy_mib_s(self, tool: str, source: Path, to: Path, mib: int) -> float:
        """By the time of the whole process, and until the file is on the disk."""
        to.unlink(missing_ok=True)
        options = f"-p{self._port}" if tool == "rsync" else f"-P{self._port}"
        rest = ["-i", str(self._directory / "user"), "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]  # fmt: skip
        place = f"{getpass.getuser()}@127.0.0.1:{to}"
        if tool == "rsync":
            command = ["rsync", "--whole-file", "-e", " ".join(["ssh", options, *rest]), str(source), place]
        else:
            command = ["scp", "-q", options, *rest, str(source), place]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        fd = os.open(to, os.O_RDONLY)
        os.fdatasync(fd)
        os.close(fd)
        return mib / (time.perf_counter() - began)
