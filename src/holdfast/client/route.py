"""Where to connect next: to the broker of the URL, or to where that has sent us.

Source: MQTT 5.0 §4.11.
"""

from typing import Final, final

from holdfast.client.url import Target, server_references
from holdfast.errors import UsageError
from holdfast.logs import get_logger
from holdfast.protocol.reason_codes import SERVER_MOVED

# From one server to the next before we wait as after a failure: servers that send clients in a
# circle must not keep them, and the network, busy.
REDIRECTS_MAX: Final = 5
REFERENCES_MAX: Final = 16  # of one Server Reference that are tried

_log = get_logger(__name__)


@final
class Route:
    """``target`` is where the connection of now leads, or the try.

    With 0x9C (Use another server) a server sends us away for one connection: the next one begins
    at home again. With 0x9D (Server moved) the new server is home from then on, once it has
    answered.
    """

    def __init__(self, home: Target) -> None:
        self.target = home
        self._home = home
        self._ahead: list[Target] = []  # to be tried, in this order
        self._is_moving = False  # they are where the server has moved to
        self._redirects = 0  # since the last wait, or a connection that was a good one

    def next(self) -> Target:
        """Go on to the next one to try."""
        if self._ahead:
            self.target = self._ahead.pop(0)
        else:
            self.target = self._home
            self._is_moving = False
        return self.target

    def has_more(self) -> bool:
        """Whether another server is to be tried at once, since this one cannot be reached."""
        return bool(self._ahead)

    def answered(self) -> None:
        """The server that was tried is there, and speaks MQTT."""
        if self._is_moving:
            self._home = self.target
            self._is_moving = False
        self._ahead.clear()

    def settled(self) -> None:
        """A while has passed since the last redirect, in a connection or waiting for one."""
        self._redirects = 0

    def redirected(self, reason_code: int, references: str) -> bool:
        """Take the Server Reference of a CONNACK or DISCONNECT; whether to follow it at once."""
        self.answered()
        if self._redirects >= REDIRECTS_MAX:
            _log.warning("too many redirects in a row", redirects_max=REDIRECTS_MAX)
            return False
        found = []
        for reference in server_references(references)[:REFERENCES_MAX]:
            try:
                found.append(self.target.with_server(reference))
            except UsageError as error:
                _log.warning(f"a reference to another server cannot be followed: {error}")
        if not found:
            return False
        self._redirects += 1
        self._ahead = found
        self._is_moving = reason_code == SERVER_MOVED
        _log.info("redirected", server=str(self.target), to=found[0].address)
        return True
