"""A broker inside the caller's process: in an event loop, or beside code that has none."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, final

import uvloop

from holdfast.assembly import Assembly
from holdfast.config import Address, ListenAddress, Settings, UnixAddress, settings_of
from holdfast.errors import UsageError
from holdfast.logs import get_logger
from holdfast.loop_thread import LoopThread
from holdfast.net.listener import Listener
from holdfast.store.memory import MemoryStore
from holdfast.worker import on_thread, until_done

__all__ = ["Server", "SyncServer"]

HOST: Final = "127.0.0.1"

_SCHEMES: Final = {
    # Whether there are TLS and WebSocket.
    (False, False): "mqtt",
    (True, False): "mqtts",
    (False, True): "ws",
    (True, True): "wss",
}
# What stands for all addresses of a machine, and the one of them that a client here can use.
_ANY: Final = {"0.0.0.0": HOST, "::": "::1"}

_log = get_logger(__name__)


@final
class Server:
    """A broker on the event loop that starts it: ``async with Server() as server: server.url``.

    It listens at ``host``, which is 127.0.0.1, on ``port``, which is any free one, and keeps
    everything in memory; with ``data_dir`` in that folder, durable. ``settings`` are those of the
    configuration file, ``{"maximum_qos": 1}`` for instance, or a ``holdfast.config.Settings``; they
    may have listeners and a store of their own in the place of these three.

    It can be stopped and started again: on the same ports and with the same data, in memory as
    well. It leaves the process as it is: no signal handlers, no set-up of logging, no other limits.
    It logs to the logger ``holdfast``.
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        settings: Settings | Mapping[str, object] | None = None,
    ) -> None:
        """Raises ConfigError for settings that are wrong, UsageError for two that exclude each
        other. Nothing is opened before ``start``.
        """
        self._settings = _settings(host, port, data_dir, settings)
        self._memory = MemoryStore()  # what there is without a durable store
        self._task: asyncio.Task[BaseException | None] | None = None
        self._assembly: Assembly | None = None  # while it runs
        self._is_ending = False
        self._addresses: list[Address] | None = None  # of all listeners, once it has run
        self._urls: tuple[str, ...] = ()
        self._is_entered = False
        self._held: list[socket.socket] = []

    async def __aenter__(self) -> Self:
        await self.start()
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_entered = False
        try:
            await self.stop()
        finally:
            self._release_ports()

    @property
    def url(self) -> str:
        """Where clients find it, ``mqtt://127.0.0.1:40123`` for instance: its first listener."""
        return self.urls[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """Those of all listeners, in the order of the settings."""
        if not self._urls:
            raise UsageError("the server has no address before it is started")
        return self._urls

    @property
    def port(self) -> int:
        """The TCP port of its first listener; 0 for a Unix socket."""
        return self.ports[0]

    @property
    def ports(self) -> tuple[int, ...]:
        """Those of all listeners, in the order of the settings."""
        if self._addresses is None:
            raise UsageError("the server has no port before it is started")
        return tuple(
            address.port if isinstance(address, ListenAddress) else 0 for address in self._addresses
        )

    @property
    def is_running(self) -> bool:
        """Whether it serves clients."""
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Start it; clients can connect when this returns.

        Raises ConfigError, StoreError or OSError if it cannot start, StoreLocked for instance if
        another broker has the folder.
        """
        if self._task is not None:
            raise UsageError("the server was started before, and not stopped")
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_ending = False
        self._task = asyncio.create_task(self._live(ready), name="holdfast-server")
        try:
            await asyncio.wait((ready, self._task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._end()
            raise
        if not ready.done():
            task, self._task = self._task, None
            task.result()
        self._release_ports()

    async def stop(self) -> None:
        """Stop it: clients are told and disconnected, what they were promised is kept.

        Raises what ended it before, if it has failed. One that is not running is left as it is.
        """
        await self._stop(keeps_ports=self._is_entered)

    async def restart(self) -> None:
        """Stop it and start it again, on the same ports and with the same data."""
        await self._stop(keeps_ports=True)
        await self.start()

    async def wait(self) -> None:
        """Wait until it is stopped, or raise what ended it."""
        task = self._task
        if task is not None:
            await asyncio.wait((task,))
            _raise(task)

    def cut_connections(self) -> None:
        """End all connections as a network that fails: without a word, so wills are published."""
        if self._assembly is not None:
            self._assembly.cut_connections()

    # --- the life of one start

    async def _live(self, ready: "asyncio.Future[None]") -> BaseException | None:
        try:
            await self._blocking("holdfast-opening", self._open)
            assembly = self._assembly
            if assembly is None or self._is_ending:
                return None
            return await assembly.run(partial(self._became_ready, assembly, ready))
        finally:
            if self._assembly is not None:
                await self._blocking("holdfast-closing", self._assembly.close)
                self._assembly = None

    async def _blocking(self, name: str, job: Callable[[], None]) -> None:
        """Do what may take a while on a thread; all else takes less than a thread."""
        if _reads_files(self._settings):
            await on_thread(name, job)
        else:
            job()

    def _open(self) -> None:
        self._assembly = Assembly(
            self._settings,
            owns_process=False,
            addresses=self._addresses,
            memory=self._memory,
        )

    def _became_ready(
        self, assembly: Assembly, ready: "asyncio.Future[None]", store: str, sessions: int
    ) -> None:
        listeners = assembly.listeners
        self._addresses = [_with_port(listener) for listener in listeners]
        self._urls = tuple(_url(listener) for listener in listeners)
        titles = ", ".join(title for listener in listeners for title in listener.titles)
        _log.info(f"ready on {titles}; store: {store}; sessions: {sessions}")
        if not ready.done():
            ready.set_result(None)

    async def _stop(self, *, keeps_ports: bool) -> None:
        task = self._task
        if task is None:
            return
        await self._end()
        if keeps_ports:
            self._hold_ports()
        _raise(task)

    async def _end(self) -> None:
        """End the task, also if the caller is cancelled meanwhile."""
        self._is_ending = True
        if self._assembly is not None:
            self._assembly.end()
        assert self._task is not None
        try:
            await until_done(self._task)
        finally:
            self._task = None

    # --- ports

    def _hold_ports(self) -> None:
        """Keep the ports for the next start: bound, so that no outgoing connection is given one.

        Nobody listens there, so connecting fails, and the next start can bind beside it.
        """
        for address in self._addresses or ():
            if isinstance(address, ListenAddress):
                family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
                held = socket.socket(family, socket.SOCK_STREAM)
                self._held.append(held)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    held.bind((address.host, address.port))
                except OSError:
                    pass  # taken already: the next start will say so

    def _release_ports(self) -> None:
        for held in self._held:
            held.close()
        self._held.clear()


@final
class SyncServer:
    """``Server`` for code without an event loop: the same names, all of which block.

    ``with SyncServer() as server: server.url``. The broker runs on a thread of its own; what is
    called here may be called from any thread.
    """

    def __init__(
        self,
        *,
        host: str | None = None,
        port: int | None = None,
        data_dir: str | os.PathLike[str] | None = None,
        settings: Settings | Mapping[str, object] | None = None,
    ) -> None:
        """See ``Server``."""
        self._server = Server(host=host, port=port, data_dir=data_dir, settings=settings)
        self._thread: LoopThread | None = None
        self._is_entered = False

    def __enter__(self) -> Self:
        self._begin(self._server.__aenter__())
        self._is_entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_entered = False
        self._finish(self._server.__aexit__(kind, error, trace))

    @property
    def url(self) -> str:
        """See ``Server``."""
        return self._server.url

    @property
    def urls(self) -> tuple[str, ...]:
        """See ``Server``."""
        return self._server.urls

    @property
    def port(self) -> int:
        """See ``Server``."""
        return self._server.port

    @property
    def ports(self) -> tuple[int, ...]:
        """See ``Server``."""
        return self._server.ports

    @property
    def is_running(self) -> bool:
        """See ``Server``."""
        return self._server.is_running

    def start(self) -> None:
        """See ``Server``."""
        self._begin(self._server.start())

    def stop(self) -> None:
        """See ``Server``."""
        self._finish(self._server.stop())

    def restart(self) -> None:
        """See ``Server``."""
        self._begin(self._server.restart())

    def wait(self) -> None:
        """See ``Server``."""
        if self._thread is not None:
            self._thread.run(self._server.wait())

    def cut_connections(self) -> None:
        """See ``Server``."""
        if self._thread is not None:
            self._thread.run(self._cut_connections())

    async def _cut_connections(self) -> None:
        self._server.cut_connections()

    def _begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Do this on the thread, which is made if it is missing, and ends if nothing runs then."""
        if self._thread is None:
            self._thread = LoopThread("holdfast-server", uvloop.new_event_loop)
        try:
            self._thread.run(work)
        finally:
            self._leave_thread()

    def _finish(self, work: Coroutine[Any, Any, object]) -> None:
        if self._thread is None:
            work.close()  # nothing runs, and nothing is held
            return
        try:
            self._thread.run(work)
        finally:
            self._leave_thread()

    def _leave_thread(self) -> None:
        """End the thread when nothing runs there that another call will stop."""
        if self._thread is not None and not self._is_entered and self._server._task is None:
            self._thread.close()
            self._thread = None


def _settings(
    host: str | None,
    port: int | None,
    data_dir: str | os.PathLike[str] | None,
    settings: Settings | Mapping[str, object] | None,
) -> Settings:
    """The settings as given, with what a guest has instead of the defaults."""
    values: dict[str, object]
    if isinstance(settings, Settings):
        values = {key: getattr(settings, key) for key in settings.model_fields_set}
    else:
        values = dict(settings or {})
    if host is not None or port is not None:
        _exclude(values, "host and port", "listen", "listeners")
    if data_dir is not None:
        _exclude(values, "data_dir", "data_dir", "store")
        values["data_dir"] = os.fspath(data_dir)
    if not values.keys() & {"listen", "listeners"}:
        values["listen"] = [str(ListenAddress(host or HOST, port or 0))]
    if not values.keys() & {"data_dir", "store"}:
        values["store"] = "memory"
    return settings_of(values, "settings")


def _reads_files(settings: Settings) -> bool:
    """Whether there is anything that a disk, or somebody else's code, can hold up."""
    return (
        settings.store != "memory"
        or settings.acl_file is not None
        or bool(settings.authenticators or settings.authorizers or settings.listeners)
    )


def _exclude(values: Mapping[str, object], argument: str, *keys: str) -> None:
    for key in keys:
        if key in values:
            raise UsageError(f"expected {argument}, or {key} in the settings, not both")


def _with_port(listener: Listener) -> Address:
    """Where to listen the next time: there, on the port that it has got now."""
    address, bound = listener.settings.address, listener.addresses[0]
    if isinstance(address, ListenAddress) and isinstance(bound, ListenAddress):
        return replace(address, port=bound.port)
    return address


def _url(listener: Listener) -> str:
    settings, bound = listener.settings, listener.addresses[0]
    if isinstance(bound, UnixAddress):
        return f"unix://{os.path.abspath(bound.path)}"
    scheme = _SCHEMES[settings.tls is not None, settings.websocket is not None]
    path = "" if settings.websocket is None else settings.websocket.path
    return f"{scheme}://{ListenAddress(_ANY.get(bound.host, bound.host), bound.port)}{path}"


def _raise(task: "asyncio.Task[BaseException | None]") -> None:
    """Raise what has ended a task that is done, if it is not what was asked for."""
    failure = task.result()
    if failure is not None:
        raise failure
