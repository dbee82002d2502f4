"""How a client reaches a server: TCP so far."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from holdfast.client.url import Target
from holdfast.errors import ConnectionLost

NO_HEADERS: Final[Mapping[str, str]] = {}

P = TypeVar("P", bound=asyncio.Protocol)


async def open_transport(
    target: Target,
    make_protocol: Callable[[], P],
    *,
    tls: ssl.SSLContext | None,
    timeout_s: float,
    headers: Mapping[str, str] = NO_HEADERS,
) -> tuple[asyncio.Transport, P]:
    """A transport to the target. Raises ConnectionLost."""
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().create_connection(
                make_protocol, target.host, target.port
            )
    except (OSError, TimeoutError) as error:
        raise ConnectionLost(f"{target}: {error}") from None
