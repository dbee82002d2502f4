"""The client's authentication on the connections of a link: with CONNECT, and again later.

Source: MQTT 5.0 §4.12.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final, final

from holdfast.client.authentication import Authentication, Exchange
from holdfast.errors import ConnectionLost, HoldfastError, ProtocolError, UsageError
from holdfast.logs import get_logger
from holdfast.message import Properties
from holdfast.protocol.encode import encode
from holdfast.protocol.packets import MQTT_5_0, Auth, Connack, Connect
from holdfast.protocol.reason_codes import (
    CONTINUE_AUTHENTICATION,
    PROTOCOL_ERROR,
    RE_AUTHENTICATE,
    SUCCESS,
)

# So long before its end what was shown is shown anew: a fifth of its time, at most a minute.
RENEWED_BEFORE_S: Final = 60.0
RENEWED_BEFORE_PART: Final = 0.2
# After a fresh token could not be had, it is asked for again, while the old one is good.
RETRY_S: Final = 5.0

_log = get_logger(__name__)


@final
class Login:
    """Who the client is, to the server.

    ``send`` sends a packet over the connection of now, ``broken`` ends it for what the server did.
    Each exchange, from its beginning to the server's consent, may take ``timeout_s`` seconds.
    """

    def __init__(
        self,
        authentication: Authentication | None,
        *,
        user_name: str | None,
        password: bytes | None,
        send: Callable[[bytes], None],
        broken: Callable[[HoldfastError], None],
        timeout_s: float,
    ) -> None:
        self._authentication = authentication
        self._user_name = user_name
        self._password = password
        self._send = send
        self._broken = broken
        self._timeout_s = timeout_s
        self._exchange: Exchange | None = None  # that is not finished
        self._again: asyncio.Future[None] | None = None  # the client proves itself once more
        self._task: asyncio.Task[None] | None = None  # that works out what is sent next
        self._timer: asyncio.TimerHandle | None = None  # of the next renewal, or of its end
        self._renewed_at_s = 0.0  # when what was shown is to be shown anew; 0 for never
        self._is_connected = False

    # --- connections

    async def begin(self, connect: Connect) -> None:
        """Put into a CONNECT who the client is.

        Raises ConnectionLost if that cannot be had, UsageError if it never can.
        """
        connect.user_name, connect.password = self._user_name, self._password
        if self._authentication is None:
            return
        exchange = await self._begun()
        if self._authentication.method:
            assert connect.properties is not None
            connect.properties.authentication_method = self._authentication.method
            connect.properties.authentication_data = exchange.data
            self._exchange = exchange
            return
        connect.password = exchange.data
        if connect.user_name is None and connect.version < MQTT_5_0:
            connect.user_name = ""  # [MQTT-3.1.2-22] of 3.1.1: no password without one

    def accepted(self, connack: Connack) -> None:
        """Take the server's consent. Raises ProtocolError if it does not prove what it should."""
        exchange, self._exchange = self._exchange, None
        self._is_connected = True
        if exchange is None:
            return
        properties = connack.properties or Properties()
        method = properties.authentication_method
        if method is not None and method != self._method:
            # [MQTT-4.12.0-5]
            raise _protocol_error("expected the Authentication Method of CONNECT in CONNACK")
        self._cancel()
        exchange.finish(properties.authentication_data)
        self._renew_in_time(exchange)

    def take(self, packet: Auth) -> None:
        """Take an AUTH of the server. Raises ProtocolError if it has no place here."""
        exchange, properties = self._exchange, packet.properties or Properties()
        if exchange is None or self._task is not None:
            raise _protocol_error("AUTH came, and nothing was asked")
        if packet.reason_code == CONTINUE_AUTHENTICATION:
            self._do(self._answer(exchange, properties.authentication_data))
        elif packet.reason_code == SUCCESS and self._again is not None:
            self._exchange = None
            exchange.finish(properties.authentication_data)
            self._end_again(None)
            self._renew_in_time(exchange)
        else:
            # [MQTT-3.15.2-1]
            raise _protocol_error(f"AUTH came with reason code 0x{packet.reason_code:02X}")

    def ended(self, error: HoldfastError) -> None:
        """The connection is gone, for this."""
        self._is_connected = False
        self._exchange = None
        self._renewed_at_s = 0
        self._cancel()
        self._end_again(error)

    # --- while connected

    async def again(self) -> None:
        """Prove who we are once more, and wait for the server's consent.

        Raises UsageError without a method, and what has ended the connection if that is what comes
        of it.
        """
        if not self._method:
            raise UsageError("expected an authentication with a method, such as Scram(...)")
        if not self._is_connected:
            raise ConnectionLost("not connected")
        if self._again is None:
            self._begin_again()
        assert self._again is not None
        await asyncio.shield(self._again)

    def _begin_again(self) -> None:
        self._cancel()
        self._again = asyncio.get_running_loop().create_future()
        self._again.add_done_callback(_retrieve)
        self._do(self._show_again())

    async def _show_again(self) -> None:
        try:
            exchange = await self._begun()
        except HoldfastError as error:
            # The server knows nothing of it: the connection stays as it is.
            _log.warning(f"the client cannot prove itself again: {error}")
            self._end_again(error)
            self._wait_for_renewal(RETRY_S)
            return
        self._exchange = exchange
        late = ConnectionLost(f"no answer to AUTH within {self._timeout_s:g} s")
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._timeout_s, self._broken, late)
        self._say(RE_AUTHENTICATE, exchange.data)

    async def _answer(self, exchange: Exchange, challenge: bytes | None) -> None:
        try:
            data = await exchange.answer(challenge)
        except HoldfastError as error:
            self._broken(error)
            return
        self._say(CONTINUE_AUTHENTICATION, data)  # [MQTT-4.12.0-3]

    # --- the inner working

    @property
    def _method(self) -> str:
        return "" if self._authentication is None else self._authentication.method

    async def _begun(self) -> Exchange:
        assert self._authentication is not None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._authentication.begin()
        except UsageError:
            raise
        except TimeoutError as error:
            raise ConnectionLost(f"no credentials within {self._timeout_s:g} s") from error
        except Exception as error:
            # Without its words: whoever fetches tokens may have one in them.
            raise ConnectionLost(f"no credentials: {type(error).__name__}") from error

    def _say(self, reason_code: int, data: bytes | None) -> None:
        properties = Properties()
        properties.authentication_method = self._method  # [MQTT-4.12.0-5], [MQTT-4.12.1-1]
        properties.authentication_data = data
        self._send(encode(Auth(reason_code, properties), MQTT_5_0))

    def _renew_in_time(self, exchange: Exchange) -> None:
        self._renewed_at_s = 0
        if exchange.expires_in_s is not None:
            before_s = min(RENEWED_BEFORE_S, exchange.expires_in_s * RENEWED_BEFORE_PART)
            now_s = asyncio.get_running_loop().time()
            self._renewed_at_s = now_s + exchange.expires_in_s - before_s
            self._wait_for_renewal(0)

    def _wait_for_renewal(self, delay_s: float) -> None:
        """Show anew what ends, in time, and not before this delay."""
        loop = asyncio.get_running_loop()
        if self._renewed_at_s:
            at_s = max(self._renewed_at_s, loop.time() + delay_s)
            self._timer = loop.call_at(at_s, self._renew)

    def _renew(self) -> None:
        if self._again is None:
            self._begin_again()

    def _do(self, work: Coroutine[object, object, None]) -> None:
        """Do this, unless the connection ends before."""
        task = asyncio.get_running_loop().create_task(work, name="holdfast-login")
        self._task = task
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled() and task.exception() is not None:
            _log.failure("a defect in an authentication", task.exception() or Exception())
            self._broken(ConnectionLost("the authentication has a defect, see the log"))

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self._cancel_timer()

    def _end_again(self, error: HoldfastError | None) -> None:
        self._cancel_timer()
        again, self._again = self._again, None
        if again is None or again.done():
            return
        if error is None:
            again.set_result(None)
        else:
            again.set_exception(error)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _retrieve(again: asyncio.Future[None]) -> None:
    """It is no one's fault if nobody waits for it."""
    if not again.cancelled():
        again.exception()


def _protocol_error(detail: str) -> ProtocolError:
    return ProtocolError(PROTOCOL_ERROR, detail)
