"""What the tests of MQTT 5.0 share: properties by name, a CONNECT with any of them, and more."""

from holdfast.message import Properties
from holdfast.protocol.packets import (
    Connack,
    Connect,
    Publish,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from tests.broker.world import Client, World
from tests.support.properties import properties


def connect(
    world: World,
    client_id: str,
    *,
    clean: bool = False,
    keep_alive: int = 0,
    will: Will | None = None,
    **values: object,
) -> Client:
    """Send CONNECT with exactly these properties; the answer is still to be looked at."""
    client = world.dial()
    client.send(connect_packet(client_id, clean=clean, keep_alive=keep_alive, will=will, **values))
    return client


def connect_packet(
    client_id: str,
    *,
    clean: bool = False,
    keep_alive: int = 0,
    will: Will | None = None,
    **values: object,
) -> Connect:
    own = properties(**values) if values else None
    return Connect(client_id, 5, clean, keep_alive, will, None, None, own)


def connack(client: Client) -> Connack:
    """The CONNACK, which is all that has come."""
    (packet,) = client.packets()
    assert isinstance(packet, Connack)
    return packet


def connack_properties(client: Client) -> Properties:
    """The properties of the CONNACK, which accepts."""
    answer = connack(client)
    assert answer.reason_code == 0
    assert answer.properties is not None
    return answer.properties


def subscribe(client: Client, packet_id: int, *requests: SubscriptionRequest) -> list[str]:
    """One SUBSCRIBE, and all that comes."""
    client.send(Subscribe(packet_id, list(requests)))
    return client.received()


def unsubscribe(client: Client, packet_id: int, *topic_filters: str) -> list[str]:
    client.send(Unsubscribe(packet_id, list(topic_filters)))
    return client.received()


def one_publish(client: Client) -> tuple[Publish, Properties]:
    """The one PUBLISH that came, with its properties."""
    (publish,) = client.publishes()
    return publish, Properties() if publish.properties is None else publish.properties


def subscribe_packet(topic_filter: str, qos: int, packet_id: int = 1) -> Subscribe:
    return Subscribe(packet_id, [SubscriptionRequest(topic_filter, qos)])
