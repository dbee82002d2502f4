"""What the client's protocol state asks the outbox file to keep, record by record.

A commit takes a list of them, in the order in which they came about, as one or not at all.
"""

from typing import final

from mypy_extensions import mypyc_attr


@mypyc_attr(acyclic=True)
class Record:
    """One change of what is kept; its class says which."""


@final
@mypyc_attr(acyclic=True)
class StoreOutgoing(Record):
    """A message that was accepted and has to go out, kept under its ``seq``.

    Numbers count from 1, only grow and are never used again. ``packed_properties`` is the encoding
    of ``holdfast.protocol``, b"" without any. ``expires_at_ms`` (0 for never) and ``queued_at_ms``
    are Unix time. With a ``qos`` of 1 or 2: QoS 0 is not kept.
    """

    def __init__(
        self,
        seq: int,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        packed_properties: bytes,
        expires_at_ms: int,
        queued_at_ms: int,
    ) -> None:
        self.seq = seq
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.packed_properties = packed_properties
        self.expires_at_ms = expires_at_ms
        self.queued_at_ms = queued_at_ms


@final
@mypyc_attr(acyclic=True)
class ReleaseOutgoing(Record):
    """PUBREC came: the message is not needed any more, and PUBREL is sent until PUBCOMP comes."""

    def __init__(self, seq: int, queued_at_ms: int = 0) -> None:
        self.seq = seq
        self.queued_at_ms = queued_at_ms


@final
@mypyc_attr(acyclic=True)
class RemoveOutgoing(Record):
    """A message is done: acknowledged, dropped or expired. It need not be there."""

    def __init__(self, seq: int) -> None:
        self.seq = seq


@final
class MarkSent(Record):
    """Messages before this number may have been sent; none has been from it on.

    It never goes back, but for another session.
    """

    def __init__(self, below_seq: int) -> None:
        self.below_seq = below_seq


@final
@mypyc_attr(acyclic=True)
class HoldIncoming(Record):
    """A QoS 2 message came with this identifier, which stands for it until PUBREL comes.

    ``delivery_id`` counts from 1 and is never used again. A later record of the same
    ``packet_id`` takes the place of the earlier; ``is_handed`` says that the application has it.
    """

    def __init__(self, packet_id: int, delivery_id: int, is_handed: bool) -> None:
        self.packet_id = packet_id
        self.delivery_id = delivery_id
        self.is_handed = is_handed


@final
@mypyc_attr(acyclic=True)
class FreeIncoming(Record):
    """PUBREL came: the identifier may stand for another message. It need not be held."""

    def __init__(self, packet_id: int) -> None:
        self.packet_id = packet_id


@final
class ClearIncoming(Record):
    """The server has no session any more: no identifier is held."""

    def __init__(self) -> None:
        pass


@final
class SetNumbers(Record):
    """The numbers to go on with, where no other record tells; they never go back.

    The numbers in a StoreOutgoing and a HoldIncoming count as used without this.
    """

    def __init__(self, next_seq: int, next_delivery_id: int) -> None:
        self.next_seq = next_seq
        self.next_delivery_id = next_delivery_id


@final
class SetSession(Record):
    """The client identifier to go on with, and whether its session was begun with this outbox.

    ``sent_below``, if not 0, takes the place of what MarkSent said of another session.
    """

    def __init__(self, client_id: str, has_session: bool, sent_below: int = 0) -> None:
        self.client_id = client_id
        self.has_session = has_session
        self.sent_below = sent_below


@final
class LoadedOutgoing:
    """A message that has still to go out, or, if ``is_released``, whose PUBCOMP is awaited.

    Of a released one only ``seq`` and ``queued_at_ms`` are kept: its QoS is 2, the rest empty.
    """

    def __init__(
        self,
        seq: int,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        packed_properties: bytes,
        expires_at_ms: int,
        queued_at_ms: int,
        is_released: bool,
    ) -> None:
        self.seq = seq
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.packed_properties = packed_properties
        self.expires_at_ms = expires_at_ms
        self.queued_at_ms = queued_at_ms
        self.is_released = is_released


@final
class LoadedOutbox:
    """All that an outbox file holds: ``outgoing`` by ``seq``, ``incoming`` by packet identifier."""

    def __init__(self) -> None:
        self.client_id = ""
        self.has_session = False
        self.next_seq = 1
        self.next_delivery_id = 1
        self.sent_below = 1  # see ``MarkSent``
        self.outgoing: list[LoadedOutgoing] = []
        self.incoming: list[HoldIncoming] = []
