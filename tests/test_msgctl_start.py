"""What starting msgctl costs: which modules a plain `send` and `log` import, and how long a process lives."""

import compileall
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control_server import ControlServer, control_server
from tests.require import REPOSITORY

HEAVY = {
    "argparse", "re", "enum", "dataclasses", "typing", "collections", "functools", "json", "socket",
    "selectors", "subprocess", "logging", "datetime", "uuid", "base64", "ssl", "inspect", "asyncio",
    "tempfile", "shutil", "msgspec", "rich", "structlog", "cryptography", "setproctitle",
}  # fmt: skip
FAST_PATHS = {
    "send": ["send", "node3", "hola"],
    "send stdin": ["send", "node3", "-", "--wait=queued", "--ttl=2h", "-H", "a=b", "-o", "json"],
    "log": ["log"],
    "log filtered": ["log", "-n", "5", "-S", "yesterday", "-U", "12:00", "-o", "json"],
}
# Not the virtual environment's: an editable install there makes an empty program itself twice as slow.
PLAIN_PYTHON = getattr(sys, "_base_executable", sys.executable)
PROGRAM = """
import sys
before = set(sys.modules)
from msgctl.cli import main
code = main()
print(code, *sorted(set(sys.modules) - before), file=sys.stderr)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    with control_server(tmp_path) as running:
        running.keep("node3", {"text": "kept before"})
        yield running


@pytest.mark.parametrize("words", FAST_PATHS.values(), ids=FAST_PATHS)
def test_plain_send_and_log_import_nothing_heavy(server: ControlServer, words: list[str]) -> None:
    """And of the daemon's package only the light modules that are written for it."""
    command = [sys.executable, "-c", PROGRAM, "--socket", server.path, *words]
    done = subprocess.run(
        command, cwd=REPOSITORY, input="hola", capture_output=True, text=True, timeout=30, check=True
    )
    code, *modules = done.stderr.split()
    assert code == "0" and done.stdout
    assert set(modules) & HEAVY == set()
    ours = {name for name in modules if name.split(".")[0] == "msgd"}
    assert ours == {"msgd", "msgd.amounts", "msgd.errors", "msgd.model", "msgd.wire", "msgd.wire.varlink"}


def test_lines_import_nothing_heavy(server: ControlServer) -> None:
    """`send --lines` is no heavier."""
    command = [sys.executable, "-c", PROGRAM, "--socket", server.path, "send", "-l", "node3"]
    done = subprocess.run(
        command, cwd=REPOSITORY, input="a\nb\n", capture_output=True, text=True, timeout=30, check=True
    )
    assert set(done.stderr.split()) & HEAVY == set()


@pytest.mark.slow
def test_whole_process_takes_less_than_three_empty_ones(server: ControlServer, tmp_path: Path) -> None:
    """Installed as pip does it, compiled, against `python -c pass`, turn by turn; the best of each counts."""
    library = tmp_path / "lib"
    for name in ("msgd", "msgctl"):
        shutil.copytree(REPOSITORY / name, library / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(library, quiet=2)
    script = tmp_path / "msgctl"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(library)!r})\nfrom msgctl.cli import main\nsys.exit(main())\n"
    )
    commands = {
        "pass": ["-c", "pass"],
        "send": [str(script), "--socket", server.path, "send", "node3", "hola"],
        "log": [str(script), "--socket", server.path, "log", "-n", "1"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for _ in range(12):
        for name, words in commands.items():
            began_s = time.perf_counter()
            subprocess.run(
                [PLAIN_PYTHON, *words], env=environment, stdout=subprocess.DEVNULL, timeout=30, check=True
            )
            times[name].append(time.perf_counter() - began_s)
    low = {name: statistics.median(sorted(values)[:5]) for name, values in times.items()}
    assert low["send"] < 3 * low["pass"]
    assert low["log"] < 3 * low["pass"]
