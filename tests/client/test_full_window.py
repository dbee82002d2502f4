"""A stream that nobody takes from fills the window, and the log says so."""

import asyncio

import pytest

from holdfast import Client
from holdfast.client.engine import FULL_S
from holdfast.protocol.packets import Publish
from tests.support.scripted_server import ScriptedServer, play

TOLD = "has acknowledged none"


async def a_window_that_is_full(*, takes_one: bool) -> None:
    async with ScriptedServer() as server:
        client = Client(server.url, receive_maximum=2, keep_alive_s=0)
        peer = await server.open(client)
        peer.send(Publish("a", b"", 1, packet_id=1), Publish("a", b"", 1, packet_id=2))
        async with asyncio.timeout(FULL_S * 3):
            messages = client.messages()
            await anext(messages)
            await asyncio.sleep(FULL_S / 2)
            if takes_one:
                await anext(messages)
            await asyncio.sleep(FULL_S)
        await client.close(is_orderly=False)


def test_a_full_window_that_nobody_empties_is_told(caplog: pytest.LogCaptureFixture) -> None:
    play(a_window_that_is_full(takes_one=False))
    assert caplog.text.count(TOLD) == 1


def test_one_that_is_taken_from_is_not(caplog: pytest.LogCaptureFixture) -> None:
    play(a_window_that_is_full(takes_one=True))
    assert TOLD not in caplog.text
