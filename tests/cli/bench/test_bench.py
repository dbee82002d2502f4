"""`holdfast bench` against a real broker, and against Mosquitto."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker import BrokerProcess, holdfast_command
from tests.support.command import assert_one_line, holdfast
from tests.support.process import Process, required
from tests.support.typed import pub


def bench(port: int, folder: Path, *arguments: str) -> dict[str, object]:
    """The figures of one run, which goes well and is quiet."""
    name, *rest = arguments
    options = ["-p", str(port), "--json", "--quiet"]
    done = holdfast("bench", name, *options, *rest, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    figures: dict[str, object] = json.loads(done.stdout)
    return figures


@pytest.fixture(params=["holdfast", "mosquitto"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The port of a broker."""
    if request.param == "holdfast":
        with BrokerProcess(tmp_path / "data", store="memory") as broker:
            yield broker.port
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    (tmp_path / "conf").write_text(
        f"user root\nallow_anonymous true\nlog_dest stderr\nlistener {port} 127.0.0.1\n"
    )
    process = Process([required("mosquitto", "mosquitto"), "-c", str(tmp_path / "conf")])
    process.wait_line(r"mosquitto version .* running")
    try:
        yield port
    finally:
        process.kill9()


def test_connections_are_counted(port: int, tmp_path: Path) -> None:
    figures = bench(port, tmp_path, "conn", "-c", "20", "--parallel", "5", "-i", "1")
    assert (figures["clients"], figures["connected"], figures["failed"]) == (20, 20, 0)
    latency = figures["connect_ms"]
    assert isinstance(latency, dict)
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_published_is_acknowledged_and_received(
    port: int, tmp_path: Path, qos: int
) -> None:
    count = 300
    subscribe = ["sub", "-p", str(port), "-c", "2", "-t", "bench/#", "-q", str(qos)]
    options = ["--count", str(2 * count), "--json"]
    subscriber = Process([holdfast_command(), "bench", *subscribe, *options])
    subscriber.wait_line(r"subscribed 2 clients")
    publish = ["-c", "3", "-q", str(qos), "--count", str(count), "-s", "100", "--in-flight", "10"]
    figures = bench(port, tmp_path, "pub", *publish)
    assert figures["published"] == count
    if qos > 0:
        assert (figures["acknowledged"], figures["refused"], figures["unanswered"]) == (count, 0, 0)
        latency = figures["latency_ms"]
        assert isinstance(latency, dict)
        assert latency["p50"] > 0
    assert subscriber.wait() == 0
    seen = json.loads(subscriber.lines[-1])
    assert (seen["received"], seen["lost"], seen["repeated"]) == (2 * count, 0, 0)
    assert seen["latency_ms"]["max"] > 0
    assert seen["without_stamp"] == 0


def test_clients_are_called_by_their_template_and_stay(
    broker: BrokerProcess, tmp_path: Path
) -> None:
    pub(broker, tmp_path, "-t", "a", "-m", "here", "-r")
    command = [holdfast_command(), "sub", "-p", str(broker.port), "-i", "bench-7", "-t", "a"]
    seventh = Process(command)
    seventh.wait_line("^here$")
    load = [holdfast_command(), "bench", "conn", "-p", str(broker.port), "-c", "8"]
    held = Process([*load, "--client-id", "bench-%i", "--hold", "1000"])
    held.wait_line("connected 8 of 8 clients")
    assert seventh.wait() == 7, seventh.lines  # its session was taken over
    held.send_signal(signal.SIGINT)
    assert held.wait() == 130


def test_the_rate_is_kept(broker: BrokerProcess, tmp_path: Path) -> None:
    figures = bench(broker.port, tmp_path, "pub", "-c", "2", "--rate", "50", "--count", "20")
    per_s = figures["published_per_s"]
    assert isinstance(per_s, float)
    assert per_s <= 110


def test_an_interrupted_run_tells_what_it_has(broker: BrokerProcess) -> None:
    command = [holdfast_command(), "bench", "pub", "-p", str(broker.port), "-c", "2"]
    process = Process([*command, "--rate", "10", "--duration", "1000"])
    process.wait_line(r"^\d+ s: .*published [1-9]")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    text = "\n".join(process.lines)
    assert "Traceback" not in text
    assert re.search(r"^published +\d+ messages", text, re.MULTILINE)
    assert re.search(r"^latency +p50 ", text, re.MULTILINE)


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        for name in ("conn", "pub", "sub"):
            more = ["-t", "a"] if name == "sub" else []
            done = holdfast("bench", name, "-p", port, "-c", "3", *more, folder=tmp_path)
            assert_one_line(done, 6, "refused")
            assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sub"], "-t: expected a topic filter"),
        (["pub", "-t", "a/#"], "-t: expected a Topic Name without wildcards"),
        (["conn", "-V", "31"], "expected 5 or 311"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    assert_one_line(holdfast("bench", *arguments, folder=tmp_path), 2, said)


def test_a_terminal_gets_a_table_that_is_gone_at_the_end(broker: BrokerProcess) -> None:
    ours, theirs = pty.openpty()
    command = [holdfast_command(), "bench", "pub", "-p", str(broker.port), "-c", "2"]
    with subprocess.Popen(
        [*command, "--duration", "0.6"],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm"},
        text=True,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:
            pass  # so ends a terminal on Linux
        assert process.stdout is not None
        summary = process.stdout.read()
        assert process.wait(60) == 0
    os.close(ours)
    assert b"published" in shown
    assert b"Traceback" not in shown
    assert re.search(r"^acknowledged +\d+ messages", summary, re.MULTILINE)
