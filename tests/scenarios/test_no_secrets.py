"""What a server says at its most talkative: no password, token, payload or data of an exchange."""

import base64
from pathlib import Path
from typing import Final

import pytest

from tests.support import packets
from tests.support.broker import NewBroker
from tests.support.command import holdfast
from tests.support.packets import AUTH_DATA, AUTH_METHOD, CONNACK, Will
from tests.support.wire import Wire

SECRET: Final = "geheim-7f3a"
WRONG: Final = "falsch-9c1d"


def forms(secret: str) -> list[str]:
    """How a secret could stand in a line."""
    raw = secret.encode()
    return [secret, raw.hex(), base64.b64encode(raw).decode().rstrip("="), secret[::-1]]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_log_has_no_secrets(tmp_path: Path, new_broker: NewBroker, as_json: bool) -> None:
    line = SECRET + "\n"
    users = tmp_path / "users"
    done = holdfast(
        *("passwd", str(users), "ada", "--scram", "--batch"), folder=tmp_path, given=line
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "key").write_text(SECRET * 5)
    (tmp_path / "key").chmod(0o600)
    broker = new_broker(
        settings={"log_level": "debug", "log_json": as_json},
        toml=f"""
            [[authenticators]]
            kind = "scram"
            file = "{users}"
            [[authenticators]]
            kind = "jwt"
            algorithms = ["HS256"]
            secret_file = "{tmp_path / "key"}"
            [[authenticators]]
            kind = "password_file"
            file = "{users}"
        """,
    )
    will = Will("t/will", WRONG.encode())
    with Wire(broker.port) as wire:
        wire.send(packets.connect("let in", user="ada", password=SECRET, will=will))
        assert wire.expect(CONNACK).code == 0
        wire.publish("t/a", WRONG.encode(), qos=1)
        wire.publish("t/a", WRONG.encode() * 9999, qos=0)
    attempts = [
        packets.connect("wrong password", user="ada", password=WRONG),
        packets.connect("unknown user", user="bob", password=WRONG),
        packets.connect("token", user="ada", password=f"eyJhbGciOiJIUzI1NiJ9.{WRONG}.{WRONG}"),
        packets.connect("scram", values={AUTH_METHOD: "SCRAM-SHA-256", AUTH_DATA: WRONG.encode()}),
        packets.connect("bearer", values={AUTH_METHOD: "JWT", AUTH_DATA: WRONG.encode()}),
        packets.connect("no text", user="ada", password=WRONG, flags=0xC3),
        packets.connect("no name", password=WRONG),
    ]
    for attempt in attempts:
        with Wire(broker.port) as wire:
            wire.send(attempt)
            assert all(packet.code != 0 for packet in wire.until_closed())
    assert broker.terminate() == 0
    for secret in (SECRET, WRONG):
        for form in forms(secret):
            assert form not in broker.log
    # It has said something about them, or this would prove nothing.
    assert "wrong password" in broker.log
    assert "unknown user" in broker.log
