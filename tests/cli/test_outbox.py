"""`holdfast pub --outbox` and `holdfast sub --outbox`: what is in the file is not lost."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import NewBroker
from tests.support.command import assert_one_line, holdfast
from tests.support.typed import Start, pub, starting, sub

PATIENCE = ["--drain-timeout", "0.2"]


@pytest.fixture
def start() -> Iterator[Start]:
    with starting() as run:
        yield run


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_without_a_server_messages_are_kept_and_go_out_at_the_next_run(
    new_broker: NewBroker, closed_port: int, tmp_path: Path
) -> None:
    for text in ("one", "two"):
        arguments = ["-t", "a", "-m", text, "--outbox", "q.db", *PATIENCE]
        done = holdfast("pub", "-p", str(closed_port), *arguments, folder=tmp_path)
        assert done.returncode == 8
        first, last = done.stderr.splitlines()
        assert first.startswith("holdfast: not connected, trying again: ")
        kept = "1 message is" if text == "one" else "2 messages are"
        assert f"{kept} kept in q.db and will be sent at the next run: " in last
        assert "refused" in last
    broker = new_broker()
    sub(broker, tmp_path, "-t", "a", "-i", "s", "-c", "-E")
    done = pub(broker, tmp_path, "-t", "a", "-m", "three", "--outbox", "q.db", "--json")
    expected = {"found": 2, "published": 1, "acknowledged": 1, "refused": 0, "kept": 0}
    assert json.loads(done.stdout) == expected
    done = sub(broker, tmp_path, "-t", "a", "-i", "s", "-c", "-C", "3")
    assert done.stdout == "one\ntwo\nthree\n"


def test_a_run_without_a_message_sends_what_is_left(
    new_broker: NewBroker, closed_port: int, tmp_path: Path
) -> None:
    arguments = ["-t", "a", "-l", "-r", "-q", "2", "--outbox", "q.db", *PATIENCE]
    done = holdfast("pub", "-p", str(closed_port), *arguments, folder=tmp_path, given="1\n2\n3\n")
    assert done.returncode == 8
    broker = new_broker()
    pub(broker, tmp_path, "--outbox", "q.db")
    assert sub(broker, tmp_path, "-t", "a", "-C", "1").stdout == "3\n"


def test_what_was_read_before_a_kill_is_sent_by_the_next_run(
    new_broker: NewBroker, start: Start, tmp_path: Path
) -> None:
    broker = new_broker()
    outbox = str(tmp_path / "q.db")
    publisher = start(broker, "pub", "-t", "a", "-l", "-r", "--outbox", outbox)
    publisher.write_line("before")
    assert sub(broker, tmp_path, "-t", "a", "-C", "1").stdout == "before\n"
    broker.kill9()
    publisher.wait_line("not connected, trying again")
    publisher.write_line("after")
    other = holdfast("pub", "-p", str(broker.port), "--outbox", outbox, folder=tmp_path)
    assert_one_line(other, 4, r"q\.db")  # two processes on one file: the second is refused
    publisher.kill9()
    done = holdfast("pub", "-p", str(broker.port), "--outbox", outbox, *PATIENCE, folder=tmp_path)
    found_after = "1 message is kept" in done.stderr  # it may have been killed before it read it
    broker.start()
    pub(broker, tmp_path, "--outbox", outbox)
    shown = sub(broker, tmp_path, "-t", "a", "-C", "1").stdout
    assert shown == ("after\n" if found_after else "before\n")


def test_an_interrupted_publisher_keeps_what_it_has_read(
    new_broker: NewBroker, start: Start, tmp_path: Path
) -> None:
    broker = new_broker()
    outbox = str(tmp_path / "q.db")
    publisher = start(broker, "pub", "-t", "a", "-l", "-r", "--outbox", outbox)
    publisher.write_line("before")
    assert sub(broker, tmp_path, "-t", "a", "-C", "1").stdout == "before\n"
    publisher.send_signal(signal.SIGINT)
    assert publisher.wait() == 130
    done = pub(broker, tmp_path, "--outbox", outbox, "--json")
    assert json.loads(done.stdout)["kept"] == 0


def test_a_refused_message_is_told(new_broker: NewBroker, tmp_path: Path) -> None:
    (tmp_path / "acl.toml").write_text('[[rules]]\nallow = "publish"\ntopics = "open/#"\n')
    broker = new_broker(settings={"acl_file": str(tmp_path / "acl.toml"), "allow_anonymous": True})
    for more in ([], ["--outbox", "q.db"]):
        arguments = ["-p", str(broker.port), "-t", "secret", "-m", "x", *more]
        done = holdfast("pub", *arguments, "--json", folder=tmp_path)
        assert_one_line(done, 7, "1 message is not taken: .*(?i:not authorized)")
        assert json.loads(done.stdout)["refused"] == 1
    done = sub(broker, tmp_path, "-t", "secret")
    assert_one_line(done, 7, "the subscription to secret was refused")


def test_a_subscriber_with_an_outbox_is_durable_without_an_identifier_of_its_own(
    new_broker: NewBroker, start: Start, tmp_path: Path
) -> None:
    broker = new_broker()
    inbox = str(tmp_path / "in.db")
    done = sub(broker, tmp_path, "-t", "a", "-q", "2", "--outbox", inbox, "-E")
    assert (done.returncode, done.stderr) == (0, "")
    pub(broker, tmp_path, "-t", "a", "-m", "x", "-q", "2")
    done = sub(broker, tmp_path, "-t", "a", "-q", "2", "--outbox", inbox, "-C", "1", "--json")
    shown = json.loads(done.stdout)
    assert (shown["payload"], shown["qos"]) == ("x", 2)
    assert shown["delivery_id"] > 0
    # It begins without a server as well, and gets its messages when there is one.
    broker.kill9()
    assert sub(broker, tmp_path, "-t", "a", "--outbox", inbox, "-W", "0.1").returncode == 27
    subscriber = start(broker, "sub", "-t", "a", "-q", "2", "--outbox", inbox)
    subscriber.wait_line("not connected, trying again")
    broker.start()
    subscriber.wait_line("^holdfast: connected$")
    pub(broker, tmp_path, "-t", "a", "-m", "y", "-q", "2")
    subscriber.wait_line("^y$")


def test_a_full_outbox_is_told(new_broker: NewBroker, closed_port: int, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("x\n" * 100_001)
    arguments = ["-p", str(closed_port), "-t", "a", "-l", "--outbox", "q.db", *PATIENCE]
    with (tmp_path / "lines").open() as file:
        done = holdfast("pub", *arguments, folder=tmp_path, given=file.read())
    assert done.returncode == 7
    assert done.stderr.endswith("holdfast: the outbox is full, 100000 messages are in it\n")


def test_a_file_that_is_no_outbox_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no outbox" * 1000)
    for command in (["pub", "-m", "x"], ["sub"]):
        done = holdfast(*command, "-t", "a", "--outbox", "text", folder=tmp_path)
        assert done.returncode in (4, 5)
        (line,) = done.stderr.splitlines()
        assert line.startswith("holdfast: ")
        assert "text" in line
    assert (tmp_path / "text").read_text() == "no outbox" * 1000
