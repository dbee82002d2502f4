"""A broker put together from its settings: the one place where its parts meet.

``holdfast serve`` gives it a process of its own, ``holdfast.Server`` lets it be a guest in one.
"""

import asyncio
import gc
import resource
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from holdfast import __version__
from holdfast.auth.building import Access, build_access
from holdfast.broker.broker import Broker
from holdfast.broker.limits import LOG_POLICIES, QUEUE_POLICIES, SLICE_PACKETS, Limits
from holdfast.broker.refusals import RefusalCounters
from holdfast.broker.shared_group import SHARED_STRATEGIES
from holdfast.config import (
    Address,
    ServerRedirect,
    Settings,
    check_reach,
    check_settings,
    warnings,
)
from holdfast.errors import ConfigError, StoreCorrupt, StoreError
from holdfast.logs import get_logger
from holdfast.net.certificates import Certificates, certificates_of
from holdfast.net.clock import Clock
from holdfast.net.gatekeeper import Gatekeeper, gatekeeper_of
from holdfast.net.listener import Listener, all_gone, listen, rules_of
from holdfast.net.overload import (
    Overload,
    give_memory_back,
    memory_of_machine,
    memory_of_process,
)
from holdfast.net.service import Reopen, Service
from holdfast.net.watching import Reloader, Watcher
from holdfast.protocol.reason_codes import SERVER_MOVED, USE_ANOTHER_SERVER
from holdfast.store.folder import too_open
from holdfast.store.interface import Store
from holdfast.store.lock import DataLock
from holdfast.store.memory import MemoryStore
from holdfast.store.opening import StoreOpener
from holdfast.store.sqlite import FILE_NAME

# What a guest waits for when it is stopped, so that nothing of it is left in the process: peers
# that do not close their connections, and answers of authenticators.
LINGER_S: Final = 1.0

_REDIRECT_CODES: Final[dict[ServerRedirect, int]] = {
    "none": 0,
    "use_another_server": USE_ANOTHER_SERVER,
    "server_moved": SERVER_MOVED,
}

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Doorkeeping:
    """What decides who may connect, with all of its files read."""

    access: Access
    certificates: dict[str, Certificates]
    watcher: Watcher


def read_doorkeeping(settings: Settings) -> Doorkeeping:
    """What the settings ask for; close its ``access`` in the end. Raises ConfigError."""
    access = build_access(settings)
    try:
        certificates = certificates_of(settings)
        # Before the files are read: it has to find what changes from here on.
        watcher = Watcher([*access.parts, *certificates.values()], access.has_news)
        access.read()
        for part in certificates.values():
            part.reload()
    except BaseException:
        access.close()
        raise
    return Doorkeeping(access, certificates, watcher)


@final
class Assembly:
    """One broker, opened: ``run`` it on an event loop until ``end``, then ``close`` it.

    To make and to close one blocks, on whatever thread. One that ``owns_process`` has the garbage
    collector leave its objects alone and watches over the memory of the machine, and what it leaves
    behind ends with the process; any other leaves the process as it was. ``addresses`` are where
    the listeners bind, if not where the settings have it; ``memory`` is what is served if the
    settings ask for no durable store.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        owns_process: bool,
        addresses: Sequence[Address] | None = None,
        memory: MemoryStore | None = None,
    ) -> None:
        """Read the files, open the store, load the broker.

        Raises ConfigError, StoreError or OSError, and then nothing stays open.
        """
        self.settings: Final = settings
        self.listeners: Final[list[Listener]] = []
        self._owns_process = owns_process
        self._addresses = addresses
        self._clock = Clock()
        self._refusals = RefusalCounters()
        self._service: Service | None = None
        self._reloader: Reloader | None = None
        self._is_ended = False
        self._is_clean = True  # the store was closed with nothing open and nothing wrong
        check_settings(settings)
        for warning in warnings(settings):
            _log.warning(str(warning))
        with ExitStack() as opened:
            self._doorkeeping = read_doorkeeping(settings)
            opened.callback(self._doorkeeping.access.close)
            titles = [listener.title for listener in settings.all_listeners]
            for text in self._doorkeeping.access.advice(titles):
                _log.warning(text)
            self._opener: StoreOpener | None = None  # of a durable store
            if settings.store == "memory":
                self._store: Store = MemoryStore() if memory is None else memory
                self._broker = self._load(self._store, self._clock())
            else:
                lock = DataLock(settings.data_dir)
                opened.callback(lock.release)
                self._opener = StoreOpener(settings.data_dir, strict=settings.store_strict)
                for text in too_open(settings.data_dir, settings.data_dir / FILE_NAME):
                    _log.warning(text)
                self._store, self._broker = self._open_store(self._opener)
            self._opened = opened.pop_all()

    def end(self) -> None:
        """Let ``run`` come to its end, now or as soon as it has begun."""
        self._is_ended = True
        if self._service is not None:
            self._service.end()

    def reload(self) -> None:
        """Read the files anew that decide who may connect."""
        if self._reloader is not None:
            self._reloader.reload()

    def cut_connections(self) -> None:
        """End all connections as a network does that fails: without a word."""
        for listener in self.listeners:
            listener.abort_all()

    def close(self) -> None:
        """Let go of everything; it does not run any more, or never did."""
        linger_s = 0.0 if self._owns_process else LINGER_S
        self._store.close()
        if self._service is not None:
            self._service.close(linger_s)
        if self._opener is not None and self._is_clean:
            self._opener.mark_closed()
        if self._reloader is not None:
            self._reloader.await_thread(linger_s)
        self._opened.close()

    async def run(self, ready: Callable[[str, int], None]) -> BaseException | None:
        """Serve until ``end``, or until something fails for good, which is logged and returned.

        ``ready`` is told when clients are let in, with the store's description and the number of
        sessions in it. Raises ConfigError or OSError if a listener cannot be opened.
        """
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        clock_s = asyncio.get_running_loop().time
        gatekeeper = gatekeeper_of(self.settings, self._refusals, files=files, clock_s=clock_s)
        service = self._service = self._make_service(gatekeeper)
        overload = self._make_overload(service, gatekeeper)
        if self._doorkeeping.watcher.has_parts:
            self._reloader = Reloader(self._doorkeeping.watcher, self._files_changed)
        if self._is_ended:
            service.end()
        not_begun: ConfigError | OSError | None = None
        try:
            await self._listen(service, gatekeeper)
            overload.start()
            ready(self._store.description, service.session_count_at_start)
            await service.run()
        except (ConfigError, OSError) as error:
            not_begun = error
        finally:
            failure = await self._stop(service)
            gatekeeper.stop()
            overload.stop()
        if failure is None and not_begun is not None:
            raise not_begun
        _report_end(failure)
        return failure

    # --- the store

    def _open_store(self, opener: StoreOpener) -> tuple[Store, Broker]:
        """Open the store of the data folder, repaired first if it is damaged, and load it."""
        try:
            return self._load_opened(opener, opener.open())
        except StoreCorrupt:
            if opener.was_repaired:
                raise
        # Met while the sessions were loaded, in a store that had not been looked at whole.
        return self._load_opened(opener, opener.open(distrust=True))

    def _load_opened(self, opener: StoreOpener, store: Store) -> tuple[Store, Broker]:
        try:
            return store, self._load(store, self._clock())
        except BaseException as error:
            store.close()
            if isinstance(error, KeyboardInterrupt):
                # The store is sound and closed: the next start need not look for damage.
                opener.mark_closed()
            raise

    def _load(self, store: Store, now_ms: int) -> Broker:
        if not self._owns_process:
            return self._make_broker(store, now_ms)
        # Millions of objects, and none of them rubbish: looking at all of them again and again
        # would take half of the start.
        gc.disable()
        try:
            return self._make_broker(store, now_ms)
        finally:
            gc.freeze()
            gc.enable()

    def _make_broker(self, store: Store, now_ms: int) -> Broker:
        return Broker(
            limits_of(self.settings),
            store.load(),
            now_ms,
            instance=secrets.token_hex(4),
            version=f"holdfast {__version__}",
            refusals=self._refusals,
        )

    # --- the run

    def _make_service(self, gatekeeper: Gatekeeper) -> Service:
        reopen: Reopen | None = None
        if self._opener is not None and self.settings.store_recovery == "retry":
            reopen = self._opener.open_again
        return Service(
            store=self._store,
            broker=self._broker,
            load=self._load,
            reopen=reopen,
            make_room=_make_room if self._owns_process else None,
            is_strict=self.settings.store_strict,
            clock_ms=self._clock,
            authenticators=self._doorkeeping.access.chains,
            auth_threads=self.settings.auth_threads,
            gatekeeper=gatekeeper,
        )

    def _make_overload(self, service: Service, gatekeeper: Gatekeeper) -> Overload:
        memory_bytes = self.settings.memory_max_bytes
        if memory_bytes == 0 and self._owns_process:
            memory_bytes = memory_of_machine()
        return Overload(
            memory_bytes=memory_bytes,
            gatekeeper=gatekeeper,
            note_memory=service.note_memory,
            counters=self._refusals,
            used_bytes=memory_of_process,
            trim=give_memory_back,
        )

    async def _listen(self, service: Service, gatekeeper: Gatekeeper) -> None:
        access, settings = self._doorkeeping.access, self.settings
        for index, listening in enumerate(settings.all_listeners):
            authenticator = access.chains.get(listening.title)
            methods = None if authenticator is None else authenticator.methods
            rules = rules_of(listening, settings, methods)
            listener = await listen(
                listening,
                partial(service.protocol, rules),
                certificates=self._doorkeeping.certificates.get(listening.title),
                gatekeeper=gatekeeper,
                address=None if self._addresses is None else self._addresses[index],
            )
            self.listeners.append(listener)
            check_reach(settings, listening, listener.addresses)

    def _files_changed(self) -> None:
        for listener in self.listeners:
            listener.end_revoked()
        if self._service is not None:
            self._service.renew_identities()

    async def _stop(self, service: Service) -> BaseException | None:
        """Close the listeners, end all connections and the threads; what has failed first."""
        self._is_clean = False
        for listener in self.listeners:
            listener.close()
        if self._reloader is not None:
            self._reloader.stop()
        failure = await service.stop()
        if not self._owns_process:
            await all_gone(self.listeners, LINGER_S)
        self._is_clean = failure is None
        return failure


def _make_room() -> None:
    """Before another broker is loaded: two of them in memory may be one too many."""
    gc.unfreeze()
    gc.collect()


def _report_end(failure: BaseException | None) -> None:
    if failure is None:
        _log.info("stopped")
    elif isinstance(failure, StoreError):
        _log.error(f"stopped, nothing more was acknowledged: {failure}")
    else:
        _log.failure("stopped by a defect, nothing more was acknowledged", failure)


def limits_of(settings: Settings) -> Limits:
    """The limits that the broker itself keeps."""
    return Limits(
        packet_bytes_max=settings.packet_bytes_max,
        receive_maximum=settings.receive_maximum,
        in_flight_max=settings.inflight_max,
        session_expiry_max_s=settings.session_expiry_max_s,
        keep_alive_max_s=settings.keep_alive_max_s,
        connect_timeout_ms=int(settings.connect_timeout_s * 1000),
        shared_strategy=SHARED_STRATEGIES.index(settings.shared_strategy),
        sys_interval_ms=settings.sys_interval_s * 1000,
        delayed_seconds_max=settings.delayed_seconds_max,
        delayed_messages_max=settings.delayed_messages_max,
        delayed_bytes_max=settings.delayed_bytes_max,
        topic_alias_maximum=settings.topic_alias_maximum,
        maximum_qos=settings.maximum_qos,
        is_retain_available=settings.retain_available,
        check_payload_format=settings.check_payload_format,
        response_information=settings.response_information,
        server_reference=settings.server_reference,
        session_expiry_default_s=settings.session_expiry_default_s,
        sessions_max=settings.sessions_max,
        subscriptions_max=settings.subscriptions_max,
        queued_messages_max=settings.queued_messages_max,
        queued_bytes_max=settings.queued_bytes_max,
        queue_policy=QUEUE_POLICIES.index(settings.queue_policy),
        log_messages_max=settings.log_messages_max,
        log_bytes_max=settings.log_bytes_max,
        log_policy=LOG_POLICIES.index(settings.log_policy),
        log_age_max_s=settings.log_age_max_s,
        disk_free_min_bytes=settings.disk_free_min_bytes,
        retained_messages_max=settings.retained_messages_max,
        retained_bytes_max=settings.retained_bytes_max,
        slice_packets=SLICE_PACKETS,
        client_connects_max=settings.client_connects_max,
        client_takeovers_max=settings.client_takeovers_max,
        client_window_ms=settings.client_window_s * 1000,
        topic_levels_max=settings.topic_levels_max,
        topic_bytes_max=settings.topic_bytes_max,
        redirect_code=_REDIRECT_CODES[settings.server_redirect],
        narrows_subscriptions=settings.acl_wide_subscriptions == "narrow",
        ends_denied_before_v5=settings.acl_denied_publish_v311 == "disconnect",
    )
