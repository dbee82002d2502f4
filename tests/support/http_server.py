"""An HTTP server for tests: real sockets, and an answer for each request that the test gives."""

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


@dataclass
class Asked:
    """One request, as the server has got it."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Said:
    """What the server says to it: the body in pieces, each sent after the one before."""

    status: int = 200
    body: bytes | list[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


class HttpServer:
    """Serves on a free port of 127.0.0.1, each connection on a thread; ``asked`` is all it got."""

    def __init__(
        self, answer: Callable[[Asked], Said], context: ssl.SSLContext | None = None
    ) -> None:
        self.asked: list[Asked] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Asked(self.path, dict(self.headers.items()), body)
                asked.append(request)
                said = answer(request)
                pieces = said.body if isinstance(said.body, list) else [said.body]
                self.send_response(said.status)
                if "Content-Length" not in said.headers:
                    self.send_header("Content-Length", str(sum(map(len, pieces))))
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                        self.wfile.flush()
                except OSError:
                    self.close_connection = True  # the client has heard enough

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Listen no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
