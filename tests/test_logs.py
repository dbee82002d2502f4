"""Logging: one line per record, whatever a client calls itself."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from holdfast.logs import FIELD_CHARACTERS_MAX, Log, get_logger, setup_logging

HOSTILE = 'a"b\nc\r\x1b[31m\x00\u2028\u202e\ud800\\d'


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where records go, while a test runs; the set-up of pytest comes back after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("holdfast").setLevel(logging.NOTSET)


def text_log(stream: io.StringIO, level: str = "info") -> Log:
    setup_logging(level=level, as_json=False, stream=stream)
    return get_logger("holdfast.net")


def json_log(stream: io.StringIO) -> Log:
    setup_logging(level="info", as_json=True, stream=stream)
    return get_logger("net")


def test_a_record_reads_as_one_line(stream: io.StringIO) -> None:
    text_log(stream).info("client connected", client="meter-7", is_new=True, port=1883)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info net: client connected "
        r"client=meter-7 is_new=true port=1883\n",
        stream.getvalue(),
    )


def test_a_record_is_one_json_object(stream: io.StringIO) -> None:
    json_log(stream).warning("client refused", client=HOSTILE, reason_code=0x87, will=None)
    assert stream.getvalue().count("\n") == 1
    record = json.loads(stream.getvalue())
    assert re.fullmatch(r"[0-9T:.-]{23}Z", record.pop("time"))
    assert record == {
        "level": "warning",
        "logger": "net",
        "message": "client refused",
        "client": HOSTILE,
        "reason_code": 0x87,
        "will": None,
    }


@pytest.mark.parametrize("value", ["", "two words", "a=b", HOSTILE, "x\n2025 info forged: line"])
def test_no_value_can_forge_a_line_or_a_field(stream: io.StringIO, value: str) -> None:
    text_log(stream).info("said", client=value, end=1)
    line, rest = stream.getvalue().split("\n")
    assert rest == ""
    assert line.isprintable()
    assert re.search(r' said client="([^"\\]|\\.)*" end=1$', line)


def test_neither_can_a_message(stream: io.StringIO) -> None:
    text_log(stream).info("odd\nmessage %s %d")
    assert stream.getvalue().endswith("odd\\nmessage %s %d\n")


def test_a_long_value_is_cut(stream: io.StringIO) -> None:
    text_log(stream).info("said", client="x" * 65_535)
    assert stream.getvalue().endswith(" client=" + "x" * FIELD_CHARACTERS_MAX + "…\n")


def test_levels_below_the_chosen_one_are_not_written(stream: io.StringIO) -> None:
    log = text_log(stream, level="warning")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert re.findall(r"net: (.)", stream.getvalue()) == ["c", "d"]


def test_a_failure_brings_its_traceback_in_marked_lines(stream: io.StringIO) -> None:
    log = text_log(stream)
    try:
        raise ValueError("bad\x1b")
    except ValueError as error:
        log.failure("turn failed", error, client="a")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error net: turn failed client=a")
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)
    assert rest[-1] == "    | ValueError: bad\\x1b"


def test_a_failure_is_one_json_object_too(stream: io.StringIO) -> None:
    log = json_log(stream)
    log.failure("turn failed", ValueError("bad\nline"))
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue())["traceback"] == "ValueError: bad\nline"


def test_other_libraries_log_through_it_from_warning_on(stream: io.StringIO) -> None:
    text_log(stream, level="debug")
    logging.getLogger("asyncio").info("no")
    logging.getLogger("asyncio").warning("slow: %s", "callback")
    assert re.findall(r"warning (.*)", stream.getvalue()) == ["asyncio: slow: callback"]
