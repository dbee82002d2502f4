"""`holdfast pub` and `holdfast sub` against Mosquitto."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import holdfast
from tests.support.process import Process, required


class Mosquitto:
    """A broker on a port that it keeps, for this test."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        self._file.write_text(
            f"user root\nallow_anonymous true\nlog_dest stderr\nlistener {self.port} 127.0.0.1\n"
        )
        self.start()

    def start(self) -> None:
        command = [required("mosquitto", "mosquitto"), "-c", str(self._file)]
        self.process = Process(command)
        self.process.wait_line(r"mosquitto version .* running")


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(tmp_path)
    yield broker
    if broker.process.is_running:
        broker.process.kill9()


@pytest.mark.parametrize("version", ["5", "311"])
def test_daily_use(mosquitto: Mosquitto, tmp_path: Path, version: str) -> None:
    place = ["-p", str(mosquitto.port), "-V", version]
    done = holdfast("sub", *place, "-t", "a/#", "-i", "c1", "-c", "-E", "-q", "2", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for qos in ("0", "1", "2"):
        arguments = [*place, "-t", "a/b", "-m", f"qos {qos}", "-q", qos]
        done = holdfast("pub", *arguments, folder=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    arguments = [*place, "-t", "a/#", "-i", "c1", "-c", "-C", "2", "-q", "2", "--json"]
    done = holdfast("sub", *arguments, folder=tmp_path)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["payload"], one["qos"]) for one in shown] == [("qos 1", 1), ("qos 2", 2)]


def test_an_outbox_goes_out_when_it_is_there_again(mosquitto: Mosquitto, tmp_path: Path) -> None:
    place = ["-p", str(mosquitto.port)]
    mosquitto.process.kill9()
    arguments = ["-t", "a", "-l", "-r", "--outbox", "q.db", "--drain-timeout", "0.2"]
    done = holdfast("pub", *place, *arguments, folder=tmp_path, given="1\n2\n")
    assert done.returncode == 8
    mosquitto.start()
    done = holdfast("pub", *place, "--outbox", "q.db", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert holdfast("sub", *place, "-t", "a", "-C", "1", folder=tmp_path).stdout == "2\n"


def test_the_formats_of_its_own_client_are_the_same(mosquitto: Mosquitto, tmp_path: Path) -> None:
    place = ["-p", str(mosquitto.port)]
    given = ["-t", "home/door", "-m", '{"a": [1]}', "-r", "--user-property", "a=b"]
    assert holdfast("pub", *place, *given, folder=tmp_path).returncode == 0
    theirs = required("mosquitto_sub", "mosquitto-clients")
    for template in (
        *(
            "%t %p",
            "%q %r %l",
            "%x",
            "%X",
            "[%12t]",
            "[%-12t]",
            "[%6.4t]",
            "%05l",
            "%%|@@|@Y",
            "%P",
        ),
        r"a\tb\\c\n%t",
    ):
        arguments = ["-t", "home/+", "-C", "1", "-q", "1", "-V", "5", "-F", template]
        expected = subprocess.run(
            [theirs, *place, *arguments], capture_output=True, check=True, timeout=60
        ).stdout
        done = holdfast("sub", *place, *arguments, folder=tmp_path)
        assert done.stdout.encode() == expected, template
    for template in ("%j", "%J"):
        arguments = ["-t", "home/+", "-C", "1", "-q", "1", "-V", "5", "-F", template]
        answer = subprocess.run(
            [theirs, *place, *arguments], capture_output=True, check=True, timeout=60
        ).stdout
        shown = json.loads(holdfast("sub", *place, *arguments, folder=tmp_path).stdout)
        assert shown | {"tst": ""} == json.loads(answer) | {"tst": ""}
