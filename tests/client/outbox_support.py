"""What the tests of the outbox file share: a model, records at random, and what a file shows."""

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.client.outbox import OutboxFile
from holdfast.client.records import (
    ClearIncoming,
    FreeIncoming,
    HoldIncoming,
    LoadedOutbox,
    MarkSent,
    Record,
    ReleaseOutgoing,
    RemoveOutgoing,
    SetNumbers,
    SetSession,
    StoreOutgoing,
)
from tests.store.support import ODD_TOPICS

SIZES: Final = [0, 1, 20, 300, 3000, 9000]  # bytes of payload; some take several pages


MEMORY: Final = Path("/dev/shm")  # files in memory, where there is such a folder


@contextmanager
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder where a flush takes no time."""
    found = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    try:
        yield found
    finally:
        shutil.rmtree(found)


def outgoing(seq: int, payload: bytes = b"x", topic: str = "a", qos: int = 1) -> StoreOutgoing:
    return StoreOutgoing(seq, topic, payload, qos, False, b"", 0, 1000 + seq)


def content_of_message(record: StoreOutgoing) -> tuple[object, ...]:
    return (
        record.topic,
        record.payload,
        record.qos,
        record.retain,
        record.packed_properties,
        record.expires_at_ms,
        record.queued_at_ms,
    )


class OutboxModel:
    """An outbox that is obviously right."""

    def __init__(self) -> None:
        self.client_id = ""
        self.has_session = False
        self.next_seq = 1
        self.next_delivery_id = 1
        self.sent_below = 1
        self.outgoing: dict[int, tuple[object, ...]] = {}  # of a released one when it was queued
        self.incoming: dict[int, tuple[int, bool]] = {}

    def commit(self, records: list[Record]) -> None:
        for record in records:
            self.apply(record)

    def apply(self, record: Record) -> None:
        match record:
            case StoreOutgoing():
                self.outgoing[record.seq] = content_of_message(record)
                self.next_seq = max(self.next_seq, record.seq + 1)
            case ReleaseOutgoing():
                self.outgoing[record.seq] = (record.queued_at_ms,)
            case RemoveOutgoing():
                self.outgoing.pop(record.seq, None)
            case HoldIncoming():
                self.incoming[record.packet_id] = (record.delivery_id, record.is_handed)
                self.next_delivery_id = max(self.next_delivery_id, record.delivery_id + 1)
            case FreeIncoming():
                self.incoming.pop(record.packet_id, None)
            case ClearIncoming():
                self.incoming.clear()
            case MarkSent():
                self.sent_below = max(self.sent_below, record.below_seq)
            case SetNumbers():
                self.next_seq = max(self.next_seq, record.next_seq)
                self.next_delivery_id = max(self.next_delivery_id, record.next_delivery_id)
            case SetSession():
                self.client_id = record.client_id
                self.has_session = record.has_session
                self.sent_below = record.sent_below or self.sent_below
            case _:
                raise AssertionError(record)

    def content(self) -> tuple[object, ...]:
        return (
            (
                (self.client_id, self.has_session),
                (self.next_seq, self.next_delivery_id, self.sent_below),
            ),
            tuple(sorted(self.outgoing.items())),
            tuple(sorted(self.incoming.items())),
        )


def model_of(loaded: LoadedOutbox) -> OutboxModel:
    """The model of what was loaded."""
    model = OutboxModel()
    model.client_id, model.has_session = loaded.client_id, loaded.has_session
    model.next_seq, model.next_delivery_id = loaded.next_seq, loaded.next_delivery_id
    model.sent_below = loaded.sent_below
    for entry in loaded.outgoing:
        if entry.is_released:
            assert (entry.qos, entry.topic, entry.payload) == (2, "", b"")
            model.outgoing[entry.seq] = (entry.queued_at_ms,)
        else:
            model.outgoing[entry.seq] = (
                entry.topic,
                entry.payload,
                entry.qos,
                entry.retain,
                entry.packed_properties,
                entry.expires_at_ms,
                entry.queued_at_ms,
            )
    for held in loaded.incoming:
        model.incoming[held.packet_id] = (held.delivery_id, held.is_handed)
    assert [entry.seq for entry in loaded.outgoing] == sorted(model.outgoing)
    assert [held.packet_id for held in loaded.incoming] == sorted(model.incoming)
    return model


def shown(file: OutboxFile) -> tuple[object, ...]:
    """What a file shows."""
    return model_of(file.load()).content()


def any_record(rng: random.Random, model: OutboxModel) -> Record:
    """A record that a client may write when it has what the model has."""
    seqs = list(model.outgoing)
    held = list(model.incoming)
    match rng.randrange(11):
        case 0 | 1 | 2 | 3:
            payload = rng.randbytes(rng.choice(SIZES))
            return StoreOutgoing(
                model.next_seq + rng.choice([0, 0, 0, 1]),  # QoS 0 takes numbers too
                rng.choice(ODD_TOPICS),
                payload,
                rng.choice([1, 2]),
                rng.random() < 0.3,
                rng.choice([b"", b"\x01\x01", b"\x26\x00\x01k\x00\x01v"]),
                rng.choice([0, 2**42]),
                rng.randrange(2**42),
            )
        case 4 if seqs:
            return ReleaseOutgoing(rng.choice(seqs), rng.randrange(2**42))
        case 5 | 6 | 7 if seqs:
            return RemoveOutgoing(rng.choice([seqs[0], rng.choice(seqs), model.next_seq]))
        case 8:
            return HoldIncoming(
                rng.randint(1, 12), model.next_delivery_id + rng.randrange(2), rng.random() < 0.5
            )
        case 9 if held:
            number, (delivery_id, _) = rng.choice(list(model.incoming.items()))
            if rng.random() < 0.5:
                return HoldIncoming(number, delivery_id, True)
            return FreeIncoming(rng.choice([number, 77]))
        case 10:
            return rng.choice(
                [
                    ClearIncoming(),
                    SetNumbers(rng.randrange(model.next_seq + 3), rng.randrange(100)),
                    MarkSent(rng.randint(1, model.next_seq)),
                    SetSession(
                        rng.choice(["", "c-1", "007"]),
                        rng.random() < 0.5,
                        rng.choice([0, 0, rng.randint(1, model.next_seq)]),
                    ),
                ]
            )
    return SetSession("c-2", True)


def any_commit(rng: random.Random, model: OutboxModel, records_max: int = 12) -> list[Record]:
    """The records of a commit, with which the model has been brought forward."""
    records: list[Record] = []
    for _ in range(rng.randint(1, records_max)):
        records.append(any_record(rng, model))
        model.apply(records[-1])
    return records
