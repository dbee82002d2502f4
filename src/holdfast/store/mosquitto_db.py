"""Reading Mosquitto's ``mosquitto.db``, so that its users can move with all that waits for them.

The file is what Mosquitto 1.6 to 2.x writes (versions 5 and 6 of its format): a head, then chunks,
each a type and a length, a part of fixed size and names behind that. Numbers of 64 bits are in the
order of the machine that wrote them, which is taken to be little-endian as nearly all are; the
others are big-endian.
"""

import struct
from dataclasses import dataclass, field
from typing import Final, final

from holdfast.errors import ProtocolError, StoreCorrupt, StoreError
from holdfast.message import NEVER, Message, Properties
from holdfast.protocol.packets import PUBLISH
from holdfast.protocol.properties import read_properties
from holdfast.protocol.topics import check_filter, check_topic
from holdfast.protocol.wire import Reader

__all__ = ["Client", "Delivery", "MosquittoDb", "Subscription", "is_mosquitto", "read_mosquitto"]

MAGIC: Final = b"\x00\xb5\x00mosquitto db"
VERSIONS: Final = (5, 6)
NEVER_ENDS: Final = 0xFFFF_FFFF  # a Session Expiry Interval

_HEAD: Final = struct.Struct(">II")  # behind the magic: a checksum that is not used, the version
_CHUNK: Final = struct.Struct(">II")  # type, length
_CONFIG, _MESSAGE, _DELIVERY, _RETAINED, _SUBSCRIPTION, _CLIENT = range(1, 7)
_NAMES: Final = {
    _CONFIG: "configuration",
    _MESSAGE: "message",
    _DELIVERY: "queued message",
    _RETAINED: "retained message",
    _SUBSCRIPTION: "subscription",
    _CLIENT: "client",
}

# The parts of fixed size, as the machine pads them; a "<Q" first, since 64 bits are not swapped.
_CONFIG_BYTES: Final = 16
_ID_BYTES_AT: Final = 9
_MESSAGE_BYTES: Final = 32
_DELIVERY_BYTES: Final = 16
_RETAINED_BYTES: Final = 8
_SUBSCRIPTION_BYTES: Final = 12
_CLIENT_BYTES: Final = {5: 16, 6: 24}

_INCOMING: Final = 0  # the direction of a delivery; 1 is outgoing
_NO_LOCAL_AND_AS_PUBLISHED: Final = 0x0C  # of the option byte of SUBSCRIBE
_STATE_MAX: Final = 11

# Where the delivery of a message stands.
WAIT_FOR_PUBACK: Final = 3
WAIT_FOR_PUBREC: Final = 5
RESEND_PUBREL: Final = 6
WAIT_FOR_PUBREL: Final = 7
WAIT_FOR_PUBCOMP: Final = 9
SEND_PUBREC: Final = 10


@dataclass(slots=True)
class Delivery:
    """A message on its way to or from a client. ``message`` is of its own, with its QoS."""

    message: Message
    packet_id: int
    state: int
    is_incoming: bool
    identifiers: tuple[int, ...]


@dataclass(slots=True)
class Subscription:
    """One subscription; ``options`` as in SUBSCRIBE."""

    topic_filter: str
    options: int
    identifier: int


@dataclass(slots=True)
class Client:
    """A persistent session. ``ends_at_s`` is Unix time, 0 where it is not known."""

    expiry_s: int
    ends_at_s: int
    subscriptions: list[Subscription] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)


@dataclass(slots=True)
class MosquittoDb:
    """What the file holds. ``missing`` counts deliveries whose message it does not."""

    clients: dict[str, Client] = field(default_factory=dict)
    retained: list[Message] = field(default_factory=list)
    missing: int = 0


def is_mosquitto(start: bytes) -> bool:
    """Whether a file that begins so is a ``mosquitto.db``."""
    return start.startswith(MAGIC)


def read_mosquitto(name: str, data: bytes) -> MosquittoDb:
    """Everything in a file, which errors call ``name``.

    Raises StoreCorrupt if it is damaged, StoreError for a version that is not known.
    """
    return _File(name, data).read()


@final
class _File:
    def __init__(self, name: str, data: bytes) -> None:
        self._name = name
        self._data = data
        self._version = 0
        self._messages: dict[int, Message] = {}
        self._found = MosquittoDb()
        # What refers to others waits for all of them: nothing says in which order chunks come.
        self._deliveries: list[_Chunk] = []
        self._retained: list[int] = []
        self._subscriptions: list[_Chunk] = []

    def read(self) -> MosquittoDb:
        at = len(MAGIC)
        if len(self._data) < at + _HEAD.size:
            raise StoreCorrupt(
                f"{self._name}: expected the head of a mosquitto.db, it is cut short"
            )
        _, self._version = _HEAD.unpack_from(self._data, at)
        if self._version not in VERSIONS:
            raise StoreError(
                f"{self._name}: expected version 5 or 6 of mosquitto.db (Mosquitto 1.6 to 2.x), "
                f"found {self._version}; to start and stop Mosquitto 2 brings an older one forward"
            )
        at += _HEAD.size
        while at < len(self._data):
            at = self._read_chunk(at)
        for chunk in self._subscriptions:
            self._read_subscription(chunk)
        for chunk in self._deliveries:
            self._read_delivery(chunk)
        for number in self._retained:
            message = self._messages.get(number)
            if message is None:
                self._found.missing += 1
            else:
                self._found.retained.append(message)
        return self._found

    def _read_chunk(self, at: int) -> int:
        """Take the chunk that begins here, and return where the next one does."""
        where = f"{self._name}: at byte {at}"
        if len(self._data) - at < _CHUNK.size:
            raise StoreCorrupt(f"{where}: expected a chunk, the file is cut short")
        kind: int
        length: int
        kind, length = _CHUNK.unpack_from(self._data, at)
        start = at + _CHUNK.size
        if kind not in _NAMES:
            raise StoreCorrupt(f"{where}: expected a chunk of a type from 1 to 6, found {kind}")
        if length > len(self._data) - start:
            raise StoreCorrupt(
                f"{where}: expected {length} bytes of a {_NAMES[kind]}, the file is cut short"
            )
        chunk = _Chunk(f"{where}, a {_NAMES[kind]}", self._data[start : start + length])
        match kind:
            case 1:
                if chunk.fixed(_CONFIG_BYTES)[_ID_BYTES_AT] != 8:
                    raise chunk.fault("expected numbers of 8 bytes")
            case 2:
                self._read_message(chunk)
            case 3:
                self._deliveries.append(chunk)
            case 4:
                (number,) = struct.unpack("<Q", chunk.fixed(_RETAINED_BYTES))
                self._retained.append(number)
            case 5:
                self._subscriptions.append(chunk)
            case _:
                self._read_client(chunk)
        return start + length

    def _read_message(self, chunk: "_Chunk") -> None:
        fixed = chunk.fixed(_MESSAGE_BYTES)
        number, expires_at_s = struct.unpack_from("<Qq", fixed)
        payload_bytes, _, id_bytes, user_bytes, topic_bytes, _, qos, retain = struct.unpack_from(
            ">IHHHHHBB", fixed, 16
        )
        publisher = chunk.text(id_bytes)
        chunk.take(user_bytes)
        topic = chunk.text(topic_bytes)
        payload = chunk.take(payload_bytes)
        properties = chunk.properties()
        if qos > 2 or expires_at_s < 0:
            raise chunk.fault(f"expected a QoS up to 2 and a time, found {qos} and {expires_at_s}")
        try:
            check_topic(topic)
        except ProtocolError as error:
            raise chunk.fault(error.detail) from None
        self._messages[number] = Message(
            topic,
            payload,
            qos,
            retain != 0,
            _forwarded(properties),
            expires_at_s * 1000 if expires_at_s else NEVER,
            publisher,
        )

    def _read_client(self, chunk: "_Chunk") -> None:
        fixed = chunk.fixed(_CLIENT_BYTES[self._version])
        (ends_at_s,) = struct.unpack_from("<q", fixed)
        expiry_s, _, id_bytes = struct.unpack_from(">IHH", fixed, 8)
        client_id = chunk.text(id_bytes)
        if not client_id or ends_at_s < 0:
            raise chunk.fault("expected a client identifier and a time")
        if client_id in self._found.clients:
            raise chunk.fault(f"the client {client_id!r} came before")
        # Only sessions that are to be kept are in the file; 1.6 wrote 0 for those of 3.1.1.
        self._found.clients[client_id] = Client(expiry_s or NEVER_ENDS, ends_at_s)

    def _read_subscription(self, chunk: "_Chunk") -> None:
        identifier, id_bytes, filter_bytes, qos, options = struct.unpack_from(
            ">IHHBB", chunk.fixed(_SUBSCRIPTION_BYTES)
        )
        client = self._client(chunk, chunk.text(id_bytes))
        topic_filter = chunk.text(filter_bytes)
        try:
            check_filter(topic_filter)
        except ProtocolError as error:
            raise chunk.fault(error.detail) from None
        if qos > 2 or identifier > 268_435_455:
            raise chunk.fault(f"expected a QoS up to 2 and an identifier, found {qos}")
        options = qos | options & _NO_LOCAL_AND_AS_PUBLISHED
        client.subscriptions.append(Subscription(topic_filter, options, identifier))

    def _read_delivery(self, chunk: "_Chunk") -> None:
        fixed = chunk.fixed(_DELIVERY_BYTES)
        (number,) = struct.unpack_from("<Q", fixed)
        packet_id, id_bytes, qos, state, retain_dup, direction = struct.unpack_from(
            ">HHBBBB", fixed, 8
        )
        client = self._client(chunk, chunk.text(id_bytes))
        properties = chunk.properties()
        if qos > 2 or state > _STATE_MAX or direction > 1:
            raise chunk.fault(
                f"the state {state} of QoS {qos} and direction {direction} is unknown"
            )
        stored = self._messages.get(number)
        if stored is None:
            self._found.missing += 1
            return
        message = Message(
            stored.topic,
            stored.payload,
            qos,
            retain_dup & 0xF0 != 0 if direction != _INCOMING else stored.retain,
            stored.properties,
            stored.expires_at_ms,
            stored.publisher,
        )
        identifiers = () if properties is None else tuple(properties.subscription_identifiers)
        client.deliveries.append(
            Delivery(message, packet_id, state, direction == _INCOMING, identifiers)
        )

    def _client(self, chunk: "_Chunk", client_id: str) -> Client:
        client = self._found.clients.get(client_id)
        if client is None:
            raise chunk.fault(f"there is no client {client_id!r} in the file")
        return client


@final
class _Chunk:
    """The content of a chunk, taken from its front; it never reads beyond its end."""

    def __init__(self, where: str, data: bytes) -> None:
        self._where = where
        self._data = data
        self._at = 0

    def fault(self, detail: str) -> StoreCorrupt:
        return StoreCorrupt(f"{self._where}: {detail}")

    def take(self, size: int) -> bytes:
        if size > len(self._data) - self._at:
            raise self.fault(f"expected {size} bytes more than there are")
        self._at += size
        return self._data[self._at - size : self._at]

    def fixed(self, size: int) -> bytes:
        """The part of fixed size, which is the first."""
        return self.take(size)

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.fault("expected a name in UTF-8") from None

    def properties(self) -> Properties | None:
        """The properties that the rest of the chunk is."""
        if self._at == len(self._data):
            return None
        reader = Reader(self._data, self._at, len(self._data), "the chunk")
        try:
            properties = read_properties(reader, PUBLISH)
        except ProtocolError as error:
            raise self.fault(error.detail) from None
        if reader.left != 0:
            raise self.fault("expected nothing behind the properties")
        return properties


def _forwarded(properties: Properties | None) -> Properties | None:
    """What of a PUBLISH's properties goes with the message."""
    if properties is None:
        return None
    forwarded = Properties()
    forwarded.payload_format_indicator = properties.payload_format_indicator
    forwarded.content_type = properties.content_type
    forwarded.response_topic = properties.response_topic
    forwarded.correlation_data = properties.correlation_data
    forwarded.user_properties = properties.user_properties
    is_empty = (
        forwarded.payload_format_indicator is None
        and forwarded.content_type is None
        and forwarded.response_topic is None
        and forwarded.correlation_data is None
        and not forwarded.user_properties
    )
    return None if is_empty else forwarded
