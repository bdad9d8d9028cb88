"""Inputs from a seed, what they reach, what comes out of it.

    report = search(TARGETS["acceptor"], inputs=20_000, seed=7)

A decoder may refuse an input with the exceptions that its target names, and do nothing else: any other
exception is a finding, kept with its input. Repeatable: nothing but the seed and the code decides.
"""

import os
import re
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from types import CodeType, FrameType
from typing import Any

from tests.require import REPOSITORY

CORPUS = 4096  # inputs kept for further mutation
FINDINGS = 5  # of one decoder; then it is broken enough
WARM = 0.2  # of the inputs: until then memory may grow to what the decoder needs
PAGE = os.sysconf("SC_PAGE_SIZE")

_quoted = re.compile(r"['\"].*|[0-9a-f]{16,}|\d+", re.DOTALL)  # what an error says of this one input


@dataclass(frozen=True)
class Target:
    """One decoder: good inputs to begin with, how to change them, what one does with them.

    `run` says in a few words what came of an input; a refusal is one of `refusals`.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], str]
    mutate: Callable[[Random, bytes, list[bytes]], bytes]
    refusals: tuple[type[Exception], ...]
    weight: float = 1.0  # its part of all inputs


@dataclass
class Finding:
    """An exception that may not come out, and the input that brought it."""

    data: bytes
    text: str  # the traceback
    outcome: str  # what it has in common with others of its kind


@dataclass
class Report:
    """What a search did. `digest` is over all inputs: the same for the same seed and code."""

    name: str
    inputs: int = 0
    accepted: int = 0
    outcomes: int = 0
    lines: int = 0
    corpus: int = 0
    digest: int = 0
    seconds: float = 0.0
    grown_bytes: int = 0  # resident memory, since it was warm
    findings: list[Finding] = field(default_factory=list)


class Lines:
    """The lines of msgd that have run. A function of which all lines have run is not looked at again."""

    def __init__(self) -> None:
        self.seen = 0
        self._home = str(REPOSITORY / "msgd")
        self._left: dict[int, set[int]] = {}
        self._codes: list[CodeType] = []  # kept, so that no other takes its id

    def __enter__(self) -> None:
        sys.settrace(self._on_call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _on_call(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        left = self._left.get(id(code))
        if left is None:
            left = self._meet(code)
        return self._on_line if left else None

    def _on_line(self, frame: FrameType, event: str, arg: Any) -> Any:
        left = self._left[id(frame.f_code)]
        if frame.f_lineno in left:
            left.remove(frame.f_lineno)
            self.seen += 1
        return self._on_line

    def _meet(self, code: CodeType) -> set[int]:
        mine = code.co_filename.startswith(self._home)
        self._codes.append(code)
        self._left[id(code)] = {line for _, _, line in code.co_lines() if line} if mine else set()
        return self._left[id(code)]


def search(target: Target, inputs: int, seed: int) -> Report:
    """Give `inputs` inputs to a decoder; stops early after FINDINGS findings."""
    rng = Random(f"{seed} {target.name}")
    corpus, outcomes, lines = target.seeds(), dict[str, int](), Lines()
    report = Report(target.name)
    begun_s, warm_bytes = time.monotonic(), 0
    fresh = list(corpus)  # every seed runs as it is first
    for number in range(inputs):
        data = fresh.pop() if fresh else target.mutate(rng, rng.choice(corpus), corpus)
        report.digest = zlib.crc32(data, report.digest)
        seen = lines.seen
        outcome = _outcome(target, data, lines, report)
        if lines.seen > seen or outcome not in outcomes:
            outcomes[outcome] = keep(corpus, data, rng)
        elif len(data) < len(corpus[outcomes[outcome]]):
            corpus[outcomes[outcome]] = data  # the shorter, the likelier is a change where it matters
        if number == int(inputs * WARM):
            warm_bytes = resident_bytes()
        if len(report.findings) >= FINDINGS:
            break
    report.inputs = number + 1
    report.seconds = time.monotonic() - begun_s
    report.grown_bytes = max(0, resident_bytes() - warm_bytes) if warm_bytes else 0
    report.outcomes, report.lines, report.corpus = len(outcomes), lines.seen, len(corpus)
    return report


def keep(corpus: list[bytes], data: bytes, rng: Random) -> int:
    """Keep an input; a full corpus gives another one up. Its place."""
    if len(corpus) < CORPUS:
        corpus.append(data)
        return len(corpus) - 1
    place = rng.randrange(CORPUS)
    corpus[place] = data
    return place


def _outcome(target: Target, data: bytes, lines: Lines, report: Report) -> str:
    try:
        with lines:
            outcome = target.run(data)
    except target.refusals as error:
        return f"{type(error).__name__}: {_quoted.sub('#', str(error))}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = f"{type(error).__name__} at {where.filename}:{where.lineno}"
        if outcome not in {finding.outcome for finding in report.findings}:
            report.findings.append(Finding(data, traceback.format_exc(), outcome))
        return outcome
    report.accepted += 1
    return outcome


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE
