"""`python -m tests.bench [PART …] [--rounds N] [--messages N] [--kept DIRECTORY]`: all parts, or those named.

Histories are made once, below a temporary directory, for all parts that want them. `--kept`: take copies of
those that `python -m tests.bench.making DIRECTORY 10000 1000000 10000000` made before.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import aging, consuming, files, history, indexing, processes, traffic
from tests.bench.histories import Histories

Part = Callable[[Histories, Path, int], None]
PARTS: dict[str, Part] = {
    "traffic": lambda _, directory, rounds: traffic.run(directory, rounds),
    "history": history.run,
    "memory": processes.run,
    "index": lambda *_: indexing.run(),
    "aging": aging.run,
    "files": lambda _, directory, rounds: files.run(directory, rounds),
    "consuming": lambda _, directory, rounds: consuming.run(directory, rounds),
}


def main() -> None:
    args = _arguments()
    with tempfile.TemporaryDirectory(prefix="msgd-bench-") as name:
        histories = Histories(Path(name) / "made", args.messages, args.kept)
        for part in args.parts or PARTS:
            directory = Path(name) / part
            directory.mkdir()
            PARTS[part](histories, directory, args.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=10_000_000, help="of the long history")
    parser.add_argument("--kept", type=Path, help="take copies of these histories")
    args = parser.parse_args()
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"{part}: expected {', '.join(PARTS)}")
    return args


if __name__ == "__main__":
    main()
