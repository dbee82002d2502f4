"""The scenarios that measure a rate or a time of single messages."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.client_rows import client_scenarios
from bench.flow import Flow
from bench.footprint import backlog_memory, first_message, idle_memory
from bench.machine import fdatasync_times
from bench.matching import matching
from bench.rows import CEILING, HOLDFAST, MOSQUITTO, Row, Target
from bench.stats import percentile
from bench.subjects import Bench, Detail, Subject
from bench.wire import MQTT_5

ONE_TO_ONE: Final = Flow(qos=1, durable=True)
HUNDRED_PAIRS: Final = Flow(qos=1, pairs=100, window=10, lag=200, ring=256, durable=True)
ABSENT: Final = (10, 1000, 10_000)
ABSENT_COMPARED: Final = 1000
LATENCY_COUNT: Final = 2000


@dataclass(frozen=True, slots=True)
class Rate:
    """A flow whose rate is compared with Mosquitto's; ``at_least`` is the ratio to reach."""

    key: str
    title: str
    flow: Flow
    at_least: float | None


RATES: Final = (
    Rate("a", "QoS 0, 1 to 1", Flow(qos=0, lag=2000), 6),
    Rate("b", "QoS 0, 1 to 50, deliveries", Flow(qos=0, subscribers=50, lag=1000), 10),
    Rate("c", "QoS 1, durable, 1 to 1, 100 in flight", ONE_TO_ONE, 2),
    Rate("d", "QoS 1, durable, 100 pairs, 10 in flight", HUNDRED_PAIRS, 3),
    Rate("e", "QoS 2, durable, 1 to 1, 100 in flight", Flow(qos=2, durable=True), 2),
    Rate(
        "f",
        "QoS 2, durable, 100 pairs, 10 in flight",
        Flow(qos=2, pairs=100, window=10, lag=200, ring=256, durable=True),
        3,
    ),
    Rate("a5", "as a, MQTT 5", Flow(qos=0, lag=2000, version=MQTT_5), None),
    Rate("c5", "as c, MQTT 5", Flow(qos=1, durable=True, version=MQTT_5), None),
    Rate(
        "p",
        "as c5, each with 7 properties, 126 bytes",
        Flow(qos=1, durable=True, version=MQTT_5, properties=True),
        None,
    ),
    Rate("s0", "QoS 0, 1 to a shared group of 4", Flow(qos=0, subscribers=4, group=True), None),
    Rate(
        "s1",
        "QoS 1, durable, 1 to a shared group of 4, 100 in flight",
        Flow(qos=1, subscribers=4, durable=True, group=True),
        None,
    ),
)


def scenarios() -> dict[str, Callable[[Bench], list[Row]]]:
    """Every scenario by its key, in the order in which they run."""
    found: dict[str, Callable[[Bench], list[Row]]] = {}
    for rate in RATES:
        found[rate.key] = lambda bench, rate=rate: [measure_rate(bench, rate)]  # type: ignore[misc]  # mypy cannot infer a lambda's default
    found["g"] = absent_sessions
    found["h"] = latency
    found["i"] = idle_memory
    found["j"] = backlog_memory
    found["k"] = first_message
    found["m"] = matching
    return found | client_scenarios()


def groups() -> dict[str, list[str]]:
    """Names for several scenarios at once."""
    clients = list(client_scenarios())
    return {"broker": [key for key in scenarios() if key not in clients], "clients": clients}


def measure_rate(bench: Bench, rate: Rate) -> Row:
    """Alternating repetitions of one flow, and its ceiling."""
    target = None if rate.at_least is None else Target(rate.at_least, "ratio at least")
    row = Row(rate.key, rate.title, "/s", target)
    flow = bench.timed(rate.flow)
    bench.collect(row, lambda subject: subject.flow(flow))
    if not flow.group:  # the peer that shows the ceiling knows no groups
        bench.collect(row, lambda subject: subject.flow(flow), kinds=(CEILING,), repeat=1)
    row.note_ceiling()
    row.note_disturbance()
    return row


def absent_sessions(bench: Bench) -> list[Row]:
    """QoS 1 publishes acknowledged a second, while absent sessions wait for each of them."""
    flow = bench.timed(Flow(qos=1, subscribers=0, topic="g"))
    rows: dict[int, Row] = {}
    for absent in ABSENT:
        row = Row(f"g:{absent}", f"QoS 1 publishes, {absent} absent sessions wait", "/s")
        rows[absent] = row

        def measure(subject: Subject, absent: int = absent) -> tuple[float, Detail]:
            subject.absent_sessions("g-absent", absent, "g/#")
            return subject.flow(flow)

        kinds = (MOSQUITTO, HOLDFAST) if absent == ABSENT_COMPARED else (HOLDFAST,)
        bench.collect(row, measure, kinds=kinds)
    compared = rows[ABSENT_COMPARED]
    compared.target = Target(50, "ratio at least")
    bench.collect(compared, lambda subject: subject.flow(flow), kinds=(CEILING,), repeat=1)
    compared.note_ceiling()
    for row in rows.values():
        row.note_disturbance()
    rows[10_000].target = Target(2 / 3, "ratio at least")
    rows[10_000].against = "g:10"
    rows[10_000].reference = list(rows[10].values.get(HOLDFAST, []))
    rows[10].against = ""
    return list(rows.values())


def latency(bench: Bench) -> list[Row]:
    """PUBLISH to PUBACK with one message in flight, beside the disk's own write and fdatasync."""
    count = 200 if bench.options.quick else LATENCY_COUNT
    middle = Row(
        "h:p50",
        "QoS 1, durable, 1 in flight: PUBACK after, p50",
        "ms",
        Target(4, "ratio at most"),
        lower_is_better=True,
        against="fdatasync",
    )
    tail = Row(
        "h:p99",
        "QoS 1, durable, 1 in flight: PUBACK after, p99",
        "ms",
        lower_is_better=True,
        against="fdatasync",
    )

    def measure(subject: Subject) -> tuple[float, Detail]:
        folder = subject.broker.folder
        disk = fdatasync_times(folder, count // 2)
        times = subject.order("puback_times", count=count, warmup=count // 10)
        assert isinstance(times, list)
        disk += fdatasync_times(folder, count // 2)
        name = subject.broker.name
        detail: Detail = {
            "fdatasync_p50_ms": percentile(disk, 0.5) * 1e3,
            "fdatasync_p99_ms": percentile(disk, 0.99) * 1e3,
        }
        if name == HOLDFAST:
            middle.reference.append(percentile(disk, 0.5) * 1e3)
            tail.reference.append(percentile(disk, 0.99) * 1e3)
        tail.add(name, percentile(times, 0.99) * 1e3, detail)
        return percentile(times, 0.5) * 1e3, detail

    bench.collect(middle, measure)
    bench.collect(middle, measure, kinds=(CEILING,), repeat=1)
    tail.failures = list(middle.failures)
    for row, share in ((middle, "p50"), (tail, "p99")):
        if row.reference:
            figures = ", ".join(f"{value:.3f}" for value in row.reference)
            row.notes.append(f"write and fdatasync of 4096 bytes, {share}: {figures} ms")
    return [middle, tail]
