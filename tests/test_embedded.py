"""The broker inside a process that is not its own: it serves, it goes, and it leaves no trace."""

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

import holdfast
from holdfast import ConfigError, Server, StoreError, StoreLocked, SyncServer, UsageError, assembly
from holdfast.assembly import Assembly
from holdfast.auth.passwords import new_hash
from holdfast.broker.broker import Broker
from holdfast.config import ListenAddress, ListenerSettings, Settings
from holdfast.net.connection import NetConnection
from holdfast.store.memory import MemoryStore
from holdfast.store.records import Batch
from tests.support import packets
from tests.support.clients import Paho
from tests.support.listening import Authority, tls_wire, unix_wire
from tests.support.packets import CONNACK, DISCONNECT, V5, V311, Will
from tests.support.websocket import request
from tests.support.wire import PATIENCE_S, Closed, Wire, contents, say

MAXIMUM_QOS: Final = 0x24
SERVER_SHUTTING_DOWN: Final = 0x8B
BAD_USER_NAME_OR_PASSWORD: Final = 0x86

# Runs a coroutine on an event loop made for it.
Run = Callable[[Coroutine[Any, Any, None]], None]


def run_on_asyncio(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work, debug=True)


@pytest.fixture(params=[run_on_asyncio, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """The test runs once on each kind of event loop."""
    chosen: Run = request.param
    return chosen


async def talk(job: Callable[[], object]) -> None:
    """Do what blocks while the broker has its event loop."""
    await asyncio.to_thread(job)


def greet(port: int) -> None:
    """A client that connects, and goes."""
    with Wire(port, V5) as wire:
        wire.hello("greeting", clean=True)
        wire.goodbye()


def exchange(port: int) -> None:
    """A client that publishes to itself."""
    with Wire(port, V311) as wire:
        wire.hello("exchange", clean=True)
        wire.subscribe("a/+", 2)
        wire.publish("a/b", b"1", 2)
        assert contents(wire.messages(1)) == [b"1"]
        wire.goodbye()


def refused(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


def code_of(port: int, user: str | None, password: str | None) -> int:
    with Wire(port, V5) as wire:
        wire.send(packets.connect("login", V5, user=user, password=password))
        return wire.expect(CONNACK).code


def traces() -> dict[str, object]:
    """What a process has one of, and what grows where something is left behind."""
    root = logging.getLogger()
    own = logging.getLogger("holdfast")
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "collector": (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()),
        "switch interval": sys.getswitchinterval(),
        "logging": (root.level, list(root.handlers), own.level, list(own.handlers)),
        "limits": [resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE,)],
        "working directory": os.getcwd(),
        "threads": set(threading.enumerate()),
        "files": len(os.listdir("/proc/self/fd")),
    }


def remains() -> list[object]:
    """What is still there of brokers that have ended."""
    gc.collect()
    kinds = (Assembly, Broker, NetConnection, asyncio.BaseTransport, asyncio.Task)
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


@pytest.fixture(scope="module", autouse=True)
def _first_loop() -> None:
    """The first loop of uvloop in a process opens what stays open."""
    uvloop.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def _no_trace() -> Iterator[None]:
    """Whatever a test does with brokers, the process is as it was before."""
    before = traces()
    yield
    gc.collect()
    assert traces() == before


# --- it serves


def test_a_broker_in_an_event_loop_serves_clients(run: Run) -> None:
    async def main() -> None:
        async with Server() as server:
            assert server.url == f"mqtt://127.0.0.1:{server.port}"
            assert server.is_running
            await talk(partial(exchange, server.port))
        assert not server.is_running
        assert await asyncio.to_thread(refused, server.port)

    run(main())


def test_a_broker_on_a_thread_serves_clients() -> None:
    with SyncServer() as server:
        assert server.url == f"mqtt://127.0.0.1:{server.port}"
        assert server.is_running
        exchange(server.port)
    assert not server.is_running
    assert refused(server.port)


@pytest.mark.parametrize("level", [V311, V5])
def test_a_real_client_is_served(level: int) -> None:
    with SyncServer() as server:
        client = Paho(server.port, level, "paho", "a/#", 1)
        say(server.port, "a/b", b"1", b"2")
        assert client.messages(2) == ["1", "2"]
        client.leave()


def test_the_client_is_served_in_the_same_event_loop(run: Run) -> None:
    async def main() -> None:
        async with (
            Server() as server,
            holdfast.Client(server.url) as client,
        ):
            messages = await client.subscribe("a/#", qos=2)
            await (await client.publish("a/b", b"1", qos=2))
            assert (await anext(messages)).payload == b"1"

    run(main())


def test_brokers_beside_each_other_share_nothing(run: Run) -> None:
    async def main() -> None:
        async with Server() as one, Server() as other:
            assert one.port != other.port
            await talk(partial(say, one.port, "here", b"1", retain=True))
            await talk(partial(say, other.port, "there", b"2", retain=True))
            await one.stop()
            assert other.is_running

            def look() -> None:
                with Wire(other.port, V5) as wire:
                    wire.hello("look", clean=True)
                    wire.subscribe("#", 1)
                    assert contents(wire.messages(1)) == [b"2"]
                    wire.nothing_but("there/end")

            await talk(look)

    run(main())


def test_it_starts_and_stops_in_different_tasks(run: Run) -> None:
    async def main() -> None:
        server = Server()
        await asyncio.create_task(server.start())
        await talk(partial(greet, server.port))
        waiting = asyncio.create_task(server.wait())
        await asyncio.create_task(server.stop())
        await waiting

    run(main())


# --- it goes, and leaves no trace


def test_hundreds_of_brokers_leave_nothing_behind(run: Run) -> None:
    async def main() -> None:
        for _ in range(200):
            async with Server():
                pass
        assert len(asyncio.all_tasks()) == 1

    run(main())
    assert remains() == []


def test_hundreds_of_brokers_on_threads_leave_nothing_behind() -> None:
    for _ in range(100):
        with SyncServer() as server:
            greet(server.port)
    assert remains() == []


def test_it_stops_while_clients_are_connected(run: Run) -> None:
    async def main() -> None:
        server = Server()
        await server.start()
        wires: list[Wire] = []

        def connect() -> None:
            for level in (V311, V5):
                wires.append(Wire(server.port, level))
                wires[-1].hello(f"client-{level}")
            wires.append(Wire(server.port, V5))  # and one that says nothing

        await talk(connect)
        await server.stop()

        def look() -> None:
            old, new, silent = wires
            assert old.until_closed() == []
            (told,) = new.until_closed()
            assert (told.kind, told.code) == (DISCONNECT, SERVER_SHUTTING_DOWN)
            assert silent.until_closed() == []

        await talk(look)

    run(main())
    assert remains() == []


def test_clients_that_come_while_it_stops_leave_nothing_behind() -> None:
    over = threading.Event()

    def storm(port: int) -> None:
        while not over.is_set():
            try:
                greet(port)
            except (OSError, Closed, AssertionError):  # refused in one way or another
                pass

    with SyncServer() as server:
        threads = [threading.Thread(target=storm, args=(server.port,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(30):
            server.restart()
        over.set()
        for thread in threads:
            thread.join()
        greet(server.port)
    assert remains() == []


def test_a_handshake_under_way_is_not_waited_for(run: Run, tmp_path: Path) -> None:
    certificate = Authority(tmp_path).issue("server", "localhost")
    tls = {"certificate": certificate, "key": certificate.with_suffix(".key")}
    settings = {"listeners": [{"address": "127.0.0.1:0", "tls": tls}]}

    async def main() -> None:
        async with Server(settings=settings) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"\x16\x03\x01")
            await server.stop()
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
            writer.close()

    run(main())
    assert remains() == []


def test_a_peer_that_does_not_close_is_not_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "LINGER_S", 0.01)
    listener = ListenerSettings.model_validate({"address": "127.0.0.1:0", "websocket": {}})

    async def main() -> None:
        async with Server(settings=Settings(listeners=(listener,))) as server:
            assert server.url == f"ws://127.0.0.1:{server.port}/mqtt"
            peer = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
            with peer:
                await talk(partial(peer.sendall, request()))
                await talk(partial(peer.recv, 1000))
                await server.stop()
                # The broker's last word is not answered.
                assert len(asyncio.all_tasks()) == 1

    run(main())
    assert remains() == []


def test_a_loop_that_ends_ends_the_broker_too(run: Run) -> None:
    async def main() -> None:
        await Server().start()

    run(main())
    assert remains() == []


def test_an_error_inside_ends_it_and_passes() -> None:
    async def main() -> None:
        async with Server() as server:
            await talk(partial(greet, server.port))
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())


@pytest.mark.parametrize("is_durable", [False, True], ids=["memory", "disk"])
@pytest.mark.parametrize("passes", range(12))
def test_a_start_that_is_cancelled_leaves_nothing_behind(
    run: Run, tmp_path: Path, passes: int, is_durable: bool
) -> None:
    async def main() -> None:
        server = Server(data_dir=tmp_path if is_durable else None)
        starting = asyncio.create_task(server.start())
        for _ in range(passes):
            await asyncio.sleep(0)
        if starting.cancel():
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert not server.is_running
        else:
            await server.stop()
        async with server:
            await talk(partial(greet, server.port))

    run(main())
    assert remains() == []


def test_a_stop_that_is_cancelled_is_carried_out(run: Run) -> None:
    async def main() -> None:
        server = Server()
        await server.start()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert not server.is_running
        assert await asyncio.to_thread(refused, server.port)

    run(main())


# --- it comes back


def test_a_restart_keeps_port_and_data_in_memory(run: Run) -> None:
    async def main() -> None:
        async with Server() as server:
            port = server.port

            def leave() -> None:
                with Wire(port, V5) as wire:
                    wire.hello("kept")
                    wire.subscribe("a/b", 1)
                say(port, "a/b", b"1")

            def resume() -> None:
                with Wire(port, V5) as wire:
                    assert wire.hello("kept").session_present
                    assert contents(wire.messages(1)) == [b"1"]

            await talk(leave)
            await server.restart()
            assert server.port == port
            await talk(resume)

    run(main())


def test_data_on_disk_outlives_the_server(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Server(data_dir=tmp_path / "data") as server:
            await talk(partial(say, server.port, "a/b", b"1", retain=True))
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
            "holdfast.db",
            "holdfast.lock",
        ]
        async with Server(data_dir=str(tmp_path / "data")) as server:

            def look() -> None:
                with Wire(server.port, V5) as wire:
                    wire.hello("look", clean=True)
                    wire.subscribe("#", 1)
                    assert contents(wire.messages(1)) == [b"1"]

            await talk(look)

    run(main())


def test_stopped_inside_it_keeps_its_port(run: Run) -> None:
    async def main() -> None:
        async with Server() as server:
            await server.stop()
            await server.stop()  # once more changes nothing
            assert await asyncio.to_thread(refused, server.port)
            before = server.port
            await server.start()
            assert server.port == before
            await talk(partial(greet, before))

    run(main())


def test_a_client_finds_its_way_back(run: Run) -> None:
    async def main() -> None:
        async with (
            Server() as server,
            holdfast.Client(server.url, client_id="back") as client,
        ):
            messages = await client.subscribe("a/#", qos=2)
            for count in range(3):
                if count == 1:
                    server.cut_connections()
                elif count == 2:
                    await server.restart()
                await (await client.publish("a/b", b"%d" % count, qos=2))
                assert (await anext(messages)).payload == b"%d" % count

    run(main())


def test_connections_that_are_cut_hear_no_word() -> None:
    with SyncServer() as server, Wire(server.port, V5) as wire, Wire(server.port, V5) as heir:
        heir.hello("heir", clean=True)
        heir.subscribe("will", 1)
        wire.hello("cut", clean=True, will=Will("will", b"gone", 1))
        server.cut_connections()
        assert wire.until_closed() == []
        assert heir.until_closed() == []
        with Wire(server.port, V5) as other:
            other.hello("other")


def test_a_broker_on_a_thread_is_stopped_and_started_again(tmp_path: Path) -> None:
    server = SyncServer(data_dir=tmp_path)
    server.stop()  # nothing to do yet
    server.start()
    port = server.port
    say(port, "a/b", b"1", retain=True)
    server.restart()
    assert server.port == port
    server.stop()
    assert refused(port)
    server.start()
    with Wire(port, V5) as wire:
        wire.hello("look", clean=True)
        wire.subscribe("#", 1)
        assert contents(wire.messages(1)) == [b"1"]
    server.stop()
    with server:
        assert server.port == port
        server.stop()
        server.start()
        greet(port)


# --- it cannot start


def test_a_folder_is_one_brokers(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Server(data_dir=tmp_path) as server:
            with pytest.raises(StoreLocked, match="is in use by another broker"):
                await Server(data_dir=tmp_path).start()
            await talk(partial(greet, server.port))
        async with Server(data_dir=tmp_path):
            pass

    run(main())


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    async def main() -> None:
        async with Server() as server:
            other = Server(port=server.port)
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}"):
                await other.start()
            await server.stop()
            server._release_ports()
            async with other:
                assert other.port == server.port

    run(main())


def test_a_broker_on_a_thread_that_cannot_start_leaves_nothing_behind() -> None:
    with SyncServer() as server:
        other = SyncServer(port=server.port)
        with pytest.raises(OSError, match="cannot listen"):
            other.start()
        with pytest.raises(OSError, match="cannot listen"):
            other.__enter__()


def test_one_that_runs_is_not_started_again(run: Run) -> None:
    async def main() -> None:
        async with Server() as server:
            with pytest.raises(UsageError, match="was started before"):
                await server.start()
            await talk(partial(greet, server.port))

    run(main())


def test_one_that_has_not_run_has_no_address() -> None:
    server = Server()
    with pytest.raises(UsageError, match="before it is started"):
        _ = server.url
    with pytest.raises(UsageError, match="before it is started"):
        _ = server.port


# --- it fails


def test_a_failure_ends_it_and_is_raised(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def commit(_store: MemoryStore, _batch: Batch) -> None:
        raise StoreError("the disk is gone")

    async def main() -> None:
        server = Server()
        await server.start()
        with monkeypatch.context() as patch:
            patch.setattr(MemoryStore, "commit", commit)
            # The broker may have something to commit before the client is there.
            with pytest.raises((Closed, ConnectionError)):
                await talk(partial(say, server.port, "a/b", b"1", retain=True))
            with pytest.raises(StoreError, match="the disk is gone"):
                await server.wait()
        assert not server.is_running
        with pytest.raises(UsageError, match="was started before, and not stopped"):
            await server.start()
        with pytest.raises(StoreError, match="the disk is gone"):
            await server.stop()
        async with server:
            await talk(partial(greet, server.port))

    run(main())
    assert "nothing more was acknowledged: the disk is gone" in caplog.text


# --- its settings


def test_settings_are_those_of_the_file(run: Run, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text(f"ada:{new_hash(b'secret')}\n")
    passwords.chmod(0o600)
    settings = {"authenticators": [{"kind": "password_file", "file": passwords}]}

    async def main() -> None:
        async with Server(settings=settings) as server:

            def log_in() -> None:
                assert code_of(server.port, "ada", "secret") == 0
                assert code_of(server.port, "ada", "wrong") == BAD_USER_NAME_OR_PASSWORD
                assert code_of(server.port, None, None) == BAD_USER_NAME_OR_PASSWORD

            await talk(log_in)

    run(main())


def test_settings_may_be_checked_before() -> None:
    with (
        SyncServer(settings=Settings(maximum_qos=1)) as server,
        Wire(server.port, V5) as wire,
    ):
        assert wire.hello("c").number(MAXIMUM_QOS, 2) == 1


def test_listeners_of_all_kinds(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("server", "localhost")
    tls = {"certificate": certificate, "key": certificate.with_suffix(".key")}
    unix = tmp_path / "s"
    settings = {
        "listen": ["127.0.0.1:0", f"unix:{unix}"],
        "listeners": [
            {"name": "secure", "address": "127.0.0.1:0", "tls": tls},
            {"name": "web", "address": "127.0.0.1:0", "websocket": {"path": "/there"}},
            {"name": "both", "address": "127.0.0.1:0", "tls": tls, "websocket": {}},
        ],
    }
    with SyncServer(settings=settings) as server:
        before = server.ports
        assert server.urls == (
            f"mqtt://127.0.0.1:{before[0]}",
            f"unix://{unix}",
            f"mqtts://127.0.0.1:{before[2]}",
            f"ws://127.0.0.1:{before[3]}/there",
            f"wss://127.0.0.1:{before[4]}/mqtt",
        )
        for _ in range(2):
            greet(server.port)
            with tls_wire(before[2], authority.client_context()) as wire:
                wire.hello("tls")
            with unix_wire(unix) as wire:
                wire.hello("unix")
            server.restart()
            assert server.ports == before
    assert not unix.exists()


def test_it_listens_where_it_is_told() -> None:
    with SyncServer(host="localhost") as server:
        assert server.url in (f"mqtt://127.0.0.1:{server.port}", f"mqtt://[::1]:{server.port}")
    with SyncServer(host="0.0.0.0", settings={"allow_anonymous": True}) as server:
        assert server.url == f"mqtt://127.0.0.1:{server.port}"
        greet(server.port)


def test_nobody_else_reaches_it_unasked() -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        SyncServer(host="0.0.0.0").start()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"maximum_qos": 3}, "settings: maximum_qos = 3: expected"),
        ({"maximum_kos": 1}, "settings: maximum_kos is unknown"),
        ({"listen": "here"}, 'settings: listen = "here": expected'),
        ({"listeners": [{"address": "127.0.0.1:0", "tls": {}}]}, "settings: listeners"),
    ],
)
def test_settings_that_are_wrong_are_named(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Server(settings=settings)


def test_what_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="host and port, or listen in the settings, not both"):
        Server(port=1883, settings={"listen": ["127.0.0.1:0"]})
    with pytest.raises(UsageError, match="host and port, or listeners in the settings"):
        Server(host="::1", settings={"listeners": [{"address": "127.0.0.1:0"}]})
    with pytest.raises(UsageError, match="data_dir, or store in the settings"):
        Server(data_dir=tmp_path, settings=Settings(store="sqlite"))


def test_settings_may_name_the_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "there", listen=(ListenAddress("127.0.0.1", 0),))
    with SyncServer(settings=settings):
        pass
    assert (tmp_path / "there" / "holdfast.db").exists()
