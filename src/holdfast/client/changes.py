"""What a turn of the client changes in the outbox file, and what waits until that is durable."""

from typing import final

from holdfast.client.incoming import ReceivedMessage
from holdfast.client.outgoing import Outgoing
from holdfast.client.records import MarkSent, Record


@final
class Changes:
    """The records of the next commit, in order, and what their commit lets go on.

    ``is_urgent`` says that something waits for it: what does not can be written with the next.
    ``connection`` is the number of the connection that ``sends`` belong to. ``kept_from``, if it
    is not 0, says that the file has no message with a smaller ``seq`` when this is durable, and
    ``sent_below`` that messages before that ``seq`` may be sent then.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_urgent = False
        self.stored: list[Outgoing] = []  # messages to be sent
        self.sends: list[bytes] = []  # PUBREL and PUBCOMP
        self.marked: list[ReceivedMessage] = []  # PUBREC is for these
        self.arrived: list[ReceivedMessage] = []  # to be handed to the application
        self.connection = 0
        self.is_clearing = False  # a session has ended: nothing is sent in the next one before
        self.kept_from = 0
        self.sent_below = 0

    def take(self) -> "Changes":
        """What is there, as one batch to be made durable; here it begins anew."""
        batch = Changes()
        batch.records, self.records = self.records, []
        batch.is_urgent, self.is_urgent = self.is_urgent, False
        batch.stored, self.stored = self.stored, []
        batch.sends, self.sends = self.sends, []
        batch.marked, self.marked = self.marked, []
        batch.arrived, self.arrived = self.arrived, []
        batch.connection = self.connection
        batch.is_clearing, self.is_clearing = self.is_clearing, False
        batch.kept_from, self.kept_from = self.kept_from, 0
        if self.sent_below != 0:
            batch.sent_below, self.sent_below = self.sent_below, 0
            batch.records.append(MarkSent(batch.sent_below))
        return batch

    def send(self, packet: bytes, connection: int) -> None:
        """Send this over the connection when all is durable that came before."""
        if self.connection != connection:
            self.sends.clear()
            self.connection = connection
        self.sends.append(packet)
        self.is_urgent = True
