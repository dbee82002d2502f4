"""The lines about clients: written, and so many in a time."""

import logging

import pytest

from holdfast.broker.events import DEBUG, INFO, WARNING, Event
from holdfast.net.bursts import INTERVAL_S, KINDS_MAX, SOURCES_MAX
from holdfast.net.event_log import ALL_LINES_MAX, LINES_MAX, EventLog

START_MS = 1_700_000_000_000
INTERVAL_MS = int(INTERVAL_S * 1000)


def event(text: str, level: int = WARNING, address: str = "192.0.2.1:1") -> Event:
    return Event(level, text, "c", address)


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "holdfast")


def test_an_event_is_a_line_of_its_level(caplog: pytest.LogCaptureFixture) -> None:
    levels = [DEBUG, INFO, WARNING]
    EventLog().report([event("told", level) for level in levels], START_MS)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (level, "told") for level in levels
    ]


def test_a_burst_is_a_few_lines_and_one_with_the_count(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    assert log.next_ms == -1
    log.report([event("first")] * LINES_MAX, START_MS)
    log.report([event("first", INFO)] * 500, START_MS + 7_000)
    log.report([event("first", address="192.0.2.2:9")] * 500, START_MS + INTERVAL_MS - 1)
    assert caplog.messages == ["first"] * LINES_MAX
    caplog.clear()
    assert START_MS + INTERVAL_MS <= log.next_ms <= START_MS + INTERVAL_MS + 2
    log.end_bursts(log.next_ms)  # though nothing more comes
    assert caplog.messages == ["1000 more within 10 s, from 2 addresses: first"]
    assert caplog.records[0].levelno == WARNING
    assert log.next_ms == -1


def test_a_flood_that_goes_on_is_counted_for_each_interval(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = EventLog()
    for second in range(60):
        log.report([event("again")] * 100, START_MS + second * 1000)
    log.end_bursts(log.next_ms)
    counts = [line for line in caplog.messages if "more within" in line]
    assert counts == [f"{1000 - LINES_MAX} more within 10 s, from 1 address: again"] * 6
    assert len(caplog.messages) == 6 * (LINES_MAX + 1)


def test_kinds_differ_in_more_than_their_numbers(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    for number in range(1000):
        log.report([event(f"expected 0x10, 0x{number:02X} came, {number} bytes")], START_MS)
    log.report([event("something else")], START_MS)
    assert len(caplog.messages) == LINES_MAX + 1
    assert caplog.messages[-1] == "something else"


def test_kinds_without_end_are_one(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    for number in range(5000):
        text = "".join(chr(97 + int(digit)) for digit in str(number))
        log.report([event(text, address=f"10.0.{number // 256}.{number % 256}:1")], START_MS)
    assert len(caplog.messages) == KINDS_MAX + LINES_MAX
    caplog.clear()
    log.end_bursts(log.next_ms)
    left_out = 5000 - KINDS_MAX - LINES_MAX
    (line,) = caplog.messages
    assert line.startswith(f"{left_out} more within 10 s, from {SOURCES_MAX} or more addresses: ")


def test_of_all_kinds_together_there_are_not_too_many(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    kinds = [f"kind {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    log.report([event(kind) for kind in kinds for _ in range(100)], START_MS)
    assert len(caplog.messages) == ALL_LINES_MAX
    log.end_bursts(log.next_ms)
    counts = [int(line.split()[0]) for line in caplog.messages[ALL_LINES_MAX:]]
    assert ALL_LINES_MAX + sum(counts) == 2600
    caplog.clear()
    log.report([event("kind a")], START_MS + 2 * INTERVAL_MS)
    assert caplog.messages == ["kind a"]


def test_lines_for_debugging_are_not_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    log.report([event("shown", DEBUG)] * (LINES_MAX + 10), START_MS)
    log.report([event("told")], START_MS)
    assert len(caplog.messages) == LINES_MAX + 11


def test_a_clock_that_is_set_back_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    log.report([event("told")] * (LINES_MAX + 1), START_MS)
    caplog.clear()
    log.report([event("again")], START_MS - 3_600_000)
    assert caplog.messages == ["1 more within 10 s, from 1 address: told", "again"]
