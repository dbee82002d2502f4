"""A listener: an address, and what is made of each connection that comes to it."""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Final, final

from holdfast.broker.listener_rules import ALL_VERSIONS, ListenerRules
from holdfast.config import Address, ListenAddress, ListenerSettings, Settings, UnixAddress
from holdfast.net.connection import NetConnection
from holdfast.net.websocket import over_websocket
from holdfast.protocol.packets import MQTT_3_1, MQTT_3_1_1, MQTT_5_0

BACKLOG: Final = 4096  # connections that the kernel accepts before the loop takes them

_LEVELS: Final = {"3.1": MQTT_3_1, "3.1.1": MQTT_3_1_1, "5.0": MQTT_5_0}


@final
class Listener:
    """One open listener; ``addresses`` is where it is found, with the port it has got."""

    def __init__(self, server: asyncio.Server, addresses: list[Address]) -> None:
        self.addresses = addresses
        self._server = server

    def close(self) -> None:
        """Take no more connections; those that are there stay."""
        self._server.close()
        for address in self.addresses:
            if isinstance(address, UnixAddress):
                try:
                    os.unlink(address.path)
                except FileNotFoundError:
                    pass


async def listen(
    settings: ListenerSettings, make_connection: Callable[[], NetConnection]
) -> Listener:
    """Listen as the settings have it. An OSError names the address."""
    loop = asyncio.get_running_loop()
    address = settings.address
    make_protocol: Callable[[], asyncio.Protocol] = make_connection
    if settings.websocket is not None:
        make_protocol = over_websocket(settings, make_connection)
    try:
        if isinstance(address, UnixAddress):
            server = await loop.create_unix_server(make_protocol, address.path, backlog=BACKLOG)
            os.chmod(address.path, int(settings.unix_mode, 8))
            return Listener(server, [address])
        server = await loop.create_server(
            make_protocol, address.host, address.port, backlog=BACKLOG
        )
    except OSError as error:
        is_lookup = isinstance(error, socket.gaierror)
        reason = error.strerror if is_lookup else os.strerror(error.errno or 0)
        raise type(error)(error.errno, f"cannot listen on {address}: {reason}") from error
    return Listener(server, [ListenAddress(*bound.getsockname()[:2]) for bound in server.sockets])


def rules_of(
    listener: ListenerSettings, settings: Settings, auth_methods: frozenset[str] | None
) -> ListenerRules:
    """What holds for the clients of a listener: its own settings, or else those of the broker."""
    size = _own(listener.packet_bytes_max, settings.packet_bytes_max)
    return ListenerRules(
        listener.title,
        size,
        min(size, settings.connect_bytes_max),
        _own(listener.keep_alive_min_s, settings.keep_alive_min_s),
        _own(listener.keep_alive_max_s, settings.keep_alive_max_s),
        ALL_VERSIONS & {_LEVELS[version] for version in listener.versions},
        auth_methods,
    )


def _own(value: int | None, common: int) -> int:
    return common if value is None else value
