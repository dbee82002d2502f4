"""The scenarios that measure memory, and the way to a resumed session's first message."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from bench.brokers import GeneratorFailed, Unavailable
from bench.flow import Flow
from bench.machine import raise_file_limit, settled_resident_bytes
from bench.rows import HOLDFAST, MOSQUITTO, Row, Target
from bench.subjects import Bench, Detail, Subject

KB: Final = 1024
MB: Final = 1024 * 1024
IDLE_COUNT: Final = 9000
IDLE_WARMUP: Final = 200
# Files a broker has open beside its connections, generously.
FILES_BESIDE: Final = 256
BACKLOG_SESSIONS: Final = 10
BACKLOG_COUNT: Final = 1_000_000
BACKLOG_WARMUP: Final = 20_000  # of those: with all of them the queues are full to their limit
# Mosquitto holds an entry for each message and session in memory; its growth is scaled up.
BACKLOG_COUNT_MOSQUITTO: Final = 100_000
BACKLOG_COUNT_QUICK: Final = 50_000
NEEDLES: Final = 3
HAY_TOPICS: Final = 100
BULK: Final = Flow(qos=1, subscribers=0, window=1000)


def idle_memory(bench: Bench) -> list[Row]:
    """Resident memory of an idle connection, without and with a durable session."""
    count = 500 if bench.options.quick else IDLE_COUNT
    count = min(count, raise_file_limit() - FILES_BESIDE)
    rows: list[Row] = []
    for key, title, durable, topic in (
        ("i:clean", f"{count} idle connections, clean, each", False, ""),
        ("i:durable", f"{count} idle, durable, 1 subscription, each", True, "idle/{}/command"),
    ):
        row = Row(key, title, "KB", Target(8, "value at most"), lower_is_better=True)
        rows.append(row)

        def measure(
            subject: Subject, durable: bool = durable, topic: str = topic
        ) -> tuple[float, Detail]:
            subject.open_sessions("i-warm", IDLE_WARMUP, durable=durable, topic=topic)
            subject.order("close")
            before = settled_resident_bytes(subject.broker.pid)
            subject.open_sessions("i", count, durable=durable, topic=topic)
            after = settled_resident_bytes(subject.broker.pid)
            subject.order("drop")
            detail: Detail = {"before_bytes": before, "after_bytes": after, "connections": count}
            # The warm-up's memory may serve as many again, so the growth is that of the others.
            return (after - before) / (count - IDLE_WARMUP) / KB, detail

        bench.collect(row, measure, repeat=1)
    return rows


def backlog_memory(bench: Bench) -> list[Row]:
    """How much the broker grows while messages queue for absent sessions."""
    full = BACKLOG_COUNT_QUICK if bench.options.quick else BACKLOG_COUNT
    row = Row(
        "j",
        f"{full} messages queued for {BACKLOG_SESSIONS} absent sessions: growth",
        "MB",
        Target(20, "value at most"),
        lower_is_better=True,
    )

    def measure(subject: Subject) -> tuple[float, Detail]:
        count = full
        if subject.broker.name == MOSQUITTO:
            count = min(full, BACKLOG_COUNT_MOSQUITTO)
        subject.absent_sessions("j-absent", BACKLOG_SESSIONS, "j/#")
        subject.flow(replace(BULK, topic="j", limit=BACKLOG_WARMUP))
        before = settled_resident_bytes(subject.broker.pid)
        rate, _ = subject.flow(replace(BULK, topic="j", limit=count - BACKLOG_WARMUP))
        after = settled_resident_bytes(subject.broker.pid)
        disk = _folder_bytes(subject.broker.folder)
        if count != full:
            row.notes.append(f"{subject.broker.name}: measured with {count}, scaled to {full}")
        if subject.broker.name == HOLDFAST:
            row.notes.append(f"holdfast: {disk / MB:,.0f} MB on disk, queued at {rate:,.0f} /s")
        detail: Detail = {
            "before_bytes": before,
            "after_bytes": after,
            "messages": count,
            "disk_bytes": disk,
            "rate": rate,
        }
        return (after - before) / MB * full / (count - BACKLOG_WARMUP), detail

    bench.collect(row, measure, repeat=1)
    return [row]


def first_message(bench: Bench) -> list[Row]:
    """CONNECT to first PUBLISH of a session whose one message lies behind all that do not match."""
    full = BACKLOG_COUNT_QUICK if bench.options.quick else BACKLOG_COUNT
    rows = [
        Row(
            f"k:{state}",
            f"first message of a resumed session among {full}, {state}",
            "ms",
            Target(50, "value at most"),
            lower_is_better=True,
        )
        for state in ("running", "restarted")
    ]
    for kind in (MOSQUITTO, HOLDFAST):
        count = min(full, BACKLOG_COUNT_MOSQUITTO) if kind == MOSQUITTO else full
        try:
            with bench.subject(kind) as subject:
                _hide_needles(subject, count)
                if count != full:
                    rows[0].notes.append(f"{kind}: among {count}")
                _find_needles(bench, rows[0], subject, range(NEEDLES))
                if kind == MOSQUITTO:
                    rows[1].notes.append(f"{kind}: with nothing durable, nothing to resume")
                    continue
                subject.broker.stop()
                start_s = subject.broker.start()
                rows[1].notes.append(f"{kind}: stopped and ready again {start_s:.2f} s after start")
                _find_needles(bench, rows[1], subject, range(NEEDLES, 2 * NEEDLES))
        except (GeneratorFailed, Unavailable, OSError) as error:
            for row in rows:
                if kind == HOLDFAST and not row.values.get(kind):
                    row.failures.append(f"{kind}: {error}")
            if kind == MOSQUITTO:
                rows[0].failures.append(f"{kind}: {error}")
            bench.say(f"k         {kind:9} failed: {error}")
    return rows


def _hide_needles(subject: Subject, count: int) -> None:
    """Leave ``count`` messages that wait for one session, then one each for the others."""
    subject.absent_sessions("k", 2 * NEEDLES, "needle/{}")
    subject.absent_sessions("k-hay", 1, "hay/#")
    subject.flow(replace(BULK, topic="hay", spread_over=HAY_TOPICS, limit=count))
    for number in range(2 * NEEDLES):
        topic = f"needle/{number}"
        subject.order("publish", topic=topic, payload=f"needle {number}")


def _find_needles(bench: Bench, row: Row, subject: Subject, numbers: range) -> None:
    for number in numbers:
        name, payload = f"k-{number}", f"needle {number}"
        seconds = subject.order("first_message", client_id=name, payload=payload)
        assert isinstance(seconds, float)
        row.add(subject.broker.name, seconds * 1e3, {"session": number})
        bench.say(f"{row.key:11} {subject.broker.name:9} {seconds * 1e3:12,.2f} {row.unit}")


def _folder_bytes(folder: Path) -> int:
    """What the files below ``folder`` take on the disk."""
    return sum(
        (Path(where) / name).stat().st_blocks * 512
        for where, _, names in os.walk(folder)
        for name in names
    )
