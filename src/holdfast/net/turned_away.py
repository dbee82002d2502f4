"""Connections that are turned away and told why, so many at a time; the others are just closed.

A CONNACK answers a CONNECT, and looks as its version has it. So a refused connection is read up to
there, which may not cost more than it is worth.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

from holdfast.net.buckets import Bucket
from holdfast.protocol.decode import peek_version
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import CONNECT, MQTT_3_1, MQTT_5_0, Connack
from holdfast.protocol.reason_codes import connack_return_code

if TYPE_CHECKING:
    from holdfast.net.connection import NetConnection

# Fewer than the file descriptors in reserve.
AT_A_TIME_MAX: Final = 32
PER_S: Final = 50.0  # a second; with TLS each costs a handshake
PATIENCE_S: Final = 2.0  # for its CONNECT
HEAD_BYTES: Final = 14  # the smallest CONNECT; its version is within them


@final
class TurnedAway:
    """Stands in for the driver towards a connection that is refused."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._bucket = Bucket(PER_S, PER_S)
        self._count = 0
        self._codes: dict[NetConnection, int] = {}
        self._heads: dict[NetConnection, bytes] = {}

    @property
    def is_stopping(self) -> bool:
        """Never: who is turned away here is so for a limit."""
        return False

    def has_room(self) -> bool:
        """Whether one more may be told; then it counts until ``left``."""
        if self._count >= AT_A_TIME_MAX or not self._bucket.take(self._clock_s()):
            return False
        self._count += 1
        return True

    def left(self) -> None:
        """One of them is gone."""
        self._count -= 1

    def take(self, connection: "NetConnection", reason_code: int) -> None:
        """Answer its CONNECT with this reason code, and close it."""
        self._codes[connection] = reason_code
        self._heads[connection] = b""
        asyncio.get_running_loop().call_later(PATIENCE_S, self._over, connection)

    # --- what the connection reports

    def opened(self, connection: "NetConnection") -> None:
        """It has been."""

    def has_input(self, connection: "NetConnection") -> None:
        asyncio.get_running_loop().call_soon(self._answer, connection)

    def has_enough(self, connection: "NetConnection") -> None:
        """It is closed after its first bytes anyhow."""

    def drained(self, connection: "NetConnection") -> None:
        """Nothing waits for room in the socket."""

    def tell(self, connection: "NetConnection", text: str) -> None:
        """The operator has been told enough."""

    def unfit(self, connection: "NetConnection", what: str, text: str) -> None:
        """It was refused before, and counts as that."""

    def lost(self, connection: "NetConnection") -> None:
        self._codes.pop(connection, None)
        self._heads.pop(connection, None)

    def _answer(self, connection: "NetConnection") -> None:
        reason_code = self._codes.get(connection)
        if reason_code is None:
            return
        head = (self._heads[connection] + connection.take_input())[:HEAD_BYTES]
        self._heads[connection] = head
        if len(head) < HEAD_BYTES and head[0] >> 4 == CONNECT:
            return
        connection.write(answer_of(head, reason_code))
        del self._codes[connection]
        connection.close()

    def _over(self, connection: "NetConnection") -> None:
        if connection in self._codes:
            connection.abort()


def answer_of(head: bytes, reason_code: int) -> bytes:
    """The CONNACK that refuses the CONNECT with this beginning, nothing for what is none."""
    try:
        version = peek_version(head, 0, len(head))
    except IndexError:  # the Remaining Length does not end
        return b""
    if version >= MQTT_5_0:
        return encode(Connack(False, reason_code), MQTT_5_0)
    if version < MQTT_3_1:
        return b""
    code = connack_return_code(reason_code)
    return encode(Connack(False, code), version) if code > 0 else b""
