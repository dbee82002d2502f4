"""The clients' rows: every library publishes and receives, and nothing wrong goes unseen."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.brokers import GeneratorFailed, OrderedProcess, answers
from bench.client_programs import Tally
from bench.client_rows import FLOWS, ClientFlow, compare, connected, measure, note_busy
from bench.client_task import HOST, TOPIC, ring_of
from bench.rows import HOLDFAST, OTHER_CLIENTS, RAW, ClientRow, Target
from bench.scenarios import groups, scenarios
from bench.subjects import Bench, Options
from bench.wire import MQTT_311, connect, publish

FLOW_OF = {flow.key: flow for flow in FLOWS}
COUNT = 200


@pytest.mark.parametrize("key", ["cp0", "cp1", "cp2", "cr0", "cr1", "cr2", "cs1", "cs2"])
def test_the_peer_gives_and_takes(key: str) -> None:
    check_runs(FLOW_OF[key], RAW)


@pytest.mark.parametrize("key", ["cp0", "cp2", "cr1", "cs1"])
@pytest.mark.parametrize("kind", OTHER_CLIENTS)
def test_a_library_publishes_and_receives(kind: str, key: str) -> None:
    check_runs(FLOW_OF[key], kind)


@pytest.mark.parametrize("key", ["cp0", "cp1", "cp2", "cr0", "cr1", "cr2", "cs2", "co1", "cos2"])
def test_holdfast_publishes_and_receives(tmp_path: Path, key: str) -> None:
    flow = FLOW_OF[key]
    check_runs(flow, HOLDFAST, str(tmp_path / "outbox.db") if flow.is_durable else None)


def check_runs(flow: ClientFlow, kind: str, outbox: str | None = None) -> None:
    with connected(flow, kind, outbox, is_spinning=False) as ends:
        for _ in range(2):
            figures = ends.run(COUNT)
            assert figures.messages == COUNT
            assert figures.seconds > 0
            assert figures.cpu_us > 0
            assert figures.peak_mb > 1


def test_a_row_has_a_figure_of_every_library_and_of_raw_bytes(tmp_path: Path) -> None:
    bench = Bench(Options(repeat=1, seconds=0.01), tmp_path)
    row = compare(bench, ClientFlow("x", "a title", 0, {"gmqtt": 1.0}))
    assert row.values.keys() == {HOLDFAST, "gmqtt", RAW}
    assert row.failures == []
    assert row.figures("gmqtt", "cpu_us")
    assert not list(tmp_path.iterdir())


def test_a_library_that_fails_says_why(tmp_path: Path) -> None:
    bench = Bench(Options(), tmp_path)
    with pytest.raises(GeneratorFailed, match="KeyError: 'unheard-of'"):
        measure(bench, FLOW_OF["cp0"], "unheard-of")


@pytest.fixture
def peer() -> Iterator[OrderedProcess]:
    process = OrderedProcess(
        ["-m", "bench.client_peer", "take", "1", "10"], core=0, name="the peer"
    )
    yield process
    process.stop()


@pytest.mark.parametrize(
    ("packets", "complaint"),
    [
        ([0, 2], "message 1 should be"),
        ([0, 0], "message 1 should be"),
        ([0, 1, 2], "3 messages came instead of 2"),
    ],
    ids=["lost", "repeated", "too many"],
)
def test_a_client_that_cheats_is_found_out(
    peer: OrderedProcess, packets: list[int], complaint: str
) -> None:
    port = peer.answer(timeout_s=30)
    assert isinstance(port, int)
    ring = ring_of(1, MQTT_311)
    with socket.create_connection((HOST, port)) as sock:
        sock.sendall(connect("cheat"))
        assert sock.recv(4) == b"\x20\x02\x00\x00"
        peer.tell({"count": 2})
        sock.sendall(
            b"".join(ring.packets[at * ring.size : (at + 1) * ring.size] for at in packets)
        )
        with pytest.raises(GeneratorFailed, match=complaint):
            answers(peer, timeout_s=30)


def test_a_packet_that_is_not_of_the_ring_is_found_out(peer: OrderedProcess) -> None:
    port = peer.answer(timeout_s=30)
    assert isinstance(port, int)
    with socket.create_connection((HOST, port)) as sock:
        sock.sendall(connect("cheat"))
        sock.recv(4)
        peer.tell({"count": 1})
        sock.sendall(publish(TOPIC, bytes(64), qos=1, version=MQTT_311, packet_id=1))
        with pytest.raises(GeneratorFailed, match="message 0 should be"):
            answers(peer, timeout_s=30)


def test_a_tally_counts_what_is_wrong() -> None:
    payloads = [b"%04d" % number for number in range(4096)]
    tally = Tally(payloads)
    tally.expect(4)
    for payload in (b"0000", b"0001", b"0001"):
        tally.take(payload)
        assert not tally.is_reached.is_set()
    tally.take(b"0003")
    assert tally.is_reached.is_set()
    assert (tally.received, tally.wrong) == (4, 1)


def row_of(figures: dict[str, float], rivals: dict[str, float]) -> ClientRow:
    row = ClientRow("x", "a title", "/s", rivals=rivals)
    for kind, value in figures.items():
        row.add(kind, value, {"client_busy": 1.0, "peer_busy": 0.25})
    return row


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ({"holdfast": 300, "paho": 100, "gmqtt": 300}, "met"),
        ({"holdfast": 299, "paho": 100, "gmqtt": 200}, "missed"),
        ({"holdfast": 300, "paho": 100, "gmqtt": 301}, "missed"),
        ({"holdfast": 300, "paho": 100}, "not judged"),
        ({"holdfast": 200, "paho": 100}, "missed"),
        ({"paho": 100, "gmqtt": 300}, "failed"),
    ],
)
def test_a_row_is_met_if_every_rival_is_far_enough(figures: dict[str, float], verdict: str) -> None:
    assert row_of(figures, {"paho": 3, "gmqtt": 1}).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(100, "met"), (101, "missed")])
def test_a_row_with_a_limit_of_its_own(value: float, verdict: str) -> None:
    row = row_of({"holdfast": value}, {})
    row.target = Target(100, "value at most")
    assert row.verdict == verdict


def test_what_shows_that_the_peer_held_nobody_up() -> None:
    row = row_of({"holdfast": 300, "paho": 100, "raw": 900}, {})
    row.add("paho", 100, {"client_busy": 0.5, "peer_busy": 0.1})
    note_busy(row, is_serial=False)
    first, second = row.notes
    assert first.startswith("the peer does 3.0 times the fastest client's rate with raw bytes")
    assert first.endswith("and was busy 25% at most")
    assert second == "paho: busy 75% of the time, else it waited"


def test_the_rows_are_known_by_name_and_as_a_group() -> None:
    assert {*groups()["clients"], *groups()["broker"]} == scenarios().keys()
    assert {flow.key for flow in FLOWS} | {"ci"} == {*groups()["clients"]}
