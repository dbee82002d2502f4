"""What the broker counts. Each only grows while the broker runs."""

from typing import final


@final
class Counters:
    """Plain numbers, so that counting costs next to nothing."""

    def __init__(self) -> None:
        self.received = 0  # PUBLISH packets
        self.sent = 0
        self.logged = 0
        self.dropped_qos0 = 0  # for a subscriber whose socket was full
        self.too_large = 0  # for a subscriber whose Maximum Packet Size is smaller
        self.refused = 0  # PUBLISH packets that a client was told no for
        self.protocol_errors = 0
        self.connections = 0
        self.takeovers = 0
