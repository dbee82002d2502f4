"""What the broker counts. Each only grows while the broker runs."""

from typing import final


@final
class Counters:
    """Plain numbers, so that counting costs next to nothing."""

    def __init__(self) -> None:
        self.received = 0  # PUBLISH packets
        self.received_payload_bytes = 0  # of these
        self.sent = 0  # PUBLISH packets, handed to a connection
        self.sent_payload_bytes = 0
        self.packets_received = 0  # of all types
        self.packets_sent = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        self.logged_payload_bytes = 0  # of the entries of the log
        # What packets cost beyond their bytes: nodes of trees looked at, subscribers gone through.
        self.work = 0
        self.commits = 0  # batches that the store made durable
        self.dropped_qos0 = 0  # for a subscriber whose socket was full
        self.too_large = 0  # for a subscriber whose Maximum Packet Size is smaller
        self.lost = 0  # that waited for a session or group, to a limit
        self.lost_bytes = 0  # of these, payload and properties
        self.refused = 0  # PUBLISH packets that a client was told no for
        self.refused_subscriptions = 0  # topic filters that are impossible, or too many
        self.held_back = 0  # connections that published faster than they may
        self.throttled = 0  # publishers that were not read for a while since memory was short
        self.too_fast = 0  # of these, that were ended for it
        self.protocol_errors = 0
        self.refused_connections = 0  # a client was told no, within the rules
        self.timeouts = 0  # connections that were not let in in time
        self.connections = 0  # network connections
        self.connects = 0  # CONNECT packets
        self.denied_publishes = 0  # PUBLISH packets that the client's permissions do not allow
        self.denied_subscriptions = 0  # topic filters of SUBSCRIBE
        self.denied_deliveries = 0  # messages that a subscriber was passed over with
        self.expired = 0  # sessions whose time was over while they were absent
        self.takeovers = 0
        self.flapping = 0  # CONNECT packets refused since their client came too often

    @property
    def dropped(self) -> int:
        """Messages that a connected subscriber was not given, because it could not take them."""
        return self.dropped_qos0 + self.too_large
