"""The client for programs without asyncio: the same names, from any thread."""

import inspect
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from holdfast import (
    Client,
    ConnectionLost,
    HoldfastError,
    LimitExceeded,
    OutboxLimits,
    Receipt,
    ReceivedMessage,
    Refused,
    StoreFull,
    SyncClient,
    SyncReceipt,
    SyncSubscription,
    UsageError,
)
from holdfast.client import commits, outbox
from holdfast.client.options import ClientOptions
from holdfast.client.outbox import OutboxFile
from tests.store.vfs import WatchedVfs, no_trouble
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.process import PATIENCE_S
from tools.reference import INNER

Make = Callable[..., SyncClient]


@pytest.fixture
def url(broker: BrokerProcess) -> str:
    return f"mqtt://127.0.0.1:{broker.port}"


@contextmanager
def interrupted(after_s: float = 0.1) -> Iterator[None]:
    """Ctrl-C, while the body blocks; it has to end by it."""
    ident = threading.main_thread().ident
    assert ident is not None
    timer = threading.Timer(after_s, signal.pthread_kill, (ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    timer.join()


def unreachable() -> str:
    """The URL of a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"mqtt://127.0.0.1:{free.getsockname()[1]}"


def names(kind: type[object]) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


# --- the same names


def test_it_has_the_names_of_the_client() -> None:
    missing = names(Client) - INNER["Client"] - names(SyncClient)
    assert missing - {"manual_ack"} == set()


def test_its_arguments_are_those_of_the_client() -> None:
    parameters = set(inspect.signature(Client).parameters)
    assert set(ClientOptions.__annotations__) == parameters - {"url", "on_connect", "on_disconnect"}


def test_its_receipts_have_the_names_of_the_client_s() -> None:
    assert names(Receipt) - INNER["Receipt"] - names(SyncReceipt) == set()


# --- publishing and receiving


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("outbox", [None, "outbox.db"])
def test_messages_come_in_order(
    url: str, name: str, qos: int, outbox: str | None, tmp_path: Path
) -> None:
    with SyncClient(url, outbox=None if outbox is None else tmp_path / outbox) as client:
        messages = client.subscribe(f"{name}/#", qos=qos)
        assert messages.reason_codes == [qos]
        receipts = [client.publish_nowait(f"{name}/{i}", str(i), qos=qos) for i in range(500)]
        assert [next(messages).text for _ in receipts] == [str(i) for i in range(500)]
        for receipt in receipts:
            assert receipt.wait(PATIENCE_S).is_done
        assert receipts[-1].stage == "done"
        client.drain(PATIENCE_S)
        assert client.outbox.is_empty


def test_the_properties_of_5_0_come_along(url: str, name: str) -> None:
    with SyncClient(url) as client, client.subscribe(name) as messages:
        client.publish(name, b"1", content_type="n", user_properties=[("a", "b")])
        message = messages.get(PATIENCE_S)
        assert (message.content_type, message.user_properties) == ("n", [("a", "b")])


def test_any_thread_may_publish(url: str, name: str) -> None:
    with SyncClient(url) as client, client.subscribe(name, qos=1) as messages:

        def publish(thread: int) -> None:
            for i in range(200):
                client.publish(name, f"{thread} {i}", qos=1)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(publish, range(4)))
        texts = [messages.get(PATIENCE_S).text for _ in range(800)]
        for thread in range(4):
            own = [text for text in texts if text.startswith(f"{thread} ")]
            assert own == [f"{thread} {i}" for i in range(200)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_threads_may_share_a_subscription(url: str, name: str, qos: int) -> None:
    taken: list[str] = []

    def take(messages: SyncSubscription) -> None:
        for message in messages:
            taken.append(message.text)
            if message.text == "end":
                messages.unsubscribe()

    with SyncClient(url) as client, ThreadPoolExecutor(3) as pool:
        messages = client.subscribe(name, qos=qos)
        takers = [pool.submit(take, messages) for _ in range(3)]
        for i in range(300):
            client.publish(name, str(i), qos=qos)
        client.publish(name, "end", qos=qos)
        for taker in takers:
            taker.result(PATIENCE_S)
    assert sorted(taken) == sorted([*map(str, range(300)), "end"])


def test_a_request_is_answered(url: str, name: str) -> None:
    with SyncClient(url) as server, SyncClient(url) as client:
        requests = server.subscribe(f"{name}/add", qos=1)

        def serve() -> None:
            request = requests.get(PATIENCE_S)
            assert request.response_topic is not None
            server.publish(
                request.response_topic, request.text * 2, correlation_data=request.correlation_data
            )

        with ThreadPoolExecutor(1) as pool:
            served = pool.submit(serve)
            assert client.request(f"{name}/add", "ab", timeout_s=PATIENCE_S).text == "abab"
            served.result(PATIENCE_S)


def test_an_answer_to_an_earlier_process_is_not_mistaken(url: str, name: str) -> None:
    """It comes late, and both have asked their first question."""
    asked: list[ReceivedMessage] = []
    with SyncClient(url) as server, ThreadPoolExecutor(1) as pool:
        requests = server.subscribe(name, qos=1)
        for text in ("old", "new"):
            with SyncClient(url, client_id=f"{name}-asks") as client:
                answer = pool.submit(client.request, name, text, timeout_s=PATIENCE_S)
                asked.append(requests.get(PATIENCE_S))
                if text == "new":
                    for one in asked:
                        assert one.response_topic is not None
                        server.publish(
                            one.response_topic, one.payload, correlation_data=one.correlation_data
                        )
                    assert answer.result(PATIENCE_S).text == "new"


def test_what_a_session_has_kept_comes_to_messages(url: str, name: str) -> None:
    with SyncClient(url, client_id=name) as client:
        client.subscribe(name, qos=1)
    with SyncClient(url) as other:
        other.publish(name, "kept", qos=1).wait(PATIENCE_S)
    with SyncClient(url, client_id=name) as client:
        assert client.messages().get(PATIENCE_S).text == "kept"
        assert client.messages() is client.messages()


# --- acknowledgements


def test_a_message_that_is_not_done_with_comes_again(url: str, name: str) -> None:
    def received(client: SyncClient) -> Iterator[ReceivedMessage]:
        return iter(client.subscribe(name, qos=1))

    with SyncClient(url, client_id=name) as client:
        messages = received(client)
        client.publish(name, "1", qos=1)
        client.publish(name, "2", qos=1).wait(PATIENCE_S)
        assert next(messages).text == "1"
        assert next(messages).text == "2"  # and "1" is done with
        client.close(is_orderly=False)
    with SyncClient(url, client_id=name) as client:
        assert next(received(client)).text == "2"
    with SyncClient(url, client_id=name) as client:
        messages = received(client)
        client.publish(name, "3", qos=1)
        assert next(messages).text == "3"


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("has_file", [False, True])
def test_manual_acknowledgement(
    url: str, name: str, qos: int, has_file: bool, tmp_path: Path
) -> None:
    outbox = tmp_path / "inbox.db" if has_file else None

    def client() -> SyncClient:
        return SyncClient(url, client_id=name, outbox=outbox, manual_ack=True)

    with client() as first:
        messages = first.subscribe(name, qos=qos)
        for text in "ab":
            first.publish(name, text, qos=qos).wait(PATIENCE_S)
        assert messages.get(PATIENCE_S).text == "a"
        kept = messages.get(PATIENCE_S)
        assert kept.text == "b"
    with client() as second:
        messages = second.subscribe(name, qos=qos)
        for text in "ab":
            message = messages.get(PATIENCE_S)
            assert (message.text, message.dup, message.delivery_id > 0) == (text, True, qos == 2)
            message.ack()
    with client() as third:
        messages = third.subscribe(name, qos=qos)
        third.publish(name, "c", qos=qos)
        assert messages.get(PATIENCE_S).text == "c"


# --- bounds and errors


def test_a_first_connection_that_fails_is_told() -> None:
    client = SyncClient(unreachable())
    with pytest.raises(ConnectionLost):
        client.open()
    assert not client.is_connected
    with pytest.raises(ConnectionLost, match="closed"):
        client.publish("a")


def test_it_is_used_between_open_and_close(url: str) -> None:
    client = SyncClient(url)
    with pytest.raises(UsageError, match="not open"):
        client.publish("a")
    with client:
        with pytest.raises(UsageError, match="opened once"):
            client.open()
        with pytest.raises(UsageError):
            client.publish("a/#")
        with pytest.raises(UsageError):
            client.subscribe("a/#/b")
    with pytest.raises(ConnectionLost, match="closed"):
        client.drain()
    client.close()


def test_a_subscription_that_is_refused(new_broker: NewBroker) -> None:
    broker = new_broker(settings={"subscriptions_max": 1})
    with SyncClient(f"mqtt://127.0.0.1:{broker.port}") as client:
        client.subscribe("a")
        with pytest.raises(Refused):
            client.subscribe("b")


def test_a_subscription_that_is_refused_later(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker(store="memory", settings={"topic_levels_max": 5})
    with SyncClient(f"mqtt://127.0.0.1:{broker.port}") as client, ThreadPoolExecutor(1) as pool:
        taken = pool.submit(list, client.subscribe("a/b"))
        (tmp_path / "data.toml").write_text("topic_levels_max = 1\n")
        broker.restart()
        with pytest.raises(Refused):
            taken.result(PATIENCE_S)


def test_an_outbox_that_is_full(tmp_path: Path) -> None:
    limits = OutboxLimits(messages_max=2)
    with SyncClient(unreachable(), outbox=tmp_path / "outbox.db", outbox_limits=limits) as client:
        first, _ = client.publish("a", "1", qos=1), client.publish("a", "2", qos=1)
        assert first.is_stored
        assert client.outbox.messages == 2
        with pytest.raises(LimitExceeded):
            client.publish_nowait("a", "3", qos=1)
        with ThreadPoolExecutor(1) as pool:
            third = pool.submit(client.publish, "a", "3", qos=1)
            with pytest.raises(TimeoutError):
                client.drain(0.01)
            assert not third.done()
            client.close()
            with pytest.raises(ConnectionLost):
                third.result(PATIENCE_S)


def test_many_threads_keep_to_the_bound(tmp_path: Path) -> None:
    limits = OutboxLimits(messages_max=100, policy="refuse")
    with SyncClient(unreachable(), outbox=tmp_path / "outbox.db", outbox_limits=limits) as client:

        def publish(_: int) -> int:
            accepted = 0
            for _ in range(100):
                try:
                    client.publish_nowait("a", b"x", qos=1)
                    accepted += 1
                except LimitExceeded:
                    pass
            return accepted

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(publish, range(4))) == 100
        assert client.outbox.messages == 100


def test_a_message_that_was_refused_by_the_disk_never_counts_as_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even by a thread that asks when the file can be written again."""
    vfs = WatchedVfs("troubled outbox of a SyncClient")
    monkeypatch.setattr(outbox, "OutboxFile", lambda path: OutboxFile(path, vfs=vfs.name))
    monkeypatch.setattr(commits, "RETRY_MIN_S", 0.001)
    with SyncClient(unreachable(), outbox=tmp_path / "outbox.db") as client:
        client.publish("a", "1", qos=1)
        vfs.trouble = lambda done, where: apsw.SQLITE_FULL if done == "write" else None
        receipt = client.publish_nowait("a", "2", qos=1)
        with pytest.raises(StoreFull):
            receipt.wait(PATIENCE_S)
        vfs.trouble = no_trouble
        for _ in range(2):
            with pytest.raises(StoreFull):
                receipt.stored(PATIENCE_S)
            while client.outbox.error is not None:
                pass
        assert client.outbox.messages == 1


def test_what_takes_too_long(url: str, name: str, tmp_path: Path) -> None:
    with SyncClient(url) as client:
        messages = client.subscribe(name)
        assert messages.queued == 0
        with pytest.raises(TimeoutError):
            messages.get(0.01)
        client.publish(name, "later")
        assert messages.get(PATIENCE_S).text == "later"
        with pytest.raises(TimeoutError):
            client.request(name, timeout_s=0.01)
    with SyncClient(unreachable(), outbox=tmp_path / "outbox.db") as client:
        receipt = client.publish("a", qos=1)
        with pytest.raises(TimeoutError):
            receipt.wait(0.01)
        with pytest.raises(TimeoutError):
            client.connected(0.01)
        with pytest.raises(TimeoutError):
            client.subscribe("a", timeout_s=0.01)
    with pytest.raises(ConnectionLost):
        receipt.wait()


def test_what_leaves_its_with_is_not_held_up(url: str, name: str) -> None:
    with SyncClient(url, receive_maximum=10) as client:
        for _ in range(5):
            with client.subscribe(name, qos=1) as messages:
                for i in range(8):
                    client.publish(name, str(i), qos=1)
                assert messages.get(PATIENCE_S).text == "0"
        with client.subscribe(name, qos=1) as messages:
            client.publish(name, "last", qos=1)
            assert messages.get(PATIENCE_S).text == "last"


# --- other threads


def test_closing_wakes_other_threads(url: str, name: str) -> None:
    client = SyncClient(url)
    client.open()
    messages = client.subscribe(name)
    with ThreadPoolExecutor(2) as pool:
        taken = pool.submit(list, messages)
        asked = pool.submit(client.request, f"{name}/nobody", timeout_s=PATIENCE_S)
        client.publish(name, "1", qos=1).wait(PATIENCE_S)
        client.close()
        assert [message.text for message in taken.result(PATIENCE_S)] == ["1"]
        with pytest.raises(ConnectionLost):
            asked.result(PATIENCE_S)


def test_callbacks_run_in_the_thread_of_the_client(url: str, name: str) -> None:
    told: list[str] = []
    ended = threading.Event()

    def on_connect(client: SyncClient) -> None:
        client.publish_nowait(name, "hello", qos=1)
        try:
            client.drain()
        except UsageError as error:
            told.append(str(error))

    def on_done(receipt: SyncReceipt) -> None:
        told.append(receipt.stage)
        assert receipt.error is None
        ended.set()

    with (
        SyncClient(url) as other,
        other.subscribe(name) as messages,
        SyncClient(url, on_connect=on_connect) as client,
    ):
        assert messages.get(PATIENCE_S).text == "hello"
        client.publish(name, "x", qos=1).add_done_callback(on_done)
        assert ended.wait(PATIENCE_S)
    assert "callback" in told[0]
    assert told[1:] == ["done"]


def test_a_callback_that_fails_costs_no_connection(url: str, name: str) -> None:
    def on_connect(_: SyncClient) -> None:
        raise ValueError("mine")

    def on_disconnect(_: SyncClient, error: HoldfastError) -> None:
        raise error

    with SyncClient(url, on_connect=on_connect, on_disconnect=on_disconnect) as client:
        client.publish(name, qos=1).wait(PATIENCE_S)
        assert client.is_connected


# --- the process


def test_ctrl_c_leaves_all_usable(url: str, name: str, tmp_path: Path) -> None:
    with SyncClient(url) as client:
        messages = client.subscribe(name, qos=1)
        with interrupted():
            next(messages)
        with interrupted():
            client.request(f"{name}/nobody")
        client.publish(name, "1", qos=1).wait(PATIENCE_S)
        assert next(messages).text == "1"
    with SyncClient(unreachable(), outbox=tmp_path / "outbox.db") as client:
        receipt = client.publish("a", qos=1)
        for block in (client.drain, client.connected, receipt.wait):
            with interrupted():
                block()
        with interrupted():
            client.subscribe("a")
        client.publish("a", qos=1)


def test_ctrl_c_while_it_connects(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = SyncClient(f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        with interrupted():
            client.open()
    with pytest.raises(ConnectionLost):
        client.publish("a")


def test_ctrl_c_while_it_closes(new_broker: NewBroker, name: str) -> None:
    broker = new_broker()
    client = SyncClient(f"mqtt://127.0.0.1:{broker.port}", close_timeout_s=PATIENCE_S)
    client.open()
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        client.publish(name, qos=1)
        with interrupted():
            client.close()
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)
    assert not any(thread.name == "holdfast-client" for thread in threading.enumerate())


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_program_that_ends_without_close(url: str, name: str) -> None:
    with SyncClient(url) as client, client.subscribe(name, qos=1) as messages:
        code = """
            import sys
            from holdfast import SyncClient
            client = SyncClient(sys.argv[1])
            client.open()
            for i in range(100):
                client.publish(sys.argv[2], str(i), qos=1)
        """
        done = run_python(code, url, name)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        assert [messages.get(PATIENCE_S).text for _ in range(100)] == [str(i) for i in range(100)]


def test_a_fork_leaves_the_client_to_its_parent(url: str, name: str, tmp_path: Path) -> None:
    code = """
        import os, sys
        from holdfast import SyncClient, UsageError
        with SyncClient(sys.argv[1], outbox=sys.argv[3]) as client:
            messages = client.subscribe(sys.argv[2], qos=1)
            child = os.fork()
            if child == 0:
                for use in (lambda: client.publish("a"), client.drain, lambda: next(messages)):
                    try:
                        use()
                    except UsageError as error:
                        print("child:", error)
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            client.publish(sys.argv[2], "still here", qos=2).wait(10)
            print("parent:", messages.get(10).text)
    """
    done = run_python(code, url, name, str(tmp_path / "outbox.db"))
    assert (done.returncode, done.stderr) == (0, "")
    *child, parent = done.stdout.splitlines()
    assert child == ["child: the client belongs to the process that opened it, not to a fork"] * 3
    assert parent == "parent: still here"
