"""What ``publish`` makes of what it is given, and what it refuses before anything is sent."""

from collections.abc import Sequence
from typing import cast

import pytest

from holdfast.client.composing import Composer
from holdfast.errors import UsageError


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\0", b"\0"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"abc")[1:], b"bc"),
        ("ä", "ä".encode()),
        (7, b"7"),
        (2.5, b"2.5"),
        (None, b""),
    ],
)
def test_payloads_become_bytes(
    payload: bytes | bytearray | memoryview | str | float | None, expected: bytes
) -> None:
    assert Composer().entry("a", payload, 0, False).payload == expected


@pytest.mark.parametrize("topic", ["", "a/#", "+", "a\0"])
def test_a_topic_that_is_none_is_refused(topic: str) -> None:
    with pytest.raises(UsageError):
        Composer().entry(topic, b"", 0, False)


@pytest.mark.parametrize("qos", [-1, 3])
def test_a_qos_that_is_none_is_refused(qos: int) -> None:
    with pytest.raises(UsageError, match="expected QoS 0, 1 or 2"):
        Composer().entry("a", b"", qos, False)


def test_a_payload_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="got dict"):
        Composer().entry("a", cast(bytes, {"a": 1}), 0, False)


def test_what_no_publish_can_carry_is_refused() -> None:
    """Not when it is sent: it would keep all that is behind it from being sent."""
    payload = bytes(268_435_455)
    with pytest.raises(UsageError, match="at most 268435455 bytes"):
        Composer().entry("a", payload, 1, False)
    assert Composer().entry("a", payload[:-64], 1, False).size == len(payload) - 63


@pytest.mark.parametrize("seconds", [-1, 0, 4_294_967_296])
def test_an_expiry_that_is_none_is_refused(seconds: int) -> None:
    with pytest.raises(UsageError, match="Message Expiry Interval"):
        Composer().entry("a", b"", 1, False, message_expiry_interval=seconds)


@pytest.mark.parametrize("pairs", [[("a",)], ["ab", "abc"], [(1, 2)]])
def test_user_properties_that_are_none_are_refused(pairs: object) -> None:
    with pytest.raises(UsageError, match="User Properties"):
        Composer().entry("a", b"", 1, False, user_properties=cast(Sequence[tuple[str, str]], pairs))


@pytest.mark.parametrize(
    "properties",
    [
        {"content_type": "x" * 65_536},
        {"response_topic": "a/#"},
        {"correlation_data": bytes(65_536)},
        {"payload_format_indicator": 2},
        {"content_type": "a\0"},
    ],
)
def test_properties_that_no_server_takes_are_refused(properties: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Composer().entry("a", b"", 1, False, **properties)  # type: ignore[arg-type]  # mixed kinds
