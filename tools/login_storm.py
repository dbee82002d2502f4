"""Measure a storm of logins: ``python -m tools.login_storm [CLIENTS]``.

A broker with a password file; all clients connect at once, then once more, while another client, a
process of its own, publishes to itself. For each round: how long until all are in, and how long the
other one's messages took. A client that is refused or cut off comes again after a second.
"""

import asyncio
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from holdfast.auth.passwords import new_hash

CLIENTS: Final = 1000
PATIENCE_S: Final = 600
CONNECT: Final = 0x10
BEAT_S: Final = 0.02
PASSWORD: Final = b"a password of usual length"


def connect_packet(name: str, client_id: str = "") -> bytes:
    """CONNECT of MQTT 3.1.1 with user name and password."""
    fields = b"".join(
        len(text).to_bytes(2) + text
        for text in ((client_id or name).encode(), name.encode(), PASSWORD)
    )
    body = b"\x00\x04MQTT\x04\xc2\x00\x00" + fields
    return bytes([CONNECT]) + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number % 128 + 128, number // 128])


async def log_in(port: int, name: str) -> int:
    """Come until let in, and leave then; how often that was."""
    attempts = 0
    while True:
        attempts += 1
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(connect_packet(name))
            if (await reader.readexactly(4))[3] == 0:
                return attempts
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if writer is not None:
                writer.close()
        await asyncio.sleep(1)


def honest(port: int) -> None:
    """Publish to itself until standard input ends, then print the seconds of each message."""
    with socket.create_connection(("127.0.0.1", port)) as broker:
        broker.settimeout(PATIENCE_S)
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.sendall(connect_packet("u0", "honest"))
        receive(broker, 4)
        broker.sendall(b"\x82\x06\x00\x01\x00\x01h\x00")  # SUBSCRIBE h, QoS 0
        receive(broker, 5)
        while not select.select([sys.stdin], [], [], BEAT_S)[0]:
            begun_s = time.perf_counter()
            broker.sendall(b"\x30\x04\x00\x01hx")
            receive(broker, 6)
            print(time.perf_counter() - begun_s)


def receive(broker: socket.socket, count: int) -> None:
    """Read so many bytes."""
    while count > 0:
        data = broker.recv(count)
        assert data, "the broker has closed"
        count -= len(data)


async def storm(port: int, clients: int) -> tuple[float, int]:
    """All come at once: the seconds until all have been in, and how often they came."""
    begun_s = time.perf_counter()
    attempts = await asyncio.wait_for(
        asyncio.gather(*(log_in(port, f"u{number}") for number in range(clients))), PATIENCE_S
    )
    return time.perf_counter() - begun_s, sum(attempts)


def measure(port: int, clients: int, title: str) -> None:
    """One round, told in one line; without clients, how it is in peace."""
    with subprocess.Popen(
        [sys.executable, "-m", "tools.login_storm", "honest", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        time.sleep(1)
        took_s, attempts = asyncio.run(storm(port, clients)) if clients else (0.0, 0)
        time.sleep(0.0 if clients else 2.0)
        times_s = sorted(map(float, other.communicate()[0].split()))
    print(
        f"{title}: {clients} clients in after {took_s:.2f} s, {attempts} attempts; "
        f"a message of another: p50 {_ms(times_s, 0.5)}, p99 {_ms(times_s, 0.99)} ms"
    )


def _ms(times_s: list[float], share: float) -> str:
    return f"{times_s[int(len(times_s) * share)] * 1000:.1f}" if times_s else "none"


def main() -> None:
    """Run both rounds on a broker of their own."""
    if sys.argv[1:2] == ["honest"]:
        honest(int(sys.argv[2]))
        return
    clients = int(sys.argv[1]) if len(sys.argv) > 1 else CLIENTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"u{number}:{new_hash(PASSWORD)}" for number in range(clients)]
        (folder / "passwords").write_text("\n".join(lines))
        (folder / "holdfast.toml").write_text(
            'listen = ["127.0.0.1:0"]\nstore = "memory"\n'
            '[[authenticators]]\nkind = "password_file"\nfile = "passwords"\n'
        )
        command = [str(Path(sys.executable).parent / "holdfast"), "serve"]
        with subprocess.Popen(
            [*command, "--config", "holdfast.toml"], cwd=folder, stderr=subprocess.PIPE, text=True
        ) as broker:
            assert broker.stderr is not None
            port = 0
            for line in broker.stderr:
                if " ready on " in line:
                    port = int(line.split("127.0.0.1:")[1].split(";")[0])
                    break
            try:
                measure(port, 0, "peace")
                measure(port, clients, "first")
                measure(port, clients, "again")
            finally:
                broker.kill()


if __name__ == "__main__":
    main()
