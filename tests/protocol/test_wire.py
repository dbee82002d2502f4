"""The wire's data types, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ProtocolError, UsageError
from holdfast.protocol.reason_codes import MALFORMED_PACKET
from holdfast.protocol.wire import (
    Reader,
    binary_bytes,
    string_bytes,
    text_of,
    u16_bytes,
    u32_bytes,
    varint_bytes,
)


def reader(data: bytes) -> Reader:
    """A reader of data that lies in the middle of a buffer."""
    return Reader(b"\x11" * 3 + data + b"\x11" * 9, 3, 3 + len(data), "TEST")


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
@pytest.mark.spec("MQTT5-1.5.5-1")
def test_the_bounds_of_the_variable_byte_integer(value: int, wire: str) -> None:
    assert varint_bytes(value) == bytes.fromhex(wire)
    assert reader(bytes.fromhex(wire)).varint() == value


@given(st.integers(0, 268_435_455))
@pytest.mark.spec("MQTT5-1.5.5-1")
def test_a_variable_byte_integer_comes_back_from_its_shortest_form(value: int) -> None:
    wire = varint_bytes(value)
    assert len(wire) == max(1, -(-value.bit_length() // 7))
    source = reader(wire)
    assert source.varint() == value
    source.finish()


@given(st.integers(0, 65_535), st.integers(0, 4_294_967_295))
def test_integers_come_back(small: int, large: int) -> None:
    assert u16_bytes(small) == small.to_bytes(2, "big")
    assert u32_bytes(large) == large.to_bytes(4, "big")
    source = reader(u16_bytes(small) + u32_bytes(large))
    assert (source.u16(), source.u32()) == (small, large)
    source.finish()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.binary())
@pytest.mark.spec("MQTT5-1.5.4-1", "MQTT311-1.5.3-1")
def test_strings_and_data_come_back(text: str, data: bytes) -> None:
    source = reader(string_bytes(text) + binary_bytes(data))
    assert source.string() == text
    assert source.binary() == data
    source.finish()


@pytest.mark.spec("MQTT5-1.5.4-3", "MQTT311-1.5.3-3")
def test_the_byte_order_mark_is_an_ordinary_character() -> None:
    assert text_of(b"\xef\xbb\xbfa\xef\xbb\xbf", "TEST") == "\ufeffa\ufeff"


@given(st.binary(max_size=6))
@pytest.mark.spec("MQTT5-1.5.4-1", "MQTT5-1.5.4-2", "MQTT311-1.5.3-1", "MQTT311-1.5.3-2")
def test_bytes_are_a_string_only_if_they_are_its_utf_8(raw: bytes) -> None:
    replaced = raw.decode("utf-8", "replace")
    if replaced.encode("utf-8") == raw and "\0" not in replaced:
        assert text_of(raw, "TEST") == replaced
        return
    with pytest.raises(ProtocolError) as caught:
        text_of(raw, "TEST")
    assert caught.value.reason_code == MALFORMED_PACKET


@pytest.mark.parametrize(
    ("wire", "kind"),
    [
        ("", "byte"),
        ("00", "u16"),
        ("000000", "u32"),
        ("", "varint"),
        ("80", "varint"),
        ("ffffff", "varint"),
        ("8000", "varint"),
        ("80808080", "varint"),
        ("00", "string"),
        ("000161ff", "finish"),
        ("0002ff", "binary"),
    ],
)
def test_data_that_ends_too_early_or_too_late_is_malformed(wire: str, kind: str) -> None:
    source = reader(bytes.fromhex(wire))
    with pytest.raises(ProtocolError) as caught:
        getattr(source, kind)()
    assert caught.value.reason_code == MALFORMED_PACKET


def test_what_the_wire_cannot_carry_is_our_own_mistake() -> None:
    for value in (-1, 65_536):
        with pytest.raises(UsageError):
            u16_bytes(value)
    for value in (-1, 4_294_967_296):
        with pytest.raises(UsageError):
            u32_bytes(value)
    for value in (-1, 268_435_456):
        with pytest.raises(UsageError):
            varint_bytes(value)
    for text in ("a\0", "\ud800", "a" * 65_536, "é" * 32_768):
        with pytest.raises(UsageError):
            string_bytes(text)
    with pytest.raises(UsageError):
        binary_bytes(b"a" * 65_536)
    assert string_bytes("a" * 65_535) == b"\xff\xff" + b"a" * 65_535
    assert binary_bytes(b"a" * 65_535) == b"\xff\xff" + b"a" * 65_535
