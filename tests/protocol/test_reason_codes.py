"""The reason codes: all 43, under the standard's names, in the standard's packets."""

import pytest

from holdfast.protocol import packets, reason_codes
from holdfast.protocol.reason_codes import (
    DISCONNECT_CODES,
    DISCONNECT_CODES_OF_SERVER,
    REASON_NAMES,
    allowed_codes,
    connack_return_code,
    reason_name,
)

# The standard's tables once more, by packet.
LISTED = {
    "CONNACK": "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f",
    "PUBACK": "00 10 80 83 87 90 91 97 99",
    "PUBREC": "00 10 80 83 87 90 91 97 99",
    "PUBREL": "00 92",
    "PUBCOMP": "00 92",
    "SUBACK": "00 01 02 80 83 87 8f 91 97 9e a1 a2",
    "UNSUBACK": "00 11 80 83 87 8f 91",
    "DISCONNECT": (
        "00 04 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2"
    ),
    "AUTH": "00 18 19",
}


@pytest.mark.parametrize("packet_type", range(16))
@pytest.mark.spec(
    "MQTT5-3.2.2-8",
    "MQTT5-3.4.2-1",
    "MQTT5-3.5.2-1",
    "MQTT5-3.6.2-1",
    "MQTT5-3.7.2-1",
    "MQTT5-3.9.3-2",
    "MQTT5-3.11.3-2",
    "MQTT5-3.14.2-1",
    "MQTT5-3.15.2-1",
)
def test_each_packet_has_the_codes_of_its_table(packet_type: int) -> None:
    listed = LISTED.get(packets.PACKET_NAMES[packet_type], "")
    assert allowed_codes(packet_type) == set(bytes.fromhex(listed))


def test_there_are_43_codes_and_each_has_a_name_and_a_packet() -> None:
    assert len(REASON_NAMES) == 43
    assert set().union(*map(bytes.fromhex, LISTED.values())) == set(REASON_NAMES)


def test_the_constants_carry_the_names_of_the_standard() -> None:
    for code, name in REASON_NAMES.items():
        constant = name.upper().replace(" ", "_").replace("-", "_")
        assert getattr(reason_codes, constant) == code
        assert reason_name(code) == name
    assert reason_codes.NORMAL_DISCONNECTION == reason_codes.GRANTED_QOS_0 == 0


def test_a_code_without_a_name_shows_its_number() -> None:
    assert reason_name(0xFF) == "reason code 0xFF"


def test_what_only_a_server_says_is_part_of_what_may_be_said() -> None:
    assert DISCONNECT_CODES_OF_SERVER < DISCONNECT_CODES


@pytest.mark.parametrize(
    ("reason_code", "return_code"),
    [
        (0x00, 0),
        (0x84, 1),
        (0x85, 2),
        (0x88, 3),
        (0x89, 3),
        (0x9C, 3),
        (0x9D, 3),
        (0x86, 4),
        (0x87, 5),
        (0x81, -1),
    ],
)
@pytest.mark.spec("MQTT311-3.2.2-6")
def test_a_refusal_has_a_return_code_of_311_or_none(reason_code: int, return_code: int) -> None:
    assert connack_return_code(reason_code) == return_code
