"""What an outbox file is asked to do until the power fails; see ``tests/store/power_machine``."""

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, final

import pytest

from holdfast.client import outbox
from holdfast.client.outbox import OutboxFile
from holdfast.client.records import (
    ClearIncoming,
    FreeIncoming,
    HoldIncoming,
    MarkSent,
    Record,
    ReleaseOutgoing,
    RemoveOutgoing,
    SetNumbers,
    SetSession,
)
from tests.client.outbox_support import OutboxModel, any_commit, model_of, outgoing
from tests.store.power_machine import Call as AnyCall
from tests.store.power_machine import Subject

NAME: Final = "meter.db"
# So that there is much upkeep.
LIMITS: Final = {
    "CHECKPOINT_FRAMES": 12,
    "WAL_BYTES_MAX": 60_000,
    "VACUUM_ABOVE_BYTES": 8000,
    "VACUUM_PAGES": 2,
}

Call = AnyCall[OutboxFile, OutboxModel]
Script = Callable[[OutboxModel], Iterator[Call]]


@final
class OutboxShown:
    """All that an outbox file shows at one moment."""

    def __init__(self, model: OutboxModel) -> None:
        self.content = model.content()
        self._session = self.content[0]
        self._seqs = list(model.outgoing)
        self._held = dict(model.incoming)
        self._digest = hashlib.blake2b(repr(self.content).encode(), digest_size=12).hexdigest()
        copied = OutboxModel()
        copied.client_id, copied.has_session = model.client_id, model.has_session
        copied.next_seq, copied.next_delivery_id = model.next_seq, model.next_delivery_id
        copied.sent_below = model.sent_below
        copied.outgoing, copied.incoming = dict(model.outgoing), dict(model.incoming)
        self.model: Final = copied

    @property
    def digest(self) -> str:
        return self._digest

    def __str__(self) -> str:
        return f"{self._session}, messages {self._seqs}, held {self._held} [{self._digest}]"


def commit(records: list[Record]) -> Call:
    return Call(
        f"commit of {len(records)} records",
        lambda file: file.commit(records),
        lambda model: model.commit(records),
        is_promise=True,
    )


def maintain() -> Call:
    """One step of upkeep, which changes nothing that can be seen."""
    return Call("upkeep", lambda file: file.maintain(), lambda _model: None, is_promise=False)


def reopen() -> Call:
    """Close the file and open it again; whoever runs the call opens it."""
    return Call("reopen", lambda file: file.close(), lambda _model: None, is_promise=True)


def recover() -> Call:
    """Open it anew without letting go of it, as after a failure."""
    return Call("recovery", lambda file: file.reopen(), lambda _model: None, is_promise=True)


def short(model: OutboxModel) -> Iterator[Call]:
    """Everything a client writes, each once or twice, and a backlog that comes and goes."""
    yield commit([SetSession("meter-7", False), outgoing(1, b"one"), outgoing(2, b"two", qos=2)])
    yield commit(
        [SetSession("meter-7", True), ReleaseOutgoing(2), MarkSent(3), HoldIncoming(1, 1, False)]
    )
    yield commit([RemoveOutgoing(1), HoldIncoming(1, 1, True), HoldIncoming(2, 2, False)])
    yield commit([outgoing(seq, b"x" * 3000, qos=2) for seq in range(3, 9)])
    yield commit([FreeIncoming(1), RemoveOutgoing(2), ReleaseOutgoing(3), SetNumbers(20, 9)])
    yield commit([outgoing(20, b"y" * 20_000)])
    yield commit([RemoveOutgoing(seq) for seq in range(3, 9)])
    yield maintain()
    yield reopen()
    yield commit([ClearIncoming(), HoldIncoming(2, 9, True)])
    yield commit([RemoveOutgoing(20), outgoing(21)])
    for _ in range(6):  # pages are given back, and the file is cut
        yield maintain()
    yield recover()
    yield commit([RemoveOutgoing(21), FreeIncoming(2)])
    yield commit([outgoing(model.next_seq, b"last")])


def after(model: OutboxModel) -> Iterator[Call]:
    """What shows that a file works on after a power cut."""
    seq = model.next_seq
    yield commit([outgoing(seq, b"after"), HoldIncoming(9, model.next_delivery_id, False)])
    older = [known for known in model.outgoing if known < seq]
    yield commit([RemoveOutgoing(known) for known in older[:2]] or [SetSession("after", True)])
    yield maintain()
    yield commit([ReleaseOutgoing(seq), FreeIncoming(9), outgoing(seq + 1, b"z" * 5000)])


def long(seed: int, calls: int) -> Script:
    """Random calls."""

    def script(model: OutboxModel) -> Iterator[Call]:
        rng = random.Random(f"long {seed}")
        for _ in range(calls):
            match rng.randrange(12):
                case 0:
                    yield reopen()
                case 1:
                    yield recover()
                case 2 | 3:
                    yield maintain()
                case _:
                    ahead = OutboxShown(model).model
                    yield commit(any_commit(rng, ahead))

    return script


@final
class OutboxSubject(Subject[OutboxFile, OutboxModel, OutboxShown]):
    """The client's outbox file."""

    file_name = NAME
    test_file = "tests/client/test_outbox_power_cuts.py"

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        for name, value in LIMITS.items():
            patch.setattr(outbox, name, value)

    def open(self, folder: Path, vfs: str | None) -> OutboxFile:
        return OutboxFile(folder / NAME, vfs=vfs)

    def observe(self, opened: OutboxFile) -> OutboxShown:
        return OutboxShown(model_of(opened.load()))

    def new_model(self) -> OutboxModel:
        return OutboxModel()

    def model_of(self, shown: OutboxShown) -> OutboxModel:
        return OutboxShown(shown.model).model

    def shown_by(self, model: OutboxModel) -> OutboxShown:
        return OutboxShown(model)

    def agree(self, model: OutboxModel, shown: OutboxShown) -> None:
        expected = OutboxShown(model)
        assert shown.digest == expected.digest, f"found {shown}\n  expected {expected}"

    def after(self, model: OutboxModel) -> Iterator[Call]:
        return after(model)
