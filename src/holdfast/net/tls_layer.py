"""TLS between a socket and the layer above, with OpenSSL working on memory.

Not the event loop's own: there a handshake costs a task, each connection has a read buffer of 256
KiB, what a broken connection still holds is lost, a peer that does not answer the close keeps its
connection for half a minute, and nothing can be given that a proxy has sent behind its header.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Final, cast, final

from holdfast.errors import HoldfastError
from holdfast.net.arrival import Arrival, MakeLayer
from holdfast.net.connection import read_rest

# What is given to OpenSSL at a time: its buffers become as large as the largest piece. A record
# of TLS has at most 16 KiB and some.
PIECE_BYTES: Final = 16 * 1024

# Of handshakes in one pass of the event loop: they cost up to a millisecond each, and a thousand
# clients may come back in one moment. Those who are there have their turn between.
HANDSHAKES_S: Final = 0.005
# That a client may send before its handshake goes on; then it is not read until that does.
WAITING_BYTES_MAX: Final = 64 * 1024

# Takes the verified certificate (DER) of a client; raises HoldfastError to refuse it.
TakeCertificate = Callable[[Arrival, bytes], None]
Refused = Callable[[Arrival, str], None]


@final
class HandshakeLine:
    """Handshakes that can go on, in their order; some of them in each pass of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[TlsLayer] = deque()
        self._is_scheduled = False

    def stand_in(self, layer: "TlsLayer") -> None:
        """Have ``go_on`` of this one called when it is its turn."""
        self._waiting.append(layer)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._is_scheduled = False
        # Not the event loop's time, which stands still within one pass.
        until_s = time.monotonic() + HANDSHAKES_S
        try:
            while self._waiting:
                self._waiting.popleft().go_on()
                if time.monotonic() >= until_s:
                    break
        finally:
            self._schedule()


@final
class TlsLayer(asyncio.Protocol):
    """The server's end of TLS on one connection.

    Each step of the handshake waits for its turn in ``line``. The layer above is made when it is
    done, within ``timeout_s`` seconds; ``take_certificate`` comes before, if the client has shown
    one. ``refused`` is told why a connection comes to nothing.
    """

    __slots__ = (
        "_above",
        "_arrival",
        "_incoming",
        "_is_closing",
        "_is_paused",
        "_line",
        "_make_layer",
        "_outgoing",
        "_raw",
        "_refused",
        "_ssl",
        "_take_certificate",
        "_timer",
        "_waiting",
    )

    def __init__(
        self,
        arrival: Arrival,
        context: ssl.SSLContext,
        line: HandshakeLine,
        timeout_s: float,
        make_layer: MakeLayer,
        take_certificate: TakeCertificate,
        refused: Refused,
    ) -> None:
        self._arrival = arrival
        self._make_layer = make_layer
        self._take_certificate = take_certificate
        self._refused = refused
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw = arrival.transport
        self._above: asyncio.Protocol | None = None  # None until the handshake is done
        self._is_closing = False
        self._line = line
        self._waiting = b""  # what has come for the handshake, while it stands in line
        self._is_paused = False  # as it is too much
        self._timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            timeout_s, self._fail, f"no TLS handshake within {timeout_s:g} s"
        )

    # --- from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._above is None:
            if not self._waiting:
                self._line.stand_in(self)
            self._waiting += data
            if len(self._waiting) > WAITING_BYTES_MAX and not self._is_paused:
                self._is_paused = True
                self._raw.pause_reading()
        else:
            self._take(data)

    def go_on(self) -> None:
        """Go on with the handshake: it is its turn in the line."""
        data, self._waiting = self._waiting, b""
        if self._is_closing:
            return
        if self._is_paused:
            self._is_paused = False
            self._raw.resume_reading()
        try:
            self._take(data)
        except Exception:
            self.abort()  # as the event loop does where it calls itself
            raise

    def eof_received(self) -> bool:
        # Not left to the event loop, which would wait for ever for a peer that does not read.
        if self._waiting:
            self.go_on()  # out of turn: what it has sent before counts
        if self._is_closing:
            return True
        if self._above is None:
            self.abort()  # a look at the port, most often: nothing to tell
        elif not self._above.eof_received():
            self.close()
        return True

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._above is None:
            self._is_closing = True
            self._arrival.left()
            return
        try:
            if exc is not None:
                read_rest(self._raw, self.data_received)
        finally:
            self._is_closing = True
            self._above.connection_lost(None)

    # --- from above

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send; nothing is kept here."""
        if self._is_closing:
            return
        try:
            if len(data) <= PIECE_BYTES:
                self._ssl.write(data)
                self._raw.write(self._outgoing.read())
                return
            sealed = []
            with memoryview(data) as whole:
                for start in range(0, len(data), PIECE_BYTES):
                    self._ssl.write(whole[start : start + PIECE_BYTES])
                    sealed.append(self._outgoing.read())
            self._raw.write(b"".join(sealed))
        except ssl.SSLError as error:
            self._fail(f"TLS failed: {_reason(error)}")

    def close(self) -> None:
        """Say that nothing more comes, and close when all is sent.

        The peer's answer is not waited for: every packet of MQTT says itself where it ends.
        """
        if self._is_closing:
            return
        self._is_closing = True
        try:
            self._ssl.unwrap()
        except ssl.SSLError:
            pass  # it wants to read the answer
        self._flush()
        self._raw.close()

    def abort(self) -> None:
        self._is_closing = True
        self._raw.abort()

    @property
    def is_closing(self) -> bool:
        return self._is_closing or self._raw.is_closing()

    # --- the work

    def _take(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            if self._is_closing:
                return
            self._incoming.write(data[start : start + PIECE_BYTES])
            if self._above is not None or self._shake_hands():
                self._read()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; True once it is done and the layer above is there."""
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, ValueError) as error:
            self._flush()  # the alert that says why
            self._fail(_handshake_failure(error))
            return False
        self._flush()
        self._stop_timer()
        encoded = self._ssl.getpeercert(binary_form=True)
        try:
            if encoded is not None:
                self._take_certificate(self._arrival, encoded)
        except HoldfastError as error:
            self._fail(str(error))
            return False
        self._above = self._make_layer(self._arrival)
        self._above.connection_made(TlsTransport(self, self._raw))
        return True

    def _read(self) -> None:
        """Pass up all that can be decrypted."""
        assert self._above is not None
        while not self._is_closing:
            try:
                data = self._ssl.read(PIECE_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                self._flush()
                self._fail(f"TLS failed: {_reason(error)}")
                return
            if not data:  # the peer has said that nothing more comes
                self.eof_received()
                return
            self._above.data_received(data)
            if self._incoming.pending == 0 and self._ssl.pending() == 0:
                break
        if self._outgoing.pending:
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    def _fail(self, why: str) -> None:
        """End a connection that has come to nothing, or can be read no more."""
        self._stop_timer()
        if self._is_closing:
            return
        self._is_closing = True
        self._refused(self._arrival, why)
        self._raw.close()
        # A peer that does not read is not waited for.
        if self._raw.get_write_buffer_size() > 0:
            self._raw.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@final
class TlsTransport(asyncio.Transport):
    """What the layer above writes to."""

    __slots__ = ("_layer", "_raw")

    def __init__(self, layer: TlsLayer, raw: asyncio.Transport) -> None:
        super().__init__()
        self._layer = layer
        self._raw = raw

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._layer.write(data)

    def close(self) -> None:
        self._layer.close()

    def abort(self) -> None:
        self._layer.abort()

    def is_closing(self) -> bool:
        return self._layer.is_closing

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        """TLS has no half of a close."""
        return False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._raw.get_extra_info(name, default)


# What OpenSSL says of bytes that do not even begin like TLS.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST"})


def _handshake_failure(error: ssl.SSLError | ValueError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
        return "the client does not speak TLS"
    return f"the TLS handshake failed: {_reason(error)}"


def _reason(error: ssl.SSLError | ValueError) -> str:
    """What OpenSSL says, in its words, without the places in its source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate: {error.verify_message}"
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    return (reason or "unknown").replace("_", " ").lower()
