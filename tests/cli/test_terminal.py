"""What `holdfast sub` shows on a terminal, of messages that would rather be obeyed."""

import os
import pty
import subprocess
from pathlib import Path

from tests.support.broker import BrokerProcess, holdfast_command
from tests.support.typed import pub


def shown(broker: BrokerProcess, *arguments: str) -> str:
    """What a terminal gets of one message."""
    ours, theirs = pty.openpty()
    command = [holdfast_command(), "sub", "-p", str(broker.port), "-C", "1", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65_536):
                text += part
        except OSError:
            pass  # so ends a terminal on Linux
        assert process.wait(60) == 0
    os.close(ours)
    return text.decode().replace("\r\n", "\n")


def test_a_terminal_obeys_no_payload_and_no_topic(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    topic = f"{name}/\x9b2J"
    (tmp_path / "nasty").write_bytes(b"\x1b]0;title\x07 two\nlines\t\xff")
    pub(broker, tmp_path, "-t", topic, "-r", "-f", "nasty")
    payload = "\\x1b]0;title\\x07 two\nlines\t\\xff"
    expected = f"(retained) {name}/\\x9b2J {payload.expandtabs()}\n"
    assert shown(broker, "-t", f"{name}/#", "-v").expandtabs() == expected.expandtabs()
    assert "\x1b" not in shown(broker, "-t", f"{name}/#", "--json")
    assert "\x1b" not in shown(broker, "-t", f"{name}/#", "-F", "%t %p %j")
