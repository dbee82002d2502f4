"""The HTTP request that begins a WebSocket, and its answer.

Whoever is turned away is told in plain words what to do: it may be a person with a browser.
Nothing of the request is believed about where it comes from, X-Forwarded-For included.

Source: RFC 6455 §4.2; MQTT 5.0 §6.0 and MQTT 3.1.1 §6.0.
"""

import base64
import binascii
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, final
from urllib.parse import urlsplit

import h11

from holdfast.config.listeners import WebSocketSettings
from holdfast.protocol.upgrade import (
    HEAD_BYTES_MAX,
    KEY_BYTES,
    PROTOCOL,
    PROTOCOL_3_1,
    VERSION,
    accept_of,
    header_words,
)

ORIGIN_CHARACTERS_MAX: Final = 100  # of one that is told of

_WHAT_THIS_IS: Final = "This is Holdfast, an MQTT broker, and this port is for MQTT over WebSocket."


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back; ``refusal`` says for the log why the WebSocket is not opened.

    It is empty if it is: then ``rest`` is what came behind the request.
    """

    data: bytes
    refusal: str = ""
    rest: bytes = b""


@final
class Upgrade:
    """One request, as far as it has come."""

    def __init__(self, settings: WebSocketSettings, *, is_3_1_spoken: bool) -> None:
        self._settings = settings
        self._is_3_1_spoken = is_3_1_spoken
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)

    def receive(self, data: bytes) -> Answer | None:
        """The answer, once all of the request has come."""
        self._http.receive_data(data)
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
                text = f"The request is too large: expected at most {HEAD_BYTES_MAX} bytes of it."
                return refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
            text = "Expected an HTTP/1.1 request that opens a WebSocket, something else came."
            return refused(HTTPStatus.BAD_REQUEST, text)
        if not isinstance(event, h11.Request):
            return None
        if event.http_version != b"1.1":
            return refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "Expected HTTP/1.1.")
        headers: dict[bytes, list[bytes]] = {}
        for name, value in event.headers:
            headers.setdefault(name, []).append(value)
        return self._turned_away(event, headers) or self._accepted(headers)

    def timed_out(self) -> Answer:
        """The answer to a request that is not waited for any longer."""
        return refused(HTTPStatus.REQUEST_TIMEOUT, "The request did not come in time.")

    def _turned_away(
        self, request: h11.Request, headers: dict[bytes, list[bytes]]
    ) -> Answer | None:
        """The answer to whoever is at the wrong place, does not mean it or may not; else None."""
        path = self._settings.path
        if request.method != b"GET":
            text = f"Expected GET {path}."
            return refused(HTTPStatus.METHOD_NOT_ALLOWED, text, "Allow: GET")
        if _path(request.target) != path:
            text = f"Its path is {path}: let your MQTT client connect to that."
            return refused(HTTPStatus.NOT_FOUND, text)
        upgrade = header_words(headers.get(b"upgrade", ()))
        connection = header_words(headers.get(b"connection", ()))
        if b"websocket" not in upgrade or b"upgrade" not in connection:
            text = (
                "A browser cannot show anything here: let your MQTT client connect to it."
                " A proxy on the way has to pass on the headers Upgrade and Connection."
            )
            return refused(HTTPStatus.UPGRADE_REQUIRED, text, "Upgrade: websocket")
        if headers.get(b"sec-websocket-version") != [VERSION]:
            text = "Expected Sec-WebSocket-Version: 13."
            return refused(HTTPStatus.UPGRADE_REQUIRED, text, "Sec-WebSocket-Version: 13")
        if b"transfer-encoding" in headers or headers.get(b"content-length", [b"0"]) != [b"0"]:
            return refused(HTTPStatus.BAD_REQUEST, "Expected a request without a body.")
        return self._foreign(headers.get(b"origin", []))

    def _foreign(self, origins: list[bytes]) -> Answer | None:
        """The answer to a page that may not connect. What is no page sends no Origin."""
        allowed = self._settings.origins
        if not allowed or not origins:
            return None
        origin = origins[0].decode("latin-1")
        if len(origins) == 1 and origin.lower() in allowed:
            return None
        text = "Pages of this origin may not connect: it is not among the origins of this listener."
        told = f"the origin {origin[:ORIGIN_CHARACTERS_MAX]} is not allowed"
        return refused(HTTPStatus.FORBIDDEN, text, told=told)

    def _accepted(self, headers: dict[bytes, list[bytes]]) -> Answer:
        """The answer to a request that is right so far."""
        keys = headers.get(b"sec-websocket-key", [])
        if len(keys) != 1 or not _is_key(keys[0]):
            text = "Expected one Sec-WebSocket-Key, of 16 bytes in base64."
            return refused(HTTPStatus.BAD_REQUEST, text)
        offered = header_words(headers.get(b"sec-websocket-protocol", ()), is_case_kept=True)
        if PROTOCOL in offered:
            protocol = PROTOCOL  # [MQTT-6.0.0-4]
        elif PROTOCOL_3_1 in offered and self._is_3_1_spoken:
            protocol = PROTOCOL_3_1
        else:
            text = "Expected the subprotocol mqtt: Sec-WebSocket-Protocol: mqtt."
            return refused(HTTPStatus.BAD_REQUEST, text)
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept_of(keys[0]),
            b"Sec-WebSocket-Protocol: " + protocol,
        ]
        # No extension is agreed on, so nothing comes compressed.
        rest, _ = self._http.trailing_data
        return Answer(b"\r\n".join([*lines, b"", b""]), rest=rest)


def refused(status: HTTPStatus, text: str, *headers: str, told: str = "") -> Answer:
    """An answer that ends the connection, with a text for people; ``told`` is for the log."""
    body = f"{status.value} {status.phrase}\n\n{_WHAT_THIS_IS}\n{text}\n".encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *headers,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    data = "\r\n".join([*head, "", ""]).encode() + body
    return Answer(data, f"HTTP {status.value}: {told or text}")


def _path(target: bytes) -> str:
    """The path of a request's target, which may be a whole URL; empty if it is neither."""
    try:
        return urlsplit(target.decode("ascii")).path
    except ValueError:
        return ""


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False
