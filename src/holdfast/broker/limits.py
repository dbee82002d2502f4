"""The bounds that the pure broker works by; the operator sets some of them, see ``config``."""

from typing import Final, final

EXPIRY_NEVER: Final = 0xFFFF_FFFF  # seconds; the Session Expiry Interval of a session without end

LAZY_COMMIT_MS: Final = 50  # how long a QoS 1 acknowledgement may wait to be written
KEEP_ALIVE_LOOK_MS: Final = 10_000  # the longest time between two looks at a connection
TAIL_ENTRIES_MAX: Final = 4096  # committed entries kept in memory for sessions a little behind
TAIL_BYTES_MAX: Final = 2 * 1024 * 1024
# Of payload and properties, in one read for a session that is behind.
READ_BYTES_MAX: Final = 256 * 1024
FEED_ENTRIES_MAX: Final = 4096  # entries of the tail that one session looks at in one turn
OUTPUT_BYTES_MAX: Final = 4 * 1024 * 1024  # bytes waiting for one connection in the broker
ENDED_SUBSCRIPTIONS_MAX: Final = 64  # that still serve a session behind; then SUBACK 0x97
ROUTES_MAX: Final = 20_000  # topics whose matches are cached
ROUTE_TOPIC_CHARACTERS_MAX: Final = 256  # of such a topic: with both, some 15 MB
RETAINED_WAITING_MAX: Final = 100_000  # retained messages under way to a session; then SUBACK 0x97
DELAYED_DUE_MAX: Final = 1000  # delayed messages published into one batch
DELAYED_DUE_BYTES_MAX: Final = 4 * 1024 * 1024  # of those, or a single larger one
DEADLINES_SPARE: Final = 1024  # entries beyond twice those that hold, then the others are let go
INPUT_UNCOMMITTED_BYTES_MAX: Final = 4 * 1024 * 1024  # of one publisher, then it is not read
LOG_MARKS_MAX: Final = 1024  # points of the log that ``$SYS`` knows the size of the rest from
LATENCIES_MAX: Final = 4096  # commits that the percentiles of one interval of ``$SYS`` come from
AUTH_ROUNDS_MAX: Final = 16  # in one authentication, then 0x83
AUTH_REASON_CHARACTERS_MAX: Final = 256  # of what an authenticator tells a client
ALIASES_OUT_MAX: Final = 64  # Topic Aliases towards one client, which may take fewer


@final
class Limits:
    """What a connection and a session may take, and what clients are told. Sizes in bytes.

    ``sys_interval_ms``: how often ``$SYS`` is published; 0 leaves the tree out. ``redirect_code``:
    every CONNECT is refused with it, Use another server or Server moved; 0 for none.
    ``server_reference`` names the other server, "" if it has no name.
    """

    def __init__(
        self,
        packet_bytes_max: int = 1_048_576,
        receive_maximum: int = 1024,
        in_flight_max: int = 256,
        session_expiry_max_s: int = EXPIRY_NEVER,
        keep_alive_max_s: int = 0,
        connect_timeout_ms: int = 10_000,
        shared_strategy: int = 0,
        sys_interval_ms: int = 0,
        delayed_seconds_max: int = 31_536_000,
        delayed_messages_max: int = 100_000,
        delayed_bytes_max: int = 268_435_456,
        topic_alias_maximum: int = 64,
        maximum_qos: int = 2,
        is_retain_available: bool = True,
        check_payload_format: bool = False,
        response_information: str = "",
        server_reference: str = "",
        redirect_code: int = 0,
    ) -> None:
        self.packet_bytes_max = packet_bytes_max
        self.receive_maximum = receive_maximum
        self.in_flight_max = in_flight_max
        self.session_expiry_max_s = session_expiry_max_s
        self.keep_alive_max_s = keep_alive_max_s
        self.connect_timeout_ms = connect_timeout_ms
        self.shared_strategy = shared_strategy  # which member of a group: see ``groups``
        self.sys_interval_ms = sys_interval_ms
        self.delayed_seconds_max = delayed_seconds_max
        self.delayed_messages_max = delayed_messages_max
        self.delayed_bytes_max = delayed_bytes_max
        self.topic_alias_maximum = topic_alias_maximum
        self.maximum_qos = maximum_qos
        self.is_retain_available = is_retain_available
        self.check_payload_format = check_payload_format
        self.response_information = response_information
        self.server_reference = server_reference
        self.redirect_code = redirect_code
