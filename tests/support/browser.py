"""A page in headless Chromium, with MQTT.js in it, that is driven like a Node process."""

import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from re import Match, search
from types import TracebackType
from typing import Final, Self, final

from tests.support.process import PATIENCE_S

NODE_DIR: Final = Path(__file__).parent.parent / "node"
COMMANDS: Final = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

_POLL_S: Final = 1.0  # for which the page's request for a command is kept
_PAGE: Final = b"""<!doctype html><meta charset="utf-8"><title>MQTT.js</title>
<link rel="icon" href="data:,"><script src="/mqtt.js"></script>
<script type="module" src="/driver.js"></script>
"""
_FILES: Final = {
    "/mqtt.js": NODE_DIR / "node_modules" / "mqtt" / "dist" / "mqtt.min.js",
    "/driver.js": NODE_DIR / "driver.js",
}


@final
class Page:
    """One page in a browser of its own, at http://HOST of a server that is there for it alone.

    It has the methods of Process that MqttJs uses. ``host`` decides its origin. ``html`` takes the
    place of the page that carries out commands; it finds MQTT.js at ``/mqtt.js``.
    """

    def __init__(self, host: str = "127.0.0.1", html: str | None = None) -> None:
        self.html = _PAGE if html is None else html.encode()
        self._commands: queue.Queue[str] = queue.Queue()
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self.origin = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._folder = Path(tempfile.mkdtemp(prefix="browser-"))
        self._browser: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = next((path for name in COMMANDS if (path := shutil.which(name))), None)
        assert command is not None, "there is no Chromium: run `make test`, it installs one"
        self._thread.start()
        options = ["--headless", "--disable-gpu", "--remote-debugging-port=0"]
        # Certificates of the tests are of an authority that no browser knows.
        options += [f"--user-data-dir={self._folder}", "--ignore-certificate-errors"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # root has none, and only our own page is shown
        with (self._folder / "log").open("wb") as log:
            self._browser = subprocess.Popen(
                [command, *options, f"{self.origin}/"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that all its processes can be ended together
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.kill9()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write_line(self, text: str) -> None:
        self._commands.put(text)

    def wait_line(self, pattern: str, first: int = 0) -> tuple[int, Match[str]]:
        """Wait for an event that matches, from number ``first`` on: its number and the match."""
        number = first
        with self._changed:
            while True:
                while number < len(self._lines):
                    if match := search(pattern, self._lines[number]):
                        return number, match
                    number += 1
                if not self._changed.wait(PATIENCE_S):
                    log = (self._folder / "log").read_text(errors="backslashreplace")
                    lines = "\n".join(self._lines)
                    raise AssertionError(f"the page said no {pattern!r} in:\n{lines}\n{log}")

    def kill9(self) -> int:
        """End the browser as a crash does."""
        if self._browser is not None and self._browser.poll() is None:
            os.killpg(self._browser.pid, signal.SIGKILL)
            self._browser.wait()
        return 0

    def wait(self) -> int:
        """A page has no end of its own."""
        return 0

    # --- for the page

    def next_command(self) -> str | None:
        try:
            return self._commands.get(timeout=_POLL_S)
        except queue.Empty:
            return None

    def tell(self, line: str) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    """Serves the page, gives it its commands and takes its events."""

    protocol_version = "HTTP/1.1"

    def __init__(self, page: Page, *arguments: object) -> None:
        self._page = page
        super().__init__(*arguments)  # type: ignore[arg-type]  # as the server gives them

    def do_GET(self) -> None:
        if self.path == "/":
            self._answer(200, "text/html", self._page.html)
        elif self.path == "/command":
            command = self._page.next_command()
            self._answer(204 if command is None else 200, "text/plain", (command or "").encode())
        elif self.path in _FILES:
            self._answer(200, "text/javascript", _FILES[self.path].read_bytes())
        else:
            self._answer(404, "text/plain", b"")

    def do_POST(self) -> None:
        self._page.tell(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(204, "text/plain", b"")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # the browser has gone

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: what went wrong shows in the events that did not come."""
