"""Servers whose every connection is a talk that a test writes, beside the test's own part."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from holdfast.message import Properties
from holdfast.protocol.packets import Auth, Connack, Connect, Disconnect
from tests.support.scripted_server import Closed, Peer, ScriptedServer, connack, properties_of

Talk = Callable[[Peer, Connect], Awaitable[None]]
Reference = str | None | Callable[[], str]


class Scripted:
    """Talks to the connections as ``talks`` say, in their order, and to the later ones as the last.

    ``connects`` are the CONNECTs that came; a connection ends with its talk.
    """

    def __init__(self, *talks: Talk) -> None:
        self.connects: list[Connect] = []
        self._talks = talks
        self._server = ScriptedServer()
        self._accepting: asyncio.Task[None] | None = None
        self._talking: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.port}"

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._accepting is not None
        self._accepting.cancel()
        await self._server.__aexit__(kind, error, trace)
        await asyncio.gather(*self._talking)

    async def _accept(self) -> None:
        while True:
            peer = await self._server.accept()
            talk = self._talks[min(len(self._talking), len(self._talks) - 1)]
            self._talking.append(asyncio.create_task(self._talk(peer, talk)))

    async def _talk(self, peer: Peer, talk: Talk) -> None:
        try:
            connect = await peer.next(Connect)
            self.connects.append(connect)
            await talk(peer, connect)
        except (Closed, ConnectionError):
            pass
        finally:
            peer.close()


async def accept(peer: Peer, connect: Connect) -> None:
    """Let the client in, and wait until it goes."""
    peer.send(Connack(False, 0))
    await peer.lost()


async def accept_briefly(peer: Peer, connect: Connect) -> None:
    """Let the client in, and close."""
    peer.send(Connack(False, 0))


def refuse(reason_code: int, reference: Reference = None) -> Talk:
    """Answer CONNECT with this."""

    async def talk(peer: Peer, connect: Connect) -> None:
        peer.send(connack(code=reason_code, server_reference=_found(reference)))

    return talk


def leave(reason_code: int, reference: Reference = None) -> Talk:
    """Let the client in, and send it away at once."""

    async def talk(peer: Peer, connect: Connect) -> None:
        properties = properties_of({"server_reference": _found(reference)})
        peer.send(Connack(False, 0), Disconnect(reason_code, properties))

    return talk


def _found(reference: Reference) -> str | None:
    return reference() if callable(reference) else reference


def asked(connect: Connect) -> bytes | None:
    """The Authentication Data of a CONNECT."""
    return None if connect.properties is None else connect.properties.authentication_data


def auth(reason_code: int, method: str | None, data: bytes | None) -> Auth:
    """An AUTH."""
    return Auth(reason_code, said(method, data))


def said(method: str | None, data: bytes | None) -> Properties:
    """The properties of an authentication."""
    return properties_of({"authentication_method": method, "authentication_data": data})
