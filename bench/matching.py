"""Finding the subscriptions of a topic, in the tree that the broker uses, without its cache.

``python -m bench.matching`` prints one line of JSON: microseconds by number of clients, of levels
and of matches. It runs in a process of its own: a million subscriptions are some hundred MB.
"""

import gc
import json
import statistics
import subprocess
import sys
import time
from typing import Final

from bench.brokers import ROOT
from bench.rows import HOLDFAST, Row, Target
from bench.subjects import Bench
from holdfast.broker.session import Session, Subscription
from holdfast.broker.topic_tree import TopicTree

CLIENTS: Final = (1000, 10_000, 100_000)
LEVELS: Final = (4, 8, 16, 32, 64)
MATCHES: Final = (1, 10, 100, 1000)
ROUNDS: Final = 15
TOPICS: Final = 2000  # of one round, each asked for once and far apart in the tree

# Ten filters of a client, as devices and the services around them have them: exact ones,
# wildcards in the middle and at the end, and some that begin with one.
FILTERS: Final = (
    "device/{n}/command",
    "device/{n}/settings/#",
    "device/{n}/+/reply",
    "device/{n}/firmware/+/+",
    "site/{s}/device/{n}/#",
    "site/{s}/alarm/{n}",
    "+/{n}/broadcast",
    "group/{n}/+",
    "reply/{n}/#",
    "jobs/{n}/+",
)


def fill(tree: TopicTree, clients: int) -> None:
    """File the subscriptions of so many clients, all online."""
    for n in range(clients):
        session = Session(n + 1, f"c{n}", 5, 0)
        for template in FILTERS:
            topic_filter = template.format(n=n, s=n % 1000)
            tree.add(Subscription(session, topic_filter, 1, 0, 1), True)


def microseconds(tree: TopicTree, topics: list[str], matches: int) -> float:
    """The median over the rounds of the mean time of one topic, none of which is cached."""
    times: list[float] = []
    for _ in range(ROUNDS):
        tree.forget_routes()
        begin = time.perf_counter()
        for topic in topics:
            tree.route(topic)
        times.append((time.perf_counter() - begin) / len(topics) * 1e6)
    assert all(len(tree.route(topic).targets) == matches for topic in topics)
    return statistics.median(times)


def by_clients(clients: int) -> float:
    tree = TopicTree()
    fill(tree, clients)
    step = max(1, clients // TOPICS)
    topics = [f"device/{n}/settings/interval/x" for n in range(0, clients, step)]
    return microseconds(tree, topics, 1)


def by_levels(levels: int) -> float:
    tree = TopicTree()
    fill(tree, 1000)
    below = "/".join("x" for _ in range(levels - 2))
    for n in range(1000):
        tree.add(Subscription(Session(5000 + n, f"d{n}", 5, 0), f"deep/{n}/{below}", 1, 0, 1), True)
    return microseconds(tree, [f"deep/{n}/{below}" for n in range(1000)], 1)


def by_matches(matches: int) -> float:
    tree = TopicTree()
    fill(tree, 1000)
    for n in range(100):
        for index in range(matches):
            session = Session(5000 + n * matches + index, f"d{n}-{index}", 5, 0)
            tree.add(Subscription(session, f"many/{n}/+/+/x", 1, 0, 1), True)
    return microseconds(tree, [f"many/{n}/a/b/x" for n in range(100)], matches)


def matching(bench: Bench) -> list[Row]:
    """The curve: it grows with the levels and the matches, and not with the subscriptions."""
    rows: list[Row] = []
    found: dict[str, dict[str, float]] = {}
    for number in range(bench.options.repeat):
        command = [sys.executable, "-m", "bench.matching"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        if not rows:
            rows = _rows(found)
        by_key = {row.key: row for row in rows}
        for kind, figures in found.items():
            for amount, value in figures.items():
                by_key[f"m:{kind}:{amount}"].add(HOLDFAST, value, {"repetition": number})
    first = rows[0]
    last = next(row for row in rows if row.key == f"m:clients:{CLIENTS[-1]}")
    last.target = Target(2, "ratio at most")
    last.against = first.key
    last.reference = list(first.values[HOLDFAST])
    return rows


def _rows(found: dict[str, dict[str, float]]) -> list[Row]:
    titles = {
        "clients": "matching one topic, 10 filters each of {} clients",
        "levels": "matching one topic of {} levels",
        "matches": "matching one topic with {} subscribers",
    }
    rows: list[Row] = []
    for kind, figures in found.items():
        for amount in figures:
            title = titles[kind].format(f"{int(amount):,}".replace(",", " "))
            row = Row(f"m:{kind}:{amount}", title, "µs", lower_is_better=True, against="")
            rows.append(row)
    return rows


def main() -> None:
    gc.disable()
    print(
        json.dumps(
            {
                "clients": {str(n): by_clients(n) for n in CLIENTS},
                "levels": {str(n): by_levels(n) for n in LEVELS},
                "matches": {str(n): by_matches(n) for n in MATCHES},
            }
        )
    )


if __name__ == "__main__":
    main()
