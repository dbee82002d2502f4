"""The PROXY header: whole, byte by byte, with trailing bytes, and damaged."""

import ipaddress

import pytest

from holdfast.net.proxy_protocol import (
    V1_BYTES_MAX,
    V2_BYTES_MAX,
    V2_SIGNATURE,
    ProxyHeader,
    ProxyHeaderError,
    read_proxy_header,
)

LONGEST_HOST = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    """A header of version 2; its length field says what is really there, unless told otherwise."""
    size = len(body) if length is None else length
    return V2_SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + body


TCP4 = (
    bytes([203, 0, 113, 7, 192, 0, 2, 1]) + (56324).to_bytes(2, "big") + (8883).to_bytes(2, "big")
)
TCP6 = (
    ipaddress.IPv6Address("2001:db8::7").packed
    + ipaddress.IPv6Address("2001:db8::1").packed
    + (56324).to_bytes(2, "big")
    + (8883).to_bytes(2, "big")
)
TLVS = b"\x03\x00\x04abcd" + b"\x05\x00\x00" + b"\x20\x00\x08\x01\x00\x00\x00\x00\x22\x00\x00"

WHOLE = {
    "v1 tcp4": (b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 8883\r\n", "203.0.113.7", 56324),
    "v1 tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 65535\r\n", "2001:db8::7", 1),
    "v1 longest": (
        f"PROXY TCP6 {LONGEST_HOST} {LONGEST_HOST} 65535 65535\r\n".encode(),
        LONGEST_HOST,
        65535,
    ),
    "v1 port 0": (b"PROXY TCP4 203.0.113.7 192.0.2.1 0 8883\r\n", "203.0.113.7", 0),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", "", 0),
    "v1 unknown with more": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "", 0),
    "v2 tcp4": (v2(0x21, 0x11, TCP4), "203.0.113.7", 56324),
    "v2 tcp4 with tlvs": (v2(0x21, 0x11, TCP4 + TLVS), "203.0.113.7", 56324),
    "v2 tcp6": (v2(0x21, 0x21, TCP6), "2001:db8::7", 56324),
    "v2 tcp6 with tlvs": (v2(0x21, 0x21, TCP6 + TLVS), "2001:db8::7", 56324),
    "v2 unix": (v2(0x21, 0x31, bytes(216)), "", 0),
    "v2 unspecified": (v2(0x21, 0x00, b""), "", 0),
    "v2 local": (v2(0x20, 0x00, b""), "", 0),
    # A health check may name what it likes: it is to be skipped.
    "v2 local with addresses": (v2(0x20, 0x11, TCP4), "", 0),
    "v2 local with rubbish": (v2(0x20, 0x77, b"rubbish"), "", 0),
    "v2 largest": (
        v2(0x21, 0x11, TCP4 + b"\x04" + (4096 - 31).to_bytes(2, "big") + bytes(4096 - 31)),
        "203.0.113.7",
        56324,
    ),
}


@pytest.mark.parametrize(("header", "host", "port"), WHOLE.values(), ids=WHOLE)
def test_a_header_is_read_whole(header: bytes, host: str, port: int) -> None:
    expected = ProxyHeader(len(header), host, port)
    assert read_proxy_header(header) == expected
    assert read_proxy_header(header + b"\x16\x03\x01PROXY TCP4") == expected


@pytest.mark.parametrize("header", [header for header, _, _ in WHOLE.values()], ids=WHOLE)
def test_a_header_is_awaited_byte_by_byte(header: bytes) -> None:
    for size in range(len(header)):
        assert read_proxy_header(header[:size]) is None


def test_the_bounds_are_those_of_the_longest_headers() -> None:
    assert len(WHOLE["v1 longest"][0]) == V1_BYTES_MAX - 3  # the port of UNKNOWN may be longer
    assert len(WHOLE["v2 largest"][0]) == V2_BYTES_MAX


DAMAGED = {
    "mqtt": b"\x10\x0e\x00\x04MQTT",
    "tls": b"\x16\x03\x01\x02\x00",
    "http": b"GET / HTTP/1.1\r\n",
    "v1 in lower case": b"proxy TCP4",
    "v1 without a space": b"PROXY\r\n",
    "v1 of another kind": b"PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n",
    "v1 nothing": b"PROXY \r\n",
    "v1 too few words": b"PROXY TCP4 203.0.113.7 192.0.2.1 56324\r\n",
    "v1 too many words": b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2 3\r\n",
    "v1 two spaces": b"PROXY TCP4  203.0.113.7 192.0.2.1 1 2\r\n",
    "v1 without CR": b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n",
    "v1 address of the other kind": b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    "v1 address of the other kind, 6": b"PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n",
    "v1 leading zero": b"PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n",
    "v1 a name": b"PROXY TCP4 localhost 192.0.2.1 1 2\r\n",
    "v1 wrong second address": b"PROXY TCP4 203.0.113.7 192.0.2.256 1 2\r\n",
    "v1 zone": b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
    "v1 port too large": b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 2\r\n",
    "v1 port with sign": b"PROXY TCP4 203.0.113.7 192.0.2.1 +1 2\r\n",
    "v1 port with zeros": b"PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n",
    "v1 port not ASCII": "PROXY TCP4 203.0.113.7 192.0.2.1 \u0661 2\r\n".encode(),
    "v1 NUL": b"PROXY TCP4 203.0.113.7\0 192.0.2.1 1 2\r\n",
    "v1 without end": b"PROXY UNKNOWN ".ljust(V1_BYTES_MAX, b"x"),
    "v1 end too late": b"PROXY UNKNOWN ".ljust(V1_BYTES_MAX - 1, b"x") + b"\r\n",
    "v2 another signature": V2_SIGNATURE[:-1] + b"\r",
    "v2 version 1": v2(0x11, 0x11, TCP4),
    "v2 version 3": v2(0x31, 0x11, TCP4),
    "v2 another command": v2(0x22, 0x11, TCP4),
    "v2 udp": v2(0x21, 0x12, TCP4),
    "v2 another family": v2(0x21, 0x41, TCP4),
    "v2 tcp4 too short": v2(0x21, 0x11, TCP4[:-1]),
    "v2 tcp6 too short": v2(0x21, 0x21, TCP4),
    "v2 unix too short": v2(0x21, 0x31, bytes(215)),
    "v2 tlv cut in its head": v2(0x21, 0x11, TCP4 + b"\x04\x00"),
    "v2 tlv longer than the header": v2(0x21, 0x11, TCP4 + b"\x04\x00\x05abcd"),
    "v2 too large": v2(0x21, 0x11, b"", length=V2_BYTES_MAX - 15),
    "v2 largest length": v2(0x20, 0x00, b"", length=0xFFFF),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(data)


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_header_is_refused_byte_by_byte(data: bytes) -> None:
    """At the latest with its last byte, and never more is asked for than the bound."""
    for size in range(1, len(data) + 1):
        try:
            assert read_proxy_header(data[:size]) is None
        except ProxyHeaderError:
            return
    pytest.fail("it was never refused")


@pytest.mark.parametrize("header", [header for header, _, _ in WHOLE.values()], ids=WHOLE)
def test_a_damaged_header_gives_an_answer_of_a_known_kind(header: bytes) -> None:
    for place in range(min(len(header), 64)):
        for value in (0, 0x0A, 0x20, 0x41, 0xFF, header[place] ^ 1):
            damaged = header[:place] + bytes([value]) + header[place + 1 :]
            try:
                found = read_proxy_header(damaged)
            except ProxyHeaderError:
                continue
            assert found is None or found.size <= len(damaged)
