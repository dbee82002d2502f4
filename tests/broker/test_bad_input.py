"""Whatever a peer sends, the broker answers as its version has it, and goes on."""

import pytest

from tests.broker.world import World

CONNACK_OF_3_1_1 = bytes.fromhex("20 02 00 00")
CONNECT_OF_LEVEL_9 = bytes.fromhex("10 0d 00 04") + b"MQTT" + bytes.fromhex("09 02 00 00 00 00 00")


@pytest.mark.spec("MQTT5-3.1.0-2")
@pytest.mark.spec("MQTT5-4.13.1-1")
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    "data", [CONNACK_OF_3_1_1, CONNECT_OF_LEVEL_9], ids=["CONNACK", "second CONNECT"]
)
def test_no_reason_code_that_disconnect_lacks_is_tried(version: int, data: bytes) -> None:
    """Unsupported Protocol Version belongs to CONNACK alone; DISCONNECT needs another code."""
    world = World()
    client = world.hello("c", version=version)
    client.send_bytes(data)
    assert client.received() == (["DISCONNECT 0x82"] if version == 5 else [])
    assert not client.is_open
