"""A data folder that cannot be written: the start says so in one line, and changes nothing."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess
from tests.support.packets import V5
from tests.support.process import required
from tests.support.wire import Dial, absent, contents, say

EXIT_STORE = 4


class UnprivilegedBroker(BrokerProcess):
    """The broker without root's privilege to write what it has no permission for."""

    def command(self) -> list[str]:
        command = super().command()
        if os.geteuid() != 0:
            return command
        capability = "-dac_override"
        setpriv = [required("setpriv", "util-linux"), "--bounding-set", capability]
        return [*setpriv, "--inh-caps", capability, *command]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    data_dir = tmp_path / "data"
    try:
        with UnprivilegedBroker(data_dir) as broker:
            yield broker
    finally:
        data_dir.chmod(0o700)


@pytest.mark.parametrize("end", ["SIGTERM", "kill -9"])
def test_a_read_only_data_folder_at_the_start(
    broker: BrokerProcess, dial: Dial, name: str, end: str
) -> None:
    absent(broker.port, name, name, 1)
    say(broker.port, name, "kept")
    if end == "SIGTERM":
        assert broker.terminate(signal.SIGTERM) == 0
    else:
        broker.kill9()
    files = sorted(broker.data_dir.iterdir())
    before = [path.read_bytes() for path in files]
    for path in files:
        path.chmod(0o400)
    broker.data_dir.chmod(0o500)

    broker.spawn()
    assert broker.wait() == EXIT_STORE
    (line,) = [line for line in broker.process.lines if line.strip()]
    assert str(broker.data_dir) in line
    assert "Permission denied" in line
    assert sorted(broker.data_dir.iterdir()) == files
    assert [path.read_bytes() for path in files] == before

    broker.data_dir.chmod(0o700)
    for path in files:
        path.chmod(0o600)
    broker.start()
    back = dial(broker, V5)
    assert back.hello(name).session_present
    assert contents(back.messages(1)) == [b"kept"]
