"""The sending half: identifiers, stages and what answers what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.sender import PACKET_ID_MAX, RELEASED, Sender


@given(st.lists(st.tuples(st.sampled_from(["publish", "end"]), st.integers(0, 3))))
@pytest.mark.spec("MQTT5-2.2.1-4", "MQTT311-2.3.1-4", "MQTT5-4.3.2-1", "MQTT5-4.3.3-1")
def test_an_identifier_is_given_out_only_while_it_is_free(steps: list[tuple[str, int]]) -> None:
    sender = Sender()
    used: list[int] = []
    for action, number in steps:
        if action == "publish":
            packet_id = sender.publish(number, 1)
            assert 1 <= packet_id <= PACKET_ID_MAX
            assert packet_id not in used
            used.append(packet_id)
        elif used:
            assert sender.puback(used.pop(number % len(used)))
    assert list(sender.in_flight) == used


def test_identifiers_go_round_and_pass_over_those_in_use() -> None:
    sender = Sender()
    assert sender.publish(1, 1) == 1
    for _ in range(PACKET_ID_MAX - 1):
        sender.puback(sender.publish(2, 1))
    assert sender.publish(3, 1) == 2


@pytest.mark.spec("MQTT5-4.3.2-3", "MQTT311-4.3.2-1")
def test_a_puback_ends_qos_1_and_nothing_else() -> None:
    sender = Sender()
    one, two = sender.publish(10, 1), sender.publish(11, 2)
    assert not sender.puback(two)
    assert not sender.puback(99)
    assert sender.puback(one)
    assert not sender.puback(one)
    assert list(sender.in_flight) == [two]


@pytest.mark.spec("MQTT5-4.3.3-4", "MQTT5-4.3.3-5", "MQTT5-4.3.3-6", "MQTT311-4.3.3-1")
def test_qos_2_goes_through_its_stages_and_lets_the_message_go_at_pubrec() -> None:
    sender = Sender()
    packet_id = sender.publish(10, 2)
    assert sender.reference_min() == 10
    assert not sender.pubcomp(packet_id)
    assert sender.pubrec(packet_id, True)
    assert sender.pubrec(packet_id, True)  # a repeat is answered like the first
    assert sender.in_flight == {packet_id: RELEASED}
    assert sender.reference_min() == 0
    assert sender.pubcomp(packet_id)
    assert not sender.pubrec(packet_id, True)


@pytest.mark.spec("MQTT5-4.4.0-2")
def test_a_refusing_pubrec_ends_the_exchange_but_not_after_pubrel() -> None:
    sender = Sender()
    refused, released = sender.publish(10, 2), sender.publish(11, 2)
    assert not sender.pubrec(refused, False)
    assert sender.pubrec(released, True)
    assert not sender.pubrec(released, False)
    assert sender.in_flight == {released: RELEASED}


def test_an_identifier_in_flight_has_a_reference_and_may_await_puback() -> None:
    sender = Sender()
    one, two = sender.publish(10, 1), sender.publish(11, 2)
    assert sender.reference(one) == 10 and sender.reference(two) == 11
    assert sender.awaits_puback(one)
    assert not sender.awaits_puback(two)
    assert not sender.awaits_puback(99)
    assert sender.pubrec(two, True)
    assert not sender.awaits_puback(two)


def test_a_restored_sender_goes_on_behind_the_newest_identifier() -> None:
    sender = Sender()
    sender.restore({7: 4 * 20, 9: RELEASED})
    assert sender.publish(21, 1) == 10
    assert sender.reference_min() == 20
