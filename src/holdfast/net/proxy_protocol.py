"""The PROXY protocol, versions 1 and 2: how a proxy says whom it speaks for.

Pure: bytes in, a header out. Source: "The PROXY protocol", HAProxy, 2020/03/05.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

from holdfast.errors import HoldfastError

V1_BYTES_MAX: Final = 107  # with CRLF, as the protocol has it
# The protocol allows 64 KiB of addresses and TLVs; proxies send far below 1 KiB.
V2_BYTES_MAX: Final = 4096
V2_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

_V1_START: Final = b"PROXY "
_V2_START: Final = struct.Struct("!12sBBH")
_TLV_START: Final = struct.Struct("!BH")
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
# Address family and transport: the width of its addresses and ports.
_WIDTHS: Final = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")


class ProxyHeaderError(HoldfastError):
    """What came is no PROXY header; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A whole header of ``size`` bytes. ``host`` is "" where it names no client's IP address.

    It then is the proxy's own connection, a health check for instance, or of another kind.
    """

    size: int
    host: str = ""
    port: int = 0


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """The header that ``data`` begins with, or None while it is not whole.

    Raises ProxyHeaderError as soon as it cannot become one any more, so that nothing is collected
    beyond V2_BYTES_MAX.
    """
    if data.startswith(V2_SIGNATURE[: len(data)]):
        return _read_v2(data)
    if data.startswith(_V1_START[: len(data)]):
        return _read_v1(data)
    raise ProxyHeaderError("expected a PROXY header, got something else")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX:
            raise ProxyHeaderError(f"expected the end of the line within {V1_BYTES_MAX} bytes")
        return None
    if data[end - 1 : end] != b"\r":
        raise ProxyHeaderError("expected CRLF at the end of the line")
    try:
        words = data[: end - 1].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyHeaderError("expected ASCII") from None
    size = end + 1
    if words[1] == "UNKNOWN":
        return ProxyHeader(size)
    if words[1] not in ("TCP4", "TCP6") or len(words) != 6:
        raise ProxyHeaderError("expected UNKNOWN, or TCP4 or TCP6 with two addresses and two ports")
    for word in words[2:4]:
        _check_address(word, is_ipv6=words[1] == "TCP6")
    ports = [int(word) for word in words[4:] if _PORT.fullmatch(word) and int(word) <= 0xFFFF]
    if len(ports) != 2:
        raise ProxyHeaderError("expected ports from 0 to 65535")
    return ProxyHeader(size, words[2], ports[0])


def _check_address(word: str, *, is_ipv6: bool) -> None:
    try:
        if not is_ipv6:
            ipaddress.IPv4Address(word)
        # A zone is a matter of one machine alone, the proxy's.
        elif ipaddress.IPv6Address(word).scope_id is not None:
            raise ValueError(word)
    except ValueError:
        kind = "IPv6" if is_ipv6 else "IPv4"
        raise ProxyHeaderError(f"expected addresses of {kind}") from None


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_START.size:
        return None
    _, command, family, length = _V2_START.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("expected version 2 and the command LOCAL or PROXY")
    size = _V2_START.size + length
    if size > V2_BYTES_MAX:
        raise ProxyHeaderError(f"expected a header of at most {V2_BYTES_MAX} bytes")
    if command == _PROXY:
        if family not in _WIDTHS:
            raise ProxyHeaderError("expected addresses of TCP or of a Unix socket")
        if length < _WIDTHS[family]:
            raise ProxyHeaderError("expected room for the addresses of this family")
    if len(data) < size:
        return None
    if command == _LOCAL:
        return ProxyHeader(size)  # whatever follows in it is to be ignored
    _check_tlvs(data[_V2_START.size + _WIDTHS[family] : size])
    addresses = data[_V2_START.size :]
    if family == _TCP4:
        host, port = str(ipaddress.IPv4Address(addresses[:4])), addresses[8:10]
    elif family == _TCP6:
        host, port = str(ipaddress.IPv6Address(addresses[:16])), addresses[32:34]
    else:
        return ProxyHeader(size)
    return ProxyHeader(size, host, int.from_bytes(port, "big"))


def _check_tlvs(block: bytes) -> None:
    """What follows the addresses is not used here, but it has to be what it says."""
    start = 0
    while start < len(block):
        if start + _TLV_START.size > len(block):
            raise ProxyHeaderError("expected whole TLVs behind the addresses")
        _, length = _TLV_START.unpack_from(block, start)
        start += _TLV_START.size + length
    if start != len(block):
        raise ProxyHeaderError("expected whole TLVs behind the addresses")
