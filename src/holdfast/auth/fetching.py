"""One HTTP GET with a time and a size that hold for all of it, however the server drags it out."""

import http.client
import os
import socket
import ssl
import threading
import time
from typing import Final
from urllib.parse import urlsplit

from holdfast import __version__

_PORTS: Final = {"http": 80, "https": 443}


class FetchFailed(Exception):
    """Says why in words that have nothing of the URL in them: there may be a secret in it."""


def fetch(
    url: str, *, timeout_s: float, bytes_max: int, context: ssl.SSLContext | None, accept: str
) -> bytes:
    """The body of the answer, which has to be 200: redirects are not followed, proxies not used.

    ``context`` is for https. Only the look-up of a name has no time but the system's. Raises
    FetchFailed.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or _PORTS[parts.scheme]
    until_s = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host, port), timeout_s) as plain:
            end = Ending(plain, until_s)
            try:
                sock = plain
                if parts.scheme == "https":
                    assert context is not None
                    sock = context.wrap_socket(plain, server_hostname=host)
                with sock:
                    body = _get(parts.scheme, host, port, sock, _target(url), accept, bytes_max)
            finally:
                end.cancel()
    except TimeoutError:
        raise FetchFailed(f"expected an answer within {timeout_s} s") from None
    except (OSError, http.client.HTTPException) as error:
        if time.monotonic() >= until_s:
            raise FetchFailed(f"expected an answer within {timeout_s} s") from None
        raise FetchFailed(_words(error)) from None
    if time.monotonic() >= until_s:
        # A body without a length ends with the connection: this one has been cut.
        raise FetchFailed(f"expected an answer within {timeout_s} s")
    return body


class Ending:
    """Ends a connection at a time, from a thread of its own, whatever is being waited for.

    A timeout of a socket is for each wait alone, so that a byte now and then would hold for ever.
    """

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        # The same connection under another number, which TLS does not take away.
        self._sock = socket.socket(fileno=os.dup(sock.fileno()))
        self._lock = threading.Lock()
        self._timer = threading.Timer(max(0.0, until_s - time.monotonic()), self._end)
        self._timer.daemon = True
        self._timer.start()

    def cancel(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._sock.close()

    def _end(self) -> None:
        with self._lock:
            try:
                self._sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It has come to its end by itself.


def _get(
    scheme: str, host: str, port: int, sock: socket.socket, target: str, accept: str, bytes_max: int
) -> bytes:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port)
    connection.sock = sock
    try:
        headers = {
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"holdfast/{__version__}",
        }
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise FetchFailed(f"expected HTTP status 200, {response.status} came")
        body = response.read(bytes_max + 1)
        if len(body) > bytes_max:
            raise FetchFailed(f"expected at most {bytes_max} bytes, more came")
        if response.length:
            raise FetchFailed("expected the whole answer, a part of it came")
        return body
    finally:
        connection.close()


def _target(url: str) -> str:
    """What a request asks for: the path, and the query if there is one."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"expected an answer of HTTP, something else came ({type(error).__name__})"
