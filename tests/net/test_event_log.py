"""The lines about clients: written, and so many in a time."""

import logging

import pytest

from holdfast.broker.events import DEBUG, INFO, WARNING, Event
from holdfast.net.event_log import EVENTS_MAX, INTERVAL_MS, EventLog

START_MS = 1_700_000_000_000


def event(text: str, level: int = WARNING) -> Event:
    return Event(level, text, "c", "192.0.2.1:1")


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "holdfast")


def test_an_event_is_a_line_of_its_level(caplog: pytest.LogCaptureFixture) -> None:
    levels = [DEBUG, INFO, WARNING]
    EventLog().report([event("told", level) for level in levels], START_MS)
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (level, "told") for level in levels
    ]


def test_a_flood_is_cut_off_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    log.report([event("first")] * (EVENTS_MAX - 1), START_MS)
    log.report([event("more", INFO)] * 500, START_MS + 7_000)
    log.report([event("more")] * 500, START_MS + INTERVAL_MS - 1)
    assert len(caplog.messages) == EVENTS_MAX + 1
    assert caplog.messages[-2:] == [
        "more",
        f"{EVENTS_MAX} lines about clients within 10 s: further ones are left out for 3 s",
    ]
    log.report([event("again")], START_MS + INTERVAL_MS)
    assert caplog.messages[EVENTS_MAX + 1 :] == ["lines about clients left out: 999", "again"]


def test_lines_for_debugging_are_not_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    log.report([event("shown", DEBUG)] * (EVENTS_MAX + 10), START_MS)
    log.report([event("told")], START_MS)
    assert len(caplog.messages) == EVENTS_MAX + 11


def test_a_clock_that_is_set_back_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog()
    log.report([event("told")] * (EVENTS_MAX + 1), START_MS)
    caplog.clear()
    log.report([event("again")], START_MS - 3_600_000)
    assert caplog.messages == ["lines about clients left out: 1", "again"]
