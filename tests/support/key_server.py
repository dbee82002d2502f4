"""An HTTP server for keys on a free port of 127.0.0.1, which can be told to answer otherwise."""

import ssl
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

Respond = Callable[[BaseHTTPRequestHandler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up, or does not trust us, is what some tests are about."""
        assert isinstance(sys.exc_info()[1], OSError)


class KeyServer:
    """Answers every GET with ``content``, or as ``respond`` has it; ``tls`` makes it https."""

    def __init__(self, content: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self.content = content
        self.respond: Respond | None = None
        self.requests: list[dict[str, str]] = []  # their headers
        self.is_stopping = threading.Event()
        self._counted = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner._take(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._scheme = "http"
        if tls is not None:
            self._scheme = "https"
            # The handshake is made by the thread that answers, when it reads first.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}/keys?token=secret-of-the-path"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        respond = self.respond
        if respond is None:
            answer(handler, self.content)
        else:
            respond(handler)
        with self._counted:
            self.requests.append(dict(handler.headers))
            self._counted.notify_all()

    def await_requests(self, count: int) -> None:
        """Wait until so many have been answered."""
        with self._counted:
            assert self._counted.wait_for(lambda: len(self.requests) >= count, 30)


def answer(
    handler: BaseHTTPRequestHandler, content: bytes, status: int = 200, **headers: str
) -> None:
    """Answer with a whole body."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
