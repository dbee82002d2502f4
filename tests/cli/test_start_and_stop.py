"""Starting and stopping with several listeners, and signals that come while it starts."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess
from tests.support.command import assert_one_line, holdfast


def settings_of(*addresses: str) -> str:
    return "".join(f'[[listeners]]\naddress = "{address}"\n' for address in addresses)


@contextmanager
def held_up(folder: Path) -> Iterator[tuple[BrokerProcess, int]]:
    """A broker that starts, and reads a file that has no end yet: what is written is the file."""
    fifo = folder / "users"
    os.mkfifo(fifo, 0o600)
    broker = BrokerProcess(folder / "data", settings={"allow_anonymous": True})
    with (folder / "data.toml").open("a") as file:
        file.write(f'[[authenticators]]\nkind = "password_file"\nfile = "{fifo}"\n')
    broker.spawn()
    writer = os.open(fifo, os.O_WRONLY)  # waits until the broker has begun to read
    try:
        yield broker, writer
    finally:
        if broker.is_running:
            broker.kill9()
        assert "Traceback" not in broker.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_can_be_stopped(tmp_path: Path, number: signal.Signals) -> None:
    with held_up(tmp_path) as (broker, writer):
        assert broker.terminate(number) == 0
        assert "stopped before it was ready" in broker.log
        os.close(writer)


def test_a_start_is_not_ended_by_a_reload(tmp_path: Path) -> None:
    with held_up(tmp_path) as (broker, writer):
        broker.process.send_signal(signal.SIGHUP)
        os.close(writer)
        broker.process.wait_line("ready on")
        # The pipe would hold up the look at it as well.
        broker.kill9()


@pytest.mark.parametrize("taken", ["tcp", "unix", "no folder"])
def test_where_one_listener_fails_none_is_left(tmp_path: Path, taken: str) -> None:
    (tmp_path / "there").write_text("not a socket")
    with socket.create_server(("127.0.0.1", 0)) as other:
        addresses = {
            "tcp": f"127.0.0.1:{other.getsockname()[1]}",
            "unix": "unix:there",
            "no folder": "unix:none/a.sock",
        }
        (tmp_path / "a.toml").write_text(
            settings_of("unix:first.sock", "127.0.0.1:0", addresses[taken], "unix:last.sock")
        )
        done = holdfast("serve", "--config", "a.toml", folder=tmp_path)
    assert_one_line(done, 3, f"cannot listen on {addresses[taken]}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.toml", "data", "there"]
    assert not (tmp_path / "data" / "holdfast.open").exists()
    assert (tmp_path / "there").read_text() == "not a socket"


def test_a_stop_removes_the_sockets(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with BrokerProcess(tmp_path / "data", settings={}) as broker:
        assert not path.exists()
        broker.terminate()
        with (tmp_path / "data.toml").open("a") as file:
            file.write(settings_of(f"unix:{path}"))
        broker.start()
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_came_to_nothing_leaves_nothing_to_worry_about(
    tmp_path: Path, number: signal.Signals
) -> None:
    with BrokerProcess(tmp_path / "data") as broker:
        broker.terminate()
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            done = holdfast("serve", "--listen", address, folder=tmp_path)
        assert done.returncode == 3
        first = len(broker.log_lines)
        broker.start()
        broker.terminate(number)
        assert "was not closed" not in "\n".join(broker.log_lines[first:])
