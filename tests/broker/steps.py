"""The steps of a random walk: made from a seed, and left out one after the other to shrink one.

Each is a name and three numbers that mean something for any state, so every part of a walk is one.
"""

import random
from collections.abc import Callable
from typing import NamedTuple


class Step(NamedTuple):
    """What to do, to which peer, and two numbers whose meaning depends on it."""

    name: str
    who: int
    a: int
    b: int


WEIGHTS = {
    "publish": 26,
    "acknowledge": 24,
    "release": 8,
    "connect": 10,
    "subscribe": 8,
    "unsubscribe": 3,
    "cut": 5,
    "disconnect": 2,
    "hold": 3,
    "sync_one": 4,
    "unhold": 2,
    "hold_reads": 2,
    "answer_reads": 3,
    "unhold_reads": 2,
    "stall": 2,
    "drain": 3,
    "crash": 2,
    "wait": 2,
    "settle": 1,
    "gather": 2,
    "go": 3,
}


def steps_of(seed: int, count: int) -> list[Step]:
    """The walk of a seed."""
    chance = random.Random(seed)
    names = list(WEIGHTS)
    weights = list(WEIGHTS.values())
    return [
        Step(name, chance.randrange(1000), chance.randrange(1000), chance.randrange(10_000))
        for name in chance.choices(names, weights, k=count)
    ]


def shrink(steps: list[Step], run: Callable[[list[Step]], None]) -> list[Step]:
    """A shorter walk that fails too, by leaving out ever smaller parts."""
    size = len(steps) // 2
    while size > 0:
        start = 0
        while start < len(steps):
            shorter = steps[:start] + steps[start + size :]
            if _fails(shorter, run):
                steps = shorter
            else:
                start += size
        size //= 2
    return steps


def _fails(steps: list[Step], run: Callable[[list[Step]], None]) -> bool:
    try:
        run(steps)
    except AssertionError:
        return True
    return False
