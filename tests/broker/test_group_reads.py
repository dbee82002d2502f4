"""What groups that are behind ask of the store is bounded, however many one client is in."""

from holdfast.broker.groups import GROUP_READS_MAX
from holdfast.broker.shared_group import Group
from holdfast.protocol.packets import Puback, Subscribe, SubscriptionRequest
from tests.broker.world import Client, World

GROUPS = 40
BIG = b"z" * 900_000  # three of these, committed, push everything older out of the log's tail


def behind(world: World, receive_maximum: int) -> Client:
    """A client in many groups, whose messages are no longer in memory."""
    client = world.hello("c", receive_maximum=receive_maximum)
    client.send(
        Subscribe(1, [SubscriptionRequest(f"$share/g{number}/t", 1) for number in range(GROUPS)])
    )
    client.disconnect()
    keeper = world.hello("keeper", expiry_s=0)
    durable = world.hello("durable")
    durable.subscribe("big", 1)
    durable.disconnect()
    keeper.publish("t", "m", 1, 1)
    for number in range(3):
        keeper.publish("big", BIG, 1, 2 + number)
    return world.connect("c", receive_maximum=receive_maximum)


def reads_of_groups(world: World) -> int:
    return sum(isinstance(wanted.reader, Group) for wanted in world.disk.reads)


def test_so_many_groups_read_at_a_time() -> None:
    world = World()
    world.disk.hold_reads()
    client = behind(world, 65_535)
    assert reads_of_groups(world) == GROUP_READS_MAX
    while world.disk.reads:
        world.disk.answer_reads()
        assert reads_of_groups(world) <= GROUP_READS_MAX
    assert len(client.publishes()) == GROUPS


def test_groups_that_have_no_room_any_longer_do_not_read() -> None:
    """One acknowledgement makes room for one message: not every group reads for it."""
    world = World()
    client = behind(world, 1)
    for _ in range(GROUPS):
        (message,) = client.publishes()
        before = world.disk.reads_done
        client.send(Puback(message.packet_id))
        assert world.disk.reads_done - before <= 2 * GROUP_READS_MAX
    assert client.publishes() == []
    assert world.disk.reads == []


def test_a_group_that_ends_while_it_waits_is_in_nobodys_way() -> None:
    world = World()
    world.disk.hold_reads()
    client = behind(world, 65_535)
    for number in range(0, GROUPS, 2):
        client.unsubscribe(f"$share/g{number}/t", 2)
    world.disk.release()
    assert len(client.publishes()) == GROUPS // 2
