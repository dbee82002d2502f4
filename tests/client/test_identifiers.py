"""An identifier stands for one message, in the outbox file too, whatever crashes when."""

import pytest

from holdfast.client.outgoing import PUBLISH_ID_MAX
from holdfast.protocol.packets import Pubcomp, Publish, Pubrec, Subscribe, SubscriptionRequest
from tests.client.world import ClientWorld


@pytest.mark.spec("MQTT5-2.2.1-3", "MQTT5-4.3.3-2", "MQTT311-2.3.1-2", "MQTT311-4.3.3-1")
def test_an_identifier_is_used_again_when_the_file_has_forgotten_its_message() -> None:
    """Else a crash brings the old one back, whose PUBREL would end the new one's exchange."""
    world = ClientWorld(is_durable=True)
    world.hello()
    world.publish("a", b"old", 2)
    world.server(Pubrec(2))
    world.sending.next_seq = 1 + PUBLISH_ID_MAX
    world.publish("a", b"new", 2)
    assert world.sent() == ["PUBLISH a old q2 #2", "PUBREL #2"]
    world.hold()
    world.server(Pubcomp(2))
    assert world.sent() == []
    world.sync()
    assert world.sent() == ["PUBLISH a new q2 #2"]
    world.crash()
    assert world.sent() == ["PUBLISH a new q2 #2 dup"]


def test_in_memory_an_identifier_is_free_at_once() -> None:
    world = ClientWorld()
    world.hello()
    world.publish("a", b"old", 2)
    world.sending.next_seq = 1 + PUBLISH_ID_MAX
    world.publish("a", b"new", 2)
    world.server(Pubrec(2))
    assert world.sent() == ["PUBLISH a old q2 #2", "PUBREL #2"]
    world.server(Pubcomp(2))
    assert world.sent() == ["PUBLISH a new q2 #2"]


def test_an_old_message_holds_up_the_one_of_its_identifier_and_no_other() -> None:
    world = ClientWorld(is_durable=True)
    world.hello()
    world.publish("a", b"old", 2)
    world.sending.next_seq = PUBLISH_ID_MAX
    world.publish("a", b"between", 2)
    world.publish("a", b"new", 2)
    assert world.sent() == ["PUBLISH a old q2 #2", "PUBLISH a between q2 #1"]
    world.cut()
    world.hello(present=True)
    assert world.sent() == ["PUBLISH a old q2 #2 dup", "PUBLISH a between q2 #1 dup"]


@pytest.mark.spec("MQTT5-4.3.3-10", "MQTT311-4.3.3-2")
def test_nothing_is_sent_in_a_new_session_before_the_end_of_the_old_one_is_durable() -> None:
    """Else a crash brings back its identifiers, and a new message is taken for a repeat."""
    world = ClientWorld(is_durable=True)
    world.hello()
    world.server(Publish("a", b"one", 2, packet_id=5))
    world.take()
    assert world.sent() == ["PUBREC #5"]
    world.cut()
    world.hold()
    world.hello(present=False)
    world.request(Subscribe(0, [SubscriptionRequest("a", 2)]))
    assert world.sent() == []
    world.sync()
    assert world.sent() == ["SUBSCRIBE #65280 a q2"]
    world.crash()
    world.server(Publish("a", b"another", 2, packet_id=5, dup=True))
    assert world.take().payload == b"another"


def test_the_number_of_a_delivery_is_not_used_again_though_its_session_has_ended() -> None:
    """An application that keeps the numbers it has seen would pass the other message over."""
    world = ClientWorld(is_durable=True)
    world.hello()
    world.server(Publish("a", b"one", 2, packet_id=5))
    world.cut()
    world.hello(present=False)
    numbers = [world.take().delivery_id]
    world.crash()
    world.server(Publish("a", b"another", 2, packet_id=5))
    numbers.append(world.take().delivery_id)
    assert numbers == [1, 2]
