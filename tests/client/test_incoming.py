"""The order of acknowledgements, and what a received message shows."""

import random
from collections.abc import Awaitable

from holdfast.client.incoming import ACKNOWLEDGED, WAITING, AckOrder, ReceivedMessage
from holdfast.protocol.packets import Publish


def no_ack(message: ReceivedMessage) -> Awaitable[None]:
    raise AssertionError


def message(packet_id: int) -> ReceivedMessage:
    return ReceivedMessage(Publish("a/b", b"secret", 1, packet_id=packet_id), no_ack)


def test_each_leaves_when_all_before_it_have() -> None:
    """In any order of being done: a model, and random steps."""
    chance = random.Random(1)
    order, waiting, left = AckOrder(), list[ReceivedMessage](), list[int]()
    came = 0
    for _ in range(20_000):
        if chance.randrange(3) == 0 or not waiting:
            came += 1
            one = message(came)
            order.came(one)
            waiting.append(one)
        else:
            chance.choice(waiting[:5]).state = ACKNOWLEDGED
        found = order.next_done()
        while found is not None:
            assert found is waiting.pop(0)
            left.append(found.packet_id)
            found = order.next_done()
        assert not waiting or waiting[0].state == WAITING
        assert len(order) == len(waiting)
        assert len(order._waiting) <= max(2 * len(waiting), len(waiting) + 1024) + 1
    assert left == list(range(1, len(left) + 1)) and len(left) > 5_000
    assert order.clear() == waiting
    assert len(order) == 0 and order.next_done() is None


def test_what_is_shown_of_a_message_is_not_its_content() -> None:
    assert repr(message(1)) == "<ReceivedMessage of 'a/b', QoS 1, 6 bytes>"
