"""Records as JSON objects and back, for ``transfer``; docs/reference/export-format.md lists them.

Bytes that are UTF-8 are a string; else the name of the field ends in ``_base64``.
"""

import base64
import binascii
import json
from typing import Final, final

from holdfast.errors import ProtocolError, StoreCorrupt, UsageError
from holdfast.message import NEVER, Message, Properties
from holdfast.protocol.properties import pack_properties, unpack_properties
from holdfast.protocol.receiver import Qos2Receiver
from holdfast.protocol.sender import PACKET_ID_MAX, RELEASED, SENT_QOS_1, SENT_QOS_2
from holdfast.protocol.topics import check_filter, check_topic
from holdfast.store.records import (
    OPEN,
    DelayedRecord,
    GroupRecord,
    LogEntry,
    LossRecord,
    RetainedRecord,
    SessionRecord,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
    pack_gaps,
    pack_in_flight,
    pack_lsns,
    unpack_gaps,
    unpack_in_flight,
    unpack_lsns,
)

Object = dict[str, object]

NUMBER_MAX: Final = (1 << 63) - 1
_U32_MAX: Final = 0xFFFF_FFFF
_STRING_BYTES_MAX: Final = 65_535
_STAGES: Final = {SENT_QOS_1: "qos_1", SENT_QOS_2: "qos_2", RELEASED: "released"}
_STAGE_NUMBERS: Final = {name: number for number, name in _STAGES.items()}
_QOS: Final = 0x03
_NO_LOCAL: Final = 0x04
_RETAIN_AS_PUBLISHED: Final = 0x08
_RETAIN_HANDLING_SHIFT: Final = 4

# The properties that a stored message may have, by what they hold.
_NUMBERS: Final = ("payload_format_indicator", "message_expiry_interval", "will_delay_interval")
_TEXTS: Final = ("content_type", "response_topic")


def session_object(record: SessionRecord, state: StateRecord | None) -> Object:
    """A session with its state, where it has one."""
    found: Object = {
        "type": "session",
        "number": record.number,
        "client_id": record.client_id,
        "protocol_level": record.version,
        "epoch": record.epoch,
        "expiry_s": record.expiry_s,
        "disconnected_at_ms": record.disconnected_at_ms,
    }
    if record.will is not None:
        found["will"] = message_object(record.will)
    found["will_delay_s"] = record.will_delay_s
    found["will_due_ms"] = record.will_due_ms
    if state is not None:
        groups: dict[int, int] = {}
        in_flight = unpack_in_flight(state.in_flight, groups)
        found["cursor"] = state.cursor
        found["in_flight"] = [
            _in_flight_object(packet_id, value, groups.get(packet_id, 0))
            for packet_id, value in in_flight.items()
        ]
        if len(state.received) % 2:
            raise StoreCorrupt(f"the received identifiers of session {record.number} are damaged")
        found["received"] = Qos2Receiver(state.received).held
        if state.gaps:
            found["gaps"] = _gaps_object(state.gaps)
    return found


def _in_flight_object(packet_id: int, value: int, group: int) -> Object:
    found: Object = {"packet_id": packet_id, "stage": _STAGES[value & 3]}
    if value >> 2:
        found["lsn"] = value >> 2
    if group:
        found["group"] = group
    return found


def session_of(fields: "Fields") -> tuple[SessionRecord, StateRecord | None]:
    """What ``session_object`` gave."""
    number = fields.number("number", 1)
    will = fields.inner("will") if fields.has("will") else None
    record = SessionRecord(
        number,
        fields.text("client_id"),
        fields.number("protocol_level", 3, 5),
        fields.number("epoch"),
        fields.number("expiry_s", 0, _U32_MAX),
        fields.number("disconnected_at_ms"),
        None if will is None else message_of(will),
        fields.number("will_delay_s", 0, _U32_MAX),
        fields.number("will_due_ms"),
    )
    if not fields.has("cursor"):
        return record, None
    in_flight: dict[int, int] = {}
    groups: dict[int, int] = {}
    for entry in fields.inners("in_flight"):
        packet_id = entry.number("packet_id", 1, PACKET_ID_MAX)
        stage = entry.choice("stage", _STAGE_NUMBERS)
        lsn = entry.number("lsn", 1, NUMBER_MAX >> 2) if entry.has("lsn") else 0
        if packet_id in in_flight or (lsn == 0 and stage != RELEASED):
            raise entry.fault("in_flight", "each packet identifier once, with its lsn")
        in_flight[packet_id] = lsn * 4 + stage
        if entry.has("group"):
            groups[packet_id] = entry.number("group", 1, NUMBER_MAX >> 3)
        entry.end()
    received = fields.numbers("received", 1, PACKET_ID_MAX)
    packed = b"".join(packet_id.to_bytes(2, "big") for packet_id in received)
    state = StateRecord(
        number,
        fields.number("cursor", 1),
        pack_in_flight(in_flight, groups),
        packed,
        _gaps_of(fields),
    )
    return record, state


def subscription_object(record: SubscriptionRecord) -> Object:
    """A subscription, its option byte taken apart."""
    options = record.options
    found: Object = {
        "type": "subscription",
        "session": record.session,
        "topic_filter": record.topic_filter,
        "qos": options & _QOS,
        "no_local": bool(options & _NO_LOCAL),
        "retain_as_published": bool(options & _RETAIN_AS_PUBLISHED),
        "retain_handling": options >> _RETAIN_HANDLING_SHIFT,
        "from_lsn": record.from_lsn,
    }
    if record.until_lsn != OPEN:
        found["until_lsn"] = record.until_lsn
    if record.identifier:
        found["identifier"] = record.identifier
    return found


def subscription_of(fields: "Fields") -> SubscriptionRecord:
    """What ``subscription_object`` gave."""
    options = fields.number("qos", 0, 2)
    options |= _NO_LOCAL if fields.flag("no_local") else 0
    options |= _RETAIN_AS_PUBLISHED if fields.flag("retain_as_published") else 0
    options |= fields.number("retain_handling", 0, 2) << _RETAIN_HANDLING_SHIFT
    return SubscriptionRecord(
        fields.number("session", 1),
        fields.topic_filter("topic_filter"),
        fields.number("from_lsn"),
        fields.number("until_lsn", 1) if fields.has("until_lsn") else OPEN,
        options,
        fields.number("identifier", 1, 268_435_455) if fields.has("identifier") else 0,
    )


def group_object(record: GroupRecord) -> Object:
    """A shared group."""
    found: Object = {
        "type": "group",
        "number": record.number,
        "topic_filter": record.topic_filter,
        "cursor": record.cursor,
        "returned": unpack_lsns(record.returned),
    }
    if record.gaps:
        found["gaps"] = _gaps_object(record.gaps)
    return found


def group_of(fields: "Fields") -> GroupRecord:
    """What ``group_object`` gave."""
    returned = fields.numbers("returned", 1, NUMBER_MAX >> 2)
    return GroupRecord(
        fields.number("number", 1),
        fields.topic_filter("topic_filter"),
        fields.number("cursor", 1),
        pack_lsns(returned),
        _gaps_of(fields),
    )


def loss_object(record: LossRecord) -> Object:
    """What a session or group has lost."""
    return {
        "type": "loss",
        "owner": record.owner,
        "messages": record.messages,
        "bytes": record.bytes,
        "at_ms": record.at_ms,
        "reason": record.reason,
    }


def loss_of(fields: "Fields") -> LossRecord:
    """What ``loss_object`` gave."""
    return LossRecord(
        fields.number("owner", 1),
        fields.number("messages"),
        fields.number("bytes"),
        fields.number("at_ms"),
        fields.number("reason"),
    )


def time_mark_object(mark: TimeMark) -> Object:
    """From when on entries of the log came."""
    return {"type": "time_mark", "lsn": mark.lsn, "at_ms": mark.at_ms}


def time_mark_of(fields: "Fields") -> TimeMark:
    """What ``time_mark_object`` gave."""
    return TimeMark(fields.number("lsn"), fields.number("at_ms"))


def _gaps_object(packed: bytes) -> list[Object]:
    """Stretches of the log; one without an end goes on."""
    return [
        {"from_lsn": low} if high == OPEN else {"from_lsn": low, "until_lsn": high}
        for low, high in unpack_gaps(packed)
    ]


def _gaps_of(fields: "Fields") -> bytes:
    if not fields.has("gaps"):
        return b""
    gaps: list[tuple[int, int]] = []
    last = 0
    for gap in fields.inners("gaps"):
        low = gap.number("from_lsn")
        high = gap.number("until_lsn", 1) if gap.has("until_lsn") else OPEN
        gap.end()
        if low < last or last == NUMBER_MAX or (high != OPEN and high <= low):
            raise fields.fault("gaps", "stretches that ascend and do not overlap")
        last = NUMBER_MAX if high == OPEN else high
        gaps.append((low, high))
    return pack_gaps(gaps)


def retained_object(record: RetainedRecord) -> Object:
    """A retained message."""
    assert record.message is not None
    return {"type": "retained", "message": message_object(record.message)}


def retained_of(fields: "Fields") -> RetainedRecord:
    """What ``retained_object`` gave."""
    message = message_of(fields.inner("message"))
    return RetainedRecord(message.topic, message)


def delayed_object(record: DelayedRecord) -> Object:
    """A delayed message."""
    return {
        "type": "delayed",
        "number": record.number,
        "due_ms": record.due_ms,
        "seconds": record.seconds,
        "message": message_object(record.message),
    }


def delayed_of(fields: "Fields") -> DelayedRecord:
    """What ``delayed_object`` gave."""
    return DelayedRecord(
        fields.number("number", 1),
        fields.number("due_ms"),
        fields.number("seconds", 0, _U32_MAX),
        message_of(fields.inner("message")),
    )


def entry_object(entry: LogEntry) -> Object:
    """A message of the log."""
    found: Object = {"type": "message", "lsn": entry.lsn}
    if entry.target:
        found["target"] = entry.target
    found["message"] = message_object(entry.message)
    return found


def entry_of(fields: "Fields") -> LogEntry:
    """What ``entry_object`` gave."""
    lsn = fields.number("lsn", 1)
    target = fields.number("target", 1) if fields.has("target") else 0
    return LogEntry(lsn, message_of(fields.inner("message")), target)


def message_object(message: Message) -> Object:
    """An application message."""
    found: Object = {"topic": message.topic}
    _put_bytes(found, "payload", message.payload)
    found["qos"] = message.qos
    found["retain"] = message.retain
    if message.expires_at_ms != NEVER:
        found["expires_at_ms"] = message.expires_at_ms
    if message.publisher:
        found["publisher"] = message.publisher
    if message.properties is not None:
        properties = _properties_object(message.properties)
        if properties:
            found["properties"] = properties
    return found


def message_of(fields: "Fields") -> Message:
    """What ``message_object`` gave."""
    message = Message(
        fields.topic("topic"),
        fields.octets("payload"),
        fields.number("qos", 0, 2),
        fields.flag("retain"),
        None,
        fields.number("expires_at_ms", 1) if fields.has("expires_at_ms") else NEVER,
        fields.text("publisher") if fields.has("publisher") else "",
    )
    if fields.has("properties"):
        inner = fields.inner("properties")
        properties = _properties_of(inner)
        inner.end()
        try:
            packed = pack_properties(properties)
            message.properties = unpack_properties(packed)
        except (ProtocolError, UsageError) as error:
            raise fields.fault("properties", f"what MQTT allows ({error})") from None
        message.packed_properties = packed
    fields.end()
    return message


def _properties_object(properties: Properties) -> Object:
    found: Object = {}
    values: Object = {
        "payload_format_indicator": properties.payload_format_indicator,
        "message_expiry_interval": properties.message_expiry_interval,
        "will_delay_interval": properties.will_delay_interval,
        "content_type": properties.content_type,
        "response_topic": properties.response_topic,
    }
    for name, value in values.items():
        if value is not None:
            found[name] = value
    if properties.correlation_data is not None:
        _put_bytes(found, "correlation_data", properties.correlation_data)
    if properties.subscription_identifiers:
        found["subscription_identifiers"] = properties.subscription_identifiers
    if properties.user_properties:
        found["user_properties"] = [list(pair) for pair in properties.user_properties]
    return found


def _properties_of(fields: "Fields") -> Properties:
    properties = Properties()
    for name in _NUMBERS:
        if fields.has(name):
            setattr(properties, name, fields.number(name, 0, _U32_MAX))
    for name in _TEXTS:
        if fields.has(name):
            setattr(properties, name, fields.text(name))
    if fields.has("correlation_data") or fields.has("correlation_data_base64"):
        properties.correlation_data = fields.octets("correlation_data")
    if fields.has("subscription_identifiers"):
        properties.subscription_identifiers = fields.numbers(
            "subscription_identifiers", 1, 268_435_455, is_ascending=False
        )
    if fields.has("user_properties"):
        properties.user_properties = fields.pairs("user_properties")
    return properties


def _put_bytes(found: Object, name: str, value: bytes) -> None:
    try:
        found[name] = value.decode()
    except UnicodeDecodeError:
        found[f"{name}_base64"] = base64.b64encode(value).decode()


@final
class Fields:
    """The fields of one JSON object, each asked for once; ``where`` names it in errors.

    What is missing, has another type or lies out of its range raises StoreCorrupt, which says
    what was expected.
    """

    def __init__(self, where: str, found: Object) -> None:
        self.where: Final = where
        self._found = found
        self._asked: set[str] = set()

    def fault(self, name: str, expected: str) -> StoreCorrupt:
        """The error for a field that is not what it has to be."""
        return StoreCorrupt(f"{self.where}: {name}: expected {expected}")

    def has(self, name: str) -> bool:
        return name in self._found

    def end(self) -> None:
        """Refuse fields that nobody asked for."""
        for name in self._found:
            if name not in self._asked:
                raise StoreCorrupt(f"{self.where}: {name[:40]!r} is no field of it")

    def number(self, name: str, low: int = 0, high: int = NUMBER_MAX) -> int:
        value = self._value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.fault(name, f"a whole number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        value = self._value(name)
        if not isinstance(value, bool):
            raise self.fault(name, "true or false")
        return value

    def text(self, name: str) -> str:
        return self._text(name, self._value(name))

    def choice(self, name: str, values: dict[str, int]) -> int:
        value = self._value(name)
        if not isinstance(value, str) or value not in values:
            raise self.fault(name, f"one of {', '.join(values)}")
        return values[value]

    def topic(self, name: str) -> str:
        value = self.text(name)
        try:
            check_topic(value)
        except ProtocolError as error:
            raise StoreCorrupt(f"{self.where}: {name}: {error.detail}") from None
        return value

    def topic_filter(self, name: str) -> str:
        value = self.text(name)
        try:
            check_filter(value)
        except ProtocolError as error:
            raise StoreCorrupt(f"{self.where}: {name}: {error.detail}") from None
        return value

    def octets(self, name: str) -> bytes:
        """Bytes, which may be under ``name`` as text or under ``name_base64``."""
        packed = f"{name}_base64"
        value = self._value(packed if packed in self._found else name)
        if isinstance(value, str):
            try:
                if packed in self._found:
                    return base64.b64decode(value, validate=True)
                return value.encode()
            except (binascii.Error, ValueError):
                pass
        raise self.fault(name, "text in UTF-8, or base64")

    def numbers(self, name: str, low: int, high: int, *, is_ascending: bool = True) -> list[int]:
        values = self._list(name)
        found: list[int] = []
        for value in values:
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise self.fault(name, f"whole numbers from {low} to {high}")
            if is_ascending and found and value <= found[-1]:
                raise self.fault(name, "numbers in ascending order")
            found.append(value)
        return found

    def pairs(self, name: str) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for value in self._list(name):
            if not isinstance(value, list) or len(value) != 2:
                raise self.fault(name, "pairs of strings")
            found.append((self._text(name, value[0]), self._text(name, value[1])))
        return found

    def inner(self, name: str) -> "Fields":
        return self._fields(name, self._value(name))

    def inners(self, name: str) -> "list[Fields]":
        return [self._fields(name, value) for value in self._list(name)]

    def _value(self, name: str) -> object:
        self._asked.add(name)
        if name not in self._found:
            raise StoreCorrupt(f"{self.where}: {name} is missing")
        return self._found[name]

    def _list(self, name: str) -> list[object]:
        value = self._value(name)
        if not isinstance(value, list):
            raise self.fault(name, "a list")
        return value

    def _text(self, name: str, value: object) -> str:
        if isinstance(value, str):
            try:
                if len(value.encode()) <= _STRING_BYTES_MAX:
                    return value
            except UnicodeEncodeError:
                pass  # half of a surrogate pair
        raise self.fault(name, f"a string of at most {_STRING_BYTES_MAX} bytes of UTF-8")

    def _fields(self, name: str, value: object) -> "Fields":
        if not isinstance(value, dict):
            raise self.fault(name, "an object")
        return Fields(f"{self.where}: {name}", value)


def as_line(found: Object) -> bytes:
    """An object as a line; the same object always gives the same bytes."""
    return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def from_line(where: str, line: bytes) -> Fields:
    """The object on a line; raises StoreCorrupt if there is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise StoreCorrupt(f"{where}: expected a JSON object, found something else") from None
    if not isinstance(found, dict):
        raise StoreCorrupt(f"{where}: expected a JSON object, found something else")
    return Fields(where, found)
