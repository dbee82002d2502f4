"""PUBACK, PUBREC, PUBREL and PUBCOMP from a client. Source: MQTT 5.0 §4.3, 3.1.1 §4.3."""

from typing import final

from holdfast.broker.commits import Commits
from holdfast.broker.connection import Connection
from holdfast.broker.delivery import Delivery
from holdfast.broker.groups import Groups
from holdfast.protocol.encode import encode, encode_pubcomp, encode_pubrel
from holdfast.protocol.packets import MQTT_5_0, PUBACK, PUBCOMP, PUBREC, Pubcomp, Pubrel
from holdfast.protocol.reason_codes import PACKET_IDENTIFIER_NOT_FOUND


@final
class Acknowledging:
    """Takes the acknowledgements of all connections, in both directions."""

    def __init__(self, commits: Commits, delivery: Delivery, groups: Groups) -> None:
        self._commits = commits
        self._delivery = delivery
        self._groups = groups

    def take(
        self, connection: Connection, packet_type: int, packet_id: int, is_success: bool
    ) -> None:
        """Take PUBACK, PUBREC, PUBREL or PUBCOMP; is_success matters for PUBREC alone."""
        session = connection.session
        assert session is not None
        commits = self._commits
        if packet_type == PUBACK:
            if session.sender.puback(packet_id):
                if session.is_durable:
                    commits.touch_lazily(session)
                if session.group_of is not None:
                    self._groups.acknowledged(session, packet_id)
        elif packet_type == PUBREC:
            is_known = session.sender.pubrec(packet_id, is_success)
            if session.group_of is not None:
                self._groups.acknowledged(session, packet_id)
            if is_known:
                # PUBREL waits for the fact that PUBREC came to be durable.
                wait = 0
                if session.is_durable:
                    commits.touch(session)
                    wait = commits.filling
                connection.answer(encode_pubrel(packet_id), wait)
                return
            if is_success:
                if connection.is_v5:
                    answer = encode(Pubrel(packet_id, PACKET_IDENTIFIER_NOT_FOUND), MQTT_5_0)
                    connection.answer(answer, 0)
                else:
                    connection.answer(encode_pubrel(packet_id), 0)
                return
            if session.is_durable:
                commits.touch_lazily(session)
        elif packet_type == PUBCOMP:
            if session.sender.pubcomp(packet_id) and session.is_durable:
                commits.touch_lazily(session)
        else:
            self._pubrel(connection, packet_id)
            return
        if (
            session.is_behind
            or session.groups is not None
            or session.resend is not None
            or session.retained_waiting is not None
        ):
            self._delivery.want_pump(session)

    def _pubrel(self, connection: Connection, packet_id: int) -> None:
        """PUBCOMP waits for the removal of the identifier to be durable."""
        session = connection.session
        assert session is not None
        was_held = session.received.release(packet_id)
        # One that an earlier connection opened does not count here [MQTT 5.0 §4.9].
        if was_held and connection.received_open > 0:
            connection.received_open -= 1
        wait = 0
        if session.is_durable:
            if was_held:
                self._commits.touch(session)
            # The removal that an earlier PUBREL began may still be on its way to the disk.
            wait = self._commits.filling
        # After a resume a repeated PUBREL is nothing unusual: its PUBCOMP may have been lost. There
        # are clients (MQTT.js) that tell their user of a failed publish for 0x92.
        if was_held or connection.is_resumed or not connection.is_v5:
            connection.answer(encode_pubcomp(packet_id), wait)
        else:
            answer = encode(Pubcomp(packet_id, PACKET_IDENTIFIER_NOT_FOUND), MQTT_5_0)
            connection.answer(answer, wait)
