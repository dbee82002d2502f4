"""The client over TLS, where a full buffer is another one than over TCP."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from holdfast import Client, Reconnect, Server, TlsOptions
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


def test_files_that_were_renewed_are_used_from_the_next_connection_on(tmp_path: Path) -> None:
    """Those that are damaged are not: what was read before stays."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted, certificate = tmp_path / "trusted.pem", tmp_path / "server.pem"
    key = certificate.with_suffix(".key")

    def serve(authority: Authority) -> None:
        issued = authority.issue("issued", "localhost")
        issued.replace(certificate)
        issued.with_suffix(".key").replace(key)

    async def live() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        trusted.write_bytes(old.file.read_bytes())
        serve(old)
        tls = {"certificate": str(certificate), "key": str(key)}
        listener = {"name": "tls", "address": "127.0.0.1:0", "tls": tls}
        async with Server(settings={"listeners": [listener]}) as server:
            client = Client(
                f"mqtts://localhost:{server.port}",
                tls=TlsOptions(ca_file=trusted),
                reconnect=Reconnect(delay_min_s=0.001, delay_max_s=0.001),
                on_connect=lambda _: told.put_nowait("connected"),
                on_disconnect=lambda _, error: told.put_nowait(str(error)),
            )

            async def until(said: str) -> None:
                while said not in await told.get():
                    pass

            async with client:
                await until("connected")
                await server.stop()
                trusted.write_text("damaged")
                await server.start()
                await until("connected")
                await server.stop()
                serve(new)
                await server.start()
                await until("certificate is not trusted")
                trusted.write_bytes(new.file.read_bytes())
                await until("connected")

    asyncio.run(asyncio.wait_for(live(), PATIENCE_S))
