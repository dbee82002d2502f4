"""The ways that a message can take to a subscriber: what holds for one has to hold for all.

Each way is a function of a world, a PUBLISH at QoS 1 or 2, the subscriptions of the subscriber
``s``, and the milliseconds that the message waits on its way. It gives what ``s`` receives of it.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from holdfast.protocol.packets import Puback, Publish, Subscribe, SubscriptionRequest
from tests.broker.world import Client, World
from tests.support.properties import properties

FILLER: Final = "filler"  # a topic of its own, for what stands in the way


class Asked(NamedTuple):
    """One subscription of the subscriber."""

    topic_filter: str
    qos: int = 2
    identifier: int = 0
    retain_as_published: bool = False


Way = Callable[[World, Publish, Sequence[Asked], int], list[Publish]]


def subscribe(client: Client, asked: Sequence[Asked]) -> None:
    """Subscribe, with nothing retained: the SUBACK packets are all that comes."""
    _send_subscribes(client, asked)
    answers = client.received()[-len(asked) :]
    assert [answer.split()[0] for answer in answers] == ["SUBACK"] * len(asked)


def _send_subscribes(client: Client, asked: Sequence[Asked]) -> None:
    for number, one in enumerate(asked, 100):
        request = SubscriptionRequest(
            one.topic_filter, one.qos, retain_as_published=one.retain_as_published
        )
        own = properties(subscription_identifiers=[one.identifier]) if one.identifier else None
        client.send(Subscribe(number, [request], own))


def publish(world: World, message: Publish) -> None:
    publisher = world.transient("publisher")
    publisher.send(message)
    publisher.disconnect()


def found(client: Client) -> list[Publish]:
    return [one for one in client.publishes() if one.topic != FILLER]


def live(world: World, message: Publish, asked: Sequence[Asked], wait_ms: int) -> list[Publish]:
    """The subscriber is there and has room."""
    assert wait_ms == 0
    client = world.hello("s")
    subscribe(client, asked)
    publish(world, message)
    return found(client)


def live_transient(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    assert wait_ms == 0
    client = world.transient("s")
    subscribe(client, asked)
    publish(world, message)
    return found(client)


def live_at_qos_0(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    """Published at QoS 0, and without a property it may go out just as it came in."""
    return live(world, _at_qos_0(message), asked, wait_ms)


def _at_qos_0(message: Publish) -> Publish:
    message.qos, message.packet_id, message.dup = 0, 0, False
    return message


def behind(world: World, message: Publish, asked: Sequence[Asked], wait_ms: int) -> list[Publish]:
    """The subscriber is there, and its window is full."""
    return _behind(world, world.hello("s", receive_maximum=1), message, asked, wait_ms)


def behind_transient(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    client = world.hello("s", clean=True, expiry_s=0, receive_maximum=1)
    return _behind(world, client, message, asked, wait_ms)


def _behind(
    world: World, client: Client, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    subscribe(client, [Asked(FILLER), *asked])
    publish(world, Publish(FILLER, b"in the way", 1, packet_id=1))
    publish(world, message)
    assert found(client) == []
    world.advance(wait_ms)
    client.send(Puback(1))
    return found(client)


def absent(world: World, message: Publish, asked: Sequence[Asked], wait_ms: int) -> list[Publish]:
    client = world.hello("s")
    subscribe(client, asked)
    client.cut()
    publish(world, message)
    world.advance(wait_ms)
    return found(world.hello("s"))


def absent_over_a_crash(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    """The broker is down for the time that the message waits."""
    client = world.hello("s")
    subscribe(client, asked)
    client.cut()
    publish(world, message)
    world.crash()
    world.restart(after_ms=wait_ms)
    return found(world.hello("s"))


def shared(world: World, message: Publish, asked: Sequence[Asked], wait_ms: int) -> list[Publish]:
    """The subscriber is the only member of its shared groups."""
    return live(world, message, _shared(asked), wait_ms)


def shared_absent(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    """No member of the group is there, so the group waits."""
    return absent(world, message, _shared(asked), wait_ms)


def shared_absent_over_a_crash(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    return absent_over_a_crash(world, message, _shared(asked), wait_ms)


def _shared(asked: Sequence[Asked]) -> list[Asked]:
    return [one._replace(topic_filter=f"$share/g/{one.topic_filter}") for one in asked]


def retained(world: World, message: Publish, asked: Sequence[Asked], wait_ms: int) -> list[Publish]:
    """It was published before the subscriber came, and to be kept."""
    message.retain = True
    publish(world, message)
    world.advance(wait_ms)
    client = world.hello("s")
    _send_subscribes(client, asked)
    return found(client)


def retained_transient(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    message.retain = True
    publish(world, message)
    world.advance(wait_ms)
    client = world.transient("s")
    _send_subscribes(client, asked)
    return found(client)


def retained_at_qos_0(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    return retained(world, _at_qos_0(message), asked, wait_ms)


def retained_over_a_crash(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    message.retain = True
    publish(world, message)
    world.crash()
    world.restart(after_ms=wait_ms)
    client = world.hello("s")
    _send_subscribes(client, asked)
    return found(client)


def retained_behind(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    """It was retained, and the window of its subscriber is full."""
    return _retained_behind(world, world.hello("s", receive_maximum=1), message, asked, wait_ms)


def retained_behind_transient(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    client = world.hello("s", clean=True, expiry_s=0, receive_maximum=1)
    return _retained_behind(world, client, message, asked, wait_ms)


def _retained_behind(
    world: World, client: Client, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    message.retain = True
    publish(world, message)
    subscribe(client, [Asked(FILLER)])
    publish(world, Publish(FILLER, b"in the way", 1, packet_id=1))
    _send_subscribes(client, asked)
    assert found(client) == []
    world.advance(wait_ms)
    client.send(Puback(1))
    return found(client)


def sent_again(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    """It was sent, and not acknowledged before the connection broke."""
    client = world.hello("s")
    subscribe(client, asked)
    publish(world, message)
    client.cut()
    world.advance(wait_ms)
    return found(world.hello("s"))


def sent_again_over_a_crash(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    client = world.hello("s")
    subscribe(client, asked)
    publish(world, message)
    world.crash()
    world.restart(after_ms=wait_ms)
    return found(world.hello("s"))


def retained_sent_again(
    world: World, message: Publish, asked: Sequence[Asked], wait_ms: int
) -> list[Publish]:
    """A subscribe brought it, but the connection broke, and it is retained no longer."""
    message.retain = True
    publish(world, message)
    client = world.hello("s")
    _send_subscribes(client, asked)
    client.cut()
    world.crash()
    world.restart(after_ms=wait_ms)
    publish(world, Publish(message.topic, b"", retain=True))
    return found(world.hello("s"))


# A message waits in the broker before its first delivery begins.
QUEUED: Final[Sequence[Way]] = (behind, behind_transient, absent, absent_over_a_crash)
RETAINED: Final[Sequence[Way]] = (
    retained,
    retained_transient,
    retained_at_qos_0,
    retained_over_a_crash,
    retained_behind,
    retained_behind_transient,
)
PUBLISHED: Final[Sequence[Way]] = (
    live,
    live_transient,
    *QUEUED,
    sent_again,
    sent_again_over_a_crash,
)
# Each subscription is a group of its own here, and brings its own copy.
SHARED: Final[Sequence[Way]] = (shared, shared_absent, shared_absent_over_a_crash)
ALL: Final[Sequence[Way]] = (
    *PUBLISHED,
    live_at_qos_0,
    *SHARED,
    *RETAINED,
    retained_sent_again,
)


def name_of(way: Way) -> str:
    return getattr(way, "__name__", "").replace("_", " ")
