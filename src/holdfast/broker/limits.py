"""The bounds that the pure broker works by; the operator sets some of them, see ``config``."""

from typing import Final, final

EXPIRY_NEVER: Final = 0xFFFF_FFFF  # seconds; the Session Expiry Interval of a session without end

LAZY_COMMIT_MS: Final = 50  # how long a QoS 1 acknowledgement may wait to be written
KEEP_ALIVE_LOOK_MS: Final = 10_000  # the longest time between two looks at a connection
# Likewise where it is awaited that its client's identity expires.
IDENTITY_LOOK_MS: Final = 60_000
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
# Of one connection, before the others have their turn. An honest client sends less at a time, and
# each further slice costs less than a hundredth of what is in it.
SLICE_PACKETS: Final = 32
# Nodes looked at, levels filed and subscribers gone through for one slice, before it ends: some
# milliseconds.
SLICE_WORK: Final = 2000
# Of one SUBSCRIBE, then 0x97 for the rest of its filters: levels filed, retained topics looked at,
# rules compared.
SUBSCRIBE_WORK_MAX: Final = 400_000
LATENCIES_MAX: Final = 4096  # commits that the percentiles of one interval of ``$SYS`` come from
AUTH_ROUNDS_MAX: Final = 16  # in one authentication, then 0x83
REAUTHENTICATIONS_MAX: Final = 10  # of one connection in that time, then 0x97
REAUTHENTICATIONS_MS: Final = 60_000
AUTH_REASON_CHARACTERS_MAX: Final = 256  # of what an authenticator tells a client
DROPS_MAX: Final = 4  # reads under way that drop or count what waits, for all sessions together
DROPPED_MESSAGES_MAX: Final = 1000  # by one of them
DROPPED_BYTES_MAX: Final = 4 * 1024 * 1024
LOSSES_WRITTEN_MS: Final = 10_000  # how long the count of what was lost may wait to be written
TIME_MARK_MS: Final = 60_000  # between two points of the log whose time is noted
SPACE_PASS_MS: Final = 600_000  # between two looks at all topics, for what nobody needs
TOPICS_LOOKED_AT_MAX: Final = 256  # in one step of looking for what nobody needs
NEEDED_SPANS_MAX: Final = 64  # stretches of the log that are told apart for one topic filter
ALIASES_OUT_MAX: Final = 64  # Topic Aliases towards one client, which may take fewer


# What happens to a message when the queue of a session that it is for is full.
QUEUE_POLICIES: Final = ("refuse", "drop_oldest", "drop_newest", "end_session")
REFUSE: Final = 0
DROP_OLDEST: Final = 1
DROP_NEWEST: Final = 2
END_SESSION: Final = 3
LOG_POLICIES: Final = QUEUE_POLICIES[:2]  # and when the log is full


@final
class Limits:
    """What a connection and a session may take, and what clients are told. Sizes in bytes.

    ``sys_interval_ms``: how often ``$SYS`` is published; 0 leaves the tree out. ``redirect_code``:
    every CONNECT is refused with it, Use another server or Server moved, or Server unavailable of
    a broker that only stands in; 0 for none. ``redirect_detail`` says why, to client and operator.
    ``server_reference`` names the other server, "" if it has no name. Of the bounds on sessions,
    subscriptions, queues, the log and retained messages, 0 stands for none. ``slice_packets``: how
    many packets of a connection are taken before ``Broker.go_on`` is called, 0 for all.
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
        session_expiry_default_s: int = EXPIRY_NEVER,
        sessions_max: int = 0,
        subscriptions_max: int = 0,
        queued_messages_max: int = 0,
        queued_bytes_max: int = 0,
        queue_policy: int = REFUSE,
        log_messages_max: int = 0,
        log_bytes_max: int = 0,
        log_age_max_s: int = 0,
        log_policy: int = REFUSE,
        disk_free_min_bytes: int = 0,
        retained_messages_max: int = 0,
        retained_bytes_max: int = 0,
        space_pass_entries: int = 1000,
        redirect_detail: str = "sent to another server",
        narrows_subscriptions: bool = False,
        ends_denied_before_v5: bool = False,
        slice_packets: int = 0,
        client_connects_max: int = 0,
        client_takeovers_max: int = 0,
        client_window_ms: int = 60_000,
        topic_levels_max: int = 0,
        topic_bytes_max: int = 0,
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
        self.session_expiry_default_s = session_expiry_default_s  # of 3.1.1, which cannot say
        self.sessions_max = sessions_max
        self.subscriptions_max = subscriptions_max  # of one session
        self.queued_messages_max = queued_messages_max  # of one session or shared group
        self.queued_bytes_max = queued_bytes_max
        self.queue_policy = queue_policy
        self.log_messages_max = log_messages_max
        self.log_bytes_max = log_bytes_max
        self.log_age_max_s = log_age_max_s
        self.log_policy = log_policy
        self.disk_free_min_bytes = disk_free_min_bytes
        self.retained_messages_max = retained_messages_max
        self.retained_bytes_max = retained_bytes_max
        # After so many new entries, and a fourth of those that are there, there is such a look.
        self.space_pass_entries = space_pass_entries
        self.redirect_detail = redirect_detail
        # A filter of which a part is allowed: accepted, where else it is refused.
        self.narrows_subscriptions = narrows_subscriptions
        # A PUBLISH that is denied, at QoS 1 or 2 before 5.0, ends the connection.
        self.ends_denied_before_v5 = ends_denied_before_v5
        self.slice_packets = slice_packets
        self.client_connects_max = client_connects_max  # within the window
        self.client_takeovers_max = client_takeovers_max
        self.client_window_ms = client_window_ms
        self.topic_levels_max = topic_levels_max
        self.topic_bytes_max = topic_bytes_max
