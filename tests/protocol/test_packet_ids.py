"""Packet Identifiers: never 0, never one in use, and none again soon."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.packet_ids import PACKET_ID_MAX, PacketIds


@pytest.mark.spec("MQTT5-2.2.1-3", "MQTT5-2.2.1-4", "MQTT311-2.3.1-1", "MQTT311-2.3.1-2")
@given(st.lists(st.integers(0, 3), max_size=200))
def test_only_free_identifiers_are_given_out(steps: list[int]) -> None:
    ids = PacketIds()
    used: list[int] = []
    for step in steps:
        if step == 0 and used:
            assert ids.release(used.pop(0))
        elif step == 1 and used:
            assert ids.release(used.pop())
        else:
            packet_id = ids.allocate()
            assert 0 < packet_id <= PACKET_ID_MAX
            assert packet_id not in used
            used.append(packet_id)
        assert len(ids) == len(used)
        assert all(packet_id in ids for packet_id in used)


@pytest.mark.spec("MQTT5-2.2.1-3", "MQTT5-2.2.1-4", "MQTT311-2.3.1-2", "MQTT311-2.3.1-4")
def test_all_65535_can_be_in_use_and_then_none_is_left() -> None:
    ids = PacketIds()
    assert sorted(ids.allocate() for _ in range(PACKET_ID_MAX)) == list(range(1, 65_536))
    assert ids.allocate() == 0
    assert ids.release(777)
    assert ids.allocate() == 777
    assert ids.allocate() == 0


def test_a_released_identifier_comes_back_only_after_the_round() -> None:
    ids = PacketIds()
    seen = set()
    for _ in range(PACKET_ID_MAX):
        packet_id = ids.allocate()
        assert packet_id not in seen
        seen.add(packet_id)
        ids.release(packet_id)
    assert ids.allocate() == 1


@pytest.mark.spec("MQTT311-2.3.1-3")
def test_restored_identifiers_are_in_use_until_they_are_released() -> None:
    ids = PacketIds()
    assert ids.take(2)
    assert not ids.take(2)
    assert [ids.allocate() for _ in range(3)] == [1, 3, 4]
    assert ids.release(2)
    assert not ids.release(2)
    assert 2 not in ids


@pytest.mark.parametrize("packet_id", [0, -1, 65_536])
def test_what_is_no_identifier_cannot_be_taken(packet_id: int) -> None:
    with pytest.raises(AssertionError):
        PacketIds().take(packet_id)


def test_nothing_unknown_can_be_released() -> None:
    ids = PacketIds()
    assert not ids.release(1)
    assert not ids.release(0)
    assert 0 not in ids
