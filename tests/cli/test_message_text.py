"""The forms in which a message is shown."""

import json
import re
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import ReceivedMessage, UsageError
from holdfast.cli.message_text import as_json, formatted, hexadecimal, plain, printable, verbose
from holdfast.message import Properties
from holdfast.protocol.packets import Publish

NOW_NS = 1_700_000_000_123_456_789
NASTY = "a\x1b[2J\x07\x9b31m\u202eb\u2028"


def message(
    topic: str = "home/door", payload: bytes = b"open", *, retain: bool = False, qos: int = 1
) -> ReceivedMessage:
    async def acknowledge(_: ReceivedMessage) -> None: ...

    publish = Publish(topic, payload, qos, retain, False, 7, Properties())
    return ReceivedMessage(publish, acknowledge)


def full() -> ReceivedMessage:
    one = message(retain=True)
    assert one.properties is not None
    one.properties.content_type = "text/plain"
    one.properties.response_topic = "answers"
    one.properties.correlation_data = b"\xff\x00"
    one.properties.message_expiry_interval = 60
    one.properties.payload_format_indicator = 1
    one.properties.user_properties = [("a", "1"), ("a", "2")]
    one.properties.subscription_identifiers = [3, 4]
    one.delivery_id = 9
    return one


@given(st.binary())
def test_off_a_terminal_a_payload_is_as_it_came(payload: bytes) -> None:
    assert plain(is_terminal=False)(message(payload=payload), NOW_NS) == payload


@given(st.binary())
def test_a_terminal_is_given_nothing_to_obey(payload: bytes) -> None:
    shown = plain(is_terminal=True)(message(payload=payload), NOW_NS).decode()
    assert shown.replace("\n", "").replace("\t", "").isprintable()


def test_escapes_are_readable() -> None:
    assert printable(NASTY) == r"a\x1b[2J\x07\x9b31m\u202eb\u2028"
    assert printable("Grüße, 世界") == "Grüße, 世界"
    text = plain(is_terminal=True)(message(payload=b"\xff\nok"), NOW_NS)
    assert text == b"\\xff\nok"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_verbose_is_topic_and_payload(is_terminal: bool) -> None:
    payload = plain(is_terminal=is_terminal)
    text = verbose(payload, with_time=False, with_topic=True, is_terminal=is_terminal)
    assert text(message(), NOW_NS) == b"home/door open"
    marked = b"(retained) home/door open" if is_terminal else b"home/door open"
    assert text(message(retain=True), NOW_NS) == marked


def test_with_the_time_retained_messages_are_marked_everywhere() -> None:
    payload = plain(is_terminal=False)
    text = verbose(payload, with_time=True, with_topic=True, is_terminal=False)
    shown = text(message(retain=True), NOW_NS).decode()
    assert re.fullmatch(r"2023-11-1\dT\S+\.123[+-]\d\d:\d\d \(retained\) home/door open", shown)


def test_a_topic_cannot_write_to_the_terminal_either() -> None:
    text = verbose(plain(is_terminal=True), with_time=False, with_topic=True, is_terminal=True)
    assert text(message(topic="a\x1b[2J\nb"), NOW_NS) == b"a\\x1b[2J\\nb open"


def test_hexadecimal() -> None:
    assert hexadecimal()(message(payload=b"\x00\xff"), NOW_NS) == b"00ff"


def test_json_has_everything() -> None:
    shown = json.loads(as_json(is_pretty=False)(full(), NOW_NS))
    assert re.match(r"2023-11-1\dT\S+\.123456[+-]", shown.pop("time"))
    assert shown == {
        "topic": "home/door",
        "payload": "open",
        "qos": 1,
        "retain": True,
        "dup": False,
        "properties": {
            "payload_format_indicator": 1,
            "message_expiry_interval": 60,
            "content_type": "text/plain",
            "response_topic": "answers",
            "correlation_data_base64": "/wA=",
            "user_properties": [["a", "1"], ["a", "2"]],
        },
        "delivery_id": 9,
    }


@given(st.binary(), st.booleans())
def test_json_is_one_line_that_gives_the_payload_back(payload: bytes, is_pretty: bool) -> None:
    text = as_json(is_pretty=is_pretty)(message(payload=payload), NOW_NS)
    assert text.decode().replace("\n", "").isprintable()
    assert is_pretty or b"\n" not in text
    shown = json.loads(text)
    if "payload" in shown:
        assert shown["payload"].encode() == payload
    else:
        assert b64decode(shown["payload_base64"]) == payload


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("%t %p", "home/door open"),
        ("%q%r%l", "114"),
        ("%x %X", "6f70656e 6F70656E"),
        ("[%12t]", "[   home/door]"),
        ("[%-12t]", "[home/door   ]"),
        ("[%.4t]", "[home]"),
        ("[%8.4t]", "[    home]"),
        ("%06l", "000004"),
        ("%-6l|", "4     |"),
        ("%010x", "006f70656e"),
        ("%C|%R|%E|%F", "text/plain|answers|60|1"),
        ("%P", "a:1 a:2"),
        ("%S", "3 4"),
        ("100%%", "100%"),
        (r"a\tb\nc\\d\0e\q", "a\tb\nc\\d\0e\\q"),
        ("@Y @@ @N", "2023 @ 123456789"),
        ("%U", "1700000000.123456789"),
        ("%A%m", "7"),
        ("Grüße %p", "Grüße open"),
        ("@", "@"),
        ("a\\", "a\\"),
    ],
)
def test_a_format_is_filled_in(template: str, expected: str) -> None:
    text = formatted(template, is_pretty=False, is_terminal=False)
    assert text(full(), NOW_NS).decode() == expected


def test_a_format_may_color_a_terminal_and_a_payload_may_not() -> None:
    text = formatted(r"\e[1m%t\e[0m %p", is_pretty=False, is_terminal=True)
    assert text(message(payload=b"\x1b[2J"), NOW_NS) == b"\x1b[1mhome/door\x1b[0m \\x1b[2J"


def test_time_as_mosquitto_has_it() -> None:
    text = formatted("%I", is_pretty=False, is_terminal=False)
    assert re.fullmatch(rb"2023-11-1\dT\d\d:\d\d:\d\d[+-]\d{4}", text(message(), NOW_NS))


@pytest.mark.parametrize(
    ("template", "payload", "expected"),
    [
        ("%j", b'{"a":1}', '{"a":1}'),
        ("%J", b'{"a":1}', {"a": 1}),
        ("%J", b"no JSON", "no JSON"),
        ("%j", b"\xff", "\ufffd"),
    ],
)
def test_json_as_mosquitto_has_it(template: str, payload: bytes, expected: object) -> None:
    text = formatted(template, is_pretty=False, is_terminal=False)
    shown = json.loads(text(message(payload=payload), NOW_NS))
    assert re.fullmatch(r"2023-11-1\dT\d\d:\d\d:\d\d\.123456[+-]\d{4}", shown.pop("tst"))
    rest = {"topic": "home/door", "qos": 1, "retain": 0, "mid": 7, "payloadlen": len(payload)}
    assert shown == rest | {"payload": expected}


@pytest.mark.parametrize("template", ["%k", "%", "%10", "a %-5z"])
def test_an_unknown_sequence_is_told(template: str) -> None:
    with pytest.raises(UsageError, match=r"-F: %.* is unknown"):
        formatted(template, is_pretty=False, is_terminal=False)
