"""The scenarios that compare Python client libraries, each in a process of its own."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Final

from bench.brokers import ROOT, GeneratorFailed, OrderedProcess, answers
from bench.client_task import Task
from bench.flow import machine_cpu_seconds
from bench.machine import fdatasync_times, on_core
from bench.rows import HOLDFAST, OTHER_CLIENTS, RAW, ClientRow, Row, Target
from bench.stats import median
from bench.subjects import Bench, Detail

MB: Final = 1024 * 1024
WINDOW: Final = 1000  # messages in flight
# What is best for these two. aiomqtt looks at every message under way for each that it publishes;
# gmqtt tells only that nothing is under way any more, so a window ends with a pause.
WINDOWS: Final = {"aiomqtt": 50, "gmqtt": 4000}
WARMUP: Final = 2000  # messages, more and more until their rate tells how many are measured
WARMUP_SERIAL: Final = 300
WARMUP_SHARE: Final = 0.2  # of the time that is measured
TIMEOUT_S: Final = 120.0
BUSY: Final = 0.9  # below this share of its core a client waited for something
FDATASYNC_COUNT: Final = 200
IMPORT_MS_MAX: Final = 100
IMPORT_REPEAT: Final = 5  # for each repetition of the others
FASTER: Final = {"paho": 3.0, "aiomqtt": 3.0, "gmqtt": 1.0}
AS_FAST: Final = {"paho": 1.0, "aiomqtt": 1.0}


@dataclass(frozen=True, slots=True)
class ClientFlow:
    """Messages of one QoS, that each library publishes or receives; ``rivals`` as in ClientRow."""

    key: str
    title: str
    qos: int
    rivals: dict[str, float]
    is_receiving: bool = False
    is_serial: bool = False
    is_durable: bool = False  # Holdfast's outbox is a file, which no other library has


def _flows() -> list[ClientFlow]:
    flows = [
        ClientFlow(f"cp{qos}", f"publish, QoS {qos}, many in flight", qos, FASTER)
        for qos in (0, 1, 2)
    ]
    flows += [
        ClientFlow(f"cr{qos}", f"receive, QoS {qos}", qos, FASTER, is_receiving=True)
        for qos in (0, 1, 2)
    ]
    flows += [
        ClientFlow(f"cs{qos}", f"publish, QoS {qos}, 1 in flight", qos, {}, is_serial=True)
        for qos in (1, 2)
    ]
    flows += [
        ClientFlow(
            f"co{qos}",
            f"publish, QoS {qos}, many in flight; Holdfast with a durable outbox",
            qos,
            AS_FAST,
            is_durable=True,
        )
        for qos in (1, 2)
    ]
    flows += [
        ClientFlow(
            f"cos{qos}",
            f"publish, QoS {qos}, 1 in flight; Holdfast with a durable outbox",
            qos,
            {},
            is_serial=True,
            is_durable=True,
        )
        for qos in (1, 2)
    ]
    return flows


FLOWS: Final = _flows()


def client_scenarios() -> dict[str, Callable[[Bench], list[Row]]]:
    """Every scenario of the clients by its key."""
    found: dict[str, Callable[[Bench], list[Row]]] = {}
    for flow in FLOWS:
        found[flow.key] = lambda bench, flow=flow: [compare(bench, flow)]  # type: ignore[misc]  # mypy cannot infer a lambda's default
    found["ci"] = imports
    return found


def compare(bench: Bench, flow: ClientFlow) -> Row:
    """One flow with every library in turn."""
    row = ClientRow(flow.key, flow.title, "/s", against="", rivals=flow.rivals)
    kinds = [HOLDFAST, *(name for name in OTHER_CLIENTS if name in flow.rivals or not flow.rivals)]
    bench.alternate(row, lambda kind: measure(bench, flow, kind), kinds=kinds)
    bench.alternate(row, lambda kind: measure(bench, flow, kind), kinds=(RAW,), repeat=1)
    note_busy(row, is_serial=flow.is_serial)
    if flow.is_durable:
        disk_ms = median(fdatasync_times(bench.work, FDATASYNC_COUNT)) * 1e3
        row.notes.append(f"write and fdatasync of 4096 bytes, p50: {disk_ms:.3f} ms")
    row.note_disturbance()
    return row


def measure(bench: Bench, flow: ClientFlow, kind: str) -> tuple[float, Detail]:
    """Connect a client to a peer of its own, warm up, and measure as many as fit the time."""
    folder = bench.work / f"client-{flow.key}-{kind}"
    folder.mkdir(parents=True)
    outbox = str(folder / "outbox.db") if flow.is_durable and kind == HOLDFAST else None
    try:
        with connected(flow, kind, outbox, is_spinning=bench.options.spin) as ends:
            count = WARMUP_SERIAL if flow.is_serial else WARMUP
            seconds = bench.options.seconds
            while (warmup := ends.run(count)).seconds < seconds * WARMUP_SHARE:
                count *= 4
            figures = ends.run(max(count, int(warmup.rate * seconds)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures.rate, asdict(figures)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one stretch; ``busy`` shares are CPU time per time on the clock, 1 for one core."""

    messages: int
    seconds: float
    rate: float
    cpu_us: float  # of the client, user and system, per message
    peak_mb: float  # of the client's process until then
    client_busy: float
    peer_busy: float
    others_busy: float


class Ends:
    """A connected client and its peer."""

    def __init__(self, flow: ClientFlow, peer: OrderedProcess, client: OrderedProcess) -> None:
        self._flow = flow
        self._peer = peer
        self._client = client

    def run(self, count: int) -> Figures:
        """So many messages, all of which must arrive; raises GeneratorFailed if they do not."""
        peer, client, flow = self._peer, self._client, self._flow
        clock_s, machine_s = time.perf_counter(), machine_cpu_seconds()
        if flow.is_receiving:
            client.ask({"do": "expect", "count": count}, timeout_s=TIMEOUT_S)
            peer.tell({"count": count})
            client.tell({"do": "wait"})
        else:
            peer.tell({"count": count})
            client.tell({"do": "publish", "count": count})
        of_client, of_peer = map(_floats, answers(client, peer, timeout_s=TIMEOUT_S))
        machine_s = machine_cpu_seconds() - machine_s
        clock_s = time.perf_counter() - clock_s
        # The processes read one clock. A giver of QoS 0 is done when the kernel has the bytes.
        begin = of_peer["begin"] if flow.is_receiving else of_client["begin"]
        end = max(of_client["end"], of_peer["end"])
        seconds = end - begin
        used_s = of_client["cpu_s"] + of_peer["cpu_s"]
        return Figures(
            messages=count,
            seconds=seconds,
            rate=count / seconds,
            cpu_us=of_client["cpu_s"] / count * 1e6,
            peak_mb=of_client["peak_bytes"] / MB,
            client_busy=of_client["cpu_s"] / seconds,
            peer_busy=of_peer["cpu_s"] / seconds,
            others_busy=max(0.0, (machine_s - used_s) / clock_s),
        )


@contextmanager
def connected(
    flow: ClientFlow, kind: str, outbox: str | None, *, is_spinning: bool
) -> Iterator[Ends]:
    """A client of ``kind`` that is ready for ``flow``, and the peer that it talks to."""
    window = 1 if flow.is_serial else WINDOWS.get(kind, WINDOW)
    role = "give" if flow.is_receiving else "take"
    arguments = ["-m", "bench.client_peer", role, str(flow.qos), str(WINDOW)]
    peer = OrderedProcess(arguments + ["spin"] * is_spinning, core=0, name=f"the peer of {kind}")
    try:
        port = peer.answer(timeout_s=TIMEOUT_S)
        assert isinstance(port, int)
        task = Task(port, flow.qos, flow.is_receiving, window, outbox)
        client = OrderedProcess(
            ["-m", "bench.client_programs", kind, json.dumps(asdict(task))], core=1, name=kind
        )
        try:
            client.answer(timeout_s=TIMEOUT_S)
            yield Ends(flow, peer, client)
        finally:
            client.stop()
    finally:
        peer.stop()


def note_busy(row: ClientRow, *, is_serial: bool) -> None:
    """Note what shows that the peer held nobody up, and who waited all the same."""
    raw = row.median_of(RAW)
    clients = [kind for kind in row.values if kind != RAW]
    peers = [share for kind in clients for share in row.figures(kind, "peer_busy")]
    fastest = max((row.median_of(kind) or 0 for kind in clients), default=0)
    if raw is not None and fastest:
        row.notes.append(
            f"the peer does {raw / fastest:.1f} times the fastest client's rate with raw bytes,"
            f" and was busy {max(peers):.0%} at most"
        )
    if is_serial:
        return
    for kind in clients:
        shares = row.figures(kind, "client_busy")
        if median(shares) < BUSY:
            row.notes.append(f"{kind}: busy {median(shares):.0%} of the time, else it waited")


def imports(bench: Bench) -> list[Row]:
    """How long the import of each library takes, in a fresh interpreter."""
    row = ClientRow(
        "ci",
        "import of the library",
        "ms",
        Target(IMPORT_MS_MAX, "value at most"),
        lower_is_better=True,
        against="",
    )
    statements = {
        HOLDFAST: "from holdfast import Client",
        "paho": "import paho.mqtt.client",
        "aiomqtt": "import aiomqtt",
        "gmqtt": "import gmqtt",
    }

    def measure_import(kind: str) -> tuple[float, Detail]:
        return _import_s(statements[kind]) * 1e3, {}

    for statement in statements.values():
        with suppress(GeneratorFailed):  # It writes what the others only read.
            _import_s(statement)
    repeat = bench.options.repeat * IMPORT_REPEAT
    bench.alternate(row, measure_import, kinds=tuple(statements), repeat=repeat)
    return [row]


def client_versions() -> dict[str, str]:
    """Of the other libraries, and of the event loop under those that need one."""
    found: dict[str, str] = {}
    for name in ("paho-mqtt", "aiomqtt", "gmqtt", "uvloop"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _import_s(statement: str) -> float:
    program = (
        f"import time; begin = time.perf_counter()\n{statement}\nprint(time.perf_counter() - begin)"
    )
    command = [sys.executable, "-c", program]
    with on_core(1):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GeneratorFailed(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def _floats(answer: object) -> dict[str, float]:
    assert isinstance(answer, dict)
    return answer
