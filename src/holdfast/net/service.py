"""What the listeners serve: one driver after another, while the store fails and is opened anew.

``docs/internals/recovery.md`` says why it is done this way.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, final

from holdfast.auth.interface import Authenticator
from holdfast.broker.broker import Broker
from holdfast.broker.limits import Limits
from holdfast.broker.listener_rules import ListenerRules
from holdfast.errors import StoreCorrupt, StoreError
from holdfast.logs import get_logger
from holdfast.net.arrival import Arrival
from holdfast.net.connection import NetConnection
from holdfast.net.driver import Driver
from holdfast.net.gatekeeper import Gatekeeper
from holdfast.protocol.reason_codes import SERVER_UNAVAILABLE
from holdfast.store.interface import Store
from holdfast.store.memory import MemoryStore
from holdfast.store.records import Snapshot
from holdfast.worker import Worker

# Between two attempts to open the store. The first comes at once: an I/O error may be over.
PAUSE_S_MIN: Final = 0.1
PAUSE_S_MAX: Final = 5.0
STEADY_S: Final = 60.0  # a store that worked for so long begins with short pauses again
STOP_PATIENCE_S: Final = 5.0  # for an attempt under way when the process is to end

UNAVAILABLE: Final = "the store of the server has failed and is not available yet"

_log = get_logger(__name__)

# Opens the store that has failed so, or raises StoreError once more.
Reopen = Callable[[StoreError], Store]


@final
class Service:
    """Serves one store; ``protocol`` is for the listeners, whoever serves them at the moment.

    When the store has failed, the driver and its broker are thrown away: their state may be ahead
    of the disk. A stand-in refuses every client while ``reopen`` is tried on a thread of its own,
    until it gives a store that works. Without ``reopen`` such a failure ends the service, and
    where it ``is_strict`` a damaged store does. A defect ends it in any case. ``broker`` is what
    ``load`` has made of the store, and makes of one that is opened anew, on that thread too;
    ``make_room`` is called before that, when the old one is gone. For ``authenticators``,
    ``auth_threads`` and ``gatekeeper`` see ``Driver``.
    """

    def __init__(
        self,
        *,
        store: Store,
        broker: Broker,
        load: Callable[[Store, int], Broker],
        reopen: Reopen | None,
        make_room: Callable[[], None] | None = None,
        is_strict: bool = False,
        clock_ms: Callable[[], int],
        authenticators: Mapping[str, Authenticator],
        auth_threads: int = 0,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._load = load
        self._reopen = reopen
        self._make_room = make_room
        self._is_strict = is_strict
        self._clock_ms = clock_ms
        self._authenticators = authenticators
        self._auth_threads = auth_threads
        self._gatekeeper = gatekeeper
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._error: BaseException | None = None
        self._store_failed: asyncio.Future[StoreError] = self._loop.create_future()
        self._failed_driver: Driver | None = None
        self._pause_s = 0.0
        self._steady_since_s = self._loop.time()
        self._store: Store | None = store  # None while there is none that works
        self.session_count_at_start: Final = broker.sessions.count
        self._driver = self._drive(broker, store)

    def protocol(self, rules: ListenerRules, arrival: Arrival) -> NetConnection:
        """What speaks MQTT on a connection that a listener of these rules has taken in."""
        return self._driver.protocol(rules, arrival)

    def renew_identities(self) -> None:
        """Ask the authenticators anew about all clients: what they go by has changed."""
        self._driver.renew_identities()

    def note_memory(self, stage: int) -> None:
        """Take note how short memory is."""
        self._driver.note_memory(stage)

    async def run(self) -> None:
        """Serve until ``end`` is called or something fails for good; then ``stop`` it."""
        self._driver.start()
        while not self._ended.done():
            await asyncio.wait(
                (self._ended, self._store_failed), return_when=asyncio.FIRST_COMPLETED
            )
            if not self._ended.done():
                await self._recover(self._store_failed.result())

    def end(self, error: BaseException | None = None) -> None:
        """Let ``run`` come to its end, because of an error or because it is asked for."""
        if self._error is None:
            self._error = error
        if not self._ended.done():
            self._ended.set_result(None)

    async def stop(self) -> BaseException | None:
        """End all connections, commit what follows from that; ``close`` is left.

        Returns what has failed first, None if all went well.
        """
        if self._failed_driver is not None:
            self._failed_driver.release()
            # It failed at the very end: nobody has looked at it yet, and nobody has been told.
            if self._error is None:
                self._error = self._store_failed.result()
        await self._driver.stop()
        return self._error

    def close(self, patience_s: float) -> None:
        """Close the store, and wait so long for logins under way; it is stopped. On any thread."""
        if self._store is not None:
            self._store.close()
        self._driver.await_logins(patience_s)

    def _drive(self, broker: Broker, store: Store) -> Driver:
        return Driver(
            broker=broker,
            store=store,
            failed=self._failed,
            clock_ms=self._clock_ms,
            authenticators=self._authenticators,
            auth_threads=self._auth_threads,
            gatekeeper=self._gatekeeper,
        )

    def _failed(self, error: BaseException) -> None:
        """Take the report of the driver that serves: from here on it does not."""
        if (
            not isinstance(error, StoreError)
            or self._reopen is None
            or (self._is_strict and isinstance(error, StoreCorrupt))
            or self._ended.done()
        ):
            self.end(error)
            return
        self._failed_driver = self._driver
        # At once: whoever was accepted by a driver that has stopped would never get an answer.
        self._driver = self._stand_in()
        self._store_failed.set_result(error)

    def _stand_in(self) -> Driver:
        """A driver that refuses every client, and cannot fail but by a defect."""
        limits = Limits(redirect_code=SERVER_UNAVAILABLE, redirect_detail=UNAVAILABLE)
        broker = Broker(limits, Snapshot(), self._clock_ms(), instance="", version="")
        return Driver(
            broker=broker,
            store=MemoryStore(),
            failed=self.end,
            clock_ms=self._clock_ms,
            gatekeeper=self._gatekeeper,
        )

    # --- recovery

    async def _recover(self, failure: StoreError) -> None:
        """Serve again from the store on disk, or return when the service is ended."""
        # Of a damaged file that cannot be said: the repair tells what is lost.
        kept = (
            "" if isinstance(failure, StoreCorrupt) else ", nothing that was acknowledged is lost"
        )
        _log.error(
            f"the store has failed{kept}: {failure}; all connections were ended, and clients are"
            " refused until it works again"
        )
        failed_at_s = self._loop.time()
        if failed_at_s - self._steady_since_s > STEADY_S:
            self._pause_s = 0.0
        worker: Worker[tuple[Store, Broker] | None] = Worker("holdfast-recovery", self._loop)
        try:
            await self._on(worker, self._take_leftovers())
            if self._make_room is not None:
                self._make_room()  # here, as it may end handles
            opened = await self._open_until_it_works(worker, failure)
        except Exception as error:
            self.end(error)
            return
        finally:
            worker.leave()
        if opened is None:
            return
        store, broker = opened
        stand_in = self._driver
        self._store = store
        self._store_failed = self._loop.create_future()
        self._driver = self._drive(broker, store)
        self._driver.start()
        self._steady_since_s = self._loop.time()
        took_s = self._steady_since_s - failed_at_s
        _log.warning(
            f"the store works again after {took_s:.1f} s, clients are let in;"
            f" {store.description}; sessions: {broker.sessions.count}"
        )
        await stand_in.stop()

    def _take_leftovers(self) -> Callable[[], None]:
        """What closes the failed store; nothing else here refers to it, or to its broker."""
        driver, store = self._failed_driver, self._store
        assert driver is not None
        assert store is not None
        self._failed_driver = self._store = None
        return partial(_put_away, driver, store)

    async def _open_until_it_works(
        self, worker: Worker[tuple[Store, Broker] | None], failure: StoreError
    ) -> tuple[Store, Broker] | None:
        """Try again and again; None if the service is ended first."""
        while True:
            await asyncio.wait((self._ended,), timeout=self._pause_s)
            if self._ended.done():
                return None
            self._pause_s = min(max(2 * self._pause_s, PAUSE_S_MIN), PAUSE_S_MAX)
            try:
                opened = await self._on(worker, partial(self._open, self._clock_ms(), failure))
            except StoreError as error:
                if self._is_strict and isinstance(error, StoreCorrupt):
                    raise
                if str(error) != str(failure):
                    _log.error(f"the store cannot be used yet: {error}")
                failure = error
                continue
            if opened is not None and self._ended.done():
                opened[0].close()
                return None
            return opened

    def _open(self, now_ms: int, failure: StoreError) -> tuple[Store, Broker]:
        """Open the store and load it; on the thread for it."""
        assert self._reopen is not None
        store = self._reopen(failure)
        try:
            return store, self._load(store, now_ms)
        except BaseException:
            store.close()
            raise

    async def _on(
        self,
        worker: Worker[tuple[Store, Broker] | None],
        job: Callable[[], tuple[Store, Broker] | None],
    ) -> tuple[Store, Broker] | None:
        """The result of a job on a thread; None too if the process is to end and cannot wait."""
        done: asyncio.Future[tuple[Store, Broker] | None] = self._loop.create_future()
        worker.submit(job, partial(_settle, done))
        await asyncio.wait((done, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            await asyncio.wait((done,), timeout=STOP_PATIENCE_S)
        return done.result() if done.done() else None


def _put_away(driver: Driver, store: Store) -> None:
    """Close a store that has failed, once nobody uses it; nothing is written any more."""
    driver.release()
    store.close()


def _settle(
    future: "asyncio.Future[tuple[Store, Broker] | None]",
    result: tuple[Store, Broker] | None,
    error: BaseException | None,
) -> None:
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
