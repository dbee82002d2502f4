"""Properties: each in its places only, once only, with its values only; and at rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ProtocolError, UsageError
from holdfast.message import Properties
from holdfast.protocol import packets
from holdfast.protocol import properties as codec
from holdfast.protocol.packets import PACKET_NAMES
from holdfast.protocol.properties import (
    PROPERTY_NAMES,
    WILL,
    forwarded_properties,
    pack_properties,
    read_properties,
    unpack_properties,
    write_properties,
)
from holdfast.protocol.reason_codes import MALFORMED_PACKET, PROTOCOL_ERROR
from holdfast.protocol.wire import Reader, varint_bytes
from tests.protocol.strategies import FIELDS, PROPERTIES_OF, plain, properties_of

# One valid value of each property on the wire.
SAMPLES = {
    "payload_format_indicator": "01 01",
    "message_expiry_interval": "02 00 00 00 01",
    "content_type": "03 00 01 61",
    "response_topic": "08 00 01 61",
    "correlation_data": "09 00 01 61",
    "subscription_identifiers": "0b 01",
    "session_expiry_interval": "11 00 00 00 01",
    "assigned_client_identifier": "12 00 01 61",
    "server_keep_alive": "13 00 01",
    "authentication_method": "15 00 01 61",
    "authentication_data": "16 00 01 61",
    "request_problem_information": "17 01",
    "will_delay_interval": "18 00 00 00 01",
    "request_response_information": "19 01",
    "response_information": "1a 00 01 61",
    "server_reference": "1c 00 01 61",
    "reason_string": "1f 00 01 61",
    "receive_maximum": "21 00 01",
    "topic_alias_maximum": "22 00 01",
    "topic_alias": "23 00 01",
    "maximum_qos": "24 01",
    "retain_available": "25 01",
    "user_properties": "26 00 01 61 00 01 61",
    "maximum_packet_size": "27 00 00 00 01",
    "wildcard_subscription_available": "28 01",
    "subscription_identifier_available": "29 01",
    "shared_subscription_available": "2a 01",
}
PLACES = {"WILL": WILL} | {
    name: PACKET_NAMES.index(name) for name in PROPERTIES_OF if name != "WILL"
}


def read(data: bytes, where: str) -> Properties | None:
    reader = Reader(data + b"\x00", 0, len(data), where)
    found = read_properties(reader, PLACES[where])
    reader.finish()
    return found


def sample(name: str) -> bytes:
    data = bytes.fromhex(SAMPLES[name])
    if name == "authentication_data":
        data = bytes.fromhex(SAMPLES["authentication_method"]) + data
    return data


def test_all_27_properties_are_here() -> None:
    assert len(SAMPLES) == len(PROPERTY_NAMES) == 27
    assert set(SAMPLES) == set(FIELDS[Properties])
    assert {bytes.fromhex(data)[0] for data in SAMPLES.values()} == set(PROPERTY_NAMES)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_property_stands_only_where_the_standard_lists_it(name: str, where: str) -> None:
    data = sample(name)
    data = varint_bytes(len(data)) + data
    if name in PROPERTIES_OF[where]:
        found = read(data, where)
        assert found is not None
        assert getattr(found, name) not in (None, [])
        assert write_properties(found, PLACES[where]) == data
        return
    with pytest.raises(ProtocolError) as caught:
        read(data, where)
    assert caught.value.reason_code == MALFORMED_PACKET
    value = Properties()
    setattr(value, name, getattr(read_anywhere(name), name))
    with pytest.raises(UsageError):
        write_properties(value, PLACES[where])


def read_anywhere(name: str) -> Properties:
    where = next(where for where, names in PROPERTIES_OF.items() if name in names)
    data = sample(name)
    found = read(varint_bytes(len(data)) + data, where)
    assert found is not None
    return found


@pytest.mark.parametrize("where", PLACES)
def test_a_repetition_is_refused_where_it_is_not_allowed(where: str) -> None:
    for name in PROPERTIES_OF[where]:
        data = sample(name) + bytes.fromhex(SAMPLES[name])
        data = varint_bytes(len(data)) + data
        if name == "user_properties" or (name == "subscription_identifiers" and where == "PUBLISH"):
            found = read(data, where)
            assert found is not None
            assert len(getattr(found, name)) == 2
        else:
            with pytest.raises(ProtocolError) as caught:
                read(data, where)
            assert caught.value.reason_code == PROTOCOL_ERROR


@pytest.mark.parametrize("where", PLACES)
def test_every_cut_of_a_property_is_malformed(where: str) -> None:
    for name in PROPERTIES_OF[where]:
        full = sample(name)
        first_part = len(full) - len(bytes.fromhex(SAMPLES[name]))
        for size in range(first_part + 1, len(full)):
            with pytest.raises(ProtocolError) as caught:
                read(varint_bytes(size) + full[:size], where)
            assert caught.value.reason_code == MALFORMED_PACKET


@pytest.mark.spec("MQTT5-2.2.2-1")
@pytest.mark.parametrize("where", PLACES.values(), ids=PLACES)
def test_an_empty_set_is_one_byte(where: int) -> None:
    assert write_properties(None, where) == b"\x00"
    assert write_properties(Properties(), where) == b"\x00"
    assert read_properties(Reader(b"\x00", 0, 1, "TEST"), where) is None


@given(st.data())
def test_any_set_comes_back_in_its_place(data: st.DataObject) -> None:
    where = data.draw(st.sampled_from(sorted(PLACES)))
    original = data.draw(properties_of(where))
    assert plain(read(write_properties(original, PLACES[where]), where)) == plain(original)


@given(st.sampled_from(["PUBLISH", "WILL"]).flatmap(properties_of))
def test_a_message_s_properties_come_back_from_a_store(original: Properties | None) -> None:
    if original is not None:
        original.topic_alias = None
    packed = pack_properties(original)
    restored = unpack_properties(packed)
    if packed:
        assert plain(restored) == plain(original)
    else:
        assert restored is None


def test_what_a_connection_owns_is_not_stored() -> None:
    for name in ("topic_alias", "session_expiry_interval", "reason_string"):
        with pytest.raises(UsageError):
            pack_properties(read_anywhere(name))


@given(st.binary(min_size=1, max_size=20))
def test_damaged_properties_of_a_store_raise_protocol_errors(packed: bytes) -> None:
    try:
        restored = unpack_properties(packed)
    except ProtocolError:
        return
    assert plain(unpack_properties(pack_properties(restored))) == plain(restored)


@given(properties_of("PUBLISH"))
@pytest.mark.spec(
    "MQTT5-3.3.2-4", "MQTT5-3.3.2-15", "MQTT5-3.3.2-16", "MQTT5-3.3.2-17", "MQTT5-3.3.2-20"
)
def test_only_what_belongs_to_the_message_is_forwarded(original: Properties | None) -> None:
    forwarded = forwarded_properties(original)
    if original is None:
        assert forwarded is None
        return
    kept = {
        name: getattr(original, name)
        for name in (
            "payload_format_indicator",
            "content_type",
            "response_topic",
            "correlation_data",
            "user_properties",
        )
    }
    if all(value in (None, []) for value in kept.values()):
        assert forwarded is None
        return
    assert forwarded is not None
    assert plain(forwarded) == plain(Properties()) | kept  # type: ignore[operator]  # both are dicts
    assert forwarded.user_properties is not original.user_properties


def test_a_property_length_beyond_the_packet_is_malformed() -> None:
    with pytest.raises(ProtocolError) as caught:
        read(b"\x05\x26\x00\x00\x00", "PUBACK")
    assert caught.value.reason_code == MALFORMED_PACKET


def test_the_packet_goes_on_behind_the_properties() -> None:
    reader = Reader(bytes.fromhex("02 01 01 aa bb"), 0, 5, "PUBLISH")
    found = read_properties(reader, packets.PUBLISH)
    assert found is not None
    assert found.payload_format_indicator == 1
    assert (reader.position, reader.left) == (3, 2)
    assert codec.PAYLOAD_FORMAT_INDICATOR == 1
