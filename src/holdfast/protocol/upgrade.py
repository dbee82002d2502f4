"""What both ends of the HTTP request that opens a WebSocket agree on.

Source: RFC 6455 §1.3 and §4; MQTT 5.0 §6.0 and MQTT 3.1.1 §6.0.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Final

# Of a request or its answer, headers included; browsers send cookies.
HEAD_BYTES_MAX: Final = 16 * 1024
VERSION: Final = b"13"
KEY_BYTES: Final = 16  # of a Sec-WebSocket-Key, before base64
PROTOCOL: Final = b"mqtt"  # [MQTT-6.0.0-3], [MQTT-6.0.0-4]
PROTOCOL_3_1: Final = b"mqttv3.1"  # what clients of MQTT 3.1 ask for

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key.

    Not for safety: it shows that the request was understood.
    """
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def header_words(values: Iterable[bytes], is_case_kept: bool = False) -> list[bytes]:
    """The words of a header that lists them with commas, once or several times."""
    words = [word.strip(b" \t") for value in values for word in value.split(b",")]
    return words if is_case_kept else [word.lower() for word in words]
