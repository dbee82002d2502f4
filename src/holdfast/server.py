"""The server: the one place where store, broker, driver and listeners are put together."""

import asyncio
import gc
import json
import resource
import secrets
import signal
import sys
from functools import partial
from types import FrameType
from typing import Final

import uvloop

from holdfast import __version__
from holdfast.auth.building import Access, build_access
from holdfast.broker.broker import Broker
from holdfast.broker.limits import LOG_POLICIES, QUEUE_POLICIES, SLICE_PACKETS, Limits
from holdfast.broker.refusals import RefusalCounters
from holdfast.broker.shared_group import SHARED_STRATEGIES
from holdfast.config import ServerRedirect, Settings, check_reach, check_settings, warnings
from holdfast.errors import ConfigError, StoreCorrupt, StoreError
from holdfast.logs import get_logger, setup_logging
from holdfast.net.certificates import Certificates, certificates_of
from holdfast.net.clock import Clock
from holdfast.net.gatekeeper import gatekeeper_of
from holdfast.net.listener import Listener, listen, rules_of
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

# The writer thread asks for the interpreter a few times per commit. With Python's 5 ms, a busy
# event loop would keep each commit waiting that long.
SWITCH_INTERVAL_S: Final = 0.0005
# Messages and packets are in no reference cycles, so the collector finds nothing among them: let
# it look rarely, and never at what is there from the start.
GC_ALLOCATIONS: Final = 50_000

_REDIRECT_CODES: Final[dict[ServerRedirect, int]] = {
    "none": 0,
    "use_another_server": USE_ANOTHER_SERVER,
    "server_moved": SERVER_MOVED,
}

EXIT_STOPPED: Final = 0
EXIT_FAILED: Final = 1
EXIT_STORE: Final = 4

_log = get_logger(__name__)


def run(settings: Settings) -> int:
    """Run a broker until SIGTERM or SIGINT, and return the exit code of the process.

    Raises ConfigError, StoreError or OSError if it cannot start.
    """
    setup_logging(level=settings.log_level, as_json=settings.log_json, stream=sys.stderr)
    # Until the event loop has the signals. A start may take its time, with a large store, and the
    # first process of a container has no handlers but its own: SIGTERM would not reach it. SIGHUP
    # would end it, and asks for what a start does anyway.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(settings)
    except KeyboardInterrupt:
        _log.info("stopped before it was ready")
        return EXIT_STOPPED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(settings: Settings) -> int:
    check_settings(settings)
    for warning in warnings(settings):
        _log.warning(str(warning))
    _raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    access, certificates, watcher = _read_parts(settings)
    for text in access.advice([listener.title for listener in settings.all_listeners]):
        _log.warning(text)
    try:
        if settings.store == "memory":
            _log.warning("--store memory: nothing survives the end of this process")
            return _run_on(settings, access, certificates, watcher, MemoryStore(), None)
        lock = DataLock(settings.data_dir)
        try:
            return _run_on_disk(settings, access, certificates, watcher)
        finally:
            lock.release()
    finally:
        access.close()


def examine(settings: Settings) -> list[str]:
    """Read all that a start reads before it opens anything, and return what to warn of.

    Raises ConfigError.
    """
    check_settings(settings)
    access, *_ = _read_parts(settings)
    access.close()
    listeners = [listener.title for listener in settings.all_listeners]
    return [*map(str, warnings(settings)), *access.advice(listeners)]


def _read_parts(settings: Settings) -> tuple[Access, dict[str, Certificates], Watcher]:
    """What decides who may connect, with all of its files read. Raises ConfigError."""
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
    return access, certificates, watcher


def _run_on_disk(
    settings: Settings, access: Access, certificates: dict[str, Certificates], watcher: Watcher
) -> int:
    """Run on the store of the data folder, which is repaired first if it is damaged."""
    opener = StoreOpener(settings.data_dir, strict=settings.store_strict)
    reopen = opener.open_again if settings.store_recovery == "retry" else None
    for text in too_open(settings.data_dir, settings.data_dir / FILE_NAME):
        _log.warning(text)
    run_on = partial(_run_on_opened, opener, settings, access, certificates, watcher)
    try:
        code = run_on(opener.open(), reopen)
    except StoreCorrupt:
        if opener.was_repaired:
            raise
        # Met while the sessions were loaded, in a store that had not been looked at whole.
        code = run_on(opener.open(distrust=True), reopen)
    if code == EXIT_STOPPED:
        opener.mark_closed()
    return code


def _run_on_opened(
    opener: StoreOpener,
    settings: Settings,
    access: Access,
    certificates: dict[str, Certificates],
    watcher: Watcher,
    store: Store,
    reopen: Reopen | None,
) -> int:
    try:
        return _run_on(settings, access, certificates, watcher, store, reopen)
    except (ConfigError, OSError, KeyboardInterrupt):
        # It has not begun, and the store is closed: the next start need not look for damage.
        opener.mark_closed()
        raise


def _run_on(
    settings: Settings,
    access: Access,
    certificates: dict[str, Certificates],
    watcher: Watcher,
    store: Store,
    reopen: Reopen | None,
) -> int:
    try:
        return uvloop.run(_serve(settings, access, certificates, watcher, store, reopen))
    finally:
        store.close()


async def _serve(
    settings: Settings,
    access: Access,
    certificates: dict[str, Certificates],
    watcher: Watcher,
    store: Store,
    reopen: Reopen | None,
) -> int:
    loop = asyncio.get_running_loop()
    gc.set_threshold(GC_ALLOCATIONS)
    clock = Clock()
    refusals = RefusalCounters()

    def make_broker(loaded_from: Store, now_ms: int) -> Broker:
        # Millions of objects, and none of them rubbish: looking at all of them again and again
        # would take half of the start.
        gc.disable()
        try:
            return Broker(
                _limits(settings),
                loaded_from.load(),
                now_ms,
                instance=secrets.token_hex(4),
                version=f"holdfast {__version__}",
                refusals=refusals,
            )
        finally:
            gc.freeze()
            gc.enable()

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    gatekeeper = gatekeeper_of(settings, refusals, files=files, clock_s=loop.time)
    service = Service(
        store=store,
        make_broker=make_broker,
        reopen=reopen,
        is_strict=settings.store_strict,
        clock_ms=clock,
        authenticators=access.chains,
        auth_threads=settings.auth_threads,
        gatekeeper=gatekeeper,
    )
    overload = Overload(
        memory_bytes=settings.memory_max_bytes or memory_of_machine(),
        gatekeeper=gatekeeper,
        note_memory=service.note_memory,
        counters=refusals,
        used_bytes=memory_of_process,
        trim=give_memory_back,
    )
    listeners: list[Listener] = []

    def changed() -> None:
        for listener in listeners:
            listener.end_revoked()
        service.renew_identities()

    reloader = Reloader(watcher, changed)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end)
    loop.add_signal_handler(signal.SIGHUP, reloader.reload)
    not_begun: ConfigError | OSError | None = None
    try:
        for listening in settings.all_listeners:
            authenticator = access.chains.get(listening.title)
            methods = None if authenticator is None else authenticator.methods
            rules = rules_of(listening, settings, methods)
            listener = await listen(
                listening,
                partial(service.protocol, rules),
                certificates=certificates.get(listening.title),
                gatekeeper=gatekeeper,
            )
            listeners.append(listener)
            check_reach(settings, listening, listeners[-1].addresses)
        overload.start()
        _announce(settings, store, service, listeners)
        await service.run()
    except (ConfigError, OSError) as error:
        not_begun = error
    finally:
        for listener in listeners:
            listener.close()
        reloader.stop()
        failure = await service.stop()
        gatekeeper.stop()
        overload.stop()
    if not_begun is not None and failure is None:
        raise not_begun
    if failure is None:
        _log.info("stopped")
        return EXIT_STOPPED
    if isinstance(failure, StoreError):
        _log.error(f"stopped, nothing more was acknowledged: {failure}")
        return EXIT_STORE
    _log.failure("stopped by a defect, nothing more was acknowledged", failure)
    return EXIT_FAILED


def _limits(settings: Settings) -> Limits:
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


def _announce(
    settings: Settings, store: Store, service: Service, listeners: list[Listener]
) -> None:
    """Say that the broker is ready: one line, for people and for scripts that wait for it."""
    addresses = [title for listener in listeners for title in listener.titles]
    if settings.log_json:
        line = json.dumps(
            {"event": "ready", "version": __version__, "listen": addresses}
            | {"store": store.description, "sessions": service.session_count_at_start}
        )
    else:
        line = (
            f"holdfast {__version__} ready on {', '.join(addresses)}; "
            f"store: {store.description}; sessions: {service.session_count_at_start}"
        )
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def _raise_file_limit() -> None:
    """Allow as many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
