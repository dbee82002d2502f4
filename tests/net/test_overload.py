"""Memory that is short: its stages, where the limit comes from, a real broker with little of it."""

import asyncio
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.broker.pressure import ACCEPT, ENOUGH, FAST_BYTES, READ, STORE
from holdfast.broker.refusals import RefusalCounters
from holdfast.net.admission import AdmissionRules
from holdfast.net.gatekeeper import Gatekeeper
from holdfast.net.overload import MemoryStages, Overload, memory_of_machine, memory_of_process
from tests.support import packets
from tests.support.broker import BrokerProcess, NewBroker
from tests.support.local import Anyone, LocalServer
from tests.support.packets import CONNACK, PUBACK, V5
from tests.support.wire import PATIENCE_S, Dial, Wire

MIB = 1024 * 1024
SERVER_BUSY = 0x89


@pytest.mark.parametrize(
    ("used", "stages"),
    [
        ([10, 79, 80, 87, 88, 93, 94, 200], [0, 0, 1, 1, 2, 2, 3, 3]),
        ([100, 91, 90, 89, 85, 84, 83, 77, 76, 75], [3, 3, 3, 2, 2, 2, 1, 1, 1, 0]),
        ([100, 10], [3, 0]),
        ([80, 79, 80, 77, 80, 75, 79], [1, 1, 1, 1, 1, 0, 0]),
    ],
)
def test_stages_rise_at_once_and_fall_with_some_room(used: list[int], stages: list[int]) -> None:
    memory = MemoryStages(100)
    assert [memory.look(size) for size in used] == stages


def test_each_look_is_acted_on() -> None:
    used = [10]
    told: list[int] = []
    trims: list[int] = []
    counters = RefusalCounters()
    gatekeeper = Gatekeeper(AdmissionRules(), {}, counters, lambda: 0.0)
    overload = Overload(
        memory_bytes=100,
        gatekeeper=gatekeeper,
        note_memory=told.append,
        counters=counters,
        used_bytes=lambda: used[0],
        trim=lambda: trims.append(used[0]),
    )
    for size in (10, 85, 90, 95, 95, -1, 20, 20):
        used[0] = size
        overload.look()
    assert told == [ACCEPT, READ, STORE, STORE, ENOUGH]
    assert trims == [85]
    assert (counters.memory_bytes, counters.memory_stage) == (20, 0)


def test_without_a_limit_nobody_looks() -> None:
    async def run() -> None:
        counters = RefusalCounters()
        overload = Overload(
            memory_bytes=0,
            gatekeeper=Gatekeeper(AdmissionRules(), {}, counters, lambda: 0.0),
            note_memory=lambda stage: None,
            counters=counters,
            used_bytes=lambda: 1,
            trim=lambda: None,
        )
        overload.start()
        overload.stop()
        assert counters.memory_bytes == 0

    asyncio.run(run())


def cgroup(folder: Path, line: str, limits: dict[str, str]) -> tuple[Path, Path]:
    (folder / "proc" / "self").mkdir(parents=True)
    (folder / "proc" / "self" / "cgroup").write_text(line)
    for name, text in limits.items():
        file = folder / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder / "proc", folder / "cgroup"


@pytest.mark.parametrize(
    ("line", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1048576\n"}, MIB),
        ("0::/a/b\n", {"a/b/memory.max": "2097152\n", "memory.max": "3145728\n"}, 2 * MIB),
        ("0::/\n", {"memory.max": "4194304\n"}, 4 * MIB),
        ("5:memory:/x\n", {"memory/memory.limit_in_bytes": "5242880\n"}, 5 * MIB),
    ],
)
def test_the_limit_of_a_container_is_found(
    tmp_path: Path, line: str, limits: dict[str, str], expected: int
) -> None:
    assert memory_of_machine(*cgroup(tmp_path, line, limits)) == expected


def test_without_a_container_it_is_that_of_the_machine(tmp_path: Path) -> None:
    limits = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory.max": "max\n"}
    found = memory_of_machine(*cgroup(tmp_path, "0::/\n", limits))
    assert found > 64 * MIB
    assert found == memory_of_machine(tmp_path / "none", tmp_path / "none")


def test_the_memory_of_this_process_is_known() -> None:
    assert MIB < memory_of_process() < memory_of_machine()


# --- a real broker


def anonymous_bytes(broker: BrokerProcess) -> int:
    text = Path(f"/proc/{broker.process.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


def test_a_broker_without_memory_lets_nobody_in(new_broker: NewBroker, dial: Dial) -> None:
    broker = new_broker(settings={"memory_max_bytes": 1024})
    broker.process.wait_line("memory is short: .*, messages that have to be stored are refused")
    wire = dial(broker, V5)
    wire.send(packets.connect("c", V5, clean=True))
    assert wire.expect(CONNACK).code == SERVER_BUSY
    assert wire.until_closed() == []


def test_the_fastest_publisher_is_not_read_while_memory_is_short(name: str) -> None:
    """Who brings little is served on; when there is memory again, nothing of the other is lost."""
    with LocalServer(Anyone()) as server, ExitStack() as stack:
        honest, publisher = (stack.enter_context(Wire(server.port)) for _ in range(2))
        honest.hello(f"{name}-h", clean=True)
        publisher.hello(f"{name}-p", clean=True)
        server.note_memory(READ)
        for number in (1, 2):
            payload = bytes(2 * FAST_BYTES)
            publisher.send(packets.publish(name, payload, V5, qos=1, packet_id=number))
            assert publisher.wait_for(PUBACK).packet_id == number
        server.note_memory(READ)
        # What is read next is the last of it.
        publisher.send(packets.publish(name, b"last", V5, qos=1, packet_id=3))
        assert publisher.wait_for(PUBACK).packet_id == 3
        publisher.send(packets.publish(name, b"later", V5, qos=1, packet_id=4))
        for _ in range(20):
            honest.ping()
        publisher.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            publisher.socket.recv(1)
        publisher.socket.settimeout(PATIENCE_S)
        server.note_memory(ENOUGH)
        assert publisher.wait_for(PUBACK).packet_id == 4
