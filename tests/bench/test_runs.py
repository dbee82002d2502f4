"""The benchmark runs: every kind of flow against the peer, and a quick scenario on Mosquitto."""

import json
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.brokers import GeneratorFailed
from bench.flow import Flow
from bench.machine import fdatasync_times
from bench.rows import CEILING, HOLDFAST, MOSQUITTO
from bench.subjects import Bench, Options
from bench.wire import MQTT_5


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Options(holdfast=str(tmp_path / "absent")), tmp_path)


@pytest.mark.parametrize(
    "flow",
    [
        Flow(qos=0),
        Flow(qos=0, subscribers=5, lag=100, version=MQTT_5),
        Flow(qos=1, durable=True),
        Flow(qos=1, pairs=5, window=10, ring=64, lag=50, version=MQTT_5),
        Flow(qos=1, subscribers=0, spread_over=7),
        Flow(qos=2, durable=True),
        Flow(qos=2, pairs=5, window=10, ring=64, lag=50),
    ],
    ids=str,
)
def test_a_flow_against_the_peer_loses_nothing(bench: Bench, flow: Flow) -> None:
    with bench.subject(CEILING) as subject:
        bench.options.seconds, bench.options.warmup_s = 0.1, 0.05
        rate, detail = subject.flow(bench.timed(flow))
    assert rate > 0
    assert detail["messages"]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_flow_against_mosquitto_ends_at_its_limit(bench: Bench, qos: int) -> None:
    with bench.subject(MOSQUITTO) as subject:
        _, detail = subject.flow(Flow(qos=qos, durable=True, limit=10_000))
    assert detail["messages"] == 10_000


def test_sessions_and_single_messages_on_mosquitto(bench: Bench) -> None:
    with bench.subject(MOSQUITTO) as subject:
        subject.absent_sessions("s", 70, "needle/{}")
        subject.order("publish", topic="needle/69", payload="found")
        seconds = subject.order("first_message", client_id="s-69", payload="found")
        assert isinstance(seconds, float)
        assert 0 < seconds < 30
        times = subject.order("puback_times", count=20, warmup=2)
        assert isinstance(times, list)
        assert len(times) == 20
        with pytest.raises(GeneratorFailed, match="not resumed"):
            subject.order("first_message", client_id="nobody", payload="found")


def test_a_folder_is_gone_after_its_broker(bench: Bench) -> None:
    with bench.subject(CEILING) as subject:
        folder = subject.broker.folder
        assert folder.exists()
    assert not folder.exists()


def test_the_disk_is_probed_and_left_clean(tmp_path: Path) -> None:
    times = fdatasync_times(tmp_path, 20, wrap_bytes=16 * 4096)
    assert len(times) == 20
    assert min(times) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_quick_scenario_reports_mosquitto_and_why_holdfast_has_no_figure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    absent = str(tmp_path / "absent")
    code = main(["--quick", "--only", "c", "--json", str(result), "--holdfast", absent])
    assert code == 1
    run = json.loads(result.read_text())
    (row,) = run["rows"]
    assert row["medians"].keys() == {MOSQUITTO, CEILING}
    assert row["medians"][MOSQUITTO] > 0
    assert row["failures"] == [f"{HOLDFAST}: absent is not installed: run make setup"]
    assert run["machine"]["cores"] > 0
    assert "not judged" in capfd.readouterr().out
