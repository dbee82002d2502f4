"""What the router and the shared groups have in common: sending to sessions, asking for reads."""

from typing import Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.connection import Connection
from holdfast.broker.counters import Counters
from holdfast.broker.log_tail import LogTail
from holdfast.broker.outgoing import Outgoing
from holdfast.broker.queue import LogReader
from holdfast.broker.session import Session, Subscription
from holdfast.broker.shared_group import Group
from holdfast.message import Message
from holdfast.store.records import ReadRequest

FEED: Final = 0  # a read of what comes next, or of what is sent again
DROP: Final = 1  # a read of what comes next, and is to be dropped
COUNT: Final = 2  # no read: the store counts what comes next


@final
class ReadWanted:
    """A read that the driver carries out and brings back: a slice, or the entries of ``lsns``.

    It is for ``reader`` as long as its ``epoch`` lasts. With the purpose COUNT it brings back a
    LogCount.
    """

    def __init__(
        self, reader: LogReader, epoch: int, request: ReadRequest | None, lsns: list[int]
    ) -> None:
        self.reader = reader
        self.epoch = epoch
        self.request = request
        self.lsns = lsns
        self.purpose = FEED


@final
class Delivery:
    """Sends messages to sessions, and lists those that may take more and the reads wanted."""

    def __init__(self, commits: Commits, counters: Counters) -> None:
        self.tail = LogTail(commits.next_lsn)
        self.reads: list[ReadWanted] = []
        self.pumps: list[Session] = []
        # Sessions that may need of the log what no filter in the tree stands for: with messages
        # of groups in flight, or with subscriptions that have ended.
        self.unfiled: dict[int, Session] = {}
        self.now_ms = 0
        self._commits = commits
        self._counters = counters

    def want_pump(self, session: Session) -> None:
        """Look after this session at the end of the turn: it may take more now."""
        if not session.is_pump_listed:
            session.is_pump_listed = True
            self.pumps.append(session)

    def want_pump_of(self, reader: LogReader) -> None:
        """Look after this session or group at the end of the turn, if it is online."""
        if isinstance(reader, Session):
            if reader.connection is not None:
                self.want_pump(reader)
        else:
            assert isinstance(reader, Group)
            if reader.online:
                self.want_pump(reader.online[0].session)

    def may_have(self, connection: Connection, message: Message) -> bool:
        """Whether the client may be given a message; one that it may not is counted."""
        permissions = connection.permissions
        if permissions is None or permissions.may_receive(message.topic):
            return True
        self._counters.denied_deliveries += 1
        return False

    def deliver(
        self,
        session: Session,
        connection: Connection,
        subscription: Subscription | None,
        outgoing: Outgoing,
        lsn: int,
        qos: int,
        retain: bool,
        wait: int,
    ) -> int:
        """Send a QoS 1 or 2 message under a new packet identifier, which is returned.

        Durable before it leaves, for a durable session: the identifier, with the message. 0 if
        the client's Maximum Packet Size does not allow it: the message is then treated as
        delivered. Source: [MQTT-3.1.2-25].
        """
        packet_id = session.sender.publish(lsn, qos)
        data = outgoing.packet_to(connection, subscription, qos, retain, packet_id)
        if connection.is_too_large(data):
            del session.sender.in_flight[packet_id]
            self._counters.too_large += 1
            return 0
        if session.is_durable:
            self._commits.touch(session)
            wait = self._commits.filling
        connection.send(data, wait)
        self._counters.sent += 1
        self._counters.sent_payload_bytes += len(outgoing.message.payload)
        return packet_id

    def send(self, connection: Connection, message: Message, data: bytes, wait: int) -> bool:
        """Send a QoS 0 message: False if the client's Maximum Packet Size does not allow it."""
        if connection.is_too_large(data):
            self._counters.too_large += 1
            return False
        connection.send(data, wait)
        self._counters.sent += 1
        self._counters.sent_payload_bytes += len(message.payload)
        return True


def takes_more(session: Session, connection: Connection) -> bool:
    """Whether a session online can be sent one more QoS 1 or 2 message now."""
    return session.in_flight_room > 0 and connection.has_room and session.resend is None
