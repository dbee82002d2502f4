"""The broker in the test's own process: real driver and sockets, with parts that a test brings."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Self

import uvloop

from holdfast.auth.interface import Authenticator
from holdfast.broker.authentication import AuthReply, AuthRequest, grant
from holdfast.broker.broker import Broker
from holdfast.broker.limits import Limits
from holdfast.broker.listener_rules import common_rules
from holdfast.broker.refusals import RefusalCounters
from holdfast.config import ListenAddress, ListenerSettings
from holdfast.net.admission import AdmissionRules
from holdfast.net.clock import Clock
from holdfast.net.driver import Driver
from holdfast.net.gatekeeper import Gatekeeper
from holdfast.net.listener import listen
from holdfast.store.memory import MemoryStore
from tests.support.wire import PATIENCE_S


class Anyone:
    """An authenticator that lets everyone in."""

    methods: frozenset[str] = frozenset()

    def step(self, request: AuthRequest) -> AuthReply:
        return grant()


class LocalServer:
    """A server on a free port of 127.0.0.1, with its event loop on a thread of its own."""

    def __init__(
        self,
        authenticator: Authenticator,
        limits: Limits | None = None,
        admission: AdmissionRules | None = None,
    ) -> None:
        self.port = 0
        self._authenticator = authenticator
        self._admission = admission
        self.refusals = RefusalCounters()
        self._limits = Limits() if limits is None else limits
        self._failures: list[BaseException] = []
        self._loop = uvloop.new_event_loop()
        self._stop = asyncio.Event()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="local-server")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_ready.wait(PATIENCE_S), "the server does not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread.is_alive():
            self.stop()
        assert self._failures == []

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Have the event loop do something else for so long: it takes and hears nobody."""
        is_over = threading.Event()
        self._loop.call_soon_threadsafe(is_over.wait, PATIENCE_S)
        try:
            yield
        finally:
            is_over.set()

    def note_memory(self, stage: int) -> None:
        """Have the server take memory for so short, as one of ``broker/pressure.py``."""
        self._loop.call_soon_threadsafe(lambda: self._driver.note_memory(stage))

    def stop(self) -> None:
        """Stop as on SIGTERM."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server does not stop"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        store = MemoryStore()
        rules = common_rules(self._limits)
        rules.auth_methods = self._authenticator.methods
        clock = Clock()
        broker = Broker(self._limits, store.load(), clock(), "local", "test")
        gatekeeper = None
        if self._admission is not None:
            gatekeeper = Gatekeeper(self._admission, {}, self.refusals, self._loop.time)
        self._driver = driver = Driver(
            broker=broker,
            store=store,
            failed=self._failures.append,
            clock_ms=clock,
            authenticators={rules.name: self._authenticator},
            gatekeeper=gatekeeper,
            auth_threads=1,
        )
        settings = ListenerSettings(address=ListenAddress("127.0.0.1", 0))
        listener = await listen(settings, partial(driver.protocol, rules), gatekeeper=gatekeeper)
        address = listener.addresses[0]
        assert isinstance(address, ListenAddress)
        self.port = address.port
        driver.start()
        self._is_ready.set()
        await self._stop.wait()
        listener.close()
        await driver.stop()
        if gatekeeper is not None:
            gatekeeper.stop()
        store.close()
