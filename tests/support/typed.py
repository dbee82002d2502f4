"""`holdfast pub`, `sub` and `rr` as processes of a test, which end with it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

from tests.support.broker import BrokerProcess, holdfast_command
from tests.support.command import holdfast
from tests.support.process import Process


class Start(Protocol):
    """Starts a subcommand of holdfast that connects to this broker, or to this port."""

    def __call__(self, broker: BrokerProcess | int, *arguments: str) -> Process: ...


@contextmanager
def starting() -> Iterator[Start]:
    """What is started in here is ended with it."""
    with ExitStack() as stack:

        def run(broker: BrokerProcess | int, *arguments: str) -> Process:
            name, *rest = arguments
            port = broker if isinstance(broker, int) else broker.port
            process = Process([holdfast_command(), name, "-p", str(port), *rest])

            def end() -> None:
                if process.is_running:
                    process.kill9()
                assert not any("Traceback" in line for line in process.lines), process.lines

            stack.callback(end)
            return process

        yield run


def pub(
    broker: BrokerProcess, folder: Path, *arguments: str, given: str = ""
) -> "CompletedProcess[str]":
    """Publish, and expect that it goes well and nothing is said of errors."""
    done = holdfast("pub", "-p", str(broker.port), *arguments, folder=folder, given=given)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done


def sub(broker: BrokerProcess, folder: Path, *arguments: str) -> "CompletedProcess[str]":
    """Run `holdfast sub` to its end."""
    return holdfast("sub", "-p", str(broker.port), *arguments, folder=folder)
