"""The commits of a client's outbox file: one at a time, each for all that has come meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from holdfast.client.changes import Changes
from holdfast.client.outgoing import Outgoing
from holdfast.client.records import LoadedOutbox, Record, RemoveOutgoing, StoreOutgoing
from holdfast.errors import HoldfastError, StoreCorrupt, StoreError, StoreTooNew
from holdfast.logs import get_logger
from holdfast.worker import Worker, on_thread

# What nobody waits for, such as that a message is done, is written with the next commit that
# somebody waits for, or after this time.
LAZY_S: Final = 0.05
# How long it takes until a failed outbox file is tried again, doubled up to the second.
RETRY_MIN_S: Final = 0.5
RETRY_MAX_S: Final = 30.0

_log = get_logger(__name__)

# Whether it is a message that is to be stored, which is refused if that fails.
_Waiter = tuple["asyncio.Future[None]", bool]


class OutboxStore(Protocol):
    """What the client needs of an outbox file; see ``OutboxFile``."""

    def load(self) -> LoadedOutbox:
        """What an earlier process has left."""

    def commit(self, records: list[Record]) -> None:
        """Make these durable, all of them or none; on a thread of its own."""

    def reopen(self) -> None:
        """Open the file anew after a commit that failed; on a thread of its own."""

    @property
    def wants_upkeep(self) -> bool:
        """Whether there is something to do in idle times."""

    def maintain(self) -> bool:
        """Do a small part of that, on a thread of its own; whether there is more."""

    def close(self) -> None:
        """Let go of the file."""


class Commits:
    """Makes ``changes`` durable, batch by batch.

    ``committed`` gets each batch that is durable, ``check`` asks for a turn. After a failure such
    as a full disk the messages of the batch are ``refused``, which returns their ``seq``, and all
    else of it is committed again, from time to time, on a file that is opened anew. ``damaged`` is
    called for a file that only repair can mend: then nothing is committed any more.
    """

    def __init__(
        self,
        store: OutboxStore,
        changes: Changes,
        *,
        check: Callable[[], None],
        committed: Callable[[Changes], None],
        refused: Callable[[list[Outgoing], StoreError], list[int]],
        damaged: Callable[[StoreError], None],
    ) -> None:
        self.failure: StoreError | None = None  # why the file cannot be written for now
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._changes = changes
        self._check = check
        self._committed_batch = committed
        self._refused = refused
        self._damaged = damaged
        self._worker: Worker[object] = Worker("holdfast-outbox", self._loop)
        self._committing: Changes | None = None
        self._lazy_timer: asyncio.TimerHandle | None = None
        # Those who wait for the commit under way, and for the next one.
        self._this: list[_Waiter] = []
        self._next: list[_Waiter] = []
        self._retry_s = RETRY_MIN_S
        self._retry_timer: asyncio.TimerHandle | None = None
        self._is_retrying = False
        self._is_stopping = False
        self._is_over = False  # the file is damaged, or let go of
        self._is_maintaining = False

    def durable(self, entry: Outgoing | None) -> asyncio.Future[None]:
        """Done when all is durable that was changed so far, or this message that was accepted.

        Fails with StoreError.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        stored = self._changes.stored
        if (
            self._committing is not None
            and entry is not None
            and (not stored or entry.seq < stored[0].seq)
        ):
            self._this.append((waiter, True))
        else:
            self._next.append((waiter, entry is not None))
            self._changes.is_urgent = True
            self._check()
        return waiter

    def turn(self) -> None:
        """Begin the next commit if somebody waits for it and none is under way."""
        changes = self._changes
        if self._committing is not None or self._is_over:
            return
        if not changes.is_urgent:
            if changes.records and self._lazy_timer is None:
                self._lazy_timer = self._loop.call_later(LAZY_S, self._commit_lazily)
            return
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        batch = changes.take()
        self._committing = batch
        self._this, self._next = self._next, []
        if not batch.records:
            self._committed(None, None)
            return
        store = self._store
        self._worker.submit(lambda: store.commit(batch.records), self._committed)

    def give_up(self, error: HoldfastError) -> None:
        """Tell those who wait for the next commit that nothing is promised any more."""
        waiters, self._next = self._next, []
        for waiter, _ in waiters:
            fail(waiter, error)

    async def stop(self) -> None:
        """Make durable what is left, as far as possible, and let go of the file."""
        self._is_stopping = True
        try:
            if self.failure is not None:
                self._retry()
            while not self._is_over and (self._committing is not None or self._changes.records):
                await self.durable(None)
        except StoreError as error:
            # What was acknowledged meanwhile is sent again, with DUP, by the next client.
            _log.error(f"the outbox was closed, and does not have the last changes: {error}")
        for timer in (self._lazy_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._is_over = True  # what is changed from now on is of no consequence
        self._worker.stop()
        self._store.close()

    def _commit_lazily(self) -> None:
        self._lazy_timer = None
        self._changes.is_urgent = True
        self._check()

    def _committed(self, _result: object, error: BaseException | None) -> None:
        batch = self._committing
        assert batch is not None
        self._committing = None
        waiters, self._this = self._this, []
        if error is not None:
            self._store_failed(error, batch, waiters)
            return
        self._committed_batch(batch)
        for waiter, _ in waiters:
            wake(waiter)
        self._check()
        if not self._changes.records:
            self._maintain()

    def _maintain(self) -> None:
        """Give back the space of a backlog, in steps between which commits have their turn."""
        store = self._store
        if store.wants_upkeep and not self._is_maintaining:
            self._is_maintaining = True
            self._worker.submit(store.maintain, self._maintained)

    def _maintained(self, has_more: object, error: BaseException | None) -> None:
        self._is_maintaining = False
        if error is not None and not isinstance(error, StoreError):
            raise error
        # After a failure the next commit fails too, and tells it.
        if has_more and not self._is_stopping and self._committing is None:
            self._maintain()

    def _store_failed(self, error: BaseException, batch: Changes, waiters: list[_Waiter]) -> None:
        if not isinstance(error, StoreError):
            # Whoever waits has to learn that nothing comes any more.
            _log.failure("the outbox has stopped by a defect", error)
            error = StoreError(f"the outbox has stopped by a defect: {error!r}")
        elif not isinstance(error, StoreCorrupt | StoreTooNew):
            self._suspend(error, batch, waiters)
            return
        # What the file holds is known only after it was mended, or read anew.
        self.failure = None
        for waiter, _ in waiters:
            fail(waiter, error)
        self._is_over = True
        self._damaged(error)

    # --- a file that fails for a time

    def _suspend(self, error: StoreError, batch: Changes, waiters: list[_Waiter]) -> None:
        """Refuse what was to be stored, and keep all else of a failed commit for another attempt.

        What the file has of it does not matter: it is committed again in whole.
        """
        if self.failure is None:
            _log.error(f"nothing can be stored in the outbox for now: {error}")
        self.failure = error
        changes = self._changes
        refused = self._refused(batch.stored + changes.stored, error)
        for changed in (batch, changes):
            changed.stored = []
            changed.records = [
                record for record in changed.records if not isinstance(record, StoreOutgoing)
            ]
        batch.records += [RemoveOutgoing(seq) for seq in refused]
        self._committing = batch
        for waiter, is_publish in [*waiters, *self._next]:
            if is_publish or self._is_stopping:
                fail(waiter, like(error))
        self._this = [one for one in waiters if not one[0].done()]
        self._next = [one for one in self._next if not one[0].done()]
        if not self._is_stopping:
            self._retry_timer = self._loop.call_later(self._retry_s, self._retry)
            self._retry_s = min(2 * self._retry_s, RETRY_MAX_S)
        self._check()

    def _retry(self) -> None:
        """Open the file anew and commit what waits."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
            self._retry_timer = None
        batch, store = self._committing, self._store
        if self._is_retrying or batch is None:
            return
        self._is_retrying = True

        def commit_again() -> None:
            store.reopen()
            store.commit(batch.records)

        self._worker.submit(commit_again, self._retried)

    def _retried(self, _result: object, error: BaseException | None) -> None:
        self._is_retrying = False
        if error is None:
            _log.info("the outbox can be written again")
            self.failure = None
            self._retry_s = RETRY_MIN_S
        self._committed(None, error)


async def open_outbox(path: Path) -> tuple[OutboxStore, LoadedOutbox]:
    """Open an outbox file and read all of it, on a thread: it may be large and its disk slow.

    Whatever fails, and if the caller is cancelled, nobody holds it afterwards. Raises StoreError.
    """
    # Here and not above: whoever has no outbox needs no SQLite.
    from holdfast.client import outbox

    opened: list[OutboxStore] = []

    def open_and_load() -> LoadedOutbox:
        file = outbox.OutboxFile(path)
        opened.append(file)
        return file.load()

    try:
        loaded = await on_thread("holdfast-outbox-opening", open_and_load)
    except BaseException:
        for store in opened:
            store.close()
        raise
    return opened[0], loaded


def like(error: HoldfastError) -> HoldfastError:
    """An error to be raised once more: an exception gathers all places where it was raised."""
    return type(error)(str(error)) if isinstance(error, StoreError) else error


def wake(waiter: "asyncio.Future[None]") -> None:
    """Let go on who waits, if somebody still does."""
    if not waiter.done():
        waiter.set_result(None)


def fail(waiter: "asyncio.Future[None]", error: BaseException) -> None:
    """Tell who waits, if somebody still does, that it was in vain."""
    if not waiter.done():
        waiter.set_exception(error)
