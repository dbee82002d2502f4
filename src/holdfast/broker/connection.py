"""One network connection as the pure broker sees it: its framer, its session, what it sends.

A send names the batch it waits for. Sends of one connection keep their order, so what is sent
behind a waiting packet waits with it: acknowledgements keep the order of the PUBLISH packets.
"""

from typing import TYPE_CHECKING, Final, final

from holdfast.broker.commits import Commits
from holdfast.broker.counters import Counters
from holdfast.broker.identity import Identity, PeerCertificate
from holdfast.broker.limits import (
    ALIASES_OUT_MAX,
    INPUT_UNCOMMITTED_BYTES_MAX,
    OUTPUT_BYTES_MAX,
)
from holdfast.broker.listener_rules import ListenerRules
from holdfast.broker.permissions import Permissions
from holdfast.broker.session import Session
from holdfast.errors import ProtocolError
from holdfast.protocol.framer import Framer
from holdfast.protocol.packets import CONNECT, Connect
from holdfast.protocol.reason_codes import PACKET_TOO_LARGE, PROTOCOL_ERROR
from holdfast.protocol.topic_aliases import AliasesIn, AliasesOut

if TYPE_CHECKING:
    from holdfast.broker.authentication import AuthExchange
    from holdfast.broker.rates import PublishRate

# In the order of what is taken from the peer: from HELD on, nothing.
AWAITS_CONNECT: Final = 0
CONNECTED: Final = 1
AUTHENTICATING: Final = 2  # CONNECT has come, its authentication goes on
HELD: Final = 3  # the same, and what comes waits for the end of it
CLOSED: Final = 4


@final
class Connection:
    """State of one connection; the driver reads ``take``, ``is_closing`` and ``is_read_paused``."""

    def __init__(
        self,
        number: int,
        address: str,
        commits: Commits,
        counters: Counters,
        rules: ListenerRules,
        certificate: PeerCertificate | None,
    ) -> None:
        self.number = number
        self.address = address
        self.rules = rules
        self.certificate = certificate
        self.client_id = ""
        self.state = AWAITS_CONNECT
        self.version = 0
        self.session: Session | None = None
        self.framer = Framer(min(rules.connect_bytes_max, rules.packet_bytes_max))
        self.keep_alive_ms = 0
        self.last_received_ms = 0
        self.packet_bytes_max_out = 0  # the client's Maximum Packet Size, 0 for none
        self.is_introduced = False  # its CONNECT could be read
        self.wants_problem_information = True
        self.user_name: str | None = None  # as an authenticator has confirmed it
        self.identity: Identity | None = None  # what an authenticator has granted
        self.identity_listed_ms = 0  # when its identity is looked at, 0 if it is not
        # What it may do, None for everything: it is the client's own, and replaced as a whole.
        self.permissions: Permissions | None = None
        self.auth_method: str | None = None  # the Authentication Method of its CONNECT
        self.reauthentications = 0  # begun since ``reauthenticated_ms``
        self.reauthenticated_ms = 0
        self.exchange: AuthExchange | None = None  # the authentication under way
        self.aliases_in: AliasesIn | None = None  # from its first alias on
        self.aliases_out: AliasesOut | None = None  # if its client takes any
        self.is_resumed = False  # CONNACK said Session Present
        self.asked_expiry_s = 0  # what CONNECT asked for, which we may have lowered
        self.received_open = 0  # QoS 2 publishes that this connection opened, until PUBREL
        self.is_socket_full = False  # set by the driver while the socket takes no more
        self.rate: PublishRate | None = None  # if there is a limit for it
        self.is_held = False  # above its rate: what came waits until there is room
        self.is_throttled = False  # not read while memory is short
        self.input_bytes = 0  # all that came
        self.has_more = False  # packets that came, and that wait for their turn
        self.is_heavy = False  # its last slice was a full one
        # Whom it takes its session from, while that one's bytes up to there have their turns first.
        self.waits_for: Connection | None = None
        self.waits_until_bytes = 0
        self.is_gone = False  # closed by its client, who is to be heard to the end
        self.is_at_fault = False  # it ends for what its client did or may not do
        self.is_closing = False  # the driver closes once ``take`` is written
        self._commits = commits
        self._counters = counters
        self._has_sent = False  # CONNACK, which only AUTH may precede
        self._wait = 0  # the newest batch that anything sent here waits for
        self._ready: list[bytes] = []
        self._committing: list[bytes] = []
        self._filling: list[bytes] = []
        self._is_ready_listed = False
        self._output_bytes = 0
        # QoS 1 publishes whose PUBACK still waits, and input bytes under way, by batch.
        self._acks_committing = 0
        self._acks_filling = 0
        self._input_committing = 0
        self._input_filling = 0

    @property
    def is_v5(self) -> bool:
        return self.version == 5

    @property
    def has_room(self) -> bool:
        """Whether the subscriber behind this connection should be given more."""
        return not self.is_socket_full and self._output_bytes < OUTPUT_BYTES_MAX

    @property
    def open_publishes(self) -> int:
        """QoS 1 and 2 publishes of this connection that count against our Receive Maximum."""
        return self._acks_committing + self._acks_filling + self.received_open

    @property
    def is_read_paused(self) -> bool:
        """Whether to read no further.

        Too much is uncommitted or waits for its turn, it publishes too fast, memory is short, it
        does not take its answers, or may not be who it says.
        """
        return (
            self._input_committing + self._input_filling > INPUT_UNCOMMITTED_BYTES_MAX
            or not self.has_room
            or self.state == HELD
            or self.has_more
            or self.is_held
            or self.is_throttled
        )

    def introduce(self, packet: Connect) -> None:
        """Take from CONNECT what binds all that is sent here, CONNACK included."""
        self.version = packet.version
        self.client_id = packet.client_id
        self.is_introduced = True
        properties = packet.properties
        if properties is None:
            return
        if properties.maximum_packet_size is not None:
            self.packet_bytes_max_out = properties.maximum_packet_size
        if properties.topic_alias_maximum:
            self.aliases_out = AliasesOut(min(properties.topic_alias_maximum, ALIASES_OUT_MAX))
        self.wants_problem_information = properties.request_problem_information != 0

    def is_too_large(self, data: bytes) -> bool:
        """Whether a packet is above the client's Maximum Packet Size [MQTT-3.1.2-24]."""
        return self.packet_bytes_max_out != 0 and len(data) > self.packet_bytes_max_out

    def send(self, data: bytes, wait: int) -> None:
        """Send ``data`` once batch ``wait`` is durable; 0 waits for nothing of its own."""
        if self.state == CLOSED:
            return
        self._output_bytes += len(data)
        if wait > self._wait:
            self._wait = wait
        else:
            wait = self._wait
        commits = self._commits
        if wait <= commits.durable:
            if self.state == CONNECTED:
                self._has_sent = True
            self._ready.append(data)
            if not self._is_ready_listed:
                self._is_ready_listed = True
                commits.ready.append(self)
        elif wait == commits.filling:
            if not self._filling:
                commits.waiting_filling.append(self)
            self._filling.append(data)
        else:
            if not self._committing:
                commits.waiting_committing.append(self)
            self._committing.append(data)

    def answer(self, data: bytes, wait: int) -> None:
        """As ``send``, for what is no PUBLISH and cannot be left out.

        Raises ProtocolError if the peer's Maximum Packet Size does not allow it: then there is
        no way to go on [MQTT-3.1.2-24].
        """
        if self.is_too_large(data):
            raise ProtocolError(
                PACKET_TOO_LARGE,
                f"expected a Maximum Packet Size of {len(data)} bytes or more for this answer, "
                f"it is {self.packet_bytes_max_out}",
            )
        self.send(data, wait)

    def send_last(self, data: bytes) -> None:
        """Send a DISCONNECT past all that waits, unless CONNACK still waits [MQTT-3.14.0-1]."""
        if self._has_sent and self.state != CLOSED:
            if self.is_too_large(data):
                return
            self._wait = 0
            self.send(data, 0)

    def send_puback(self, data: bytes, wait: int) -> None:
        """As ``answer``; counts against Receive Maximum until it leaves."""
        self.answer(data, wait)
        if self._wait == self._commits.filling:
            self._acks_filling += 1
        elif self._wait > self._commits.durable:
            self._acks_committing += 1

    def note_input(self, size: int) -> None:
        """Count ``size`` bytes of a PUBLISH that went into the batch being filled."""
        self._input_filling += size
        if not self._filling:
            # It must be told when the batch is durable even if nothing is sent then.
            self._filling.append(b"")
            self._commits.waiting_filling.append(self)

    def batch_taken(self) -> None:
        """The batch being filled is now under way."""
        assert not self._committing
        self._committing = self._filling
        self._filling = []
        self._acks_committing = self._acks_filling
        self._acks_filling = 0
        self._input_committing = self._input_filling
        self._input_filling = 0

    def batch_durable(self) -> None:
        """The batch under way is durable: what waited for it may leave."""
        if self.state == CLOSED:
            return
        committing = self._committing
        if committing and not committing[0]:
            # What ``note_input`` left there is nothing that is sent.
            del committing[0]
        self._has_sent = self._has_sent or len(committing) > 0
        self._ready.extend(committing)
        self._committing = []
        self._acks_committing = 0
        self._input_committing = 0
        if not self._is_ready_listed:
            self._is_ready_listed = True
            self._commits.ready.append(self)

    def take(self) -> bytes:
        """All that may leave now, in order; it is the driver's from here on."""
        data = b"".join(self._ready)
        self._counters.packets_sent += len(self._ready)
        self._counters.bytes_sent += len(data)
        self._ready = []
        self._is_ready_listed = False
        was_full = self._output_bytes >= OUTPUT_BYTES_MAX
        self._output_bytes -= len(data)
        session = self.session
        if was_full and session is not None and self._output_bytes < OUTPUT_BYTES_MAX:
            self._commits.drained.append(session)
        return data

    def close(self) -> None:
        """End it: what is ready still leaves, what waits for a commit does not."""
        if self.state == CLOSED:
            return
        self.state = CLOSED
        self.is_closing = True
        self._filling = []
        self._committing = []
        if not self._is_ready_listed:
            self._is_ready_listed = True
            self._commits.ready.append(self)


def check_first_byte(data: bytes) -> None:
    """Whoever speaks another protocol is told at once, not when a packet seems complete.

    Source: [MQTT-3.1.0-1].
    """
    if data[0] != CONNECT << 4:
        raise ProtocolError(
            PROTOCOL_ERROR, f"expected CONNECT as the first packet, 0x{data[0]:02X} came first"
        )
