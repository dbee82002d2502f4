"""`holdfast pub` and `holdfast sub` as they are typed, against a real broker."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.support.broker import BrokerProcess, holdfast_command
from tests.support.command import holdfast
from tests.support.process import Process


class Start(Protocol):
    """Starts a command of a test, with what it is to connect to; it is ended with the test."""

    def __call__(self, broker: BrokerProcess, *arguments: str) -> Process: ...


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def run(broker: BrokerProcess, *arguments: str) -> Process:
            name, *rest = arguments
            process = Process([holdfast_command(), name, "-p", str(broker.port), *rest])

            def end() -> None:
                if process.is_running:
                    process.kill9()

            stack.callback(end)
            return process

        yield run


def pub(broker: BrokerProcess, folder: Path, *arguments: str, given: str = "") -> None:
    """Publish, and expect that all goes well and nothing is said."""
    done = holdfast("pub", "-p", str(broker.port), *arguments, folder=folder, given=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_daily_use_works_as_it_is_typed(
    broker: BrokerProcess, start: Start, tmp_path: Path, name: str
) -> None:
    """A subscriber is stopped, messages are published, it is started again, the messages come."""
    topic = f"{name}/temperature"
    for first in (0, 3):
        subscriber = start(broker, "sub", "-t", topic, "-i", name, "--no-clean")
        if first == 0:
            pub(broker, tmp_path, "-t", topic, "-m", "0", "-r")  # until one comes it may be early
            subscriber.wait_line("^0$")
        else:
            subscriber.wait_line("^2$")
            assert [line for line in subscriber.lines if line != "0"] == ["1", "2"]
        subscriber.send_signal(2)
        assert subscriber.wait() == 130
        pub(broker, tmp_path, "-t", topic, "-m", "1")
        pub(broker, tmp_path, "-t", topic, "-m", "2")
