"""Keys that an issuer takes back: whose token they have signed is disconnected, nobody else."""

import signal
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.support import packets
from tests.support.broker import BrokerProcess
from tests.support.key_server import KeyServer
from tests.support.packets import CONNACK, DISCONNECT, V5, V311
from tests.support.tokens import jwk, jwks, pem, token
from tests.support.wire import Wire

OLD, NEW = (ed25519.Ed25519PrivateKey.generate() for _ in range(2))


def enter(broker: BrokerProcess, key: ed25519.Ed25519PrivateKey, kid: str, level: int) -> Wire:
    """Connect with a token for an hour."""
    made = token({"sub": kid, "exp": time.time() + 3600}, key, "EdDSA", kid)
    wire = Wire(broker.port, level)
    wire.send(packets.connect(f"{kid}{level}", level, user="x", password=made.decode()))
    assert wire.expect(CONNACK).code == 0
    return wire


@pytest.mark.parametrize("source", ["url", "file"])
def test_a_key_that_is_taken_back_takes_its_clients_along(source: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.pem"
    file.write_bytes(pem(OLD) + pem(NEW))
    with KeyServer(jwks(jwk(OLD, "old"), jwk(NEW, "new"))) as issuer:
        keys = f'jwks_url = "{issuer.url}"' if source == "url" else f'public_key_file = "{file}"'
        toml = f'[[authenticators]]\nkind = "jwt"\nalgorithms = ["EdDSA"]\n{keys}\n'
        with BrokerProcess(tmp_path / "data", store="memory", toml=toml) as broker:
            leaving = [enter(broker, OLD, "old", level) for level in (V311, V5)]
            with enter(broker, NEW, "new", V5) as staying:
                issuer.content = jwks(jwk(NEW, "new"))
                file.write_bytes(pem(NEW))
                if source == "url":  # A file is looked at each second.
                    broker.process.send_signal(signal.SIGHUP)
                ends = []
                for wire in leaving:
                    ends.append([(end.kind, end.code) for end in wire.until_closed()])
                    wire.cut()
                assert ends == [[], [(DISCONNECT, 0x87)]]
                staying.ping()
            for part in (issuer.url, "secret-of-the-path"):
                assert part not in broker.log
