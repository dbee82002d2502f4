"""How the broker starts, refuses to start, and stops: one clear line, and an exit code."""

import signal
import socket
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess, NewBroker, holdfast_command
from tests.support.packets import DISCONNECT, V5
from tests.support.process import PATIENCE_S
from tests.support.wire import Dial, absent, contents, numbered, say

SERVER_SHUTTING_DOWN = 0x8B


def refusal(broker: BrokerProcess, *, says: tuple[str, ...]) -> str:
    """The broker does not start: its one line, which has all of these words in it."""
    broker.spawn()
    assert broker.wait() != 0
    (line,) = [line for line in broker.process.lines if line.strip()]
    for word in says:
        assert word in line, f"{word!r} is not in {line!r}"
    return line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_clean_stop_tells_the_clients_and_keeps_their_sessions(
    new_broker: NewBroker, dial: Dial, name: str, level: int, number: signal.Signals
) -> None:
    """The operator stops the broker while clients are connected. It says so to those that can
    hear it, and ends with exit code 0; started again, it has everything.
    """
    broker = new_broker()
    absent(broker.port, f"{name}-a", name, 1, level)
    client = dial(broker, level)
    client.hello(name)
    client.subscribe(name, 1)
    say(broker.port, name, *numbered(10), level=level)
    assert contents(client.messages(10)) == numbered(10)
    assert broker.terminate(number) == 0
    last = [(one.kind, one.code) for one in client.until_closed()]
    assert last == ([(DISCONNECT, SERVER_SHUTTING_DOWN)] if level == V5 else [])

    broker.start()
    client = dial(broker, level)
    assert client.hello(name).session_present
    back = dial(broker, level)
    assert back.hello(f"{name}-a").session_present
    assert contents(back.messages(10)) == numbered(10)
    back.nothing_but(name)


def test_it_can_be_started_and_stopped_many_times(
    new_broker: NewBroker, dial: Dial, name: str
) -> None:
    """Ten times up and down, by turns stopped and killed: the queue stays the same."""
    broker = new_broker()
    absent(broker.port, name, name, 1)
    say(broker.port, name, *numbered(5))
    for turn in range(10):
        if turn % 2:
            broker.kill9()
        else:
            assert broker.terminate() == 0
        broker.start()
    back = dial(broker, V5)
    assert back.hello(name).session_present
    assert contents(back.messages(5)) == numbered(5)
    back.nothing_but(name)


def test_two_brokers_on_one_data_folder(new_broker: NewBroker, dial: Dial, name: str) -> None:
    """A second broker on the same folder is refused and told who holds it; the first one does not
    notice. When the holder is killed, the folder is free at once.
    """
    first = new_broker()
    second = BrokerProcess(first.data_dir)
    line = refusal(second, says=(str(first.data_dir), str(first.process.pid)))
    assert "Traceback" not in line
    client = dial(first, V5)
    client.hello(name)
    first.kill9()
    with second:
        client = dial(second, V5)
        assert client.hello(name).session_present


def test_a_store_of_a_newer_format_is_refused_and_left_untouched(
    new_broker: NewBroker, name: str
) -> None:
    """The folder was written by a Holdfast of the future. This one cannot know what is in it: it
    refuses, and changes not one byte.
    """
    broker = new_broker()
    absent(broker.port, name, name, 1)
    say(broker.port, name, "precious")
    assert broker.terminate() == 0
    store = broker.data_dir / "holdfast.db"
    connection = sqlite3.connect(store)
    connection.execute("PRAGMA user_version = 1000000")
    connection.close()
    before = {path.name: path.read_bytes() for path in broker.data_dir.glob("holdfast.db*")}
    assert "holdfast.db" in before
    refusal(broker, says=(str(store), "newer"))
    after = {path.name: path.read_bytes() for path in broker.data_dir.glob("holdfast.db*")}
    assert after == before


def test_a_port_in_use(tmp_path: Path) -> None:
    """Somebody else listens there: one line that names the address."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        broker = BrokerProcess(tmp_path / "data", port=port)
        refusal(broker, says=(f"127.0.0.1:{port}", "in use"))


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    """Where the folder should be made there is a file: one line that names it."""
    file = tmp_path / "file"
    file.write_text("not a folder")
    refusal(BrokerProcess(file / "data"), says=(str(file),))
    assert file.read_text() == "not a folder"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"packet_bytes_maximum": 1}, ("packet_bytes_maximum", "packet_bytes_max")),
        ({"colour": "blue"}, ("colour",)),
        ({"connect_timeout_s": "soon"}, ("connect_timeout_s", "soon")),
        ({"packet_bytes_max": -1}, ("packet_bytes_max", "-1")),
    ],
    ids=["misspelt", "unknown", "wrong type", "out of range"],
)
def test_a_wrong_configuration(
    tmp_path: Path, settings: dict[str, str | int], says: tuple[str, ...]
) -> None:
    """One line that names the file, the key and what is wrong with it; nothing is started."""
    broker = BrokerProcess(tmp_path / "data", settings=settings)
    refusal(broker, says=("data.toml", *says))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--listen", "nowhere"],
        ["--listen", "127.0.0.1:99999"],
        ["--store", "papyrus"],
        ["--no-such-option"],
        ["--config", "/no/such/file.toml"],
    ],
    ids=" ".join,
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str]) -> None:
    """Each is refused with an exit code and an explanation, and without a traceback."""
    done = subprocess.run(
        [holdfast_command(), "serve", "--data-dir", str(tmp_path / "data"), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr


def test_its_version() -> None:
    """``holdfast --version`` says which one it is."""
    done = subprocess.run(
        [holdfast_command(), "--version"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("holdfast ")
