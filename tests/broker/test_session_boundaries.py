"""Every stage of a QoS 1 or 2 exchange at every boundary of a session: nothing lost, doubled, or
left over. What has to come of each is in ``boundaries``.
"""

import pytest

from holdfast.protocol.packets import Puback, Publish, Pubrec, Pubrel
from tests.broker.boundaries import (
    BOUNDARIES,
    CELLS,
    INCOMING,
    OUTGOING,
    STAGES,
    Cell,
    Incoming,
    Outgoing,
    impossible,
)
from tests.broker.boundary_scenes import (
    INCOMING_STAGES,
    LAZY_MS,
    OUTGOING_STAGES,
    Scene,
    arrive_at,
)

RECEIVING = [c for c in CELLS if isinstance(c.stage, Outgoing) and not impossible(c)]
PUBLISHING = [c for c in CELLS if isinstance(c.stage, Incoming) and not impossible(c)]


@pytest.mark.spec(
    "MQTT5-2.2.1-4",
    "MQTT5-3.1.2-4",
    "MQTT5-3.1.2-5",
    "MQTT5-3.1.2-6",
    "MQTT5-3.1.2-8",
    "MQTT5-3.1.2-23",
    "MQTT5-3.1.3-9",
    "MQTT5-3.1.4-3",
    "MQTT5-3.1.4-4",
    "MQTT5-3.2.2-2",
    "MQTT5-3.2.2-3",
    "MQTT5-3.3.1-1",
    "MQTT5-4.1.0-2",
    "MQTT5-4.3.2-3",
    "MQTT5-4.3.3-3",
    "MQTT5-4.3.3-5",
    "MQTT5-4.3.3-6",
    "MQTT5-4.4.0-1",
    "MQTT5-4.5.0-1",
    "MQTT311-3.1.2-4",
    "MQTT311-3.1.2-5",
    "MQTT311-3.1.2-6",
    "MQTT311-3.1.2-7",
    "MQTT311-3.1.2-8",
    "MQTT311-3.1.4-2",
    "MQTT311-3.1.4-3",
    "MQTT311-3.2.2-1",
    "MQTT311-3.2.2-2",
    "MQTT311-3.2.2-3",
    "MQTT311-3.3.1-1",
    "MQTT311-4.3.2-1",
    "MQTT311-4.3.3-1",
    "MQTT311-4.4.0-1",
    "MQTT311-4.5.0-1",
)
@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.id) for cell in RECEIVING])
def test_a_session_that_receives(cell: Cell) -> None:
    scene = arrive_at(cell)
    number = scene.number
    assert isinstance(cell.stage, Outgoing)
    assert once_each(scene.application.had) == cell.stage.had
    scene.pass_boundary()
    present = "" if cell.boundary.is_ended else " present"
    assert scene.look() == [f"CONNACK 0x00{present}", *cell.lines]
    check_leftovers(scene, number)
    scene.complete()
    had = scene.application.had if scene.qos == 2 else once_each(scene.application.had)
    assert had == cell.delivered
    check_what_follows(scene)
    check_the_end(scene, "!" * cell.wills)


@pytest.mark.spec(
    "MQTT5-3.14.4-3",
    "MQTT5-4.3.2-4",
    "MQTT5-4.3.2-5",
    "MQTT5-4.3.3-8",
    "MQTT5-4.3.3-10",
    "MQTT5-4.3.3-11",
    "MQTT5-4.3.3-12",
    "MQTT311-4.3.2-2",
    "MQTT311-4.3.3-2",
)
@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.id) for cell in PUBLISHING])
def test_a_session_that_publishes(cell: Cell) -> None:
    scene = arrive_at(cell)
    number = scene.number
    scene.pass_boundary()
    assert isinstance(cell.stage, Incoming)
    present = "" if cell.boundary.is_ended else " present"
    assert scene.look() == [f"CONNACK 0x00{present}"]
    check_leftovers(scene, number)
    answer = "PUBACK #1" if scene.qos == 1 else "PUBREC #1"
    if not cell.boundary.is_ended:
        if cell.stage.sends == "PUBLISH":
            scene.client.publish("t", "a", scene.qos, 1, dup=True)
            assert scene.look() == [answer]
        if scene.qos == 2 and cell.stage.sends:
            scene.client.send(Pubrel(1))
            assert scene.look() == ["PUBCOMP #1"]
    elif scene.qos == 2:
        # The identifier went with the session.
        scene.client.send(Pubrel(1))
        assert scene.look() == ["PUBCOMP #1" if cell.back == 4 else "PUBCOMP #1 0x92"]
    # Another message under the same identifier: new, whatever was before.
    scene.client.publish("t", "b", scene.qos, 1)
    assert scene.look() == [answer]
    if scene.qos == 2:
        scene.client.send(Pubrel(1))
        assert scene.look() == ["PUBCOMP #1"]
    check_what_follows(scene)
    check_the_end(scene, cell.copies + "b" + "!" * cell.wills)


def test_the_table_is_complete() -> None:
    """Each stage meets each boundary from both versions, or it is said why it cannot."""
    tested = [cell.id for cell in [*RECEIVING, *PUBLISHING]]
    expected = {
        (stage, boundary, version)
        for stage in STAGES
        for boundary in BOUNDARIES
        for version in (4, 5)
    }
    assert set(CELLS) == expected and len(CELLS) == len(expected)
    assert {cell.id for cell in CELLS if not impossible(cell)} == set(tested)
    # 3.1.1 cannot ask for an end by DISCONNECT; the absent sessions are not online.
    absent = [stage for stage in OUTGOING if stage.is_absent]
    from_5 = ["takeover_by_4", "takeover_by_5", "takeover_lost", "takeover_crash", "disconnect_0"]
    assert len(CELLS) - len(tested) == len(STAGES) + len(absent) * (2 * len(from_5) - 1)


@pytest.mark.parametrize(
    ("stages", "scenes"), [(OUTGOING, OUTGOING_STAGES), (INCOMING, INCOMING_STAGES)]
)
def test_every_stage_is_reached(
    stages: list[Outgoing] | list[Incoming], scenes: dict[str, object]
) -> None:
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    assert {name[3:] for name in names} == set(scenes)


def once_each(messages: str) -> str:
    """What QoS 1 promises: each message, in the order in which each came first."""
    return "".join(dict.fromkeys(messages))


def check_leftovers(scene: Scene, number: int) -> None:
    """A session that ended has left nothing, one that did not is the same."""
    assert scene.is_in_store(number) == (not scene.cell.boundary.is_ended)
    assert (scene.number == number) == (not scene.cell.boundary.is_ended)


def check_what_follows(scene: Scene) -> None:
    """The subscriptions are there or not, and a new message gets an identifier that is free: the
    first one, in a session that has just begun.
    """
    cell = scene.cell
    topic = "t" if isinstance(cell.stage, Outgoing) else "own"
    scene.publish("x", topic=topic, qos=1)
    came = scene.client.packets()
    assert len(came) == (1 if cell.is_subscribed else 0)
    for packet in came:
        assert isinstance(packet, Publish) and packet.payload == b"x" and not packet.dup
        scene.client.send(Puback(packet.packet_id))
    scene.client.subscribe("fresh", 2, 77)
    suback, *rest = scene.look()
    assert (suback, rest) == ("SUBACK #77 0x02", [])
    scene.publish("y", topic="fresh", qos=2)
    (publish,) = scene.client.packets()
    assert isinstance(publish, Publish) and publish.payload == b"y" and not publish.dup
    assert publish.packet_id == 1 or not cell.boundary.is_ended
    scene.client.send(Pubrec(publish.packet_id))
    scene.complete()


def check_the_end(scene: Scene, observed: str) -> None:
    """All is settled: nothing comes a second time, the observer has what it has to have, and the
    disk holds no message.
    """
    cell, world = scene.cell, scene.world
    world.advance(LAZY_MS)
    world.crash()
    world.restart()
    is_clean_4 = cell.back == 4 and cell.boundary.events[-1] == "connect clean"
    scene.client = scene.connect(cell.back)
    assert scene.look() == [f"CONNACK 0x00{'' if is_clean_4 else ' present'}"]
    assert sorted(scene.observe()) == sorted(observed)
    assert scene.store.entries == {}
    assert set(scene.store.retained) == ({"t"} if "retained" in cell.stage.name else set())
    assert all(state.in_flight == state.received == b"" for state in scene.store.states.values())
