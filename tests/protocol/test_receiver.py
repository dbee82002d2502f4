"""The receiving half of QoS 2 against a plain model, and the receive window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.receiver import Qos2Receiver

steps = st.lists(st.tuples(st.sampled_from(["publish", "release", "restore"]), st.integers(1, 4)))


@given(steps)
@pytest.mark.spec(
    "MQTT5-4.3.3-10", "MQTT5-4.3.3-12", "MQTT311-4.3.3-2", "MQTT5-4.3.3-8", "MQTT5-4.3.3-11"
)
def test_a_publish_is_new_exactly_once_until_its_pubrel(steps: list[tuple[str, int]]) -> None:
    receiver = Qos2Receiver()
    held: set[int] = set()
    for kind, packet_id in steps:
        if kind == "publish":
            assert receiver.publish(packet_id) == (packet_id not in held)
            held.add(packet_id)
        elif kind == "release":
            assert receiver.release(packet_id) == (packet_id in held)
            held.discard(packet_id)
        else:
            receiver = Qos2Receiver(receiver.packed())
        assert receiver.held == sorted(held)
        assert len(receiver) == len(held)
        assert receiver.holds(packet_id) == (packet_id in held)


@given(st.sets(st.integers(1, 65_535)))
def test_the_held_identifiers_come_back_from_a_store(held: set[int]) -> None:
    receiver = Qos2Receiver()
    for packet_id in held:
        assert receiver.publish(packet_id)
    packed = receiver.packed()
    assert packed == b"".join(packet_id.to_bytes(2, "big") for packet_id in sorted(held))
    assert Qos2Receiver(packed).held == sorted(held)


@pytest.mark.spec("MQTT5-4.3.3-9")
def test_a_refused_publish_is_new_again() -> None:
    receiver = Qos2Receiver()
    assert receiver.publish(7)
    assert receiver.release(7)  # PUBREC of 0x80 or above
    assert receiver.publish(7)


@pytest.mark.parametrize("packed", [b"\x00", b"\x00\x01\x02"])
def test_half_an_identifier_is_no_state(packed: bytes) -> None:
    with pytest.raises(AssertionError):
        Qos2Receiver(packed)
