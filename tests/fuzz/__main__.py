"""python -m tests.fuzz [--seed N] [--inputs N] [--only NAME …] [--live N]: all decoders, and a real daemon.

Prints one line per decoder and ends with 1 when one of them has a finding or grows. The same seed gives the
same inputs (their checksum is the last column), whatever runs beside it. A finding is written to build/fuzz/
as it came; `--again NAME FILE` runs it alone.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz import live
from tests.fuzz.decoders import TARGETS, run_all
from tests.fuzz.engine import Report
from tests.require import REPOSITORY

INPUTS = 1_200_000
LIVE = 10_000  # calls to the control socket; its peer port gets a part of it
MOST_GROWN = 16 << 20  # bytes; what a corpus of 4,096 inputs needs
KEPT = REPOSITORY / "build" / "fuzz"
COLUMNS = (
    f"{'decoder':14} {'inputs':>9} {'taken':>8} {'outcomes':>8} {'lines':>6} {'s':>6} {'grown':>8}  checksum"
)


def line(report: Report) -> str:
    return (
        f"{report.name:14} {report.inputs:9,} {report.accepted:8,} {report.outcomes:8,} {report.lines:6,} "
        f"{report.seconds:6.1f} {report.grown_bytes >> 10:6,} K  {report.digest:08x}"
    )


def told(reports: list[Report]) -> int:
    """What was found, for people; the exit code."""
    code = 0
    for report in reports:
        for number, finding in enumerate(report.findings):
            KEPT.mkdir(parents=True, exist_ok=True)
            file = KEPT / f"{report.name}-{number}"
            file.write_bytes(finding.data)
            print(f"\n{report.name}: {finding.text}python -m tests.fuzz --again {report.name} {file}")
            code = 1
        if report.grown_bytes > MOST_GROWN:
            print(
                f"\n{report.name} grew by {report.grown_bytes >> 20} MiB, expected at most {MOST_GROWN >> 20}"
            )
            code = 1
    return code


def printed(reports: Iterable[Report]) -> list[Report]:
    """The same, each printed when it is there."""
    done = []
    for report in reports:
        print(line(report), flush=True)
        done.append(report)
    return done


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--seed", type=int, default=time.time_ns() % 1_000_000, help="default: another each time"
    )
    parser.add_argument(
        "--inputs", type=int, default=INPUTS, help=f"of all decoders together, default {INPUTS}"
    )
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS), metavar="NAME")
    parser.add_argument(
        "--live", type=int, default=LIVE, help=f"calls to a real daemon, default {LIVE}; 0: none"
    )
    parser.add_argument("--again", nargs=2, metavar=("NAME", "FILE"), help="one input, with its traceback")
    given = parser.parse_args(words)
    if given.again:
        name, file = given.again
        print(TARGETS[name].run(Path(file).read_bytes()))
        return 0
    print(f"seed {given.seed}: repeat with --seed {given.seed} --inputs {given.inputs} --live {given.live}")
    print(COLUMNS, flush=True)
    reports = printed(run_all(given.only, given.inputs, given.seed))
    if given.live:
        with tempfile.TemporaryDirectory() as directory:
            reports += printed(live.run(Path(directory), given.live, given.seed))
    code = told(reports)
    total = sum(report.inputs for report in reports)
    print(f"{total:,} inputs, {sum(len(report.findings) for report in reports)} findings")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
