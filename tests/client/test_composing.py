"""What a caller gives to ``publish``: what no server would take is told, and nothing is sent."""

import enum
import time

import pytest

from holdfast.client.composing import Composer, Payload, check_filters
from holdfast.errors import UsageError
from tests.client.world import V5, V311, ClientWorld

BAD_TEXT = ["a\0b", "\ud800", "a\udfff", "x" * 65_536, "é" * 32_768]


class Grade(enum.IntEnum):
    """An application's own name for a QoS."""

    ONCE = 2


def refused(topic: str = "a", payload: Payload = b"", qos: int = 0, **values: object) -> str:
    """What is said of a message that cannot be."""
    with pytest.raises(UsageError) as caught:
        Composer().entry(topic, payload, qos, False, **values)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.spec(
    "MQTT5-3.3.2-1",
    "MQTT5-3.3.2-2",
    "MQTT5-4.7.0-1",
    "MQTT5-4.7.3-1",
    "MQTT5-4.7.3-2",
    "MQTT5-4.7.3-3",
    "MQTT311-3.3.2-1",
    "MQTT311-3.3.2-2",
    "MQTT311-4.7.1-1",
    "MQTT311-4.7.3-1",
    "MQTT311-4.7.3-2",
    "MQTT311-4.7.3-3",
)
def test_a_topic_that_is_none() -> None:
    composer = Composer()
    for topic in ["", "#", "a/#", "+", "a/+/b", "a+b", "a#", *BAD_TEXT]:
        for _ in range(2):
            with pytest.raises(UsageError, match="Topic Name"):
                composer.entry(topic, b"", 0, False)


@pytest.mark.parametrize("topic", ["/", "//", "a/", "$SYS/a", " ", "é", "x" * 65_535, "\ufeff"])
@pytest.mark.parametrize("version", [V5, V311])
def test_a_topic_leaves_as_it_is(version: int, topic: str) -> None:
    entry = Composer().entry(topic, b"", 0, False)
    world = ClientWorld(version)
    world.hello()
    world.sending.accept(entry)
    world.turn()
    (packet,) = world.publishes()
    assert packet.topic == topic


@pytest.mark.spec("MQTT5-3.3.1-4", "MQTT311-3.3.1-4")
@pytest.mark.parametrize("qos", [-1, 3, 4, 128])
def test_a_qos_that_is_none(qos: int) -> None:
    assert refused(qos=qos) == f"expected QoS 0, 1 or 2, got {qos}"


@pytest.mark.spec(
    "MQTT5-1.5.4-1", "MQTT5-1.5.4-2", "MQTT5-1.5.7-1", "MQTT5-3.3.2-13", "MQTT5-3.3.2-19"
)
@pytest.mark.parametrize("text", BAD_TEXT, ids=range(len(BAD_TEXT)))
def test_strings_that_the_wire_cannot_carry(text: str) -> None:
    assert refused(content_type=text)
    assert refused(response_topic=text)
    assert refused(user_properties=[("k", text)])
    assert refused(user_properties=[("k", "v"), (text, "v")])


@pytest.mark.spec("MQTT5-3.3.2-14", "MQTT5-4.7.0-1")
@pytest.mark.parametrize("topic", ["", "#", "a/+", "a/#", "a+"])
def test_a_response_topic_is_a_topic(topic: str) -> None:
    assert "Topic Name" in refused(response_topic=topic)


def test_values_out_of_range() -> None:
    assert refused(message_expiry_interval=0)
    assert refused(message_expiry_interval=-1)
    assert refused(message_expiry_interval=1 << 32)
    assert refused(correlation_data=b"x" * 65_536)
    assert refused(payload_format_indicator=2)
    assert refused(payload_format_indicator=-1)
    assert refused(user_properties=["k"])
    assert refused(user_properties=[("k", 1)])
    assert "lone surrogates" in refused(payload="\ud800")
    assert "expected bytes, str, int, float or None" in refused(payload=[1])  # type: ignore[arg-type]


def test_values_of_the_wrong_type() -> None:
    """They would be a defect when the packet is made, and end the client."""
    expected = "expected a Message Expiry Interval as int, got float"
    assert refused(message_expiry_interval=1.5) == expected
    assert refused(message_expiry_interval="60")
    assert refused(qos=1.0) == "expected a QoS as int, got float"  # type: ignore[arg-type]
    assert refused(qos="1") == "expected a QoS as int, got str"  # type: ignore[arg-type]
    assert refused(topic=b"a") == "expected a Topic Name as str, got bytes"  # type: ignore[arg-type]
    assert refused(content_type=b"text") == "expected a Content Type as str, got bytes"
    assert refused(response_topic=b"a") == "expected a Topic Name as str, got bytes"
    assert refused(correlation_data="7") == "expected Correlation Data as bytes, got str"
    assert refused(payload_format_indicator=1.0)


def test_values_that_are_as_good_as_those_of_the_right_type() -> None:
    """True for 1, an IntEnum, a buffer: what leaves is what the wire has."""
    entry = Composer().entry(
        "a",
        b"",
        Grade.ONCE,
        1,  # type: ignore[arg-type]
        message_expiry_interval=True,
        correlation_data=bytearray(b"7"),  # type: ignore[arg-type]
        payload_format_indicator=True,
    )
    assert (type(entry.qos), entry.qos, entry.retain) == (int, 2, True)
    world = ClientWorld(V5)
    world.hello()
    world.sending.accept(entry)
    world.turn()
    (packet,) = world.publishes()
    assert packet.properties is not None
    assert packet.properties.correlation_data == b"7"
    assert packet.properties.payload_format_indicator == 1


def test_filters_that_are_none() -> None:
    with pytest.raises(UsageError, match="an argument of its own, got a list"):
        check_filters([["a", "b"]])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="expected a topic filter as str, got bytes"):
        check_filters([b"a"])  # type: ignore[list-item]


def test_a_packet_that_no_length_can_tell() -> None:
    """Source: MQTT 5.0 §2.1.4."""
    payload = bytes(268_435_455)
    assert "at most 268435455 bytes" in refused(payload=payload)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\0\xff", b"\0\xff"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"abc")[1:], b"bc"),
        ("é", b"\xc3\xa9"),
        (42, b"42"),
        (-1.5, b"-1.5"),
        (None, b""),
    ],
)
def test_payloads_of_any_kind(payload: Payload, expected: bytes) -> None:
    entry = Composer().entry("a", payload, 0, False)
    assert type(entry.payload) is bytes and entry.payload == expected


def test_the_buffer_of_the_caller_is_copied() -> None:
    buffer = bytearray(b"before")
    entry = Composer().entry("a", buffer, 1, False)
    buffer[:] = b"behind"
    assert entry.payload == b"before"


def test_the_expiry_counts_from_now() -> None:
    before_ms = time.time_ns() // 1_000_000
    entry = Composer().entry("a", b"", 1, False, message_expiry_interval=60)
    after_ms = time.time_ns() // 1_000_000
    assert before_ms + 60_000 <= entry.expires_at_ms <= after_ms + 60_000
    assert Composer().entry("a", b"", 1, False).expires_at_ms == 0
