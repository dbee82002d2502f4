"""Log records in one line each, with fields: readable text or JSON, on the standard library.

Client identifiers, topics and addresses come from outside. Everything that is not printable is
escaped, so that no client can write a line of its own into the log or reach a terminal.
"""

import json
import logging
import time
import traceback
from typing import Final, TextIO, final

__all__ = ["Log", "get_logger", "setup_logging"]

FIELD_CHARACTERS_MAX: Final = 256  # an MQTT string may have 65 535 bytes; a log line should not
ROOT: Final = "holdfast"

_RESERVED: Final = frozenset({"time", "level", "logger", "message", "traceback"})


@final
class Log:
    """Writes records to one named logger; fields are keyword arguments.

    ``log.info("client connected", client=client_id, address=address)`` gives
    ``2025-05-01T12:00:00.123Z info net: client connected client=meter-7 address=10.0.0.7:50312``.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, **fields: object) -> None:
        """Record what only a developer wants to see."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Record what an operator may want to know."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Record what an operator should look at: a refused client, a limit reached."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Record what an operator must act on."""
        self._log(logging.ERROR, message, fields)

    def failure(self, message: str, error: BaseException, **fields: object) -> None:
        """Record a defect of ours, with the traceback of ``error``."""
        self._log(logging.ERROR, message, fields, error)

    def _log(
        self,
        level: int,
        message: str,
        fields: dict[str, object],
        error: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            assert _RESERVED.isdisjoint(fields)
            # Passed as an argument of the message, the text is never a format string.
            self._logger.log(level, "%s", message, extra={"fields": fields}, exc_info=error)


def get_logger(name: str) -> Log:
    """The log of one part; ``name`` is a module's ``__name__`` or a short name such as ``net``."""
    name = name.removeprefix(f"{ROOT}.")
    return Log(logging.getLogger(ROOT if name in ("", ROOT) else f"{ROOT}.{name}"))


def setup_logging(*, level: str, as_json: bool, stream: TextIO) -> None:
    """Write records of ``level`` (debug, info, warning or error) and above to ``stream``.

    Takes the place of an earlier set-up. Other libraries' records pass from "warning" upwards.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonFormatter() if as_json else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())


class _TextFormatter(logging.Formatter):
    """Readable records; a traceback follows as indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        name = record.name.removeprefix(f"{ROOT}.")
        parts = [_time(record), level, f"{name}:", _escape(record.getMessage())]
        parts += [f"{key}={_text_value(value)}" for key, value in _fields(record).items()]
        lines = [" ".join(parts)]
        lines += [f"    | {_escape(line)}" for line in _traceback_lines(record)]
        return "\n".join(lines)


class _JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix(f"{ROOT}."),
            "message": record.getMessage(),
        }
        entry |= {key: _json_value(value) for key, value in _fields(record).items()}
        if lines := _traceback_lines(record):
            entry["traceback"] = "\n".join(lines)
        return json.dumps(entry)


def _time(record: logging.LogRecord) -> str:
    """The time of a record in UTC, to the millisecond, as RFC 3339 writes it."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    # Records of other libraries have none.
    fields: dict[str, object] = record.__dict__.get("fields", {})
    return fields


def _traceback_lines(record: logging.LogRecord) -> list[str]:
    if record.exc_info is None or record.exc_info[1] is None:
        return []
    return "".join(traceback.format_exception(record.exc_info[1])).splitlines()


def _text_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _cut(str(value))
    if text != "" and text.isprintable() and not any(c in text for c in ' "=\\'):
        return text
    return '"' + _escape(text).replace('"', '\\"') + '"'


def _json_value(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cut(str(value))


def _cut(text: str) -> str:
    if len(text) <= FIELD_CHARACTERS_MAX:
        return text
    return text[:FIELD_CHARACTERS_MAX] + "…"


def _escape(text: str) -> str:
    """``text`` with each character that is not printable, and the backslash, as an escape."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escape_character(character) for character in text)


def _escape_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
