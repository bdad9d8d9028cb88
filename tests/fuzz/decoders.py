"""Every decoder by name, and a search of all of them side by side, each in a process of its own."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.fuzz import files, local, parcel, peer, trust, welcomed
from tests.fuzz.engine import Report, search

ROOMS = (peer, welcomed, files, trust, parcel, local)
TARGETS = {target.name: target for room in ROOMS for target in room.TARGETS}


def shares(names: list[str], inputs: int) -> dict[str, int]:
    """How many inputs each decoder gets, by weight."""
    total = sum(TARGETS[name].weight for name in names)
    return {name: max(1, round(inputs * TARGETS[name].weight / total)) for name in names}


def run_one(name: str, inputs: int, seed: int) -> Report:
    """In a process of its own, so that its memory is its own."""
    warnings.simplefilter("ignore")  # cryptography's, about certificates that it will refuse one day
    return search(TARGETS[name], inputs, seed)


def run_all(names: list[str], inputs: int, seed: int) -> Iterator[Report]:
    """Every decoder, as many at a time as there are cores."""
    parts = shares(names, inputs)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as pool:
        yield from pool.map(run_one, parts.keys(), parts.values(), [seed] * len(parts))
