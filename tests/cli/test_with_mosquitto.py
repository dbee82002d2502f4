"""`holdfast pub` and `holdfast sub` against Mosquitto."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import holdfast
from tests.support.mosquitto import Mosquitto
from tests.support.process import required


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as broker:
        yield broker


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
    mosquitto.kill9()
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
