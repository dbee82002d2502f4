"""What a run is like: drawn from its seed."""

import random
from typing import NamedTuple

from holdfast.broker.limits import EXPIRY_NEVER, Limits
from holdfast.broker.listener_rules import PublishLimits
from holdfast.broker.shared_group import SHARED_STRATEGIES
from tests.sim.devices import FILTERS, GROUP_TOPICS, TOPICS, Kind
from tests.sim.limited import draw_limits

LIMITED_SHARE = 1 / 3
RATED_SHARE = 1 / 3  # of the others

Span = tuple[int, int]  # the shortest and the longest, in milliseconds


class Plan(NamedTuple):
    """The circumstances of a run."""

    limits: Limits
    kinds: list[Kind]
    lasts_ms: int
    network_ms: Span
    commit_ms: Span
    read_ms: Span
    crashes: int
    clock_steps: int
    freezes: int
    is_tiny: bool  # the broker's inner bounds
    wills: bool
    retained: bool
    message_expiry: bool
    delayed: bool
    stalls: bool
    small_packets: bool
    keep_alive_s: int
    is_limited: bool
    publish_limits: PublishLimits | None
    line_ms: int  # how long a turn takes whose work is of the turn before


def plan_of(seed: int, chance: random.Random, *, is_limited: bool) -> Plan:
    """One run in three has limits, or each if it is to be so: drawn apart from all else."""
    limits = Limits(
        receive_maximum=20,
        in_flight_max=chance.choice([1, 2, 3, 5, 20]),
        session_expiry_max_s=chance.choice([EXPIRY_NEVER, EXPIRY_NEVER, EXPIRY_NEVER, 1, 20]),
        shared_strategy=chance.randrange(len(SHARED_STRATEGIES)),
        space_pass_entries=chance.choice([2, 5, 1000]),
    )
    of_limits = random.Random(f"limits of {seed}")
    limits.slice_packets = random.Random(f"slices of {seed}").choice([0, 1, 3])
    is_limited = of_limits.random() < LIMITED_SHARE or is_limited
    if is_limited:
        draw_limits(of_limits, limits)
        limits.slice_packets = 0  # its checker has to see at once what a packet comes to
    of_rates = random.Random(f"rates of {seed}")
    publish_limits = None if is_limited else _rates(of_rates)
    slowness = chance.choice([1, 5, 20, 100, 300])
    return Plan(
        limits=limits,
        kinds=_kinds(chance),
        lasts_ms=chance.choice([2000, 4000, 8000]),
        network_ms=(0, chance.choice([1, 5, 20, 60])),
        commit_ms=(0, slowness),
        read_ms=(0, chance.choice([1, 10, 200])),
        crashes=chance.choice([0, 1, 1, 2, 3]),
        clock_steps=chance.choice([0, 0, 0, 2]),
        freezes=chance.choice([0, 0, 2, 4]),
        is_tiny=chance.random() < 0.6,
        wills=chance.random() < 0.5,
        retained=chance.random() < 0.6,
        message_expiry=chance.random() < 0.4,
        delayed=chance.random() < 0.4,
        stalls=chance.random() < 0.5,
        small_packets=chance.random() < 0.5,
        keep_alive_s=chance.choice([0, 0, 1]),
        is_limited=is_limited,
        publish_limits=publish_limits,
        line_ms=0 if publish_limits is None else of_rates.choice([0, 5, 40]),
    )


def _rates(chance: random.Random) -> PublishLimits | None:
    """In some lives clients may publish so slowly that they are held back again and again."""
    if chance.random() >= RATED_SHARE:
        return None
    limits = PublishLimits()
    if chance.random() < 0.7:
        limits.messages_per_s = chance.choice([5, 10, 30])
        limits.messages_burst = chance.choice([1, 2, 5])
    else:
        limits.bytes_per_s = chance.choice([200, 1000])
        limits.bytes_burst = chance.choice([1, 100, 400])
    return limits


def _kinds(chance: random.Random) -> list[Kind]:
    think_ms = chance.choice([60, 120, 250])
    kinds: list[Kind] = []

    def add(name: str, expiry_s: int, filters: tuple[str, ...], topics: tuple[str, ...]) -> None:
        version = chance.choice([4, 5])
        if version == 4 and expiry_s > 0:
            expiry_s = EXPIRY_NEVER
        kinds.append(
            Kind(
                f"{name}{len(kinds) + 1}",
                version,
                expiry_s,
                filters,
                topics,
                think_ms,
                chance.choice([0, 20, 200, 1000]),
                expiry_s > 0 and chance.random() < 0.3,
            )
        )

    topics = tuple(chance.sample(TOPICS, chance.randint(1, len(TOPICS))))
    has_groups = chance.random() < 0.5
    if has_groups:
        topics += GROUP_TOPICS[: chance.randint(1, 3)]
    is_lonely = chance.random() < 0.25  # there is often nobody who wants a message
    for _ in range(1 if is_lonely else chance.randint(1, 3)):
        filters = tuple(chance.sample(FILTERS, 1 if is_lonely else chance.randint(2, 5)))
        add("d", chance.choice([EXPIRY_NEVER, EXPIRY_NEVER, 1, 3, 10]), filters, topics)
    for _ in range(1 if is_lonely else chance.randint(0, 2)):
        add("t", 0, tuple(chance.sample(FILTERS, 3)), topics)
    if has_groups:
        for number in range(chance.randint(2, 4)):
            topic_filter = "$share/w/g/+" if number < 3 else "$share/v/g/#"
            add("w", chance.choice([EXPIRY_NEVER, EXPIRY_NEVER, 5, 0]), (topic_filter,), topics)
    return kinds
