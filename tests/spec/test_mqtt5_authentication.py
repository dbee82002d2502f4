"""Enhanced authentication with a client that takes hardly more than what the exchange needs.

The exchange itself: ``tests/broker/test_authentication.py``. Source: MQTT 5.0 §3.15, §4.12.
"""

import pytest

from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import Auth, Connack, Packet
from tests.broker.world import Client, World, describe
from tests.support.challenge import METHOD, ChallengeAuthenticator, proof

KEY = b"a key"
BEGIN, GO_ON = 0x19, 0x18
SPARE_BYTES = range(100)


def said(data: bytes) -> Properties:
    properties = Properties()
    properties.authentication_method = METHOD
    properties.authentication_data = data
    return properties


class Exchange:
    """A client that authenticates itself, and all that it was sent."""

    def __init__(self, maximum_packet_size: int) -> None:
        self.world = World(authenticator=ChallengeAuthenticator({"ada": KEY}, 2))
        self.sent: list[Packet] = []
        self.client: Client = self.world.connect(
            "c", properties=said(b"ada"), maximum_packet_size=maximum_packet_size
        )

    def answer(self, key: bytes) -> None:
        """Answer each challenge until there is none."""
        while True:
            new = self.client.packets()
            self.sent += new
            if not new or not isinstance(new[-1], Auth) or new[-1].reason_code != GO_ON:
                return
            properties = new[-1].properties
            assert properties is not None
            nonce = properties.authentication_data
            assert nonce is not None
            self.client.send(Auth(GO_ON, said(proof(key, nonce))))


def needed_bytes() -> int:
    """The size of the largest packet of an exchange that succeeds."""
    exchange = Exchange(1_000_000)
    exchange.answer(KEY)
    return max(len(encode(packet, 5)) for packet in exchange.sent)


@pytest.mark.spec("MQTT5-3.15.2-2", "MQTT5-3.15.2-3", "MQTT5-4.12.0-2", "MQTT5-4.12.0-5")
@pytest.mark.spec("MQTT5-4.12.1-2", "MQTT5-3.1.2-24")
def test_every_packet_of_an_authentication_fits_and_has_the_method_of_connect() -> None:
    """The first one, a second one that succeeds and a third one that fails."""
    least = needed_bytes()
    for spare in SPARE_BYTES:
        exchange = Exchange(least + spare)
        exchange.answer(KEY)
        client = exchange.client
        client.send(Auth(BEGIN, said(b"ada")))
        exchange.answer(KEY)
        client.send(Auth(BEGIN, said(b"ada")))
        exchange.answer(b"wrong")
        assert [describe(packet) for packet in exchange.sent] == [
            *("AUTH 0x18", "AUTH 0x18", "CONNACK 0x00"),
            *("AUTH 0x18", "AUTH 0x18", "AUTH 0x00"),
            *("AUTH 0x18", "DISCONNECT 0x87"),
        ]
        assert not client.is_open
        for packet in exchange.sent:
            assert len(encode(packet, 5)) <= least + spare
            if isinstance(packet, Auth | Connack):
                assert packet.properties is not None
                assert packet.properties.authentication_method == METHOD


@pytest.mark.spec("MQTT5-4.12.0-4", "MQTT5-3.1.2-24")
def test_a_refusal_fits_too() -> None:
    least = needed_bytes()
    for spare in SPARE_BYTES:
        exchange = Exchange(least + spare)
        exchange.answer(b"wrong")
        assert [describe(packet) for packet in exchange.sent] == ["AUTH 0x18", "CONNACK 0x87"]
        assert all(len(encode(packet, 5)) <= least + spare for packet in exchange.sent)
        assert not exchange.client.is_open
