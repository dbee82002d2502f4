"""The properties of MQTT 5.0 as options: ``-D PACKET IDENTIFIER VALUE``, as Mosquitto has it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from holdfast.cli.option_groups import PROPERTY_PARTS
from holdfast.errors import UsageError
from holdfast.message import Properties

__all__ = ["GivenProperties", "expiry_seconds", "given_properties", "name_and_value"]

U8_MAX: Final = 0xFF
U16_MAX: Final = 0xFFFF
U32_MAX: Final = 0xFFFF_FFFF
NEVER: Final = U32_MAX  # the Session Expiry Interval of a session that does not expire

# The largest value of a number; None where the value is text, b"" where it is bytes.
_MESSAGE: Final[dict[str, int | bytes | None]] = {
    "content-type": None,
    "correlation-data": b"",
    "message-expiry-interval": U32_MAX,
    "payload-format-indicator": 1,
    "response-topic": None,
    "user-property": None,
}
_KNOWN: Final[dict[str, dict[str, int | bytes | None]]] = {
    "CONNECT": {
        "maximum-packet-size": U32_MAX,
        "receive-maximum": U16_MAX,
        "session-expiry-interval": U32_MAX,
        "topic-alias-maximum": U16_MAX,
        "user-property": None,
    },
    "PUBLISH": _MESSAGE,
    "WILL": _MESSAGE | {"will-delay-interval": U32_MAX},
}


@dataclass(frozen=True, slots=True)
class GivenProperties:
    """What was given for each packet."""

    connect: Properties = field(default_factory=Properties)
    publish: Properties = field(default_factory=Properties)
    will: Properties = field(default_factory=Properties)
    packets: frozenset[str] = frozenset()  # the names, in capitals, for which there is anything


def given_properties(options: Sequence[str]) -> GivenProperties:
    """The properties of all ``-D``, each in the form that ``ClientCommand`` gives it.

    Raises UsageError for what no packet has, and for a value that cannot be.
    """
    result = GivenProperties(packets=frozenset(_packet(option) for option in options))
    for option in options:
        packet, *parts = option.split(PROPERTY_PARTS)
        properties: Properties = getattr(result, packet.lower())
        _set(properties, packet.upper(), parts)
    return result


def _packet(option: str) -> str:
    packet = option.partition(PROPERTY_PARTS)[0].upper()
    if packet not in _KNOWN:
        raise UsageError(f"-D {packet}: expected a packet: {', '.join(_KNOWN)}")
    return packet


def _set(properties: Properties, packet: str, parts: list[str]) -> None:
    known = _KNOWN[packet]
    identifier = parts[0] if parts else ""
    if identifier not in known:
        raise UsageError(f"-D {packet} {identifier}: expected one of {', '.join(sorted(known))}")
    count = 3 if identifier == "user-property" else 2
    if len(parts) != count:
        values = "NAME VALUE" if count == 3 else "VALUE"
        raise UsageError(f"-D {packet} {identifier}: expected {values} behind it")
    value = parts[1]
    if identifier == "user-property":
        properties.user_properties.append((value, parts[2]))
        return
    attribute = identifier.replace("-", "_")
    most = known[identifier]
    if isinstance(most, bytes):
        setattr(properties, attribute, value.encode(errors="surrogateescape"))
    elif most is None:
        setattr(properties, attribute, value)
    else:
        setattr(properties, attribute, _number(f"-D {packet} {identifier}", value, most))


def _number(option: str, text: str, most: int | bytes | None) -> int:
    assert isinstance(most, int)
    # Not int(): that takes spaces, underscores and the digits of all scripts.
    if not (text.isascii() and text.isdigit()) or int(text) > most:
        raise UsageError(f"{option}: expected a number from 0 to {most}")
    return int(text)


def expiry_seconds(option: str, text: str) -> int:
    """A Session Expiry Interval as it is typed: seconds, or ``never``."""
    if text in ("never", "-1", "∞"):
        return NEVER
    return _number(option, text, NEVER)


def name_and_value(option: str, text: str) -> tuple[str, str]:
    """Split ``NAME=VALUE``."""
    name, separator, value = text.partition("=")
    if separator == "":
        raise UsageError(f"{option}: expected NAME=VALUE")
    return name, value
