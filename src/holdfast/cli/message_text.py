"""A received message as text: payload, topic and payload, hexadecimal, JSON or a given format.

A payload comes from somebody else. On a terminal, whatever in it a terminal would obey is shown as
an escape sequence; into a file or a pipe goes what was sent.
"""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast import ReceivedMessage as Message

__all__ = ["Formatter", "as_json", "formatted", "hexadecimal", "plain", "printable", "verbose"]

# The bytes of a message, which came at a time in nanoseconds since 1970.
Formatter = Callable[["Message", int], bytes]

_ESCAPES: Final = {
    "\\": "\\",
    "0": "\0",
    "a": "\a",
    "e": "\033",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_SEQUENCE: Final = re.compile(
    r"%(?P<flags>[-0]*)(?P<width>\d*)(?:\.(?P<most>\d+))?(?P<letter>.)", re.DOTALL
)
_ZERO_PADDED: Final = frozenset("AEFlmSXx")
_PADDED: Final = _ZERO_PADDED | frozenset("CIpRt")
_CUT: Final = frozenset("CIRt")
_LETTERS: Final = _PADDED | frozenset("DJPUjqr")


def printable(text: str, *, keep: str = "") -> str:
    """Text that a terminal shows and does not obey; the characters of ``keep`` stay."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape", "backslashreplace").decode("ascii")
        for character in text
    )


def plain(*, is_terminal: bool) -> Formatter:
    """The payload, as it came."""
    return lambda message, _: _payload(message.payload, is_terminal)


def hexadecimal() -> Formatter:
    """The payload, each byte as two digits."""
    return lambda message, _: message.payload.hex().encode()


def verbose(
    payload: Formatter, *, with_time: bool, with_topic: bool, is_terminal: bool
) -> Formatter:
    """Time, ``(retained)`` and topic before the payload, each if wanted.

    With the topic alone it is the format of ``mosquitto_sub -v``, which scripts take apart; there
    a retained message is only marked for who reads it on a terminal.
    """
    is_marked = with_time or (with_topic and is_terminal)

    def text(message: "Message", now_ns: int) -> bytes:
        parts = []
        if with_time:
            parts.append(_iso(now_ns, "milliseconds").encode())
        if is_marked and message.retain:
            parts.append(b"(retained)")
        if with_topic:
            parts.append(_text(message.topic, is_terminal))
        return b" ".join([*parts, payload(message, now_ns)])

    return text


def as_json(*, is_pretty: bool) -> Formatter:
    """One JSON object; what is not UTF-8 is base64 under its name and ``_base64``."""
    return lambda message, now_ns: _dumped(_object(message, now_ns), is_pretty)


def formatted(template: str, *, is_pretty: bool, is_terminal: bool) -> Formatter:
    """A text with the sequences of ``mosquitto_sub -F``. Raises UsageError for an unknown one."""
    pieces = _pieces(template, is_pretty, is_terminal)
    return lambda message, now_ns: b"".join(
        [piece if isinstance(piece, bytes) else piece(message, now_ns) for piece in pieces]
    )


def _pieces(template: str, is_pretty: bool, is_terminal: bool) -> list[bytes | Formatter]:
    pieces: list[bytes | Formatter] = []
    at = 0
    while at < len(template):
        start, following = template[at], template[at + 1 : at + 2]
        if start == "\\" and following in _ESCAPES and following != "":
            pieces.append(_ESCAPES[following].encode())
            at += 2
        elif start == "@" and following != "":
            pieces.append(_clock_piece(following))
            at += 2
        elif start == "%":
            found = _SEQUENCE.match(template, at)
            if found is None or (found["letter"] not in _LETTERS and found[0] != "%%"):
                shown = template[at : at + 2] if found is None else found[0]
                letters = "".join(sorted(_LETTERS))
                raise UsageError(f"-F: {shown} is unknown; expected % and one of {letters} or %%")
            pieces.append(b"%" if found[0] == "%%" else _piece(found, is_pretty, is_terminal))
            at = found.end()
        else:
            pieces.append(start.encode(errors="surrogateescape"))
            at += 1
    return pieces


def _clock_piece(letter: str) -> bytes | Formatter:
    if letter == "@":
        return b"@"
    if letter == "N":
        return lambda _, now_ns: b"%09d" % (now_ns % 1_000_000_000)
    return lambda _, now_ns: time.strftime(
        f"%{letter}", time.localtime(now_ns // 1_000_000_000)
    ).encode(errors="surrogateescape")


def _piece(found: "re.Match[str]", is_pretty: bool, is_terminal: bool) -> Formatter:
    letter = found["letter"]
    width = int(found["width"] or 0) if letter in _PADDED else 0
    most = int(found["most"]) if found["most"] and letter in _CUT else None
    is_left = "-" in found["flags"]
    fill = b"0" if "0" in found["flags"] and letter in _ZERO_PADDED and not is_left else b" "
    value = _VALUES[letter]

    def text(message: "Message", now_ns: int) -> bytes:
        given = value(message, now_ns)
        if isinstance(given, str):
            # Cut as characters, and before anything is escaped.
            given = _text(given[:most], is_terminal)
        elif is_terminal:
            given = _payload(given, is_terminal)
        return given.ljust(width, fill) if is_left else given.rjust(width, fill)

    if letter == "j":
        return lambda message, now_ns: _dumped(_mosquitto(message, now_ns, False), is_pretty)
    if letter == "J":
        return lambda message, now_ns: _dumped(_mosquitto(message, now_ns, True), is_pretty)
    return text


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


_VALUES: Final[dict[str, Callable[["Message", int], str | bytes]]] = {
    "A": lambda message, _: "",  # an alias is resolved before anyone sees the message
    "C": lambda message, _: message.content_type or "",
    "D": lambda message, _: message.correlation_data or b"",
    "E": lambda message, _: _number(message.message_expiry_interval),
    "F": lambda message, _: _number(message.payload_format_indicator),
    "I": lambda _, now_ns: _local(now_ns).strftime("%Y-%m-%dT%H:%M:%S%z"),
    "J": lambda message, _: b"",
    "P": lambda message, _: " ".join(f"{name}:{value}" for name, value in message.user_properties),
    "R": lambda message, _: message.response_topic or "",
    "S": lambda message, _: " ".join(map(str, _identifiers(message))),
    "U": lambda _, now_ns: f"{now_ns // 1_000_000_000}.{now_ns % 1_000_000_000:09d}",
    "X": lambda message, _: message.payload.hex().upper(),
    "j": lambda message, _: b"",
    "l": lambda message, _: str(len(message.payload)),
    "m": lambda message, _: str(message.packet_id),
    "p": lambda message, _: message.payload,
    "q": lambda message, _: str(message.qos),
    "r": lambda message, _: str(int(message.retain)),
    "t": lambda message, _: message.topic,
    "x": lambda message, _: message.payload.hex(),
}


def _payload(payload: bytes, is_terminal: bool) -> bytes:
    if not is_terminal:
        return payload
    return printable(payload.decode(errors="backslashreplace"), keep="\n\t").encode()


def _text(text: str, is_terminal: bool) -> bytes:
    return (printable(text) if is_terminal else text).encode(errors="surrogateescape")


def _iso(now_ns: int, precision: str) -> str:
    return _local(now_ns).isoformat(timespec=precision)


def _local(now_ns: int) -> datetime:
    # Not divided as a float, which has not so many digits.
    seconds, rest_ns = divmod(now_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=rest_ns // 1000).astimezone()


def _object(message: "Message", now_ns: int) -> dict[str, object]:
    values: dict[str, object] = {"time": _iso(now_ns, "microseconds"), "topic": message.topic}
    _put_bytes(values, "payload", message.payload)
    values |= {"qos": message.qos, "retain": message.retain, "dup": message.dup}
    if properties := _properties(message):
        values["properties"] = properties
    if message.delivery_id:
        values["delivery_id"] = message.delivery_id
    return values


def _properties(message: "Message") -> dict[str, object]:
    """All but Subscription Identifiers, which the client gives and takes by itself."""
    values: dict[str, object] = {}
    for name in (
        *("payload_format_indicator", "message_expiry_interval"),
        *("content_type", "response_topic"),
    ):
        if (value := getattr(message, name)) is not None:
            values[name] = value
    if message.correlation_data is not None:
        _put_bytes(values, "correlation_data", message.correlation_data)
    if message.user_properties:
        values["user_properties"] = [list(pair) for pair in message.user_properties]
    return values


def _identifiers(message: "Message") -> list[int]:
    return [] if message.properties is None else message.properties.subscription_identifiers


def _put_bytes(values: dict[str, object], name: str, value: bytes) -> None:
    try:
        values[name] = value.decode()
    except UnicodeDecodeError:
        values[f"{name}_base64"] = b64encode(value).decode("ascii")


def _mosquitto(message: "Message", now_ns: int, is_parsed: bool) -> dict[str, object]:
    """The object of ``mosquitto_sub -F %j``, or %J: there a payload that is JSON stays JSON."""
    values: dict[str, object] = {
        "tst": _local(now_ns).strftime("%Y-%m-%dT%H:%M:%S.%f%z"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": int(message.retain),
        "payloadlen": len(message.payload),
    }
    if message.qos > 0:
        values["mid"] = message.packet_id
    if properties := _properties(message):
        own = {name.replace("_", "-"): value for name, value in properties.items()}
        if message.user_properties:
            del own["user-properties"]
            own["user-properties"] = dict(message.user_properties)
        values["properties"] = own
    payload: object = message.payload.decode(errors="replace")
    if is_parsed:
        try:
            payload = json.loads(message.payload)
        except ValueError:
            pass  # Mosquitto leaves such a message out; as a string it is not lost.
    return values | {"payload": payload}


def _dumped(values: dict[str, object], is_pretty: bool) -> bytes:
    text = json.dumps(values, ensure_ascii=False, indent=2 if is_pretty else None)
    # JSON itself leaves some characters as they are that a terminal obeys.
    if not text.isprintable():
        text = "".join(_json_safe(character) for character in text)
    return text.encode()


def _json_safe(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return json.dumps(character)[1:-1]
