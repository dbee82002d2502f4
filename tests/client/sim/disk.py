"""The outbox file and its thread, as far as the client can tell: commits take time, and may fail.

A commit is on the disk at some moment between its submission and its return: whoever dies before
has lost it, whoever dies after has it.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.client.records import HoldIncoming, LoadedOutbox, LoadedOutgoing, Record
from holdfast.errors import StoreError
from tests.client.outbox_support import OutboxModel

if TYPE_CHECKING:
    from tests.client.sim.process import Process


def loaded(model: OutboxModel) -> LoadedOutbox:
    """What a file that holds this shows."""
    found = LoadedOutbox()
    found.client_id = model.client_id
    found.has_session = model.has_session
    found.next_seq = model.next_seq
    found.next_delivery_id = model.next_delivery_id
    found.sent_below = model.sent_below
    found.sent_below = model.sent_below
    for seq, content in sorted(model.outgoing.items()):
        fields: tuple[Any, ...] = (seq, *content, False)
        if len(content) == 1:
            fields = (seq, "", b"", 2, False, b"", 0, *content, True)
        found.outgoing.append(LoadedOutgoing(*fields))
    for packet_id, (delivery_id, is_handed) in sorted(model.incoming.items()):
        found.incoming.append(HoldIncoming(packet_id, delivery_id, is_handed))
    return found


def payloads(model: OutboxModel) -> dict[int, bytes]:
    """The messages that a file holds and that are not released, by ``seq``."""
    found: dict[int, bytes] = {}
    for seq, content in model.outgoing.items():
        if len(content) > 1:
            payload = content[1]
            assert isinstance(payload, bytes)
            found[seq] = payload
    return found


class VirtualOutboxFile:
    """What one process has opened of a file."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    def load(self) -> LoadedOutbox:
        return loaded(self._process.device.disk)

    def commit(self, records: list[Record]) -> None:
        if not self._process.is_dead:
            self._process.device.disk.commit(records)

    def reopen(self) -> None:
        pass

    @property
    def wants_upkeep(self) -> bool:
        return False

    def maintain(self) -> bool:
        return False

    def close(self) -> None:
        pass


class VirtualWorker:
    """The outbox's thread: one job after the other, each at its time."""

    def __init__(self, process: "Process") -> None:
        self._process = process
        self._jobs: deque[
            tuple[Callable[[], None], Callable[[None, BaseException | None], None]]
        ] = deque()
        self._has_failed = False

    def submit(
        self, job: Callable[[], None], done: Callable[[None, BaseException | None], None]
    ) -> None:
        process = self._process
        process.point("before a commit")
        self._jobs.append((job, done))
        if len(self._jobs) == 1:
            self._begin()

    def stop(self) -> None:
        assert self._process.is_dead or not self._jobs, "the thread was stopped at its work"

    def leave(self) -> None:
        pass

    def _begin(self) -> None:
        simulation = self._process.simulation
        takes_s = simulation.random.uniform(0, simulation.plan.commit_s)
        simulation.after(takes_s, self._work)

    def _work(self) -> None:
        process = self._process
        simulation = process.simulation
        job, done = self._jobs[0]
        error: BaseException | None = None
        if process.is_dead:
            error = StoreError("the process is dead")
        elif simulation.is_rough and simulation.random.random() < simulation.plan.commit_fails:
            simulation.say(f"{process.name}: the disk fails")
            if simulation.random.random() < 0.5:
                job()
            error = StoreError("the disk has failed")
        else:
            job()
        simulation.after(simulation.random.uniform(0, simulation.plan.commit_s / 2), self._done)
        self._jobs[0] = (job, lambda _result, _error: done(None, error))
        process.point("a commit is durable")

    def _done(self) -> None:
        _, done = self._jobs.popleft()
        process = self._process
        if process.is_dead:
            done_error: BaseException = StoreError("the process is dead")
            process.run(done, None, done_error)
        else:
            process.point("a commit returns")
            process.run(done, None, None)
        if self._jobs:
            self._begin()
