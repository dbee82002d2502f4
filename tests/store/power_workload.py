"""What a store is asked to do until the power fails, and what it shows before and afterwards.

A script is a generator of ``Call``s that looks at the model, which the calls before have brought
forward. To have the machine try something new, add a call to ``short`` and ``long``.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, final

import pytest

from holdfast.message import Message, Properties
from holdfast.store import sqlite_upkeep
from holdfast.store.interface import Store
from holdfast.store.records import (
    OPEN,
    Batch,
    DelayedRecord,
    FilterSpan,
    GroupRecord,
    LogEntry,
    LossRecord,
    ReadRequest,
    RetainedRecord,
    SessionRecord,
    Snapshot,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    TopicCut,
    pack_gaps,
)
from holdfast.store.sqlite import FILE_NAME, SqliteStore, open_store
from tests.store.power_machine import Call as AnyCall
from tests.store.power_machine import Subject
from tests.store.support import (
    ODD_TOPICS,
    PLENTY,
    Model,
    content_of_entries,
    content_of_snapshot,
    delayed,
    group,
    loss,
    message,
    read_all,
    session,
    state,
    subscription,
)

# Of the store's upkeep, so that there is much of it.
LIMITS: Final = {
    "UPKEEP_FRAMES": 20,
    "CHECKPOINT_FRAMES": 30,
    "RESTART_FRAMES": 90,
    "WAL_BYTES_MAX": 60_000,
    "VACUUM_ABOVE_BYTES": 0,
}
TOPICS: Final = [*ODD_TOPICS[:-1], *(f"dev/{number}" for number in range(30))]
SIZES: Final = [0, 1, 20, 300, 3000, 9000]  # bytes of payload; some take several pages
# What records of, in a batch and in a snapshot; compiled objects have no ``__dict__``.
LISTS: Final = [name for name in dir(Batch()) if isinstance(getattr(Batch(), name), list)]
EVERYTHING: Final = [FilterSpan("#", 1, OPEN), FilterSpan("$SYS/#", 1, OPEN)]


@final
class Expected(Model):
    """The model, which also knows which entries may be gone: a trim takes whole blocks only."""

    def __init__(self) -> None:
        super().__init__()
        self.removable: set[int] = set()

    def trim(self, below_lsn: int) -> None:
        self.removable.update(entry.lsn for entry in self.entries if entry.lsn < below_lsn)

    def trim_topics(self, cuts: list[TopicCut]) -> None:
        for entry in self.entries:
            if any(_names(cut, entry) for cut in cuts):
                self.removable.add(entry.lsn)


def _names(cut: TopicCut, entry: LogEntry) -> bool:
    return (
        entry.target == cut.target
        and (cut.target != 0 or entry.message.topic == cut.topic)
        and any(low <= entry.lsn < high for low, high in cut.spans)
    )


Call = AnyCall[SqliteStore, Expected]
Script = Callable[[Expected], Iterator[Call]]


def commit(batch: Batch) -> Call:
    return Call(
        f"commit of {len(batch.entries)} entries",
        lambda store: store.commit(batch),
        lambda model: model.commit(batch),
        is_promise=True,
    )


def trim(below_lsn: int) -> Call:
    """One step of a trim."""
    return Call(
        f"trim below {below_lsn}",
        lambda store: store.trim(below_lsn),
        lambda model: model.trim(below_lsn),
        is_promise=False,
    )


def trim_topics(cuts: list[TopicCut]) -> Call:
    """One step of trimming some topics or targets."""
    return Call(
        f"trim of {[(cut.topic, cut.target, cut.spans) for cut in cuts]}",
        lambda store: store.trim_topics(cuts),
        lambda model: model.trim_topics(cuts),
        is_promise=False,
    )


def maintain() -> Call:
    """One step of upkeep, which changes nothing that can be seen."""
    return Call("upkeep", lambda store: store.maintain(), lambda _model: None, is_promise=False)


def reopen() -> Call:
    """Close the store and open it again; whoever runs the call opens it."""
    return Call("reopen", lambda store: store.close(), lambda _model: None, is_promise=True)


@final
class State:
    """All that a store shows at one moment."""

    def __init__(self, snapshot: Snapshot, entries: list[LogEntry]) -> None:
        self.snapshot = snapshot
        self.entries = entries
        content = repr((content_of_snapshot(snapshot), content_of_entries(entries)))
        self.digest: Final = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()

    def __str__(self) -> str:
        snapshot = self.snapshot
        counts = {name: len(getattr(snapshot, name)) for name in LISTS if hasattr(snapshot, name)}
        lsns = [entry.lsn for entry in self.entries]
        return (
            f"next lsn {snapshot.next_lsn}, next session {snapshot.next_session}, {counts},"
            f" entries {ranges(lsns)} [{self.digest}]"
        )


def ranges(lsns: list[int]) -> str:
    """Ascending numbers, shortly."""
    runs: list[list[int]] = []
    for lsn in lsns:
        if runs and lsn == runs[-1][1] + 1:
            runs[-1][1] = lsn
        else:
            runs.append([lsn, lsn])
    return ", ".join(f"{low}-{high}" for low, high in runs) or "none"


def observe(store: Store) -> State:
    """What a store shows by load, fetch and read, which must agree."""
    snapshot = store.load()
    found = store.fetch(list(range(1, snapshot.next_lsn + 3)))
    shown = State(snapshot, found)
    model = model_of(shown)
    number = max((entry.target for entry in found), default=0) or snapshot.next_session
    # Only some at a time, so that reading goes on from a position.
    request = ReadRequest(number, 1, snapshot.next_lsn, EVERYTHING, 50, PLENTY)
    expected = content_of_entries(model.read(request))
    assert content_of_entries(read_all(store, request)) == expected, "read and fetch differ"
    if found:
        topic = found[-1].message.topic
        one = [FilterSpan(topic, 1, OPEN)]
        request = ReadRequest(snapshot.next_session, 1, snapshot.next_lsn, one, PLENTY, PLENTY)
        expected = content_of_entries(model.read(request))
        assert content_of_entries(read_all(store, request)) == expected, f"of topic {topic!r}"
    return shown


def model_of(shown: State) -> Expected:
    """A model that goes on from what a store shows."""
    model = Expected()
    snapshot = shown.snapshot
    batch = Batch()
    for name in LISTS:
        if hasattr(snapshot, name):
            setattr(batch, name, list(getattr(snapshot, name)))
    model.commit(batch)
    model.entries = list(shown.entries)
    model.next_lsn = snapshot.next_lsn
    model.next_session = snapshot.next_session
    return model


def agree(model: Expected, shown: State) -> None:
    """Check what a store shows: all of the model, but for entries that may be gone."""
    lsns = {entry.lsn for entry in shown.entries}
    missing = [entry.lsn for entry in model.entries if entry.lsn not in lsns]
    lost = [lsn for lsn in missing if lsn not in model.removable]
    assert not lost, f"entries {ranges(lost)} are gone"
    left = [entry for entry in model.entries if entry.lsn in lsns]
    snapshot = model.snapshot()
    # Of the marks below the oldest entry a trim leaves the last.
    oldest = min(lsns, default=model.next_lsn)
    last = max([mark.lsn for mark in snapshot.time_marks if mark.lsn < oldest], default=0)
    marks = {mark.lsn for mark in shown.snapshot.time_marks}
    snapshot.time_marks = [
        mark for mark in snapshot.time_marks if mark.lsn >= last or mark.lsn in marks
    ]
    expected = State(snapshot, left)
    assert shown.digest == expected.digest, f"found {shown}\n  expected {expected}"


def short(model: Expected) -> Iterator[Call]:
    """Everything a broker writes, each once or twice, in small batches."""
    batch = Batch()
    batch.entries = _entries(model, ["a", "a", "007", "a/\U0010ffff"])
    batch.sessions = [session(1, "007", message("will", b"gone")), session(2, "\U0010ffff")]
    batch.states = [state(1), state(2)]
    batch.subscriptions = [subscription(1, "a/#"), subscription(2, "#"), subscription(2, "a")]
    batch.time_marks = [TimeMark(1, 1000)]
    yield commit(batch)
    batch = Batch()
    batch.entries = _entries(model, ["a", "b"], size=20_000)
    batch.retained = [RetainedRecord("a", message("a", b"kept")), RetainedRecord("r", message("r"))]
    batch.groups = [group(3), group(4, "$share/h/b")]
    batch.delayed = [delayed(1), delayed(2, "later")]
    batch.losses = [loss(1), loss(2), loss(3)]
    yield commit(batch)
    batch = Batch()
    batch.entries = [
        *_entries(model, ["own", "a", "a"], target=2),
        LogEntry(model.next_lsn + 3, message("a", b"for all")),
    ]
    batch.states = [state(1, 5)]
    batch.time_marks = [TimeMark(model.next_lsn, 2000)]
    yield commit(batch)
    yield trim(5)
    yield maintain()
    batch = Batch()
    batch.entries = _entries(model, ["b"] * 3)
    batch.retained = [RetainedRecord("r", None)]
    batch.subscriptions_removed = [subscription(2, "a")]
    batch.delayed_removed = [2]
    batch.groups = [group(3, cursor=9)]
    yield commit(batch)
    yield trim_topics([TopicCut("b", 0, [(1, 7), (9, 13)]), TopicCut("", 2, [(1, 8)])])
    yield maintain()
    batch = Batch()
    batch.ended = [2, 4]
    batch.sessions = [session(5, "next")]
    batch.losses = [loss(1, 8)]
    yield commit(batch)
    yield trim(10)
    batch = Batch()
    batch.entries = _entries(model, ["d"])
    yield commit(batch)
    yield trim(model.next_lsn)
    for _ in range(6):  # a census, then pages are given back, and the file is cut
        yield maintain()
    yield reopen()
    batch = Batch()
    batch.entries = _entries(model, ["a", "c"])
    batch.states = [state(5, model.next_lsn), state(1, 7)]
    yield commit(batch)
    batch = Batch()
    batch.ended = [5]
    batch.entries = _entries(model, ["c"], size=9000)
    yield commit(batch)


def after(model: Expected) -> Iterator[Call]:
    """What shows that a store works on after a power cut."""
    batch = Batch()
    batch.entries = _entries(model, ["a", "after", "after"])
    batch.sessions = [session(model.next_session, "after")]
    batch.states = [state(model.next_session, model.next_lsn)]
    batch.retained = [RetainedRecord("after", message("after"))]
    yield commit(batch)
    yield trim(model.next_lsn - 2)
    batch = Batch()
    batch.entries = _entries(model, ["after"])
    batch.ended = sorted(model.sessions)[:1]
    yield commit(batch)


def long(seed: int, calls: int) -> Script:
    """Random calls."""

    def script(model: Expected) -> Iterator[Call]:
        rng = random.Random(f"long {seed}")
        for _ in range(calls):
            chance = rng.random()
            if chance < 0.75:
                yield commit(random_batch(model, rng))
            elif chance < 0.8:
                yield trim_topics(_random_cuts(model, rng))
            elif chance < 0.85:
                for _ in range(rng.randint(1, 5)):
                    yield maintain()
            elif chance < 0.95:
                below = rng.choice([model.next_lsn, rng.randint(1, model.next_lsn)])
                for _ in range(rng.randint(1, 3)):
                    yield trim(below)
            else:
                yield reopen()

    return script


def _random_cuts(model: Expected, rng: random.Random) -> list[TopicCut]:
    lows = sorted(rng.randint(1, model.next_lsn) for _ in range(4))
    spans = [(lows[0], lows[1]), (lows[2], lows[3])]
    topics = sorted({entry.message.topic for entry in model.entries})
    targets = sorted({entry.target for entry in model.entries} - {0})
    cuts = [TopicCut(topic, 0, spans) for topic in rng.sample(topics, min(3, len(topics)))]
    return cuts + [TopicCut("", target, spans[:1]) for target in targets[:1]]


def random_batch(model: Expected, rng: random.Random) -> Batch:
    """Some records of any kind. Numbers of sessions and groups are never used again."""
    batch = Batch()
    number = model.next_session
    alive = sorted(model.sessions)
    if alive and rng.random() < 0.15:
        batch.ended = rng.sample(alive + sorted(model.groups), 1)
        alive = [known for known in alive if known not in batch.ended]
    if rng.random() < 0.3 or not alive:
        will = _random_message(rng, b"will") if rng.random() < 0.3 else None
        name = f"{rng.choice(TOPICS)}{number}"
        batch.sessions = [SessionRecord(number, name, 5, rng.randint(0, 9), 60, 0, will, 1, 2)]
        alive.append(number)
        number += 1
    if rng.random() < 0.2:
        groups = [known for known in sorted(model.groups) if known not in batch.ended]
        if not groups or rng.random() < 0.5:
            groups = [number]
        returned = rng.randbytes(3)
        name = f"$share/g/{rng.choice(TOPICS)}"
        gaps = _random_gaps(rng)
        batch.groups = [GroupRecord(rng.choice(groups), name, rng.randint(1, 99), returned, gaps)]
    for owner in rng.sample(alive, min(len(alive), rng.randint(0, 3))):
        in_flight, received = rng.randbytes(rng.choice([0, 9])), rng.randbytes(2)
        cursor = rng.randint(1, model.next_lsn)
        gaps = _random_gaps(rng)
        batch.states.append(StateRecord(owner, cursor, in_flight, received, gaps))
        if gaps:
            batch.losses.append(LossRecord(owner, rng.randint(1, 9), 2**40, cursor, 1))
        if rng.random() < 0.4:
            topic_filter = rng.choice([*TOPICS, "#", "a/+/#"])
            record = SubscriptionRecord(owner, topic_filter, cursor, rng.choice([OPEN, 999]), 1, 7)
            batch.subscriptions.append(record)
    known = [r for r in model.subscriptions.values() if r.session not in batch.ended]
    if known and rng.random() < 0.2:
        batch.subscriptions_removed = [rng.choice(known)]
    if rng.random() < 0.2:
        batch.time_marks = [TimeMark(model.next_lsn, model.next_lsn * 1000)]
    _random_messages(batch, model, rng, alive)
    return batch


def _random_gaps(rng: random.Random) -> bytes:
    low = rng.randint(1, 99)
    return pack_gaps([(low, low + 7), (low + 9, OPEN)]) if rng.random() < 0.2 else b""


def _random_messages(batch: Batch, model: Expected, rng: random.Random, alive: list[int]) -> None:
    """Log entries, retained and delayed messages."""
    lsn = model.next_lsn
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        sent = _random_message(rng, b"%d " % lsn)
        target = rng.choice(alive) if rng.random() < 0.2 else 0
        for _ in range(rng.choice([1, 1, 3, 20])):
            batch.entries.append(LogEntry(lsn, sent, target))
            lsn += 1
    if rng.random() < 0.3:
        kept = _random_message(rng, b"kept")
        batch.retained.append(RetainedRecord(kept.topic, kept))
    if model.retained and rng.random() < 0.2:
        batch.retained.append(RetainedRecord(rng.choice(sorted(model.retained)), None))
    if rng.random() < 0.2:
        later = _random_message(rng, b"later")
        batch.delayed = [DelayedRecord(rng.randint(1, 6), rng.randint(1, 2**42), 60, later)]
    if model.delayed and rng.random() < 0.3:
        batch.delayed_removed = [rng.choice(sorted(model.delayed))]


def _random_message(rng: random.Random, payload: bytes) -> Message:
    properties = None
    if rng.random() < 0.2:
        properties = Properties()
        properties.user_properties = [("a", "\U0010ffff")]
    payload += rng.randbytes(rng.choice(SIZES))
    return Message(rng.choice(TOPICS), payload, rng.randint(0, 2), False, properties)


def _entries(
    model: Expected, topics: list[str], *, size: int = 0, target: int = 0
) -> list[LogEntry]:
    lsn = model.next_lsn
    return [
        LogEntry(lsn + index, message(topic, b"%d" % (lsn + index) + bytes(size)), target)
        for index, topic in enumerate(topics)
    ]


@final
class StoreSubject(Subject[SqliteStore, Expected, State]):
    """The broker's store."""

    file_name = FILE_NAME
    test_file = "tests/store/test_power_cuts.py"

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        for name, value in LIMITS.items():
            patch.setattr(sqlite_upkeep, name, value)

    def open(self, folder: Path, vfs: str | None) -> SqliteStore:
        # By a clock that stands each step of upkeep takes no time: what it does is always the same.
        return open_store(folder, vfs, lambda: 0)

    def observe(self, opened: SqliteStore) -> State:
        return observe(opened)

    def new_model(self) -> Expected:
        return Expected()

    def model_of(self, shown: State) -> Expected:
        return model_of(shown)

    def shown_by(self, model: Expected) -> State:
        return State(model.snapshot(), model.entries)

    def agree(self, model: Expected, shown: State) -> None:
        agree(model, shown)

    def after(self, model: Expected) -> Iterator[Call]:
        return after(model)
