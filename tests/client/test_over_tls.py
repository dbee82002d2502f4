"""The client over TLS, where a full buffer is another one than over TCP."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from holdfast import Client, TlsOptions
from tests.support.broker import NewBroker
from tests.support.listening import Authority, listener_table, tls_table

PATIENCE_S = 30


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("is_websocket", [False, True])
def test_many_messages_go_out_and_come_back(
    new_broker: NewBroker, tmp_path: Path, loop: object, is_websocket: bool
) -> None:
    authority = Authority(tmp_path)
    toml = listener_table("tls")
    toml += ("[listeners.websocket]\n" if is_websocket else "") + tls_table(
        authority.issue("server", "localhost")
    )
    broker = new_broker(settings={}, toml=toml)
    url = f"{'wss' if is_websocket else 'mqtts'}://localhost:{broker.ports[-1]}"

    async def live() -> None:
        async with Client(url, tls=TlsOptions(ca_file=authority.file)) as client:
            subscription = await client.subscribe("a", qos=1)
            for number in range(20):
                await client.publish("a", bytes([number]) * 20_000, qos=1)
            await client.drain(PATIENCE_S)
            for number in range(20):
                message = await asyncio.wait_for(anext(subscription), PATIENCE_S)
                assert message.payload == bytes([number]) * 20_000

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # both make one
        runner.run(live())
